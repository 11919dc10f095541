//! A way to the API server that counts what is written, and kills the writer at a chosen write.
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use xtask::cluster::layout::MACHINE;
use xtask::command::Run as _;

/// When the writer dies: it has sent the write, and the API server has never seen it, or has done it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// The n-th write, and whom it kills.
#[derive(Debug, Clone)]
struct Trap {
    write: usize,
    moment: Moment,
    victim: Option<u32>,
}

#[derive(Default)]
struct State {
    writes: Vec<String>,
    trap: Option<Trap>,
    sprung: bool,
}

/// Plain HTTP/1.1 between the machine and a server that is reached without credentials.
pub struct Gate {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// On this machine's end of the link to the node.
    pub fn open(upstream: SocketAddr) -> Self {
        let [machine, _] = MACHINE;
        let listener = TcpListener::bind((machine.split('/').next().unwrap(), 0)).unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || pass(stream, upstream, &shared));
            }
        });
        Self { address, state }
    }

    /// Forgets what was, and sets a trap or none.
    pub fn set(&self, trap: Option<(usize, Moment)>) {
        let trap = trap.map(|(write, moment)| Trap { write, moment, victim: None });
        *self.state.lock().unwrap() = State { trap, ..State::default() };
    }

    /// Whom the trap is for. It cannot have written before this is known: the trap waits.
    pub fn arm(&self, victim: u32) {
        if let Some(trap) = &mut self.state.lock().unwrap().trap {
            trap.victim = Some(victim);
        }
    }

    /// What was written since, the Lease apart.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// Whether somebody was killed.
    pub fn sprung(&self) -> bool {
        self.state.lock().unwrap().sprung
    }
}

fn kill(state: &Mutex<State>) {
    let mut state = state.lock().unwrap();
    state.sprung = true;
    let victim = state.trap.as_ref().and_then(|trap| trap.victim).expect("the trap is armed");
    Command::new("kill").args(["-KILL", &victim.to_string()]).run().unwrap();
}

/// Counts a write; when the writer has to die for it.
fn judge(state: &Mutex<State>, line: &str) -> Option<Moment> {
    let mut words = line.split(' ');
    let (verb, path) = (words.next()?, words.next()?);
    if verb == "GET" || path.contains("/leases") || path.contains("/tokenreviews") {
        return None;
    }
    let mut state = state.lock().unwrap();
    state.writes.push(format!("{verb} {}", path.split('?').next()?));
    let count = state.writes.len();
    state.trap.as_ref().filter(|trap| trap.write == count).map(|trap| trap.moment)
}

/// Passes one connection on, request by request; the answers go back as they come.
fn pass(client: TcpStream, upstream: SocketAddr, state: &Arc<Mutex<State>>) {
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    let (Ok(mut back), Ok(mut from)) = (client.try_clone(), server.try_clone()) else { return };
    let dies = Arc::new(AtomicBool::new(false));
    let (dying, shared) = (Arc::clone(&dies), Arc::clone(state));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if dying.load(Ordering::Acquire) {
                kill(&shared);
                break;
            }
            if back.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = back.shutdown(std::net::Shutdown::Both);
    });
    let mut reader = BufReader::new(client);
    while let Some((head, body)) = request(&mut reader) {
        match judge(state, &head) {
            Some(Moment::Before) => {
                kill(state);
                break;
            }
            Some(Moment::After) => dies.store(true, Ordering::Release),
            None => {}
        }
        if server.write_all(head.as_bytes()).and_then(|()| server.write_all(&body)).is_err() {
            break;
        }
        if dies.load(Ordering::Acquire) {
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

/// One request: its head, and its body by `Content-Length`.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let found =
            lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next();
        found.map(str::to_owned)
    };
    assert_eq!(field("transfer-encoding"), None, "bodies come with their length");
    let length = field("content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}
