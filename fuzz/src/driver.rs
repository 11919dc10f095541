//! Mutations of a corpus without a view of what they reach: slow to find much, but the same everywhere, and enough to
//! notice that something got worse.

use std::path::{Path, PathBuf};

use crate::Target;

/// Bytes that mean something to one of the readers.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"..",
    b"/",
    b"//",
    b"%2e",
    b"%252f",
    b";",
    b"\\u0061",
    b"\\ud800",
    b"\\u0000",
    b"\xc5\xbf",
    b"\xe2\x84\xaa",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc0\xae",
    b"null",
    b"true",
    b"1e400",
    b"-0",
    b"9007199254740993",
    b"NaN",
    b"none",
    b"\"alg\":\"none\"",
    b"HS256",
    b"\"crit\":[\"exp\"]",
    b"\"kid\":",
    b"oct",
    b"method",
    b"params",
    b"name",
    b"arguments",
    b"_meta",
    b"id",
    b"jsonrpc",
    b"result",
    b"error",
    b"tools/call",
    b"tools/list",
    b"behalf.dev/handle",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET ",
    b"POST ",
    b"0\r\n\r\n",
    b"aud",
    b"exp",
    b"cnf",
    b"dpop+jwt",
    b"htu",
    b"act",
    b"iss",
    b"sub",
    b"__proto__",
];
/// Inputs do not grow beyond this many bytes.
const LONGEST: usize = 8 * 1024;

/// A deterministic source of chance (splitmix64).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// The inputs of a target that are kept in the repository, in the order of their names.
///
/// # Errors
/// There is no such folder.
pub fn corpus(target: &Target) -> std::io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    files.iter().map(std::fs::read).collect()
}

/// One input made from those of the corpus.
pub fn mutated(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |chance: &mut Chance| corpus.get(chance.below(corpus.len())).cloned().unwrap_or_default();
    let mut input = pick(chance);
    for _ in 0..=chance.below(6) {
        let (from, to) = (chance.below(input.len() + 1), chance.below(input.len() + 1));
        let range = from.min(to)..from.max(to).min(from.min(to) + 1 + chance.below(32));
        let range = range.start..range.end.max(range.start);
        match chance.below(9) {
            0 => input.splice(from..from, WORDS[chance.below(WORDS.len())].iter().copied()).for_each(drop),
            1 => input.splice(range, WORDS[chance.below(WORDS.len())].iter().copied()).for_each(drop),
            2 => input.drain(range).for_each(drop),
            3 => {
                let copy = input.get(range).unwrap_or_default().to_vec();
                input.splice(to..to, copy).for_each(drop);
            }
            4 => {
                let other = pick(chance);
                let cut = chance.below(other.len() + 1);
                input.truncate(from);
                input.extend_from_slice(other.get(cut..).unwrap_or_default());
            }
            5 => {
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= 1 << chance.below(8);
                }
            }
            6 => {
                if let Some(byte) = input.get_mut(from) {
                    *byte = chance.byte();
                }
            }
            7 => input.insert(from, chance.byte()),
            _ => input.truncate(from.max(1)),
        }
    }
    input.truncate(LONGEST);
    input
}

/// Runs a target over its corpus and then over so many mutations of it.
///
/// # Errors
/// The corpus cannot be read.
///
/// # Panics
/// When something does not hold; the input is printed before.
pub fn run(target: &Target, seed: u64, count: u64) -> std::io::Result<()> {
    let corpus = corpus(target)?;
    for input in &corpus {
        shown(target, input);
    }
    let mut chance = Chance::new(seed);
    for _ in 0..count {
        shown(target, &mutated(&mut chance, &corpus));
    }
    Ok(())
}

fn shown(target: &Target, input: &[u8]) {
    /// Says which input it was, if the thread panics while it is there.
    struct Shown<'a>(&'static str, &'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{} does not hold for b\"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }
    let _shown = Shown(target.name, input);
    (target.run)(input);
}
