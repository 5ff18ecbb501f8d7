//! Secrets at rest: AES-256-GCM, a data key for each record, sealed by a key-encryption key; the record's name is bound in.
//!
//! Several key-encryption keys may be there at a time, told apart by ids: the first seals, all open. So one is replaced without a moment in which
//! something cannot be read.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac, rand,
};
use ironyard_types::Secret;

/// A sealed record: its data key under a key-encryption key, whose id stands before it, and its secret under the data key; hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Data key.
    pub key: String,
    /// Secret.
    pub secret: String,
}

/// Why nothing could be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file.
    #[error("could not read the key file {0:?}")]
    KeyFile(std::path::PathBuf, #[source] io::Error),
    /// Not 32 bytes.
    #[error("the key file {0:?} must hold 64 hex digits (256 bits)")]
    KeyForm(std::path::PathBuf),
    /// Wrong key, or a changed record.
    #[error("the record cannot be opened with this key")]
    Refused,
    /// Sealed under a key that is not there.
    #[error("the record is sealed under key {0}, which is neither in gateway.key_file nor in gateway.old_key_files")]
    Missing(String),
}

/// One key-encryption key.
struct SealingKey {
    /// The beginning of a digest that says nothing about the key.
    id: String,
    key: RandomizedNonceKey,
    /// A key of its own, derived from the other, for what others are given to show.
    tokens: hmac::Key,
}

impl SealingKey {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::KeyFile(path.to_owned(), e))?;
        let form = || Error::KeyForm(path.to_owned());
        let key = hex::decode(text.trim()).map_err(|_| form())?;
        let derived = |what: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), what);
        let id = hex::encode(derived(b"ironyard sealing key id").as_ref());
        Ok(Self {
            id: id.get(..16).unwrap_or_default().to_owned(),
            key: RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| form())?,
            tokens: hmac::Key::new(hmac::HMAC_SHA256, derived(b"ironyard tokens").as_ref()),
        })
    }

    fn token(&self, record: &str) -> String {
        hex::encode(hmac::sign(&self.tokens, record.as_bytes()).as_ref())
    }
}

impl Sealed {
    /// Id of the key that it is sealed under; empty: by a release that knew no ids.
    pub fn key_id(&self) -> &str {
        self.key.split_once(':').map_or("", |(id, _)| id)
    }
}

/// Holds the key-encryption keys.
pub struct Vault {
    present: SealingKey,
    old: Vec<SealingKey>,
}

impl Vault {
    /// Reads the key files. With `create`, makes the present one (mode 0600) where there is none.
    pub fn open(path: &Path, create: bool, old: &[PathBuf]) -> Result<Self, Error> {
        if create && !path.exists() {
            let mut fresh = [0; 32];
            rand::fill(&mut fresh).map_err(|_| Error::Refused)?;
            create_durably(path, hex::encode(fresh).as_bytes()).map_err(|e| Error::KeyFile(path.to_owned(), e))?;
        }
        Ok(Self {
            present: SealingKey::read(path)?,
            old: old.iter().map(|path| SealingKey::read(path)).collect::<Result<_, _>>()?,
        })
    }

    /// Id of the key that seals.
    pub fn key_id(&self) -> &str {
        &self.present.id
    }

