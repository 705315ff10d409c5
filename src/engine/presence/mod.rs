//! Presence: which users are in a group, however many connections each of them has.
//!
//! A [`Presence`] belongs to one backend of groups, and has a [`Room`](room::Room) for each group in
//! which a user is present. A process sends the others its own connections only, as a [`Record`]: how
//! many this user has here now. A record replaces the one before, and may be repeated. Joins and
//! leaves are not sent: each process sees them by itself, in its room. Which process sends the signals
//! of that is another matter: see `claim.rs`, and `Leaver` in `person.rs`.
//!
//! Locks, in the order in which they are taken: a member's memberships, the names of rooms, a room,
//! the queue of records. Records are handed to the other processes with none of them held.

mod claim;
mod event;
mod facts;
mod gathering;
mod moving;
mod outgoing;
mod person;
mod record;
mod registry;
mod room;

pub(crate) use self::record::{part, put, split, text};
pub use self::{
    event::text as user_text,
    facts::{Contact, Facts},
    gathering::Gathering,
    outgoing::{Announcer, Note},
    record::{Malformed, Record, Source, Telling},
    registry::{Arrival, Departed, Entered, Presence},
    room::{Known, Standing},
};
