//! Taking a client's connection over from its server without the server noticing.
//!
//! The server keeps its descriptor, but what the descriptor means is exchanged for a *placeholder*:
//! one end of a socket pair, which reads as the end of the stream and swallows what is written.
//! All that needs a descriptor of its own is allocated first, while a failure still does no harm.

use std::{
    io,
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net,
    },
};

use socket2::{Domain, Type};
use tokio::{
    io::{copy, sink},
    net::UnixStream,
};

use super::engine::Engine;
use crate::engine::{
    base::error::Error,
    resources::socket::{duplicate, is_blocking, replace},
};

#[cfg(target_os = "linux")]
pub use crate::engine::resources::socket::unwatch;

/// One takeover, from its allocation to its end. Dropping it finishes it.
#[derive(Debug)]
pub struct Takeover {
    /// A descriptor of the client's connection that belongs to us.
    client: Option<OwnedFd>,
    /// The server's end, until it is put in place of the server's descriptor.
    theirs: Option<socket2::Socket>,
    /// Our end.
    ours: Option<socket2::Socket>,
}

impl Takeover {
    /// Allocates what it takes to take over `server_side`, the server's descriptor of the
    /// connection.
    ///
    /// # Errors
    /// The system's, when there is no descriptor left, or `server_side` is not open.
    pub fn prepare(server_side: RawFd) -> io::Result<Self> {
        let client = duplicate(server_side)?;
        let (theirs, ours) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        // The server reads the end of the stream at once: some wait for it before they close.
        ours.shutdown(Shutdown::Write)?;
        Ok(Self {
            client: Some(client),
            theirs: Some(theirs),
            ours: Some(ours),
        })
    }

    /// Puts the placeholder in place of the server's descriptor, blocking if that was.
    ///
    /// # Errors
    /// The system's, when `server_side` is not open any more; the placeholder is still ours then. Once
    /// it is in place, a further call does nothing.
    pub fn put_placeholder(&mut self, server_side: RawFd) -> io::Result<()> {
        if let Some(theirs) = &self.theirs {
            if !is_blocking(server_side)? {
                theirs.set_nonblocking(true)?;
            }
            replace(server_side, theirs)?;
            self.theirs = None;
        }
        Ok(())
    }

    /// Returns the descriptor of the client's connection away; once.
    pub fn take_client(&mut self) -> Option<OwnedFd> {
        self.client.take()
    }

    /// Drops all that the server writes to its placeholder from now on. Without this call the server
    /// blocks once the placeholder is full. As a rule that does not happen: a placeholder holds what the
    /// server writes before it closes the response.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no descriptor or engine to be had.
    pub fn discard(&self) -> Result<(), Error> {
        match &self.ours {
            Some(ours) => discard(ours.as_raw_fd()),
            None => Ok(()),
        }
    }

    /// Closes what is left, after the server has written to its placeholder. May be repeated.
    pub fn finish(&mut self) {
        self.client = None;
        self.theirs = None;
        if let Some(ours) = self.ours.take() {
            // Unread bytes would reset the server's end and look like a client that broke off.
            let mut bytes = [MaybeUninit::uninit(); 4096];
            while matches!(
                ours.recv_with_flags(&mut bytes, libc::MSG_DONTWAIT),
                Ok(1..)
            ) {}
        }
    }
}

/// Reads the socket of `descriptor` up to its end, and drops the bytes. The descriptor itself stays
/// its owner's.
///
/// # Errors
/// [`Error::Io`] when there is no descriptor or engine to be had.
pub fn discard(descriptor: RawFd) -> Result<(), Error> {
    let descriptor = duplicate(descriptor).map_err(Error::io("duplicating a descriptor"))?;
    let stream = net::UnixStream::from(descriptor);
    stream
        .set_nonblocking(true)
        .map_err(Error::io("making a socket non-blocking"))?;
    Engine::current()?.handle().spawn(async move {
        if let Ok(mut stream) = UnixStream::from_std(stream) {
            let _ = copy(&mut stream, &mut sink()).await;
        }
    });
    Ok(())
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::{fd::IntoRawFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn server_holds_a_placeholder_and_we_the_client() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let mut takeover = Takeover::prepare(server.as_raw_fd()).unwrap();
        takeover.put_placeholder(server.as_raw_fd()).unwrap();
        server.write_all(b"to nobody").unwrap();
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
        let mut ours = UnixStream::from(takeover.take_client().unwrap());
        takeover.finish();
        client.write_all(b"to us").unwrap();
        ours.write_all(b"from us").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(ours.read(&mut buffer).unwrap(), 5);
        assert_eq!(client.read(&mut buffer).unwrap(), 7);
        assert_eq!(&buffer[..7], b"from us");
    }

    #[test]
    fn a_server_never_sleeps_in_a_placeholder_that_is_discarded() {
        let (_client, mut server) = UnixStream::pair().unwrap();
        let mut takeover = Takeover::prepare(server.as_raw_fd()).unwrap();
        takeover.put_placeholder(server.as_raw_fd()).unwrap();
        takeover.discard().unwrap();
        server.write_all(&vec![b'x'; 4 * 1024 * 1024]).unwrap();
        takeover.finish();
        takeover.discard().unwrap();
    }

    #[test]
    fn without_the_exchange_the_connection_stays_the_servers() {
        let (mut client, mut server) = UnixStream::pair().unwrap();
        let mut takeover = Takeover::prepare(server.as_raw_fd()).unwrap();
        takeover.finish();
        takeover.put_placeholder(server.as_raw_fd()).unwrap();
        assert!(takeover.take_client().is_none());
        server.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        let closed = 1_000_000;
        let error = Takeover::prepare(closed).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let (_client, server) = UnixStream::pair().unwrap();
        let mut takeover = Takeover::prepare(server.into_raw_fd()).unwrap();
        // However often it is tried: a placeholder that is not in place must not pass for one.
        for _ in 0..3 {
            assert!(takeover.put_placeholder(closed).is_err());
        }
    }
}
