//! The task of one route: it connects to the node, publishes, and subscribes, until a connection
//! fails.

use std::{
    collections::hash_map::{HashMap, RandomState},
    hash::BuildHasher,
    mem,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt, StreamExt,
    stream::{FuturesOrdered, FuturesUnordered},
};
use parking_lot::Mutex;
use redis::{Pipeline, PushInfo, PushKind, ServerError, Value, from_redis_value};
use tokio::{
    select,
    sync::Notify,
    time::{sleep, timeout_at},
};

use super::{
    batch::Batch,
    config::Kind,
    connection::{CLOSED, Connection, OnPush, late, within},
    history::{self, Scripts},
    incoming::Incoming,
    lag::Lag,
    sentinel,
    shard::Shard,
    state::{CHANGES, Change, Publish, Wakeups},
};
use crate::engine::{
    backends::call::{Reason, Reply},
    base::clock,
};

/// Messages that are sent in one piece, at most.
const BATCH: usize = 1024;
/// Bytes of these.
const BATCH_BYTES: usize = 256 * 1024;
/// Pieces whose replies have not come yet, at most. Fewer than the commands' own queue holds (50).
const IN_FLIGHT: usize = 16;
/// The time between two looks whether the connections are alive.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a live server may show no life before it answers that.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The longest pause before connecting again.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Keeps the route at `place` connected until it fails, and returns the reason.
pub(super) async fn run(shard: &Shard, place: usize, incoming: &Incoming) -> Reason {
    let Some(wakeups) = shard.wakeups(place) else {
        return "there is no such node".into();
    };
    select! {
        biased;
        () = wakeups.end.notified() => "its part belongs to another node".into(),
        reason = live(shard, place, incoming, &wakeups) => reason,
    }
}

/// Why a route is over.
enum Break {
    /// The node is of no use any more.
    Node(Reason),
    /// The connection for subscriptions is over. That for messages may live.
    Subscriber(Reason),
}

async fn live(shard: &Shard, place: usize, incoming: &Incoming, wakeups: &Wakeups) -> Reason {
    let (_, failures) = shard.target(place);
    sleep(pause_after(failures)).await;
    let misled = Arc::new(Notify::new());
    let unsubscribing = Arc::new(AtomicUsize::new(0));
    let on_push = on_push(incoming, &misled, &unsubscribing);
    let (publisher, subscriber) = match connect(shard, place, incoming, on_push).await {
        Ok(connections) => connections,
        Err(reason) => return reason,
    };
    let scripts = if shard.keeps_history {
        load(publisher.clone(), connect_limit(shard)).await
    } else {
        Err("it has no history".into())
    };
    let link = Link {
        shard,
        place,
        wakeups,
        publisher,
        subscriber,
        scripts: Mutex::new(scripts),
    };
    shard.on_connected(place);
    let is_last = Notify::new();
    let mut publishing = pin!(link.publish(&is_last));
    let broken = select! {
        biased;
        reason = &mut publishing => return reason,
        broken = link.rest(&unsubscribing, &misled) => broken,
    };
    let reason = match broken {
        Break::Node(reason) => return reason,
        Break::Subscriber(reason) => reason,
    };
    // The connection that publishes may live: what is under way there gets its reply.
    is_last.notify_one();
    publishing.await;
    reason
}

/// The pause before the next attempt: none at first, then longer ones, each partly by chance.
pub(super) fn pause_after(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(doublings.min(10)));
    // Processes that were cut off together do not come back together.
    let chance = RandomState::new().hash_one(()) % 1000;
    longest / 2 + longest * u32::try_from(chance).unwrap_or_default() / 2000
}

