//! Snippets for the question whether a request may pass.

use super::UNKNOWN;
use crate::policy::nginx::{self, Directive};
use crate::policy::reader::header_name;
use crate::report::quoted;

/// Variables that questions know; beside them, `$http_…`, `$arg_…` and `$cookie_…`.
const VARIABLES: [&str; 15] = [
    "args",
    "best_http_host",
    "document_uri",
    "escaped_request_uri",
    "host",
    "http_host",
    "pass_access_scheme",
    "query_string",
    "remote_addr",
    "remote_user",
    "request_id",
    "request_method",
    "request_uri",
    "scheme",
    "uri",
];

/// The headers that an `auth-snippet` adds, or the line that does something else.
pub(crate) fn question(text: &str) -> Result<Vec<(String, String)>, String> {
    let directives =
        nginx::parse(text).map_err(|fault| format!("line {}: {}", fault.line, fault.reason))?;
    let mut headers = Vec::new();
    for directive in &directives {
        let header = header(directive).map_err(|reason| {
            let shown = quoted(&directive.shown());
            format!("line {}, {shown}: {reason}", directive.line)
        })?;
        headers.extend(header);
    }
    Ok(headers)
}

fn header(directive: &Directive) -> Result<Option<(String, String)>, String> {
    let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        _ if directive.block.is_some() => Err(UNKNOWN.to_owned()),
        // No body goes with a question.
        ["proxy_pass_request_body", "off"] => Ok(None),
        ["proxy_set_header", name, ""] if name.eq_ignore_ascii_case("content-length") => Ok(None),
        ["proxy_set_header", _, ""] => Err("a question has all headers of the request".to_owned()),
        ["proxy_set_header", name, value] => {
            let name = header_name(name)?;
            check(value)?;
            Ok(Some((name, (*value).to_owned())))
        }
        _ => Err(UNKNOWN.to_owned()),
    }
}

fn check(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err("it cannot be the value of a header".to_owned());
    }
    for rest in value.split('$').skip(1) {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let name = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let part = ["http_", "arg_", "cookie_"]
            .iter()
            .any(|kind| name.strip_prefix(kind).is_some_and(|part| !part.is_empty()));
        if !part && !VARIABLES.contains(&name) {
            return Err(format!("there is no variable `${name}` here"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_question_are_taken() {
        let text = "# as the guide of the server says\nproxy_set_header X-Forwarded-Method $request_method;\nproxy_set_header X-Url $scheme://$http_host$request_uri;\nproxy_set_header X-Key \"a b\";\nproxy_pass_request_body off;\nproxy_set_header Content-Length \"\";";
        let want = [
            ("X-Forwarded-Method", "$request_method"),
            ("X-Url", "$scheme://$http_host$request_uri"),
            ("X-Key", "a b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(question(text).unwrap(), want);
    }

    #[test]
    fn what_is_more_than_headers_is_named() {
        for text in [
            "proxy_set_header A b;\nproxy_pass http://x;",
            "\nproxy_set_header X-Debug \"\";",
            "\nproxy_set_header Host $host;",
            "\nproxy_set_header Connection close;",
            "\nproxy_set_header X-User $user;",
            "\nproxy_set_header X-User ${;",
            "\nif ($a) { proxy_set_header A b; }",
            "\nproxy_set_header A b c;",
        ] {
            let fault = question(text).unwrap_err();
            assert!(fault.starts_with("line 2"), "{text}: {fault}");
        }
    }
}
