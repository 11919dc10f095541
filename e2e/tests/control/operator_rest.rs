//! At rest nothing is written.
use std::time::{Duration, Instant};

use behalf_e2e::until;

use super::api::Api;
use super::feed_scene::{identity, programmed};
use super::operator_audit::{Audit, short};

/// Several periods of the feed, of its ledger and of every look at what may have drifted within a minute.
const WINDOW: Duration = Duration::from_secs(40);
/// What earlier tests left to be counted and told comes within this.
const SETTLED: Duration = Duration::from_secs(45);

#[test]
fn at_rest_the_operator_writes_nothing_while_pods_report() {
    let api = Api::open();
    let _three = api.world.replicas(3).unwrap();
    programmed(&api);
    let (mut audit, mut began) = (Audit::from_now(&api), Instant::now());
    let mut before = identity(&api)["status"].clone();
    let deadline = Instant::now() + WINDOW + SETTLED;
    until("the window is over", WINDOW + SETTLED, || {
        let writes: Vec<String> = audit.writes().iter().map(short).collect();
        if writes.is_empty() {
            return Ok((began.elapsed() >= WINDOW).then_some(()));
        }
        // It begins anew.
        let again = Instant::now() + WINDOW;
        assert!(again < deadline, "{} writes within {WINDOW:?}:\n{}", writes.len(), writes.join("\n"));
        (audit, began, before) = (Audit::from_now(&api), Instant::now(), identity(&api)["status"].clone());
        Ok(None)
    })
    .unwrap();
    let asked = audit.requests();
    assert!(asked > 0, "the log would show the operator: it renews its Lease and has tokens reviewed");
    assert_eq!(identity(&api)["status"], before);
    eprintln!(
        "{WINDOW:?} at rest with 3 pods reporting: {asked} requests of the operator, 0 writes beside its Lease"
    );
}
