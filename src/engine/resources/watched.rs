//! A socket that the runtime watches.
//!
//! On Unix that is tokio's `AsyncFd`. Windows has no such thing, only tokio's own streams: there one
//! of them, of a copy of the socket's handle, knows whether the socket is ready.

pub(crate) use self::system::{Guard, Watched, watch};

#[cfg(all(unix, not(windows_way)))]
mod system {
    use std::{io, sync::Arc};

    use tokio::io::{
        Interest,
        unix::{AsyncFd, AsyncFdReadyGuard},
    };

    use crate::engine::resources::socket::{HANG_UP, Socket};

    pub(crate) type Watched = AsyncFd<Arc<Socket>>;
    pub(crate) type Guard<'a> = AsyncFdReadyGuard<'a, Arc<Socket>>;

    /// Has the running runtime watch a socket for all that a connection may ever wait for.
    pub(crate) fn watch(socket: &Arc<Socket>) -> io::Result<Watched> {
        let interest = Interest::READABLE | Interest::WRITABLE | HANG_UP.0;
        #[expect(
            unsafe_code,
            reason = "tokio cannot see that the descriptor stays open"
        )]
        // SAFETY: the `Arc` inside the `AsyncFd` keeps the socket and so its descriptor open, and
        // nothing ever changes which descriptor a `Socket` has.
        let watched = unsafe { AsyncFd::register_with_interest(Arc::clone(socket), interest) };
        watched.map_err(|error| error.into_parts().1)
    }
}

#[cfg(any(windows, windows_way))]
mod system {
    use std::{
        io,
        sync::Arc,
        task::{Context, Poll, ready},
    };

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use tokio::{
        io::{Interest, Ready},
        net::TcpStream,
    };

    use crate::engine::resources::socket::Socket;

    /// See `AsyncFd`.
    #[derive(Debug)]
    pub(crate) struct Watched {
        socket: Arc<Socket>,
        stream: TcpStream,
    }

    impl Watched {
        pub(crate) fn get_ref(&self) -> &Arc<Socket> {
            &self.socket
        }

        pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Guard<'_>> {
            let ready = self.stream.ready(interest).await?;
            Ok(Guard { of: self, ready })
        }

        pub(crate) fn poll_read_ready(
            &self,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<Guard<'_>>> {
            ready!(self.stream.poll_read_ready(context))?;
            let ready = Ready::READABLE;
            Poll::Ready(Ok(Guard { of: self, ready }))
        }

        /// Waits for `interest` anew, unless the socket is ready for it after all.
        fn clear(&self, interest: Interest, flags: PollFlags) {
            // The answer of `ready` is old: the socket may have become ready since.
            let is_ready = || {
                let mut polled = [PollFd::new(&self.stream, flags)];
                match poll(&mut polled, Some(&Timespec::default())) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            };
            let _ = self.stream.try_io(interest, is_ready);
        }
    }

    /// Has the running runtime watch a socket for all that a connection may ever wait for.
    pub(crate) fn watch(socket: &Arc<Socket>) -> io::Result<Watched> {
        let stream = TcpStream::from_std(socket.duplicate()?.into())?;
        let socket = Arc::clone(socket);
        Ok(Watched { socket, stream })
    }

    /// See `AsyncFdReadyGuard`.
    pub(crate) struct Guard<'a> {
        of: &'a Watched,
        ready: Ready,
    }

    impl Guard<'_> {
        pub(crate) fn get_inner(&self) -> &Arc<Socket> {
            &self.of.socket
        }

        pub(crate) fn ready(&self) -> Ready {
            self.ready
        }

        pub(crate) fn clear_ready(&mut self) {
            self.clear_ready_matching(self.ready);
        }

        pub(crate) fn clear_ready_matching(&mut self, ready: Ready) {
            if ready.is_readable() {
                self.of.clear(Interest::READABLE, PollFlags::IN);
            }
            if ready.is_writable() {
                self.of.clear(Interest::WRITABLE, PollFlags::OUT);
            }
        }
    }
}