/// Connects to the node of a route: for publishing, and for subscriptions.
async fn connect(
    shard: &Shard,
    place: usize,
    incoming: &Incoming,
    on_push: OnPush,
) -> Result<(Connection, Connection), Reason> {
    let limit = connect_limit(shard);
    let address = if let Kind::Sentinel { .. } = shard.server.kind {
        let found = sentinel::find_master(&shard.server, limit).await?;
        shard.on_found(place, &found);
        found
    } else {
        let (address, _) = shard.target(place);
        address.ok_or_else(|| Reason::from("its address is not known"))?
    };
    let (login, tls) = (&shard.server.login, shard.server.tls.as_ref());
    let gate = Arc::clone(&incoming.gate);
    let (mut publisher, subscriber) = futures_util::future::try_join(
        Connection::open(&address, login, tls, limit, None),
        Connection::open(&address, login, tls, limit, Some((gate, on_push))),
    )
    .await?;
    // Sentinels and maps may name a node that is a replica now.
    let may_serve = match shard.server.kind {
        Kind::Single => true,
        Kind::Cluster => is_master(&mut publisher, limit).await? != Some(false),
        Kind::Sentinel { .. } => is_master(&mut publisher, limit).await? == Some(true),
    };
    if !may_serve {
        return Err("the node is no master yet".into());
    }
    Ok((publisher, subscriber))
}

/// Whether the node is a master, as far as it tells. Any user may ask so, as when it logs in.
async fn is_master(connection: &mut Connection, limit: Duration) -> Result<Option<bool>, Reason> {
    let reply = within(limit, connection.send(&redis::cmd("HELLO"))).await?;
    let told: HashMap<String, Value> = from_redis_value(reply).unwrap_or_default();
    let role = told.get("role");
    Ok(role.map(|role| matches!(role, Value::BulkString(role) if role == b"master")))
}

/// Hands messages on.
fn on_push(incoming: &Incoming, misled: &Arc<Notify>, unsubscribing: &Arc<AtomicUsize>) -> OnPush {
    let (incoming, misled) = (incoming.clone(), Arc::clone(misled));
    let unsubscribing = Arc::clone(unsubscribing);
    Box::new(move |push: PushInfo| match push.kind {
        PushKind::Message | PushKind::SMessage => {
            if let Ok([channel, payload]) = <[Value; 2]>::try_from(push.data) {
                if let (Value::BulkString(channel), Value::BulkString(payload)) = (channel, payload)
                {
                    incoming.add(channel, payload);
                }
            }
        }
        // The node has given the slot away; this comes without a command for it, and would be
        // taken for the reply to another one. So begin anew.
        PushKind::SUnsubscribe if unsubscribing.load(Ordering::Relaxed) == 0 => {
            misled.notify_one();
        }
        _ => {}
    })
}

fn connect_limit(shard: &Shard) -> Duration {
    shard.timeout.min(CONNECT_LIMIT)
}

/// The scripts of the history on a connection, or the reason why there are none now.
type Loaded = Result<Arc<Scripts>, Reason>;

async fn load(mut connection: Connection, limit: Duration) -> Loaded {
    history::load(&mut connection, limit).await.map(Arc::new)
}

/// A route that is connected.
struct Link<'a> {
    shard: &'a Shard,
    place: usize,
    wakeups: &'a Wakeups,
    publisher: Connection,
    subscriber: Connection,
    scripts: Mutex<Loaded>,
}

/// Calls that a node cannot do now.
#[derive(Default)]
struct Undone {
    /// It has forgotten its scripts.
    unknown: Vec<Publish>,
    /// A part of their keys is here, and a part is at another node.
    torn: Vec<Publish>,
}

