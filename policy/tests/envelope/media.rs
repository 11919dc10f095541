use behalf_policy::envelope::{EnvelopeReason, HeaderField, MediaView, check_media};

const BOTH: &str = "application/json, text/event-stream";

fn check(content_type: &str, encoding: HeaderField<'_>, accept: &str) -> Result<(), EnvelopeReason> {
    let media = MediaView {
        content_type: HeaderField::once(content_type),
        content_encoding: encoding,
        accept: Some(accept),
    };
    check_media(&media).map_err(|e| e.reason())
}

#[test]
fn c22_d25_the_body_is_json_in_utf_8() {
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/json-rpc",
        "text/json",
        "application",
        "application/",
        "application/json, text/plain",
        "json",
        "application/json; charset=utf-16",
        "application/json; charset=utf-16le",
        "application/json; charset=UTF-7",
        "application/json;charset=latin1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-8",
        "application/json; charset=\"utf-16\"",
        "application/json; charset=",
        "application/json; charset",
        "text/plain; x=application/json",
        "application/json; CHARSET=utf-32",
        "application/cloudevents+json",
        "*/*",
    ] {
        assert_eq!(
            check(content_type, HeaderField::default(), BOTH),
            Err(EnvelopeReason::UnsupportedMediaType),
            "{content_type}"
        );
    }
    for content_type in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json; charset=\"utf-8\"",
        " application/json ; charset=utf-8",
        "application/json; profile=x",
        "application/json;",
    ] {
        assert_eq!(check(content_type, HeaderField::default(), BOTH), Ok(()), "{content_type}");
    }
    for content_type in [
        HeaderField::default(),
        HeaderField { value: None, count: 1 },
        HeaderField { value: Some("application/json"), count: 2 },
    ] {
        let error =
            check_media(&MediaView { content_type, accept: Some(BOTH), ..MediaView::default() }).unwrap_err();
        assert_eq!((error.reason(), error.http_status()), (EnvelopeReason::UnsupportedMediaType, 415));
    }
}

#[test]
fn d25_an_encoded_body_is_refused() {
    for encoding in [
        "gzip",
        "br",
        "zstd",
        "deflate",
        "x-gzip",
        "identity, gzip",
        "gzip, identity",
        "",
        "utf-8",
        "aes128gcm",
    ] {
        assert_eq!(
            check("application/json", HeaderField::once(encoding), BOTH),
            Err(EnvelopeReason::UnsupportedEncoding),
            "{encoding}"
        );
    }
    let twice = HeaderField { value: Some("identity"), count: 2 };
    assert_eq!(check("application/json", twice, BOTH), Err(EnvelopeReason::UnsupportedEncoding));
    assert_eq!(check("application/json", HeaderField::once("Identity"), BOTH), Ok(()));
}

#[test]
fn c22_both_kinds_of_answer_are_accepted() {
    for accept in [
        "",
        "application/json",
        "text/event-stream",
        "text/*",
        "application/*",
        "text/html",
        "application/json;q=0, */*;q=0",
        "application/json, text/event-stream;q=0",
        "application/json;q=0.0, text/event-stream",
        "*",
        "json, event-stream",
        "applicationjson,text/event-stream",
        "application/json text/event-stream",
    ] {
        assert_eq!(
            check("application/json", HeaderField::default(), accept),
            Err(EnvelopeReason::NotAcceptable),
            "{accept}"
        );
    }
    for accept in [
        BOTH,
        "text/event-stream,application/json",
        "*/*",
        "application/*, text/*",
        "Application/JSON;q=0.1 , Text/Event-Stream",
        "text/html, */*;q=0.1",
    ] {
        assert_eq!(check("application/json", HeaderField::default(), accept), Ok(()), "{accept}");
    }
}
