//! Presence: which users are in a group, however many connections each of them has.
//!
//! A [`Presence`] belongs to one backend of groups, and has a [`Room`](room::Room) for each group in
//! which somebody is present. A room knows each user once, as a [`Person`](person::Person): with its own
//! connections in this process, the *tabs*, and with the number of those in each other process, the
//! *shares*. A person without any connection stays for the grace, and is removed when that is over.
//!
//! A process tells the others of its own tabs only, with a [`Record`]: so many connections has this
//! user here now. A record replaces the one before, and may be repeated. What joined or left is not
//! told: each process sees that by itself, as a person comes into its room or is removed from it. So
//! those that watch a room in one process are told of what that process knows, in this order: nobody
//! leaves who had not joined before.
//!
//! A room has a task ([`registry`]): it tells those that watch, several events at once when they come
//! quickly one after the other ([`event`]), and removes persons whose grace is over.
//!
//! Locks, in the order in which they are taken: a member's memberships, the names of rooms, a room,
//! the queue of records. Records are handed to the other processes with none of them held.

mod event;
mod facts;
mod gathering;
mod outgoing;
mod person;
mod record;
mod registry;
mod room;

pub use self::{
    facts::Facts,
    gathering::Gathering,
    outgoing::{Announcer, Note},
    record::{Malformed, Record, Source},
    registry::{Departed, Entered, Presence, Visit},
};
