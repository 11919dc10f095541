//! Records in a file, as the platform sets it: the chart's values become arguments and a volume of the sidecar, which
//! admission holds every pod to, and a killed sidecar goes on with the chain.
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use behalf_e2e::host::Process;
use behalf_e2e::records::Pod;
use behalf_e2e::world::LOGGED;
use behalf_e2e::{ALL_SCOPES, Undo, World, keycloak, mcp, until};
use behalf_policy::record::chain_hash;
use serde_json::{Value, json};
use xtask::command::Run as _;

const SYSTEM: &str = "behalf-system";
/// A rollout of the operator is over within this.
const ROLLED: Duration = Duration::from_mins(2);

/// Strict, with a small file, until the guard is dropped. Pods follow when they are made anew.
fn strict_in_a_file(world: &World) -> Result<Undo<'_>> {
    let chart = xtask::images::workspace()?.join("charts/behalf").display().to_string();
    let helm = |words: &[&str]| world.cluster.helm(words).run();
    let set = "sidecar.records.mode=Strict,sidecar.records.file.mode=Enabled,sidecar.records.file.maxBytes=1Mi,\
               sidecar.records.file.reserveBytes=64Ki,sidecar.records.file.volume.size=16Mi";
    let told = move |kind: &str| {
        until("admission is told where records go", ROLLED, || {
            let words =
                ["-n", SYSTEM, "get", "configmap", "behalf-trust", "-o", "jsonpath={.data.recordVolume}"];
            Ok((world.kubectl(&words)? == kind).then_some(()))
        })
    };
    let undo = Undo::new(move || {
        helm(&["rollback", "behalf", "--namespace", SYSTEM, "--wait", "--timeout=180s"])?;
        told("")?;
        world.kubectl(&["-n", "hr", "rollout", "restart", "deployment/hr-tools"])?;
        world.rolled_out()
    });
    let upgrade = ["upgrade", "behalf", &chart, "--namespace", SYSTEM, "--reset-then-reuse-values"];
    helm(&[&upgrade[..], &["--wait", "--timeout=180s", "--set", set]].concat())?;
    told("EmptyDir")?;
    Ok(undo)
}

/// The file on the node's disk: nobody runs commands in our containers, and no other one mounts it.
fn file(world: &World, pod: &Pod<'_>) -> Result<PathBuf> {
    let layout = world.cluster.layout().context("the node's disk is at hand in the local cluster alone")?;
    let uid = world.kubectl(&["-n", "hr", "get", "pod", &pod.name, "-o", "jsonpath={.metadata.uid}"])?;
    let volume = "volumes/kubernetes.io~empty-dir/behalf-records";
    Ok(layout.run.join("kubelet/pods").join(uid).join(volume).join("records.jsonl"))
}

fn lines(file: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The hash of the last line.
fn head(file: &PathBuf) -> Result<String> {
    let bytes = fs::read(file)?;
    let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).context("no line")?;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, last);
    Ok(chain_hash(hash.as_ref().try_into()?))
}

/// What the pod would be refused for, were it made so.
fn refused(world: &World, pod: &Value, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut pod = pod.clone();
    pod["metadata"] = json!({
        "name": "changed", "namespace": "hr", "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
    });
    pod["spec"]["nodeName"].take();
    change(&mut pod);
    let path = std::env::temp_dir().join(format!("behalf-changed-{}.json", std::process::id()));
    fs::write(&path, pod.to_string())?;
    let said = world.kubectl(&["create", "--dry-run=server", "-f", &path.display().to_string()]);
    fs::remove_file(&path)?;
    said.err().map(|error| format!("{error:#}")).context("let in")
}

