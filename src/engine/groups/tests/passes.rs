//! The queue of a group against a model: members join, leave and come again while it is handed out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use proptest::prelude::*;

use super::super::{
    group::{Batch, Entry, Next, Recipient, STRETCH, State},
    member::{Handed, Member, WhenFull},
    memberships::Memberships,
    message::{Delivery, Message},
};
use crate::protocol::{close::CloseFrame, message::Kind};

/// A member that takes nothing: the test looks at what it would be handed.
#[derive(Debug)]
struct Person {
    memberships: Memberships,
}

impl Member for Person {
    fn is_foreign(&self) -> bool {
        false
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn take(&self, _: &Delivery, _: WhenFull, _: bool) -> Handed {
        Handed::default()
    }

    fn close(&self, _: &CloseFrame) {}
}

#[derive(Clone, Copy, Debug)]
enum Action {
    /// The person joins, or leaves if it is a member.
    Toggle(usize),
    Publish,
    Close,
    /// The next stretch is served.
    Step,
}

/// A group with its fan-out, step by step.
struct Model {
    state: State,
    people: Vec<Arc<dyn Member>>,
    /// The places of those that are members now.
    slots: BTreeMap<usize, u32>,
    published: u64,
    expected: BTreeMap<usize, Vec<u64>>,
    got: BTreeMap<usize, Vec<u64>>,
    is_running: bool,
    stretch: usize,
    batch: Batch,
}

/// Bytes of a batch: three messages.
const MOST: usize = 3 * 3;

impl Model {
    fn new(people: usize) -> Self {
        let person = |_| {
            let memberships = Memberships::default();
            Arc::new(Person { memberships }) as Arc<dyn Member>
        };
        Self {
            state: State::default(),
            people: (0..people).map(person).collect(),
            slots: BTreeMap::new(),
            published: 0,
            expected: BTreeMap::new(),
            got: BTreeMap::new(),
            is_running: false,
            stretch: 0,
            batch: Batch::default(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Toggle(number) => self.toggle(number % self.people.len()),
            Action::Publish => self.put(Entry::Message(Message::new(Kind::Text, b"x", &[]))),
            Action::Close => self.put(Entry::Close(CloseFrame::default())),
            Action::Step => self.step(),
        }
    }

    fn toggle(&mut self, number: usize) {
        if let Some(slot) = self.slots.remove(&number) {
            let _ = self.state.leave(slot);
        } else {
            let person = Arc::downgrade(&self.people[number]);
            let (slot, is_first) = self.state.enter(person);
            assert_eq!(is_first, self.slots.is_empty());
            self.slots.insert(number, slot);
        }
    }

    fn put(&mut self, entry: Entry) {
        for number in self.slots.keys() {
            self.expected
                .entry(*number)
                .or_default()
                .push(self.published);
        }
        self.published += 1;
        let starts = self.state.push(entry);
        assert_eq!(starts, !self.is_running);
        if starts {
            (self.is_running, self.stretch) = (true, 0);
            self.batch = Batch::default();
        }
    }

    fn step(&mut self) {
        if !self.is_running {
            return;
        }
        let mut recipients = Vec::new();
        let next = (self.state).next(self.stretch, MOST, &mut self.batch, &mut recipients);
        self.stretch += 1;
        match next {
            None => {
                self.is_running = !self.state.end_pass().is_over;
                self.stretch = 0;
            }
            Some(Next::Nothing) => assert!(recipients.is_empty()),
            Some(Next::SameBatch | Next::NewBatch) => {
                let closes = |entry: &Entry| matches!(entry, Entry::Close(_));
                let count = self.batch.entries.len();
                assert!(count == 1 || !self.batch.entries.iter().any(closes));
                assert!(count <= 3);
                for Recipient { member, since, .. } in recipients {
                    self.hand_over(&member, since);
                }
            }
        }
    }

    fn hand_over(&mut self, member: &Weak<dyn Member>, since: u64) {
        let is_it = |person: &Arc<dyn Member>| Arc::as_ptr(person).addr() == member.as_ptr().addr();
        let number = self.people.iter().position(is_it).unwrap();
        let numbers = (self.batch.first..).take(self.batch.entries.len());
        let its = numbers.filter(|entry| *entry >= since);
        self.got.entry(number).or_default().extend(its);
    }
}

fn action(people: usize) -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..people).prop_map(Action::Toggle),
        4 => Just(Action::Publish),
        1 => Just(Action::Close),
        8 => Just(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_gets_what_is_published_while_it_is_a_member_once_and_in_order(
        members in 0..3 * STRETCH,
        actions in prop::collection::vec(action(3 * STRETCH), 0..300),
    ) {
        let mut model = Model::new(3 * STRETCH);
        for number in 0..members {
            model.act(Action::Toggle(number));
        }
        for action in actions {
            model.act(action);
        }
        while model.is_running {
            model.act(Action::Step);
        }
        model.got.retain(|_, its| !its.is_empty());
        prop_assert_eq!(&model.got, &model.expected);
        let members: Vec<_> = model.slots.keys().copied().collect();
        for number in members {
            model.act(Action::Toggle(number));
        }
        prop_assert!(model.state.is_unused());
    }
}
