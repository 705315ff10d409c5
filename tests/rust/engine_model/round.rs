//! One round: a few connections, all that happens to them, and what must hold afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use _core::engine::{Connection, Engine, Initiator, permits};
use socket2::SockRef;

use crate::{
    client::{Client, Seen},
    plan::{End, GENTLE, Plan, Steps},
    support::{SETTINGS, chance::Chance, connect, join, tcp, unix, until},
    view::{ANSWERS, CODE, View},
};

/// The records of both ends of a connection that is over.
struct Outcome {
    /// Messages that the client began to send.
    begun: u32,
    seen: Seen,
    /// The numbers of the messages that each taker took.
    taken: Vec<Vec<u32>>,
    /// Sender, messages that were taken in, and messages that it had.
    sent: Vec<(usize, u32, u32)>,
}

/// Plays the round of `seed`.
pub(crate) fn play(seed: u64) {
    let mut chance = Chance::seeded(seed);
    // The engine's own descriptors come with the first connection.
    drop(connect(&SETTINGS));
    until("the first is gone", || permits::open() == 0);
    let files = descriptors();
    let steps = [Steps::None, Steps::Gentle, Steps::Wild][chance.size(3)];
    let plans: Vec<_> = (0..=chance.below(4))
        .map(|_| Plan::draw(&mut chance, steps))
        .collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut for_clock = chance.branch();
        let is_over = &is_over;
        let clock = scope.spawn(move || step_clock(steps, is_over, &mut for_clock));
        let connections: Vec<_> = plans
            .iter()
            .map(|plan| {
                let chance = chance.branch();
                scope.spawn(move || talk(plan, steps, chance))
            })
            .collect();
        let ended: Vec<_> = connections
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        is_over.store(true, Ordering::SeqCst);
        clock.join().unwrap();
        assert!(ended.iter().all(Result::is_ok));
    });
    until("all places are given back", || permits::open() == 0);
    until("all descriptors are closed", || descriptors() == files);
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn step_clock(steps: Steps, is_over: &AtomicBool, chance: &mut Chance) {
    let mut left = match steps {
        Steps::None => return,
        Steps::Gentle => GENTLE,
        Steps::Wild => GENTLE * 100,
    };
    while !is_over.load(Ordering::SeqCst) && !left.is_zero() {
        let step = Duration::from_millis(chance.below(8000)).min(left);
        left -= step;
        Engine::current().unwrap().step(step);
        thread::sleep(Duration::from_millis(chance.below(10)));
    }
}

/// A connection from its first message to its end.
fn talk(plan: &Plan, steps: Steps, mut chance: Chance) {
    let (server, client) = if plan.is_tcp { tcp() } else { unix() };
    if plan.is_narrow {
        SockRef::from(&server)
            .set_send_buffer_size(8 * 1024)
            .unwrap();
    }
    let (connection, peer) = join((server, client), &plan.settings);
    let client = Client::new(peer.socket, plan);
    let view = View {
        connection: Arc::clone(&connection),
        plan,
        taken: AtomicU32::new(0),
    };
    let outcome = run(plan, client, &view, &mut chance);
    let allowed = Allowed::by(plan, steps);
    check_incoming(plan, &outcome, &allowed);
    check_outgoing(&outcome, &allowed);
    check_end(plan, &outcome, &connection, &allowed);
    drop(view);
    let weak = Arc::downgrade(&connection);
    drop(connection);
    until("the connection is freed", || weak.strong_count() == 0);
}

