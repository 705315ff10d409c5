//! The rule for what a server, or a stranger on it, hands to the exchange of presence: none of it
//! makes the exchange panic.

use std::{sync::Arc, time::Instant};

use _core::engine::{
    backends::exchange::Exchange,
    groups::{Groups, WhenFull},
    presence::Presence,
};

const ROOM: &str = "room";

/// Splits `bytes` into deliveries, each behind a byte with its length, and hands them over. Each is as
/// fresh as one that was sent now: the time in it is replaced.
pub(crate) fn judge_parcels(mut bytes: &[u8], now_ms: u64) {
    // Without a key each input is one of this project.
    let groups = Groups::new(Vec::new(), WhenFull::Close, None);
    let presence = Presence::new(Arc::clone(&groups));
    let exchange = Exchange::new(&presence, &groups, 256);
    exchange.begin(ROOM);
    let learned = exchange.learn(ROOM);
    let asked = exchange.ask(ROOM);
    let [common, own] = exchange.channels();
    let mut handed = 0;
    while let Some((&length, rest)) = bytes.split_first() {
        let (delivery, rest) = rest.split_at(usize::from(length).min(rest.len()));
        bytes = rest;
        let mut delivery = delivery.to_vec();
        if let Some(time) = delivery.get_mut(8..16) {
            time.copy_from_slice(&(now_ms + handed).to_be_bytes());
        }
        handed += 1;
        for channel in [&common, &own, ROOM] {
            exchange.on_message(channel, &[b"\x01presence ", &delivery[..]].concat());
        }
    }
    exchange.expect(asked.number, 2);
    exchange.gathered(asked.number);
    if let Some(question) = learned {
        exchange.give_up(question.number);
    }
    exchange.end(ROOM);
    exchange.take(Instant::now());
    exchange.stop();
}
