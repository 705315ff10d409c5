//! The client's end: one thread writes, one reads, both at any pace.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use _core::protocol::deflate::{Codecs, Deflater, Options};
use socket2::Socket;
// Not std's: ThreadSanitizer does not see what that synchronises.
use parking_lot::Mutex;

use crate::{
    plan::{End, Plan},
    support::{
        chance::Chance,
        peer::{BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame},
    },
};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// The digits that a message begins with; a message of the view's has its sender before them.
pub(crate) const DIGITS: usize = 10;

/// The frames that the client has seen when its stream is over.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sender and number of each message, in order.
    pub(crate) messages: Vec<(usize, u32)>,
    pub(crate) close_code: Option<u16>,
    /// Bytes of a frame that did not come to its end.
    pub(crate) rest: usize,
}

pub(crate) struct Client<'a> {
    socket: Socket,
    plan: &'a Plan,
    writing: Mutex<()>,
    /// Answers to pings and to the close frame, while the other thread writes.
    replies: Mutex<Vec<u8>>,
    has_closed: AtomicBool,
    is_gone: AtomicBool,
    has_read_all: AtomicBool,
    pings_sent: AtomicU64,
    pong: AtomicU64,
}

impl<'a> Client<'a> {
    pub(crate) fn new(socket: Socket, plan: &'a Plan) -> Self {
        let often = Some(Duration::from_millis(20));
        socket.set_read_timeout(often).unwrap();
        Self {
            socket,
            plan,
            writing: Mutex::default(),
            replies: Mutex::default(),
            has_closed: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            has_read_all: AtomicBool::new(false),
            pings_sent: AtomicU64::new(0),
            pong: AtomicU64::new(0),
        }
    }

    /// Sends all messages and then ends as planned. Returns how many messages it began to send.
    pub(crate) fn write_all(&self, chance: &mut Chance) -> u32 {
        let mut begun = 0;
        while begun < self.plan.incoming && !self.has_closed.load(Ordering::SeqCst) {
            let mut bytes = self.message(begun, chance);
            begun += 1;
            if chance.below(self.plan.pings) == 0 {
                bytes.extend(self.ping());
            }
            if self.write(&bytes, chance).is_err() {
                return begun;
            }
        }
        match self.plan.end {
            End::ClientCloses => {
                self.await_pong(chance);
                self.has_closed.store(true, Ordering::SeqCst);
                let _ = self.write(&frame(CLOSE, &close_payload(1000, "")), chance);
            }
            End::ClientFinishes => {
                let _ = self.socket.shutdown(Shutdown::Write);
            }
            End::ClientHangsUp => {
                let _ = self.socket.shutdown(Shutdown::Both);
            }
            End::ClientResets => {
                // Over TCP; a Unix-domain socket is reset by being closed before all is read.
                let _ = self.socket.set_linger(Some(Duration::ZERO));
                self.is_gone.store(true, Ordering::SeqCst);
            }
            End::ViewCloses(_) | End::OtherCloses => {}
        }
        begun
    }