/// Lets all threads of both ends run to their end.
fn run(plan: &Plan, client: Client<'_>, view: &View<'_>, chance: &mut Chance) -> Outcome {
    thread::scope(|scope| {
        // The socket is closed when both threads have ended, whatever the view does.
        let client = Arc::new(client);
        let (for_writer, mut own) = (Arc::clone(&client), chance.branch());
        let writer = scope.spawn(move || for_writer.write_all(&mut own));
        let mut own = chance.branch();
        let reader = scope.spawn(move || client.read_all(&mut own));
        let mut takers = Vec::new();
        for (index, taker) in plan.takers.iter().enumerate() {
            let mut own = chance.branch();
            let answers = plan.answers && index == 0;
            takers.push(scope.spawn(move || view.take_all(*taker, answers, &mut own)));
        }
        let mut senders = Vec::new();
        for (sender, &count) in plan.outgoing.iter().enumerate() {
            let mut own = chance.branch();
            let send = move || (sender, view.send_all(sender, count, &mut own), count);
            senders.push(scope.spawn(send));
        }
        if plan.end == End::OtherCloses {
            thread::sleep(Duration::from_micros(chance.below(50_000)));
            view.close();
        }
        let sent = senders.into_iter().map(|sender| sender.join().unwrap());
        let mut sent: Vec<_> = sent.collect();
        let mut taken = Vec::new();
        for taker in takers {
            let (numbers, answers) = taker.join().unwrap();
            taken.push(numbers);
            sent.push((ANSWERS, answers, answers + 1));
        }
        // Only the first answers.
        sent.truncate(plan.outgoing.len() + 1);
        Outcome {
            begun: writer.join().unwrap(),
            seen: reader.join().unwrap(),
            taken,
            sent,
        }
    })
}

/// The messages that may be lost at the end of a connection.
struct Allowed {
    incoming: bool,
    outgoing: bool,
    /// The end may be another one than the plan's.
    end: bool,
}

impl Allowed {
    fn by(plan: &Plan, steps: Steps) -> Self {
        let wild = steps == Steps::Wild;
        let is_clean = matches!(
            plan.end,
            End::ClientCloses | End::ViewCloses(_) | End::OtherCloses
        );
        let is_taken = matches!(plan.end, End::ClientCloses | End::ClientFinishes);
        Self {
            incoming: wild || !is_taken,
            outgoing: wild || !is_clean,
            end: wild,
        }
    }
}

fn check_incoming(plan: &Plan, outcome: &Outcome, allowed: &Allowed) {
    for numbers in &outcome.taken {
        assert!(numbers.is_sorted(), "a taker got messages out of order");
    }
    let mut all: Vec<_> = outcome.taken.concat();
    all.sort_unstable();
    let first_ones: Vec<_> = (0..).take(all.len()).collect();
    assert_eq!(all, first_ones, "one is missing, or was given twice");
    let count = u32::try_from(all.len()).unwrap();
    assert!(count <= outcome.begun);
    if !allowed.incoming {
        assert_eq!(count, plan.incoming);
    }
    if let (End::ViewCloses(least), false) = (plan.end, allowed.end) {
        assert!(count >= least);
    }
}

fn check_outgoing(outcome: &Outcome, allowed: &Allowed) {
    for (sender, accepted, all) in &outcome.sent {
        let of_sender = outcome
            .seen
            .messages
            .iter()
            .filter(|(from, _)| from == sender);
        let numbers: Vec<_> = of_sender.map(|(_, number)| *number).collect();
        let first_ones: Vec<_> = (0..).take(numbers.len()).collect();
        assert_eq!(numbers, first_ones, "of sender {sender}");
        let count = u32::try_from(numbers.len()).unwrap();
        assert!(
            count <= *accepted,
            "more than sender {sender} sent of {all}"
        );
        if !allowed.outgoing {
            assert_eq!(count, *accepted, "of sender {sender}, of {all}");
        }
    }
}

fn check_end(plan: &Plan, outcome: &Outcome, connection: &Connection, allowed: &Allowed) {
    let end = connection.end().unwrap();
    if allowed.end {
        return;
    }
    let (code, by) = match plan.end {
        End::ClientCloses => (1000, Initiator::Peer),
        End::ViewCloses(_) | End::OtherCloses => (CODE, Initiator::Local),
        End::ClientFinishes | End::ClientHangsUp | End::ClientResets => (1006, Initiator::Lost),
    };
    assert_eq!((end.code, end.by), (code, by), "{plan:?}");
    if by != Initiator::Lost {
        assert_eq!(outcome.seen.close_code, Some(code), "{plan:?}");
        assert_eq!(outcome.seen.rest, 0);
    }
}
