//! Cross-origin requests.

use super::super::{Annotation, Group, PENDING, Risk, Scope, Value};

/// Cross-origin requests.
pub(super) static CORS: &[Annotation] = &[
    Annotation::ignored("enable-cors", Value::Boolean, PENDING).by_default("false").scope(Scope::Ingress).about(Group::Cors, "Answers preflight requests and adds the headers of CORS."),
    Annotation::ignored("cors-allow-origin", Value::Text("origins, by commas"), PENDING).by_default("*").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Origins that may read responses; `*` in place of a label, `null`."),
    Annotation::ignored("cors-allow-methods", Value::Text("methods, by commas"), PENDING).by_default("GET, PUT, POST, DELETE, PATCH, OPTIONS").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Methods that they may use."),
    Annotation::ignored("cors-allow-headers", Value::Names, PENDING).by_default("DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization").scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Headers that they may send."),
    Annotation::ignored("cors-allow-credentials", Value::Boolean, PENDING).by_default("true").scope(Scope::Ingress).about(Group::Cors, "Whether cookies may go along."),
    Annotation::ignored("cors-expose-headers", Value::Names, PENDING).scope(Scope::Ingress).risk(Risk::Medium).about(Group::Cors, "Headers of responses that scripts may read."),
    Annotation::ignored("cors-max-age", Value::Number(0, u32::MAX), PENDING).by_default("1728000").scope(Scope::Ingress).about(Group::Cors, "Seconds for which a preflight answer holds."),
];