impl Link<'_> {
    /// Publishes what waits, many messages in one piece, until the connection fails. After `is_last`
    /// it only waits for what is under way.
    async fn publish(&self, is_last: &Notify) -> Reason {
        let mut in_flight = FuturesOrdered::new();
        let mut is_ending = false;
        while !(is_ending && in_flight.is_empty()) {
            select! {
                biased;
                // Polls the newest piece for the first time, too: in this order they are queued.
                Some(outcome) = in_flight.next() => {
                    if let Err(reason) = outcome {
                        return reason;
                    }
                }
                () = is_last.notified(), if !is_ending => is_ending = true,
                () = self.wakeups.publish.notified(), if !is_ending && in_flight.len() < IN_FLIGHT => {
                    let batch = self.shard.take_publishes(self.place, BATCH, BATCH_BYTES);
                    if !batch.is_empty() {
                        in_flight.push_back(self.send(batch));
                    }
                }
            }
        }
        CLOSED.into()
    }

    /// Sends a batch, and sets the outcome of each message.
    async fn send(&self, waiting: Vec<Publish>) -> Result<(), Reason> {
        let shard = self.shard;
        let known = self.scripts.lock().clone();
        // Only a node of a cluster may refuse one because it is another's.
        let Batch { commands, calls } = Batch::of(waiting, &known, shard.is_cluster());
        if calls.is_empty() {
            return Ok(());
        }
        let mut under_way = UnderWay { shard, calls };
        let mut connection = self.publisher.clone();
        let mut replies = pin!(connection.send_all(&commands));
        while let Some(deadline) = under_way.next_deadline() {
            match timeout_at(clock::real(deadline).into(), &mut replies).await {
                Ok(Ok(replies)) => {
                    let run = known.map(|scripts| Arc::clone(&scripts.run));
                    let replies = under_way.over().into_iter().zip(replies);
                    let undone = self.settle(replies, &run.unwrap_or_default());
                    self.retry(undone).await;
                    return Ok(());
                }
                Ok(Err(reason)) => {
                    under_way.fail(&reason);
                    return Err(reason);
                }
                Err(_) => under_way.end_late(),
            }
        }
        // The server may be slow: the connection is closed by `check` if it does not answer at all.
        fail(under_way.over().into_iter().flatten(), &late(shard.timeout));
        Ok(())
    }

    /// Sets the outcomes of calls, or sends them to other nodes, as the replies say; `run` is that
    /// of this node. Returns those that it cannot do now.
    fn settle(
        &self,
        replies: impl Iterator<Item = (Vec<Publish>, Value)>,
        run: &Arc<[u8]>,
    ) -> Undone {
        let shard = self.shard;
        let mut undone = Undone::default();
        for (publishes, reply) in replies {
            match reply {
                Value::ServerError(error) if shard.is_cluster() && error.code() == "MOVED" => {
                    for publish in publishes {
                        shard.on_moved(publish);
                    }
                }
                Value::ServerError(error) if shard.is_cluster() && error.code() == "ASK" => {
                    let to = error.details().unwrap_or_default();
                    shard.on_sent_on(self.place, publishes, to, run);
                }
                Value::ServerError(error) if shard.is_cluster() && error.code() == "TRYAGAIN" => {
                    undone.torn.extend(publishes);
                }
                Value::ServerError(error) if error.code() == "NOSCRIPT" => {
                    undone.unknown.extend(publishes);
                }
                Value::BulkString(announcement) => announce(shard, publishes, &announcement),
                reply => finish(publishes, reply),
            }
        }
        undone
    }

    /// Queues calls once more, as soon as the node may do them.
    async fn retry(&self, Undone { unknown, torn }: Undone) {
        if !unknown.is_empty() {
            // The scripts have the same names as before.
            match load(self.publisher.clone(), CONNECT_LIMIT).await {
                Ok(_) => self.shard.send_all(unknown),
                Err(reason) => {
                    *self.scripts.lock() = Err(Arc::clone(&reason));
                    fail(unknown, &reason);
                }
            }
        }
        if !torn.is_empty() {
            sleep(FIRST_PAUSE).await;
            self.shard.send_all(torn);
        }
    }

    /// Does all but publishing, until one part of that is over.
    async fn rest(&self, unsubscribing: &AtomicUsize, misled: &Notify) -> Break {
        let given_away = || {
            self.shard.on_given_away(self.place);
            Break::Node("it has given a part of the cluster away".into())
        };
        // Each message wakes the task. Of these futures only those that were woken are polled then.
        let mut parts = FuturesUnordered::from_iter([
            self.subscribe(unsubscribing).map(Break::Subscriber).boxed(),
            self.subscriber.end().map(Break::Subscriber).boxed(),
            self.look_after().map(Break::Node).boxed(),
            misled.notified().map(|()| given_away()).boxed(),
        ]);
        parts
            .next()
            .await
            .unwrap_or_else(|| Break::Node(CLOSED.into()))
    }

    /// Subscribes and unsubscribes. `unsubscribing` is how many replies to the latter are due.
    async fn subscribe(&self, unsubscribing: &AtomicUsize) -> Reason {
        let mut connection = self.subscriber.clone();
        loop {
            let changes = self.shard.take_changes(self.place, CHANGES);
            if changes.is_empty() {
                self.wakeups.subscribe.notified().await;
                continue;
            }
            let commands = self.commands_for(&changes);
            let is_end = |change: &&Change| matches!(change, Change::Unsubscribe(_));
            unsubscribing.store(changes.iter().filter(is_end).count(), Ordering::Relaxed);
            let sending = connection.send_all(&commands);
            let replies = self.subscriber.while_alive(CHECK_LIMIT, sending).await;
            unsubscribing.store(0, Ordering::Relaxed);
            match replies {
                Ok(replies) => self.note_changed(changes.into_iter().zip(replies)),
                Err(reason) => return reason,
            }
        }
    }

    /// One command for each channel: so each has one reply.
    fn commands_for(&self, changes: &[Change]) -> Pipeline {
        let (subscribe, unsubscribe) = if self.shard.is_cluster() {
            ("SSUBSCRIBE", "SUNSUBSCRIBE")
        } else {
            ("SUBSCRIBE", "UNSUBSCRIBE")
        };
        let mut commands = Pipeline::with_capacity(changes.len());
        for change in changes {
            let (command, name) = match change {
                Change::Subscribe(name, _) => (subscribe, name),
                Change::Unsubscribe(name) => (unsubscribe, name),
            };
            commands.cmd(command).arg(self.shard.channel_of(name));
        }
        commands
    }

    /// Notes what has become of subscriptions.
    fn note_changed(&self, replies: impl Iterator<Item = (Change, Value)>) {
        for (change, reply) in replies {
            let Change::Subscribe(name, serial) = change else {
                continue;
            };
            if let Value::ServerError(error) = reply {
                let (has_moved, reason) = (has_moved(&error), text_of(&error));
                self.shard.on_refused(&name, serial, has_moved, &reason);
            } else {
                self.shard.on_subscribed(&name, serial);
            }
        }
        self.shard.on_changed();
    }

    /// Looks whether the node still is the right one and answers, and returns the reason when not.
    async fn look_after(&self) -> Reason {
        let note = |note: &dyn Fn(&mut Lag)| self.shard.note_lag(self.place, note);
        select! {
            reason = check(self.publisher.clone(), |_| {}) => reason,
            reason = check(self.subscriber.clone(), note) => reason,
            reason = self.check_master() => reason,
            () = self.ask_again() => CLOSED.into(),
            () = self.load_again(), if self.shard.keeps_history => CLOSED.into(),
            reason = self.publisher.end() => reason,
        }
    }

    /// Asks now and then for what the server has refused: a user may have got a right meanwhile.
    async fn ask_again(&self) {
        loop {
            clock::sleep_until(clock::task_now() + CHECK_EVERY).await;
            self.shard.ask_again();
        }
    }

    /// Gives the server the scripts once more. While it refuses them: it may have loaded its data, or
    /// have ended a long script, and a user may have got a right meanwhile. Now and then in any case:
    /// it may have been a replica.
    async fn load_again(&self) {
        let mut pause = FIRST_PAUSE / 2;
        loop {
            let is_refused = self.scripts.lock().is_err();
            pause = CHECK_EVERY.min(if is_refused { 2 * pause } else { CHECK_EVERY });
            clock::sleep_until(clock::task_now() + pause).await;
            let loaded = load(self.publisher.clone(), connect_limit(self.shard)).await;
            let mut scripts = self.scripts.lock();
            if loaded.is_ok() || scripts.is_err() {
                *scripts = loaded;
            }
        }
    }

    /// Asks now and then whether the service has another master; returns the reason when it has.
    async fn check_master(&self) -> Reason {
        let server = &self.shard.server;
        if !matches!(server.kind, Kind::Sentinel { .. }) {
            return std::future::pending().await;
        }
        loop {
            clock::sleep_until(clock::task_now() + CHECK_EVERY).await;
            let (now, _) = self.shard.target(self.place);
            // Without sentinels the master that is there goes on.
            if let Ok(found) = sentinel::find_master(server, CONNECT_LIMIT).await {
                if now.is_some_and(|now| now != found) {
                    return format!("the service has another master, {found}").into();
                }
            }
        }
    }
}

