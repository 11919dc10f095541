//! Rate limits: buckets are exact, whose bucket it is, and a limit only ever takes away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the whole crate is a test")]

mod support;

use behalf_policy::bundle::{Bundle, LoadError, Stage, State};
use behalf_policy::claims::Actor;
use behalf_policy::decide::{Operation, decide, decide_metered};
use behalf_policy::decision::{Decision, Reason};
use behalf_policy::ids::{ClientId, Issuer, Subject, ToolName};
use behalf_policy::rate::{Bucket, MAX_LIMITS, MAX_PERIOD, MAX_REQUESTS, Per, Rate, RateLimit};
use proptest::prelude::*;
use support::*;

fn limit(per: Per) -> RateLimit {
    RateLimit { name: name("burst"), per, requests: 3, period: 60, tools: [].into() }
}

/// Lets calls through at these moments, milliseconds; which of them passed.
fn passed(rate: Rate, moments: &[i64]) -> Vec<bool> {
    let mut bucket = Bucket::full(rate, moments.first().copied().unwrap_or(0));
    let one = |moment: &i64| {
        bucket = bucket.at(rate, *moment);
        let less = bucket.less_one(rate);
        bucket = less.unwrap_or(bucket);
        less.is_ok()
    };
    moments.iter().map(one).collect()
}

#[test]
fn a_burst_is_let_through_and_then_one_at_a_time_to_the_millisecond() {
    let rate = Rate { requests: 3, period: 60 };
    assert_eq!(
        passed(rate, &[0, 0, 0, 0, 19_999, 20_000, 20_000, 40_000]),
        [true, true, true, false, false, true, false, true]
    );
    // A minute later it is full again, and not fuller than full.
    assert_eq!(
        passed(rate, &[0, 0, 0, 900_000, 900_000, 900_000, 900_000]),
        [true, true, true, true, true, true, false]
    );
    let empty = (0..3).fold(Bucket::full(rate, 0), |bucket, _| bucket.less_one(rate).unwrap());
    assert_eq!(empty.less_one(rate), Err(20_000));
    assert_eq!(empty.at(rate, 1).less_one(rate), Err(19_999));
    assert_eq!(empty.at(rate, -50_000).less_one(rate), Err(20_000), "a clock that goes back fills nothing");
    assert_eq!(
        empty.at(rate, -50_000).at(rate, -30_000).less_one(rate).map(|_| ()),
        Ok(()),
        "and stops nothing"
    );
    assert!(empty.at(rate, i64::MAX).is_full(rate));
    // Without a share nothing passes; a greater one fills in time, a smaller one at once.
    let none = Rate { requests: 0, ..rate };
    assert_eq!(Bucket::full(none, 0).less_one(none), Err(60_000));
    let more = Rate { requests: 30, ..rate };
    assert_eq!(empty.at(more, 0).less_one(more), Err(2000));
    let one = Rate { requests: 1, ..rate };
    let shrunk = Bucket::full(rate, 0).at(one, 0).less_one(one).unwrap();
    assert_eq!(shrunk.less_one(one), Err(60_000));
    let odd = Rate { requests: 7, period: 1 };
    let odd_empty = (0..7).fold(Bucket::full(odd, 0), |bucket, _| bucket.less_one(odd).unwrap());
    assert_eq!(odd_empty.less_one(odd), Err(143), "rounded up, so that whoever waits finds a call");
    assert!(odd_empty.at(odd, 143).less_one(odd).is_ok());
}

