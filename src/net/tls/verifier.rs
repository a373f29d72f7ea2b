//! Judges the peer's certificate, and remembers when it expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// rustls's own verifier, or with `insecure` one that accepts every certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    judge: Arc<WebPkiServerVerifier>,
    insecure: bool,
    not_after: Arc<AtomicU64>,
}

impl Verifier {
    /// `not_after` takes the expiry of every certificate that is shown, in seconds since 1970.
    pub(super) fn new(judge: Arc<WebPkiServerVerifier>, insecure: bool, not_after: Arc<AtomicU64>) -> Self {
        Self { judge, insecure, not_after }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Noted also for one that is refused: an expired certificate above all.
        if let Some(seconds) = expiry(end_entity) {
            self.not_after.store(seconds, Ordering::Relaxed);
        }
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.insecure {
            // Old certificates have forms and keys that the judge does not know.
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.judge.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.insecure {
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.judge.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// When a certificate expires, in seconds since 1970.
fn expiry(certificate: &[u8]) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}
