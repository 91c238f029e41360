//! Header fields that stand in ConfigMaps.
//!
//! Which ConfigMaps may hold some is decided by whoever runs Lockgate: it needs a permission for each by its name, and
//! none to read those of applications.

use k8s_openapi::api::core::v1::ConfigMap;
use model::{Filter, HeaderChange};

use crate::configmap::{GlobalHeaders, Globals};
use crate::ingress::Entry;
use crate::report::quoted;
use crate::{NamespacedName, Snapshot, value};

/// Names and values.
pub(crate) type Fields = Vec<(String, String)>;

/// Why a route is closed by a ConfigMap that it needs.
pub(crate) const INVALID_CONFIGMAP: &str = "invalid-configmap";

/// What belongs to the connection or the body is not for anybody to set.
const NOT_TO_BE_SET: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The fields of a ConfigMap, those that can be used and what is wrong with the others; or why there are none.
pub(crate) fn fields(
    name: &NamespacedName,
    globals: &GlobalHeaders,
    snapshot: &Snapshot,
) -> Result<(Fields, Vec<String>), String> {
    let configmap = find(name, globals, snapshot)?;
    let mut fields = Fields::new();
    let mut faults = Vec::new();
    for (name, text) in configmap.data.iter().flatten() {
        match field(name, text) {
            Ok(()) => fields.push((name.clone(), text.trim().to_owned())),
            Err(fault) => faults.push(format!("{}: {fault}", quoted(name))),
        }
    }
    Ok((fields, faults))
}

fn find<'a>(
    name: &NamespacedName,
    globals: &GlobalHeaders,
    snapshot: &'a Snapshot,
) -> Result<&'a ConfigMap, String> {
    if globals
        .readable
        .as_ref()
        .is_some_and(|readable| !readable.contains(name))
    {
        return Err(format!(
            "ConfigMap {name} is not read: `--header-configmaps` does not name it"
        ));
    }
    let found = snapshot.header_configmap(name);
    found.ok_or_else(|| format!("ConfigMap {name} does not exist"))
}

fn field(name: &str, text: &str) -> Result<(), String> {
    value::name(name)?;
    let lower = name.to_ascii_lowercase();
    if NOT_TO_BE_SET.contains(&&*lower) {
        return Err("this header is not to be set".to_owned());
    }
    if lower.contains('_') || lower.contains('.') {
        return Err(
            "it has characters that many programs do not take in the name of a header".to_owned(),
        );
    }
    let text = text.trim();
    if text.is_empty() || text.len() > 4096 {
        return Err("its value is empty, or longer than 4096 bytes".to_owned());
    }
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err("its value has characters that cannot be in it".to_owned());
    }
    Ok(())
}

/// The value has a variable of nginx in it.
fn has_variable(text: &str) -> bool {
    text.split('$')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{'))
}

/// Leaves out what only a request could complete.
pub(crate) fn without_variables(
    (fields, mut faults): (Fields, Vec<String>),
) -> (Fields, Vec<String>) {
    let (with, without): (Fields, Fields) =
        fields.into_iter().partition(|(_, text)| has_variable(text));
    faults.extend(with.into_iter().map(|(name, _)| {
        format!(
            "{}: its value has variables, which are not known here",
            quoted(&name)
        )
    }));
    (without, faults)
}

/// What `custom-headers` of an Ingress adds to responses, or why it cannot be done.
pub(crate) fn custom(
    entry: &Entry,
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<Option<Filter>, String> {
    let Some(name) = entry.header_configmaps.custom.as_deref() else {
        return Ok(None);
    };
    let globals = &globals.headers;
    let (set, faults) = without_variables(fields(name, globals, snapshot)?);
    if let Some(fault) = faults.first() {
        return Err(format!("ConfigMap {name}: {fault}"));
    }
    let allowed = |name: &str| globals.allowed.contains(&name.to_ascii_lowercase());
    if let Some((header, _)) = set.iter().find(|(header, _)| !allowed(header)) {
        return Err(format!(
            "ConfigMap {name}: {} is not in `global-allowed-response-headers`",
            quoted(header)
        ));
    }
    Ok((!set.is_empty()).then(|| {
        Filter::ResponseHeaders(HeaderChange {
            set,
            ..HeaderChange::default()
        })
    }))
}

/// What `auth-proxy-set-headers` of an Ingress adds to questions, or why it cannot be done.
pub(crate) fn asked(
    entry: &Entry,
    globals: &Globals,
    snapshot: &Snapshot,
) -> Result<Fields, String> {
    let Some(name) = entry.header_configmaps.asked.as_deref() else {
        return Ok(Fields::new());
    };
    let (fields, faults) = fields(name, &globals.headers, snapshot)?;
    match faults.first() {
        Some(fault) => Err(format!("ConfigMap {name}: {fault}")),
        None => Ok(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_what_may_stand_in_a_message() {
        for (name, text, good) in [
            ("X-Frame-Options", "DENY", true),
            ("x-a", "b: c; d", true),
            ("X-Empty", " ", false),
            ("X A", "b", false),
            ("X-A", "b\r\nX-B: c", false),
            ("X-A", "caf\u{e9}", false),
            ("X_A", "b", false),
            ("Transfer-Encoding", "chunked", false),
            ("content-length", "0", false),
            ("Host", "a.test", false),
        ] {
            assert_eq!(field(name, text).is_ok(), good, "{name}: {text}");
        }
        for (text, want) in [
            ("a", false),
            ("5$", false),
            ("$5", false),
            ("t=${msec}", true),
            ("$host", true),
        ] {
            assert_eq!(has_variable(text), want, "{text}");
        }
    }
}
