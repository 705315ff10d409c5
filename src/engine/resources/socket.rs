//! Taking over a descriptor, and the few things done to it afterwards.

use std::{
    fmt,
    io::{self, IoSlice},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[cfg(unix)]
use std::os::fd::{AsRawFd, FromRawFd};

use bytes::Bytes;

pub(crate) use super::socket_option::{HANG_UP, give_up_after};
use super::{
    descriptor::{Owned, Raw},
    socket_option,
};

/// The response to a client whose connection cannot be driven after its server has let go of it.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
    Retry-After: 5\r\nContent-Length: 0\r\n\r\n";

/// Buffers handed to one system call.
const MAX_SLICES: usize = 32;

/// Whether a call on a socket may succeed when it is repeated.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Takes the frames in place of a socket, where another server keeps that.
pub(crate) trait Carriage: fmt::Debug + Send + Sync {
    /// Takes all of `slices`, whole frames, or none of them.
    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Bytes that it has taken and the server has not.
    fn held(&self) -> usize;

    /// Drops what it can. False when the server has a large message under way.
    fn shed(&self) -> bool;

    /// Takes all from now on, and drops it.
    fn hang_up(&self);
}

/// A connected, non-blocking stream socket that belongs to the engine alone.
///
/// Dropping it ends the connection for every process that still holds a copy of the descriptor.
#[derive(Debug)]
pub struct Socket {
    way: Way,
    /// Another process goes on with the connection: it does not end here.
    is_let_go: AtomicBool,
}

#[derive(Debug)]
enum Way {
    Own(socket2::Socket),
    Carried(Arc<dyn Carriage>),
}

impl Socket {
    /// Takes `descriptor` over, a bare one of a connected TCP or Unix stream socket.
    #[cfg(all(test, unix))]
    pub(crate) fn take_over(descriptor: Raw) -> io::Result<Self> {
        Self::new(own(descriptor)?)
    }

    /// A socket from `descriptor`, that of a connected TCP or Unix stream socket.
    ///
    /// # Errors
    /// The system's, when the descriptor is no socket. It is closed then.
    pub fn new(descriptor: Owned) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        // Refuses what is no socket.
        socket.r#type()?;
        // A Unix socket has no such option, and needs none. macOS sets none of a connection that has
        // ended; the first read shows that end.
        let _ = socket.set_tcp_nodelay(true);
        socket_option::suppress_signal(&socket);
        Ok(Self::of(Way::Own(socket)))
    }

    /// The stand-in for a socket that another server keeps.
    pub(crate) fn carried(carriage: Arc<dyn Carriage>) -> Self {
        Self::of(Way::Carried(carriage))
    }

    fn of(way: Way) -> Self {
        Self {
            way,
            is_let_go: AtomicBool::new(false),
        }
    }

    /// Another descriptor of the connection, for another process.
    pub(crate) fn share(&self) -> io::Result<Owned> {
        Ok(self.own()?.try_clone()?.into())
    }

    /// Undoes [`Socket::let_go`].
    pub(crate) fn keep(&self) {
        self.is_let_go.store(false, Ordering::SeqCst);
    }

    /// From now on another process alone ends the connection.
    pub(crate) fn let_go(&self) {
        self.is_let_go.store(true, Ordering::SeqCst);
    }

    /// Whether another server has the socket.
    pub(crate) fn is_carried(&self) -> bool {
        matches!(self.way, Way::Carried(_))
    }

    /// Bytes that were taken for a server that has the socket, and that it has yet to send.
    pub(crate) fn held(&self) -> usize {
        match &self.way {
            Way::Own(_) => 0,
            Way::Carried(carriage) => carriage.held(),
        }
    }

    /// Drops what such a server need not send. False when it has a large message under way.
    pub(crate) fn shed(&self) -> bool {
        match &self.way {
            Way::Own(_) => true,
            Way::Carried(carriage) => carriage.shed(),
        }
    }

    /// The system's socket.
    fn own(&self) -> io::Result<&socket2::Socket> {
        match &self.way {
            Way::Own(socket) => Ok(socket),
            // As one on which nothing has come.
            Way::Carried(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Another handle of the system's socket.
    #[cfg(any(windows, windows_way))]
    pub(super) fn duplicate(&self) -> io::Result<socket2::Socket> {
        self.own()?.try_clone()
    }

    /// Lets the system give up on a peer that acknowledges nothing for `limit`, where it can.
    pub(crate) fn give_up_after(&self, limit: Duration) {
        if let Way::Own(socket) = &self.way {
            give_up_after(socket, limit);
        }
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.way {
            Way::Own(socket) => socket.send_vectored_with_flags(slices, socket_option::SEND),
            Way::Carried(carriage) => carriage.send(slices),
        }
    }

    /// Writes as much of `queue` as the socket takes now in one call.
    pub(crate) fn send_queue<'a>(
        &self,
        queue: impl Iterator<Item = &'a Bytes>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(queue) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        self.send(&slices[..used])
    }

    /// Adds to `buffer` what is there now, `most` bytes at most; 0 is the peer's end of the stream.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let socket = self.own()?;
        buffer.reserve_exact(most);
        let free = buffer.spare_capacity_mut();
        let most = most.min(free.len());
        let length = socket.recv(&mut free[..most])?;
        let length = length.min(most);
        #[expect(
            unsafe_code,
            reason = "`recv` overwrites the bytes: to zero them first, as tungstenite does, takes an eighth of its time"
        )]
        // SAFETY: the system has just written so many bytes after those that were there, where
        // there was room for them; `recv` borrowed that room.
        unsafe {
            buffer.set_len(buffer.len() + length);
        }
        Ok(length)
    }

    /// Bytes that were written and that the peer's system has not acknowledged yet; 0 where this
    /// system cannot tell. Of a Unix socket it is only known whether the number is 0, and whether it
    /// falls.
    pub(crate) fn unsent(&self) -> u64 {
        match &self.way {
            Way::Own(socket) => socket_option::unsent(socket),
            Way::Carried(_) => 0,
        }
    }

    /// Answers a handshake that has got no response yet with 503. Never sleeps.
    pub(crate) fn refuse(&self) {
        // A failure needs no report: a client that is gone needs no answer.
        let _ = self.send(&[IoSlice::new(REFUSAL)]);
        self.finish_sending();
    }

    /// Shuts the sending side down; the peer reads the end of the stream.
    pub(crate) fn finish_sending(&self) {
        // It fails only when the connection is gone already, which is as good.
        if let Way::Own(socket) = &self.way {
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Ends the connection both ways. Bytes that have come before can still be read.
    pub(crate) fn hang_up(&self) {
        if self.is_let_go.load(Ordering::SeqCst) {
            return;
        }
        match &self.way {
            Way::Own(socket) => {
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            Way::Carried(carriage) => carriage.hang_up(),
        }
    }
}

#[cfg(unix)]
impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> Raw {
        match &self.way {
            Way::Own(socket) => socket.as_raw_fd(),
            // It is never watched.
            Way::Carried(_) => -1,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A forked child may hold a copy of the descriptor: closing ours alone would leave the
        // peer connected, and no process would serve it.
        self.hang_up();
    }
}

/// The result of a system call, or the error in `errno`.
#[cfg(unix)]
pub(crate) fn answered(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Takes ownership of a bare descriptor that its caller has duplicated for us.
///
/// # Errors
/// The system's, when it is not open.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "the one place where a bare descriptor becomes owned"
)]
pub fn own(descriptor: Raw) -> io::Result<Owned> {
    // SAFETY: this only asks what the number means, and any number may be asked about.
    answered(unsafe { libc::fcntl(descriptor, libc::F_GETFD) })?;
    // SAFETY: it is open, as was seen above, and the caller duplicated it for us and hands it over:
    // no other code closes it. Otherwise we would close a file that other code uses.
    Ok(unsafe { Owned::from_raw_fd(descriptor) })
}

/// As on Unix, but Windows does not tell whether a handle is open.
///
/// # Errors
/// Never.
#[cfg(windows)]
#[expect(
    unsafe_code,
    reason = "the one place where a bare handle becomes owned"
)]
pub fn own(handle: Raw) -> io::Result<Owned> {
    use std::os::windows::io::FromRawSocket;

    // SAFETY: the caller has taken it from a socket of Python that lets go of it, and hands it over:
    // no other code closes it.
    Ok(unsafe { Owned::from_raw_socket(handle) })
}

