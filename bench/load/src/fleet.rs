//! All connections of one run and the epoll loop that serves them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::{Connection, Phase, Shared};
use crate::handshake::Handshake;
use crate::script::Script;

/// Handshakes under way at once: below the backlog of any server's listener.
const OPENING_AT_ONCE: usize = 32;
/// Time for a server to confirm our close and hang up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Events of one look: few, so that what is due meanwhile leaves in time.
const EVENTS: usize = 64;
/// Client addresses a connection number is spread over, per octet.
const SPREAD: u32 = 250;

/// The address to connect to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address of the server.
    pub server: SocketAddr,
    /// Path of the request.
    pub path: String,
}

/// The connections of one run.
#[derive(Debug)]
pub struct Fleet {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    /// Size of each socket's buffers, instead of ones that grow as needed.
    buffers: Option<usize>,
    /// Script, counters and buffers of all of them.
    pub shared: Shared,
}

impl Fleet {
    /// An empty fleet whose connections will speak `script`.
    ///
    /// # Errors
    /// When there is no epoll to be had.
    pub fn new(script: Script) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("no epoll: {error}"))?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            connections: Vec::new(),
            buffers: None,
            shared: Shared::new(script),
        })
    }

    /// Gives the connections that are opened from now on buffers of so many bytes each way.
    pub fn set_buffers(&mut self, bytes: usize) {
        self.buffers = Some(bytes);
    }

    /// For other sources of events, under tokens from the top end.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// The connections.
    pub fn connections(&mut self) -> &mut [Connection] {
        &mut self.connections
    }

    /// Messages not come back, on all connections.
    pub fn missing(&self) -> u64 {
        self.connections.iter().map(Connection::missing).sum()
    }

    /// Connections with messages that their sockets have not taken yet.
    pub fn stuck(&self) -> usize {
        let script = &self.shared.script;
        let stuck = self.connections.iter().filter(|one| one.is_stuck(script));
        stuck.count()
    }

    /// Whether a connection that still lives waits for an answer.
    pub fn waits(&self) -> bool {
        self.connections
            .iter()
            .any(|one| one.missing() > 0 && !matches!(one.phase(), Phase::Ended))
    }

    /// Whether no connection is left.
    pub fn is_over(&self) -> bool {
        self.connections
            .iter()
            .all(|one| matches!(one.phase(), Phase::Ended))
    }

    /// Opens `count` connections, a few at a time.
    ///
    /// # Errors
    /// The first that fails, or that not all were open within `timeout`.
    pub fn open(&mut self, target: &Target, count: u32, timeout: Duration) -> Result<(), String> {
        let give_up = Instant::now() + timeout;
        let mut open = 0;
        while open < count {
            while self.connections.len() < count as usize
                && self.connections.len() - (open as usize) < OPENING_AT_ONCE
            {
                self.connect(target)?;
            }
            let mut refusal = None;
            self.turn(give_up, |one, _| {
                if let Some(reason) = one.refusal() {
                    refusal = Some(reason.to_owned());
                }
            })?;
            open = self.shared.opened;
            if let Some(reason) = refusal.or_else(|| self.shared.first_error.clone()) {
                return Err(format!(
                    "{open} of {count} connections opened, then one failed: {reason}"
                ));
            }
            if Instant::now() >= give_up {
                return Err(format!(
                    "only {open} of {count} connections opened within {timeout:?}"
                ));
            }
        }
        Ok(())
    }

    /// Waits for events until `until` at the latest and serves them; `visit` sees every connection
    /// that was read, before its queue is flushed. Gives the tokens of foreign events.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn turn(
        &mut self,
        until: Instant,
        mut visit: impl FnMut(&mut Connection, &mut Shared),
    ) -> Result<Vec<Token>, String> {
        let mut others = Vec::new();
        let timeout = until.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(format!("epoll failed: {error}"));
            }
            _ => {}
        }
        for event in &self.events {
            let Some(one) = self.connections.get_mut(event.token().0) else {
                others.push(event.token());
                continue;
            };
            let at_end = event.is_read_closed() || event.is_error();
            if event.is_readable() || at_end {
                one.read(&mut self.shared, at_end);
                visit(one, &mut self.shared);
            }
            one.flush(&mut self.shared);
        }
        Ok(others)
    }

    /// Sends on every open connection until `in_flight` messages are under way.
    pub fn start(&mut self, in_flight: u64) {
        self.start_some(0..usize::MAX, in_flight);
    }

    /// The same on those connections only whose index is in `range`.
    pub fn start_some(&mut self, range: Range<usize>, in_flight: u64) {
        let until = range.end.min(self.connections.len());
        for one in &mut self.connections[range.start..until] {
            one.top_up(in_flight, Instant::now());
            one.flush(&mut self.shared);
        }
    }

    /// Writes what connection `index` has to say, as far as the socket takes it.
    pub fn flush(&mut self, index: u32) {
        if let Some(one) = self.connections.get_mut(index as usize) {
            one.flush(&mut self.shared);
        }
    }

    /// Serves events until every answer is there or nothing was read for `quiet`.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn drain(&mut self, quiet: Duration) -> Result<(), String> {
        let mut give_up = Instant::now() + quiet;
        while self.waits() && Instant::now() < give_up {
            let before = self.shared.bytes_read;
            self.turn(give_up, |_, _| {})?;
            if self.shared.bytes_read > before {
                give_up = Instant::now() + quiet;
            }
        }
        self.shared.arrivals.clear();
        Ok(())
    }

    /// Closes all connections by the rules and waits for the server to confirm.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn close(&mut self) -> Result<(), String> {
        self.shared.tally.lost += self.missing();
        for one in &mut self.connections {
            one.start_close();
            one.flush(&mut self.shared);
        }
        let give_up = Instant::now() + CLOSE_TIMEOUT;
        while !self.is_over() && Instant::now() < give_up {
            self.turn(give_up, |_, _| {})?;
        }
        Ok(())
    }

    fn connect(&mut self, target: &Target) -> Result<(), String> {
        let index = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        let stream = open_socket(target.server, index, self.buffers).map_err(|error| {
            let hint = if error.raw_os_error() == Some(24) {
                " (raise `ulimit -n`)"
            } else {
                ""
            };
            format!("cannot open connection {index}: {error}{hint}")
        })?;
        let handshake = Handshake::new(u64::from(index) << 32 | u64::from(std::process::id()));
        let request = handshake.request(&target.server.to_string(), &target.path);
        let mut one = Connection::new(index, stream, handshake, request);
        one.register(self.poll.registry(), Token(self.connections.len()))
            .map_err(|error| format!("epoll does not take connection {index}: {error}"))?;
        self.connections.push(one);
        Ok(())
    }
}

fn open_socket(server: SocketAddr, index: u32, buffers: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = buffers {
        // Before connecting: the window scale is agreed on then.
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    if server.ip() == Ipv4Addr::LOCALHOST {
        // One address has too few ports for many connections to one server.
        let [high, low] =
            [index / SPREAD % SPREAD, index % SPREAD].map(|part| part.to_le_bytes()[0]);
        let client = SocketAddr::from((Ipv4Addr::new(127, low + 1, high, 1), 0));
        socket.bind(&client.into())?;
    }
    match socket.connect(&server.into()) {
        // 115: EINPROGRESS
        Err(error) if error.raw_os_error() != Some(115) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}
