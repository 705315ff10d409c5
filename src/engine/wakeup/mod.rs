//! Running the views: waking them, their order, and the time for which they run.

pub(crate) mod call;
mod fair_queue;
pub(crate) mod flush_timer;
pub(crate) mod gil_semaphore;
pub(crate) mod handler_pool;
pub(crate) mod hub;
pub(crate) mod time_slice;
pub(crate) mod turns;

/// The part of a connection that the turns and the flush timer use.
pub(crate) trait View: std::fmt::Debug + Send + Sync {
    /// Wakes a thread that sleeps for a message; false when there is none.
    fn wake_thread(&self) -> bool;

    /// Sends what is corked. The connection ends if that panics.
    fn send_corked(&self);
}
