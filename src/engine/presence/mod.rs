//! Presence: which users are in a group, however many connections each of them has.
//!
//! A [`Presence`] belongs to one backend of groups, and has a [`Room`](room::Room) for each group in
//! which a user is present. A room knows each user once, as a [`Person`](person::Person): with the
//! *local connections*, which are in this process, and with the number of those in each other process,
//! the *shares*. A person without any connection stays for the grace, and is removed when that is over.
//!
//! A process sends the others its local connections only, as a [`Record`]: how many this user has
//! here now. A record replaces the one before, and may be repeated. Joins and leaves are not
//! sent: each process sees them by itself, when a person enters its room or is removed from it. So the
//! watching connections of a process get what this process knows, in its order: a user joins before
//! the same user leaves. Which process sends the signals of that is another matter: see `claim.rs`,
//! and `Leaver` in `person.rs`.
//!
//! A room has a task ([`registry`]): it sends events to the watching connections, several at once when
//! they come quickly one after the other ([`event`]), and removes persons whose grace is over.
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

pub use self::{
    event::text as user_text,
    facts::{Contact, Facts},
    gathering::Gathering,
    outgoing::{Announcer, Note},
    record::{Malformed, Record, Source, Telling},
    registry::{Arrival, Departed, Entered, Presence},
    room::{Known, Standing},
};
