//! The webhook's certificate and the authority that the API server trusts it by: renewed, expired, altered by hand.
//! All the time somebody makes pods: each is injected or refused, and while nothing is broken none is refused.
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use behalf_e2e::{Undo, until};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::feed_scene::programmed;
use super::pods::server;
use super::scene::{enrolled, injecting, without_operator};

const SYSTEM: &str = "behalf-system";
const CERTIFICATE: &str = "tls.crt";
const AUTHORITIES: &str = "ca.crt";
/// How long a certificate lives that has to be seen to end.
const LIFE: Duration = Duration::from_secs(24);
const CONFIGURATION: &str = "mutatingwebhookconfiguration/behalf-injector";

/// What came of pods that were made one after the other.
#[derive(Debug, Default)]
struct Made {
    injected: usize,
    bare: Vec<String>,
    refused: Vec<String>,
}

/// Ends the makers, also when what they make pods beside fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
                            made.injected += 1;
                        }
                        Ok(pod) => made.bare.push(pod.to_string()),
                        Err(said) => made.refused.push(said),
                    }
                }
            });
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

/// PEM text in the Secret with the certificate.
fn secret(api: &Api, key: &str) -> Result<String, String> {
    let path = format!("jsonpath={{.data.{}}}", key.replace('.', "\\."));
    let text = api.ask(&["-n", SYSTEM, "get", "secret", "behalf-webhook-certs", "-o", &path], "")?;
    if text.is_empty() {
        return Err(format!("no {key}"));
    }
    Ok(String::from_utf8(STANDARD.decode(text.trim()).unwrap()).unwrap())
}

/// Certificates that live for seconds, until the guard goes: the Secret is made anew before and after.
fn short_lived(api: &Api) -> Undo<'_> {
    let set = |words: &[&str]| {
        let away = without_operator(api);
        let all = [&["-n", SYSTEM, "set", "env", "deployment/behalf-operator"], words].concat();
        api.kubectl(&all);
        api.kubectl(&["-n", SYSTEM, "delete", "secret", "behalf-webhook-certs", "--ignore-not-found"]);
        away.now().unwrap();
        injecting(api);
    };
    let guard = Undo::new(move || {
        set(&["BEHALF_CERTIFICATE_LIFETIME-", "BEHALF_AUTHORITY_LIFETIME-"]);
        programmed(api);
        Ok(())
    });
    let life = format!("BEHALF_CERTIFICATE_LIFETIME={}s", LIFE.as_secs());
    set(&[&life, &format!("BEHALF_AUTHORITY_LIFETIME={}s", 3 * LIFE.as_secs())]);
    guard
}

/// Certificates that live for seconds are renewed in time; one that has expired while nobody was there is made anew.
#[test]
fn certificates_and_authorities_are_rolled_over_without_a_failed_admission_and_expired_ones_replaced() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let _short = short_lived(&api);
    rolled_over(&api);
    expired(&api);
}

fn rolled_over(api: &Api) {
    let (mut certificates, mut authorities) = (BTreeSet::new(), BTreeSet::new());
    let began = Instant::now();
    let made = meanwhile(api, || {
        until("six certificates and three authorities have served", Duration::from_mins(6), || {
            certificates.extend(secret(api, CERTIFICATE));
            authorities.extend(secret(api, AUTHORITIES));
            Ok((certificates.len() >= 6 && authorities.len() >= 3).then_some(()))
        })
        .unwrap();
    });
    eprintln!(
        "{} serving certificates and {} sets of authorities within {:.0} s: {} pods injected, {} refused, {} bare",
        certificates.len(),
        authorities.len(),
        began.elapsed().as_secs_f64(),
        made.injected,
        made.refused.len(),
        made.bare.len()
    );
    assert!(made.injected > 100, "{}", made.injected);
    assert!(made.bare.is_empty(), "{}", made.bare[0]);
    assert!(made.refused.is_empty(), "{} of them: {}", made.refused.len(), made.refused[0]);
    // The sidecars trust the same authorities: they have followed.
    programmed(api);
}

fn expired(api: &Api) {
    let away = without_operator(api);
    let old = secret(api, CERTIFICATE).unwrap();
    // It was made before it was read.
    let read = Instant::now();
    until("the certificate has expired", LIFE * 2, || Ok((read.elapsed() > LIFE).then_some(()))).unwrap();
    let began = Instant::now();
    away.now().unwrap();
    injecting(api);
    eprintln!(
        "an expired certificate: pods are injected {:.1} s after the operator is started",
        began.elapsed().as_secs_f64()
    );
    assert_ne!(secret(api, CERTIFICATE).unwrap(), old);
    programmed(api);
}
