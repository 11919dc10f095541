//! HTTP/2 used against us: a connection that only makes work is ended, and everybody else is served meanwhile (D18).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Call, World};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` by the static table of HPACK, with an authority as it stands.
fn request() -> Vec<u8> {
    [&[0x82, 0x84, 0x86, 0x01, 14][..], b"hr.example.com"].concat()
}

/// What came back, as kinds of frames with the last word of a GOAWAY; and whether the connection was ended.
struct Ended {
    goaway: Option<u32>,
    closed: bool,
}

/// Sends pieces until they are all gone or nobody takes them any more, and reads until the other side is done.
async fn flood(world: &World, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Ended {
    let stream = TcpStream::connect(world.app.addresses.inbound).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent = tokio::spawn(async move {
        let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for piece in std::iter::once(opening).chain(pieces) {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
        }
        // Not the end of the stream, which would end the connection by itself.
        std::future::pending::<()>().await;
    });
    let (mut bytes, mut closed) = (Vec::new(), false);
    let mut buffer = [0; 16 * 1024];
    let done = async {
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), done).await.is_ok() {
        closed = true;
    }
    sent.abort();
    let mut rest = bytes.as_slice();
    let mut goaway = None;
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = after.get(..length).unwrap_or_default();
        if let (GOAWAY, Some(code)) = (head[3], payload.get(4..8)) {
            goaway = Some(u32::from_be_bytes(code.try_into().unwrap()));
        }
        rest = after.get(length..).unwrap_or_default();
    }
    Ended { goaway, closed }
}

/// Others are served while and after somebody floods.
async fn ends(name: &str, pieces: impl Iterator<Item = Vec<u8>> + Send + 'static) {
    let world = World::start().await;
    let alice = world.alice();
    let (ended, ()) = tokio::join!(flood(&world, pieces), async {
        for _ in 0..5 {
            let answer = world.send(Call::tool("directory.search").token(&alice)).await;
            assert_eq!(answer.status, 200, "{name}: a neighbour is not served");
        }
    });
    assert!(ended.closed, "{name}: the connection goes on");
    // ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR or FRAME_SIZE_ERROR: which, is the library's.
    assert!(ended.goaway.is_none_or(|code| code != 0), "{name}: ended as if nothing was");
    assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 200);
    assert_eq!(world.server.seen().len(), 6, "{name}: the server heard of it");
}

fn streams() -> impl Iterator<Item = u32> {
    (0..5_000).map(|n| 2 * n + 1)
}

/// CVE-2023-44487 and its kin: streams that are opened and reset at once.
#[tokio::test]
async fn d18_cve_2023_44487_a_rapid_reset_ends_its_connection() {
    let pieces = streams().map(|stream| {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request());
        [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    Box::pin(ends("rapid reset", pieces)).await;
}

/// CVE-2025-8671: the client makes the server reset, by a window update of nothing. The limit is one of its own, which we
/// set ourselves: that the library's option was wired to another one was h2#856.
#[tokio::test]
async fn d18_cve_2025_8671_made_you_reset_ends_its_connection() {
    let pieces = streams().map(|stream| {
        let open = frame(HEADERS, END_HEADERS, stream, &request());
        [open, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    Box::pin(ends("made you reset", pieces)).await;
}

/// CVE-2024-27316 and RUSTSEC-2024-0332: a header block that never ends.
#[tokio::test]
async fn d18_rustsec_2024_0332_a_flood_of_continuations_ends_its_connection() {
    let open = frame(HEADERS, END_STREAM, 1, &request());
    // A literal without indexing: name `x`, and a value as long as a frame allows.
    let long = [&[0x00, 0x01, b'x', 0x7f, 0x80, 0x7c][..], &[b'a'; 15_999]].concat();
    let more = (0..5_000).map(move |_| frame(CONTINUATION, 0, 1, &long));
    Box::pin(ends("continuations", std::iter::once(open).chain(more))).await;
}

/// What must be answered is answered, and nothing more: a flood of it neither ends nor starves anybody.
#[tokio::test]
async fn d18_pings_and_settings_starve_nobody() {
    let world = World::start().await;
    let alice = world.alice();
    let stream = TcpStream::connect(world.app.addresses.inbound).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        let mut pieces = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        loop {
            if writer.write_all(&pieces).await.is_err() {
                return;
            }
            pieces = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(100);
        }
    });
    let drained = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    for _ in 0..20 {
        assert_eq!(world.send(Call::tool("directory.search").token(&alice)).await.status, 200);
    }
    flood.abort();
    drained.abort();
    assert_eq!(world.server.seen().len(), 20);
}
