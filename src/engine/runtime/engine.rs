//! The engine of a process: started on first use, never inherited across a fork.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::{runtime::Handle, task::yield_now};

use super::{shedding, worker::Worker};
use crate::{
    engine::{
        base::{clock, error::Error},
        connection::{
            Connection,
            carrier::Carrier,
            moving::Parts,
            registry::{Registration, Registry},
            settings::{Key, Settings, Transport},
            traffic::Overview,
        },
        driver::Io,
        groups::FanOutThread,
        polling::{PendingPoll, Polled, Pollers},
        resources::{
            budget::{self, Account, Relief},
            descriptor::{self, Owned},
            holders::Holders,
            permits::{self, Permit},
            socket::Socket,
            trim, watched,
        },
        wakeup::{call::Wait, hub::Hub},
    },
    protocol::{close::CloseFrame, frame::Role, limits::Limits},
};

static CURRENT: ArcSwapOption<Engine> = ArcSwapOption::const_empty();
static THREADS: AtomicUsize = AtomicUsize::new(1);
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// Independent of the engine: a process may have to shut down before its first connection.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// Makes this process take no new connections, for good.
pub fn leave() {
    LEAVING.store(true, Ordering::SeqCst);
}

/// Undoes [`leave`] and aborts every drain: the engine takes new connections again.
pub fn reopen() {
    if let Some(engine) = Engine::running() {
        engine.registry.reopen();
    }
    LEAVING.store(false, Ordering::SeqCst);
}

/// Whether this process takes no new connections any more.
pub fn is_leaving() -> bool {
    LEAVING.load(Ordering::SeqCst)
}

/// A wait until the process holds no connection; `None` when it holds none.
pub fn wait_for_none_open() -> Option<Arc<Wait>> {
    if permits::open() == 0 {
        return None;
    }
    let (wait, ticket) = Wait::new(|| ());
    permits::when_none(move || ticket.finish(()));
    // The last one may have ended since.
    (permits::open() > 0).then_some(wait)
}

/// Sets the engine's number of threads, if it has not been started yet.
pub fn want_threads(count: usize) {
    THREADS.store(count, Ordering::Relaxed);
}

/// One process's engine: its threads, one as a rule, and the connections they drive.
#[derive(Debug)]
pub struct Engine {
    first: Worker,
    others: Vec<Worker>,
    registry: Arc<Registry>,
    pollers: Arc<Pollers>,
    holders: Arc<Holders<Connection>>,
}

/// A client that is to be driven.
struct Client {
    socket: Arc<Socket>,
    /// The server that has the socket, if it is not ours.
    carrier: Option<Arc<Carrier>>,
    /// Another process has had it so far.
    is_moved: bool,
}

impl Engine {
    /// The process's engine, started if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread or no descriptor.
    pub fn current() -> Result<Arc<Self>, Error> {
        if let Some(engine) = CURRENT.load_full() {
            return Ok(engine);
        }
        let engine = Arc::new(Self::start()?);
        let previous = CURRENT.compare_and_swap(&None::<Arc<Self>>, Some(Arc::clone(&engine)));
        match previous.as_ref() {
            None => Ok(engine),
            // Another thread was quicker.
            Some(winner) => {
                engine.stop();
                Ok(Arc::clone(winner))
            }
        }
    }

    /// The process's engine, if it was ever needed.
    pub fn running() -> Option<Arc<Self>> {
        CURRENT.load_full()
    }

    /// The runtime of the engine's own tasks.
    pub(crate) fn handle(&self) -> &Handle {
        &self.first.handle
    }

