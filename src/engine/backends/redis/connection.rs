//! One connection to a node, logged in.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, Value, aio::MultiplexedConnection,
};
use tokio::{runtime::Handle, select, sync::Notify, task::AbortHandle, time::timeout};

use super::{
    config::{Address, Login},
    stream::{self, EXCEEDED, Gate, Signs, Stream},
};
use crate::engine::{backends::call::Reason, base::clock, dialing::tls::Tls};

pub(super) const CLOSED: &str = "the server has closed the connection";

/// Called with each message that the server pushes.
pub(super) type OnPush = Box<dyn Fn(PushInfo) + Send + Sync>;

/// A connection. Its copies share it; it is closed with the last of them.
#[derive(Clone)]
pub(super) struct Connection {
    commands: MultiplexedConnection,
    task: Arc<Task>,
}

/// The task that writes and reads. It ends with this.
struct Task {
    handle: AbortHandle,
    has_ended: Arc<Notify>,
    signs: Arc<Signs>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Connection {
    /// Connects for commands, or for subscriptions, whose messages go to `pushes` through its gate.
    pub(super) async fn open(
        address: &Address,
        login: &Login,
        tls: Option<&Tls>,
        limit: Duration,
        pushes: Option<(Arc<Gate>, OnPush)>,
    ) -> Result<Self, Reason> {
        within(limit, async {
            let (gate, on_push) = pushes.unzip();
            let signs = Arc::<Signs>::default();
            let stream = stream::connect(address, tls, gate, &signs).await;
            let stream = stream.map_err(|error| Reason::from(error.to_string()))?;
            Self::over(stream, signs, login, on_push).await
        })
        .await
    }

    pub(super) async fn over(
        stream: Pin<Box<dyn Stream>>,
        signs: Arc<Signs>,
        login: &Login,
        on_push: Option<OnPush>,
    ) -> Result<Self, Reason> {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("dwebsocket", env!("CARGO_PKG_VERSION"))
            .set_db(login.database);
        if let Some(username) = &login.username {
            info = info.set_username(username);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        // Each call has its own limit.
        let mut config = AsyncConnectionConfig::new().set_response_timeout(None);
        if let Some(on_push) = on_push {
            config = config.set_push_sender(move |info: PushInfo| {
                on_push(info);
                Ok::<(), ()>(())
            });
        }
        let (commands, task) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| reason_of_login(&error, login))?;
        let has_ended = Arc::<Notify>::default();
        let tell = Arc::clone(&has_ended);
        let running = Handle::current().spawn(async move {
            task.await;
            tell.notify_one();
        });
        let handle = running.abort_handle();
        let task = Arc::new(Task {
            handle,
            has_ended,
            signs,
        });
        Ok(Self { commands, task })
    }

    /// Sleeps until the connection is over, and returns the reason. For one caller.
    pub(super) async fn end(&self) -> Reason {
        self.task.has_ended.notified().await;
        if self.task.signs.has_exceeded.load(Ordering::Relaxed) {
            return EXCEEDED.into();
        }
        CLOSED.into()
    }

    /// Sends a command, and returns its reply, which may be an error of the server.
    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Value, Reason> {
        let reply = self.commands.send_packed_command(command).await;
        reply.map_err(|error| reason_of(&error))
    }

    /// Sends commands, and returns the reply to each, which may be an error of the server.
    ///
    /// They are queued when this is polled for the first time.
    pub(super) async fn send_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>, Reason> {
        let replies = self
            .commands
            .send_packed_commands(commands, 0, commands.len());
        replies.await.map_err(|error| reason_of(&error))
    }

    /// The result of `exchange` over this connection, unless the server shows no life for `limit`.
    /// Much may be before it on the way, and that moves.
    pub(super) async fn while_alive<T>(
        &self,
        limit: Duration,
        exchange: impl Future<Output = Result<T, Reason>>,
    ) -> Result<T, Reason> {
        let signs = &self.task.signs;
        let mut exchange = pin!(exchange);
        loop {
            let before = signs.moves();
            select! {
                biased;
                outcome = &mut exchange => return outcome,
                () = clock::sleep_until(clock::task_now() + limit) => {
                    if signs.is_still(before) {
                        return Err(late(limit));
                    }
                }
            }
        }
    }
}

/// The result of `future`, unless that takes longer than `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    match timeout(limit, future).await {
        Ok(outcome) => outcome,
        Err(_) => Err(late(limit)),
    }
}

/// The reason when nothing came within `limit`.
pub(super) fn late(limit: Duration) -> Reason {
    format!("no reply within {} s", limit.as_secs_f64()).into()
}

/// The text of an error.
fn reason_of(error: &RedisError) -> Reason {
    if error.is_connection_dropped() || error.is_unrecoverable_error() {
        return format!("the connection was closed ({error})").into();
    }
    error.to_string().into()
}

/// The text of an error of a login. It never has the password in it, although servers and proxies
/// quote the arguments of a command that they do not know.
fn reason_of_login(error: &RedisError, login: &Login) -> Reason {
    let reason = reason_of(error);
    let text = reason.to_ascii_lowercase();
    if text.contains("unknown command") && text.contains("hello") {
        return "it has no command HELLO, as Redis 6.2 has".into();
    }
    // Texts of the system are no server's.
    if error.is_io_error() || !login.may_be_in(&reason) {
        return reason;
    }
    let code = error.code().filter(|code| !login.may_be_in(code));
    let code = code.unwrap_or("an error");
    format!("{code}, whose text may have the password in it").into()
}

