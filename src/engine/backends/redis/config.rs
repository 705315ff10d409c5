//! Where the servers are, and how to log in.

use std::{fmt, path::PathBuf, time::Duration};

use crate::engine::dialing::tls::Tls;

/// The settings of a backend.
#[derive(Clone, Debug)]
pub struct Config {
    /// Groups are spread over these by their names.
    pub servers: Vec<Server>,
    /// How long a call may take at most.
    pub timeout: Duration,
    /// Whether groups have a history there.
    pub keeps_history: bool,
}

/// A server, or several that belong together.
#[derive(Clone, Debug)]
pub struct Server {
    /// How its nodes belong together.
    pub kind: Kind,
    /// Where to ask first, one at least.
    pub nodes: Vec<Address>,
    /// How to log in.
    pub login: Login,
    /// `None` for connections that are not encrypted.
    pub tls: Option<Tls>,
    /// The channels of this project begin so.
    pub prefix: String,
}

/// How nodes belong together.
#[derive(Clone, Debug)]
pub enum Kind {
    /// There is one.
    Single,
    /// A cluster: each node has a part of the hash slots.
    Cluster,
    /// The nodes are sentinels, which know the present master of a service.
    Sentinel {
        /// The name of the service.
        service: String,
        /// How to log in at the sentinels.
        login: Login,
    },
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How to log in. The password is never shown.
#[derive(Clone, Default)]
pub struct Login {
    /// The user, if it is not the default one.
    pub username: Option<String>,
    /// Its password, if it has one.
    pub password: Option<String>,
    /// The number of the database.
    pub database: i64,
}

/// Characters of a password that tell something of it.
const TELLING: usize = 4;

impl Login {
    /// Whether a text may have a part of the password in it.
    pub(super) fn may_be_in(&self, text: &str) -> bool {
        let password = self.password.as_deref().unwrap_or_default();
        // Servers escape these where they quote.
        let is_escaped = |it: char| !it.is_ascii_graphic() || matches!(it, '"' | '\'' | '\\');
        if text.contains('\\') && password.contains(is_escaped) {
            return true;
        }
        let characters: Vec<_> = password.chars().collect();
        let mut parts = characters.windows(TELLING.min(characters.len()).max(1));
        parts.any(|part| text.contains(&part.iter().collect::<String>()))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}
