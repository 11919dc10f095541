//! What the flags and the operator's own pod say about what plans depend on.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use behalf_plan::Settings;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::args::RunArgs;
use crate::certs::issue::Lifetimes;
use crate::resolv_conf;

pub(super) fn lifetimes(args: &RunArgs) -> anyhow::Result<Lifetimes> {
    if args.authority_lifetime < args.certificate_lifetime * 2 {
        bail!("--authority-lifetime must be at least twice --certificate-lifetime");
    }
    let (authority, certificate) = (args.authority_lifetime, args.certificate_lifetime);
    Ok(Lifetimes { authority: authority.try_into()?, certificate: certificate.try_into()? })
}

/// What plans depend on, without the keys: those are replaced while the process runs.
pub(super) fn settings(args: &RunArgs) -> anyhow::Result<Settings> {
    let (mut nameservers, mut cluster_domain) = (args.nameserver.clone(), args.cluster_domain.clone());
    if nameservers.is_empty() || cluster_domain.is_none() {
        let text = std::fs::read_to_string(&args.resolv_conf).with_context(|| {
            format!("cannot read {} (or set --nameserver and --cluster-domain)", args.resolv_conf.display())
        })?;
        let found = resolv_conf::parse(&text);
        if nameservers.is_empty() {
            nameservers = found.nameservers;
        }
        cluster_domain = cluster_domain.or(found.cluster_domain);
    }
    if nameservers.is_empty() {
        bail!("no nameserver in {}; set --nameserver", args.resolv_conf.display());
    }
    let Some(cluster_domain) = cluster_domain else {
        bail!("no svc.<domain> in the search list of {}; set --cluster-domain", args.resolv_conf.display());
    };
    let quantities = |pairs: &[(&str, &String)]| -> Option<BTreeMap<String, Quantity>> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), Quantity((*value).clone()))).collect())
    };
    Ok(Settings {
        sidecar_image: args.sidecar_image.clone(),
        sidecar_pull_policy: args.sidecar_pull_policy.clone(),
        bundle_keys: Vec::new(),
        nameservers,
        cluster_domain,
        system_namespace: args.namespace.clone(),
        resources: ResourceRequirements {
            requests: quantities(&[
                ("cpu", &args.sidecar_cpu_request),
                ("memory", &args.sidecar_memory_request),
            ]),
            limits: quantities(&[("memory", &args.sidecar_memory_limit)]),
            ..ResourceRequirements::default()
        },
        records: args.sidecar_records.clone().unwrap_or_default(),
    })
}
