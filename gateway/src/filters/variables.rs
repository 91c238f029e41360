//! What a request says in a text with variables.

use http::header::HOST;
use table::{Template, Variable};

use crate::context::RequestContext;
use crate::filters::basic;
use crate::phases::original::{Original, text};
use crate::phases::route::normal_host;

/// The text, completed by the request as the client sent it.
pub(crate) fn render(
    template: &Template,
    context: &RequestContext,
    original: Original<'_>,
) -> String {
    template.render(|variable, text| {
        let headers = original.headers;
        let query = original.uri.query().unwrap_or_default();
        match variable {
            Variable::Host => {
                let host = authority(original).and_then(normal_host);
                text.push_str(&host.unwrap_or_default());
            }
            Variable::HttpHost => text.push_str(authority(original).unwrap_or_default()),
            Variable::Scheme => text.push_str(if context.client.https {
                "https"
            } else {
                "http"
            }),
            Variable::RequestUri => text.push_str(&path_and_query(original)),
            Variable::EscapedRequestUri => escape(&path_and_query(original), text),
            Variable::Uri => {
                let path = model::normalise_path(original.uri.path());
                text.push_str(&path.unwrap_or_default());
            }
            Variable::Args => text.push_str(query),
            Variable::Method => text.push_str(original.method.as_str()),
            Variable::RemoteAddr => text.push_str(&context.client.address.to_string()),
            Variable::RemoteUser => {
                let given = basic::credentials(headers);
                text.push_str(given.as_ref().map_or("", |(name, _)| name.as_str()));
            }
            Variable::RequestId => {
                let id = context.request_id.as_ref();
                text.push_str(id.and_then(|id| id.to_str().ok()).unwrap_or_default());
            }
            Variable::Header(name) => {
                text.push_str(headers.text(name).unwrap_or_default());
            }
            Variable::Arg(name) => {
                let value = query.split('&').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == &**name).then_some(value)
                });
                text.push_str(value.unwrap_or_default());
            }
            Variable::Cookie(name) => {
                let value = table::cookie(headers.map(), name);
                text.push_str(&String::from_utf8_lossy(value.unwrap_or_default()));
            }
        }
    })
}

fn authority(original: Original<'_>) -> Option<&str> {
    match original.headers.get(&HOST) {
        Some(host) => text(host),
        None => original.uri.authority().map(http::uri::Authority::as_str),
    }
}

fn path_and_query(original: Original<'_>) -> String {
    let uri = original.uri;
    match uri.query() {
        Some(query) => format!("{}?{query}", uri.path()),
        None => uri.path().to_owned(),
    }
}

/// For use as the value of a parameter: all but unreserved characters are escaped (RFC 3986, 2.3).
fn escape(value: &str, text: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for half in [byte >> 4, byte & 15] {
                text.extend(DIGITS.get(usize::from(half)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_escaped_for_a_query() {
        let mut text = String::new();
        escape("/a b?c=d&e=\u{e9}~", &mut text);
        assert_eq!(text, "%2Fa%20b%3Fc%3Dd%26e%3D%C3%A9~");
    }
}
