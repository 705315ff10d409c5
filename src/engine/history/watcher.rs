//! The events of a history.

use std::fmt::Debug;

/// Is told of events of a history in files.
pub trait Watcher: Debug + Send + Sync {
    /// A file was damaged, so the numbering of its group began anew. The text names the file.
    fn on_damage(&self, file: String);

    /// The system has no room for more in this folder, so older messages are deleted.
    fn on_full_disk(&self, folder: String);
}
