//! Messages on their way to members: encoded once, compressed once for all with the same agreement.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{memberships::MemberId, numbered, stamps::Stamp};
use crate::{
    engine::history::Position,
    protocol::{
        deflate::Deflater,
        frame::{self, First, Opcode},
        framing::Framing,
        message::Kind,
    },
};

/// One published message. Copies share its bytes.
#[derive(Clone, Debug)]
pub struct Message {
    kind: Kind,
    /// The frame as it is sent without compression.
    frame: Bytes,
    payload_len: usize,
    /// Members that do not get it.
    exclude: Option<Arc<[MemberId]>>,
    /// Its number, in a group that has a history.
    pub(super) position: Option<Position>,
    /// Its number among those of the process that has published it, where processes count them.
    pub(super) stamp: Option<Stamp>,
    form: Form,
    /// The text for a client that misses it: of a message in a room.
    loss: Option<Arc<str>>,
}

/// The form in which members of rooms get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The message as the data of a text.
    Data,
    /// The text, which begins with the group's name: with the room's in place of so many bytes.
    About(usize),
    /// The text after the room's name. Other members do not get it.
    Event,
}

impl Message {
    /// A message to all members but `exclude`. Copies `payload` once, into its frame.
    pub fn new(kind: Kind, payload: &[u8], exclude: &[MemberId]) -> Self {
        Self {
            kind,
            frame: frame::encode(Opcode::from(kind), payload),
            payload_len: payload.len(),
            exclude: (!exclude.is_empty()).then(|| Arc::from(exclude)),
            position: None,
            stamp: None,
            form: Form::Data,
            loss: None,
        }
    }

    /// A text about a group, not from it: it begins with the group's name, which has `head` bytes
    /// with all that is before it.
    pub(crate) fn about(text: &str, head: usize) -> Self {
        Self {
            form: Form::About(head),
            ..Self::new(Kind::Text, text.as_bytes(), &[])
        }
    }

    /// The text for the member of a room that has missed messages: it cannot be missed itself.
    pub(super) fn loss_in(room: &str) -> Self {
        let text = numbered::room_gap(room);
        Self {
            loss: Some(text.as_str().into()),
            ..Self::new(Kind::Text, text.as_bytes(), &[])
        }
    }

    /// A text for members of rooms, as it stands after the room's name.
    pub fn event(rest: &[u8], exclude: &[MemberId]) -> Self {
        Self {
            form: Form::Event,
            ..Self::new(Kind::Text, rest, exclude)
        }
    }

    /// Whether it is for members of rooms only.
    pub(super) fn is_event(&self) -> bool {
        self.form == Form::Event
    }

    /// The message as members get it that know its group by the name `room`.
    #[must_use]
    pub fn in_room(&self, room: &str) -> Self {
        let payload = self.payload();
        let text = match self.form {
            Form::Data => numbered::room_text(room, self.position, self.kind, &payload),
            Form::About(head) => numbered::behind_room(room, payload.get(head..)),
            Form::Event => numbered::behind_room(room, Some(&payload)),
        };
        Self {
            exclude: self.exclude.clone(),
            position: self.position,
            loss: Some(numbered::room_gap(room).into()),
            ..Self::new(Kind::Text, text.as_bytes(), &[])
        }
    }

    /// The text for a client that misses it, if it is to be told.
    pub(crate) fn loss(&self) -> Option<&str> {
        self.loss.as_deref()
    }

    /// The same message with that number.
    #[must_use]
    pub(crate) fn stamped(self, stamp: Stamp) -> Self {
        Self {
            stamp: Some(stamp),
            ..self
        }
    }

    /// The same message with its number.
    #[must_use]
    pub fn at(self, position: Position) -> Self {
        Self {
            position: Some(position),
            ..self
        }
    }

    /// The message as members of the group `name` get it that asked for its number; the same one
    /// when it has none.
    #[must_use]
    pub fn numbered(&self, name: &str) -> Self {
        let Some(position) = self.position else {
            return self.clone();
        };
        let text = numbered::text(name, position, self.kind, &self.payload());
        Self {
            exclude: self.exclude.clone(),
            ..Self::new(Kind::Text, text.as_bytes(), &[])
        }
    }

