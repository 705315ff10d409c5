//! One attempt to open a connection, from the address to the end of the handshake.

use std::{
    io,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{answer, handshake::exchange, happy_eyeballs, proxy::Proxy, tls::Tls, tls_pump};
use crate::{
    engine::{
        base::{error::Error, panics::Task},
        connection::{
            Connection,
            settings::{Settings, Transport},
        },
        resources::{descriptor::Owned, permits::Permit, socket::give_up_after},
        runtime::Engine,
        wakeup::call::{Call, Ticket},
    },
    protocol::{
        client_handshake::{Agreed, Request},
        close::{self, CloseFrame},
        response::Head,
    },
};

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct DialRequest {
    /// The server, a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
    /// How to encrypt, and the name that the server's certificate has to have.
    pub tls: Option<(Tls, String)>,
    /// The request of the handshake.
    pub request: Request,
    /// The settings of the connection. Its transport and its compression are set here.
    pub settings: Settings,
    /// How long all of it may take; `None` is for ever.
    pub timeout: Option<Duration>,
}

/// The wishes to a server.
#[derive(Clone, Debug)]
pub enum Want {
    /// A connection.
    Connection,
    /// The socket after its 101 to these bytes, whatever they are and whatever it says.
    Socket(Vec<u8>),
}

/// A connection that is open. Dropping it closes the connection, unless it was taken.
#[derive(Debug)]
pub struct Opened {
    connection: Arc<Connection>,
    is_taken: AtomicBool,
    /// The server's answer.
    pub head: Head,
    /// The subprotocol that it has chosen.
    pub subprotocol: Option<String>,
    /// Whether messages are compressed.
    pub is_compressed: bool,
}

impl Opened {
    /// The connection, which from now on is the caller's to close.
    pub fn take(&self) -> Arc<Connection> {
        self.is_taken.store(true, Ordering::Relaxed);
        Arc::clone(&self.connection)
    }

    fn close(&self) {
        self.connection
            .close(&CloseFrame::of(close::GOING_AWAY, ""));
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_taken.load(Ordering::Relaxed) {
            self.close();
        }
    }
}

/// A 101 to the caller's own request.
#[derive(Debug)]
pub struct Answered {
    socket: Mutex<Option<Owned>>,
    /// The 101.
    pub head: Head,
    /// The bytes that came after it.
    pub early: Vec<u8>,
}

impl Answered {
    /// The socket, once. It does not block.
    pub fn take(&self) -> Option<Owned> {
        self.socket.lock().take()
    }
}

/// The steps of opening a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Finding the host, connecting, and the connection as such up to the answer.
    Network,
    /// The way through the proxy.
    Proxy,
    /// TLS, other than the certificate.
    Tls,
    /// The server's certificate.
    Certificate,
    /// An answer that is HTTP.
    Http,
    /// A 101 that keeps to the rules.
    Handshake,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A step has failed, for this reason.
    At(Step, String),
    /// It took too long.
    Timeout(String),
    /// The server has given another answer than 101, with the start of its body.
    Refused(Head, Vec<u8>),
    /// The process is ending.
    ShuttingDown,
}

/// The outcome of a dial.
#[derive(Clone, Debug)]
pub enum Success {
    /// For [`Want::Connection`].
    Opened(Arc<Opened>),
    /// For [`Want::Socket`].
    Answered(Arc<Answered>),
}

/// The outcome of a dial.
pub type Outcome = Result<Success, Failure>;

/// A dial that is under way. Dropping it gives up.
#[derive(Debug)]
pub struct Dial {
    call: Arc<Call<Outcome>>,
    task: Task,
}

impl Deref for Dial {
    type Target = Call<Outcome>;

    fn deref(&self) -> &Self::Target {
        &self.call
    }
}

impl Dial {
    /// Gives up, as dropping it does: for one that may be kept. It closes what is open by now, taken
    /// or not.
    pub fn cancel(&self) {
        self.task.end();
        // From now on an outcome of the task is dropped.
        self.call.finish(lost());
        match self.call.outcome() {
            Some(Ok(Success::Opened(opened))) => opened.close(),
            Some(Ok(Success::Answered(answered))) => drop(answered.take()),
            Some(Err(_)) | None => (),
        }
    }
}

/// The outcome of a dial that does not end by itself.
fn lost() -> Outcome {
    Err(Failure::ShuttingDown)
}

/// Begins to open a connection on the process's engine.
///
/// # Errors
/// [`Error::Io`] when the system gives no thread or no descriptor for the engine, or no thread for
/// lookups.
pub fn dial(plan: DialRequest, want: Want) -> Result<Dial, Error> {
    let engine = Engine::current()?;
    engine.prepare_lookups()?;
    let (call, ticket) = Call::new(lost);
    let runner = Arc::clone(&engine);
    let task = Task::of(engine.handle(), run(runner, plan, want, ticket));
    Ok(Dial { call, task })
}

async fn run(engine: Arc<Engine>, plan: DialRequest, want: Want, ticket: Ticket<Outcome>) {
    let end = plan
        .timeout
        .and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
    let outcome = match end {
        None => open(&engine, &plan, &want, None).await,
        Some((limit, end)) => {
            let opening = open(&engine, &plan, &want, Some(end));
            timeout_at(end, opening).await.unwrap_or_else(|_| {
                Err(Failure::Timeout(format!(
                    "{} port {} did not open a WebSocket within {} s",
                    plan.host,
                    plan.port,
                    limit.as_secs_f64()
                )))
            })
        }
    };
    ticket.finish(outcome);
}

