//! Cross-origin requests.

use model::HostName;

use super::super::{Annotation, Annotations, Group, Risk, Scope, Value};
use crate::report::quoted;
use crate::value;

/// Cross-origin requests.
pub(super) static CORS: &[Annotation] = &[
    Annotation::honoured("enable-cors", Value::Boolean, |read, text| value::boolean(text).map(|v| read.cors().enabled = v)).by_default("false").scope(Scope::Ingress).about(Group::Cors, "Answers preflight requests and adds the headers of CORS."),
    Annotation::different("cors-allow-origin", Value::Text("origins, by commas"), origins, "an origin that cannot be read is left out, and the others stay").alike_if_readable().otherwise("only the other origins may read responses").by_default("*").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Origins that may read responses; `*` in place of a label, `null`."),
    Annotation::honoured("cors-allow-methods", Value::Text("methods, by commas"), |read, text| methods(text).map(|v| read.cors().methods = Some(v))).by_default("GET, PUT, POST, DELETE, PATCH, OPTIONS").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Methods that they may use."),
    Annotation::honoured("cors-allow-headers", Value::Names, |read, text| value::names(text).map(|v| read.cors().headers = Some(v))).by_default("DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Headers that they may send."),
    Annotation::honoured("cors-allow-credentials", Value::Boolean, |read, text| value::boolean(text).map(|v| read.cors().credentials = Some(v))).by_default("true").scope(Scope::Ingress).about(Group::Cors, "Whether cookies may go along."),
    Annotation::honoured("cors-expose-headers", Value::Names, |read, text| value::names(text).map(|v| read.cors().expose = Some(v))).scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Headers of responses that scripts may read."),
    Annotation::honoured("cors-max-age", Value::Number(0, u32::MAX), |read, text| value::number(text, 0, u32::MAX).map(|v| read.cors().max_age = Some(v))).by_default("1728000").scope(Scope::Ingress).about(Group::Cors, "Seconds for which a preflight answer holds."),
];

/// What cannot be read is left out: others would be let in otherwise.
fn origins(read: &mut Annotations, text: &str) -> Result<(), String> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for origin in value::list(text) {
        if is_origin(origin) {
            good.push(origin.to_owned());
        } else {
            bad.push(quoted(origin));
        }
    }
    read.cors().origins = Some(good);
    if bad.is_empty() {
        Ok(())
    } else {
        Err(format!("{} is no origin", bad.join(", ")))
    }
}

fn is_origin(text: &str) -> bool {
    if matches!(text, "*" | "null") {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "0"));
    let scheme_is_one = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let name = host.strip_prefix("*.").unwrap_or(host);
    scheme_is_one && HostName::parse(name).is_ok() && port.parse::<u16>().is_ok()
}

fn methods(text: &str) -> Result<String, String> {
    let methods: Vec<_> = value::list(text).collect();
    let legal =
        |method: &&str| method.bytes().all(|byte| byte.is_ascii_alphabetic()) || **method == *"*";
    if methods.is_empty() || !methods.iter().all(legal) {
        return Err("it is not a list of methods".to_owned());
    }
    Ok(methods.join(", "))
}
