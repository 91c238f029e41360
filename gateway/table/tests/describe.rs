//! The description of a table, as debug pages print it.

mod common;

use std::sync::Arc;

use model::{
    Backend, BackendProtocol, CertificateId, Endpoint, EndpointSet, KeyAlgorithm, RouteMatch,
    TlsPolicy,
};
use serde_json::{Value, json};
use table::compile;

use crate::common::{
    add_host, backend, certificate, empty_model, origin, path, pattern, route, tls_host,
};

#[test]
fn a_description_tells_all_but_the_keys() {
    let mut model = empty_model();
    let routes = ["/", "/long", "= /long"].map(|text| route(RouteMatch::path(path(text)), "web"));
    add_host(&mut model, "a.test", routes.into());
    let lasting = Backend {
        protocol: BackendProtocol::H2c,
        seed: None,
        health: None,
        origin: origin(""),
    };
    model.backends.insert(backend("web"), Arc::new(lasting));
    let endpoints = vec![Endpoint::new(([10, 0, 0, 1], 80).into())];
    let endpoints = EndpointSet::Addresses(endpoints);
    model.endpoints.insert(backend("web"), Arc::new(endpoints));
    let key = certificate(KeyAlgorithm::Ecdsa, &["a.test"], "abc");
    let secret = key.key.der.expose().clone();
    let id = CertificateId::new("shop/tls");
    model.certificates.insert(id, Arc::new(key));
    let tls = tls_host(&["shop/tls"], TlsPolicy::default());
    model.tls_hosts.insert(pattern("a.test"), tls);

    let text = serde_json::to_string(&compile(&model).table.describe()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let paths: Vec<_> = value["hosts"]["a.test"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| &route["matches"]["path"])
        .collect();
    assert_eq!(
        paths,
        [
            &json!({"exact": "/long"}),
            &json!({"prefix": "/long"}),
            &json!({"prefix": "/"})
        ],
        "the most specific first"
    );
    assert_eq!(
        value["backends"]["shop/web:http"],
        json!({"protocol": "h2c", "endpoints": {"addresses": [{"address": "10.0.0.1:80"}]}})
    );
    assert_eq!(
        value["tls"]["a.test"]["certificates"],
        json!([["shop/tls", "abc"]])
    );
    let expiry = &value["certificates"]["shop/tls"]["not_after"];
    assert_eq!(expiry, &json!(u32::MAX));
    // However bytes might have been written.
    let digits = secret.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect();
    let list = serde_json::to_string(&secret).unwrap();
    assert!(!text.contains(&hex) && !text.contains(list.trim_matches(['[', ']'])));
}
