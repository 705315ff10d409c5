//! The facts about a user.

use std::sync::Arc;

/// The facts about a user that others may know.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    /// When the user joined: ISO 8601, always of one form, so that it can be compared.
    pub since: String,
    /// The key by which users differ.
    pub key: String,
    /// The primary key, if there is one.
    pub user: Option<String>,
    /// The info of the latest connection about the user, as JSON.
    pub info: String,
    /// The user's connections, as far as they are known: here and in other processes.
    pub connections: Vec<Contact>,
}

/// One connection of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// Its name.
    pub id: Arc<str>,
    /// Its info about the user, as JSON.
    pub info: Arc<str>,
}

/// The info of a connection about its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// As JSON.
    pub(super) json: String,
    /// When it was given, in milliseconds since 1970; zero for never.
    pub(super) stamp: u64,
}
