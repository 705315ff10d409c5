//! This process as a node of the mesh.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    io,
    os::fd::AsRawFd,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    runtime::Handle,
    sync::Notify,
    task::spawn_blocking,
    time::sleep,
};

use super::{
    counts::{self, Counts},
    frames::{self, Frame, NodeId, Reader},
    peer::Peer,
    runtime_dir::{RuntimeDir, is_same_user},
};
use crate::{
    engine::{
        base::fork,
        groups::{Event, Groups, Message, Notice, Observer, Offer},
        history::{History, Limits, Position},
        presence::{Announcer, Note, Presence, Record, Source},
        resources::{folder::Place, inherited::NotInherited},
        runtime::Engine,
        wakeup::call::Wait,
    },
    protocol::close::CloseFrame,
};

/// How long a start waits for nodes that do not answer: one may be stopped by a debugger.
const MAX_START: Duration = Duration::from_millis(500);
/// How often changed numbers of members are sent.
const COUNTS_PERIOD: Duration = Duration::from_millis(250);
/// How often the folder is looked at: it may have been deleted, or a new node may have been missed.
const FOLDER_PERIOD: Duration = Duration::from_secs(2);
/// Numbers of members in one frame.
const COUNTS_A_FRAME: usize = 4096;
const READ_BYTES: usize = 64 * 1024;

/// Why a message was not published.
#[derive(Debug)]
pub enum Refused {
    /// Another process, or this one, is behind by too many messages, until there may be room.
    Full(Arc<Wait>),
    /// It is larger than any message can be.
    TooLarge,
    /// The node belongs to a parent process.
    Foreign,
    /// The history cannot keep it. The text says why.
    NotKept(String),
}

/// A node. Any thread may use it.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    generation: u64,
    place: Arc<Place>,
    user: u32,
    groups: Arc<Groups>,
    presence: Arc<Presence>,
    /// How many nodes have connected to this one.
    sources: AtomicU64,
    runtime: Handle,
    state: Mutex<State>,
    changed: Condvar,
    /// Groups whose number of members has changed since it was sent.
    dirty: Mutex<HashSet<String>>,
    has_dirty: Notify,
    /// Whether there was ever another node. Without one no numbers are sent.
    has_met: AtomicBool,
    /// The history that the nodes share.
    history: OnceLock<Arc<History>>,
}

#[derive(Debug)]
struct State {
    folder: Option<RuntimeDir>,
    /// Whether the folder was deleted, or replaced by a foreign one, and could not be made anew.
    is_lost: bool,
    peers: HashMap<NodeId, Arc<Peer>>,
    /// Nodes that have taken nothing for long. They are not connected to before they connect to this
    /// one: that is the sign of their life.
    still: HashSet<NodeId>,
    /// The number of the last connection of each node that has connected to this one.
    sources: HashMap<NodeId, Source>,
    /// Nodes that have connected to this one, and sent the numbers of their members.
    ready: HashSet<NodeId>,
    /// The numbers of their processes, where the system tells them.
    processes: HashMap<NodeId, i32>,
    counts: Counts,
}

