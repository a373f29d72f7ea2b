//! Our own certificate, read again when its files change.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use tracing::{info, warn};

use super::{IdentityFiles, TlsError, certified_key};
use crate::clock;

/// The files are looked at no more often than this.
const LOOK_INTERVAL_NS: u64 = 1_000_000_000;
/// Larger files are not read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Shows our certificate to a peer that asks for it.
#[derive(Debug)]
pub(super) struct Identity {
    files: IdentityFiles,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    /// Of the files that it was read from.
    stamps: Option<Stamps>,
    /// Of files that were found unusable, and said so once.
    refused: Option<Stamps>,
    looked_ns: u64,
    /// How often it has changed.
    changes: u64,
}

/// What tells a changed file.
type Stamps = [(SystemTime, u64); 2];

impl Identity {
    /// Checks that the key is the certificate's.
    pub(super) fn new(files: IdentityFiles, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let certified = certified_key(&provider, &files.cert, &files.key)?;
        let current =
            Current { certified, stamps: stamps(&files).ok(), refused: None, looked_ns: clock::now_ns(), changes: 0 };
        Ok(Self { files, provider, current: Mutex::new(current) })
    }

    /// Looks whether the files have changed, and takes what they hold now; while they are unusable, as between the
    /// writing of one and of the other, what they held before stays. Returns how often there was something new.
    pub(super) fn renew(&self, now_ns: u64) -> u64 {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ns.saturating_sub(current.looked_ns) < LOOK_INTERVAL_NS {
            return current.changes;
        }
        current.looked_ns = now_ns;
        let found = stamps(&self.files).ok();
        if found.is_none() || found == current.stamps || found == current.refused {
            return current.changes;
        }
        let cert_file = self.files.cert_file.display();
        match self.read() {
            Ok(certified) => {
                info!(%cert_file, "the client certificate changed");
                (current.certified, current.stamps) = (certified, found);
                current.changes += 1;
            }
            Err(error) => {
                warn!(%cert_file, error, "the client certificate changed, but can't be used; the old one stays");
                current.refused = found;
            }
        }
        current.changes
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, String> {
        let read = |path: &Path| {
            let bytes = if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
                Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"))
            } else {
                std::fs::read(path)
            };
            bytes.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        let files = read(&self.files.cert_file).and_then(|cert| Ok((cert, read(&self.files.key_file)?)));
        let (cert, key) = files.map_err(|error| error.to_string())?;
        certified_key(&self.provider, &cert, &key).map_err(|error| error.to_string())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certified = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).certified);
        // A key that can't sign in a way that the peer accepts is none to it.
        certified.key.choose_scheme(schemes).is_some().then_some(certified)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn stamps(files: &IdentityFiles) -> io::Result<Stamps> {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path)?;
        io::Result::Ok((metadata.modified()?, metadata.len()))
    };
    Ok([stamp(&files.cert_file)?, stamp(&files.key_file)?])
}
