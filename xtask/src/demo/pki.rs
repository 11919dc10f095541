//! The demo's certificate authorities, one of its https servers and one of clients that show a certificate, and what each of
//! them signed. Made anew when they get old.
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cache;

/// Made anew after so long; the certificates themselves live for years and are worth nothing outside the demo.
const MAX_AGE: Duration = Duration::from_hours(20 * 24);

/// What one authority signs. Its key is not kept.
struct Family {
    /// The authority's file.
    authority: &'static str,
    called: &'static str,
    leaves: [&'static str; 2],
    purpose: ExtendedKeyUsagePurpose,
}

/// The https servers.
const SERVERS: Family = Family {
    authority: "ca",
    called: "Behalf demo CA",
    leaves: ["keycloak", "payroll"],
    purpose: ExtendedKeyUsagePurpose::ServerAuth,
};
/// Clients whose certificate Keycloak takes, to bind tokens to it. The demo's own agents show none.
const CLIENTS: Family = Family {
    authority: "client-ca",
    called: "Behalf demo client CA",
    leaves: ["agent", "other-agent"],
    purpose: ExtendedKeyUsagePurpose::ClientAuth,
};

/// A certificate chain and its key, PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// The demo's certificates.
pub struct Pki {
    /// The authority's certificate, PEM: what `IdentityProvider` and `ScopeCatalog` name.
    pub authority: String,
    /// The certificate of the authority that Keycloak knows clients by, PEM.
    pub client_authority: String,
    /// Keycloak's.
    pub keycloak: Pair,
    /// Payroll's.
    pub payroll: Pair,
}

impl Pki {
    /// The certificates of this machine's demo, made if there are none or they are old.
    ///
    /// # Errors
    /// They cannot be made or kept.
    pub fn ensure() -> Result<Self> {
        let dir = cache::root()?.join("demo-pki");
        for family in [SERVERS, CLIENTS] {
            if !family.fresh(&dir) {
                family.make(&dir)?;
            }
        }
        let read = |name: &str| {
            let file = dir.join(name);
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let pair = |name: &str| -> Result<Pair> {
            Ok(Pair { certificate: read(&format!("{name}.crt"))?, key: read(&format!("{name}.key"))? })
        };
        Ok(Self {
            authority: read("ca.crt")?,
            client_authority: read("client-ca.crt")?,
            keycloak: pair("keycloak")?,
            payroll: pair("payroll")?,
        })
    }
}

impl Family {
    /// Whether what is written last is there and young enough.
    fn fresh(&self, dir: &Path) -> bool {
        let last = fs::metadata(dir.join(format!("{}.key", self.leaves[1]))).and_then(|m| m.modified());
        last.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < MAX_AGE))
    }

    fn make(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.called);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = params.self_signed(&authority_key)?;
        fs::write(dir.join(format!("{}.crt", self.authority)), authority.pem())?;
        let issuer = Issuer::new(params, authority_key);
        for name in self.leaves {
            let key = KeyPair::generate()?;
            let names = match self.purpose {
                ExtendedKeyUsagePurpose::ServerAuth => vec![
                    format!("{name}.{name}.svc.cluster.local"),
                    "localhost".to_owned(),
                    "127.0.0.1".to_owned(),
                ],
                // Nobody looks a client up.
                _ => Vec::new(),
            };
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![self.purpose.clone()];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
            fs::write(dir.join(format!("{name}.crt")), params.signed_by(&key, &issuer)?.pem())?;
            fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
        }
        Ok(())
    }
}