    /// Sends a ping and waits until its pong has come, or the end of the stream.
    fn await_pong(&self, chance: &mut Chance) {
        let ping = self.ping();
        let number = self.pings_sent.load(Ordering::SeqCst);
        if self.write(&ping, chance).is_ok() {
            while self.pong.load(Ordering::SeqCst) < number
                && !self.has_read_all.load(Ordering::SeqCst)
            {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn ping(&self) -> Vec<u8> {
        let number = self.pings_sent.fetch_add(1, Ordering::SeqCst) + 1;
        frame(PING, &number.to_be_bytes())
    }

    /// One message in up to four fragments, perhaps with a ping between them.
    fn message(&self, number: u32, chance: &mut Chance) -> Vec<u8> {
        let mut payload = format!("{number:0DIGITS$}").into_bytes();
        payload.resize(DIGITS + chance.size(self.plan.size), b'x');
        let mut first = if chance.below(2) == 0 { TEXT } else { BINARY } & !FIN;
        if let Some(terms) = &self.plan.settings.compression {
            if chance.below(2) == 0 {
                let options = Options {
                    threshold_bytes: 0,
                    ..terms.options
                };
                let deflater = Deflater::new(&terms.agreement, &options, &Codecs::default());
                if let Some(deflated) = deflater.deflate(&payload) {
                    payload = deflated.payload().to_vec();
                    first |= RSV1;
                }
            }
        }
        let mut bytes = Vec::new();
        let mut rest = &payload[..];
        for _ in 0..chance.below(4) {
            let (part, others) = rest.split_at(chance.size(rest.len() as u64 + 1));
            bytes.extend(frame(first, part));
            if chance.below(4) == 0 {
                bytes.extend(self.ping());
            }
            (first, rest) = (0, others);
        }
        bytes.extend(frame(first | FIN, rest));
        bytes
    }

    /// Writes in a few parts, with the replies that have come up.
    fn write(&self, bytes: &[u8], chance: &mut Chance) -> io::Result<()> {
        let _writing = self.writing.lock();
        let replies = std::mem::take(&mut *self.replies.lock());
        (&self.socket).write_all(&replies)?;
        let (first, second) = bytes.split_at(chance.size(bytes.len() as u64 + 1));
        (&self.socket).write_all(first)?;
        chance.dawdle();
        (&self.socket).write_all(second)
    }

    /// Writes the replies that the socket takes now, unless the other thread is writing; it does so
    /// then. Never waits: the view may take nothing until this thread has read what it sends.
    fn reply(&self) {
        if let Some(_writing) = self.writing.try_lock() {
            let mut replies = self.replies.lock();
            if !replies.is_empty() {
                let sent = self.socket.send_with_flags(&replies, libc::MSG_DONTWAIT);
                replies.drain(..sent.unwrap_or(0));
            }
        }
    }

    /// Reads to the end of the stream and answers what has to be answered.
    pub(crate) fn read_all(&self, chance: &mut Chance) -> Seen {
        let mut seen = Seen::default();
        let mut unread = Vec::new();
        let mut buffer = vec![0; self.plan.sip];
        while !self.is_gone.load(Ordering::SeqCst) {
            self.reply();
            match (&self.socket).read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => unread.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => continue,
                Err(_) => break,
            }
            let mut start = 0;
            while let Some((first, payload)) = split_frame(&unread[start..]) {
                self.on_frame(first, payload, &mut seen);
                start = payload.as_ptr_range().end as usize - unread.as_ptr() as usize;
            }
            unread.drain(..start);
            chance.dawdle();
        }
        self.has_read_all.store(true, Ordering::SeqCst);
        seen.rest = unread.len();
        seen
    }

    fn on_frame(&self, first: u8, payload: &[u8], seen: &mut Seen) {
        assert_eq!(
            seen.close_code, None,
            "{first:#x} came behind a close frame"
        );
        match first {
            TEXT | BINARY => {
                let sender = usize::from(payload[0] - b'0');
                let digits = std::str::from_utf8(&payload[1..=DIGITS]).unwrap();
                assert!(payload[1 + DIGITS..].iter().all(|byte| *byte == b'y'));
                seen.messages.push((sender, digits.parse().unwrap()));
            }
            PING => self.replies.lock().extend(frame(PONG, payload)),
            PONG => {
                let number = u64::from_be_bytes(*payload.first_chunk().unwrap());
                let before = self.pong.swap(number, Ordering::SeqCst);
                let sent = self.pings_sent.load(Ordering::SeqCst);
                assert!(before < number && number <= sent);
            }
            CLOSE => {
                let code = u16::from_be_bytes(*payload.first_chunk().unwrap());
                seen.close_code = Some(code);
                if !self.has_closed.swap(true, Ordering::SeqCst) {
                    let mut replies = self.replies.lock();
                    replies.extend(frame(CLOSE, payload));
                }
            }
            other => panic!("{other:#x} is no frame that a server sends here"),
        }
    }
}

/// The first byte and the payload of the frame that `bytes` begins with, if all of it is there.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match head[1] {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
        }
        length => {
            assert!(length < 126, "a server masks nothing");
            (usize::from(length), rest)
        }
    };
    Some((head[0], rest.get(..length)?))
}
