//! The file that records are appended to: it never holds half a line, and lines that could not be written whole are taken
//! out again.
//!
//! Behind its end the file system holds blocks for it (`fallocate(2)` with `FALLOC_FL_KEEP_SIZE`): the reserve, for
//! decisions that are made while the disk is full. The file looks no longer for it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::options::Options;

/// No line of ours is longer, bytes.
const MAX_LINE: u64 = 1024 * 1024;
/// Blocks are asked for so many bytes ahead, so that not every append asks.
const AHEAD: u64 = 64 * 1024;
/// What is left of a reserve is found to this many bytes.
const BLOCK: u64 = 4096;

/// What stood in the file before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The last whole line, without its newline.
    pub(super) last: Option<Vec<u8>>,
    /// Bytes of an unfinished line after it, which are gone now.
    pub(super) torn: u64,
}

/// Where the bytes of an append may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Where the reserve stays whole behind them.
    Ordinary,
    /// Into the reserve.
    Reserve,
}

/// Appends to a file and begins another when it is large.
pub(super) struct FileSink {
    path: PathBuf,
    max_bytes: u64,
    keep: u16,
    /// Every append is durable before it returns.
    sync: bool,
    /// Bytes that are to be held behind the end; none where the file system cannot.
    reserve: Option<u64>,
    file: Option<File>,
    /// Bytes of whole, accepted lines.
    len: u64,
    /// Up to here the file system holds blocks; at least `len`.
    held: u64,
    /// There may be more in the file than `len`.
    dirty: bool,
    /// Names were changed and may not be durable yet.
    renamed: bool,
}

impl FileSink {
    /// Opens the file, or makes it, and removes what an end without warning left unfinished.
    ///
    /// # Errors
    /// The file cannot be used: another process writes to it, or it holds something else than lines.
    pub(super) fn open(path: &Path, options: &Options, sync: bool) -> io::Result<(Self, Found)> {
        let mut sink = Self {
            path: path.to_owned(),
            max_bytes: options.file_bytes,
            keep: options.files,
            sync,
            reserve: Some(options.reserve_bytes),
            file: None,
            len: 0,
            held: 0,
            dirty: false,
            renamed: false,
        };
        let mut found = Found::default();
        // A killed process could not give back what it held for these.
        match fs::remove_file(next(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Ok(older) = OpenOptions::new().append(true).open(numbered(path, 1)) {
            older.set_len(older.metadata()?.len())?;
        }
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
                sink.hold_what_there_is()?;
            }
            // It is made when there is room.
            Err(error) if is_full(&error) => {}
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

    /// Appends whole lines: all of them, or none. No lines are a question whether there is room.
    ///
    /// # Errors
    /// They are not in the file; it can be tried again.
    pub(super) fn append(&mut self, lines: &[u8], room: Room) -> io::Result<()> {
        let added = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.dirty {
            self.clean()?;
        }
        let end = self.len.saturating_add(added);
        match room {
            Room::Ordinary => {
                if self.len > 0 && end > self.max_bytes {
                    self.rotate()?;
                } else if self.file.is_none() {
                    self.file = Some(open_locked(&self.path)?);
                }
                self.hold(added)?;
            }
            Room::Reserve if end > self.held => return Err(ErrorKind::StorageFull.into()),
            Room::Reserve => {}
        }
        if self.renamed {
            sync_directory(&self.path)?;
            self.renamed = false;
        }
        let Some(file) = &mut self.file else { return Err(ErrorKind::StorageFull.into()) };
        if lines.is_empty() {
            return Ok(());
        }
        let written = file.write_all(lines).and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.len = self.len.saturating_add(added);
                self.held = self.held.max(self.len);
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

    /// Bytes that can be written whatever becomes of the disk.
    pub(super) fn left(&self) -> u64 {
        self.held.saturating_sub(self.len)
    }

    /// Whether the file system can hold blocks at all.
    pub(super) fn holds(&self) -> bool {
        self.reserve.is_some()
    }

    fn clean(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file
            && file.metadata()?.len() != self.len
        {
            // What is behind the end goes with it.
            self.held = self.len;
            file.set_len(self.len)?;
            if self.sync {
                file.sync_data()?;
            }
        }
        self.dirty = false;
        Ok(())
    }

    /// Holds blocks for so many bytes and a whole reserve behind them, and somewhat further where there are.
    fn hold(&mut self, added: u64) -> io::Result<()> {
        let (Some(file), Some(reserve)) = (&self.file, self.reserve) else { return Ok(()) };
        let end = self.len.saturating_add(added).saturating_add(reserve);
        if self.held >= end {
            return Ok(());
        }
        let ahead = end.saturating_add(AHEAD);
        self.held = match hold(file, self.held, ahead) {
            Ok(()) => ahead,
            Err(error) if is_full(&error) => hold(file, self.held, end).map(|()| end)?,
            Err(error) if is_unsupported(&error) => {
                self.reserve = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// After a start: a whole reserve, or on a full disk what the process before left of its own.
    fn hold_what_there_is(&mut self) -> io::Result<()> {
        self.held = self.len;
        match self.hold(0) {
            Err(error) if is_full(&error) => {}
            done => return done,
        }
        let (Some(file), Some(reserve)) = (&self.file, self.reserve) else { return Ok(()) };
        // Blocks that are held already are given on a full disk, too.
        let (mut there, mut missing) = (0, reserve);
        while missing.saturating_sub(there) > BLOCK {
            let middle = there.midpoint(missing);
            match hold(file, self.len, self.len.saturating_add(middle)) {
                Ok(()) => there = middle,
                Err(error) if is_full(&error) => missing = middle,
                Err(error) => return Err(error),
            }
        }
        self.held = self.len.saturating_add(there);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        // The next file has its reserve before this one gives up its own. Without room for both, this one goes on.
        let next_path = next(&self.path);
        let next = open_locked(&next_path)?;
        let held = self.reserve.map_or(0, |reserve| reserve.saturating_add(AHEAD));
        if held > 0
            && let Err(error) = hold(&next, 0, held)
        {
            let _ = fs::remove_file(&next_path);
            return Err(error);
        }
        for n in (1..self.keep).rev() {
            match fs::rename(numbered(&self.path, n), numbered(&self.path, n.saturating_add(1))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))?;
        self.renamed = true;
        // From here on it is the older file that holds the lines.
        let older = self.file.take();
        (self.len, self.held) = (0, 0);
        fs::rename(&next_path, &self.path)?;
        (self.file, self.held) = (Some(next), held);
        if let Some(older) = older {
            // Its reserve is free. If this fails, it goes with the file.
            let _ = older.metadata().and_then(|metadata| older.set_len(metadata.len()));
        }
        Ok(())
    }
}

/// Holds the blocks of these bytes of a file, whose length stays.
fn hold(file: &File, from: u64, to: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, to.saturating_sub(from)) {
            Err(Errno::INTR) => {}
            held => return held.map_err(io::Error::from),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::NOSYS))
}

/// `records.jsonl.1` is younger than `records.jsonl.2`.
fn numbered(path: &Path, n: u16) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

/// What the next file is called until it has its reserve.
fn next(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".next");
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
