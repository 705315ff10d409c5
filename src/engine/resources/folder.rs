//! Folders in which the processes of one user keep files that no other user may see or change.
//!
//! A path may come to mean another folder: the first one is deleted, and another user makes one in
//! its place. So a folder is opened by its path once, and looked at; its files are reached by its
//! descriptor, and each is looked at, too.

use std::{
    fs::{self, DirBuilder, File, Metadata},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use crate::engine::base::sync::Mutex;

const OTHERS: u32 = 0o077;

/// An open folder. Its path may come to mean another one; this one stays.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    user: u32,
    opened: File,
}

/// An item in a folder that has a name there, and belongs to the folder's user.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) kind: FileType,
    pub(crate) length: u64,
    /// Bytes of its blocks, or its length where that is more.
    pub(crate) taken: u64,
    pub(crate) modified: SystemTime,
}

fn refused(path: &Path, reason: &str) -> io::Error {
    io::Error::other(format!("{} {reason}", path.display()))
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn is_private(found: &Metadata, user: u32) -> bool {
    found.uid() == user && found.mode() & OTHERS == 0
}

impl Folder {
    /// Opens the folder of `user` at `path`, made if it is missing; its parent is not.
    ///
    /// # Errors
    /// It is a link or no folder, belongs to another user, others may enter it, or the system
    /// refuses. The text names the path.
    pub(crate) fn open(path: &Path, user: u32) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(with_path(path, &error));
            }
            _ => {}
        }
        let opened = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path);
        Self::looked_at(path.to_owned(), user, opened)
    }

    /// Opens the folder with that name in this one, made if it is missing.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        let path = self.path.join(name);
        match mkdirat(&self.opened, name, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => {
                return Err(with_path(&path, &error.into()));
            }
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&self.opened, name, flags, Mode::empty());
        Self::looked_at(path, self.user, opened.map(File::from).map_err(Into::into))
    }

    fn looked_at(path: PathBuf, user: u32, opened: io::Result<File>) -> io::Result<Self> {
        let folder = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP | libc::ENOTDIR) => refused(
                &path,
                "is no folder of this package's: remove it, or set RUNTIME_DIR",
            ),
            _ => with_path(&path, &error),
        })?;
        let found = folder
            .metadata()
            .map_err(|error| with_path(&path, &error))?;
        if found.uid() != user {
            return Err(refused(&path, "belongs to another user: set RUNTIME_DIR"));
        }
        if !is_private(&found, user) {
            return Err(refused(
                &path,
                "can be entered by other users: chmod 700 it",
            ));
        }
        Ok(Self {
            path,
            user,
            opened: folder,
        })
    }

    /// Whether the path still means this folder, and no other user may enter it.
    pub(crate) fn is_current(&self) -> bool {
        let (Ok(there), Ok(here)) = (fs::symlink_metadata(&self.path), self.opened.metadata())
        else {
            return false;
        };
        (there.dev(), there.ino()) == (here.dev(), here.ino()) && is_private(&here, self.user)
    }

    /// The path by which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// An error with the path of this folder in its text.
    pub(crate) fn named(&self, error: io::Error) -> io::Error {
        with_path(&self.path, &error)
    }

    /// Opens the file with that name, to read and write it; `creates` makes it if it is missing.
    ///
    /// # Errors
    /// It is a link or no file, belongs to another user, others may use it, or the system refuses.
    pub(crate) fn file(&self, name: &str, creates: bool) -> io::Result<File> {
        // Without O_NONBLOCK a pipe in its place might be waited for.
        let mut flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        flags.set(OFlags::CREATE, creates);
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = openat(&self.opened, name, flags, mode).map(File::from);
        let looked_at = opened.map_err(io::Error::from).and_then(|file| {
            let found = file.metadata()?;
            Ok((file, found))
        });
        let path = Path::new(name);
        let (file, found) = looked_at.map_err(|error| with_path(path, &error))?;
        if !(found.is_file() && is_private(&found, self.user)) {
            return Err(refused(
                path,
                "is no file that only its user may read and write: remove it",
            ));
        }
        Ok(file)
    }

    /// The item with a name; `None` without one, and for one of another user.
    pub(crate) fn item(&self, name: &str) -> Option<Item> {
        let found = statat(&self.opened, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let since = Duration::new(
            u64::try_from(found.st_mtime).unwrap_or_default(),
            u32::try_from(found.st_mtime_nsec).unwrap_or_default(),
        );
        let length = u64::try_from(found.st_size).unwrap_or_default();
        let blocks = u64::try_from(found.st_blocks).unwrap_or_default();
        (found.st_uid == self.user).then_some(Item {
            name: name.to_owned(),
            kind: FileType::from_raw_mode(found.st_mode),
            length,
            taken: length.max(blocks.saturating_mul(512)),
            modified: SystemTime::UNIX_EPOCH + since,
        })
    }

    /// The names in this folder; those that are no text are left out.
    ///
    /// # Errors
    /// The system does not give them, such as without a descriptor.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.opened)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Returns what lies under a name another one.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.opened, from, &self.opened, to)?)
    }

    /// Removes the file, link or socket with that name.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.opened, name, AtFlags::empty())?)
    }

    /// A path of what has that name, short enough for a socket's address. On Linux it leads through
    /// the descriptor; elsewhere it is to be used only while [`Folder::is_current`].
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        #[cfg(target_os = "linux")]
        let base = PathBuf::from(format!("/proc/self/fd/{}", self.opened.as_raw_fd()));
        #[cfg(not(target_os = "linux"))]
        let base = &self.path;
        base.join(name)
    }
}

