//! The list of keys as it lies in the Secret: the only form in which private halves are written down.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Key, MAX_KEYS, SigningError, SigningKeys};

/// How a key lies in the Secret.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    /// PKCS #8 (RFC 8410), base64.
    pkcs8: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<String>,
}

impl Drop for StoredKey {
    fn drop(&mut self) {
        self.pkcs8.zeroize();
    }
}

impl SigningKeys {
    /// Reads what [`SigningKeys::to_stored`] wrote.
    ///
    /// # Errors
    /// It is anything else: an empty, too long, repeated or unreadable list.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, SigningError> {
        let stored: Vec<StoredKey> = serde_json::from_slice(bytes).map_err(|_| SigningError::Stored)?;
        if stored.is_empty() || stored.len() > MAX_KEYS {
            return Err(SigningError::Stored);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(stored.len());
        for entry in &stored {
            let pkcs8 = Zeroizing::new(STANDARD.decode(&entry.pkcs8).map_err(|_| SigningError::Stored)?);
            let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| SigningError::Stored)?;
            let mut key = Key::new(pair).ok_or(SigningError::Stored)?;
            key.created = time(entry.created.as_deref())?;
            key.retired = time(entry.retired.as_deref())?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(SigningError::Stored);
            }
            keys.push(key);
        }
        Ok(Self { keys, record_salt: None })
    }

    /// The keys as they are kept in the Secret. Private: the bytes are wiped when dropped.
    ///
    /// # Errors
    /// A key cannot be written; none of ours.
    pub fn to_stored(&self) -> Result<Zeroizing<Vec<u8>>, SigningError> {
        let mut stored = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let pkcs8 = key.pair.to_pkcs8().map_err(|_| SigningError::Stored)?;
            stored.push(StoredKey {
                pkcs8: STANDARD.encode(pkcs8.as_ref()),
                created: key.created.map(|it| it.to_string()),
                retired: key.retired.map(|it| it.to_string()),
            });
        }
        Ok(Zeroizing::new(serde_json::to_vec(&stored).map_err(SigningError::Encode)?))
    }
}

fn time(text: Option<&str>) -> Result<Option<Timestamp>, SigningError> {
    text.map(|text| text.parse().map_err(|_| SigningError::Stored)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_lists_are_refused() {
        let key = SigningKeys::generate().unwrap().to_stored().unwrap();
        let entry: serde_json::Value = serde_json::from_slice(&key).unwrap();
        let mut odd = entry[0].clone();
        odd["created"] = "yesterday".into();
        let ageless = serde_json::to_vec(&[odd]).unwrap();
        let twice = serde_json::to_vec(&[&entry[0], &entry[0]]).unwrap();
        let many = serde_json::to_vec(&vec![&entry[0]; MAX_KEYS + 1]).unwrap();
        for bytes in [
            b"".as_slice(),
            b"[]",
            b"{}",
            br#"[{"pkcs8":"AAAA"}]"#,
            br#"[{"pkcs8":"!"}]"#,
            br#"[{"seed":"AAAA"}]"#,
            &ageless,
            &twice,
            &many,
        ] {
            assert!(SigningKeys::from_stored(bytes).is_err());
        }
    }

    #[test]
    fn no_output_shows_a_private_half() {
        let keys = SigningKeys::generate().unwrap();
        let stored: Vec<StoredKey> = serde_json::from_slice(&keys.to_stored().unwrap()).unwrap();
        let shown = format!("{keys:?}");
        assert!(!shown.contains(&stored[0].pkcs8));
        assert!(shown.len() < 40, "{shown}");
    }
}
