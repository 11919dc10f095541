//! Accounts that the platform has exempted where every pod needs an identity, and who else tries to be.
use behalf_e2e::Undo;
use serde_json::{Value, json};

use super::api::Api;
use super::pods::{plain, server};
use super::scene::{REQUIRED, account, as_editor, identity, namespace, reason};

const LIST: &str = "behalf.dev/exempt-service-accounts";

/// The namespace [`REQUIRED`]: `batch` and `legacy` are exempt, identity `tools` has its account, and `late` names an exempted one.
pub fn exempting(api: &Api) -> Undo<'_> {
    let guard = namespace(api, REQUIRED, Some("Required"));
    let accounts: Vec<_> =
        ["batch", "legacy", "other", "tools"].iter().map(|name| account(REQUIRED, name)).collect();
    api.apply(&json!({"apiVersion": "v1", "kind": "List", "items": accounts}));
    api.kubectl(&["annotate", "namespace", REQUIRED, &format!("{LIST}=legacy, batch")]);
    for (name, account) in [("tools", "tools"), ("late", "legacy")] {
        as_editor(api, REQUIRED, &["create", "-f", "-"], &identity(REQUIRED, name, account).to_string())
            .unwrap();
    }
    reason(api, REQUIRED, "tools", "Accepted", "AcceptedPlainHTTP");
    let said = reason(api, REQUIRED, "late", "Accepted", "ServiceAccountExempt");
    assert!(said.contains("let the platform team take legacy out of the list"), "{said}");
    guard
}

fn unlabelled(api: &Api, account: &str) -> Value {
    let mut pod = plain(api, REQUIRED, "unlabelled");
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

fn labelled(api: &Api, account: &str) -> Value {
    let mut pod = server(api);
    pod["metadata"]["namespace"] = json!(REQUIRED);
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

/// What is not let in though it is exempt, or not refused, with its message, though it is not.
pub fn exemptions(api: &Api) -> Vec<String> {
    let exempt = unlabelled(api, "batch");
    let mut wrong: Vec<_> =
        api.try_create(&exempt).err().map(|said| format!("an exempt pod: {said}")).into_iter().collect();
    let command = |account: &str| {
        format!("kubectl annotate --overwrite namespace {REQUIRED} {LIST}=legacy,batch,{account}")
    };
    let rows = [
        ("an account that is not in the list", unlabelled(api, "other"), command("other")),
        ("no account named", unlabelled(api, "default"), command("default")),
        (
            "an exempt pod with the label",
            labelled(api, "batch"),
            format!("batch is exempt in namespace {REQUIRED}|was not injected|serviceAccountName: tools"),
        ),
        (
            "an identity's account, bare",
            unlabelled(api, "tools"),
            format!("belongs to AgentIdentity tools|{}", command("tools")),
        ),
        (
            "an exempted account that an identity names",
            unlabelled(api, "legacy"),
            "belongs to AgentIdentity late".to_owned(),
        ),
    ];
    for (name, pod, wanted) in rows {
        match api.try_create(&pod) {
            // Where more than one policy refuses a pod, which of them speaks is not said.
            Err(said) if wanted.split('|').any(|part| said.contains(part)) => {}
            other => wrong.push(format!("exemption, {name}: wants {wanted:?}, got {other:?}")),
        }
    }
    wrong
}
