//! The sockets of all nodes, in a folder that only its user can enter.

use std::{
    io::{self, ErrorKind},
    os::unix::net::UnixListener,
    sync::Arc,
    time::Duration,
};

use rustix::fs::FileType;
use socket2::{Domain, SockAddr, Socket, Type};

use super::frames::NodeId;
use crate::engine::resources::folder::Folder;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The end of the name of a socket that does not listen yet.
const UNNAMED: &str = ".new";
/// An older socket with such a name has been left behind.
const LONGEST_START: Duration = Duration::from_secs(60);

/// The node whose socket has this name.
fn node_of(name: &str) -> Option<NodeId> {
    let is_id = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    NodeId::from_str_radix(name, 16).ok().filter(|_| is_id)
}

/// The name of the socket of node `id`.
fn name_of(id: NodeId) -> String {
    format!("{id:016x}")
}

/// The folder, as nodes use it.
#[derive(Debug)]
pub(super) struct RuntimeDir(pub(super) Arc<Folder>);

impl RuntimeDir {
    /// Whether the path still means this folder, and the socket of a node is there.
    pub(super) fn has(&self, id: NodeId) -> bool {
        self.0.is_current() && self.is_socket(&name_of(id))
    }

    fn is_socket(&self, name: &str) -> bool {
        let item = self.0.item(name);
        item.is_some_and(|item| item.kind == FileType::Socket)
    }

    /// Listens on the socket of node `id`.
    pub(super) fn listen(&self, id: NodeId) -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A socket that is bound and does not listen yet refuses connections, and other nodes would
        // remove it: so it gets its name later.
        let (name, unnamed) = (name_of(id), name_of(id) + UNNAMED);
        socket
            .bind(&SockAddr::unix(self.0.path_of(&unnamed))?)
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| self.0.rename(&unnamed, &name))
            .map_err(|error| self.0.named(error))?;
        Ok(socket.into())
    }

    /// Connects to the socket of node `id`. Never sleeps: where too many connections wait there,
    /// it is an error of kind `WouldBlock`.
    pub(super) fn connect(&self, id: NodeId) -> io::Result<Socket> {
        let name = name_of(id);
        if !self.is_socket(&name) {
            return Err(ErrorKind::NotFound.into());
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(self.0.path_of(&name))?)?;
        if cfg!(not(target_os = "linux")) && !self.0.is_current() {
            // There the path was used, which may have led to another user's socket.
            return Err(ErrorKind::NotFound.into());
        }
        Ok(socket)
    }

    /// Removes the socket of a node that has ended.
    pub(super) fn remove(&self, id: NodeId) {
        // Another process may have removed it already.
        let _ = self.0.remove(&name_of(id));
    }

    /// The nodes whose sockets lie in the folder.
    ///
    /// Removes what nodes have left behind that ended as they started.
    ///
    /// # Errors
    /// The system does not give their names.
    pub(super) fn nodes(&self) -> io::Result<Vec<NodeId>> {
        let mut nodes = Vec::new();
        for name in self.0.names()? {
            if name.ends_with(UNNAMED) {
                let age = (self.0.item(&name)).and_then(|item| item.modified.elapsed().ok());
                if age.is_some_and(|age| age > LONGEST_START) {
                    let _ = self.0.remove(&name);
                }
            } else if let Some(id) = node_of(&name) {
                nodes.push(id);
            }
        }
        Ok(nodes)
    }
}

/// Whether the process at the other end acts as `user`, or as root. Where the system cannot tell,
/// the folder's rights keep others out.
pub(super) fn is_same_user(stream: &tokio::net::UnixStream, user: u32) -> bool {
    let is_same = |uid| uid == user || uid == 0;
    stream.peer_cred().map_or(true, |peer| is_same(peer.uid()))
}