    /// Text or binary.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The payload.
    pub fn payload(&self) -> Bytes {
        self.frame.slice(self.frame.len() - self.payload_len..)
    }

    /// The frame as it is sent without compression.
    pub(super) fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    /// Bytes of the frame.
    pub fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Whether `member` is to get it.
    pub(super) fn is_for(&self, member: Option<MemberId>) -> bool {
        match (&self.exclude, member) {
            (Some(exclude), Some(member)) => !exclude.contains(&member),
            _ => true,
        }
    }

    /// The members that do not get it.
    pub fn exclude(&self) -> &[MemberId] {
        self.exclude.as_deref().unwrap_or_default()
    }

    pub(super) fn has_exclusions(&self) -> bool {
        self.exclude.is_some()
    }

    /// The frame, with the payload compressed if that makes it smaller.
    pub(super) fn compressed(&self, deflater: &Deflater) -> Bytes {
        match deflater.deflate(&self.payload()) {
            Some(deflated) => frame::encode(First::compressed(self.kind), deflated.payload()),
            None => self.frame.clone(),
        }
    }
}

/// Messages for members with the same compression.
#[derive(Clone, Debug)]
pub struct Delivery {
    frames: Frames,
    /// The same messages as events, encoded for the first member that needs them.
    events: OnceLock<Frames>,
    /// The same for connections that this process has opened.
    masked: OnceLock<Frames>,
    /// The same for members that poll.
    lines: OnceLock<Frames>,
    messages: Vec<Message>,
    is_compressed: bool,
}

/// Messages in one form, whose bytes all members share.
#[derive(Clone, Debug)]
pub struct Frames {
    /// One frame, or event, for each message.
    pub each: Vec<Bytes>,
    /// All of them, one after the other.
    pub joined: Bytes,
}

impl Frames {
    fn new(each: Vec<Bytes>) -> Self {
        let joined = match &each[..] {
            [frame] => frame.clone(),
            _ => Bytes::from(each.concat()),
        };
        Self { each, joined }
    }
}

impl Delivery {
    /// The messages, and the frame of each of them.
    pub(super) fn new(messages: Vec<Message>, frames: Vec<Bytes>) -> Self {
        let is_compressed = frames.iter().zip(&messages).any(|(frame, message)| {
            // Another frame than that without compression is a compressed one.
            frame.as_ptr() != message.frame.as_ptr()
        });
        Self {
            frames: Frames::new(frames),
            events: OnceLock::new(),
            masked: OnceLock::new(),
            lines: OnceLock::new(),
            messages,
            is_compressed,
        }
    }

    /// Messages for one member, compressed if `deflater` is its compression.
    pub fn of(messages: Vec<Message>, deflater: Option<&Deflater>) -> Self {
        let deflater = deflater.map(Deflater::without_context);
        let frames = messages.iter().map(|message| match &deflater {
            Some(deflater) => message.compressed(deflater),
            None => message.frame(),
        });
        let frames = frames.collect();
        Self::new(messages, frames)
    }

    /// The same messages without compression.
    #[must_use]
    pub fn plain(&self) -> Self {
        let frames = self.messages.iter().map(Message::frame);
        Self::new(self.messages.clone(), frames.collect())
    }

    /// The messages without their frames, for members that make frames of their own.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages as members get them whose connections have this form.
    pub fn framed(&self, framing: Framing) -> &Frames {
        let encoded = match framing {
            Framing::WebSocket => return &self.frames,
            Framing::Masked => &self.masked,
            Framing::Events => &self.events,
            Framing::Polling => &self.lines,
        };
        encoded.get_or_init(|| {
            let each = self
                .messages
                .iter()
                .map(|message| Bytes::from(framing.encode(message.kind, &message.payload())));
            Frames::new(each.collect())
        })
    }

    /// Whether one of the frames has a compressed payload.
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}
