//! Keys and certificates of one run of the cluster, made afresh each time, and the kubeconfigs that hold them.
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, date_time_ymd,
};

use super::layout::{API_SERVICE, DOMAIN, NODE, NODE_IP, NODE_IP6};

/// The kubeconfigs that are written, each with its user's name and group.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "system:masters", "admin"),
    ("controller-manager", "", "system:kube-controller-manager"),
    ("scheduler", "", "system:kube-scheduler"),
    ("kubelet", "system:nodes", "system:node:node1"),
    ("proxy", "", "system:kube-proxy"),
    ("coredns", "", "system:coredns"),
];

/// Writes `pki/` and `<user>.conf` into the run directory.
///
/// # Errors
/// A key cannot be made or a file cannot be written.
pub(super) fn write(run: &Path) -> Result<()> {
    let dir = run.join("pki");
    fs::create_dir_all(&dir)?;
    let mut params = parameters("", "kube-ca", &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages.clear();
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    fs::write(dir.join("ca.crt"), &ca)?;
    secret(&dir.join("ca.key"), &key.serialize_pem())?;
    let issuer = Issuer::new(params, key);

    // RSA, because service-account tokens of most clusters are RS256 and providers must take them.
    let accounts = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    secret(&dir.join("sa.key"), &accounts.serialize_pem())?;
    fs::write(dir.join("sa.pub"), accounts.public_key_pem())?;

    let issue = |file: &str, group: &str, name: &str, hosts: &[&str]| -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = parameters(group, name, hosts)?.signed_by(&key, &issuer)?.pem();
        fs::write(dir.join(format!("{file}.crt")), &certificate)?;
        secret(&dir.join(format!("{file}.key")), &key.serialize_pem())?;
        Ok((certificate, key.serialize_pem()))
    };
    let api = format!("kubernetes.default.svc.{DOMAIN}");
    let hosts = [
        NODE_IP,
        API_SERVICE,
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        &api,
    ];
    issue("apiserver", "", "kube-apiserver", &hosts)?;
    issue("kubelet-client", "system:masters", "apiserver-kubelet", &[])?;
    issue("kubelet-serving", "system:nodes", "system:node:node1", &[NODE_IP, NODE_IP6, NODE])?;
    for (user, group, name) in USERS {
        let (certificate, key) = issue(user, group, name, &[])?;
        secret(&run.join(format!("{user}.conf")), &kubeconfig(&ca, &certificate, &key)?)?;
    }
    Ok(())
}

fn parameters(group: &str, name: &str, hosts: &[&str]) -> Result<CertificateParams> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    // The machine's clock may be off, and a run may be long: neither is this cluster's concern.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2060, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A kubeconfig is YAML, of which JSON is a part.
fn kubeconfig(ca: &str, certificate: &str, key: &str) -> Result<String> {
    let data = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let name = "behalf";
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": format!("https://{NODE_IP}:6443"), "certificate-authority-data": data(ca)}}],
        "users": [{"name": name, "user": {"client-certificate-data": data(certificate), "client-key-data": data(key)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
