//! The folder with the sockets of all nodes: only its user can enter it.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

use socket2::{Domain, SockAddr, Socket, Type};

use super::frames::NodeId;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
const OTHERS: u32 = 0o077;
/// The end of the name of a socket that does not listen yet.
const UNNAMED: &str = ".new";
/// An older socket with such a name has been left behind.
const LONGEST_START: Duration = Duration::from_secs(60);

/// The node whose socket has this name.
fn node_of(name: &str) -> Option<NodeId> {
    let is_id = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    NodeId::from_str_radix(name, 16).ok().filter(|_| is_id)
}

/// The open folder. Its name may come to mean another one; this one stays.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    folder: File,
}

fn refused(path: &Path, reason: &str) -> io::Error {
    io::Error::other(format!("{} {reason}", path.display()))
}

fn with_path(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl RuntimeDir {
    /// Opens the folder of `user` at `path`, made if it is missing.
    ///
    /// # Errors
    /// It is a link or no folder, belongs to another user, others may enter it, or the system
    /// refuses. The text names the path.
    pub(super) fn open(path: &Path, user: u32) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(with_path(path)(error));
            }
            _ => {}
        }
        let folder = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP | libc::ENOTDIR) => refused(
                    path,
                    "is no folder of this package's: remove it, or set RUNTIME_DIR",
                ),
                _ => with_path(path)(error),
            })?;
        let found = folder.metadata().map_err(with_path(path))?;
        if found.uid() != user {
            return Err(refused(path, "belongs to another user: set RUNTIME_DIR"));
        }
        if found.mode() & OTHERS != 0 {
            return Err(refused(path, "can be entered by other users: chmod 700 it"));
        }
        Ok(Self {
            path: path.to_owned(),
            folder,
        })
    }

    /// Whether the path still means this folder.
    pub(super) fn is_current(&self) -> bool {
        let (Ok(there), Ok(here)) = (fs::symlink_metadata(&self.path), self.folder.metadata())
        else {
            return false;
        };
        (there.dev(), there.ino()) == (here.dev(), here.ino())
    }

    /// The path of a node's socket, short enough for a socket's address.
    fn socket(&self, id: NodeId) -> PathBuf {
        self.base().join(format!("{id:016x}"))
    }

    fn base(&self) -> PathBuf {
        #[cfg(target_os = "linux")]
        let base = PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()));
        #[cfg(not(target_os = "linux"))]
        let base = self.path.clone();
        base
    }

    /// Whether the socket of a node is there.
    pub(super) fn has(&self, id: NodeId) -> bool {
        fs::symlink_metadata(self.socket(id)).is_ok()
    }

    /// Listens on the socket of node `id`.
    pub(super) fn listen(&self, id: NodeId) -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A socket that is bound and does not listen yet refuses connections, and other nodes would
        // remove it: so it gets its name later.
        let unnamed = self.base().join(format!("{id:016x}{UNNAMED}"));
        socket
            .bind(&SockAddr::unix(&unnamed)?)
            .and_then(|()| socket.listen(BACKLOG))
            .and_then(|()| socket.set_nonblocking(true))
            .and_then(|()| fs::rename(&unnamed, self.socket(id)))
            .map_err(with_path(&self.path))?;
        Ok(socket.into())
    }

    /// Connects to the socket of node `id`. Never sleeps: where too many connections wait there,
    /// it is an error of kind `WouldBlock`.
    pub(super) fn connect(&self, id: NodeId) -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(self.socket(id))?)?;
        Ok(socket)
    }

    /// Removes the socket of a node that has ended.
    pub(super) fn remove(&self, id: NodeId) {
        // Another process may have removed it already.
        let _ = fs::remove_file(self.socket(id));
    }

    /// The nodes whose sockets lie in the folder.
    ///
    /// Removes what nodes have left behind that ended as they started.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let Ok(entries) = fs::read_dir(self.base()) else {
            return Vec::new();
        };
        let mut nodes = Vec::new();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            if name.ends_with(UNNAMED) {
                let modified = entry.metadata().and_then(|found| found.modified());
                let age = modified.ok().and_then(|at| at.elapsed().ok());
                if age.is_some_and(|age| age > LONGEST_START) {
                    let _ = fs::remove_file(entry.path());
                }
            } else if let Some(id) = node_of(name) {
                nodes.push(id);
            }
        }
        nodes
    }
}

/// Whether the process at the other end acts as `user`, or as root. Where the system cannot tell,
/// the folder's rights keep others out.
pub(super) fn is_same_user(stream: &tokio::net::UnixStream, user: u32) -> bool {
    let is_same = |uid| uid == user || uid == 0;
    stream.peer_cred().map_or(true, |peer| is_same(peer.uid()))
}
