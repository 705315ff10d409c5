//! This process as a node of the mesh.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    io,
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
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
    frames::{self, Frame, NodeId, Reader, Unnumbered},
    peer::Peer,
    runtime_dir::{RuntimeDir, is_same_user},
};
use crate::{
    engine::{
        base::{
            fork,
            panics::{self, Task, contain_task},
        },
        groups::{Event, Groups, Message, Notice, Observer, Offer, Publisher, Stamp, envelope},
        history::{FileHistory, History, Limits, Position, Watcher},
        presence::{Announcer, Malformed, Note, Presence, Record, Source, Telling},
        resources::{folder::Place, inherited::NotInherited, watched::Watched},
        runtime::Engine,
        wakeup::call::Wait,
    },
    protocol::close::CloseFrame,
};

/// How long a start waits for nodes that do not answer: one may be stopped by a debugger.
const MAX_START: Duration = Duration::from_millis(500);
/// How soon a start tries again to connect.
const START_PERIOD: Duration = Duration::from_millis(20);
/// How often changed numbers of members are sent.
const COUNTS_PERIOD: Duration = Duration::from_millis(250);
/// How often the folder is looked at: it may have been deleted, or a new node may have been missed.
const FOLDER_PERIOD: Duration = Duration::from_secs(2);
/// How often the histories of groups that have members here are read, by the clock that tells the age
/// of files: it may be set forward.
const USE_PERIOD: Duration = Duration::from_secs(60 * 60);
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
    /// Another process holds the group's history. The text says so.
    Held(String),
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
    has_dirty: Arc<Notify>,
    /// How far the messages of other nodes have come.
    progress: Mutex<HashMap<NodeId, Progress>>,
    /// Whether there was ever another node. Without one no numbers are sent.
    has_met: AtomicBool,
    /// The history that the nodes share.
    history: OnceLock<Arc<dyn History>>,
    /// The name of the place that panics next.
    #[cfg(test)]
    breaks: Mutex<Option<&'static str>>,
}

/// How long the last messages of a node that has ended may be on their way to another one.
const ON_THE_WAY: Duration = Duration::from_secs(5);
/// How long a node that others know may take to connect to this one.
const CONNECTS: Duration = Duration::from_secs(1);

/// The numbers of the messages of another node: of the last one that is looked at, and of the last one
/// that is in the queue of its group.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// The last of its connections to this one. Frames on an earlier one are out of date.
    source: Source,
    begun: u64,
    done: u64,
    /// The moment from which on no more messages of it come, unless it connects again.
    ends_at: Option<Instant>,
}

impl Progress {
    fn has_ended(&self, since: Duration) -> bool {
        (self.ends_at).is_some_and(|at| at + since <= Instant::now())
    }
}

#[derive(Debug, Default)]
struct State {
    /// Whether it starts: it has no members, and has published nothing.
    is_new: bool,
    folder: Option<RuntimeDir>,
    /// The task that lets other nodes connect, and those that run until the node is stopped. Tasks
    /// hold the node only while they have something to do: without other owners it ends.
    acceptor: Option<Task>,
    tasks: Vec<Task>,
    /// Whether the folder was deleted, or replaced by a foreign one, and could not be made anew.
    is_lost: bool,
    peers: HashMap<NodeId, Arc<Peer>>,
    /// The number of the last message that was published here.
    published: u64,
    /// The claims of this process to tell that a user has joined, by their numbers.
    claims: HashMap<u64, Claim>,
    /// Nodes that have not answered to a claim in time: no other claim waits for them before they
    /// answer again.
    silent: HashSet<NodeId>,
    /// Nodes that have taken nothing for long. They are not connected to before they connect to this
    /// one: that is the sign of their life.
    still: HashSet<NodeId>,
    /// Nodes that have connected to this one, and sent the numbers of their members.
    ready: HashSet<NodeId>,
    /// The numbers of their processes, where the system tells them.
    processes: HashMap<NodeId, i32>,
    counts: Counts,
}

/// A claim for which other nodes may have to tell of theirs: it is ready when all have answered.
#[derive(Debug)]
struct Claim {
    name: Arc<str>,
    key: String,
    nodes: HashSet<NodeId>,
}

impl Node {
    /// Makes this process, which acts as `user`, a node with the sockets in the folder `path`, for
    /// these groups and for the presence in them.
    ///
    /// Sleeps until it is connected with all other nodes, half a second at most.
    ///
    /// # Errors
    /// The folder cannot be used, the system has no descriptors left, a node lives that it cannot
    /// connect to, or there is no engine.
    pub fn start(
        path: &Path,
        user: u32,
        groups: Arc<Groups>,
        presence: Arc<Presence>,
    ) -> io::Result<Arc<Self>> {
        let node = Self::new(path, user, groups, presence)?;
        let mut state = node.state.lock();
        node.open(&mut state)?;
        let deadline = Instant::now() + MAX_START;
        if let Err(error) = node.await_others(&mut state, deadline) {
            drop(state);
            node.stop(deadline);
            return Err(error);
        }
        state.is_new = false;
        let has_dirty = Arc::clone(&node.has_dirty);
        state.tasks = vec![
            node.keep_up("telling the numbers of members", move |node| {
                Self::send_counts(node, Arc::clone(&has_dirty))
            }),
            node.keep_up("watching the folder", Self::watch_folder),
        ];
        drop(state);
        Ok(node)
    }

