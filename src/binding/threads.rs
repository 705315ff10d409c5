//! Threads of the system that run Python functions one after the other.
//!
//! Starting a thread is dear, so one that is done waits for the next function. Each function has a
//! Python thread state of its own all the same, and with it `threading.local`s of its own: Python
//! makes one for a foreign thread that attaches, and deletes it when the thread detaches.

use std::{
    io,
    mem::ManuallyDrop,
    ptr,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use parking_lot::Mutex;
use pyo3::{exceptions::PyRuntimeError, ffi, prelude::*};

use crate::engine;

/// How long a thread waits for another function: long enough for clients that all come back after
/// a reload or a lost network.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// The name of the threads in the system's lists, which take 15 bytes.
const NAME: &str = "dwebsocket-view";

/// The threads of one process. Any thread may use it; a forked child needs another one.
#[pyclass(frozen, module = "dwebsocket._core")]
#[derive(Debug, Default)]
pub(crate) struct Threads {
    /// The last thread to become idle is used first: its memory is still in the caches.
    idle: Arc<Mutex<Vec<IdleThread>>>,
}

/// A thread that waits for a function.
#[derive(Debug)]
struct IdleThread {
    id: ThreadId,
    stack_size: usize,
    functions: SyncSender<Py<PyAny>>,
}

#[pymethods]
impl Threads {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Has `function()` called on a thread whose stack has `stack_size` bytes. An exception of
    /// `function` goes to `sys.unraisablehook`.
    ///
    /// # Errors
    ///
    /// `RuntimeError` when the system gives no more threads.
    fn run(&self, function: Py<PyAny>, stack_size: usize) -> PyResult<()> {
        let mut function = function;
        if let Some(thread) = self.take_idle(stack_size) {
            match thread.functions.send(function) {
                Ok(()) => return Ok(()),
                // The thread has ended. A thread leaves the list before that, so this should not
                // happen; start another one.
                Err(mpsc::SendError(back)) => function = back,
            }
        }
        start(function, stack_size, Arc::clone(&self.idle))
            .map_err(|error| PyRuntimeError::new_err(format!("can't start new thread: {error}")))
    }
}

impl Threads {
    fn take_idle(&self, stack_size: usize) -> Option<IdleThread> {
        let mut idle = self.idle.lock();
        let found = idle
            .iter()
            .rposition(|thread| thread.stack_size == stack_size)?;
        Some(idle.remove(found))
    }
}

fn start(first: Py<PyAny>, stack_size: usize, idle: Arc<Mutex<Vec<IdleThread>>>) -> io::Result<()> {
    let generation = engine::generation();
    let work = move || {
        let idle = ManuallyDrop::new(idle);
        let mut next = Some(first);
        while let Some(function) = next {
            call(function);
            // In a child that `function` forked, a thread that exists in the parent only may hold
            // the lock.
            if engine::generation() != generation {
                return;
            }
            next = wait(stack_size, &idle);
        }
        drop(ManuallyDrop::into_inner(idle));
    };
    thread::Builder::new()
        .name(NAME.to_owned())
        .stack_size(stack_size)
        .spawn(work)
        .map(drop)
}

/// The next function; `None` when none came in time, or none will.
fn wait(stack_size: usize, idle: &Mutex<Vec<IdleThread>>) -> Option<Py<PyAny>> {
    let id = thread::current().id();
    let (functions, next) = mpsc::sync_channel(1);
    idle.lock().push(IdleThread {
        id,
        stack_size,
        functions,
    });
    if let Ok(function) = next.recv_timeout(IDLE_TIME) {
        return Some(function);
    }
    let mut waiting = idle.lock();
    if let Some(place) = waiting.iter().position(|thread| thread.id == id) {
        waiting.remove(place);
        return None;
    }
    drop(waiting);
    // Taken off the list meanwhile, so a function is on its way.
    next.recv().ok()
}

/// Calls `function` with a Python thread state that is made for it and deleted after it.
fn call(function: Py<PyAny>) {
    // Without the interpreter, which is ending then, the reference cannot be released.
    let function = ManuallyDrop::new(function);
    let _ = Python::try_attach(move |py| {
        let mut frame = SleepWhenUnwound {
            has_returned: false,
        };
        #[expect(
            unsafe_code,
            reason = "pyo3's own call would not see that Python ends the thread"
        )]
        // SAFETY: the thread is attached, and `function` is an object that lives as long as the
        // call. The result is a new reference, or null with an exception set.
        let result = unsafe {
            let object = PyObject_CallObject(function.as_ptr(), ptr::null_mut());
            frame.has_returned = true;
            Bound::from_owned_ptr_or_err(py, object)
        };
        if let Err(error) = result {
            error.write_unraisable(py, Some(function.bind(py)));
        }
        drop(ManuallyDrop::into_inner(function));
    });
}

#[expect(
    unsafe_code,
    reason = "pyo3 declares it as a function that does not unwind"
)]
// SAFETY: as in Python's `abstract.h` and the stable ABI.
unsafe extern "C-unwind" {
    // This must be the only declaration that the library calls: where a function has two, the
    // optimizer may rely on the other one, which says that it does not unwind.
    fn PyObject_CallObject(
        callable: *mut ffi::PyObject,
        arguments: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// Keeps a thread where it is when Python ends it.
///
/// Up to 3.13 a thread that asks for the GIL of an ending interpreter is unwound by `pthread_exit`.
/// Rust's own part of the stack cannot be: the process would abort. From 3.14 on Python itself lets
/// such a thread sleep.
struct SleepWhenUnwound {
    has_returned: bool,
}

impl Drop for SleepWhenUnwound {
    fn drop(&mut self) {
        if !self.has_returned {
            loop {
                thread::park();
            }
        }
    }
}
