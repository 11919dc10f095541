//! Requests behind each other and in pieces: how a stream of them is read does not depend on the network.

use std::time::Duration;

use behalf_policy::framing::Framing;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::raw::talk;
use crate::tap::Tap;
use crate::world::World;

#[tokio::test]
async fn d17_a_doubt_is_answered_and_recorded_wherever_the_network_cuts_the_head() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    let head = format!(
        "GET /payroll/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        alice.as_str()
    );
    for (n, cut) in [1, 5, 24, 25, 60, head.len() - 4, head.len() - 3, head.len() - 2, head.len() - 1]
        .into_iter()
        .enumerate()
    {
        let mut stream = TcpStream::connect(world.egress).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&head.as_bytes()[..cut]).await.unwrap();
        // The other side has a turn before the rest comes.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        stream.write_all(&head.as_bytes()[cut..]).await.unwrap();
        let mut came = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut came)).await;
        assert!(
            read.is_ok() && came.starts_with(b"HTTP/1.1 400 "),
            "{cut}: {}",
            String::from_utf8_lossy(&came)
        );
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while world.records().await.len() <= n {
            assert!(tokio::time::Instant::now() < deadline, "a record: {cut}");
            tokio::task::yield_now().await;
        }
        assert_eq!(world.last().await["reason"], "FramingLengthAndCoding", "{cut}");
    }
    assert!(tap.all().0.is_empty());
}

#[tokio::test]
async fn d17_of_requests_behind_each_other_those_before_the_doubt_are_carried() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    let get = |path: &str, extra: &str| {
        format!(
            "GET /payroll/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{extra}\r\n",
            alice.as_str()
        )
    };
    let bytes = [get("1", ""), get("2", ""), get("3", "X : y\r\n"), get("4", "")].concat();
    let came = String::from_utf8_lossy(&talk(&world, &bytes).await).into_owned();
    let statuses: Vec<_> = came.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{came}");
    let lines: Vec<_> = tap.all().0.iter().map(|t| t.line().to_owned()).collect();
    assert_eq!(lines, ["GET /api/1 HTTP/1.1", "GET /api/2 HTTP/1.1"]);
}

/// Whatever bytes come: no more requests leave than have one reading.
#[tokio::test]
async fn d17_no_stream_becomes_more_requests_than_it_has_in_one_reading() {
    let tap = Tap::start().await;
    let world = World::with(tap.downstream()).await;
    let alice = world.open("alice");
    let good = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", alice.as_str());
    let line = format!("POST /payroll/n HTTP/1.1\r\n{good}");
    let chunked = format!("{line}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let sized = format!("{line}Content-Length: 3\r\n\r\nabc");
    let bare = format!("{line}\r\n");
    let parts = [
        line.as_str(),
        &bare,
        &sized,
        &chunked,
        &sized,
        &bare,
        "\r\n",
        "\n",
        "\r",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "3\r\n",
        "abc",
        "0\r\n",
        "0\r\n\r\n",
        "X: y\r\n",
        " ",
        "\0",
        ";a=b",
    ];
    // A sequence that is the same on every machine.
    let mut state = 0x2545_f491_u32;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).unwrap() % below
    };
    let (mut carried, mut refused) = (0, 0);
    for n in 0..300 {
        let stream: String = (0..=next(5)).map(|_| parts[next(parts.len())]).collect();
        let mut framing = Framing::requests();
        refused += usize::from(framing.follow(stream.as_bytes()).is_err());
        let most = usize::try_from(framing.heads()).unwrap();
        let before = tap.all().0.len();
        let mut connection = TcpStream::connect(world.egress).await.unwrap();
        let _ = connection.write_all(stream.as_bytes()).await;
        let _ = connection.shutdown().await;
        let mut came = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), connection.read_to_end(&mut came)).await;
        assert!(read.is_ok(), "{n}: the connection ends: {stream:?}");
        let new = tap.all().0.len() - before;
        assert!(new <= most, "{n}: {new} requests of {most} left: {stream:?}");
        carried += new;
    }
    assert!(carried > 50 && refused > 50, "both happen: {carried} carried, {refused} streams refused");
}