/// The calls of commands that a connection has taken.
///
/// When it ends before the replies, the next connection repeats the reads, once. Callers of other
/// commands get an error: the server may have carried them out.
struct UnderWay<'a> {
    shard: &'a Shard,
    calls: Vec<Vec<Publish>>,
}

impl UnderWay<'_> {
    /// The first deadline that is not over.
    fn next_deadline(&self) -> Option<Instant> {
        let now = clock::now();
        let deadlines = self.calls.iter().flatten().map(|publish| publish.deadline);
        deadlines.filter(|deadline| *deadline > now).min()
    }

    /// Ends the calls whose deadline is over. They stay in their places, to which the replies belong.
    fn end_late(&mut self) {
        let (now, reason) = (clock::now(), late(self.shard.timeout));
        for publish in self.calls.iter_mut().flatten() {
            if let Some(ticket) = publish.ticket.take_if(|_| publish.deadline <= now) {
                ticket.finish(Err(Arc::clone(&reason)));
            }
        }
    }

    /// Returns the calls: there are replies, or none is waited for.
    fn over(mut self) -> Vec<Vec<Publish>> {
        mem::take(&mut self.calls)
    }

    /// Ends the calls of a connection that has failed.
    fn fail(mut self, reason: &Reason) {
        let calls = mem::take(&mut self.calls).into_iter().flatten();
        let (reads, others): (_, Vec<_>) = calls.partition(Publish::may_repeat);
        self.calls = vec![reads];
        fail(others, reason);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let calls = mem::take(&mut self.calls).into_iter().flatten();
        let mut reads: Vec<_> = calls.filter(Publish::may_repeat).collect();
        for publish in &mut reads {
            publish.is_repeated = true;
        }
        if !reads.is_empty() {
            self.shard.send_all(reads);
        }
    }
}