    fn start() -> Result<Self, Error> {
        budget::set_relief(Relief {
            shed,
            trim: trim_above,
        });
        let first = Worker::start()?;
        let mut engine = Self {
            first,
            others: Vec::new(),
            registry: Arc::default(),
            pollers: Arc::default(),
            holders: Arc::default(),
        };
        for _ in 1..THREADS.load(Ordering::Relaxed) {
            match Worker::start() {
                Ok(worker) => engine.others.push(worker),
                Err(error) => {
                    engine.stop();
                    return Err(error);
                }
            }
        }
        Ok(engine)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> + Clone {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The threads on which groups are fanned out: all of them.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread for work that blocks.
    pub fn fan_out_threads(&self) -> Result<Vec<FanOutThread>, Error> {
        let threads = self.workers().map(|worker| {
            worker.keep_blocking_thread()?;
            let turns = Arc::clone(&worker.turns);
            Ok(FanOutThread {
                runtime: worker.handle.clone(),
                hurry_views: Arc::new(move || turns.hurry()),
                has_failed: worker.failure(),
            })
        });
        threads.collect()
    }

    /// Sees to it that the engine's own tasks can look up names.
    ///
    /// # Errors
    /// As [`Engine::fan_out_threads`].
    pub(crate) fn prepare_lookups(&self) -> Result<(), Error> {
        self.first.keep_blocking_thread()
    }

    /// The addresses of `host`, a name or an address.
    ///
    /// # Errors
    /// There is none, or the name server gives no answer.
    pub(crate) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let name = (host.to_owned(), port);
        let lookup = move || Ok(name.to_socket_addrs()?.collect());
        self.first.look_up(lookup).await
    }

    /// The thread that is to drive connection `id`: each thread gets as many connections as the
    /// others. `None` when all threads have failed.
    fn worker_for(&self, id: u64) -> Option<&Worker> {
        let count = self.others.len() + 1;
        let turn = usize::try_from(id % count as u64).unwrap_or_default();
        self.workers()
            .cycle()
            .skip(turn)
            .take(count)
            .find(|worker| worker.is_running())
    }

    fn stop(&self) {
        self.workers().for_each(Worker::stop);
    }

    /// Takes over `client`, sends `head` (the 101 response) and runs the connection.
    ///
    /// `early` are bytes that the client sent after its handshake and that were read already.
    /// A client that cannot be driven is answered with 503 in place of `head`, and let go.
    ///
    /// # Errors
    /// [`Error::Io`] when the descriptor cannot be driven, [`Error::ShuttingDown`] after
    /// [`Engine::shut_down`] and [`leave`].
    pub fn adopt(
        &self,
        client: Owned,
        early: Vec<u8>,
        head: Vec<u8>,
        settings: &Settings,
        permit: impl Into<Arc<Permit>>,
    ) -> Result<Arc<Connection>, Error> {
        self.adopt_with(client, early, head, settings, permit, |_| {})
    }

    /// As [`Engine::adopt`], and calls `before_head` with the connection before the client can know
    /// that it is open.
    ///
    /// # Errors
    /// As [`Engine::adopt`].
    pub fn adopt_with(
        &self,
        client: Owned,
        early: Vec<u8>,
        head: Vec<u8>,
        settings: &Settings,
        permit: impl Into<Arc<Permit>>,
        before_head: impl FnOnce(&Arc<Connection>),
    ) -> Result<Arc<Connection>, Error> {
        let client = Client {
            socket: Arc::new(socket_of(client)?),
            carrier: None,
            is_moved: false,
        };
        self.begin(client, early, head, settings, permit, before_head)
    }

    /// Goes on with a connection of another process. It sends nothing before
    /// [`Connection::release`]; `before_news` is called with it before its messages are there.
    ///
    /// It opens also while the process leaves: its opener closes it.
    ///
    /// # Errors
    /// [`Error::Io`] when the descriptor cannot be driven, [`Error::Broken`] when the engine has
    /// failed. The socket is left as it is.
    pub fn adopt_moved(
        &self,
        parts: Parts,
        settings: &Settings,
        permit: impl Into<Arc<Permit>>,
        before_news: impl FnOnce(&Arc<Connection>),
    ) -> Result<Arc<Connection>, Error> {
        let socket = Arc::new(socket_of(parts.client)?);
        // It is the other process's until this one may send.
        socket.let_go();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let worker = self.worker_for(id).ok_or(Error::Broken)?;
        let io = io_of(&socket, worker)?;
        let client = Client {
            socket: Arc::clone(&socket),
            carrier: None,
            is_moved: true,
        };
        let (connection, registration) = self.register(id, worker, client, Vec::new(), settings)?;
        before_news(&connection);
        connection.put_unread(parts.unread);
        worker.drive(
            io,
            &connection,
            parts.incoming,
            settings,
            registration,
            permit,
        );
        Ok(connection)
    }

    /// As [`Engine::adopt_with`], for any client.
    fn begin(
        &self,
        client: Client,
        early: Vec<u8>,
        head: Vec<u8>,
        settings: &Settings,
        permit: impl Into<Arc<Permit>>,
        before_head: impl FnOnce(&Arc<Connection>),
    ) -> Result<Arc<Connection>, Error> {
        let socket = Arc::clone(&client.socket);
        let refuse = |error| {
            // A server awaits no response.
            if settings.transport.role() == Role::Server {
                socket.refuse();
            }
            error
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let Some(worker) = self.worker_for(id) else {
            return Err(refuse(Error::Broken));
        };
        let (connection, registration) = self
            .register(id, worker, client, head, settings)
            .map_err(refuse)?;
        // A shutdown sets `LEAVING` first and collects the connections then; here it is the other
        // way round. So at least one side sees this connection. If both do and the shutdown was
        // first, the connection is closing already: then that goes on.
        // A carried one is closed by who opens it.
        if is_leaving() && !connection.is_carried() && connection.refuse() {
            return Err(refuse(Error::ShuttingDown));
        }
        let io = match io_of(&socket, worker) {
            Ok(io) => io,
            // Unless a shutdown has begun to close it meanwhile.
            Err(error) if connection.refuse() => return Err(refuse(error)),
            Err(error) => return Err(error),
        };
        before_head(&connection);
        connection.outbox.flush();
        worker.drive(io, &connection, early, settings, registration, permit);
        Ok(connection)
    }

    /// A new connection, in the registry.
    fn register(
        &self,
        id: u64,
        worker: &Worker,
        client: Client,
        head: Vec<u8>,
        settings: &Settings,
    ) -> Result<(Arc<Connection>, Registration), Error> {
        let Client {
            socket,
            carrier,
            is_moved,
        } = client;
        if let Some(limit) = settings.give_up_time() {
            socket.give_up_after(limit);
        }
        let mut connection = Connection::new(
            id,
            socket,
            settings,
            Bytes::from(head),
            Arc::clone(&worker.turns),
            &worker.codecs,
        );
        if let Some(carrier) = &carrier {
            carrier.count_in(Account::of(&connection.share));
        }
        connection.carrier = carrier;
        if is_moved {
            connection.outbox.hold();
        }
        let connection = Arc::new(connection);
        // Before the runtime is used: one that has stopped would only report that it is gone.
        let registration = Registry::register(&self.registry, &connection)?;
        let entry = Holders::enter(&self.holders, id, &connection.share, &connection);
        // The first one for this connection.
        let _ = connection.entry.set(entry);
        Ok((connection, registration))
    }

    /// Closes all connections with `frame`, spread over `window`, and takes no new ones. Does not
    /// wait. Returns the time until the last one begins to close; a later call can only make it
    /// less.
    pub fn drain(&self, frame: CloseFrame, window: Duration) -> Duration {
        self.registry.drain(self.handle(), frame, window)
    }

    /// The open connections, and the traffic of these and of all before them.
    pub fn overview(&self) -> Overview {
        self.registry.overview()
    }

    /// Begins to close all connections with `frame` and takes no new ones. Does not wait.
    pub fn close_all(&self, frame: &CloseFrame) {
        self.registry.close_all(frame);
    }

    /// Steps the clock ahead by `time`, and sleeps until all that was due by then is done.
    pub fn step(&self, time: Duration) {
        clock::step(time);
        let connections = self.registry.on_step();
        let (tell, done) = mpsc::channel();
        // Each pass lets some sixty tasks run and looks at all sockets.
        let passes = 4 + connections / 30;
        for worker in self.workers() {
            let tell = tell.clone();
            worker.handle.spawn(async move {
                for _ in 0..passes {
                    yield_now().await;
                }
                let _ = tell.send(());
            });
        }
        drop(tell);
        // An engine that has ended drops its tasks, and with them the senders.
        while done.recv().is_ok() {}
    }

    /// Closes all connections with `frame`, takes no new ones, and ends the engine.
    ///
    /// Sleeps until the last one is gone, `grace` at most; what is left then is cut.
    pub fn shut_down(&self, frame: &CloseFrame, grace: Duration) {
        self.registry.shut_down(frame, grace);
        self.stop();
    }

    /// As [`Engine::shut_down`], but the connections are closed one after the other over `window`.
    /// The process takes no new ones, for good.
    ///
    /// Within `grace` it also waits for views: those whose clients went before may yet run.
    pub fn shut_down_over(&self, frame: &CloseFrame, window: Duration, grace: Duration) {
        leave();
        let window = self.drain(frame.clone(), window);
        self.registry.wait_until_empty(window);
        let end = clock::now() + grace;
        self.registry.shut_down(frame, grace);
        if let Some(wait) = wait_for_none_open() {
            wait.wait(Some(end));
        }
        self.stop();
    }
}

/// How a driver on `worker` learns that it can read or write.
fn io_of(socket: &Arc<Socket>, worker: &Worker) -> Result<Io, Error> {
    if socket.is_carried() {
        return Ok(Io::Carried(Arc::clone(socket)));
    }
    let _context = worker.handle.enter();
    let watched = watched::watch(socket).map(Io::Watched);
    watched.map_err(Error::io("cannot watch the client's connection"))
}

/// Sees to it that the process has an engine that can drive connections.
///
/// # Errors
/// [`Error::Io`] when the system gives no thread or no descriptor, [`Error::Broken`] when its
/// threads have failed.
pub fn prepare() -> Result<(), Error> {
    match Engine::current()?.worker_for(0) {
        Some(_) => Ok(()),
        None => Err(Error::Broken),
    }
}

/// Whether [`prepare`] has nothing to do. Never waits.
pub fn is_prepared() -> bool {
    Engine::running().is_some_and(|engine| engine.worker_for(0).is_some())
}

/// Takes over `client` on the process's engine, as [`Engine::adopt`] does.
///
/// # Errors
/// Those of [`Engine::current`] and [`Engine::adopt`].
pub fn adopt(
    client: Owned,
    early: Vec<u8>,
    head: Vec<u8>,
    settings: &Settings,
    permit: impl Into<Arc<Permit>>,
    before_head: impl FnOnce(&Arc<Connection>),
) -> Result<Arc<Connection>, Error> {
    match Engine::current() {
        Ok(engine) => engine.adopt_with(client, early, head, settings, permit, before_head),
        Err(error) => {
            socket_of(client)?.refuse();
            Err(error)
        }
    }
}

/// Opens a connection that another server carries, on the process's engine; `before_head` as with
/// [`Engine::adopt_with`]. The server's task has `token` on the list of `hub` when there is something
/// for it: see [`Connection::carry_out`] and [`Connection::bring`].
///
/// It opens also while the process leaves: the server has accepted it, and its opener closes it.
///
/// # Errors
/// Those of [`Engine::current`], and [`Error::Broken`].
pub fn open_carried(
    hub: Arc<Hub>,
    token: u64,
    settings: &Settings,
    permit: impl Into<Arc<Permit>>,
    before_head: impl FnOnce(&Arc<Connection>),
) -> Result<Arc<Connection>, Error> {
    let engine = Engine::current()?;
    let settings = Settings {
        transport: Transport::Carried,
        // The server has frames of its own, and pings by itself.
        limits: Limits {
            max_frame_bytes: u32::MAX,
            ..settings.limits
        },
        compression: None,
        ping_interval: None,
        ping_timeout: None,
        ..*settings
    };
    let carrier = Carrier::new(hub, token, &settings);
    let client = Client {
        socket: Arc::new(Socket::carried(Arc::clone(&carrier) as _)),
        carrier: Some(carrier),
        is_moved: false,
    };
    engine.begin(client, vec![], vec![], &settings, permit, before_head)
}

/// Opens a connection whose client polls by `key`, on the process's engine; `before_head` as with
/// [`Engine::adopt_with`].
///
/// # Errors
/// Those of [`adopt`], and [`Error::Io`] when there is no descriptor left.
pub fn open_polled(
    key: Key,
    settings: &Settings,
    permit: impl Into<Arc<Permit>>,
    before_head: impl FnOnce(&Arc<Connection>),
) -> Result<Arc<Connection>, Error> {
    let engine = Engine::current()?;
    let settings = Settings {
        transport: Transport::Polling(key),
        ..*settings
    };
    let (written, unread) = descriptor::pair().map_err(Error::io("no descriptor for polls"))?;
    let written = Owned::from(written);
    let connection = engine.adopt_with(written, vec![], vec![], &settings, permit, before_head)?;
    // When this fails the connection reads the end of its stream, and is lost.
    Pollers::begin(
        &engine.pollers,
        engine.handle(),
        key,
        unread,
        &connection,
        &settings,
    )
    .map_err(Error::io("cannot watch the connection of polls"))?;
    Ok(connection)
}

/// Answers a poll for the connection of `key` in this process, which acknowledges the events up to
/// `ack`: at once, or later by `hold`. Never waits.
pub fn poll(key: &Key, ack: u64, hold: &Arc<PendingPoll>) -> Polled {
    match Engine::running() {
        Some(engine) => engine.pollers.poll(key, ack, hold),
        None => Polled::Over,
    }
}

/// Has the answer of `hold` written to `client`, as [`PendingPoll::attach`] says.
///
/// # Errors
/// Those of [`Engine::current`], and [`Error::Io`] when the descriptor cannot be watched.
pub fn attach(
    hold: &Arc<PendingPoll>,
    client: Owned,
    head: Vec<u8>,
    timeout: Duration,
    otherwise: Vec<u8>,
) -> Result<(), Error> {
    let engine = Engine::current()?;
    let places = &engine.pollers.lingering;
    hold.attach(engine.handle(), places, client, head, timeout, otherwise)
        .map_err(Error::io("cannot watch the client's connection"))
}

/// The connection of this process that takes posts to `key`.
pub fn find(key: &Key) -> Option<Arc<Connection>> {
    Engine::running()?.registry.find(key)
}

fn socket_of(client: Owned) -> Result<Socket, Error> {
    Socket::new(client).map_err(Error::io("cannot take over the client's connection"))
}

/// Has the engine close the connections that hold most.
fn shed() {
    if let Some(engine) = Engine::running() {
        shedding::begin(&engine.holders, engine.handle());
    }
}

/// Has the engine give free memory back if the process takes so many bytes.
fn trim_above(bytes: usize) {
    if let Some(engine) = Engine::running() {
        trim::trim_above(bytes, engine.handle());
    }
}

/// Leaves the parent's engine alone and makes room for a new one; called in a forked child.
#[cfg(unix)]
pub(crate) fn forget_parent() {
    LEAVING.store(false, Ordering::SeqCst);
    shedding::reset();
    if let Some(engine) = CURRENT.swap(None) {
        #[expect(
            clippy::mem_forget,
            reason = "its thread exists in the parent only, and its locks may be held for ever"
        )]
        std::mem::forget(engine);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    /// The first bytes that a client of `engine` reads, and whether it was taken over.
    fn told(engine: &Engine) -> (String, bool) {
        let (ours, mut client) = UnixStream::pair().unwrap();
        let permit = Permit::claim(None).unwrap();
        let adopted = engine.adopt(
            ours.into(),
            vec![],
            b"head".to_vec(),
            &Settings::SMALL,
            permit,
        );
        let mut told = [0; 12];
        let length = client.read(&mut told).unwrap();
        let told = String::from_utf8_lossy(&told[..length]).into_owned();
        assert!(matches!(adopted, Ok(_) | Err(Error::Broken)));
        (told, adopted.is_ok())
    }

    #[test]
    fn an_engine_that_has_failed_refuses_and_its_client_is_told() {
        let mut engine = Engine::start().unwrap();
        engine.others.push(Worker::start().unwrap());
        assert_eq!(told(&engine), ("head".to_owned(), true));
        // One thread that is left takes all of them.
        engine.first.fail();
        for _ in 0..4 {
            assert_eq!(told(&engine), ("head".to_owned(), true));
        }
        engine.others[0].fail();
        for _ in 0..2 {
            assert_eq!(told(&engine), ("HTTP/1.1 503".to_owned(), false));
        }
        engine.stop();
    }
}