impl Node {
    /// Makes this process, which acts as `user`, a node with the sockets in the folder `path`, for
    /// these groups and for the presence in them.
    ///
    /// Sleeps until it is connected with all other nodes, half a second at most.
    ///
    /// # Errors
    /// The folder cannot be used, the system has no descriptors left, or there is no engine.
    pub fn start(
        path: &Path,
        user: u32,
        groups: Arc<Groups>,
        presence: Arc<Presence>,
    ) -> io::Result<Arc<Self>> {
        let engine = Engine::current().map_err(io::Error::other)?;
        let node = Arc::new(Self {
            // Random, with the process's number: a forked child inherits the keys of the hash.
            id: RandomState::new().hash_one(std::process::id()),
            generation: fork::generation(),
            place: Arc::new(Place::open(path, user)?),
            user,
            groups,
            presence,
            sources: AtomicU64::new(0),
            runtime: engine.handle().clone(),
            state: Mutex::new(State {
                folder: None,
                is_lost: false,
                peers: HashMap::new(),
                still: HashSet::new(),
                sources: HashMap::new(),
                ready: HashSet::new(),
                processes: HashMap::new(),
                counts: Counts::default(),
            }),
            changed: Condvar::new(),
            dirty: Mutex::default(),
            has_dirty: Notify::new(),
            has_met: AtomicBool::new(false),
            history: OnceLock::new(),
        });
        node.groups
            .observe(Arc::downgrade(&node) as Weak<dyn Observer>);
        node.presence
            .announce_by(Arc::downgrade(&node) as Weak<dyn Announcer>);
        let mut state = node.state.lock();
        node.open(&mut state)?;
        let others = node.meet_all(&mut state);
        let deadline = Instant::now() + MAX_START;
        while !others
            .iter()
            .all(|id| state.ready.contains(id) || !state.peers.contains_key(id))
        {
            if node.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        drop(state);
        node.runtime.spawn(Arc::clone(&node).send_counts());
        node.runtime.spawn(Arc::clone(&node).watch_folder());
        Ok(node)
    }

    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Sends `message` to the members of the group `name` in all processes. Never sleeps.
    ///
    /// # Errors
    /// [`Refused`]; then it was sent to no process.
    pub fn publish(&self, name: &str, message: Message) -> Result<(), Refused> {
        let frame = frames::message(name, &self.groups.envelope_of(name, &message));
        self.send(frame, message.frame_len())?;
        self.groups.publish(name, message);
        Ok(())
    }

    /// The history that the nodes share, of `most` bytes at most, beside the sockets. Missing
    /// messages are read from it from now on; the first one counts.
    ///
    /// # Errors
    /// Its folder cannot be used.
    pub fn history(&self, most: u64, timeout: Duration) -> io::Result<Arc<History>> {
        let made = History::in_files(Arc::clone(&self.place), most, timeout)?;
        Ok(Arc::clone(self.history.get_or_init(|| Arc::new(made))))
    }

    /// Keeps `message` in `history`, and sends it to the members of the group `name` in all
    /// processes. Waits for files.
    ///
    /// # Errors
    /// As [`Node::publish`].
    pub fn record(
        &self,
        history: &History,
        name: &str,
        message: Message,
        limits: Limits,
    ) -> Result<Position, Refused> {
        let envelope = self.groups.envelope_of(name, &message);
        // Before it is kept: a message that is refused must not come to members later.
        self.check_room(&mut self.state.lock(), envelope.len(), message.frame_len())?;
        let position = history
            .append(name, &envelope, limits)
            .map_err(|error| Refused::NotKept(error.to_string()))?;
        let frame = frames::recorded(name, position, &envelope);
        for peer in self.state.lock().peers.values() {
            peer.send(&frame);
        }
        self.groups.statistics().count(Event::Published);
        if self.groups.offer(name, position, &envelope) == Some(Offer::Behind) {
            self.groups
                .catch_up(name, history)
                .map_err(|error| Refused::NotKept(error.to_string()))?;
        }
        Ok(position)
    }

    /// Closes the members of the group `name` in all processes. Never sleeps.
    ///
    /// # Errors
    /// As [`Node::publish`].
    pub fn close(&self, name: &str, frame: CloseFrame) -> Result<(), Refused> {
        let envelope = self.groups.envelope_of_close(name, &frame);
        self.send(frames::message(name, &envelope), 0)?;
        self.groups.close(name, frame);
        Ok(())
    }

    fn send(&self, frame: Bytes, own_bytes: usize) -> Result<(), Refused> {
        if self.is_foreign() {
            return Err(Refused::Foreign);
        }
        // Under the lock, so that messages of one publisher keep their order to a node that is met
        // meanwhile, and a message that is refused reaches no node.
        let mut state = self.state.lock();
        self.check_room(&mut state, frame.len(), own_bytes)?;
        for peer in state.peers.values() {
            peer.send(&frame);
        }
        Ok(())
    }

    /// Whether a message can be sent now that takes `length` bytes on the way, and `own_bytes` here.
    ///
    /// A node that has no room and stands still is dropped. It learns that by the end of this node's
    /// connection, and connects again.
    fn check_room(
        &self,
        state: &mut State,
        length: usize,
        own_bytes: usize,
    ) -> Result<(), Refused> {
        if self.is_foreign() {
            return Err(Refused::Foreign);
        }
        if !frames::fits(length) {
            return Err(Refused::TooLarge);
        }
        if !self.is_full(state, length, own_bytes) {
            return Ok(());
        }
        let wait = self.groups.room().wait(length.max(own_bytes));
        // There may be room since.
        if self.is_full(state, length, own_bytes) {
            return Err(Refused::Full(wait));
        }
        Ok(())
    }

    fn is_full(&self, state: &mut State, length: usize, own_bytes: usize) -> bool {
        let mut is_full = !self.groups.has_room(own_bytes);
        let still = &mut state.still;
        state.peers.retain(|id, peer| {
            if peer.has_room(length) {
                return true;
            }
            if peer.stands_still() {
                peer.end();
                still.insert(*id);
                return false;
            }
            is_full = true;
            true
        });
        is_full
    }

    /// The members of the group `name` in all processes. That of others is as old as
    /// [`COUNTS_PERIOD`].
    pub fn count(&self, name: &str) -> usize {
        if self.is_foreign() {
            return 0;
        }
        self.groups.count(name) + self.state.lock().counts.of(name)
    }

    /// The number of other nodes.
    pub fn peers(&self) -> usize {
        if self.is_foreign() {
            return 0;
        }
        self.state.lock().peers.len()
    }

    /// The numbers of the other processes, as far as the system tells them.
    pub fn processes(&self) -> Vec<i32> {
        if self.is_foreign() {
            return Vec::new();
        }
        self.state.lock().processes.values().copied().collect()
    }

    /// Writes what waits for other nodes, and removes the node's socket. Needs no engine; sleeps
    /// until `deadline` at most.
    pub fn stop(&self, deadline: Instant) {
        if self.is_foreign() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(folder) = state.folder.take() {
            folder.remove(self.id);
        }
        let peers: Vec<_> = state.peers.values().cloned().collect();
        drop(state);
        for peer in peers {
            peer.flush(deadline);
        }
    }

    /// Opens the folder and listens in it.
    fn open(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let folder = RuntimeDir(self.place.renew()?);
        let listener = folder.listen(self.id)?;
        let listener = {
            let _context = self.runtime.enter();
            UnixListener::from_std(listener)?
        };
        self.runtime.spawn(Arc::clone(self).accept(listener));
        state.folder = Some(folder);
        Ok(())
    }

    /// Connects to all nodes in the folder. Gives those that it is connected with now.
    fn meet_all(self: &Arc<Self>, state: &mut State) -> Vec<NodeId> {
        let nodes = state
            .folder
            .as_ref()
            .map_or_else(Vec::new, RuntimeDir::nodes);
        nodes
            .into_iter()
            .filter(|id| self.meet(state, *id))
            .collect()
    }

    /// Connects to a node, if it is not connected yet; false when it has ended.
    fn meet(self: &Arc<Self>, state: &mut State, id: NodeId) -> bool {
        if id == self.id || state.still.contains(&id) {
            return false;
        }
        if state.peers.contains_key(&id) {
            return true;
        }
        let Some(folder) = &state.folder else {
            return false;
        };
        let connection = match folder.connect(id) {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                folder.remove(id);
                return false;
            }
            // Too many connections wait there, or it has ended meanwhile: the next look at the
            // folder tries again.
            Err(_) => return false,
        };
        // Under the lock of the state: a note is either among these records, or is sent later.
        let (notes_from, records) = self.presence.records();
        let Ok(peer) = Peer::new(id, connection, notes_from) else {
            return false;
        };
        peer.send(&frames::hello(self.id));
        for (name, record) in records {
            peer.send(&frames::present(&name, &record.encode()));
        }
        // First this: a change of which these numbers know nothing is then sent later.
        self.has_met.store(true, Ordering::SeqCst);
        let counts: Vec<_> = self
            .groups
            .counts()
            .into_iter()
            .map(|(name, count)| {
                (
                    counts::hash(&name),
                    u32::try_from(count).unwrap_or(u32::MAX),
                )
            })
            .collect();
        for part in counts.chunks(COUNTS_A_FRAME) {
            peer.send(&frames::counts(part));
        }
        peer.send(&frames::ready());
        state.peers.insert(id, Arc::clone(&peer));
        let node = Arc::clone(self);
        self.runtime.spawn(async move {
            peer.write_on(node.groups.room()).await;
            node.drop_peer(&peer);
            node.groups.room().tell(|_| true);
        });
        true
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        let _not_inherited = NotInherited::enter(listener.as_raw_fd());
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_same_user(&stream, self.user) => {
                    self.runtime.spawn(Arc::clone(&self).read(stream));
                }
                Ok(_) => {}
                // No descriptor is left for now.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Reads what another node sends, until it ends.
    async fn read(self: Arc<Self>, mut stream: UnixStream) {
        let _not_inherited = NotInherited::enter(stream.as_raw_fd());
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let mut reader = Reader::default();
        let mut sender = None;
        let source = self.sources.fetch_add(1, Ordering::Relaxed);
        'connection: loop {
            reader.buffer.reserve(READ_BYTES);
            match stream.read_buf(&mut reader.buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => {
                        let is_first = sender.is_none();
                        if !self.take(&mut sender, source, frame).await {
                            break 'connection;
                        }
                        if let (true, Some(id), Some(process)) = (is_first, sender, process) {
                            self.state.lock().processes.insert(id, process);
                        }
                    }
                    Ok(None) => break,
                    // A broken node: what it sends is ignored from here on.
                    Err(frames::Malformed) => break 'connection,
                }
            }
            if reader.buffer.is_empty() {
                // An idle connection holds no buffer.
                reader = Reader::default();
            }
        }
        if let Some(id) = sender {
            self.lose(id, source);
            self.presence.forget(source);
        }
    }

    /// Acts on a frame; false when the connection is to end.
    async fn take(
        self: &Arc<Self>,
        sender: &mut Option<NodeId>,
        source: Source,
        frame: Frame,
    ) -> bool {
        match (frame, *sender) {
            (Frame::Hello(id), None) => {
                *sender = Some(id);
                let was_known = {
                    let mut state = self.state.lock();
                    state.still.remove(&id);
                    state.counts.forget(id);
                    // Where that fails, the next look at the folder tries again.
                    self.meet(&mut state, id);
                    state.sources.insert(id, source).is_some()
                };
                if was_known {
                    self.note_gap().await;
                }
                true
            }
            (Frame::Message { name, envelope }, Some(_)) => {
                let Ok(name) = std::str::from_utf8(&name) else {
                    return false;
                };
                self.await_room(envelope.len()).await;
                let is_message = self.groups.deliver(name, &envelope);
                if !is_message {
                    self.groups.statistics().count(Event::Unreadable);
                }
                is_message
            }
            (
                Frame::Recorded {
                    name,
                    position,
                    envelope,
                },
                Some(_),
            ) => {
                let Ok(name) = std::str::from_utf8(&name) else {
                    return false;
                };
                self.await_room(envelope.len()).await;
                match self.groups.offer(name, position, &envelope) {
                    Some(Offer::Taken) => {}
                    Some(Offer::Behind) => self.catch_up(name).await,
                    None => self.groups.statistics().count(Event::Unreadable),
                }
                true
            }
            (Frame::Present { name, record }, Some(_)) => {
                match (std::str::from_utf8(&name), Record::decode(record)) {
                    (Ok(name), Ok(record)) => self.presence.note(source, name, &record),
                    _ => return false,
                }
                true
            }
            (Frame::Counts(counts), Some(id)) => {
                self.state.lock().counts.note(id, counts);
                true
            }
            (Frame::Ready, Some(id)) => {
                self.state.lock().ready.insert(id);
                self.changed.notify_all();
                true
            }
            _ => false,
        }
    }

    /// Hands the members here what they miss of the group `name`.
    async fn catch_up(&self, name: &str) {
        let Some(history) = self.history.get() else {
            return;
        };
        let (history, groups, name) = (
            Arc::clone(history),
            Arc::clone(&self.groups),
            name.to_owned(),
        );
        // Files may have to be waited for. Where they cannot be read now, the group's next message
        // tries again.
        let _ = spawn_blocking(move || groups.catch_up(&name, &history)).await;
    }

    /// Sees to what the members here may have missed between two connections of a node.
    async fn note_gap(&self) {
        let names = self.groups.counts().into_iter().map(|(name, _)| name);
        let (recorded, mut groups): (Vec<_>, Vec<_>) =
            names.partition(|name| self.groups.position_of(name).is_some());
        for name in recorded {
            self.catch_up(&name).await;
        }
        groups.sort();
        if !groups.is_empty() {
            self.groups.notices().add(Notice::Interrupted { groups });
        }
    }

    /// Sleeps until the engine has room for so many bytes.
    async fn await_room(&self, bytes: usize) {
        while let Some(wait) = self.groups.wait_for_room(bytes) {
            wait.done().await;
        }
    }

    /// Forgets a connection that takes nothing more; the next look at the folder makes a new one if
    /// the node still lives.
    fn drop_peer(&self, peer: &Arc<Peer>) {
        let mut state = self.state.lock();
        if (state.peers.get(&peer.id)).is_some_and(|known| Arc::ptr_eq(known, peer)) {
            state.peers.remove(&peer.id);
        }
    }

    /// Forgets a node that has ended, or has dropped this one. That connects again at once.
    fn lose(self: &Arc<Self>, id: NodeId, source: Source) {
        let mut state = self.state.lock();
        if state.sources.get(&id) != Some(&source) {
            // It has another connection already.
            return;
        }
        state.still.remove(&id);
        state.counts.forget(id);
        state.ready.remove(&id);
        state.processes.remove(&id);
        if let Some(peer) = state.peers.remove(&id) {
            peer.end();
        }
        if !self.meet(&mut state, id) {
            state.sources.remove(&id);
        }
        drop(state);
        self.changed.notify_all();
    }

    async fn send_counts(self: Arc<Self>) {
        loop {
            self.has_dirty.notified().await;
            sleep(COUNTS_PERIOD).await;
            let dirty = std::mem::take(&mut *self.dirty.lock());
            let counts: Vec<_> = dirty
                .iter()
                .map(|name| {
                    let count = u32::try_from(self.groups.count(name)).unwrap_or(u32::MAX);
                    (counts::hash(name), count)
                })
                .collect();
            let state = self.state.lock();
            for part in counts.chunks(COUNTS_A_FRAME) {
                let frame = frames::counts(part);
                state.peers.values().for_each(|peer| peer.send(&frame));
            }
        }
    }

    /// Reports whether the folder can be used, when that has changed.
    fn note(&self, state: &mut State, opened: io::Result<()>) {
        let was_lost = std::mem::replace(&mut state.is_lost, opened.is_err());
        let (event, notice) = match opened {
            Err(error) if !was_lost => {
                let reason = error.to_string();
                (Event::Lost, Notice::Lost { reason })
            }
            Ok(()) if was_lost => {
                let what = self.place.folder().path().display().to_string();
                (Event::Regained, Notice::Regained { what })
            }
            _ => return,
        };
        self.groups.statistics().count(event);
        self.groups.notices().add(notice);
    }

    /// Makes the folder and the socket anew when they were deleted, and meets nodes that have been
    /// missed.
    async fn watch_folder(self: Arc<Self>) {
        loop {
            sleep(FOLDER_PERIOD).await;
            let mut state = self.state.lock();
            let Some(folder) = &state.folder else {
                // The node was stopped.
                return;
            };
            if !folder.has(self.id) {
                // Where it cannot be made anew now, the next look tries again. The nodes that are
                // connected stay so.
                let opened = self.open(&mut state);
                self.note(&mut state, opened);
            }
            self.meet_all(&mut state);
        }
    }
}

impl Observer for Node {
    fn on_members(&self, name: &str) {
        if self.is_foreign() || !self.has_met.load(Ordering::SeqCst) {
            return;
        }
        let mut dirty = self.dirty.lock();
        if !dirty.contains(name) {
            dirty.insert(name.to_owned());
            drop(dirty);
            self.has_dirty.notify_one();
        }
    }
}

impl Announcer for Node {
    fn announce(&self, note: &Note) {
        if self.is_foreign() {
            return;
        }
        let state = self.state.lock();
        if state.peers.is_empty() {
            return;
        }
        let frame = frames::present(&note.name, &note.record.encode());
        let peers = state.peers.values();
        peers
            .filter(|peer| peer.notes_from <= note.number)
            .for_each(|peer| peer.send(&frame));
    }

    fn acts_for_others(&self, _name: &str) -> bool {
        !self.is_foreign() && self.state.lock().ready.iter().all(|id| self.id < *id)
    }
}
