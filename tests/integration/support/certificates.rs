//! Certificates of a test's own, valid or not.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// A day: year, month, day of the month.
pub(crate) type Day = (i32, u8, u8);

/// The days between which a certificate is valid, for which every clock of a test is.
pub(crate) const VALID: (Day, Day) = ((2020, 1, 1), (2120, 1, 1));
/// The days of one that is valid no more.
pub(crate) const EXPIRED: (Day, Day) = ((2020, 1, 1), (2021, 2, 3));
/// The days of one that is not valid yet.
pub(crate) const NOT_YET_VALID: (Day, Day) = ((2119, 1, 1), (2120, 4, 5));

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its private key, as PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// The certificate.
    pub(crate) cert: String,
    /// Its key.
    pub(crate) key: String,
}

impl Authority {
    /// A new one; nobody trusts it yet.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[], name, VALID);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, for those who trust it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A server's certificate for these names or addresses, valid.
    pub(crate) fn server(&self, names: &[&str]) -> Certificate {
        self.server_valid(names, VALID)
    }

    /// A server's certificate, valid between these days.
    pub(crate) fn server_valid(&self, names: &[&str], days: (Day, Day)) -> Certificate {
        let mut params = params(names, "server", days);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// A client's certificate, valid, with this as its common name.
    pub(crate) fn client(&self, name: &str) -> Certificate {
        let mut params = params(&[], name, VALID);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Certificate { cert, key: key.serialize_pem() }
    }
}

/// The first second of a day, since 1970.
pub(crate) fn seconds((year, month, day): Day) -> f64 {
    date_time_ymd(year, month, day).unix_timestamp() as f64
}

fn params(names: &[&str], common_name: &str, (from, to): (Day, Day)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(from.0, from.1, from.2);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    params
}
