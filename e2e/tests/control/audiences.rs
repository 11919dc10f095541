//! One audience, one provider: another that claims it, or the operator's own, keeps no pod of the first out.
use behalf_e2e::{ISSUER, Undo};
use serde_json::{Value, json};

use super::api::{Api, eventually};
use super::pods::{plain, push, server, written};
use super::scene::{ENROLLED, condition, enrolled, injecting};

/// A provider like the demo's, whose tokens are for `audience`; it goes when the guard does.
fn provider<'a>(api: &'a Api, name: &'static str, audience: &str) -> Undo<'a> {
    let mut spec = api.get(&["idp", "corp"])["spec"].clone();
    spec["clientAuthentication"]["serviceAccountToken"]["audience"] = json!(audience);
    api.apply(
        &json!({"apiVersion": "behalf.dev/v1alpha1", "kind": "IdentityProvider", "metadata": {"name": name}, "spec": spec}),
    );
    Undo::new(move || api.world.kubectl(&["delete", "idp", name, "--ignore-not-found"]).map(drop))
}

fn judged(api: &Api, name: &str, wanted: &str) -> String {
    eventually(&format!("{name} is {wanted}"), 60, || match condition(&api.get(&["idp", name]), "Accepted") {
        Some((_, reason, message)) if reason == wanted => Ok(message),
        other => Err(format!("{other:?}")),
    })
}

/// The same pod with a token of its own for an audience.
fn with_token(pod: &Value, volume: &str, audience: &str) -> Value {
    let mut pod = pod.clone();
    let token =
        json!({"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 600}});
    push(&mut pod["spec"]["volumes"], json!({"name": volume, "projected": {"sources": [token]}}));
    pod
}

#[test]
fn a_second_provider_for_an_audience_keeps_no_pod_of_the_first_out_and_lets_none_in() {
    let api = Api::open();
    let _scene = enrolled(&api);
    let good = written(&injecting(&api));
    let second = provider(&api, "e2e-second", ISSUER);
    let _greedy = provider(&api, "e2e-greedy", "behalf.dev/feed");
    let judgement = judged(&api, "e2e-second", "AudienceTaken");
    assert!(
        judgement.contains("IdentityProvider corp, which is older") && judgement.contains(ISSUER),
        "{judgement}"
    );
    judged(&api, "e2e-greedy", "AudienceTaken");
    assert_eq!(condition(&api.get(&["idp", "corp"]), "Accepted").unwrap().0, "True");
    // Whoever knows the newest provider knows those before it, and what was said of them.
    let _last = provider(&api, "e2e-last", "e2e-last");
    let bare = plain(&api, ENROLLED, "bare");
    eventually("the policies know the providers", 60, || {
        match api.try_create(&with_token(&bare, "own", "e2e-last")) {
            Err(said) if said.contains("(IdentityProvider e2e-last)") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    for pod in [&good, &server(&api)] {
        api.try_create(pod).unwrap_or_else(|said| panic!("an injected pod of corp's: {said}"));
    }
    for (what, pod) in [
        ("a bare pod", with_token(&bare, "own", ISSUER)),
        ("a bare pod, the feed's", with_token(&bare, "own", "behalf.dev/feed")),
        ("beside the sidecar", with_token(&good, "own", ISSUER)),
        ("beside the sidecar, the feed's", with_token(&good, "own", "behalf.dev/feed")),
        ("a bare pod by our name", with_token(&bare, "behalf-idp-e2e-second", ISSUER)),
        ("a bare pod by the name of the feed", with_token(&bare, "behalf-feed", ISSUER)),
        (
            "the audience of an accepted one under another's name",
            with_token(&good, "behalf-idp-ghost", ISSUER),
        ),
    ] {
        let said = api.try_create(&pod).err();
        assert!(said.as_ref().is_some_and(|said| said.contains("remove")), "{what}: {said:?}");
    }
    second.now().unwrap();
    api.try_create(&good).unwrap();
}
