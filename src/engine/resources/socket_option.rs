//! Options of sockets that differ between Linux and the systems with kqueue (macOS, the BSDs).

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
use std::os::fd::AsRawFd;
use std::{ffi::c_int, time::Duration};

use tokio::io::{Interest, Ready};

/// The interest to register, so that the peer's hang-up is reported even while unread bytes keep the
/// socket readable; and the other readiness that this may report, to be cleared while nothing is read.
///
/// On Linux tokio's priority readiness brings the hang-up; it also reports urgent data, which is not
/// used.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(kqueue_way)))]
pub(crate) const HANG_UP: (Interest, Ready) = (Interest::PRIORITY, Ready::PRIORITY);
/// kqueue has no event for the hang-up alone: it is a mark on the event for bytes to read. So these
/// have to be waited for, too, and the caller has to read once more after it has cleared them.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(kqueue_way))))]
pub(crate) const HANG_UP: (Interest, Ready) = (Interest::READABLE, Ready::READABLE);

/// Flags for sending: no signal to the process when the peer has gone.
#[cfg(all(unix, not(target_vendor = "apple")))]
pub(super) const SEND: c_int = libc::MSG_NOSIGNAL;
/// macOS has an option of the socket in its place, see [`suppress_signal`]; Windows has no such signal.
#[cfg(any(windows, target_vendor = "apple"))]
pub(super) const SEND: c_int = 0;

/// Has a write to a peer that has gone give an error only, and no signal.
#[cfg(target_vendor = "apple")]
pub(super) fn suppress_signal(socket: &socket2::Socket) {
    // It fails only when the connection has ended; the first read shows that.
    let _ = socket.set_nosigpipe(true);
}

/// Each call says so by itself: see [`SEND`].
#[cfg(not(target_vendor = "apple"))]
pub(super) fn suppress_signal(_: &socket2::Socket) {}

/// Lets the system give up on a peer that acknowledges nothing for `limit`. TCP on Linux and macOS;
/// elsewhere keepalive pings find it later.
pub(crate) fn give_up_after(socket: &socket2::Socket, limit: Duration) {
    // A failure needs no report: a Unix socket has no such option, and needs none, as its peer
    // cannot vanish.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(limit));
    #[cfg(target_vendor = "apple")]
    {
        /// From macOS's `netinet/tcp.h`: seconds without an acknowledgement after which the
        /// connection is dropped.
        const TCP_RXT_CONNDROPTIME: c_int = 0x80;
        // Rounded up: 0 would be the system's own limit.
        let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        let seconds = c_int::try_from(seconds.max(1)).unwrap_or(c_int::MAX);
        #[expect(
            unsafe_code,
            reason = "no crate that is used here has a safe function for this option"
        )]
        // SAFETY: the descriptor is open while `socket` is borrowed, and the system reads one
        // integer of the given size from where one is.
        let _ = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_RXT_CONNDROPTIME,
                (&raw const seconds).cast(),
                INTEGER,
            )
        };
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    let _ = (socket, limit);
}

/// The size of an option that is an integer.
#[cfg(target_vendor = "apple")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is 4, and `try_from` is no constant function"
)]
const INTEGER: libc::socklen_t = size_of::<c_int>() as libc::socklen_t;

/// Bytes that were written and that the peer's system has not acknowledged yet; 0 where this system
/// cannot tell. Of a Unix socket it is only known whether the number is 0, and whether it falls.
pub(super) fn unsent(socket: &socket2::Socket) -> u64 {
    let mut bytes: c_int = 0;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[expect(
        unsafe_code,
        reason = "no crate that is used here has a safe function for TIOCOUTQ"
    )]
    // SAFETY: the descriptor is open while `socket` is borrowed, and the system writes one integer
    // to where one is.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    #[cfg(target_vendor = "apple")]
    let outcome = {
        let mut length = INTEGER;
        #[expect(
            unsafe_code,
            reason = "no crate that is used here has a safe function for SO_NWRITE"
        )]
        // SAFETY: as above; `length` says how much room there is.
        unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NWRITE,
                (&raw mut bytes).cast(),
                &raw mut length,
            )
        }
    };
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    let outcome = {
        let _ = (socket, &mut bytes);
        -1
    };
    if outcome == 0 {
        u64::try_from(bytes).unwrap_or_default()
    } else {
        0
    }
}
