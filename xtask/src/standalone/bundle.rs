//! The bundle of a standalone run: compiled from the cluster demo's objects, then given loopback addresses.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use behalf_crds::v1alpha1::{AgentIdentity, IdentityProvider, ScopeCatalog};
use behalf_plan::{BundleIntent, Gathered, Settings};
use behalf_policy::bundle::ClientAuthentication;
use behalf_policy::bundle::document::{Document, PolicyDocument, Serve};
use behalf_policy::bundle::signed::{self, PublicKey};
use behalf_policy::ids::{Audience, ClientId, Issuer};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde::de::DeserializeOwned;

use super::{Provider, issuer, port};
use crate::cache::write_whole;
use crate::demo::{example, with_authority};

/// The objects that are compiled, as they are written. They may say `@DEMO_CA@` for the run's authority.
pub(crate) struct Objects {
    /// An `AgentIdentity`.
    pub(crate) identity: String,
    /// The `ScopeCatalog` that it names.
    pub(crate) catalog: String,
}

impl Objects {
    /// Those of `examples/hr`.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn of_the_demo() -> Result<Self> {
        Ok(Self { identity: example("hr/agent-identity.yaml")?, catalog: example("hr/scope-catalog.yaml")? })
    }
}

/// A bundle that a sidecar may be started on.
pub(crate) struct Written {
    /// Namespace of its identity.
    pub(crate) namespace: String,
    /// Name of its identity.
    pub(crate) identity: String,
    /// The key that signed it, as an argument of the sidecar.
    pub(crate) key: String,
}

/// Writes the signed bundle for a server at `port`, whose tokens are from `provider`.
///
/// # Errors
/// The objects are refused, or the bundle cannot be written.
pub(crate) fn write(dir: &Path, objects: &Objects, port: u16, provider: &Provider) -> Result<Written> {
    let identity: AgentIdentity = object(&objects.identity, &provider.authority)?;
    let name = identity.metadata.name.clone().context("the identity's name")?;
    let namespace = identity.metadata.namespace.clone().context("the identity's namespace")?;
    let Serve::Policy(mut policy) = compile(identity, &objects.catalog, &provider.authority)? else {
        bail!("the objects do not compile to a policy")
    };
    relocate(&mut policy, port, &provider.secret)?;
    let serial = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let document = Document {
        format: behalf_policy::bundle::document::FORMAT,
        namespace: namespace.clone(),
        identity: name.clone(),
        serial: u64::try_from(serial)?,
        feed: None,
        record_salt: None,
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
    Ok(Written { namespace, identity: name, key: public.to_argument() })
}

/// What the operator would compile from the objects, with the rest of the demo's around them.
fn compile(identity: AgentIdentity, catalog: &str, authority: &str) -> Result<Serve> {
    let catalog: ScopeCatalog = object(catalog, authority)?;
    let provider: IdentityProvider = object(&example("hr/identity-provider.yaml")?, authority)?;
    let text = example("hr-tools/namespace.yaml")?;
    let (namespace, account) = text.split_once("\n---\n").context("namespace.yaml holds two objects")?;
    let namespace: Namespace = serde_saphyr::from_str(namespace)?;
    let account: ServiceAccount = serde_saphyr::from_str(account)?;
    let gathered = Gathered {
        identity,
        namespace,
        catalog: Some(catalog),
        providers: BTreeMap::from([("corp".to_owned(), provider)]),
        rival_providers: Vec::new(),
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
        records: behalf_plan::Records::default(),
    };
    let desired = behalf_plan::identity(&gathered, &settings);
    match desired.bundle {
        BundleIntent::Write(serve @ Serve::Policy(_)) => Ok(serve),
        _ => bail!("the objects are refused: {:?} {:?}", desired.accepted, desired.resolved_refs),
    }
}

fn object<T: DeserializeOwned>(text: &str, authority: &str) -> Result<T> {
    serde_saphyr::from_str(&with_authority(text, authority)).context("an object that cannot be read")
}

/// Puts loopback addresses where the cluster's stand, and the secret where the pod's token stands.
fn relocate(policy: &mut PolicyDocument, at: u16, secret: &Path) -> Result<()> {
    let url = super::url();
    for server in &mut policy.servers {
        server.url = Audience::new(&*url)?;
        server.port = at;
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