    /// A node that is not in the folder yet. The groups and the presence tell it of changes.
    fn new(
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
                is_new: true,
                ..State::default()
            }),
            changed: Condvar::new(),
            dirty: Mutex::default(),
            has_dirty: Arc::default(),
            progress: Mutex::default(),
            has_met: AtomicBool::new(false),
            history: OnceLock::new(),
            #[cfg(test)]
            breaks: Mutex::default(),
        });
        node.groups
            .observe(Arc::downgrade(&node) as Weak<dyn Observer>);
        node.presence
            .announce_by(Arc::downgrade(&node) as Weak<dyn Announcer>);
        Ok(node)
    }

    /// Connects to all nodes in the folder, and waits until they have connected to this one, until
    /// `deadline` at most.
    ///
    /// # Errors
    /// As [`Node::meet_all`], at the end of that time.
    fn await_others(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        deadline: Instant,
    ) -> io::Result<()> {
        loop {
            let met = self.meet_all(state);
            let is_over = Instant::now() >= deadline;
            match met {
                Ok(others) if is_over || others.is_subset(&state.ready) => return Ok(()),
                Err(error) if is_over => return Err(error),
                _ => {}
            }
            self.changed.wait_for(state, START_PERIOD);
        }
    }

    /// Starts a task, which does `what`. After a panic it begins anew.
    fn keep_up<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        mut begin: impl FnMut(Weak<Self>) -> F + Send + 'static,
    ) -> Task {
        let (node, failed) = (Arc::downgrade(self), Arc::downgrade(self));
        let begin = move || begin(Weak::clone(&node));
        Task::start(&self.runtime, begin, move || {
            if let Some(node) = failed.upgrade() {
                node.groups.note_restart(what);
                // Some may not have been told.
                node.groups
                    .counts()
                    .iter()
                    .for_each(|(name, _)| node.on_members(name));
            }
        })
    }

    /// Panics where a test has asked for that.
    fn break_at(&self, what: &'static str) {
        #[cfg(test)]
        assert_ne!(
            self.breaks.lock().take_if(|wanted| *wanted == what),
            Some(what)
        );
        let _ = (self, what);
    }

    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// The state; `None` in a forked child, where the lock may be held for ever.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        (!self.is_foreign()).then(|| self.state.lock())
    }

    /// Sends `message` to the members of the group `name` in all processes. Never sleeps.
    ///
    /// # Errors
    /// [`Refused`]; then it was sent to no process.
    pub fn publish(&self, name: &str, message: Message) -> Result<(), Refused> {
        let frame = frames::message(name, &self.groups.envelope_of(name, &message));
        let length = message.frame_len();
        self.send(frame, length, |number| {
            self.groups
                .publish(name, message.stamped(self.stamp(number)));
        })
    }

    fn stamp(&self, number: u64) -> Stamp {
        Stamp {
            publisher: self.id,
            number,
        }
    }

    /// The history that the nodes share, of `most` bytes at most, beside the sockets. Missing
    /// messages are read from it from now on; the first one counts.
    ///
    /// # Errors
    /// Its folder cannot be used.
    pub fn history(&self, most: u64, timeout: Duration) -> io::Result<Arc<dyn History>> {
        let watcher = Arc::clone(&self.groups) as Arc<dyn Watcher>;
        let made = FileHistory::open(Arc::clone(&self.place), most, timeout, watcher)?;
        Ok(Arc::clone(self.history.get_or_init(|| Arc::new(made))))
    }

    /// Keeps `message` in `history`, and sends it to the members of the group `name` in all
    /// processes. Waits as [`History::append`].
    ///
    /// # Errors
    /// As [`Node::publish`].
    pub fn record(
        self: &Arc<Self>,
        history: &dyn History,
        name: &str,
        message: Message,
        limits: Limits,
        patience: Option<Duration>,
    ) -> Result<Position, Refused> {
        if self.is_foreign() {
            return Err(Refused::Foreign);
        }
        let envelope = self.groups.envelope_of(name, &message);
        // Before it is kept: a message that is refused must not come to members later.
        self.check_room(&mut self.state.lock(), envelope.len(), message.frame_len())?;
        let position = history
            .append(name, &envelope, limits, patience)
            .map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => Refused::Held(error.to_string()),
                _ => Refused::NotKept(error.to_string()),
            })?;
        let frame = frames::recorded(name, position, &envelope);
        for peer in self.state.lock().peers.values() {
            peer.send(&frame);
        }
        self.groups.statistics().count_in(name, Event::Published);
        let offered = self.groups.offer(name, position, &envelope);
        // It is kept: an error here would have it published again.
        if offered == Some(Offer::Behind) && self.groups.catch_up(name, history, patience).is_err()
        {
            let (node, name) = (Arc::clone(self), name.to_owned());
            self.runtime
                .spawn(async move { node.catch_up(&name).await });
        }
        Ok(position)
    }

    /// Closes the members of the group `name` in all processes. Never sleeps.
    ///
    /// # Errors
    /// As [`Node::publish`].
    pub fn close(&self, name: &str, frame: CloseFrame) -> Result<(), Refused> {
        let envelope = self.groups.seal(name, envelope::of_close(&frame));
        self.send(frames::message(name, &envelope), 0, |_| {
            self.groups.close(name, frame);
        })
    }

    /// Hands an envelope that is no message of a publisher to the members of the group `name` in all
    /// processes: an event of a room, or an eviction. Never sleeps.
    ///
    /// # Errors
    /// As [`Node::publish`].
    pub fn pass_on(&self, name: &str, envelope: &[u8]) -> Result<(), Refused> {
        self.send(frames::message(name, envelope), envelope.len(), |number| {
            (self.groups).deliver_stamped(name, envelope, self.stamp(number));
        })
    }

    /// Sends a frame to the other nodes, and has `put` put it into the queue of its group here.
    fn send(
        &self,
        frame: Unnumbered,
        own_bytes: usize,
        put: impl FnOnce(u64),
    ) -> Result<(), Refused> {
        // Under the lock, so that messages of one publisher keep their order to a node that is met
        // meanwhile, and a message that is refused reaches no node.
        let mut state = self.state().ok_or(Refused::Foreign)?;
        self.check_room(&mut state, frame.len(), own_bytes)?;
        state.published += 1;
        let number = state.published;
        let frame = frame.with(number);
        for peer in state.peers.values() {
            peer.send(&frame);
        }
        // Under the lock, too: the numbers rise in the queue, as they do on the way to others.
        put(number);
        Ok(())
    }

    /// How far the messages of each node have come, this one among them: each that comes from now on,
    /// and has a higher number, is put into the queue of its group. Those of a node that has ended some
    /// time ago have come everywhere.
    pub fn begun(&self) -> Vec<(NodeId, u64)> {
        if self.is_foreign() {
            return Vec::new();
        }
        let progress = self.progress.lock();
        let mut begun: Vec<_> = progress
            .iter()
            .filter(|(_, of)| !of.has_ended(ON_THE_WAY))
            .map(|(id, of)| (*id, of.begun))
            .collect();
        drop(progress);
        begun.push((self.id, self.state.lock().published));
        begun
    }

    /// Whether the messages of each of these nodes up to its number are in the queues of their groups,
    /// as far as they come here.
    pub fn has_taken(&self, begun: &[(NodeId, u64)]) -> bool {
        let Some(published) = self.state().map(|state| state.published) else {
            return false;
        };
        let mut progress = self.progress.lock();
        let mut has_taken = |(id, number): &(NodeId, u64)| {
            if *id == self.id {
                return *number <= published;
            }
            // One that is unknown has ended before this one began, or is about to connect.
            let of = progress.entry(*id).or_insert_with(|| Progress {
                ends_at: Some(Instant::now() + CONNECTS),
                ..Progress::default()
            });
            *number <= of.done || of.has_ended(Duration::ZERO)
        };
        // All of them are looked at: each that is unknown is waited for from now on.
        begun.iter().filter(|each| !has_taken(each)).count() == 0
    }

    /// Notes a node whose messages come from now on. Forgets those that have ended.
    fn note_source(&self, id: NodeId, source: Source, number: u64) {
        let mut progress = self.progress.lock();
        progress.retain(|_, of| !of.has_ended(ON_THE_WAY));
        let of = Progress {
            source,
            begun: number,
            done: number,
            ends_at: None,
        };
        progress.insert(id, of);
    }

    /// Whether `source` is the last connection of the node `id` to this one.
    fn is_latest(&self, id: NodeId, source: Source) -> bool {
        let progress = self.progress.lock();
        progress.get(&id).is_some_and(|of| of.source == source)
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
        if !frames::fits(length) {
            return Err(Refused::TooLarge);
        }
        if !self.is_full(state, length, own_bytes) {
            return Ok(());
        }
        let wait = self.groups.waiting().wait(length.max(own_bytes));
        // There may be room since.
        if self.is_full(state, length, own_bytes) {
            return Err(Refused::Full(wait));
        }
        Ok(())
    }

    fn is_full(&self, state: &mut State, length: usize, own_bytes: usize) -> bool {
        let have_room = state.drop_still(length);
        !(have_room && self.groups.has_room(own_bytes))
    }

    /// The members of the group `name` in all processes. That of others is as old as
    /// [`COUNTS_PERIOD`].
    pub fn count(&self, name: &str) -> usize {
        let others = self.state().map_or(0, |state| state.counts.of(name));
        self.groups.count(name) + others
    }

    /// The number of other nodes.
    pub fn peers(&self) -> usize {
        self.state().map_or(0, |state| state.peers.len())
    }

    /// The numbers of the other processes, as far as the system tells them.
    pub fn processes(&self) -> Vec<i32> {
        let state = self.state();
        state.map_or_else(Vec::new, |state| {
            state.processes.values().copied().collect()
        })
    }

    /// Writes what waits for other nodes, and removes the node's socket. Needs no engine; sleeps
    /// until `deadline` at most.
    pub fn stop(&self, deadline: Instant) {
        let Some(mut state) = self.state() else {
            return;
        };
        if let Some(folder) = state.folder.take() {
            folder.remove(self.id);
        }
        let peers: Vec<_> = state.peers.values().cloned().collect();
        state.acceptor = None;
        state.tasks.clear();
        drop(state);
        Peer::flush(peers, deadline);
    }

    /// Opens the folder and listens in it.
    fn open(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let folder = RuntimeDir(self.place.renew()?);
        let listener = folder.listen(self.id)?;
        let listener = {
            let _context = self.runtime.enter();
            UnixListener::from_std(listener)?
        };
        let listener = Arc::new(listener);
        let accept = move |node| Self::accept(node, Arc::clone(&listener));
        // It takes the place of that of a folder before.
        state.acceptor = Some(self.keep_up("letting other processes connect", accept));
        state.folder = Some(folder);
        Ok(())
    }

    /// Connects to all nodes in the folder. Returns those that it is connected with now.
    ///
    /// # Errors
    /// The last one: the nodes cannot be found, or one of them cannot be connected to.
    fn meet_all(self: &Arc<Self>, state: &mut State) -> io::Result<HashSet<NodeId>> {
        let nodes = state
            .folder
            .as_ref()
            .map_or(Ok(Vec::new()), RuntimeDir::nodes)?;
        let (mut met, mut failed) = (HashSet::new(), None);
        for id in nodes {
            match self.meet(state, id) {
                Ok(true) => _ = met.insert(id),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(met), Err)
    }

    /// Connects to a node, if it is not connected yet; false when it has ended, or takes nothing.
    ///
    /// # Errors
    /// The connection is not possible now.
    fn meet(self: &Arc<Self>, state: &mut State, id: NodeId) -> io::Result<bool> {
        if id == self.id || state.still.contains(&id) {
            return Ok(false);
        }
        if state.peers.contains_key(&id) {
            return Ok(true);
        }
        let Some(folder) = &state.folder else {
            return Ok(false);
        };
        let Some(connection) = connect(folder, id)? else {
            return Ok(false);
        };
        // Under the lock of the state: a note is either among these records, or is sent later.
        let (notes_from, records) = self.presence.records();
        let peer = Peer::new(id, connection, notes_from)?;
        let watched = {
            let _context = self.runtime.enter();
            peer.watch()?
        };
        self.introduce(&peer, state.is_new, state.published, records);
        state.peers.insert(id, Arc::clone(&peer));
        self.begin_writing(peer, watched);
        Ok(true)
    }

    /// Sends the first frames to a node: what it has to know of this one.
    fn introduce(
        &self,
        peer: &Peer,
        is_new: bool,
        published: u64,
        records: Vec<(Arc<str>, Record)>,
    ) {
        peer.send(&frames::hello(self.id, is_new, published));
        for (name, record) in records {
            peer.send(&frames::present(&name, &record.encode()));
        }
        // First this: a change of which these numbers know nothing is then sent later.
        self.has_met.store(true, Ordering::SeqCst);
        for frame in count_frames(self.groups.counts()) {
            peer.send(&frame);
        }
        peer.send(&frames::ready());
    }

    /// Starts the task that writes what waits for a node, until that ends.
    fn begin_writing(self: &Arc<Self>, peer: Arc<Peer>, watched: Watched) {
        let (node, groups) = (Arc::downgrade(self), Arc::clone(&self.groups));
        self.runtime.spawn(async move {
            let written = contain_task(peer.write_on(watched, groups.waiting())).await;
            if written.is_none() {
                // The other node connects again.
                peer.end();
            }
            if let Some(node) = node.upgrade() {
                if written.is_none() {
                    node.groups.note_restart("sending to another process");
                }
                node.drop_peer(&peer);
            }
            groups.waiting().tell(|_| true);
        });
    }

    async fn accept(node: Weak<Self>, listener: Arc<UnixListener>) {
        let _not_inherited = NotInherited::enter(&*listener);
        loop {
            let accepted = listener.accept().await;
            let Some(node) = node.upgrade() else {
                return;
            };
            node.break_at("accept");
            match accepted {
                Ok((stream, _)) if is_same_user(&stream, node.user) => {
                    node.runtime
                        .spawn(Self::read(Arc::downgrade(&node), stream));
                }
                Ok(_) => {}
                // No descriptor is left for now.
                Err(_) => {
                    drop(node);
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Reads what another node sends, until it ends.
    async fn read(node: Weak<Self>, stream: UnixStream) {
        let Some(source) =
            (node.upgrade()).map(|node| node.sources.fetch_add(1, Ordering::Relaxed))
        else {
            return;
        };
        let mut sender = None;
        let taken = contain_task(Self::take_all(&node, stream, source, &mut sender)).await;
        if taken.is_none() {
            // The other node connects again, and may send the same again.
            sleep(panics::BEFORE_RESTART).await;
        }
        let Some(node) = node.upgrade() else {
            return;
        };
        if taken.is_none() {
            node.groups
                .note_restart("reading what another process sends");
        }
        if let Some(id) = sender {
            node.lose(id, source);
            node.presence.forget(source);
        }
    }

    /// Acts on what another node sends, and notes which one it is.
    async fn take_all(
        node: &Weak<Self>,
        mut stream: UnixStream,
        source: Source,
        sender: &mut Option<NodeId>,
    ) {
        let _not_inherited = NotInherited::enter(&stream);
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let mut reader = Reader::default();
        loop {
            reader.buffer.reserve(READ_BYTES);
            match stream.read_buf(&mut reader.buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let Some(node) = node.upgrade() else {
                return;
            };
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => {
                        let is_first = sender.is_none();
                        if !node.take(sender, source, frame).await {
                            return;
                        }
                        if let (true, Some(id), Some(process)) = (is_first, *sender, process) {
                            node.state.lock().processes.insert(id, process);
                        }
                    }
                    Ok(None) => break,
                    // A broken node: what it sends is ignored from here on.
                    Err(Malformed) => return,
                }
            }
            if reader.buffer.is_empty() {
                // An idle connection holds no buffer.
                reader = Reader::default();
            }
        }
    }

    /// Acts on a frame; false when the connection is to end.
    async fn take(
        self: &Arc<Self>,
        sender: &mut Option<NodeId>,
        source: Source,
        frame: Frame,
    ) -> bool {
        let Some(id) = *sender else {
            let Frame::Hello { id, is_new, number } = frame else {
                return false;
            };
            *sender = Some(id);
            self.on_hello(id, source, is_new, number).await;
            return true;
        };
        if !self.is_latest(id, source) {
            return false;
        }
        match frame {
            Frame::Hello { .. } => return false,
            Frame::Message {
                number,
                name,
                envelope,
            } => return self.on_message(id, number, &name, &envelope).await,
            Frame::Recorded {
                name,
                position,
                envelope,
            } => return self.on_recorded(&name, position, &envelope).await,
            Frame::Present { name, record } => {
                match (std::str::from_utf8(&name), Record::decode(record)) {
                    (Ok(name), Ok(record)) => self.note_present(id, source, name, &record),
                    _ => return false,
                }
            }
            Frame::Seen(claim) => self.on_seen(id, claim),
            Frame::Counts(counts) => self.state.lock().counts.note(id, counts),
            Frame::Ready => {
                self.state.lock().ready.insert(id);
                self.changed.notify_all();
            }
        }
        true
    }

    /// Connects to a node that has connected to this one.
    async fn on_hello(self: &Arc<Self>, id: NodeId, source: Source, is_new: bool, number: u64) {
        {
            let mut state = self.state.lock();
            self.note_source(id, source, number);
            state.still.remove(&id);
            state.counts.forget(id);
            // Where that fails, the next look at the folder tries again.
            let _ = self.meet(&mut state, id);
        }
        // Its earlier messages did not come here.
        if !is_new {
            self.note_gap().await;
        }
    }

    /// Delivers the message of that number of the node `id` to the members here; false when it is none.
    async fn on_message(&self, id: NodeId, number: u64, name: &[u8], envelope: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else {
            return false;
        };
        self.progress.lock().entry(id).or_default().begun = number;
        self.break_at("take");
        let is_message = if self.await_room(name, envelope.len()).await {
            let stamp = Stamp {
                publisher: id,
                number,
            };
            self.groups.deliver_stamped(name, envelope, stamp)
        } else {
            self.groups.note_eviction(name, envelope);
            true
        };
        if !is_message {
            self.groups.statistics().count(Event::Unreadable);
        }
        self.progress.lock().entry(id).or_default().done = number;
        is_message
    }

    /// Delivers a message of a group with a history to the members here, with those that they miss;
    /// false when it is none.
    async fn on_recorded(&self, name: &[u8], position: Position, envelope: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else {
            return false;
        };
        if !self.await_room(name, envelope.len()).await {
            return true;
        }
        match self.groups.offer(name, position, envelope) {
            Some(Offer::Taken) => {}
            Some(Offer::Behind) => self.catch_up(name).await,
            None => self.groups.statistics().count(Event::Unreadable),
        }
        true
    }

    /// Notes what another node tells of a user, and answers to its claim.
    fn note_present(&self, id: NodeId, source: Source, name: &str, record: &Record) {
        self.presence.note(source, name, record);
        let Telling::Claimed(claim) = record.telling else {
            return;
        };
        self.presence
            .contest(source, name, &record.facts.key, claim, false);
        // Claims of this process that go before it are among those that wait.
        self.presence.send();
        if let Some(peer) = self.state.lock().peers.get(&id) {
            peer.send(&frames::seen(claim));
        }
    }

    /// Notes that another node has answered to a claim.
    fn on_seen(&self, id: NodeId, claim: u64) {
        let mut state = self.state.lock();
        state.silent.remove(&id);
        let ready = state.note_seen(id, |number| number == claim);
        drop(state);
        self.tell_ready(ready);
    }

    /// Tells of claims for which all nodes have answered.
    fn tell_ready(&self, ready: Vec<(u64, Claim)>) {
        for (number, claim) in ready {
            self.presence.be_ready(&claim.name, &claim.key, number);
        }
    }

    /// Waits until the members here can take so many bytes. False when there are none: a message
    /// for them has to be neither copied nor checked.
    async fn await_room(&self, name: &str, bytes: usize) -> bool {
        while self.groups.has(name) {
            let Some(wait) = self.groups.wait_for_room(bytes) else {
                return true;
            };
            wait.done().await;
        }
        false
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
        let _ = spawn_blocking(move || groups.catch_up(&name, &*history, None)).await;
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
        for name in &groups {
            self.groups.note_loss(name);
        }
        if !groups.is_empty() {
            self.groups.notices().add(Notice::Interrupted(groups));
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
        if !self.is_latest(id, source) {
            // It has another connection already.
            return;
        }
        state.still.remove(&id);
        state.counts.forget(id);
        state.ready.remove(&id);
        state.silent.remove(&id);
        let ready = state.note_seen(id, |_| true);
        state.processes.remove(&id);
        if let Some(peer) = state.peers.remove(&id) {
            peer.end();
        }
        if let Some(of) = self.progress.lock().get_mut(&id) {
            of.ends_at = Some(Instant::now());
        }
        // Where that fails, the next look at the folder tries again.
        let _ = self.meet(&mut state, id);
        drop(state);
        self.tell_ready(ready);
        self.changed.notify_all();
    }

    async fn send_counts(node: Weak<Self>, has_dirty: Arc<Notify>) {
        loop {
            has_dirty.notified().await;
            sleep(COUNTS_PERIOD).await;
            let Some(node) = node.upgrade() else {
                return;
            };
            let dirty = std::mem::take(&mut *node.dirty.lock());
            node.break_at("counts");
            let counts = dirty.into_iter().map(|name| {
                let count = node.groups.count(&name);
                (name, count)
            });
            let frames = count_frames(counts);
            let mut state = node.state.lock();
            for frame in frames {
                // Frames that wait for no room must not pile up for a process that was stopped.
                state.drop_still(frame.len());
                state.peers.values().for_each(|peer| peer.send(&frame));
            }
        }
    }

    /// Reports whether the folder can be used, when that has changed.
    fn note(&self, state: &mut State, opened: io::Result<()>) {
        let was_lost = std::mem::replace(&mut state.is_lost, opened.is_err());
        let (event, notice) = match opened {
            Err(error) if !was_lost => (Event::Lost, Notice::Lost(error.to_string())),
            Ok(()) if was_lost => {
                let what = self.place.folder().path().display().to_string();
                (Event::Regained, Notice::Regained(what))
            }
            _ => return,
        };
        self.groups.statistics().count(event);
        self.groups.notices().add(notice);
    }

    /// Uses the histories of groups that have members here: else they lose their numbering.
    async fn use_histories(&self) {
        for name in self.groups.recorded_names() {
            self.catch_up(&name).await;
        }
    }

    /// Looks at the folder, and uses the histories.
    async fn watch_folder(node: Weak<Self>) {
        let mut used_at = SystemTime::UNIX_EPOCH;
        loop {
            sleep(FOLDER_PERIOD).await;
            let Some(node) = node.upgrade() else {
                return;
            };
            node.break_at("folder");
            if !node.look_at_folder() {
                // The node was stopped.
                return;
            }
            if used_at.elapsed().is_ok_and(|since| since < USE_PERIOD) {
                continue;
            }
            used_at = SystemTime::now();
            node.use_histories().await;
        }
    }

    /// Makes the folder and the socket anew when they were deleted, and meets nodes that have been
    /// missed. False when the node was stopped.
    fn look_at_folder(self: &Arc<Self>) -> bool {
        let mut state = self.state.lock();
        let Some(folder) = &state.folder else {
            return false;
        };
        if !folder.has(self.id) {
            // Where it cannot be made anew now, the next look tries again. The nodes that are
            // connected stay so.
            let opened = self.open(&mut state);
            self.note(&mut state, opened);
        }
        // Where that fails, the next look tries again.
        let _ = self.meet_all(&mut state);
        true
    }
}

/// Connects to a node; `None` when it has ended, or takes no connection now.
///
/// # Errors
/// The connection is not possible now.
fn connect(folder: &RuntimeDir, id: NodeId) -> io::Result<Option<socket2::Socket>> {
    let error = match folder.connect(id) {
        Ok(connection) => return Ok(Some(connection)),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            folder.remove(id);
            Ok(None)
        }
        // It has ended meanwhile, or too many connections wait there.
        io::ErrorKind::NotFound | io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(error),
    }
}

/// The frames that tell these numbers of members.
fn count_frames(counts: impl IntoIterator<Item = (String, usize)>) -> Vec<Bytes> {
    let counts: Vec<_> = (counts.into_iter())
        .map(|(name, count)| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (counts::hash(&name), count)
        })
        .collect();
    let parts = counts.chunks(COUNTS_A_FRAME);
    parts.map(frames::counts).collect()
}

impl State {
    /// Drops nodes that have no room for `length` bytes and stand still. False when others have none.
    fn drop_still(&mut self, length: usize) -> bool {
        let (still, mut have_room) = (&mut self.still, true);
        self.peers.retain(|id, peer| {
            if peer.has_room(length) {
                return true;
            }
            if peer.stands_still() {
                peer.end();
                still.insert(*id);
                return false;
            }
            have_room = false;
            true
        });
        have_room
    }

    /// Notes that the node `id` has answered to those claims, or does not do so any more. Returns
    /// the claims for which all have.
    fn note_seen(&mut self, id: NodeId, which: impl Fn(u64) -> bool) -> Vec<(u64, Claim)> {
        let mut ready = Vec::new();
        for (number, claim) in &mut self.claims {
            if which(*number) && claim.nodes.remove(&id) && claim.nodes.is_empty() {
                ready.push(*number);
            }
        }
        let claims = &mut self.claims;
        (ready.into_iter())
            .filter_map(|number| claims.remove_entry(&number))
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.is_foreign() {
            // The others end their connections then.
            self.state
                .get_mut()
                .peers
                .values()
                .for_each(|peer| peer.end());
        }
    }
}

impl Publisher for Node {
    fn publish_event(&self, name: &str, event: Message) -> bool {
        let envelope = self.groups.envelope_of(name, &event);
        self.pass_on(name, &envelope).is_ok()
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
        let Some(mut state) = self.state() else {
            return;
        };
        // Frames that wait for no room must not pile up for a process that was stopped.
        state.drop_still(note.record.len());
        if let Telling::Claimed(number) = note.record.telling {
            let claim = Claim {
                name: Arc::clone(&note.name),
                key: note.record.facts.key.clone(),
                nodes: (state.peers.keys().copied())
                    .filter(|id| !state.silent.contains(id))
                    .collect(),
            };
            if claim.nodes.is_empty() {
                self.presence.be_ready(&claim.name, &claim.key, number);
            } else {
                // A record that repeats a claim is answered to, too.
                state.claims.entry(number).or_insert(claim);
            }
        }
        if state.peers.is_empty() {
            return;
        }
        let frame = frames::present(&note.name, &note.record.encode());
        let peers = state.peers.values();
        peers
            .filter(|peer| peer.notes_from <= note.number)
            .for_each(|peer| peer.send(&frame));
    }

    fn end_claim(&self, id: u64) {
        let Some(mut state) = self.state() else {
            return;
        };
        if let Some(claim) = state.claims.remove(&id) {
            state.silent.extend(claim.nodes);
        }
    }

    fn acts_for_others(&self, _name: &str) -> bool {
        (self.state()).is_some_and(|state| state.ready.iter().all(|id| self.id < *id))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        os::unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixListener,
        },
        path::PathBuf,
        process::Command,
        thread,
    };

    use super::*;
    use crate::{
        engine::{
            after_fork_in_child,
            connection::{Connection, settings::Settings},
            groups::{Eviction, WhenFull, Whom},
            presence::{Arrival, Facts},
        },
        protocol::message::Kind,
    };

    const LIMIT: Duration = Duration::from_secs(60);

    /// The user of this process: that of a file that it makes.
    fn user() -> u32 {
        let name = format!("{}-{:?}", std::process::id(), thread::current().id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "").unwrap();
        let user = fs::metadata(&path).unwrap().uid();
        fs::remove_file(path).unwrap();
        user
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("node-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn start(path: &Path) -> Arc<Node> {
        start_with(path, None)
    }

    fn start_with(path: &Path, key: Option<&[u8]>) -> Arc<Node> {
        let engine = Engine::current().unwrap();
        let groups = Groups::new(engine.fan_out_threads().unwrap(), WhenFull::Close, key);
        let presence = Presence::new(Arc::clone(&groups));
        Node::start(path, user(), groups, presence).unwrap()
    }

    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn text(payload: &str) -> Message {
        Message::new(Kind::Text, payload.as_bytes(), &[])
    }

    fn counted(node: &Node, name: &str) -> u64 {
        let counters = node.groups.statistics().read();
        counters.iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn join(node: &Node, name: &str) -> (Arc<Connection>, std::os::unix::net::UnixStream) {
        let (connection, peer) = Connection::for_test(1, &Settings::SMALL, "");
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        node.groups.join(name, &connection, [1; 16]);
        (connection, peer)
    }

    #[test]
    fn tasks_that_panic_begin_anew_and_that_is_counted_and_told() {
        let path = folder("panics");
        let (first, second) = (start(&path), start(&path));
        let (member, _peer) = join(&second, "room");
        for (number, what) in ["take", "accept", "counts", "folder"]
            .into_iter()
            .enumerate()
        {
            *second.breaks.lock() = Some(what);
            let stranger = (what == "accept").then(|| start(&path));
            let more = (what == "counts").then(|| join(&second, "hall"));
            if what == "take" {
                first.publish("room", text("xx")).unwrap();
            }
            eventually(what, || counted(&second, "restarted") == number as u64 + 1);
            drop((stranger, more));
        }
        let is_interrupted = |notice| matches!(notice, Some(Notice::Interrupted(_)));
        // A task is counted before what it may have missed is told.
        let until = Instant::now() + Duration::from_secs(60);
        let mut notices = std::iter::from_fn(|| second.groups.notices().take(Some(until)));
        assert!(notices.any(|notice| is_interrupted(Some(notice))));
        // All of them work as before: those that read and accept, and that tells the numbers.
        let third = start(&path);
        eventually("they are connected", || {
            let is_ready = second.state.lock().ready.len() == 2;
            is_ready && third.count("room") == 1 && first.peers() == 2
        });
        second.groups.leave("room", member.as_ref());
        eventually("the number is told", || third.count("room") == 0);
        let (_member, mut again) = join(&second, "room");
        first.publish("room", text("ok")).unwrap();
        let mut bytes = [0; 4];
        again.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"\x81\x02ok");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn nodes_that_meet_late_tell_what_may_be_missed() {
        let path = folder("late");
        let first = start(&path);
        let socket = path.join(format!("{:016x}", first.id));
        // It is not found: as if a connection to it were not possible.
        fs::rename(&socket, path.join("away")).unwrap();
        let second = start(&path);
        fs::rename(path.join("away"), &socket).unwrap();
        let nodes = [&first, &second];
        let members = nodes.map(|node| join(node, "room"));
        for node in nodes {
            node.publish("room", text("xx")).unwrap();
        }
        for node in nodes {
            let notice = node.groups.notices().take(Some(Instant::now() + LIMIT));
            assert!(
                matches!(&notice, Some(Notice::Interrupted(groups)) if groups == &["room"]),
                "{notice:?}"
            );
        }
        // Messages that are published now come.
        for (node, (_, peer)) in nodes.into_iter().zip(members.iter().rev()) {
            node.publish("room", text("ok")).unwrap();
            let mut bytes = [0; 8];
            (&*peer).read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"\x81\x02xx\x81\x02ok");
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_start_fails_where_others_cannot_be_connected_to() {
        let path = folder("closed");
        let (first, engine) = (start(&path), Engine::current().unwrap());
        // The address of no socket, which a node that starts cannot tell from one that lives.
        let groups = Groups::new(engine.fan_out_threads().unwrap(), WhenFull::Close, None);
        let presence = Presence::new(Arc::clone(&groups));
        let datagram = std::os::unix::net::UnixDatagram::bind(path.join("0".repeat(16))).unwrap();
        let start = || Node::start(&path, user(), Arc::clone(&groups), Arc::clone(&presence));
        assert!(start().is_err());
        let left = fs::read_dir(&path).unwrap().count();
        assert_eq!(left, 2, "its socket is removed");
        drop(datagram);
        fs::remove_file(path.join("0".repeat(16))).unwrap();
        // The next attempt begins anew: the others are told of members and users.
        let second = start().unwrap();
        let (member, _peer) = join(&second, "room");
        let arrival = Arrival {
            facts: Facts::default(),
            info: None,
            watches: false,
            is_present: true,
            name: "a".into(),
            grace: LIMIT,
            tells: false,
            said_at: None,
        };
        presence.enter("room", &member, [1; 16], arrival);
        eventually("they are told", || {
            first.count("room") == 1 && first.presence.members("room").len() == 1
        });
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_process_that_reads_nothing_costs_others_a_bounded_queue() {
        let path = folder("stopped");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        // As that of a process that was stopped.
        let stopped = UnixListener::bind(path.join("0".repeat(16))).unwrap();
        let node = start(&path);
        let record = Record {
            facts: Arc::new(Facts {
                info: "x".repeat(1024 * 1024),
                ..Facts::default()
            }),
            stamp: 1,
            connections: 1,
            away: Duration::ZERO,
            grace: LIMIT,
            telling: Telling::Nothing,
            has_moved: false,
        };
        let mut note = Note {
            number: u64::MAX,
            name: "room".into(),
            record,
        };
        for _ in 0..70 {
            node.announce(&note);
        }
        note.record.facts = Arc::default();
        eventually("it is given up", || {
            node.announce(&note);
            node.peers() == 0
        });
        drop(stopped);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn an_eviction_from_a_room_without_members_here_is_counted() {
        let path = folder("evicted");
        let (one, other) = (start(&path), start(&path));
        let eviction = Eviction {
            whom: Whom::Member([1; 16]),
            reason: String::new(),
        };
        let envelope = envelope::of_eviction(&eviction);
        one.pass_on("room", &one.groups.seal("room", envelope))
            .unwrap();
        assert_eq!(one.groups.evictions(), 1);
        // One that has asked who may join, and is a member only now, asks again.
        eventually("it has come", || other.groups.evictions() == 1);
        assert_eq!(counted(&other, "unreadable"), 0);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_node_that_nobody_uses_any_more_is_freed() {
        let path = folder("freed");
        let (stays, goes) = (start(&path), start(&path));
        let met = || stays.peers() == 1 && goes.peers() == 1;
        eventually("they have met", met);
        let weak = Arc::downgrade(&goes);
        goes.stop(Instant::now());
        drop(goes);
        eventually("it is freed", || weak.upgrade().is_none());
        eventually("the other has lost it", || stays.peers() == 0);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn nobody_waits_for_messages_of_a_node_that_has_ended() {
        let path = folder("ended");
        let (one, other) = (start(&path), start(&path));
        let ends = start(&path);
        ends.publish("room", text("xx")).unwrap();
        let has_come = |node: &Node| node.begun().contains(&(ends.id, 1));
        eventually("its message has come", || {
            has_come(&one) && other.has_taken(&one.begun())
        });
        let begun = vec![(ends.id, 2)];
        assert!(!other.has_taken(&begun));
        let id = ends.id;
        ends.stop(Instant::now());
        drop(ends);
        eventually("no more comes", || other.has_taken(&begun));
        // One that never met it waits for it once.
        let younger = start(&path);
        assert!(!younger.has_taken(&begun));
        eventually("it does not connect", || younger.has_taken(&begun));
        eventually("it is over", || {
            !one.begun().iter().any(|(known, _)| *known == id)
        });
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_left_of_an_earlier_connection_counts_no_more() {
        let path = folder("earlier");
        let node = start(&path);
        let connect = |is_new, members| {
            let socket = path.join(format!("{:016x}", node.id));
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(&frames::hello(9, is_new, 0)).unwrap();
            let told = frames::counts(&[(counts::hash("room"), members)]);
            stream.write_all(&told).unwrap();
            eventually("it is told", || node.count("room") == members as usize);
            stream
        };
        let (mut earlier, _later) = (connect(true, 1), connect(false, 2));
        let told = frames::counts(&[(counts::hash("room"), 7)]);
        earlier.write_all(&told).unwrap();
        assert_eq!(earlier.read(&mut [0]).unwrap(), 0, "it is closed");
        assert_eq!(node.count("room"), 2);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_passed_on_counts_among_what_a_member_here_has_got() {
        let path = folder("passed");
        let node = start(&path);
        let (member, _peer) = join(&node, "room");
        let event = Message::event(b",\"event\":\"typing\"}", &[]);
        let envelope = node.groups.envelope_of("room", &event);
        node.pass_on("room", &envelope).unwrap();
        let (cut, _) = node.groups.depart("room", member.as_ref()).unwrap();
        assert_eq!(cut.got.each().collect::<Vec<_>>(), node.begun());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn members_keep_the_history_of_their_group_in_use() {
        let path = folder("use");
        let node = start(&path);
        let history = node.history(1 << 20, LIMIT).unwrap();
        let at = node.record(&*history, "room", text("x"), Limits::ALL, None);
        let [file] = fs::read_dir(path.join("history"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("epochs"))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let age =
            || SystemTime::now().duration_since(fs::metadata(&file).unwrap().modified().unwrap());
        let day = Duration::from_secs(24 * 60 * 60);
        let quiet = fs::File::open(&file).unwrap();
        quiet.set_modified(SystemTime::now() - day).unwrap();
        let (member, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        let joined = (node.groups).enter_at("room", &member, [1; 16], at.unwrap(), false);
        assert!(joined.is_ok(), "{joined:?}");
        // As the clock does that is set forward: it uses them again at once.
        *node.breaks.lock() = Some("folder");
        eventually("it is used", || age().unwrap() < day);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_no_member_here_waits_for_is_not_looked_at() {
        let path = folder("absent");
        let key = b"0123456789abcdef0123456789abcdef";
        let (stranger, node) = (start(&path), start_with(&path, Some(key)));
        stranger.publish("room", text("not sealed")).unwrap();
        // On the same connection, after it.
        let _guest = join(&stranger, "other");
        eventually("it has come", || node.count("other") == 1);
        assert_eq!(counted(&node, "unreadable"), 0);
        let _member = join(&node, "room");
        stranger.publish("room", text("not sealed")).unwrap();
        eventually("it is refused", || counted(&node, "unreadable") == 1);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_forked_child_keeps_nothing_and_waits_for_no_lock() {
        const MARK: &str = "DWEBSOCKET_TEST_ALONE";
        if std::env::var_os(MARK).is_none() {
            let name = "engine::backends::local::node::tests::\
                        a_forked_child_keeps_nothing_and_waits_for_no_lock";
            let mut alone = Command::new(std::env::current_exe().unwrap());
            let output = alone
                .args(["--exact", name])
                .env(MARK, "1")
                .output()
                .unwrap();
            let summary = String::from_utf8_lossy(&output.stdout);
            assert!(summary.contains("1 passed"), "{summary}");
            return;
        }
        let path = folder("forked");
        let node = start(&path);
        let history = node.history(1 << 20, LIMIT).unwrap();
        // Another thread holds it at the moment of the fork.
        let held = node.state.lock();
        after_fork_in_child();
        let recorded = node.record(&*history, "room", text("x"), Limits::ALL, None);
        assert!(matches!(recorded, Err(Refused::Foreign)), "{recorded:?}");
        drop(held);
        fs::remove_dir_all(path).unwrap();
    }
}
