//! Outside a connection's own task, a panic ends only the unit of work in which it happens.
//!
//! A task that panics ends with its connection. But some of the engine's work is for many
//! connections in turn, and goes on after one of them has failed; a task that serves many is begun
//! anew ([`keep_up`], [`Task::start`]). By then Rust's panic hook has written what happened to the process's
//! error output. A panic that is an answer of the system is an error, and the hook is silent
//! ([`refused`]).

use std::{
    any::Any,
    cell::Cell,
    future::poll_fn,
    io,
    panic::{self, AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Once,
    task::Poll,
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle, time::sleep};

use super::fork;

/// The pause before a task that has panicked begins anew, which may fail at once again.
pub(crate) const BEFORE_RESTART: Duration = Duration::from_millis(100);

/// Does one unit of work. `None` when it has panicked.
///
/// The object of the work may be half changed: the caller ends it or makes it anew.
pub(crate) fn contain<T>(unit: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(unit)).ok()
}

thread_local! {
    /// Whether a panic of this thread is an answer of the system.
    static IS_ANSWER: Cell<bool> = const { Cell::new(false) };
}

/// Calls what panics where the system gives no thread or descriptor, as parts of tokio do.
///
/// # Errors
/// It has panicked. The text is that of the panic, which is written nowhere.
pub(crate) fn refused<T>(call: impl FnOnce() -> T) -> io::Result<T> {
    static HOOK: Once = Once::new();
    // Rust's runtime in this library is its own: other libraries have another hook.
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_ANSWER.get() {
                hook(panic);
            }
        }));
    });
    IS_ANSWER.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_ANSWER.set(false);
    result.map_err(|panic| io::Error::other(text_of(panic.as_ref())))
}

/// The text of a panic.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown").to_owned()
}

/// As [`contain`], for work that waits.
///
/// # Cancel safety
/// As safe as `unit`.
pub(crate) async fn contain_task<F: Future>(unit: F) -> Option<F::Output> {
    let mut unit = pin!(unit);
    poll_fn(|context| match contain(|| unit.as_mut().poll(context)) {
        Some(Poll::Pending) => Poll::Pending,
        Some(Poll::Ready(output)) => Poll::Ready(Some(output)),
        None => Poll::Ready(None),
    })
    .await
}

/// Does the work that `begin` makes, until it returns. After a panic it calls `on_panic`, and begins
/// the work anew.
pub(crate) async fn keep_up<F: Future<Output = ()>>(
    mut begin: impl FnMut() -> F,
    on_panic: impl Fn(),
) {
    while contain_task(begin()).await.is_none() {
        contain(&on_panic);
        sleep(BEFORE_RESTART).await;
    }
}

/// A task that ends with this.
#[derive(Debug)]
pub(crate) struct Task {
    generation: u64,
    handle: AbortHandle,
}

impl Task {
    /// Starts one as of [`keep_up`] on `runtime`.
    #[cfg_attr(windows, expect(dead_code, reason = "of the local backend"))]
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        runtime: &Handle,
        begin: impl FnMut() -> F + Send + 'static,
        on_panic: impl Fn() + Send + 'static,
    ) -> Self {
        Self::of(runtime, keep_up(begin, on_panic))
    }

    /// Starts `work` on `runtime`.
    pub(crate) fn of(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            generation: fork::generation(),
            handle: runtime.spawn(work).abort_handle(),
        }
    }

    /// Ends it, as dropping this does.
    pub(crate) fn end(&self) {
        // Of a parent's runtime the locks may be held for ever.
        if self.generation == fork::generation() {
            self.handle.abort();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_begins_anew_and_that_is_told_each_time() {
        let (begun, told) = (AtomicU32::new(0), AtomicU32::new(0));
        let work = || async {
            let before = begun.fetch_add(1, Ordering::Relaxed);
            sleep(BEFORE_RESTART).await;
            assert_eq!(before, 3, "not yet");
        };
        let on_panic = || {
            assert_eq!(
                told.fetch_add(1, Ordering::Relaxed),
                0,
                "this is contained, too"
            );
        };
        keep_up(work, on_panic).await;
        assert_eq!((begun.into_inner(), told.into_inner()), (4, 3));
    }

    #[test]
    fn what_the_system_refuses_is_an_error_with_its_text() {
        assert_eq!(refused(|| 7).unwrap(), 7);
        let panics: [fn(); 2] = [|| panic!("a text"), || panic!("a {}", "text")];
        for panics in panics {
            assert_eq!(refused(panics).unwrap_err().to_string(), "a text");
            assert!(!IS_ANSWER.get());
        }
    }

    #[tokio::test]
    async fn a_task_of_the_parent_process_is_left_alone() {
        let mut task = Task::of(&Handle::current(), std::future::pending());
        let handle = task.handle.clone();
        task.generation += 1;
        task.end();
        drop(task);
        tokio::task::yield_now().await;
        assert!(!handle.is_finished());
    }

    #[tokio::test]
    async fn a_task_ends_with_its_handle() {
        let held = Arc::new(());
        let its = Arc::clone(&held);
        let task = Task::start(
            &Handle::current(),
            move || {
                let its = Arc::clone(&its);
                async move {
                    std::future::pending::<()>().await;
                    drop(its);
                }
            },
            || {},
        );
        tokio::task::yield_now().await;
        drop(task);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
