//! The connection on which this node sends to another one.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::{io::Interest, sync::Notify, time::timeout};

use super::frames::NodeId;
use crate::engine::{
    groups::WaitingPublishers,
    resources::{
        inherited::NotInherited,
        socket::{self, Socket, is_transient},
        watched::{self, Watched},
    },
};

/// Bytes that may wait for one node. An empty queue takes any message.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// A node that has taken nothing for so long holds up no publisher any more.
const MAX_STANDSTILL: Duration = Duration::from_secs(3);

/// Another node. Any thread may send to it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: NodeId,
    /// The first note of presence that it was not sent at the start.
    pub(super) notes_from: u64,
    /// Before the socket: fields are dropped in this order.
    _not_inherited: NotInherited,
    socket: Arc<Socket>,
    waiting: Mutex<Waiting>,
    /// Notified when something waits.
    has_more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// When the node has last taken something, or the first of these bytes began to wait.
    moved: Option<Instant>,
    is_over: bool,
}

impl Peer {
    /// The other end of a connection that was just made.
    pub(super) fn new(
        id: NodeId,
        connection: socket2::Socket,
        notes_from: u64,
    ) -> io::Result<Arc<Self>> {
        let socket = Arc::new(Socket::new(OwnedFd::from(connection))?);
        Ok(Arc::new(Self {
            id,
            notes_from,
            _not_inherited: NotInherited::enter(&*socket),
            socket,
            waiting: Mutex::default(),
            has_more: Notify::new(),
        }))
    }

    /// Whether so many more bytes may be sent.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let waiting = self.waiting.lock();
        waiting.queue.is_empty() || waiting.bytes + more <= MAX_WAITING_BYTES
    }

    /// Whether it has taken nothing for long, though something waits: its process may be stopped.
    pub(super) fn stands_still(&self) -> bool {
        let waiting = self.waiting.lock();
        let is_long = |moved: Instant| moved.elapsed() >= MAX_STANDSTILL;
        !waiting.queue.is_empty() && waiting.moved.is_some_and(is_long)
    }

    /// Sends a frame: writes it if nothing waits, else queues it. Never sleeps.
    pub(super) fn send(&self, frame: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.is_over {
            return;
        }
        let mut written = 0;
        if waiting.queue.is_empty() {
            match self.socket.send(&[IoSlice::new(frame)]) {
                Ok(length) if length == frame.len() => return,
                Ok(length) => written = length,
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    waiting.is_over = true;
                    drop(waiting);
                    // Nothing else wakes `write_on` where the other end has not gone.
                    self.has_more.notify_one();
                    return;
                }
            }
        }
        let rest = frame.slice(written..);
        if waiting.queue.is_empty() || written > 0 {
            waiting.moved = Some(Instant::now());
        }
        waiting.bytes += rest.len();
        waiting.queue.push_back(rest);
        drop(waiting);
        self.has_more.notify_one();
    }

    /// Writes what waits, as far as the socket takes it. True when nothing waits any more.
    fn write(&self) -> io::Result<bool> {
        let mut waiting = self.waiting.lock();
        while !waiting.queue.is_empty() && !waiting.is_over {
            let mut written = match self.socket.send_queue(waiting.queue.iter()) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => {
                    *waiting = Waiting {
                        is_over: true,
                        ..Waiting::default()
                    };
                    return Err(error);
                }
            };
            waiting.bytes -= written;
            waiting.moved = Some(Instant::now());
            while let Some(front) = waiting.queue.front_mut() {
                if written < front.len() {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                waiting.queue.pop_front();
            }
        }
        Ok(true)
    }

    /// The socket, watched by the runtime in whose context this is called.
    pub(super) fn watch(&self) -> io::Result<Watched> {
        watched::watch(&self.socket)
    }

    /// Writes what waits whenever the socket takes it, until the connection ends.
    pub(super) async fn write_on(&self, watched: Watched, waiting: &WaitingPublishers) {
        while self.write_once(&watched, waiting).await.is_ok() {}
    }

    async fn write_once(&self, watched: &Watched, waiting: &WaitingPublishers) -> io::Result<()> {
        let has_written_all = self.write()?;
        waiting.tell(|bytes| self.has_room(bytes));
        if has_written_all {
            if self.waiting.lock().is_over {
                return Err(io::ErrorKind::NotConnected.into());
            }
            return tokio::select! {
                () = self.has_more.notified() => Ok(()),
                // The other node sends nothing here, so that is the end. Its other connection may
                // have ended before this one was made, and then tells nothing any more.
                _ = watched.ready(Interest::READABLE) => Err(io::ErrorKind::NotConnected.into()),
            };
        }
        let Ok(guard) = timeout(MAX_STANDSTILL, watched.ready(Interest::WRITABLE)).await else {
            // Publishers that wait for it find that it stands still.
            waiting.tell(|_| true);
            return Ok(());
        };
        let mut guard = guard?;
        if !self.write()? {
            guard.clear_ready();
        }
        Ok(())
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        *self.waiting.lock() = Waiting {
            is_over: true,
            ..Waiting::default()
        };
        self.socket.finish_sending();
        self.has_more.notify_one();
    }

    /// Writes all that waits for `peers`, without the engine. Sleeps until `deadline` at most.
    pub(super) fn flush(mut peers: Vec<Arc<Self>>, deadline: Instant) {
        loop {
            peers.retain(|peer| matches!(peer.write(), Ok(false)));
            let left = deadline.saturating_duration_since(Instant::now());
            if peers.is_empty() || left.is_zero() {
                return;
            }
            let sockets = peers.iter().map(|peer| peer.socket.as_raw_fd());
            socket::await_writable(sockets, left.min(Duration::from_secs(1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, net::Shutdown, thread};

    use socket2::{Domain, Type};
    use tokio::{task::yield_now, time::timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_peer_that_takes_nothing_costs_others_no_time_at_the_end() {
        let peers = [1, 2].map(|id| {
            let (ours, theirs) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
            ours.set_nonblocking(true).unwrap();
            (Peer::new(id, ours, 0).unwrap(), theirs)
        });
        let large = Bytes::from(vec![0; 8 * 1024 * 1024]);
        for (peer, _) in &peers {
            peer.send(&large);
        }
        let [(stopped, theirs), (other, mut reader)] = peers;
        let (length, is_flushed) = (large.len(), Arc::clone(&stopped));
        let reading = thread::spawn(move || {
            reader.set_read_timeout(Some(LIMIT)).unwrap();
            let read = reader.read_exact(&mut vec![0; length]);
            // That of which nothing is read goes on only now.
            is_flushed.end();
            drop(theirs);
            read
        });
        Peer::flush(vec![stopped, other], Instant::now() + LIMIT * 2);
        reading.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_can_be_sent_ends() {
        let (ours, theirs) = socket2::Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        ours.set_nonblocking(true).unwrap();
        let peer = Peer::new(1, ours, 0).unwrap();
        let waiting = WaitingPublishers::default();
        let breaking = async {
            for _ in 0..3 {
                yield_now().await;
            }
            // Of this alone nothing is to be read.
            theirs.shutdown(Shutdown::Read).unwrap();
            peer.send(&Bytes::from_static(b"frame"));
        };
        let writing = timeout(
            Duration::from_secs(20),
            peer.write_on(peer.watch().unwrap(), &waiting),
        );
        let (ended, ()) = tokio::join!(writing, breaking);
        ended.unwrap();
    }
}