#[cfg(test)]
mod tests {
    use redis::{Value, cmd, parse_redis_value};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        join,
        time::sleep,
    };

    use super::{
        stream::{MOST_WAITING, through},
        *,
    };

    const LIMIT: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_secs(3);

    /// A connection, and its server: the way to it holds `capacity` bytes.
    async fn connected(
        capacity: usize,
        gate: Option<Arc<Gate>>,
    ) -> (
        Connection,
        impl Future<Output = Result<Value, Reason>>,
        DuplexStream,
    ) {
        let (ours, mut server) = duplex(capacity);
        let signs = Arc::<Signs>::default();
        let (stream, login) = (through(ours, gate, &signs), Login::default());
        let greet = async {
            let mut asked = Vec::new();
            while !asked.ends_with(concat!(env!("CARGO_PKG_VERSION"), "\r\n").as_bytes()) {
                server.read_buf(&mut asked).await.unwrap();
            }
            server.write_all(b"%0\r\n+OK\r\n+OK\r\n").await.unwrap();
        };
        let connecting = Connection::over(stream, signs, &login, None);
        let (connection, ()) = join!(connecting, greet);
        let connection = connection.unwrap();
        let own = connection.clone();
        let check = async move {
            let mut asking = own.clone();
            own.while_alive(LIMIT, asking.send(&cmd("PING"))).await
        };
        (connection, check, server)
    }

    fn pong() -> Value {
        Value::SimpleString("PONG".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_lives_while_it_sends_a_long_reply() {
        let (mut connection, check, mut server) = connected(4096, None).await;
        let get = cmd("GET");
        let answer = async {
            server.write_all(b"$12\r\n").await.unwrap();
            for _ in 0..4 {
                sleep(PAUSE).await;
                server.write_all(b"abc").await.unwrap();
            }
            server.write_all(b"\r\n+PONG\r\n").await.unwrap();
        };
        let (page, found, ()) = join!(connection.send(&get), check, answer);
        assert_eq!(page, Ok(Value::BulkString(b"abcabcabcabc".to_vec())));
        assert_eq!(found, Ok(pong()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_lives_while_it_takes_a_long_command() {
        let (mut connection, check, mut server) = connected(64, None).await;
        let mut long = cmd("GET");
        long.arg(vec![b'x'; 1000]);
        let answer = async {
            let mut left = long.get_packed_command().len();
            while left > 0 {
                sleep(PAUSE).await;
                left -= server.read(&mut [0; 100]).await.unwrap().min(left);
            }
            server.write_all(b"+OK\r\n+PONG\r\n").await.unwrap();
        };
        let (done, found, ()) = join!(connection.send(&long), check, answer);
        assert_eq!((done, found), (Ok(Value::Okay), Ok(pong())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_nothing_is_gone_whatever_is_sent_to_it() {
        for capacity in [64, 1 << 20] {
            let (connection, check, _server) = connected(capacity, None).await;
            let send = async {
                loop {
                    let get = async { connection.clone().send(&cmd("GET")).await };
                    let _ = timeout(Duration::from_secs(1), get).await;
                }
            };
            select! {
                found = check => assert_eq!(found, Err(late(LIMIT)), "{capacity}"),
                () = send => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_not_blamed_for_what_is_not_read() {
        let gate = Arc::<Gate>::default();
        let (_connection, check, mut server) = connected(4096, Some(Arc::clone(&gate))).await;
        gate.add(MOST_WAITING + 1);
        let answer = async {
            server.write_all(b"+PONG\r\n").await.unwrap();
            sleep(10 * LIMIT).await;
            gate.subtract(MOST_WAITING + 1);
        };
        let (found, ()) = join!(check, answer);
        assert_eq!(found, Ok(pong()));
    }

    fn reason(text: &str, password: Option<&str>) -> String {
        let reply = parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = reply else {
            panic!("{reply:?} is no error");
        };
        let login = Login {
            password: password.map(str::to_owned),
            ..Login::default()
        };
        reason_of_login(&error.into(), &login).to_string()
    }

    #[test]
    fn an_error_of_a_login_has_no_password_in_it() {
        let password = Some("Sup3rSecret\"Word");
        let hidden = "ERR, whose text may have the password in it";
        for text in [
            "ERR bad 'AUTH' 'default' 'Sup3rSecret\"Word'",
            // Servers cut and escape what they quote.
            "ERR bad 'AUTH' 'default' 'Sup3rSec",
            "ERR bad \"AUTH\" \"Sup3rSecret\\\"Word\"",
        ] {
            assert_eq!(reason(text, password), hidden);
        }
        let other = "an error, whose text may have the password in it";
        assert_eq!(reason("Sup3rSecret\"Word no", password), other);
        assert_eq!(reason("ERR no a b", Some("a")), hidden);
        let escaped = r#"ERR bad "AUTH" "\xc3\xa9t\xc3\xa9\"1""#;
        assert_eq!(reason(escaped, Some("été\"1")), hidden);
    }

    #[test]
    fn a_server_without_hello_is_told_from_others() {
        let text = "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'me' 'x'";
        for password in [Some("x"), None] {
            let reason = reason(text, password);
            assert_eq!(reason, "it has no command HELLO, as Redis 6.2 has");
        }
    }

    #[test]
    fn other_errors_are_told_in_full() {
        let text = "WRONGPASS invalid username-password pair or user is disabled.";
        for password in [Some("Sup3rSecretWord"), None] {
            assert!(reason(text, password).contains("invalid username-password pair"));
        }
    }
}
