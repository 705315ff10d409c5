//! Descriptors that a forked child has to close at once: as long as it holds a copy of one, the
//! other end does not see that the parent has ended.
//!
//! A table of atomics, because in the child any lock may be held for ever.

#[cfg(unix)]
use std::{
    os::fd::{AsRawFd, RawFd},
    sync::atomic::{AtomicI32, Ordering},
};

#[cfg(unix)]
const NONE: RawFd = -1;
#[cfg(unix)]
const MOST: usize = 1024;

#[cfg(unix)]
static TABLE: [AtomicI32; MOST] = [const { AtomicI32::new(NONE) }; MOST];

/// A descriptor in the table, as long as this lives. It has to be dropped before the descriptor is
/// closed.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct NotInherited(Option<usize>);

/// Where no process forks, none inherits anything.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct NotInherited;

#[cfg(not(unix))]
impl NotInherited {
    pub(crate) fn enter(_: &impl super::descriptor::AsRaw) -> Self {
        Self
    }
}

#[cfg(unix)]
impl NotInherited {
    /// Enters a socket's descriptor. Where the table is full, children inherit it.
    pub(crate) fn enter(socket: &impl AsRawFd) -> Self {
        let descriptor = socket.as_raw_fd();
        let free = TABLE.iter().position(|slot| {
            slot.compare_exchange(NONE, descriptor, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        });
        Self(free)
    }
}

#[cfg(unix)]
impl Drop for NotInherited {
    fn drop(&mut self) {
        if let Some(slot) = self.0.and_then(|index| TABLE.get(index)) {
            slot.store(NONE, Ordering::Relaxed);
        }
    }
}

/// Closes all descriptors in the table; called in a forked child. The objects that own them belong
/// to the parent, and are never dropped in the child.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the owners of the descriptors are out of reach")]
pub(crate) fn close_in_child() {
    for slot in &TABLE {
        let descriptor = slot.swap(NONE, Ordering::Relaxed);
        if descriptor != NONE {
            // SAFETY: the descriptor was open in the parent when it forked, and the tasks that own
            // it exist in the parent only: no code of the child uses or closes it.
            unsafe { libc::close(descriptor) };
        }
    }
}
