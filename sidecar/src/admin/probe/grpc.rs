//! The standard health check of gRPC (`grpc.health.v1`), as kubelet asks it: without TLS, one question, one answer.
//!
//! One string goes out and one number comes back, so the two messages are written and read by hand.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// An answer is a few bytes; what is longer is none.
const LONGEST_ANSWER: usize = 4096;
/// Flag and length before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Whether the server on this port of loopback says that `service` is being served. Anything but that, said or not, is no.
pub(super) async fn is_serving(port: u16, service: &str) -> bool {
    ask(port, service).await == Some(SERVING)
}

async fn ask(port: u16, service: &str) -> Option<u64> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    // Ends with this question, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::post(format!("http://127.0.0.1:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, super::USER_AGENT)
        .body(Full::new(question(service)?))
        .ok()?;
    let response = sender.send_request(request).await.ok()?;
    if response.status() != StatusCode::OK {
        return None;
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.ok()?;
    // Without a message the status stands among the headers.
    let succeeded = |headers: &HeaderMap| headers.get("grpc-status").is_some_and(|status| status == "0");
    if !body.trailers().map_or_else(|| succeeded(&head.headers), succeeded) {
        return None;
    }
    answer(&body.to_bytes())
}

/// `HealthCheckRequest { string service = 1; }`.
fn question(service: &str) -> Option<Bytes> {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(u8::try_from(length & 0x7f).ok()? | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).ok()?);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.put(message);
    Some(framed.freeze())
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: the status; 0 (unknown) if none is said. None if this is no such message.
fn answer(framed: &[u8]) -> Option<u64> {
    let (prefix, mut message) = framed.split_at_checked(PREFIX)?;
    let (flag, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *flag != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let (field, wire_type) = (tag >> 3, tag & 7);
        let skipped = match wire_type {
            0 => {
                let value = varint(&mut message)?;
                if field == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(question("").unwrap(), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(question("hr").unwrap(), Bytes::from_static(&[0, 0, 0, 0, 4, 0x0a, 2, b'h', b'r']));
        let long = question(&"a".repeat(300)).unwrap();
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn an_answer_is_its_status_and_what_is_none_is_refused() {
        for (message, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            // Fields of tomorrow are passed over; the last status counts.
            (&[0, 0, 0, 0, 8, 0x12, 1, b'x', 8, 2, 0x18, 9, 8], None),
            (&[0, 0, 0, 0, 7, 0x12, 1, b'x', 8, 2, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 7, 0x1d, 1, 2, 3, 4, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 11, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1], Some(1)),
            (&[], None),
            (&[0, 0, 0, 0], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 1, 8, 1], None),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0, 0, 2, 0x12, 9], None),
            (&[0, 0, 0, 0, 2, 0x0b, 0], None),
            (&[0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], None),
        ] {
            assert_eq!(answer(message), status, "{message:?}");
        }
    }
}
