//! TLS: whom we trust, who we are, and what came of a handshake.
//!
//! Trust comes from the system's roots, read again with the configuration, or from the Mozilla list built in where the
//! system has none; a CA file replaces both. Sessions are resumed, but at least once an hour the peer has to show its certificate again, so that one which
//! expired or was replaced is noticed; and our own is shown again as soon as it has changed.

mod identity;
mod verifier;

use std::cell::OnceCell;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::identity::Identity;
use self::verifier::Verifier;
use super::{Fault, Socket};
use crate::clock;
use crate::outcome::{Reason, labels};
use crate::stats::CloseReason;

/// How long sessions are resumed before the peer has to show its certificate again.
const MAX_RESUMED_NS: u64 = 3_600_000_000_000;

labels! {
    /// A version of TLS.
    TlsVersion {
        /// RFC 5246.
        V12 => "1.2",
        /// RFC 8446.
        V13 => "1.3",
    }
}

/// How a target's connections are secured: plain values, as the configuration has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSpec {
    /// The name that the certificate must be for, and the one that is asked for.
    pub server_name: String,
    /// The only certificates to trust, as a file and its PEM; `None` for the system's.
    pub ca: Option<(PathBuf, Bytes)>,
    /// Who we are, if the peer asks.
    pub identity: Option<IdentityFiles>,
    /// The lowest version accepted.
    pub min_version: TlsVersion,
    /// Accepts any certificate.
    pub insecure_skip_verify: bool,
    /// Whether sessions are resumed.
    pub resumption: bool,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Protocols to offer, the best first (RFC 7301).
    pub alpn: Vec<&'static [u8]>,
}

/// A certificate chain and its private key, and the files that they are read from again when those change.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Where the chain is.
    pub cert_file: PathBuf,
    /// Where the key is.
    pub key_file: PathBuf,
    /// The chain as PEM, our own certificate first.
    pub cert: Bytes,
    /// The key as PEM.
    pub key: Bytes,
}

/// What is wrong with a [`TlsSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsError {
    /// The server's name is none.
    ServerName(String),
    /// The CA certificates can't be used.
    Ca(String),
    /// Our certificate can't be used.
    Cert(String),
    /// Our key can't be used, or is not the certificate's.
    Key(String),
}

/// The system's roots as a load of the configuration finds them: read once for it, and only if a target needs them.
#[derive(Default)]
pub struct SystemRoots(OnceCell<Arc<RootCertStore>>);

/// Secures connections of one target; shared by its workers.
pub struct Tls {
    spec: TlsSpec,
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
    identity: Option<Arc<Identity>>,
    in_use: Mutex<InUse>,
    peer_not_after: Arc<AtomicU64>,
}

/// The configuration in use, and with whom its memory of sessions began, and when.
struct InUse {
    config: Arc<ClientConfig>,
    identity: u64,
    since_ns: u64,
}

