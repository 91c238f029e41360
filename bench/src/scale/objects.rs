//! Objects in the number that was asked for.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};
use translate::Object;

use crate::certs::{Authority, Leaf};

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Ingresses, each with a host, two paths and a Service of its own.
    pub ingresses: usize,
    /// Endpoints of all Services together.
    pub endpoints: usize,
    /// Certificates; the first Ingresses have TLS.
    pub certificates: usize,
}

/// Makes the objects of one number.
#[derive(Debug)]
pub struct Objects {
    size: Size,
    authority: Authority,
}

impl Objects {
    /// For this many.
    pub fn new(size: Size) -> Result<Self> {
        Ok(Self {
            size,
            authority: Authority::new("Scale authority")?,
        })
    }

    /// Every object, one after the other.
    pub fn all(&self) -> impl Iterator<Item = Result<Value>> + '_ {
        self.all_but_secrets().chain(self.secrets())
    }

    /// Every Secret.
    pub fn secrets(&self) -> impl Iterator<Item = Result<Value>> + '_ {
        (0..self.size.certificates.min(self.size.ingresses)).map(|number| {
            let (value, _) = self.secret(number, 0)?;
            Ok(value)
        })
    }

    /// Every other object.
    pub fn all_but_secrets(&self) -> impl Iterator<Item = Result<Value>> + '_ {
        let class = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "lockgate"},
            "spec": {"controller": "lockgate.dev/ingress-controller"},
        });
        let services = (0..self.size.ingresses).flat_map(|number| {
            [
                Ok(service(number)),
                Ok(self.slice(number, 0)),
                Ok(self.ingress(number, 0)),
            ]
        });
        std::iter::once(Ok(class)).chain(services)
    }

    /// The Ingress of this number; its second path depends on the revision.
    pub fn ingress(&self, number: usize, revision: usize) -> Value {
        let host = host(number);
        let name = format!("app-{number}");
        let backend = json!({"service": {"name": name, "port": {"number": 80}}});
        let mut value = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"namespace": namespace(number), "name": name, "uid": format!("ingress-{number}")},
            "spec": {
                "ingressClassName": "lockgate",
                "rules": [{"host": host, "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": backend},
                    {"path": path(revision), "pathType": "Exact", "backend": backend},
                ]}}],
            },
        });
        if number < self.size.certificates
            && let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut)
        {
            let tls = json!([{"hosts": [host], "secretName": format!("app-{number}-tls")}]);
            spec.insert("tls".to_owned(), tls);
        }
        value
    }

    /// The endpoints of the Service of this number; the last address depends on the revision.
    pub fn slice(&self, number: usize, revision: usize) -> Value {
        let first = number * self.size.endpoints / self.size.ingresses;
        let end = (number + 1) * self.size.endpoints / self.size.ingresses;
        let endpoints: Vec<Value> = (first..end)
            .map(|index| {
                let revision = if index + 1 == end { revision } else { 0 };
                json!({"addresses": [address(index, revision).to_string()], "conditions": {"ready": true}})
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": namespace(number),
                "name": format!("app-{number}-1"),
                "labels": {"kubernetes.io/service-name": format!("app-{number}")},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        })
    }

    /// The last address of a slice in a revision.
    pub fn last_address(&self, number: usize, revision: usize) -> Ipv4Addr {
        let end = (number + 1) * self.size.endpoints / self.size.ingresses;
        address(end - 1, revision)
    }

    /// The Secret of this number, with a new certificate.
    pub fn secret(&self, number: usize, revision: usize) -> Result<(Value, Leaf)> {
        let organization = format!("revision {revision}");
        let leaf = self.authority.issue(&[host(number)], Some(&organization))?;
        let value = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"namespace": namespace(number), "name": format!("app-{number}-tls")},
            "data": {
                "tls.crt": STANDARD.encode(&leaf.certificate_pem),
                "tls.key": STANDARD.encode(&leaf.key_pem),
            },
        });
        Ok((value, leaf))
    }
}

/// The host of an Ingress.
pub(crate) fn host(number: usize) -> String {
    format!("app-{number}.scale.test")
}

/// The path that an Ingress has in this revision.
pub(crate) fn path(revision: usize) -> String {
    format!("/revision/{revision}")
}

fn namespace(number: usize) -> String {
    format!("team-{}", number % 100)
}

/// Revisions are in the second byte, numbers in the other two.
fn address(index: usize, revision: usize) -> Ipv4Addr {
    let [.., high, low] = index.to_be_bytes();
    let [.., revision] = revision.to_be_bytes();
    Ipv4Addr::new(10, revision, high, low)
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace(number), "name": format!("app-{number}")},
        "spec": {
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

/// The object that a value describes.
pub(crate) fn typed(value: Value) -> Result<Object> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    Ok(match kind {
        "IngressClass" => Object::IngressClass(from::<IngressClass>(value)?),
        "Ingress" => Object::Ingress(from::<Ingress>(value)?),
        "Service" => Object::Service(from::<Service>(value)?),
        "EndpointSlice" => Object::EndpointSlice(from::<EndpointSlice>(value)?),
        "Secret" => Object::Secret(from::<Secret>(value)?),
        other => anyhow::bail!("no object of kind `{other}` is made here"),
    })
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> Result<Box<T>> {
    let object = serde_json::from_value(value).context("an object made here is not valid")?;
    Ok(Box::new(object))
}
