//! The parameters of the admission policies: a `ConfigMap` that the leading replica keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use behalf_plan::Settings;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::kube_io::apply::Apply;
use crate::kube_io::lease::Leadership;
use crate::live::Live;
use crate::signing::SigningKeys;
use crate::signing::keep;

/// How often the parameters of the admission policies are compared.
const RECHECK: Duration = Duration::from_secs(30);
/// How soon a failed write of them is repeated.
const RETRY: Duration = Duration::from_secs(5);

/// What the admission policies compare pods to, without the keys. Lists have one value a line.
pub(super) fn parameters(args: &RunArgs, settings: &Settings) -> BTreeMap<String, String> {
    let images: BTreeSet<_> = args.previous_sidecar_image.iter().filter(|it| !it.is_empty()).collect();
    let images: Vec<_> = [&settings.sidecar_image]
        .into_iter()
        .chain(images.into_iter().filter(|it| **it != settings.sidecar_image))
        .map(String::as_str)
        .collect();
    [
        ("sidecarImages", images.join("\n")),
        ("nameservers", settings.nameservers.join("\n")),
        ("clusterDomain", settings.cluster_domain.clone()),
        ("systemNamespace", settings.system_namespace.clone()),
    ]
    .into_iter()
    .chain(settings.records.parameters())
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Keeps the parameters of the admission policies while this replica leads. All keys stand there, also those that new
/// pods do not pin any more: a pod may have been planned a moment ago.
pub(super) struct Parameters {
    pub(super) apply: Apply,
    pub(super) namespace: String,
    pub(super) fixed: BTreeMap<String, String>,
    pub(super) keys: Live<SigningKeys>,
    pub(super) leadership: Leadership,
}

impl Parameters {
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.leadership.gained() => {}
            }
            let mut data = self.fixed.clone();
            data.insert(keep::PARAMETER.to_owned(), self.keys.current().public_arguments().join("\n"));
            let wait = match self.apply.admission_parameters(&self.namespace, data).await {
                Ok(_) => RECHECK,
                Err(error) => {
                    tracing::error!(error = %error, "cannot write the parameters of the admission policies");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.keys.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
