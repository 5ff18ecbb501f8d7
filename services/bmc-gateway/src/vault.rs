//! Secrets at rest: AES-256-GCM, a data key for each record, sealed by the key-encryption key; the record's name is bound in.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac, rand,
};
use ironyard_types::Secret;

/// A sealed record: its data key under the key-encryption key, its secret under the data key; hex.
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
}

/// Holds the key-encryption key.
pub struct Vault {
    key: RandomizedNonceKey,
    /// A key of its own, derived from the other, for what others are given to show.
    tokens: hmac::Key,
}

impl Vault {
    /// Reads the key file. With `create`, makes one (mode 0600) where there is none.
    pub fn open(path: &Path, create: bool) -> Result<Self, Error> {
        let file = |e| Error::KeyFile(path.to_owned(), e);
        if create && !path.exists() {
            let mut fresh = [0; 32];
            rand::fill(&mut fresh).map_err(|_| Error::Refused)?;
            create_durably(path, hex::encode(fresh).as_bytes()).map_err(file)?;
        }
        let text = std::fs::read_to_string(path).map_err(file)?;
        let form = || Error::KeyForm(path.to_owned());
        let key = hex::decode(text.trim()).map_err(|_| form())?;
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), b"ironyard tokens");
        Ok(Self {
            key: RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| form())?,
            tokens: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
        })
    }

    /// What nobody can guess who does not hold the key, always the same for one record; hex.
    pub fn token(&self, record: &str) -> String {
        hex::encode(hmac::sign(&self.tokens, record.as_bytes()).as_ref())
    }

    /// Seals a secret for one record.
    pub fn seal(&self, record: &str, secret: &[u8]) -> Result<Sealed, Error> {
        let mut data_key = [0; 32];
        rand::fill(&mut data_key).map_err(|_| Error::Refused)?;
        let inner = RandomizedNonceKey::new(&AES_256_GCM, &data_key).map_err(|_| Error::Refused)?;
        Ok(Sealed {
            key: encrypt(&self.key, record, &data_key)?,
            secret: encrypt(&inner, record, secret)?,
        })
    }

    /// Opens the secret of one record.
    pub fn open_sealed(&self, record: &str, sealed: &Sealed) -> Result<Secret<Vec<u8>>, Error> {
        let data_key = decrypt(&self.key, record, &sealed.key)?;
        let inner = RandomizedNonceKey::new(&AES_256_GCM, &data_key).map_err(|_| Error::Refused)?;
        decrypt(&inner, record, &sealed.secret).map(Secret::new)
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
        assert!(Vault::open(&path, false).is_err());
        let vault = Vault::open(&path, true).unwrap();
        let sealed = vault.seal("a", b"secret").unwrap();
        assert!(!sealed.secret.contains("secret") && sealed != vault.seal("a", b"secret").unwrap());
        let again = Vault::open(&path, true).unwrap();
        assert_eq!(again.open_sealed("a", &sealed).unwrap().expose(), b"secret");
        assert!(again.open_sealed("b", &sealed).is_err());
        std::fs::write(&path, "00".repeat(32)).unwrap();
        assert!(Vault::open(&path, false).unwrap().open_sealed("a", &sealed).is_err());
    }
}
