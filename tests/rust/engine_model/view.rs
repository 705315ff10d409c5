//! The view's end: threads that take, threads that send.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use _core::{
    engine::{Connection, Hub, Received, Watch, clock},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::{
    client::DIGITS,
    plan::{End, Plan, Taker},
    support::{LIMIT, chance::Chance},
};

/// The sender's number of a taker's answers.
pub(crate) const ANSWERS: usize = 9;
/// The close code of both ways in which the server's side closes.
pub(crate) const CODE: u16 = 4000;

pub(crate) struct View<'a> {
    pub(crate) connection: Arc<Connection>,
    pub(crate) plan: &'a Plan,
    pub(crate) taken: AtomicU32,
}

fn payload(sender: usize, number: u32, size: usize) -> Vec<u8> {
    let mut payload = format!("{sender}{number:0DIGITS$}").into_bytes();
    payload.resize(payload.len() + size, b'y');
    payload
}

impl View<'_> {
    /// Takes messages to the end. Returns their numbers, and how many answers were taken in.
    pub(crate) fn take_all(
        &self,
        taker: Taker,
        answers: bool,
        chance: &mut Chance,
    ) -> (Vec<u32>, u32) {
        let hub = Hub::new().unwrap();
        let mut numbers = Vec::new();
        let mut answered = 0;
        loop {
            self.close_in_time();
            match self.take(taker, &hub, chance) {
                Received::Nothing => {}
                Received::End => return (numbers, answered),
                Received::Message(message) => {
                    let (digits, rest) = message.payload.split_at(DIGITS);
                    assert!(rest.iter().all(|byte| *byte == b'x'));
                    numbers.push(std::str::from_utf8(digits).unwrap().parse().unwrap());
                    self.taken.fetch_add(1, Ordering::SeqCst);
                    if answers && self.answer(answered, chance) {
                        answered += 1;
                    }
                }
            }
            chance.dawdle();
        }
    }

    fn take(&self, taker: Taker, hub: &Arc<Hub>, chance: &mut Chance) -> Received {
        let connection = &self.connection;
        let moment = Duration::from_micros(chance.below(3000));
        match taker {
            Taker::Sleeps => connection.take(None),
            Taker::Polls => connection.take(Some(clock::now() + moment)),
            Taker::Naps => connection.take_coarse(moment),
            Taker::Looks => {
                connection.await_news(Some(clock::now() + moment));
                connection.take_now()
            }
            Taker::Watches => {
                let taken = connection.take_now();
                if matches!(taken, Received::Nothing) {
                    connection.uncork_all();
                    if connection.listen(|| Watch::new(Arc::clone(hub), 7)) {
                        await_readable(hub);
                        assert_eq!(hub.drain(), [7]);
                        hub.served();
                    }
                }
                taken
            }
        }
    }

    fn close_in_time(&self) {
        if let End::ViewCloses(count) = self.plan.end {
            if self.taken.load(Ordering::SeqCst) >= count {
                self.close();
            }
        }
    }

    /// Closes from the server's side; whichever call comes first counts.
    pub(crate) fn close(&self) {
        let frame = CloseFrame::new(Some(CODE), "").unwrap();
        self.connection.close(&frame);
    }

    /// Whether an answer was taken in, in one of the ways that views have.
    fn answer(&self, number: u32, chance: &mut Chance) -> bool {
        let payload = payload(ANSWERS, number, chance.size(100));
        let connection = &self.connection;
        connection.cork(Kind::Text, &payload)
            || connection.write(Kind::Text, &payload)
            || self.send(&payload, chance)
    }

    fn send(&self, payload: &[u8], chance: &mut Chance) -> bool {
        loop {
            let sent = if chance.below(3) == 0 {
                self.connection.try_send(Kind::Binary, payload)
            } else {
                self.connection
                    .send(Kind::Binary, payload, Some(LIMIT))
                    .ok()
            };
            match sent {
                Some(sent) => return sent,
                None => chance.dawdle(),
            }
        }
    }

    /// Sends `count` messages. Returns how many were taken in.
    pub(crate) fn send_all(&self, sender: usize, count: u32, chance: &mut Chance) -> u32 {
        for number in 0..count {
            let payload = payload(sender, number, chance.size(self.plan.size));
            if !self.send(&payload, chance) {
                return number;
            }
            chance.dawdle();
        }
        count
    }
}

/// Sleeps as an event loop does, in `poll(2)`.
fn await_readable(hub: &Hub) {
    let mut entry = libc::pollfd {
        fd: hub.descriptor(),
        events: libc::POLLIN,
        revents: 0,
    };
    #[expect(unsafe_code, reason = "an event loop gets the bare descriptor, too")]
    // SAFETY: one entry, which lives on the stack meanwhile.
    let ready = unsafe { libc::poll(&raw mut entry, 1, -1) };
    assert_eq!(ready, 1);
}
