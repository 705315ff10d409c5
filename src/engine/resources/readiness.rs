//! A descriptor that is readable while a connection has something to take.
//!
//! For code that passes a connection to `select`, `poll` or an event loop of its own. It is made on
//! first use: most connections never have one.

use std::io::{self, Read, Write};

use super::descriptor::{self, Raw, Stream};

/// One such descriptor. Its owner serialises the calls.
#[derive(Debug)]
pub(crate) struct Readiness {
    read_end: Stream,
    write_end: Stream,
    is_ready: bool,
}

impl Readiness {
    /// A descriptor that is not readable yet.
    pub(crate) fn new() -> io::Result<Self> {
        let (read_end, write_end) = descriptor::pair()?;
        Ok(Self {
            read_end,
            write_end,
            is_ready: false,
        })
    }

    /// The descriptor to select on. Reading from it would spoil it.
    pub(crate) fn descriptor(&self) -> Raw {
        descriptor::raw(&self.read_end)
    }

    /// Makes the descriptor readable, or not. Costs a system call only for a change.
    pub(crate) fn set(&mut self, is_ready: bool) {
        if self.is_ready == is_ready {
            return;
        }
        self.is_ready = is_ready;
        // One byte lies there or none, so neither call can fail for want of room or bytes.
        let _ = if is_ready {
            self.write_end.write(&[1])
        } else {
            self.read_end.read(&mut [0])
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_readable_exactly_while_it_is_set() {
        let mut readiness = Readiness::new().unwrap();
        for is_ready in [false, true, true, false, false, true] {
            readiness.set(is_ready);
            let socket = socket2::SockRef::from(&readiness.read_end);
            let is_readable = socket.peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok();
            assert_eq!(is_readable, is_ready);
        }
    }
}
