//! The file that records are appended to: it never holds half a line, and lines that could not be written whole are taken
//! out again.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// No line of ours is longer, bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// What stood in the file before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The last whole line, without its newline.
    pub(super) last: Option<Vec<u8>>,
    /// Bytes of an unfinished line after it, which are gone now.
    pub(super) torn: u64,
}

/// Appends to a file and begins another when it is large.
pub(super) struct FileSink {
    path: PathBuf,
    max_bytes: u64,
    keep: u16,
    /// Every append is durable before it returns.
    sync: bool,
    file: Option<File>,
    /// Bytes of whole, accepted lines.
    len: u64,
    /// There may be more in the file than `len`.
    dirty: bool,
}

impl FileSink {
    /// Opens the file, or makes it, and removes what an end without warning left unfinished.
    ///
    /// # Errors
    /// The file cannot be used: another process writes to it, or it holds something else than lines.
    pub(super) fn open(path: &Path, max_bytes: u64, keep: u16, sync: bool) -> io::Result<(Self, Found)> {
        let mut sink =
            Self { path: path.to_owned(), max_bytes, keep, sync, file: None, len: 0, dirty: false };
        let mut found = Found::default();
        match open_locked(path) {
            Ok(mut file) => {
                let end = file.metadata()?.len();
                found.last = last_line(&mut file, end, &mut found.torn)?;
                sink.len = end.saturating_sub(found.torn);
                if found.torn > 0 {
                    file.set_len(sink.len)?;
                    file.sync_all()?;
                }
                sink.file = Some(file);
            }
            // It is made when there is room.
            Err(error) if error.kind() == ErrorKind::StorageFull => {}
            Err(error) => return Err(error),
        }
        if sink.len == 0 {
            // The process ended between giving the old file its new name and the first line of the next.
            found.last = match File::open(numbered(path, 1)) {
                Ok(mut older) => {
                    let end = older.metadata()?.len();
                    last_line(&mut older, end, &mut 0)?
                }
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
        }
        Ok((sink, found))
    }

    /// Appends whole lines: all of them, or none.
    ///
    /// # Errors
    /// They are not in the file; it can be tried again.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let added = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.dirty {
            self.clean()?;
        }
        if self.len > 0 && self.len.saturating_add(added) > self.max_bytes {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_locked(&self.path)?),
        };
        let written = file.write_all(lines).and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.len = self.len.saturating_add(added);
                Ok(())
            }
            Err(error) => {
                self.dirty = true;
                // If this fails, it is done before the next attempt.
                let _ = self.clean();
                Err(error)
            }
        }
    }

    /// Everything so far is durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }

    fn clean(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.set_len(self.len)?;
            if self.sync {
                file.sync_data()?;
            }
        }
        self.dirty = false;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        for n in (1..self.keep).rev() {
            match fs::rename(numbered(&self.path, n), numbered(&self.path, n.saturating_add(1))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        // From here on it is the older file that holds the lines.
        self.file = None;
        self.len = 0;
        self.file = Some(open_locked(&self.path)?);
        sync_directory(&self.path)
    }
}

/// `records.jsonl.1` is younger than `records.jsonl.2`.
fn numbered(path: &Path, n: u16) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// Nobody else may read it, and two sidecars cannot write to it; a link is not followed.
fn open_locked(path: &Path) -> io::Result<File> {
    let made = !path.exists();
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::new(ErrorKind::ResourceBusy, "another process writes to it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if made {
        sync_directory(path)?;
    }
    Ok(file)
}

/// A new name is as durable as the lines behind it.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// The last whole line of a file; sets how many bytes stand behind it.
fn last_line(file: &mut File, end: u64, torn: &mut u64) -> io::Result<Option<Vec<u8>>> {
    // Two lines at least: a whole one, and an unfinished one behind it.
    let from = end.saturating_sub(MAX_LINE.saturating_mul(2));
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(end.saturating_sub(from)).read_to_end(&mut bytes)?;
    let newline = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
    let Some(last) = newline(&bytes) else {
        if from > 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "it holds something else than lines"));
        }
        *torn = end;
        return Ok(None);
    };
    *torn = u64::try_from(bytes.len().saturating_sub(last).saturating_sub(1)).unwrap_or_default();
    bytes.truncate(last);
    let line = bytes.split_off(newline(&bytes).map_or(0, |before| before.saturating_add(1)));
    Ok(Some(line))
}

#[cfg(test)]
mod tests;
