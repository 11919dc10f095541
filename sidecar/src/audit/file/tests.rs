use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("behalf-records-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self) -> PathBuf {
        self.0.join("records.jsonl")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tried(file: &Path) -> io::Result<(FileSink, Found)> {
    FileSink::open(
        file,
        &Options { file_bytes: 64, files: 2, reserve_bytes: 64 * 1024, ..Options::default() },
        true,
    )
}

fn open(dir: &Dir) -> (FileSink, Found) {
    tried(&dir.file()).unwrap()
}

/// Bytes of blocks that a file takes from its disk.
fn blocks(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

#[test]
fn a_file_is_made_for_its_owner_alone_and_its_last_line_is_found_again() {
    let dir = Dir::new("again");
    let (mut sink, found) = open(&dir);
    assert_eq!(found, Found::default());
    sink.append(b"one\ntwo\n", Room::Ordinary).unwrap();
    assert_eq!(fs::metadata(dir.file()).unwrap().permissions().mode() & 0o777, 0o600);
    drop(sink);
    assert_eq!(open(&dir).1, Found { last: Some(b"two".to_vec()), torn: 0 });
}

#[test]
fn an_unfinished_line_is_taken_out() {
    for (before, last, torn, after) in [
        ("one\ntwo\nthr", Some("two"), 3, "one\ntwo\n"),
        ("one\nt", Some("one"), 1, "one\n"),
        ("on", None, 2, ""),
        ("\n", Some(""), 0, "\n"),
    ] {
        let dir = Dir::new("torn");
        fs::write(dir.file(), before).unwrap();
        let (mut sink, found) = open(&dir);
        assert_eq!(found, Found { last: last.map(|l| l.as_bytes().to_vec()), torn });
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), after);
        sink.append(b"next\n", Room::Ordinary).unwrap();
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), format!("{after}next\n"));
    }
}

#[test]
fn a_large_file_gets_another_name_and_the_oldest_goes() {
    let dir = Dir::new("rotate");
    let (mut sink, _) = open(&dir);
    for n in 0..7 {
        sink.append(format!("{n}{}\n", "x".repeat(40)).as_bytes(), Room::Ordinary).unwrap();
    }
    assert_eq!(dir.names(), ["records.jsonl", "records.jsonl.1", "records.jsonl.2"]);
    let first = |name: &str| fs::read_to_string(dir.0.join(name)).unwrap().chars().next().unwrap();
    assert_eq!(["records.jsonl", "records.jsonl.1", "records.jsonl.2"].map(first), ['6', '5', '4']);
}

#[test]
fn the_chain_goes_on_behind_a_new_name_also_when_the_next_file_is_empty_or_missing() {
    for empty in [true, false] {
        let dir = Dir::new("between");
        fs::write(dir.0.join("records.jsonl.1"), "one\ntwo\n").unwrap();
        if empty {
            fs::write(dir.file(), "").unwrap();
        }
        assert_eq!(open(&dir).1.last.as_deref(), Some(b"two".as_slice()));
    }
}

#[test]
fn a_file_of_somebody_else_is_not_used() {
    let dir = Dir::new("foreign");
    let (held, _) = open(&dir);
    assert!(tried(&dir.file()).is_err(), "another sidecar writes to it");
    drop(held);
    fs::remove_file(dir.file()).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.file()).unwrap();
    assert!(tried(&dir.file()).is_err(), "a link is not followed");
    fs::remove_file(dir.file()).unwrap();
    fs::write(dir.file(), vec![b'x'; 3 * 1024 * 1024]).unwrap();
    assert!(tried(&dir.file()).is_err(), "no lines");
    assert_eq!(fs::metadata(dir.file()).unwrap().len(), 3 * 1024 * 1024);
    assert!(tried(&dir.0.join("no/such")).is_err());
}

#[test]
fn a_reserve_is_held_behind_the_end_and_goes_with_the_file_that_is_written() {
    let dir = Dir::new("reserve");
    let (mut sink, _) = open(&dir);
    assert!(sink.holds(), "the file system of the test can");
    sink.append(b"one\n", Room::Ordinary).unwrap();
    assert_eq!(fs::read(dir.file()).unwrap(), b"one\n", "the file looks no longer for it");
    assert!(sink.left() >= 64 * 1024 && blocks(&dir.file()) >= 64 * 1024);
    // Into the reserve, as far as it goes and not further.
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let mut lines = 0;
    while sink.append(&line, Room::Reserve).is_ok() {
        lines += 1;
    }
    assert!(lines >= 64 && sink.left() < 1000);
    let error = sink.append(&line, Room::Reserve).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(fs::metadata(dir.file()).unwrap().len(), 4 + lines * 1000);
    // It is large by now; the next one begins with a reserve of its own, and this one gives up what it has left.
    sink.append(b"two\n", Room::Ordinary).unwrap();
    assert_eq!(dir.names(), ["records.jsonl", "records.jsonl.1"]);
    assert_eq!(fs::read(dir.file()).unwrap(), b"two\n");
    assert!(sink.left() >= 64 * 1024 && blocks(&dir.file()) >= 64 * 1024);
    let older = dir.0.join("records.jsonl.1");
    assert!(blocks(&older) <= fs::metadata(&older).unwrap().len() + 4096);
}

#[test]
fn what_a_killed_process_held_is_given_back_and_zeros_are_no_line() {
    let dir = Dir::new("killed");
    let (mut sink, _) = open(&dir);
    sink.append(b"one\n", Room::Ordinary).unwrap();
    drop(sink);
    fs::rename(dir.file(), dir.0.join("records.jsonl.1")).unwrap();
    fs::write(dir.0.join("records.jsonl.next"), "").unwrap();
    fs::write(dir.file(), b"two\n\0\0\0\0").unwrap();
    assert!(blocks(&dir.0.join("records.jsonl.1")) >= 64 * 1024);
    let (sink, found) = open(&dir);
    assert_eq!(found, Found { last: Some(b"two".to_vec()), torn: 4 });
    assert_eq!(dir.names(), ["records.jsonl", "records.jsonl.1"]);
    assert!(blocks(&dir.0.join("records.jsonl.1")) <= 4096);
    assert!(sink.left() >= 64 * 1024);
    assert_eq!(fs::read(dir.file()).unwrap(), b"two\n");
}
