//! One thread of the engine: a tokio runtime, and what the connections that it drives share.

use std::{sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
};

use super::{error::Error, postman::Postman, relay::Relay};
use crate::protocol::deflate::Codecs;

/// A thread that drives connections until it is stopped.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) handle: Handle,
    pub(super) postman: Arc<Postman>,
    pub(super) relay: Arc<Relay>,
    pub(super) codecs: Codecs,
    stop: Arc<Notify>,
}

impl Lane {
    /// Starts one.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread or no descriptor.
    pub(super) fn start() -> Result<Self, Error> {
        let relay = Arc::<Relay>::default();
        let runner = Arc::clone(&relay);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .on_thread_park(move || runner.run(&Handle::current()))
            .build()
            .map_err(Error::io("cannot start the engine's runtime"))?;
        let handle = runtime.handle().clone();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("dwebsocket".to_owned())
            .spawn(move || runtime.block_on(stopped.notified()))
            .map_err(Error::io("cannot start the engine's thread"))?;
        Ok(Self {
            postman: Postman::new(handle.clone()),
            relay,
            codecs: Codecs::default(),
            handle,
            stop,
        })
    }

    /// Ends the thread, with all that it still drives.
    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }
}