impl Tls {
    /// Checks a specification and prepares what it says.
    pub fn new(spec: TlsSpec, system: &SystemRoots) -> Result<Self, TlsError> {
        let name = ServerName::try_from(spec.server_name.clone());
        let name = name.map_err(|error| TlsError::ServerName(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let peer_not_after = Arc::new(AtomicU64::new(0));
        let roots = match &spec.ca {
            Some((_, pem)) => roots_of(pem)?,
            None => system.get(),
        };
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let judge = judge.map_err(|error| TlsError::Ca(error.to_string()))?;
        let verifier = Verifier::new(judge, spec.insecure_skip_verify, Arc::clone(&peer_not_after));
        let versions: &[_] = match spec.min_version {
            TlsVersion::V12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::Ca(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let identity = spec.identity.clone().map(|files| Identity::new(files, Arc::clone(&provider)).map(Arc::new));
        let identity = identity.transpose()?;
        let mut config = match &identity {
            Some(identity) => builder.with_client_cert_resolver(Arc::<Identity>::clone(identity)),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = spec.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = if spec.resumption { sessions() } else { Resumption::disabled() };
        let in_use = Mutex::new(InUse { config: Arc::new(config), identity: 0, since_ns: clock::now_ns() });
        Ok(Self { spec, roots, name, identity, in_use, peer_not_after })
    }

    /// What it was made from.
    pub fn spec(&self) -> &TlsSpec {
        &self.spec
    }

    /// When the certificate that the peer showed last expires, in seconds since 1970; 0 before it has shown one.
    pub fn peer_not_after(&self) -> u64 {
        self.peer_not_after.load(Ordering::Relaxed)
    }

    /// Whether a connection that this one secured is as good as one that `other` would. How long a handshake may take, and
    /// whether sessions are resumed, makes no difference to it.
    pub fn secures_as(&self, other: &Self) -> bool {
        let TlsSpec { resumption, handshake_timeout, .. } = self.spec;
        let spec = TlsSpec { resumption, handshake_timeout, ..other.spec.clone() };
        self.spec == spec && self.has_roots_of(other)
    }

    fn has_roots_of(&self, other: &Self) -> bool {
        // Those of a CA file are compared with the specification.
        self.spec.ca.is_some() || Arc::ptr_eq(&self.roots, &other.roots)
    }

    /// Secures a connection.
    pub async fn handshake(&self, socket: Socket) -> Result<TlsStream<Socket>, Fault> {
        let (connector, fate) = (TlsConnector::from(self.config(clock::now_ns())), socket.fate());
        // Until it is over, whoever waits for it may be cut off.
        fate.close_reason.set(CloseReason::Canceled);
        // One that fails gives the socket back, so that its end is counted as what it is.
        let mut connecting = pin!(connector.connect(self.name.clone(), socket).into_fallible());
        let connected = timeout(self.spec.handshake_timeout, &mut connecting).await;
        fate.close_reason.set(CloseReason::Failed);
        match connected {
            Ok(Ok(stream)) => {
                fate.close_reason.set(CloseReason::Peer);
                Ok(stream)
            }
            Ok(Err((error, _closed_now))) => Err(Fault::new(reason_of_io(&error), error)),
            Err(_) => {
                let text = format!("no TLS handshake within {:?}", self.spec.handshake_timeout);
                Err(Fault::new(Reason::TlsTimeout, text))
            }
        }
    }

    pub(super) fn config(&self, now_ns: u64) -> Arc<ClientConfig> {
        let identity = self.identity.as_ref().map_or(0, |identity| identity.renew(now_ns));
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        // A resumed session would go on in the name of the certificate that it began with.
        let outdated = identity != in_use.identity || now_ns.saturating_sub(in_use.since_ns) > MAX_RESUMED_NS;
        if self.spec.resumption && outdated {
            let mut forgetful = ClientConfig::clone(&in_use.config);
            forgetful.resumption = sessions();
            *in_use = InUse { config: Arc::new(forgetful), identity, since_ns: now_ns };
        }
        Arc::clone(&in_use.config)
    }
}

/// Memory for the sessions of one server.
fn sessions() -> Resumption {
    Resumption::in_memory_sessions(2)
}

/// What the loads so far have found.
static LATEST_ROOTS: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);

impl SystemRoots {
    /// The system's roots, or the built-in ones where there have never been any. As long as they hold the same they are the
    /// same, so that who compares need not look inside.
    fn get(&self) -> Arc<RootCertStore> {
        let read = || {
            let mut found = RootCertStore::empty();
            found.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            let mut latest = LATEST_ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(latest) = &*latest
                && (found.is_empty() || found.roots == latest.roots)
            {
                return Arc::clone(latest);
            }
            if found.is_empty() {
                found.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            Arc::clone(latest.insert(Arc::new(found)))
        };
        Arc::clone(self.0.get_or_init(read))
    }
}

fn roots_of(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(TlsError::Ca)? {
        roots.add(certificate).map_err(|error| TlsError::Ca(error.to_string()))?;
    }
    Ok(Arc::new(roots))
}

/// The certificates of a PEM text, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is not valid PEM: {}", pem_fault(&error))),
    }
}

fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins in no way that is known".to_owned(),
        other => other.to_string(),
    }
}

/// Why a PEM text holds no key that can be used.
fn key_fault(key: &[u8]) -> &'static str {
    // In the name of the section, or, in the older way, in a line below it.
    if key.windows(9).any(|word| word == b"ENCRYPTED") {
        "it is encrypted, and nobody is there to tell the passphrase: it must be stored decrypted"
    } else {
        "it holds no private key in PEM"
    }
}

/// The key of a PEM text, ready to sign for a chain of certificates.
fn certified_key(
    provider: &CryptoProvider,
    cert: &[u8],
    key: &[u8],
) -> Result<Arc<rustls::sign::CertifiedKey>, TlsError> {
    let chain = certificates(cert).map_err(TlsError::Cert)?;
    let parsed = rustls::pki_types::PrivateKeyDer::from_pem_slice(key);
    let key = parsed.map_err(|_| TlsError::Key(key_fault(key).to_owned()))?;
    match rustls::sign::CertifiedKey::from_der(chain, key, provider) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Key(
            "it is not the key of the certificate in cert_file, the first where there are several".to_owned(),
        )),
        Err(error @ rustls::Error::InvalidCertificate(_)) => Err(TlsError::Cert(error.to_string())),
        Err(error) => Err(TlsError::Key(error.to_string())),
    }
}

/// The reason behind an error of a secured connection, in the handshake.
fn reason_of_io(error: &std::io::Error) -> Reason {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return reason_of(error);
    }
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Reason::Eof,
        std::io::ErrorKind::ConnectionReset
        | std::io::ErrorKind::ConnectionAborted
        | std::io::ErrorKind::BrokenPipe => Reason::Reset,
        _ => Reason::Io,
    }
}

/// The reason behind an error of TLS, whether it comes in the handshake or, as a refusal of our certificate does in TLS
/// 1.3, with the first read after it.
pub fn reason_of(error: &rustls::Error) -> Reason {
    use AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Reason::TlsCertificate,
        rustls::Error::AlertReceived(
            Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Reason::TlsCertificate,
        _ => Reason::TlsProtocol,
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec && self.has_roots_of(other)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

impl fmt::Debug for IdentityFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFiles")
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::ServerName(why) | Self::Ca(why) | Self::Cert(why) | Self::Key(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for TlsError {}
