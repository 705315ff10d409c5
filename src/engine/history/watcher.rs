//! The events of a history.

use std::fmt::Debug;

/// Is told of events of a history in files.
pub trait Watcher: Debug + Send + Sync {
    /// A file was damaged, so the numbering of its group began anew. The text names the file.
    fn on_damage(&self, file: String);
}