/// Sleeps until one of the sockets takes more bytes, `time` at most, or a signal comes.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "the standard library has no safe function for poll"
)]
pub(crate) fn await_writable(descriptors: impl Iterator<Item = Raw>, time: Duration) {
    let polled = descriptors.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    });
    let mut polled: Vec<_> = polled.collect();
    let millis = libc::c_int::try_from(time.as_millis().max(1)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the system reads and writes as many `pollfd` as there are. The outcome does not matter:
    // the caller tries to write.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, millis) };
}

/// Duplicates a bare descriptor of the server. The copy is ours.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the server's descriptor is a bare number")]
pub(crate) fn duplicate(descriptor: Raw) -> io::Result<Owned> {
    // SAFETY: any number may be duplicated; one that is not open is answered with an error.
    let copy = answered(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the system has just made it, and no other code owns it.
    Ok(unsafe { Owned::from_raw_fd(copy) })
}

/// Takes `descriptor` out of the epoll set of another library, by its number. It may be in none.
///
/// # Errors
/// The system's, when `epoll` is no such set.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the library's descriptor is a bare number")]
pub fn unwatch(epoll: Raw, descriptor: Raw) -> io::Result<()> {
    // SAFETY: the system checks both numbers, and reads no event to remove one.
    let result =
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, descriptor, std::ptr::null_mut()) };
    match io::Error::last_os_error() {
        error if result == -1 && error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes another handle of the server's socket. It is ours.
#[cfg(windows)]
#[expect(unsafe_code, reason = "the server's handle is a bare number")]
pub(crate) fn duplicate(handle: Raw) -> io::Result<Owned> {
    use std::os::windows::io::BorrowedSocket;

    // SAFETY: the server has the socket open while it waits for the response to the handshake.
    let socket = unsafe { BorrowedSocket::borrow_raw(handle) };
    socket.try_clone_to_owned()
}

/// Whether calls on a bare descriptor may sleep.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the server's descriptor is a bare number")]
pub(crate) fn is_blocking(descriptor: Raw) -> io::Result<bool> {
    // SAFETY: any number may be asked about.
    let flags = answered(unsafe { libc::fcntl(descriptor, libc::F_GETFL) })?;
    Ok(flags & libc::O_NONBLOCK == 0)
}

/// Makes `descriptor` refer to the socket of `new`; programs that the process starts do not inherit
/// it.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the server's descriptor is a bare number")]
pub(crate) fn replace(descriptor: Raw, new: &socket2::Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: this closes the server's descriptor of the client, which is the purpose. The server
    // has given us the number; its later calls on that number reach `new`.
    answered(unsafe { libc::dup3(new.as_raw_fd(), descriptor, libc::O_CLOEXEC) })?;
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: as above.
        answered(unsafe { libc::dup2(new.as_raw_fd(), descriptor) })?;
        // SAFETY: the number has just been made to refer to `new`.
        answered(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        os::{fd::IntoRawFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn tcp_and_unix_sockets_are_taken_over_and_made_non_blocking() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (unix, mut unix_peer) = UnixStream::pair().unwrap();
        for descriptor in [tcp.into_raw_fd(), unix.into_raw_fd()] {
            let socket = Socket::take_over(descriptor).unwrap();
            let error = socket.receive(&mut Vec::new(), 8).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        }
        assert!(unix_peer.write_all(b"gone").is_err());
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        for descriptor in [-1, 1_000_000] {
            let error = Socket::take_over(descriptor).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Socket::take_over(file.into_raw_fd()).is_err());
    }
}
