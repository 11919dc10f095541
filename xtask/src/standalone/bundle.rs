//! The bundle of a standalone run: compiled from the cluster demo's objects, then given loopback addresses.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_plan::{BundleIntent, Gathered, Settings};
use behalf_policy::bundle::document::{ClientAuthentication, Document, PolicyDocument, Serve};
use behalf_policy::bundle::signed::{self, PublicKey};
use behalf_policy::ids::{Audience, ClientId, Issuer};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde::de::DeserializeOwned;

use super::port;
use crate::cache::write_whole;
use crate::demo::{example, with_authority};

/// Keycloak's issuer on loopback.
pub(super) fn issuer() -> String {
    format!("https://127.0.0.1:{}/realms/corp", port::KEYCLOAK)
}

/// Writes the signed bundle and gives the key that signed it, as an argument of the sidecar.
pub(super) fn write(dir: &Path, authority: &str, secret: &Path) -> Result<Vec<String>> {
    let Serve::Policy(mut policy) = compile(authority)? else {
        bail!("the demo's objects do not compile to a policy")
    };
    relocate(&mut policy, secret)?;
    let serial = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let document = Document {
        format: behalf_policy::bundle::document::FORMAT,
        namespace: "hr".to_owned(),
        identity: "hr-tools".to_owned(),
        serial: u64::try_from(serial)?,
        feed: None,
        serve: Serve::Policy(policy),
    };
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let public = PublicKey {
        id: "standalone".to_owned(),
        bytes: key.der_bytes().try_into().context("an Ed25519 key")?,
    };
    let payload = serde_json::to_vec(&document)?;
    let signature = key.sign(&signed::signing_input(&payload))?;
    let sealed = signed::seal(&payload, |_| vec![(public.id.clone(), signature.clone())]);
    let folder = dir.join("bundle");
    fs::create_dir_all(&folder)?;
    write_whole(&folder.join(wire::BUNDLE_KEY), &serde_json::to_string(&sealed)?)?;
    Ok(vec![public.to_argument()])
}

/// What the operator would compile from the files of `examples/hr`.
fn compile(authority: &str) -> Result<Serve> {
    let identity: AgentIdentity = object("hr/agent-identity.yaml", authority)?;
    let catalog: ScopeCatalog = object("hr/scope-catalog.yaml", authority)?;
    let provider: IdentityProvider = object("hr/identity-provider.yaml", authority)?;
    let text = example("hr-tools/namespace.yaml")?;
    let (namespace, account) = text.split_once("\n---\n").context("namespace.yaml holds two objects")?;
    let namespace: Namespace = serde_saphyr::from_str(namespace)?;
    let account: ServiceAccount = serde_saphyr::from_str(account)?;
    let gathered = Gathered {
        identity,
        namespace,
        catalog: Some(catalog),
        providers: BTreeMap::from([("corp".to_owned(), provider)]),
        siblings: Vec::new(),
        service_account: Some(account),
        pods: Vec::new(),
        last_bundle: None,
        reports: behalf_plan::Reports::default(),
        bypass: behalf_plan::bypass::Facts::default(),
    };
    let settings = Settings {
        sidecar_image: String::new(),
        sidecar_pull_policy: String::new(),
        bundle_keys: Vec::new(),
        nameservers: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        system_namespace: "behalf-system".to_owned(),
        resources: k8s_openapi::api::core::v1::ResourceRequirements::default(),
    };
    let desired = behalf_plan::identity(&gathered, &settings);
    match desired.bundle {
        BundleIntent::Write(serve @ Serve::Policy(_)) => Ok(serve),
        _ => bail!("the demo's objects are refused: {:?} {:?}", desired.accepted, desired.resolved_refs),
    }
}

fn object<T: DeserializeOwned>(path: &str, authority: &str) -> Result<T> {
    serde_saphyr::from_str(&with_authority(&example(path)?, authority))
        .with_context(|| format!("examples/{path}"))
}

/// Puts loopback addresses where the cluster's stand, and the secret where the pod's token stands.
fn relocate(policy: &mut PolicyDocument, secret: &Path) -> Result<()> {
    let url = format!("http://127.0.0.1:{}/mcp", port::INBOUND);
    for server in &mut policy.servers {
        server.url = Audience::new(&*url)?;
        server.port = port::SERVER;
    }
    for provider in &mut policy.providers {
        provider.issuer = Issuer::new(issuer())?;
        provider.client_id = ClientId::new(&*url)?;
        provider.client_authentication =
            ClientAuthentication::ClientSecretFile { file: secret.to_string_lossy().into_owned() };
    }
    for downstream in &mut policy.downstreams {
        downstream.url = format!("https://127.0.0.1:{}", port::PAYROLL);
    }
    Ok(())
}
