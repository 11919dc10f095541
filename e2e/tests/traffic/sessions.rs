//! Session identity: two people at once on one MCP server, with sessions and without.
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use behalf_e2e::records::header;
use behalf_e2e::world::FOLLOWED;
use behalf_e2e::{ALL_SCOPES, Answer, Token, Undo, World, keycloak, mcp, until};
use serde_json::{Value, json};

/// Calls by each of the two.
const EACH: usize = 100;
/// Clients of each of the two that call at the same time.
const CLIENTS: usize = 2;

/// Whether policy refuses bob's call of `salary.get`; without a session, hence only the sidecar's answer counts.
fn bob_is_refused(world: &World) -> Result<bool> {
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    Ok(mcp::salary(&bob.text, "bob").send(world)?.status == 403)
}

/// Lets bob call `salary.get` too, so that payroll could see the wrong one of two.
fn salaries_for_staff(world: &World) -> Result<Undo<'_>> {
    let follows = |refused: bool| {
        until("the sidecar follows the catalogue", FOLLOWED, || {
            Ok((bob_is_refused(world)? == refused).then_some(()))
        })
    };
    let undo = world.holders("hr:salary:read", &["managers", "staff"])?;
    let undo = Undo::new(move || {
        undo.now()?;
        follows(true)
    });
    follows(false)?;
    Ok(undo)
}

/// One client's calls, each answered for its own person or refused. Gives the hashes of the tokens that payroll saw.
fn client(world: &World, token: &Token, sessions: bool, count: usize) -> Result<Vec<Option<String>>> {
    let subject = token.subject()?;
    let session = if sessions { Some(mcp::open_session(world, &token.text)?) } else { None };
    let one = || -> Result<Answer> {
        let request = mcp::salary(&token.text, "carol");
        match &session {
            Some(id) => request.header("Mcp-Session-Id", id).send(world),
            None => request.send(world),
        }
    };
    let mut hashes = Vec::new();
    for _ in 0..count {
        let answer = one()?;
        let Some(saw) = answer.saw() else {
            hashes.push(None);
            continue;
        };
        if saw["status"] == 200 {
            ensure!(saw["sub"] == subject.as_str(), "payroll saw {} for {subject}", saw["sub"]);
            hashes.push(saw["token_sha256"].as_str().map(str::to_owned));
        } else {
            ensure!(saw["sub"].is_null() || saw["sub"] == subject.as_str(), "{saw}");
            hashes.push(None);
        }
    }
    Ok(hashes)
}

/// Alice and bob call at the same time, each through several clients.
fn interleaved(world: &World, sessions: bool) -> Result<()> {
    let _staff = salaries_for_staff(world)?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let seen_before = behalf_e2e::payroll::seen(world)?.len();
    let exchanges_before = keycloak::exchanges(world)?;

    let people = [&alice, &bob];
    let results: Vec<(usize, Vec<Option<String>>)> = thread::scope(|scope| {
        let start =
            |who: usize| (who, scope.spawn(move || client(world, people[who], sessions, EACH / CLIENTS)));
        let running: Vec<_> = (0..CLIENTS * people.len()).map(|n| start(n % people.len())).collect();
        let ended = running
            .into_iter()
            .map(|(who, thread)| Ok((who, thread.join().map_err(|_| anyhow!("a client panicked"))??)));
        ended.collect::<Result<_>>()
    })?;

    // Payroll as the oracle: every token it saw belongs to one person, and no other way around.
    let mut owners: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut refused = 0;
    let mut served = [0; 2];
    for (who, hashes) in &results {
        for hash in hashes {
            match hash {
                Some(hash) => {
                    served[*who] += 1;
                    owners.entry(hash).or_default().insert(*who);
                }
                None => refused += 1,
            }
        }
    }
    assert!(owners.values().all(|who| who.len() == 1), "one token served two people: {owners:?}");
    assert_eq!(served.iter().sum::<usize>() + refused, 2 * EACH);
    eprintln!("sessions: {sessions}; served {served:?}, refused {refused}");
    assert!(served.iter().all(|n| *n == EACH), "served {served:?}, refused {refused}");

    let subjects = [alice.subject()?, bob.subject()?];
    let seen = behalf_e2e::payroll::seen(world)?;
    let new = seen.get(seen_before..).context("payroll was started again")?;
    for (who, subject) in subjects.iter().enumerate() {
        assert_eq!(new.iter().filter(|saw| saw["sub"] == subject.as_str()).count(), served[who]);
    }
    // One exchange for each token, however many clients asked at once.
    assert_eq!(owners.len(), 2, "{owners:?}");
    assert_eq!(keycloak::exchanges(world)? - exchanges_before, 2);
    Ok(())
}

