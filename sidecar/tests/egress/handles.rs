//! What a handle is worth, and when it is worth nothing.

use behalf_policy::ids::Timestamp;
use behalf_sidecar::handles::{HandleRefusal, Handles, MAX_LIFE, OpenHandle, is_handle_shaped};

use crate::idp::{NOW, call, caller};

fn at(seconds: i64) -> Timestamp {
    Timestamp(NOW + seconds)
}

#[test]
fn b29_a_handle_lives_as_long_as_its_call() {
    let handles = Handles::new();
    let open = handles.open(call(&caller("alice"), "t")).unwrap();
    assert!(is_handle_shaped(open.as_str()));
    let text = open.as_str().to_owned();
    assert_eq!(handles.redeem(&text, at(0)).unwrap().caller.subject.as_str(), "alice");
    handles.redeem(&text, at(1)).unwrap();
    handles.check(&text, at(1)).unwrap();
    assert_eq!((open.uses(), handles.len()), (2, 1));
    drop(open);
    assert_eq!(handles.redeem(&text, at(1)).unwrap_err(), HandleRefusal::UnknownHandle);
    assert!(handles.is_empty());
}

#[test]
fn b29_a_handle_ends_with_the_callers_token_and_after_ten_minutes() {
    let handles = Handles::new();
    let short = handles.open(call(&caller("alice"), "t")).unwrap();
    handles.redeem(short.as_str(), at(299)).unwrap();
    assert_eq!(handles.redeem(short.as_str(), at(300)).unwrap_err(), HandleRefusal::HandleExpired);
    let mut long = caller("alice");
    long.expires = at(36_000);
    let long = handles.open(call(&long, "t")).unwrap();
    handles.redeem(long.as_str(), at(i64::from(MAX_LIFE) - 1)).unwrap();
    let late = handles.redeem(long.as_str(), at(i64::from(MAX_LIFE)));
    assert_eq!(late.unwrap_err(), HandleRefusal::HandleExpired);
}

#[test]
fn b29_made_up_ended_and_foreign_handles_are_one() {
    let handles = Handles::new();
    let open = handles.open(call(&caller("alice"), "t")).unwrap();
    let foreign = Handles::new().open(call(&caller("alice"), "t")).unwrap().as_str().to_owned();
    let upper = open.as_str().to_uppercase();
    let cut = open.as_str()[..open.as_str().len() - 1].to_owned();
    for text in
        [foreign.as_str(), "behalf_AAAAAAAAAAAAAAAAAAAAAA", "x", &upper, &cut, &format!("{} ", open.as_str())]
    {
        assert_eq!(handles.redeem(text, at(0)).unwrap_err(), HandleRefusal::UnknownHandle);
    }
    assert_eq!(handles.redeem("", at(0)).unwrap_err(), HandleRefusal::NoHandle);
}

#[test]
fn handles_are_all_different_and_bounded_in_number() {
    let handles = Handles::new();
    let caller = caller("alice");
    let mut open = Vec::new();
    let refused = loop {
        match handles.open(call(&caller, "t")) {
            Ok(handle) => open.push(handle),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.reason(), "TooManyOpenCalls");
    let texts: std::collections::BTreeSet<_> = open.iter().map(OpenHandle::as_str).collect();
    assert_eq!(texts.len(), open.len());
    open.pop();
    handles.open(call(&caller, "t")).unwrap();
}

#[test]
fn a30_nothing_prints_a_handle_or_token() {
    let handles = Handles::new();
    let call = call(&caller("alice"), "a-secret-token");
    assert!(!format!("{call:?}").contains("secret"));
    let open = handles.open(call).unwrap();
    assert!(!format!("{open:?}").contains(open.as_str()));
}
