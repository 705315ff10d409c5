//! Groups: one message to all members of a name, encoded once.
//!
//! [`Groups`] is the registry: it knows the groups by their names, a [`Group`] its members, and each
//! member its [`Memberships`]. A message that is published waits in its group's queue. A task of the
//! engine, the fan-out, takes what waits there, encodes it once for all members with the same
//! compression ([`delivery`]), and hands it to one member after the other, in turns, so that other
//! connections do not wait for it.
//!
//! A member is known by the trait [`Member`]: a connection of the engine, the mailbox of a
//! connection that an ASGI server drives, or the [`Seat`] of either in a room.
//!
//! Locks, in the order in which they are taken: a member's memberships, the registry's names, a
//! group. None of them is held while a message is handed to a member. Publishers that wait for
//! [`room`] are woken without any of them.

mod deputy;
pub mod envelope;
mod fan_out;
mod group;
mod mailbox;
mod markers;
mod member;
mod memberships;
mod message;
mod moving;
mod notices;
mod numbered;
mod passage;
mod recorded;
mod registry;
mod seal;
mod seat;
mod stamps;
mod statistics;
#[cfg(test)]
mod tests;
mod waiting_publishers;

pub(crate) use self::memberships::Membership;
#[cfg(unix)]
pub(crate) use self::waiting_publishers::WaitingPublishers;
pub use self::{
    deputy::{Departed, Deputy, Standing, frames_of},
    fan_out::FanOutThread,
    mailbox::Mailbox,
    markers::Token,
    member::{Eviction, Handed, Member, WhenFull, Whom, delivery_to},
    memberships::{Joined, MemberId, Memberships},
    message::{Delivery, Message},
    moving::MarkedCut,
    notices::{Notice, Notices},
    numbered::{room_ended, room_text, text as numbered_text},
    passage::{Bucket, Passage, Publisher},
    recorded::{Mismatch, Offer},
    registry::{Groups, Observer},
    seat::{Seat, Seats},
    stamps::{Cut, Stamp, Stamps},
    statistics::{Event, Statistics},
};
