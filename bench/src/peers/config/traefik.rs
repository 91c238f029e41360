//! Traefik.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::Result;
use serde_json::{Value, json};

use super::{KEPT, Setting, To, arguments};

/// Writes the configuration; gives the arguments.
pub(in crate::peers) fn traefik(setting: &Setting<'_>) -> Result<Vec<OsString>> {
    let mut routers = BTreeMap::new();
    for (number, rule) in setting.rules().into_iter().enumerate() {
        let entry = |point: &str| {
            json!({
                "entryPoints": [point],
                "rule": format!("Host(`{}`) && PathPrefix(`{}`)", rule.host, rule.path),
                "service": rule.to.name(),
            })
        };
        routers.insert(format!("http-{number}"), entry("http"));
        let mut secure = entry("https");
        if let Some(fields) = secure.as_object_mut() {
            fields.insert("tls".to_owned(), json!({}));
        }
        routers.insert(format!("https-{number}"), secure);
    }
    let services: BTreeMap<&str, Value> = To::ALL
        .into_iter()
        .map(|to| {
            let scheme = if to == To::Grpc { "h2c" } else { "http" };
            let url = format!("{scheme}://{}", setting.address(to));
            (
                to.name(),
                json!({"loadBalancer": {"servers": [{"url": url}]}}),
            )
        })
        .collect();
    let certificates: Vec<Value> = setting
        .key_files()?
        .iter()
        .map(|files| json!({"certFile": files.certificate, "keyFile": files.key}))
        .collect();
    let table = json!({
        "http": {"routers": routers, "services": services},
        "tls": {"certificates": certificates, "options": {"default": {"minVersion": "VersionTLS12"}}},
    });
    // JSON is YAML.
    let table = setting.write("routes.yaml", &table.to_string())?;
    let listening = |address| {
        json!({
            "address": address,
            "transport": {"respondingTimeouts": {"readTimeout": "300s", "idleTimeout": "300s"}},
        })
    };
    let mut fixed = json!({
        "global": {"checkNewVersion": false, "sendAnonymousUsage": false},
        "log": {"level": "ERROR"},
        "entryPoints": {"http": listening(setting.http), "https": listening(setting.https)},
        "serversTransport": {"maxIdleConnsPerHost": KEPT},
        "providers": {"file": {"filename": table, "watch": false}},
    });
    if let (true, Some(fields)) = (setting.logged, fixed.as_object_mut()) {
        fields.insert(
            "accessLog".to_owned(),
            json!({"filePath": setting.log_file()}),
        );
    }
    let file = setting.write("traefik.yaml", &fixed.to_string())?;
    Ok(arguments(["--configFile".as_ref(), file.as_ref()]))
}