/// Tells the subscriptions of messages that a node has kept which is getting the group's slot: they are
/// at the other node until it has the slot.
fn announce(shard: &Shard, publishes: Vec<Publish>, announcement: &[u8]) {
    let at = history::announced(announcement).map(|(at, _)| at);
    let name = publishes.first().and_then(|it| shard.name_of(&it.channel));
    if let (Some(_), Some(name)) = (at, name) {
        shard.send(&name, announcement);
    }
    let offset = at.and_then(|at| i64::try_from(at.offset).ok());
    finish(publishes, offset.map_or(Value::Nil, Value::Int));
}

/// Returns the calls of one command their outcome.
fn finish(publishes: Vec<Publish>, reply: Value) {
    let outcome = match reply {
        Value::Int(number) => Ok(Reply::Number(u64::try_from(number).unwrap_or_default())),
        Value::ServerError(error) => Err(text_of(&error)),
        reply => match history::page_in(reply) {
            Some(page) => Ok(Reply::Page(Arc::new(page))),
            None => Err("the server's reply makes no sense".into()),
        },
    };
    let mut behind = publishes.len() as u64;
    for publish in publishes {
        behind -= 1;
        publish.finish(match &outcome {
            // The number is that of the last one.
            Ok(Reply::Number(number)) => Ok(Reply::Number(number.saturating_sub(behind))),
            outcome => outcome.clone(),
        });
    }
}

