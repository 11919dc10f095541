//! What of Behalf is installed, for the chart's test.

use std::collections::BTreeSet;

use behalf_crds::names;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{Api, ListParams};
use kube::{Client, Error, ResourceExt as _};

/// Reads what is installed.
pub struct Installed {
    client: Client,
}

/// An admission policy of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Whether a binding puts it into effect.
    pub bound: bool,
    /// How many of its expressions the API server warns about.
    pub warnings: usize,
}

impl Installed {
    /// Reads with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The kinds of our group that are served.
    ///
    /// # Errors
    /// The API server cannot be asked, or does not know the group.
    pub async fn kinds(&self) -> Result<Vec<String>, Error> {
        let version = format!("{}/{}", names::GROUP, names::VERSION);
        let served = self.client.list_api_group_resources(&version).await?;
        Ok(served.resources.into_iter().map(|it| it.kind).collect())
    }

    /// Our admission policies.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn policies(&self) -> Result<Vec<Policy>, Error> {
        let ours = ListParams::default().labels(&format!("{}={}", names::LABEL_PART_OF, names::PART_OF));
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(self.client.clone()).list(&ours).await?;
        let bound: BTreeSet<_> =
            bindings.into_iter().filter_map(|it| it.spec.and_then(|spec| spec.policy_name)).collect();
        let policies = Api::<ValidatingAdmissionPolicy>::all(self.client.clone()).list(&ours).await?;
        Ok(policies
            .into_iter()
            .map(|it| {
                let checked = it.status.as_ref().and_then(|it| it.type_checking.as_ref());
                let warnings = checked.and_then(|it| it.expression_warnings.as_ref()).map_or(0, Vec::len);
                Policy { bound: bound.contains(&it.name_any()), name: it.name_any(), warnings }
            })
            .collect())
    }

    /// The authorities (PEM) in our webhook configuration; none if there is no such configuration, webhook or bundle.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub async fn authorities(&self, configuration: &str) -> Result<Option<String>, Error> {
        let found =
            Api::<MutatingWebhookConfiguration>::all(self.client.clone()).get_opt(configuration).await?;
        let webhooks = found.and_then(|it| it.webhooks).unwrap_or_default();
        let ours = webhooks.into_iter().find(|it| it.name == names::WEBHOOK_NAME);
        Ok(ours.and_then(|it| it.client_config.ca_bundle).and_then(|it| String::from_utf8(it.0).ok()))
    }
}
