//! Texts with variables in them, for values that a request completes.

use http::HeaderName;

/// A text with variables, compiled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What a request can say in a [`Template`]. Names are those of nginx; there are no others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Variable {
    /// `$host`: the host in normal form.
    Host,
    /// `$http_host`: the host as the client wrote it, with its port.
    HttpHost,
    /// `$scheme`: `http` or `https`.
    Scheme,
    /// `$request_uri`: path and query as they came.
    RequestUri,
    /// `$escaped_request_uri`: the same, for use in a query.
    EscapedRequestUri,
    /// `$uri`: the path in normal form.
    Uri,
    /// `$args`: the query.
    Args,
    /// `$request_method`
    Method,
    /// `$remote_addr`: the client.
    RemoteAddr,
    /// `$remote_user`: the name that the client says with a password.
    RemoteUser,
    /// `$request_id`
    RequestId,
    /// `$http_NAME`: a header, with `_` for `-`.
    Header(HeaderName),
    /// `$arg_NAME`: a parameter of the query.
    Arg(Box<str>),
    /// `$cookie_NAME`
    Cookie(Box<str>),
}

impl Template {
    /// Reads a text. `$name` and `${name}` are variables; a `$` that no name follows is itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            let (name, behind) = if let Some(inner) = after.strip_prefix('{') {
                inner
                    .split_once('}')
                    .ok_or_else(|| "a `${` has no `}`".to_owned())?
            } else {
                let end = after
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(after.len());
                after.split_at(end)
            };
            rest = behind;
            if name.is_empty() {
                literal.push('$');
                continue;
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Variable(variable(name)?));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self(parts))
    }

    /// Its variables.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The text, with what `value` appends for each variable.
    pub fn render(&self, mut value: impl FnMut(&Variable, &mut String)) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(variable) => value(variable, &mut text),
            }
        }
        text
    }
}

fn variable(name: &str) -> Result<Variable, String> {
    let header = |name: &str| {
        HeaderName::try_from(name.replace('_', "-"))
            .map(Variable::Header)
            .map_err(|_| format!("`{name}` is not a header name"))
    };
    match name {
        "host" => Ok(Variable::Host),
        "http_host" | "best_http_host" => Ok(Variable::HttpHost),
        "scheme" | "pass_access_scheme" => Ok(Variable::Scheme),
        "request_uri" => Ok(Variable::RequestUri),
        "escaped_request_uri" => Ok(Variable::EscapedRequestUri),
        "uri" | "document_uri" => Ok(Variable::Uri),
        "args" | "query_string" => Ok(Variable::Args),
        "request_method" => Ok(Variable::Method),
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => Ok(Variable::RemoteAddr),
        "remote_user" => Ok(Variable::RemoteUser),
        "request_id" | "req_id" => Ok(Variable::RequestId),
        _ => {
            if let Some(name) = name.strip_prefix("http_") {
                header(name)
            } else if let Some(name) = name.strip_prefix("arg_") {
                Ok(Variable::Arg(name.into()))
            } else if let Some(name) = name.strip_prefix("cookie_") {
                Ok(Variable::Cookie(name.into()))
            } else {
                Err(format!("there is no variable `${}`", name.escape_debug()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn variables_are_told_from_text() {
        for (text, want) in [
            ("plain.test", Ok("plain.test")),
            ("$host", Ok("<Host>")),
            (
                "a-${host}-b$http_x_user_id.c",
                Ok("a-<Host>-b<Header(\"x-user-id\")>.c"),
            ),
            ("cost: $ 5 $", Ok("cost: $ 5 $")),
            ("$host$scheme", Ok("<Host><Scheme>")),
            ("$nothing", Err("there is no variable `$nothing`")),
            ("${host", Err("a `${` has no `}`")),
        ] {
            let rendered = Template::parse(text).map(|template| {
                template.render(|variable, text| write!(text, "<{variable:?}>").unwrap())
            });
            assert_eq!(
                rendered.as_deref(),
                want.map_err(str::to_owned).as_ref().copied(),
                "{text}"
            );
        }
    }
}