/// Ends the calls with an error.
fn fail(publishes: impl IntoIterator<Item = Publish>, reason: &Reason) {
    for publish in publishes {
        publish.finish(Err(Arc::clone(reason)));
    }
}

/// Whether a node has refused a command because of the state of its cluster.
fn has_moved(error: &ServerError) -> bool {
    matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN")
}

fn text_of(error: &ServerError) -> Reason {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()).into(),
        None => error.code().into(),
    }
}

/// Asks now and then whether the server is there, and returns the reason when it is not.
async fn check(connection: Connection, note: impl Fn(&dyn Fn(&mut Lag))) -> Reason {
    let ping = redis::cmd("PING");
    let mut asking = connection.clone();
    loop {
        let asked_at = Instant::now();
        note(&|lag| lag.ask(asked_at));
        if let Err(reason) = connection
            .while_alive(CHECK_LIMIT, asking.send(&ping))
            .await
        {
            return reason;
        }
        let answered_at = Instant::now();
        note(&|lag| lag.answer(answered_at));
        clock::sleep_until(clock::task_now() + CHECK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::advance,
    };

    use super::*;
    use crate::engine::{
        backends::redis::config::{Address, Login, Server},
        groups::{Groups, WhenFull},
    };

    /// Answers to the commands of a login at once, and to others when it is told.
    async fn serve(mut stream: DuplexStream, may_answer: &Notify) {
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            for command in text.split('*').skip(1) {
                let reply: &[u8] = match command {
                    command if command.contains("HELLO") => b"%0\r\n",
                    command if command.contains("PUBLISH") => {
                        may_answer.notified().await;
                        may_answer.notify_one();
                        b":1\r\n"
                    }
                    _ => b"+OK\r\n",
                };
                stream.write_all(reply).await.unwrap();
            }
        }
    }

    fn shard(timeout: Duration) -> Shard {
        let server = Server {
            kind: Kind::Single,
            nodes: vec![Address::Tcp("node".to_owned(), 1)],
            login: Login::default(),
            tls: None,
            prefix: String::new(),
        };
        let groups = Groups::new(Vec::new(), WhenFull::Close, None);
        Shard::new(server, timeout, false, groups)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_until_its_own_deadline_whatever_goes_with_it() {
        let (ours, theirs) = duplex(4096);
        let (told, never) = (Notify::new(), Notify::new());
        let timeout = Duration::from_secs(2);
        let calls = async {
            let login = Login::default();
            let connection = Connection::over(Box::pin(ours), Arc::default(), &login, None);
            let connection = connection.await.unwrap();
            let shard = shard(timeout);
            let first = shard.publish("room", b"x");
            advance(Duration::from_secs(1)).await;
            let second = shard.publish("room", b"y");
            shard.on_connected(0);
            let link = Link {
                shard: &shard,
                place: 0,
                wakeups: &shard.wakeups(0).unwrap(),
                publisher: connection.clone(),
                subscriber: connection,
                scripts: Mutex::new(Err("none".into())),
            };
            let outcomes = async {
                assert_eq!(first.done().await, Err(late(timeout)));
                told.notify_one();
                second.done().await
            };
            select! {
                reason = link.publish(&never) => panic!("{reason}"),
                outcome = outcomes => assert_eq!(outcome, Ok(Reply::Number(1))),
            }
        };
        select! {
            () = serve(theirs, &told) => {}
            () = calls => {}
        }
    }

    #[test]
    fn the_first_attempt_is_at_once_and_none_waits_for_a_second() {
        assert_eq!(pause_after(0), Duration::ZERO);
        for failures in [1, 2, 5, 20, 1000, u32::MAX] {
            let pause = pause_after(failures);
            assert!(
                pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE,
                "{pause:?}"
            );
        }
        let some: Vec<_> = (0..100).map(|_| pause_after(100)).collect();
        assert!(some.iter().any(|pause| *pause != some[0]), "by chance");
    }
}