/// The path of a folder, and the folder that it means for this process.
#[derive(Debug)]
pub(crate) struct Place {
    current: Mutex<Arc<Folder>>,
}

impl Place {
    /// As [`Folder::open`].
    pub(crate) fn open(path: &Path, user: u32) -> io::Result<Self> {
        Ok(Self {
            current: Mutex::new(Arc::new(Folder::open(path, user)?)),
        })
    }

    /// The folder that was opened last.
    pub(crate) fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.current.lock())
    }

    /// The folder at the path: made anew if it was deleted.
    ///
    /// # Errors
    /// As [`Folder::open`]. Then the former folder stays the one of this process.
    pub(crate) fn renew(&self) -> io::Result<Arc<Folder>> {
        let mut current = self.current.lock();
        if !current.is_current() {
            *current = Arc::new(Folder::open(&current.path, current.user)?);
        }
        Ok(Arc::clone(&current))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder(name: &str) -> (Folder, u32) {
        let path = std::env::temp_dir().join(format!("folder-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        let user = fs::metadata(&path).unwrap().uid();
        (Folder::open(&path, user).unwrap(), user)
    }

    #[test]
    fn a_folder_of_another_user_is_refused_with_its_path() {
        let (folder, user) = folder("foreign");
        let error = Folder::open(folder.path(), user + 1).unwrap_err();
        let expected = format!("{} belongs to another user", folder.path().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        fs::remove_dir(folder.path()).unwrap();
    }

    #[test]
    fn parents_are_not_made() {
        let path = std::env::temp_dir().join(format!("folder-none-{}/x", std::process::id()));
        let error = Folder::open(&path, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn a_folder_that_is_replaced_or_opened_to_others_is_not_current() {
        let (folder, user) = folder("current");
        assert!(folder.is_current());
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(!folder.is_current());
        let other = folder.path().with_extension("other");
        fs::rename(folder.path(), &other).unwrap();
        let second = Folder::open(folder.path(), user).unwrap();
        assert!(second.is_current() && !folder.is_current());
        fs::remove_dir(second.path()).unwrap();
        fs::remove_dir(other).unwrap();
    }

    #[test]
    fn files_are_those_of_the_open_folder_whatever_its_path_means() {
        let (folder, user) = folder("files");
        let other = folder.path().with_extension("other");
        fs::rename(folder.path(), &other).unwrap();
        let second = Folder::open(folder.path(), user).unwrap();
        folder.file("here", true).unwrap();
        let child = folder.child("child").unwrap();
        child.file("there", true).unwrap();
        assert_eq!(second.names().unwrap(), [""; 0]);
        let mut names = folder.names().unwrap();
        names.sort();
        assert_eq!(
            (names, child.names().unwrap()),
            (vec!["child".into(), "here".into()], vec!["there".into()])
        );
        folder.rename("here", "gone").unwrap();
        assert_eq!(
            folder.item("gone").map(|item| item.kind),
            Some(FileType::RegularFile)
        );
        folder.remove("gone").unwrap();
        assert!(folder.item("gone").is_none() && folder.file("gone", false).is_err());
        fs::remove_dir(second.path()).unwrap();
        fs::remove_dir_all(other).unwrap();
    }

    #[test]
    fn links_and_files_that_others_may_use_are_refused_with_their_names() {
        let (folder, _) = folder("refused");
        folder.file("mine", true).unwrap();
        symlink("mine", folder.path().join("link")).unwrap();
        folder.file("open", true).unwrap();
        fs::set_permissions(folder.path().join("open"), PermissionsExt::from_mode(0o640)).unwrap();
        folder.child("folder").unwrap();
        for name in ["link", "open", "folder"] {
            let error = folder.file(name, true).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        fs::remove_dir_all(folder.path()).unwrap();
    }
}
