//! Taking a client's connection from a server on Windows, where nothing can take a socket's place.
//!
//! The server's handle stays as it is, and its close ends nothing, as ours is another handle of the
//! socket. This is for servers that use theirs no more: those of the test kit.

use std::io;

use crate::engine::{
    base::error::Error,
    resources::{
        descriptor::{Owned, Raw},
        socket::duplicate,
    },
};

/// One takeover. Dropping it finishes it.
#[derive(Debug)]
pub struct Takeover(Option<Owned>);

impl Takeover {
    /// Makes another handle of the connection of `server_side`.
    ///
    /// # Errors
    /// The system's, when there is no handle left.
    pub fn prepare(server_side: Raw) -> io::Result<Self> {
        duplicate(server_side).map(|client| Self(Some(client)))
    }

    /// Does nothing: the server's handle stays as it is.
    ///
    /// # Errors
    /// Never.
    pub fn put_placeholder(&mut self, _: Raw) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing: the server writes to no placeholder.
    ///
    /// # Errors
    /// Never.
    pub fn discard(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Returns the handle of the client's connection away; once.
    pub fn take_client(&mut self) -> Option<Owned> {
        self.0.take()
    }

    /// Closes what is left. May be repeated.
    pub fn finish(&mut self) {
        self.0 = None;
    }
}