async fn open(engine: &Engine, plan: &DialRequest, want: &Want, end: Option<Instant>) -> Outcome {
    let mut stream = reach_server(engine, plan).await?;
    match &plan.tls {
        None => {
            let answer = ask(&mut stream, plan, want, end).await?;
            let socket = stream.into_std().map_err(at(Step::Network))?;
            finish(engine, plan, socket.into(), answer)
        }
        Some((tls, name)) => {
            if let Some(limit) = plan.settings.give_up_time() {
                // The driver's own socket is not the one to the server.
                give_up_after(&SockRef::from(&stream), limit);
            }
            let encrypted = tls.connect(name, stream).await;
            let mut stream = encrypted.map_err(|error| no_tls(name, &error))?;
            let answer = ask(&mut stream, plan, want, end).await?;
            let linger = plan.settings.close_timeout;
            let (socket, task) = tls_pump::pump(stream, linger).map_err(at(Step::Network))?;
            let success = finish(engine, plan, socket, answer)?;
            engine.handle().spawn(task);
            Ok(success)
        }
    }
}

async fn reach_server(engine: &Engine, plan: &DialRequest) -> Result<TcpStream, Failure> {
    let Some(proxy) = &plan.proxy else {
        let stream = happy_eyeballs::connect(engine, &plan.host, plan.port).await;
        return stream.map_err(at(Step::Network));
    };
    let host = match plan.host.as_str() {
        address if address.contains(':') => format!("[{address}]"),
        name => name.to_owned(),
    };
    let stream = proxy
        .connect(engine, &format!("{host}:{}", plan.port))
        .await;
    stream.map_err(|error| {
        let (host, port) = (&proxy.host, proxy.port);
        Failure::At(
            Step::Proxy,
            format!("the proxy {host} port {port}: {error}"),
        )
    })
}

fn no_tls(name: &str, error: &io::Error) -> Failure {
    let step = match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_)) => Step::Certificate,
        _ => Step::Tls,
    };
    Failure::At(step, format!("no TLS with {name}: {error}"))
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A 101, what it agrees on if that was validated, and the bytes after it.
type Agreement = (Head, Option<Agreed>, Vec<u8>);

async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    plan: &DialRequest,
    want: &Want,
    until: Option<Instant>,
) -> Result<Agreement, Failure> {
    let key = Request::key();
    let (request, most) = match want {
        Want::Connection => (&plan.request.encode(&key), answer::MAX_BODY_BYTES),
        Want::Socket(request) => (request, answer::MAX_PAGE_BYTES),
    };
    let answer = exchange(stream, request, most, until).await;
    let (head, rest) = answer.map_err(|error| match &plan.tls {
        // In TLS 1.3 a server looks at the client's certificate when the client has ended its part of
        // the handshake, so its alert comes in place of the answer.
        Some((_, name)) if tls_error(&error).is_some() => no_tls(name, &error),
        // Of the answer's parser: an error of the system has a kind.
        _ if error.kind() == io::ErrorKind::Other => at(Step::Http)(error),
        _ => at(Step::Network)(error),
    })?;
    match want {
        _ if head.status != 101 => Err(Failure::Refused(head, rest)),
        Want::Socket(_) => Ok((head, None, rest)),
        Want::Connection => match plan.request.validate(&key, &head) {
            Ok(agreed) => Ok((head, Some(agreed), rest)),
            Err(reason) => Err(Failure::At(
                Step::Handshake,
                format!("the server's handshake is invalid: {reason}"),
            )),
        },
    }
}

fn finish(
    engine: &Engine,
    plan: &DialRequest,
    socket: Owned,
    (head, agreed, early): Agreement,
) -> Outcome {
    Ok(match agreed {
        Some(agreed) => {
            Success::Opened(Arc::new(adopt(engine, plan, socket, early, head, agreed)?))
        }
        None => Success::Answered(Arc::new(Answered {
            socket: Mutex::new(Some(socket)),
            head,
            early,
        })),
    })
}

fn adopt(
    engine: &Engine,
    plan: &DialRequest,
    socket: Owned,
    early: Vec<u8>,
    head: Head,
    agreed: Agreed,
) -> Result<Opened, Failure> {
    let settings = Settings {
        transport: Transport::Client,
        compression: agreed.compression,
        ..plan.settings
    };
    let connection = engine.adopt(socket, early, Vec::new(), &settings, Permit::uncounted());
    let connection = connection.map_err(|error| match error {
        Error::ShuttingDown => Failure::ShuttingDown,
        Error::Broken | Error::Io { .. } | Error::SendTimeout { .. } => {
            Failure::At(Step::Network, error.to_string())
        }
    })?;
    Ok(Opened {
        connection,
        is_taken: AtomicBool::new(false),
        head,
        subprotocol: agreed.subprotocol,
        is_compressed: agreed.compression.is_some(),
    })
}

/// Makes a failure of an error at `step`.
fn at(step: Step) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::At(step, error.to_string())
}
