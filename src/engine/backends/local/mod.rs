//! The backend for the processes of one machine, which needs no server.
//!
//! Each process that uses groups is a node of a mesh: it listens on a Unix socket in a folder that
//! only its user can enter ([`runtime_dir`]), and has a connection to each other node, on which it
//! sends. Of two nodes, each connects to the other one. A node that starts connects to all whose
//! sockets lie in the folder; each of these connects back, and sends how many members its groups
//! have. The node is ready when all have done so: from then on it gets what any of them publishes.
//! One that connects later says so, and the other one sees to what its members may have missed.
//!
//! Every node gets every message, and drops those for groups without members here. So joining a
//! group needs no other process.
//!
//! A node that has ended is noticed at once, by the end of its connections. A socket without a
//! process behind it refuses connections, and is removed.

mod counts;
mod frames;
mod node;
mod peer;
mod runtime_dir;

pub use self::{
    frames::{Frame, Reader},
    node::{Node, Refused},
};
