//! The native engine of dwebsocket2: WebSockets for ordinary Django views.
//!
//! `protocol` holds the rules of RFC 6455 without any I/O, `engine` owns sockets and time, and
//! `binding` is the only module that uses Python. Each may depend on the modules before it, never
//! on those after it.

#[cfg(feature = "python")]
mod binding;
pub mod engine;
pub mod protocol;

/// `dwebsocket._core`.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use crate::binding::takeover::unwatch_descriptor;
    #[pymodule_export]
    use crate::binding::{
        call::{Call, Wait},
        carrier::{Carrier, open_carried},
        connection::{Hold, PyConnection, PyPing},
        deputy::{MarkedCut, depart, frames_for, has_handed_out},
        dial::{Dialer, PyDial, PyTls},
        exchange::Exchange,
        groups::{Deputy, Groups, Mailbox, Seat, Seats, ended, in_room},
        handshake::{
            Compression, event_stream_head, fallback_opened, is_token, may_send_close_code,
            response_head, validate_handshake,
        },
        history::{History, numbered},
        hub::Hub,
        message_future::MessageFuture,
        next_message::NextMessage,
        passage::{Bucket, Passage, answer, read_event, read_join},
        polls::{PendingPoll, open_polled, poll, polling_head},
        posts::{Post, post},
        presence::{Member, Presence},
        process::{
            Permit, PySettings, adopt, adopt_moved, buffered_bytes, close_all, drain, is_leaving,
            limit_buffered, now, open_connections, overview, prepare, shut_down,
            wait_for_none_open, want_threads,
        },
        redis::PyRedis,
        takeover::Takeover,
        testkit::{FrameReader, client_frame, clock_ahead, reopen, step_clock},
        threads::Threads,
    };
    /// The classes that Windows has not.
    #[cfg(unix)]
    #[pymodule_export]
    use crate::binding::{
        local::LocalNode,
        signals::{
            after_fork_in_child, die_of_sigterm, is_default, is_terminated, on_exit, on_terminate,
            signal_seen,
        },
        takeover::discard,
    };
}
