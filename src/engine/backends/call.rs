//! A call to other processes or their server that is under way, and the caller that waits for it.

use std::sync::Arc;

pub use crate::engine::dialing::tls::Reason;
use crate::engine::{history::Page, wakeup::call};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A number, whose meaning is the call's.
    Number(u64),
    /// Messages that are kept.
    Page(Arc<Page>),
}

/// The outcome of a call: a reply, or the reason why there is none.
pub type Outcome = Result<Reply, Reason>;

/// A call that is under way.
pub type Call = call::Call<Outcome>;

/// The duty to finish it.
pub(super) type Ticket = call::Ticket<Outcome>;

/// The outcome of a call whose connection has gone.
pub(super) fn lost() -> Outcome {
    Err("the connection ended before the reply".into())
}
