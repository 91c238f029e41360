//! Conditions of `if`.

use crds::{DenyRule, HeaderCondition, PathCondition};

use super::UNKNOWN;

/// `(variable operator value)`.
pub(super) fn read(text: &str) -> Result<DenyRule, String> {
    let inner = text
        .trim()
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .ok_or("its condition is not in parentheses")?
        .trim();
    let (variable, rest) = inner.split_once(' ').unwrap_or((inner, ""));
    let rest = rest.trim();
    let (operator, value) = match rest.split_once(' ') {
        Some((operator, value)) => (operator, value.trim()),
        None => (rest, ""),
    };
    let regex = match operator {
        "~" | "!~" => value.to_owned(),
        _ => format!("(?i){value}"),
    };
    let negated = operator.starts_with('!');
    // In regular expressions it is the end of the text.
    if matches!(operator, "=" | "!=") && value.contains('$') {
        return Err("variables cannot be compared".to_owned());
    }
    match (variable, operator) {
        ("$request_method", "=") => Ok(methods(&[value])),
        ("$request_method", "!=") => Ok(all_but(methods(&[value]))),
        ("$request_method", "~" | "~*" | "!~" | "!~*") => {
            let inner = value.trim_start_matches('^').trim_end_matches('$');
            let inner = inner.strip_prefix('(').unwrap_or(inner);
            let inner = inner.strip_suffix(')').unwrap_or(inner);
            let names: Vec<&str> = inner.split('|').collect();
            let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphabetic());
            if names.iter().all(plain) && !inner.is_empty() {
                let rule = methods(&names);
                Ok(if negated { all_but(rule) } else { rule })
            } else {
                Err("only a list of methods can be translated".to_owned())
            }
        }
        // A query can be in it, which paths do not have.
        ("$request_uri", "~" | "~*") if !begins_a_path(value) => {
            Err("only the beginning of a path can be translated; use `$uri`".to_owned())
        }
        ("$uri" | "$request_uri" | "$document_uri", "~" | "~*") => Ok(DenyRule {
            path: Some(PathCondition {
                regex: Some(regex),
                ..PathCondition::default()
            }),
            ..DenyRule::default()
        }),
        ("$remote_addr", "=") => Ok(DenyRule {
            from: vec![value.to_owned()],
            ..DenyRule::default()
        }),
        ("$remote_addr", "!=") => Ok(DenyRule {
            except_from: vec![value.to_owned()],
            ..DenyRule::default()
        }),
        ("$uri" | "$document_uri", "=") => Ok(DenyRule {
            path: Some(PathCondition {
                exact: Some(value.to_owned()),
                ..PathCondition::default()
            }),
            ..DenyRule::default()
        }),
        (variable, operator) => {
            let name = variable
                .strip_prefix("$http_")
                .filter(|name| !matches!(*name, "" | "host"))
                .ok_or(UNKNOWN)?
                .replace('_', "-");
            let condition = match operator {
                "=" | "!=" if value.is_empty() => HeaderCondition {
                    present: Some(negated),
                    ..HeaderCondition::default()
                },
                "=" | "!=" => HeaderCondition {
                    exact: Some(value.to_owned()),
                    not: negated.then_some(true),
                    ..HeaderCondition::default()
                },
                "~" | "~*" | "!~" | "!~*" => HeaderCondition {
                    regex: Some(regex),
                    not: negated.then_some(true),
                    ..HeaderCondition::default()
                },
                "" => HeaderCondition {
                    present: Some(true),
                    ..HeaderCondition::default()
                },
                _ => return Err(UNKNOWN.to_owned()),
            };
            Ok(DenyRule {
                headers: vec![HeaderCondition { name, ..condition }],
                ..DenyRule::default()
            })
        }
    }
}

fn methods(names: &[&str]) -> DenyRule {
    DenyRule {
        methods: names
            .iter()
            .map(|name| (*name).to_ascii_uppercase())
            .collect(),
        ..DenyRule::default()
    }
}

fn all_but(rule: DenyRule) -> DenyRule {
    DenyRule {
        except_methods: rule.methods,
        ..DenyRule::default()
    }
}

/// Is an expression the plain beginning of a path?
fn begins_a_path(expression: &str) -> bool {
    expression.strip_prefix("^/").is_some_and(|rest| {
        rest.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_'))
    })
}
