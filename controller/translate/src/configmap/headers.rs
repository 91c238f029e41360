//! Headers of all requests and responses.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Fault;
use crate::headers::Fields;
use crate::report::quoted;
use crate::{NamespacedName, policy, value};

/// Headers that stand in other ConfigMaps.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct GlobalHeaders {
    /// The ConfigMaps that may hold some; `None` for all. Not a setting of the ConfigMap.
    pub(crate) readable: Option<Arc<BTreeSet<NamespacedName>>>,
    /// Headers that an Ingress may add to responses, in lower case.
    pub(crate) allowed: BTreeSet<String>,
    /// Whose headers every request to a backend gets.
    pub(crate) request_from: Option<NamespacedName>,
    /// Whose headers every response gets.
    pub(crate) response_from: Option<NamespacedName>,
    /// Headers of backends that no client gets.
    pub(crate) hidden: Vec<String>,
    /// What these two ConfigMaps say.
    pub(crate) request: Fields,
    pub(crate) response: Fields,
}

/// Takes a key that is about headers.
pub(super) fn set(headers: &mut GlobalHeaders, key: &str, text: &str) -> Result<(), Fault> {
    match key {
        "add-headers" => headers.response_from = configmap_name(text)?,
        "global-allowed-response-headers" => headers.allowed = allowed_headers(text)?,
        "hide-headers" => return hidden_headers(text, &mut headers.hidden),
        "proxy-set-headers" => headers.request_from = configmap_name(text)?,
        _ => return Err(Fault::Unknown),
    }
    Ok(())
}

/// The name of another ConfigMap; nothing where there is none.
fn configmap_name(text: &str) -> Result<Option<NamespacedName>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match value::object(text)? {
        (Some(namespace), name) => Ok(Some(NamespacedName::new(&namespace, &name))),
        (None, _) => Err("it is not `namespace/name`".to_owned()),
    }
}

/// The others are hidden where one cannot be.
fn hidden_headers(text: &str, hidden: &mut Vec<String>) -> Result<(), Fault> {
    let mut faults = Vec::new();
    for header in value::list(text) {
        match policy::header_name(header) {
            Ok(name) => hidden.push(name),
            Err(reason) => faults.push(format!("{}: {reason}", quoted(header))),
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let faults = faults.join("; ");
    Err(Fault::Partly(format!("{faults}; the others are hidden")))
}

fn allowed_headers(text: &str) -> Result<BTreeSet<String>, String> {
    value::list(text)
        .map(|header| value::name(header).map(|header| header.to_ascii_lowercase()))
        .collect()
}