/// A pod with this sidecar takes calls; gives the outcome of one, as the file has it.
fn served(world: &World, pod: &Pod<'_>, file: &PathBuf) -> Result<Value> {
    let token = keycloak::login(world, "agent-test", "alice", ALL_SCOPES)?;
    let answer = until("the call is served", ROLLED, || {
        let answer = mcp::salary(&token.text, "bob").to(&pod.address).send(world);
        Ok(answer.ok().filter(|answer| answer.status == 200))
    })?;
    // Strict: what was answered is there.
    let id = answer.request_id()?;
    let all = lines(file)?;
    let of_it: Vec<_> = all.iter().filter(|line| line["requestId"] == id).collect();
    let inbound: Vec<_> = of_it.iter().filter(|line| line["direction"] == "Inbound").collect();
    ensure!(inbound.len() == 2, "an intent and an outcome: {of_it:?}");
    assert_eq!((&inbound[0]["kind"], &inbound[0]["decision"]), (&json!("Intent"), &json!("Permit")));
    assert_eq!((&inbound[1]["intent"], &inbound[1]["status"]), (&inbound[0]["sequence"], &json!(200)));
    Ok(Value::clone(inbound[1]))
}

#[test]
fn r1_the_platform_s_setting_puts_records_into_a_file_whose_chain_a_restart_continues() -> Result<()> {
    let world = World::get()?;
    let _records = strict_in_a_file(world)?;
    until("the pod of before is outdated", LOGGED, || {
        let words = ["-n", "hr", "get", "aid/hr-tools", "-o", "jsonpath={.status.pods.outdated}"];
        Ok((world.kubectl(&words)? == "1").then_some(()))
    })?;
    world.kubectl(&["-n", "hr", "rollout", "restart", "deployment/hr-tools"])?;
    world.rolled_out()?;
    let pod = world.pod()?;
    let file = file(world, &pod)?;
    let first = served(world, &pod, &file)?;
    let metadata = fs::metadata(&file)?;
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid()), (0o600, 15001));

    // No pod may have it otherwise.
    let running = world.object(&["-n", "hr", "get", "pod", &pod.name])?;
    let exactly = "let the webhook add its own|Behalf adds its own|let the webhook add it";
    let says = |said: &str| exactly.split('|').any(|part| said.contains(part));
    let said = refused(world, &running, |pod| {
        let arguments = pod["spec"]["initContainers"][1]["args"].as_array_mut().unwrap();
        arguments.retain(|argument| argument != "--record-mode=strict");
    })?;
    assert!(says(&said), "{said}");
    let said = refused(world, &running, |pod| {
        let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
        let ours = volumes.iter_mut().find(|volume| volume["name"] == "behalf-records").unwrap();
        ours["emptyDir"] = json!({"medium": "Memory", "sizeLimit": "16Mi"});
    })?;
    assert!(says(&said), "{said}");
    let said = refused(world, &running, |pod| {
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "behalf-records", "mountPath": "/records"}]);
    })?;
    assert!(said.contains("remove the"), "{said}");

    // Without a word, and another process in the same pod.
    Process::in_container(world, "hr", &pod.name, "behalf-sidecar")?.kill()?;
    until("the sidecar is started again", ROLLED, || {
        Ok((lines(&file)?.iter().filter(|line| line["kind"] == "Start").count() == 2).then_some(()))
    })?;
    let second = served(world, &pod, &file)?;
    assert_ne!(first["boot"], second["boot"]);
    let starts: Vec<_> = lines(&file)?.into_iter().filter(|line| line["kind"] == "Start").collect();
    assert_eq!((&starts[0]["origin"], &starts[0]["mode"]), (&json!("Unknown"), &json!("Strict")));
    assert_eq!((&starts[1]["origin"], &starts[1]["previousBoot"]), (&json!("Continued"), &first["boot"]));

    // The operator heard how far both boots came, and the file holds against it.
    let heads = until("the operator has heard of the last line", LOGGED, || {
        let heads =
            world.kubectl(&["-n", "hr", "get", "configmap", "behalf-counts-hr-tools", "-o", "json"])?;
        Ok(heads.contains(&head(&file)?).then_some(heads))
    })?;
    let saved = std::env::temp_dir().join(format!("behalf-heads-{}.json", std::process::id()));
    fs::write(&saved, heads)?;
    // Of other pods, whose records are elsewhere, the operator keeps heads, too.
    let verified = xtask::audit::verify_files(&[file], std::slice::from_ref(&saved), true);
    fs::remove_file(&saved)?;
    verified
}
