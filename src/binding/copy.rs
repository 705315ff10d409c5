//! Copying a payload into `bytes`. For a large one that takes milliseconds, most of them for memory
//! that the system has yet to provide. So the GIL is released meanwhile, and an event loop runs
//! other tasks between the pieces.

use std::{ptr, thread};

use bytes::Bytes;
use pyo3::{ffi, prelude::*, types::PyBytes};

/// Payloads up to this are copied at once: about a third of a millisecond.
pub(super) const LARGE_BYTES: usize = 1024 * 1024;
/// The bytes that are copied between two turns of an event loop.
const PIECE_BYTES: usize = 256 * 1024;

/// A payload as `bytes`, copied at once.
pub(super) fn copied(py: Python<'_>, payload: &Bytes) -> PyResult<Py<PyAny>> {
    if payload.len() <= LARGE_BYTES {
        return Ok(bytes(py, payload)?.into_any().unbind());
    }
    let mut copy = Copy::begin(py, payload.clone())?;
    copy.go_on(py, payload.len());
    Ok(copy.target.into_any())
}

/// As `PyBytes::new`, for what may be large: a `MemoryError` where that panics.
pub(super) fn bytes<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    new_bytes(py, payload, true)
}

/// New `bytes` of the payload's length: a copy of it, or yet to be filled. A `MemoryError` where
/// `PyBytes::new` panics.
fn new_bytes<'py>(
    py: Python<'py>,
    payload: &[u8],
    is_filled: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let length = ffi::Py_ssize_t::try_from(payload.len())?;
    let source = if is_filled {
        payload.as_ptr().cast()
    } else {
        ptr::null()
    };
    #[expect(
        unsafe_code,
        reason = "`PyBytes::new_with` would fill it with zeros first"
    )]
    // SAFETY: `source` is null or has `length` bytes, which the call copies. It gives a new object of
    // that length, or null with an exception set, which is what `from_owned_ptr_or_err` expects.
    let object = unsafe {
        let object = ffi::PyBytes_FromStringAndSize(source, length);
        Bound::from_owned_ptr_or_err(py, object)?
    };
    Ok(object.cast_into::<PyBytes>()?)
}

/// A payload that is being copied.
pub(super) struct Copy {
    payload: Bytes,
    /// No Python code has a reference to it before it is filled.
    target: Py<PyBytes>,
    done: usize,
}

impl Copy {
    /// A copy of `payload` that has yet to be filled.
    pub(super) fn begin(py: Python<'_>, payload: Bytes) -> PyResult<Self> {
        let target = new_bytes(py, &payload, false)?.unbind();
        Ok(Self {
            payload,
            target,
            done: 0,
        })
    }

    /// Whether this copies `payload` itself, not another one with equal bytes.
    pub(super) fn is_of(&self, payload: &Bytes) -> bool {
        self.payload.as_ptr() == payload.as_ptr() && self.payload.len() == payload.len()
    }

    /// Copies the next piece, without the GIL. True when that was the last one.
    pub(super) fn copy_piece(&mut self, py: Python<'_>) -> bool {
        self.go_on(py, PIECE_BYTES)
    }

    /// The message, once all is copied.
    pub(super) fn finish(self) -> Option<Py<PyAny>> {
        (self.done == self.payload.len()).then(|| self.target.into_any())
    }

    fn go_on(&mut self, py: Python<'_>, most: usize) -> bool {
        let rest = &self.payload[self.done..];
        let piece = &rest[..most.min(rest.len())];
        #[expect(unsafe_code, reason = "`as_bytes` would lend what is not filled yet")]
        // SAFETY: `self.target` is a `bytes` object and stays alive as long as `self`.
        let target = unsafe { ffi::PyBytes_AsString(self.target.as_ptr()) };
        // A number, since pointers stay with the thread that has the GIL.
        let start = target.cast::<u8>().expose_provenance();
        let done = self.done;
        py.detach(|| {
            let mut to = start + done;
            for piece in piece.chunks(PIECE_BYTES) {
                #[expect(unsafe_code, reason = "filled while others have the GIL")]
                // SAFETY: `start` is where the `bytes` made in `begin` begin, which have the
                // payload's length: all pieces fit after the first `done` of them. `self.target`
                // keeps them alive, and no other code has a reference before `finish`, or reads
                // them.
                unsafe {
                    let to = ptr::with_exposed_provenance_mut::<u8>(to);
                    ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len());
                }
                to += piece.len();
                // Systems may leave a processor to one busy thread for milliseconds.
                thread::yield_now();
            }
        });
        self.done += piece.len();
        self.done == self.payload.len()
    }
}
