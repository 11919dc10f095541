//! The webhook's certificate and the authority that the API server trusts it by: renewed, expired, altered by hand.
//! All the time somebody makes pods: each is injected or refused, and while nothing is broken none is refused.
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::pods::server;
use super::scene::{enrolled, injecting};

const CONFIGURATION: &str = "mutatingwebhookconfiguration/behalf-injector";

/// What came of pods that were made one after the other.
#[derive(Debug, Default)]
struct Made {
    injected: usize,
    bare: Vec<String>,
    refused: Vec<String>,
}

/// Makes pods all the time that something else is done; the server judges them and stores none.
fn meanwhile(api: &Api, action: impl FnOnce()) -> Made {
    let (made, over) = (Mutex::new(Made::default()), AtomicBool::new(false));
    let pod = server(api);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let answer = api.try_create(&pod);
                    let mut made = made.lock().unwrap();
                    match answer {
                        Ok(pod) if pod["spec"]["initContainers"][1]["name"] == "behalf-sidecar" => {
                            made.injected += 1
                        }
                        Ok(pod) => made.bare.push(pod.to_string()),
                        Err(said) => made.refused.push(said),
                    }
                }
            });
        }
        // Ends the makers also when the action fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        action();
    });
    made.into_inner().unwrap()
}

fn trusted(api: &Api) -> String {
    let object = api.get(&[CONFIGURATION]);
    object["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
}

fn alter(api: &Api, bundle: &Value) {
    let patch =
        json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]).to_string();
    api.kubectl(&["patch", CONFIGURATION, "--type=json", "-p", &patch]);
}

#[test]
fn an_altered_ca_bundle_is_repaired_and_no_pod_comes_in_bare() {
    let api = Api::open();
    let _scene = enrolled(&api);
    injecting(&api);
    let good = trusted(&api);
    let foreign = std::fs::read(xtask::cache::root().unwrap().join("demo-pki/ca.crt")).unwrap();
    let mut longest = 0.0_f64;
    let made = meanwhile(&api, || {
        for bundle in [json!(STANDARD.encode(&foreign)), json!(""), json!(STANDARD.encode(&foreign))] {
            let began = Instant::now();
            alter(&api, &bundle);
            eventually("the operator has repaired the caBundle", 30, || {
                let now = trusted(&api);
                if now == good { Ok(()) } else { Err(now) }
            });
            longest = longest.max(began.elapsed().as_secs_f64());
            injecting(&api);
        }
    });
    assert!(made.bare.is_empty(), "{} came in bare: {}", made.bare.len(), made.bare[0]);
    assert!(made.injected > 0);
    for said in &made.refused {
        // The API server asked nobody, so the policies judged the pod as it was written.
        assert!(said.contains("was not injected"), "{said}");
    }
    eprintln!(
        "the caBundle altered 3 times is repaired within {longest:.2} s each; {} pods injected, {} refused, 0 bare",
        made.injected,
        made.refused.len()
    );
}
