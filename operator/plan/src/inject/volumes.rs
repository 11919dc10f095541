//! Our volumes, and where our containers mount them.

use std::collections::BTreeMap;

use behalf_crds::names;
use behalf_crds::v1alpha1::{
    AgentIdentity, ClientAuthenticationType, IdentityProvider, ProviderClient, ServerTls,
};
use behalf_policy::wire;
use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource,
    SecretVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use crate::gathered::Settings;
use crate::provider::token_audience;

/// Where the ServiceAccount admission plugin would mount an API token if nothing stood there.
const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Read by all, in a volume that only our containers mount.
///
/// Kubelet gives a projected token to a user only if all containers of a pod run as that one, which ours never do beside
/// the server's; so the file is root's, and the sidecar reads it as one of all. With an `fsGroup`, kubelet narrows it by itself.
const FILE_MODE: i32 = 0o444;

/// The bundle, a token for each provider and for the feed, what the namespace denies, the empty one, and the certificate of
/// a server with TLS. Last the one for records, if the platform keeps them in a file.
pub(super) fn volumes(
    identity: &AgentIdentity,
    providers: &BTreeMap<String, IdentityProvider>,
    settings: &Settings,
) -> Vec<Volume> {
    let name = identity.metadata.name.as_deref().unwrap_or_default();
    // No bundle, no start.
    let bundle = config_map(names::VOLUME_BUNDLE, names::bundle_configmap(name), false);
    let tokens = provider_names(identity).into_iter().filter_map(|name| {
        let provider = providers.get(name)?;
        let seconds = provider.spec.client_authentication.service_account_token.expiration_seconds;
        Some(token(names::idp_volume(name), token_audience(provider)?, seconds))
    });
    let feed = token(names::VOLUME_FEED.to_owned(), wire::FEED_AUDIENCE, wire::FEED_TOKEN_SECONDS);
    // Most namespaces deny nothing. What is there can only refuse, so that its absence opens nothing.
    let deny = config_map(names::VOLUME_DENY, names::CONFIGMAP_DENY.to_owned(), true);
    let empty = Volume {
        name: names::VOLUME_NO_TOKEN.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    [bundle]
        .into_iter()
        .chain(tokens)
        .chain([feed, deny, empty])
        .chain(certificate(identity))
        .chain(settings.records.volume())
        .collect()
}

/// The server's certificate. A Secret that is not there must not keep the pod from starting: then nobody would say why. The
/// sidecar does, and takes no call meanwhile.
fn certificate(identity: &AgentIdentity) -> Option<Volume> {
    let source = &tls(identity)?.certificate;
    let secret = source.secret_name.as_ref().map(|name| SecretVolumeSource {
        secret_name: Some(name.clone()),
        default_mode: Some(FILE_MODE),
        optional: Some(true),
        // Nothing else that the Secret may hold.
        items: Some([wire::TLS_CERTIFICATE, wire::TLS_KEY, wire::TLS_AUTHORITIES].map(item).into()),
    });
    let csi = source.csi.as_ref().map(|csi| CSIVolumeSource {
        driver: csi.driver.clone(),
        read_only: Some(true),
        volume_attributes: (!csi.volume_attributes.is_empty()).then(|| csi.volume_attributes.clone()),
        ..CSIVolumeSource::default()
    });
    Some(Volume { name: names::VOLUME_TLS.to_owned(), secret, csi, ..Volume::default() })
}

fn item(key: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }
}

/// How the sidecar terminates TLS, if it does.
pub(super) fn tls(identity: &AgentIdentity) -> Option<&ServerTls> {
    identity.spec.servers.first()?.tls.as_ref()
}

fn config_map(volume: &str, name: String, optional: bool) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name,
            default_mode: Some(FILE_MODE),
            optional: Some(optional),
            items: None,
        }),
        ..Volume::default()
    }
}

/// The providers where the server is a client by its service account: by nothing else does a pod need a token.
fn clients(identity: &AgentIdentity) -> impl Iterator<Item = &ProviderClient> {
    let by_token = ClientAuthenticationType::ServiceAccountToken;
    identity.spec.identity_providers.iter().filter(move |entry| entry.client.authentication.type_ == by_token)
}

fn provider_names(identity: &AgentIdentity) -> Vec<&str> {
    let mut names: Vec<_> = clients(identity).map(|client| client.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn token(volume: String, audience: &str, seconds: i64) -> Volume {
    Volume {
        name: volume,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(FILE_MODE),
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(ServiceAccountTokenProjection {
                    audience: Some(audience.to_owned()),
                    expiration_seconds: Some(seconds),
                    path: wire::TOKEN_FILE.to_owned(),
                }),
                ..VolumeProjection::default()
            }]),
        }),
        ..Volume::default()
    }
}

/// Mounts of the sidecar.
pub(super) fn sidecar_mounts(identity: &AgentIdentity, settings: &Settings) -> Vec<VolumeMount> {
    let bundle = mount(names::VOLUME_BUNDLE.to_owned(), wire::BUNDLE_DIR.to_owned());
    let tokens = provider_names(identity)
        .into_iter()
        .map(|name| mount(names::idp_volume(name), format!("{}/{name}", wire::CREDENTIALS_DIR)));
    let feed = mount(names::VOLUME_FEED.to_owned(), wire::FEED_DIR.to_owned());
    let deny = mount(names::VOLUME_DENY.to_owned(), wire::DENY_DIR.to_owned());
    let certificate = tls(identity).map(|_| mount(names::VOLUME_TLS.to_owned(), wire::TLS_DIR.to_owned()));
    // The only one that the sidecar writes to.
    let records = settings.records.volume().map(|volume| VolumeMount {
        name: volume.name,
        mount_path: wire::RECORDS_DIR.to_owned(),
        ..VolumeMount::default()
    });
    [bundle]
        .into_iter()
        .chain(tokens)
        .chain([feed, deny, no_token_mount()])
        .chain(certificate)
        .chain(records)
        .collect()
}

/// The empty volume at the place of an API token.
pub(super) fn no_token_mount() -> VolumeMount {
    mount(names::VOLUME_NO_TOKEN.to_owned(), API_TOKEN_DIR.to_owned())
}

fn mount(name: String, mount_path: String) -> VolumeMount {
    VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
}

/// Puts ours behind the others.
pub(super) fn apply(spec: &mut PodSpec, planned: &[Volume]) {
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !planned.iter().any(|ours| ours.name == volume.name));
    volumes.extend(planned.iter().cloned());
}
