//! What stands between a client that cannot present a token and a server that asks for one: it adds one line to the head
//! of every request and leaves every other byte as it came, in both directions.
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

/// A head longer than this is none.
const MAX_HEAD: usize = 1 << 20;

/// A listening shim; it takes no more connections after this is dropped.
pub(super) struct Shim {
    at: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Shim {
    /// Listens on `port` of loopback and passes everything on to `to`, with the token added.
    ///
    /// # Errors
    /// The port is taken.
    pub(super) fn start(port: u16, to: u16, token: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("port {port} on loopback is taken"))?;
        let at = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (line, over) =
            (Arc::<str>::from(format!("Authorization: Bearer {token}\r\n")), Arc::clone(&ended));
        thread::spawn(move || {
            for client in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                let line = Arc::clone(&line);
                thread::spawn(move || connection(&client, to, line.as_bytes()));
            }
        });
        Ok(Self { at, ended })
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // It waits for a connection, so it gets one.
        let _ = TcpStream::connect(self.at);
    }
}

/// One connection. An error of either side ends it, which both sides see.
fn connection(client: &TcpStream, to: u16, line: &[u8]) -> Option<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).ok()?;
    for side in [client, &server] {
        side.set_nodelay(true).ok()?;
    }
    let (from, back) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let answers = thread::spawn(move || {
        let _ = answers(&back, &from);
        let _ = from.shutdown(Shutdown::Both);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = requests(client, &server, line);
    let _ = server.shutdown(Shutdown::Write);
    answers.join().ok()
}

fn answers(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut bytes = [0_u8; 16 * 1024];
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
    }
}

/// Requests of HTTP/1.1, one after the other, until the client ends.
fn requests(from: &TcpStream, to: &TcpStream, line: &[u8]) -> io::Result<()> {
    let mut from = BufReader::new(from);
    while request(&mut from, to, line)? {}
    Ok(())
}

/// How the body of a request ends (RFC 9112 §6.3).
#[derive(Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

fn request(from: &mut impl BufRead, mut to: impl io::Write, added: &[u8]) -> io::Result<bool> {
    let mut head = Vec::new();
    if line(from, &mut head)? == 0 {
        return Ok(false);
    }
    let first = head.len();
    let (mut body, mut authorized) = (Body::Length(0), false);
    loop {
        let start = head.len();
        if line(from, &mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let field = head[start..].to_ascii_lowercase();
        if field.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            break;
        }
        let value = |name: &str| {
            field.strip_prefix(name.as_bytes()).and_then(|v| std::str::from_utf8(v).ok()).map(str::trim)
        };
        authorized |= value("authorization:").is_some();
        if let Some(length) = value("content-length:") {
            body = Body::Length(length.parse().map_err(|_| io::ErrorKind::InvalidData)?);
        } else if value("transfer-encoding:").is_some() {
            body = Body::Chunked;
        }
    }
    // Who presents something is left to it.
    if !authorized {
        head.splice(first..first, added.iter().copied());
    }
    to.write_all(&head)?;
    match body {
        Body::Length(length) => pass(from, &mut to, length)?,
        Body::Chunked => chunks(from, &mut to)?,
    }
    Ok(true)
}

fn line(from: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<usize> {
    let count = from.read_until(b'\n', head)?;
    if head.len() > MAX_HEAD { Err(io::ErrorKind::InvalidData.into()) } else { Ok(count) }
}

/// Chunks as they come, trailers too.
fn chunks(from: &mut impl BufRead, to: &mut impl io::Write) -> io::Result<()> {
    loop {
        let mut size = Vec::new();
        line(from, &mut size)?;
        to.write_all(&size)?;
        let digits: Vec<u8> = size.iter().copied().take_while(u8::is_ascii_hexdigit).collect();
        let digits = String::from_utf8(digits).map_err(|_| io::ErrorKind::InvalidData)?;
        let length = u64::from_str_radix(&digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if length > 0 {
            pass(from, to, length.saturating_add(2))?;
            continue;
        }
        loop {
            let mut trailer = Vec::new();
            line(from, &mut trailer)?;
            to.write_all(&trailer)?;
            if trailer.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                return Ok(());
            }
        }
    }
}

/// So many bytes, each as soon as it is there.
fn pass(from: &mut impl BufRead, to: &mut impl io::Write, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let there = from.fill_buf()?;
        if there.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(there.len());
        to.write_all(&there[..count])?;
        from.consume(count);
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(sent: &str) -> String {
        let (mut from, mut to) = (sent.as_bytes(), Vec::new());
        while request(&mut from, &mut to, b"Authorization: Bearer t\r\n").unwrap() {}
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn every_request_of_a_connection_gets_one_line_and_keeps_the_rest() {
        let sent = "POST /mcp HTTP/1.1\r\nhOsT:  x \r\nContent-Length: 4\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let to = through(sent);
        assert_eq!(to.matches("Authorization: Bearer t\r\n").count(), 2);
        assert_eq!(to.replace("Authorization: Bearer t\r\n", ""), sent);
    }

    #[test]
    fn chunks_and_trailers_pass_as_they_are() {
        let sent = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nGET /\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let to = through(sent);
        assert_eq!(to.matches("Authorization").count(), 2);
        assert_eq!(to.replace("Authorization: Bearer t\r\n", ""), sent);
    }

    #[test]
    fn who_presents_something_is_left_to_it() {
        let sent = "GET / HTTP/1.1\r\nauthorization: Basic x\r\n\r\n";
        assert_eq!(through(sent), sent);
    }
}
