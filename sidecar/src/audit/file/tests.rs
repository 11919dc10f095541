use std::os::unix::fs::PermissionsExt as _;

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

fn open(dir: &Dir) -> (FileSink, Found) {
    FileSink::open(&dir.file(), 64, 2, true).unwrap()
}

#[test]
fn a_file_is_made_for_its_owner_alone_and_its_last_line_is_found_again() {
    let dir = Dir::new("again");
    let (mut sink, found) = open(&dir);
    assert_eq!(found, Found::default());
    sink.append(b"one\ntwo\n").unwrap();
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
        sink.append(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), format!("{after}next\n"));
    }
}

#[test]
fn a_large_file_gets_another_name_and_the_oldest_goes() {
    let dir = Dir::new("rotate");
    let (mut sink, _) = open(&dir);
    for n in 0..7 {
        sink.append(format!("{n}{}\n", "x".repeat(40)).as_bytes()).unwrap();
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
    assert!(FileSink::open(&dir.file(), 64, 2, true).is_err(), "another sidecar writes to it");
    drop(held);
    fs::remove_file(dir.file()).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.file()).unwrap();
    assert!(FileSink::open(&dir.file(), 64, 2, true).is_err(), "a link is not followed");
    fs::remove_file(dir.file()).unwrap();
    fs::write(dir.file(), vec![b'x'; 3 * 1024 * 1024]).unwrap();
    assert!(FileSink::open(&dir.file(), 64, 2, true).is_err(), "no lines");
    assert_eq!(fs::metadata(dir.file()).unwrap().len(), 3 * 1024 * 1024);
    assert!(FileSink::open(&dir.0.join("no/such"), 64, 2, true).is_err());
}