#[test]
fn whose_bucket_it_is() {
    let bundle = bundle(policy_document());
    let policy = policy(&bundle);
    let alice = alice(&["hr:read"]);
    let mut same = alice.clone();
    same.groups = groups(&["staff"]);
    let mut other_provider = alice.clone();
    other_provider.provider = name("other");
    let mut other_client = alice.clone();
    other_client.client = Some(ClientId::new("agent-x").unwrap());
    let actor = |client: Option<&str>, issuer: Option<&str>| {
        let mut caller = other_client.clone();
        caller.actors = vec![Actor {
            subject: Some(Subject::new("robot").unwrap()),
            issuer: issuer.map(|it| Issuer::new(it).unwrap()),
            client: client.map(|it| ClientId::new(it).unwrap()),
        }];
        caller
    };
    let bob = bob(&["hr:read"]);
    let tool = Operation::CallTool("salary.get");
    let key = |per, caller: &behalf_policy::claims::Caller, operation| {
        let key = limit(per).key(policy, caller, operation);
        key.map(|key| key.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    for (per, a, b, one) in [
        (Per::Identity, &alice, &bob, true),
        (Per::Subject, &alice, &same, true),
        (Per::Subject, &alice, &other_client, true),
        (Per::Subject, &alice, &bob, false),
        (Per::Subject, &alice, &other_provider, false),
        (Per::Agent, &alice, &bob, true),
        (Per::Agent, &alice, &other_client, false),
        (Per::Agent, &alice, &other_provider, false),
        (Per::Agent, &alice, &actor(Some("agent-ui"), None), true),
        (Per::Agent, &alice, &actor(Some("agent-ui"), Some("https://elsewhere.example.com")), false),
        (Per::Agent, &alice, &actor(None, None), false),
        (Per::Tool, &alice, &bob, true),
    ] {
        assert_eq!(key(per, a, tool) == key(per, b, tool), one, "{per:?} {a:?} {b:?}");
    }
    assert_ne!(key(Per::Tool, &alice, tool), key(Per::Tool, &alice, Operation::CallTool("leave.list")));
    let made_up = |name| key(Per::Tool, &alice, Operation::CallTool(name));
    assert!(made_up("made.up").is_some() && made_up("made.up") == made_up("made.up.too"));
    assert_eq!(key(Per::Tool, &alice, Operation::Protocol), None);
    assert_eq!(key(Per::Subject, &alice, Operation::Other), key(Per::Subject, &alice, tool));
    let narrowed = RateLimit { tools: [ToolName::new("leave.list").unwrap()].into(), ..limit(Per::Subject) };
    assert_eq!(narrowed.key(policy, &alice, tool), None);
    assert_eq!(narrowed.key(policy, &alice, Operation::Protocol), None);
    assert!(narrowed.key(policy, &alice, Operation::CallTool("leave.list")).is_some());
}

#[test]
fn a_limit_out_of_bounds_is_no_bundle() {
    type Change<'a> = &'a dyn Fn(&mut Vec<RateLimit>);
    let load = |change: &dyn Fn(&mut Vec<RateLimit>)| {
        let mut policy = policy_document();
        policy.rate_limits = vec![limit(Per::Subject)];
        change(&mut policy.rate_limits);
        Bundle::load(document(policy), String::new())
    };
    assert_eq!(load(&|_| {}).unwrap().policy().unwrap().rate_limits, [limit(Per::Subject)]);
    let bounds: [Change<'_>; 5] = [
        &|limits| limits[0].requests = 0,
        &|limits| limits[0].requests = MAX_REQUESTS + 1,
        &|limits| limits[0].period = 0,
        &|limits| limits[0].period = MAX_PERIOD + 1,
        &|limits| limits.resize(MAX_LIMITS + 1, limit(Per::Tool)),
    ];
    for change in bounds {
        assert!(matches!(load(change), Err(LoadError::Bounds(_))));
    }
    assert!(matches!(load(&|limits| limits.push(limit(Per::Tool))), Err(LoadError::Duplicate(_))));
}

#[test]
fn what_is_refused_however_many_calls_are_left_asks_no_limit() {
    let alice = alice(&["hr:read", "hr:salary:read"]);
    let tool = Operation::CallTool("salary.get");
    let ask = |change: &dyn Fn(&mut behalf_policy::bundle::document::PolicyDocument), now| {
        let mut policy = policy_document();
        change(&mut policy);
        let mut asked = 0;
        let decision = decide_metered(&bundle(policy), &alice, tool, now, |_| {
            asked += 1;
            false
        });
        (decision.as_str(), decision.refusal().unwrap().reason, asked)
    };
    assert_eq!(ask(&|_| {}, NOW), ("Refuse", Reason::RateLimited, 1));
    assert_eq!(ask(&|p| p.stage = Stage::Audit, NOW), ("WouldDeny", Reason::RateLimited, 1));
    assert_eq!(ask(&|p| p.state = State::Suspended, NOW), ("Refuse", Reason::Suspended, 0));
    assert_eq!(ask(&|_| {}, alice.expires), ("Refuse", Reason::SubjectExpired, 0));
    // Before method and tool: whether a call is allowed is not told to whoever has none left.
    assert_eq!(ask(&|p| p.servers[0].tools.clear(), NOW), ("Refuse", Reason::RateLimited, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_no_span_of_time_pass_more_than_the_burst_and_what_came_back(
        requests in 1..20_u32, period in 1..30_u32,
        steps in proptest::collection::vec(0..3000_i64, 1..200),
    ) {
        let moments: Vec<i64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
        let rate = Rate { requests, period };
        let passed = passed(rate, &moments);
        let times: Vec<i64> = moments.iter().zip(&passed).filter(|(_, ok)| **ok).map(|(at, _)| *at).collect();
        for (from, first) in times.iter().enumerate() {
            for (until, last) in times.iter().enumerate().skip(from) {
                let (calls, span) = ((until - from + 1) as u64, (last - first).unsigned_abs());
                let back = span * u64::from(requests) / (u64::from(period) * 1000);
                prop_assert!(calls <= u64::from(requests) + back, "{calls} in {span} ms");
            }
        }
    }

    #[test]
    fn whoever_comes_back_when_told_is_let_through_and_not_before(
        requests in 1..2000_u32, period in 1..=MAX_PERIOD, used in 0..3000_u32, later in 0..100_000_i64,
    ) {
        let rate = Rate { requests, period };
        let mut bucket = Bucket::full(rate, 0);
        for _ in 0..used {
            bucket = bucket.less_one(rate).unwrap_or(bucket);
        }
        let bucket = bucket.at(rate, later);
        if let Err(wait) = bucket.less_one(rate) {
            prop_assert!(wait > 0 && wait <= u64::from(period) * 1000);
            let wait = i64::try_from(wait).unwrap();
            prop_assert!(bucket.at(rate, later + wait).less_one(rate).is_ok());
            prop_assert!(bucket.at(rate, later + wait - 1).less_one(rate).is_err());
        }
    }

    #[test]
    fn adding_a_limit_never_permits_what_was_refused(
        tool in proptest::sample::select(vec!["directory.search", "leave.list", "salary.get", "salary.update", "none"]),
        presents in proptest::sample::subsequence(vec!["hr:read", "hr:leave:read", "hr:salary:read"], 0..=3),
        groups in proptest::sample::subsequence(vec!["staff", "managers"], 0..=2),
        left in any::<bool>(), audit in any::<bool>(), per in proptest::sample::select(vec![Per::Identity, Per::Tool]),
    ) {
        let mut without = policy_document();
        without.stage = if audit { Stage::Audit } else { Stage::Enforce };
        let mut with = without.clone();
        with.rate_limits = vec![limit(per)];
        let caller = caller("alice", &groups, &presents);
        let before = decide(&bundle(without), &caller, Operation::CallTool(tool), NOW);
        let after = decide_metered(&bundle(with), &caller, Operation::CallTool(tool), NOW, |_| left);
        prop_assert!(!matches!(after, Decision::Permit(_)) || (left && matches!(before, Decision::Permit(_))));
        prop_assert!(!left || after == before);
    }
}
