//! Manifests as text, and certificates for them.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;

/// The class that all Ingresses here name comes with the folder source.
pub(crate) fn ingress(name: &str, host: &str, paths: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: test}}
spec:
  ingressClassName: lockgate
  rules:
  - host: {host}
    http:
      paths:
"
    );
    for (path, service) in paths {
        let _ = writeln!(
            text,
            "      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}"
        );
    }
    text
}

/// The same with TLS from the Secret `secret`.
pub(crate) fn ingress_tls(name: &str, host: &str, service: &str, secret: &str) -> String {
    let text = ingress(name, host, &[("/", service)]);
    format!("{text}  tls:\n  - {{hosts: [{host}], secretName: {secret}}}\n")
}

/// A Service with endpoints on this machine.
pub(crate) fn service(name: &str, ports: &[u16]) -> String {
    let mut text = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: test}}
spec: {{ports: [{{name: web, port: 80}}]}}
"
    );
    for (number, port) in ports.iter().enumerate() {
        let _ = write!(
            text,
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{number}, namespace: test, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: web, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]
"
        );
    }
    text
}

/// A Secret with certificate and key.
pub(crate) fn secret(name: &str, pair: &Pair) -> String {
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: test}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
        indented(&pair.certificate),
        indented(&pair.key)
    )
}

/// Certificate and key in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The certificate in DER.
    pub(crate) der: Vec<u8>,
}

/// Signs certificates that the clients here trust.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Feature tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A new certificate for a host.
    pub(crate) fn sign(&self, host: &str) -> Pair {
        self.sign_numbered(host, None)
    }

    /// The same with this serial number.
    pub(crate) fn sign_numbered(&self, host: &str, serial: Option<u64>) -> Pair {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.serial_number = serial.map(SerialNumber::from);
        self.issue(&params)
    }

    /// The same, valid from so many days before today to as many days after it.
    pub(crate) fn sign_for_days(&self, host: &str, days: u32) -> Pair {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let epoch = date_time_ymd(1970, 1, 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let time = Duration::from_hours(24) * days;
        params.not_before = epoch + now - time;
        params.not_after = epoch + now + time;
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }

    /// Its own certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A list that takes certificates back, good until the beginning of a year, in PEM.
    pub(crate) fn takes_back(&self, serials: &[u64], year: i32) -> String {
        self.takes_back_from(2020, serials, year)
    }

    /// The same, good from the beginning of another year.
    pub(crate) fn takes_back_from(&self, first_year: i32, serials: &[u64], year: i32) -> String {
        let begun = date_time_ymd(first_year, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: begun,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: begun,
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// What a client needs to trust it.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }
}