    fn keys(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.present).chain(&self.old)
    }

    /// What nobody can guess who does not hold a key, always the same for one record and key; hex.
    pub fn token(&self, record: &str) -> String {
        self.present.token(record)
    }

    /// The same by any of the keys: what was given before the present one.
    pub fn tokens(&self, record: &str) -> Vec<String> {
        self.keys().map(|key| key.token(record)).collect()
    }

    /// Seals a secret for one record.
    pub fn seal(&self, record: &str, secret: &[u8]) -> Result<Sealed, Error> {
        let mut data_key = [0; 32];
        rand::fill(&mut data_key).map_err(|_| Error::Refused)?;
        let inner = RandomizedNonceKey::new(&AES_256_GCM, &data_key).map_err(|_| Error::Refused)?;
        Ok(Sealed {
            key: self.wrap(record, &data_key)?,
            secret: encrypt(&inner, record, secret)?,
        })
    }

    /// Opens the secret of one record.
    pub fn open_sealed(&self, record: &str, sealed: &Sealed) -> Result<Secret<Vec<u8>>, Error> {
        let data_key = self.unwrap(record, sealed)?;
        let inner = RandomizedNonceKey::new(&AES_256_GCM, data_key.expose()).map_err(|_| Error::Refused)?;
        decrypt(&inner, record, &sealed.secret).map(Secret::new)
    }

    /// Seals the data key of a record under the present key; `None` where it is.
    pub fn rewrap(&self, record: &str, sealed: &Sealed) -> Result<Option<Sealed>, Error> {
        if sealed.key_id() == self.present.id {
            return Ok(None);
        }
        let data_key = self.unwrap(record, sealed)?;
        Ok(Some(Sealed {
            key: self.wrap(record, data_key.expose())?,
            secret: sealed.secret.clone(),
        }))
    }

    fn wrap(&self, record: &str, data_key: &[u8]) -> Result<String, Error> {
        Ok(format!("{}:{}", self.present.id, encrypt(&self.present.key, record, data_key)?))
    }

    fn unwrap(&self, record: &str, sealed: &Sealed) -> Result<Secret<Vec<u8>>, Error> {
        let opened = match sealed.key.split_once(':') {
            Some((id, text)) => {
                let key = self.keys().find(|key| key.id == id).ok_or_else(|| Error::Missing(id.to_owned()))?;
                decrypt(&key.key, record, text)
            }
            None => {
                let mut tried = self.keys().map(|key| decrypt(&key.key, record, &sealed.key));
                tried.find(Result::is_ok).unwrap_or(Err(Error::Refused))
            }
        };
        opened.map(Secret::new)
    }
}

/// Makes a file that is whole or not there, also after a power cut: what is sealed with a key that is lost can never be opened.
fn create_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut options = File::options();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    out.write_all(content)?;
    out.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn encrypt(key: &RandomizedNonceKey, record: &str, plain: &[u8]) -> Result<String, Error> {
    let mut out = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(record.as_bytes()), &mut out)
        .map_err(|_| Error::Refused)?;
    Ok(format!("{}{}", hex::encode(nonce.as_ref()), hex::encode(out)))
}

fn decrypt(key: &RandomizedNonceKey, record: &str, text: &str) -> Result<Vec<u8>, Error> {
    let bytes = hex::decode(text).map_err(|_| Error::Refused)?;
    let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or(Error::Refused)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Refused)?;
    let mut sealed = sealed.to_vec();
    let plain = key
        .open_in_place(nonce, Aad::from(record.as_bytes()), &mut sealed)
        .map_err(|_| Error::Refused)?;
    Ok(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_only_under_its_own_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(Vault::open(&path, false, &[]).is_err());
        let vault = Vault::open(&path, true, &[]).unwrap();
        let sealed = vault.seal("a", b"secret").unwrap();
        assert!(!sealed.secret.contains("secret") && sealed != vault.seal("a", b"secret").unwrap());
        let again = Vault::open(&path, true, &[]).unwrap();
        assert_eq!(again.open_sealed("a", &sealed).unwrap().expose(), b"secret");
        assert!(again.open_sealed("b", &sealed).is_err());
        std::fs::write(&path, "00".repeat(32)).unwrap();
        let other = Vault::open(&path, false, &[]).unwrap();
        assert!(matches!(other.open_sealed("a", &sealed), Err(Error::Missing(id)) if id == vault.key_id()));
    }

    #[test]
    fn a_key_is_replaced_while_everything_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        let old = Vault::open(&first, true, &[]).unwrap();
        let sealed = old.seal("a", b"secret").unwrap();
        assert!(old.rewrap("a", &sealed).unwrap().is_none());
        // As a release sealed that knew no ids.
        let plain = Sealed {
            key: sealed.key.split_once(':').unwrap().1.to_owned(),
            ..sealed.clone()
        };
        assert_eq!(plain.key_id(), "");
        let both = Vault::open(&second, true, std::slice::from_ref(&first)).unwrap();
        assert_ne!(both.key_id(), old.key_id());
        assert!(both.tokens("t").contains(&old.token("t")) && both.token("t") != old.token("t"));
        for before in [&sealed, &plain] {
            assert_eq!(both.open_sealed("a", before).unwrap().expose(), b"secret");
            assert!(both.rewrap("b", before).is_err(), "only under its own name");
            let after = both.rewrap("a", before).unwrap().unwrap();
            assert_eq!((after.key_id(), &after.secret), (both.key_id(), &before.secret));
            let alone = Vault::open(&second, false, &[]).unwrap();
            assert_eq!(alone.open_sealed("a", &after).unwrap().expose(), b"secret");
            assert!(alone.open_sealed("a", before).is_err() && alone.rewrap("a", before).is_err());
        }
    }
}