#[test]
fn two_people_at_once_without_sessions_are_never_mixed() -> Result<()> {
    interleaved(World::get()?, false)
}

#[test]
fn two_people_at_once_with_sessions_are_never_mixed() -> Result<()> {
    let world = World::get()?;
    let _mode = world.stateless(false)?;
    interleaved(world, true)
}

fn initialize(token: &str) -> behalf_e2e::Request {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "e2e", "version": "1"}});
    mcp::request("initialize", &params).bearer(token)
}

/// The server gets nothing with which it could call on, when a session is opened or tools are listed.
fn buys_nothing(world: &World) -> Result<()> {
    let pod = world.pod()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let exchanges = keycloak::exchanges(world)?;
    let mark = keycloak::sha256(&alice.text);
    let opened = initialize(&alice.text).header("X-E2e-Mark", &mark).send(world)?;
    assert_eq!(opened.status, 200, "{opened:?}");
    let record = pod.record_of(&opened)?;
    assert_eq!((&record["decision"], &record["exchange"]), (&json!("Permit"), &Value::Null));
    let mut next = vec![
        mcp::request("tools/list", &json!({})),
        mcp::request("ping", &json!({})),
        mcp::call("directory.search", &json!({"query": "bob"})),
    ];
    for request in &mut next {
        *request = request.clone().bearer(&alice.text).header("X-E2e-Mark", &mark);
        if let Some(session) = opened.header("mcp-session-id") {
            *request = request.clone().header("Mcp-Session-Id", session);
        }
        let answer = request.send(world)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        pod.record_of(&answer)?;
    }
    let requests = pod.requests()?;
    let marked: Vec<_> = requests.iter().filter(|r| header(r, "x-e2e-mark") == Some(&mark)).collect();
    assert_eq!(marked.len(), 4, "{marked:?}");
    for request in marked {
        assert_eq!(header(request, "authorization"), None, "{request}");
        assert!(!request.to_string().contains("behalf_"), "{request}");
    }
    assert_eq!(keycloak::exchanges(world)?, exchanges);
    Ok(())
}

#[test]
fn c26_initialize_and_lists_buy_nothing() -> Result<()> {
    buys_nothing(World::get()?)
}

#[test]
fn c26_a_session_buys_nothing_and_is_nobody_elses() -> Result<()> {
    let world = World::get()?;
    let _mode = world.stateless(false)?;
    buys_nothing(world)?;

    let pod = world.pod()?;
    let alice = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let bob = keycloak::login(world, "agent-test", "bob", ALL_SCOPES)?;
    let session = mcp::open_session(world, &alice.text)?;
    let search = mcp::call("directory.search", &json!({"query": "bob"})).header("Mcp-Session-Id", &session);
    // A session id is no credential: not without a token, not with another person's.
    let anonymous = search.send(world)?;
    assert_eq!((anonymous.status, anonymous.reason().as_deref()), (401, Some("NoCredentials")));
    let foreign = search.clone().bearer(&bob.text).send(world)?;
    assert_eq!((foreign.status, foreign.reason().as_deref()), (404, Some("SessionUnknown")));
    assert_eq!(pod.record_of(&foreign)?["reason"], "SessionOfAnotherPrincipal");
    let unknown = mcp::call("directory.search", &json!({"query": "bob"})).header("Mcp-Session-Id", "made-up");
    assert_eq!(unknown.bearer(&alice.text).send(world)?.status, 404);
    assert_eq!(search.bearer(&alice.text).send(world)?.status, 200, "alice's session is still hers");
    Ok(())
}
