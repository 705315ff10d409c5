//! What is known of a user.

/// What others may know of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facts {
    /// When the user joined: ISO 8601, always of one form, so that it can be compared.
    pub since: String,
    /// What tells users apart.
    pub key: String,
    /// The primary key, if there is one.
    pub user: Option<String>,
    /// What the latest connection says about the user, as JSON.
    pub info: String,
}

/// What a connection says about its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// As JSON.
    pub(super) json: String,
    /// When it was given, in milliseconds since 1970; zero for never.
    pub(super) stamp: u64,
}
