//! Sockets as the system names them, and pairs of sockets within the process.
//!
//! A socket is a descriptor on Unix, and a handle on Windows. Windows has no pairs of sockets: there a pair is
//! a connection of the process with itself. `windows_way` has Linux do as Windows does, for tests.

use std::io;

#[cfg(any(windows, windows_way))]
pub(crate) use std::net::TcpStream as Stream;
#[cfg(unix)]
pub(crate) use std::os::fd::AsRawFd as AsRaw;
#[cfg(unix)]
pub use std::os::fd::{OwnedFd as Owned, RawFd as Raw};
#[cfg(all(unix, not(windows_way)))]
pub(crate) use std::os::unix::net::UnixStream as Stream;
#[cfg(windows)]
pub(crate) use std::os::windows::io::AsRawSocket as AsRaw;
#[cfg(windows)]
pub use std::os::windows::io::{OwnedSocket as Owned, RawSocket as Raw};

#[cfg(any(windows, windows_way))]
pub(crate) use tokio::net::TcpStream as AsyncStream;
#[cfg(all(unix, not(windows_way)))]
pub(crate) use tokio::net::UnixStream as AsyncStream;

/// The number that no socket has.
#[cfg(unix)]
pub(crate) const NONE: Raw = -1;
/// The number that no socket has.
#[cfg(windows)]
pub(crate) const NONE: Raw = Raw::MAX;

/// Makes two sockets that are connected with each other, neither of which ever sleeps.
pub(crate) fn pair() -> io::Result<(Stream, Stream)> {
    let (one, other) = connected()?;
    one.set_nonblocking(true)?;
    other.set_nonblocking(true)?;
    Ok((one, other))
}

#[cfg(all(unix, not(windows_way)))]
fn connected() -> io::Result<(Stream, Stream)> {
    Stream::pair()
}

/// Another program may connect to the listener first: it is let go.
#[cfg(any(windows, windows_way))]
fn connected() -> io::Result<(Stream, Stream)> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    let one = Stream::connect(listener.local_addr()?)?;
    loop {
        let (other, address) = listener.accept()?;
        if address == one.local_addr()? {
            one.set_nodelay(true)?;
            other.set_nodelay(true)?;
            return Ok((one, other));
        }
    }
}

/// The number by which the system knows a socket.
#[cfg(unix)]
pub(crate) fn raw(socket: &impl AsRaw) -> Raw {
    socket.as_raw_fd()
}

/// The number by which the system knows a socket.
#[cfg(windows)]
pub(crate) fn raw(socket: &impl AsRaw) -> Raw {
    socket.as_raw_socket()
}

/// Turns a socket into its number, which the caller has to close.
#[cfg(unix)]
pub fn into_raw(socket: Owned) -> Raw {
    std::os::fd::IntoRawFd::into_raw_fd(socket)
}

/// Turns a socket into its number, which the caller has to close.
#[cfg(windows)]
pub fn into_raw(socket: Owned) -> Raw {
    std::os::windows::io::IntoRawSocket::into_raw_socket(socket)
}
