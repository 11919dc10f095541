//! At rest nothing is written.
use std::time::{Duration, Instant};

use behalf_e2e::until;

use super::api::Api;
use super::feed_scene::{identity, programmed, settled};
use super::operator_audit::{Audit, short};

/// Several periods of the feed, of its ledger and of every look at what may have drifted within a minute.
const WINDOW: Duration = Duration::from_secs(40);

#[test]
fn at_rest_the_operator_writes_nothing_while_pods_report() {
    let api = Api::open();
    let _three = api.world.replicas(3).unwrap();
    programmed(&api);
    // What the calls of earlier tests left to be counted and told.
    settled("the status is settled", Duration::from_secs(15), || identity(&api)["status"].clone());
    let (audit, began) = (Audit::from_now(&api), Instant::now());
    let before = identity(&api)["status"].clone();
    let watched = until("the window is over, or something was written", WINDOW * 2, || {
        let writes = audit.writes();
        Ok((began.elapsed() >= WINDOW || !writes.is_empty()).then_some(writes))
    });
    let writes: Vec<String> = watched.unwrap().iter().map(short).collect();
    assert!(writes.is_empty(), "{} writes within {WINDOW:?}:\n{}", writes.len(), writes.join("\n"));
    let asked = audit.requests();
    assert!(asked > 0, "the log would show the operator: it renews its Lease and has tokens reviewed");
    assert_eq!(identity(&api)["status"], before);
    eprintln!(
        "{WINDOW:?} at rest with 3 pods reporting: {asked} requests of the operator, 0 writes beside its Lease"
    );
}
