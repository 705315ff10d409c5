//! The stream to a node.

use std::{
    io, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, join, split},
    net::TcpStream,
};

use super::{config::Address, measure::Measure};
use crate::engine::{
    dialing::tls::Tls,
    resources::{descriptor::AsRaw, inherited::NotInherited},
    runtime::Engine,
};

/// How long a peer may be silent before the system asks it.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that were read and wait to be handed to groups. No more are read until they are.
pub(super) const MOST_WAITING: usize = 4 * 1024 * 1024;
/// Why a [`Limited`] stream has ended.
pub(super) const EXCEEDED: &str = "it has sent too large a reply";

/// The state of a stream, as others see it.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Grows while the peer sends, or takes what has waited for it.
    moves: AtomicU64,
    /// The gate keeps from reading what has come.
    is_held_back: AtomicBool,
    /// The peer has sent too large a reply.
    pub(super) has_exceeded: AtomicBool,
}

impl Signs {
    /// A number that grows while the peer shows that it lives.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Whether the peer has shown no life since the number was `before`, though it could.
    pub(super) fn is_still(&self, before: u64) -> bool {
        self.moves() == before && !self.is_held_back.load(Ordering::Relaxed)
    }

    fn move_on(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

/// A socket that forked children do not keep.
struct Own<S> {
    _not_inherited: NotInherited,
    socket: S,
    /// It is read only while this is open.
    gate: Option<Arc<Gate>>,
    signs: Arc<Signs>,
    /// The socket took no more. Before that it takes bytes for a peer that is gone, too.
    was_full: bool,
}

impl<S: AsRaw> Own<S> {
    fn new(socket: S, gate: Option<Arc<Gate>>, signs: &Arc<Signs>) -> Self {
        Self {
            _not_inherited: NotInherited::enter(&socket),
            socket,
            gate,
            signs: Arc::clone(signs),
            was_full: false,
        }
    }
}

/// The reading half of a stream, which ends with a reply which is larger than those of a server are.
struct Limited<S> {
    stream: S,
    measure: Measure,
    signs: Arc<Signs>,
}

/// A stream of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// Connects to a node. With a `gate` nothing is read while that is shut.
pub(super) async fn connect(
    address: &Address,
    tls: Option<&Tls>,
    gate: Option<Arc<Gate>>,
    signs: &Arc<Signs>,
) -> io::Result<Pin<Box<dyn Stream>>> {
    let (stream, writer) = split(connect_any(address, tls, gate, signs).await?);
    let reader = Limited {
        stream,
        measure: Measure::default(),
        signs: Arc::clone(signs),
    };
    Ok(Box::pin(join(reader, writer)))
}

async fn connect_any(
    address: &Address,
    tls: Option<&Tls>,
    gate: Option<Arc<Gate>>,
    signs: &Arc<Signs>,
) -> io::Result<Pin<Box<dyn Stream>>> {
    match address {
        #[cfg(unix)]
        Address::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok(Box::pin(Own::new(stream, gate, signs)))
        }
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        Address::Tcp(host, port) => {
            let engine = Engine::current().map_err(io::Error::other)?;
            let addresses = engine.look_up(host, *port).await?;
            let stream = TcpStream::connect(&addresses[..]).await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            let stream = Own::new(stream, gate, signs);
            match tls {
                None => Ok(Box::pin(stream)),
                Some(tls) => Ok(Box::pin(tls.connect(host, stream).await?)),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Own<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.gate.as_ref();
        let is_held_back = gate.is_some_and(|gate| gate.holds_back(context.waker()));
        (self.signs.is_held_back).store(is_held_back, Ordering::Relaxed);
        if is_held_back {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.signs.move_on();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Own<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(context, bytes);
        let was_full = mem::replace(&mut self.was_full, outcome.is_pending());
        if was_full && matches!(outcome, Poll::Ready(Ok(_))) {
            self.signs.move_on();
        }
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.measure.takes(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        self.signs.has_exceeded.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::Error::other(EXCEEDED)))
    }
}

/// Counts the bytes that wait to be handed to groups, and stops reading while they are many.
#[derive(Debug, Default)]
pub(super) struct Gate {
    waiting: AtomicUsize,
    readers: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Notes that `bytes` wait.
    pub(super) fn add(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Notes that `bytes` wait no more.
    pub(super) fn subtract(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::SeqCst);
        if before > MOST_WAITING && !self.is_shut() {
            let readers = mem::take(&mut *self.readers.lock());
            readers.into_iter().for_each(Waker::wake);
        }
    }

    fn is_shut(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > MOST_WAITING
    }

    /// Whether `reader` has to wait; it is woken then.
    fn holds_back(&self, reader: &Waker) -> bool {
        if !self.is_shut() {
            return false;
        }
        let mut readers = self.readers.lock();
        if !readers.iter().any(|other| other.will_wake(reader)) {
            readers.push(reader.clone());
        }
        drop(readers);
        // It may have been opened before the reader was on the list.
        self.is_shut()
    }
}

/// A stream through a pipe, in place of a socket.
#[cfg(test)]
pub(super) fn through(
    pipe: tokio::io::DuplexStream,
    gate: Option<Arc<Gate>>,
    signs: &Arc<Signs>,
) -> Pin<Box<dyn Stream>> {
    Box::pin(Own {
        _not_inherited: NotInherited::enter(&io::stdin()),
        socket: pipe,
        gate,
        signs: Arc::clone(signs),
        was_full: false,
    })
}
