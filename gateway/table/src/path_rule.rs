//! Paths that become others by rules, compiled.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use model::PathRule;

use crate::pattern::{Anchor, Pattern, Patterns};
use crate::rewrite::Groups;

/// Makes another path, or a redirect, of a path.
#[derive(Clone, Debug)]
pub struct CompiledPathRule {
    source: PathRule,
    pattern: Arc<Pattern>,
    target: Groups,
    /// The client is redirected with this status.
    pub redirect: Option<StatusCode>,
}

impl PartialEq for CompiledPathRule {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for CompiledPathRule {}

impl CompiledPathRule {
    pub(crate) fn compile(rule: &PathRule, patterns: &mut Patterns) -> Result<Self, String> {
        let PathRule {
            pattern,
            target,
            redirect,
        } = rule;
        if HeaderValue::from_str(target).is_err() {
            return Err("a path has to be printable ASCII".to_owned());
        }
        Ok(Self {
            pattern: patterns
                .compile(Anchor::None, pattern)
                .map_err(|fault| format!("regular expression `{pattern}`: {fault}"))?,
            target: Groups::parse(target),
            redirect: redirect.map(crate::route::redirect_status).transpose()?,
            source: rule.clone(),
        })
    }

    /// What becomes of the path; nothing where the pattern does not match. It is not in normal form: groups may have put
    /// anything together.
    pub fn apply(&self, path: &str) -> Option<String> {
        let groups = self.pattern.captures(path.as_bytes())?;
        Some(self.target.fill(&groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_anywhere_and_replaces_the_whole_path() {
        for (pattern, target, path, want) in [
            ("^/old/(.*)$", "/new/$1", "/old/a/b", Some("/new/a/b")),
            ("^(/app)$", "$1/", "/app", Some("/app/")),
            ("^(/app)$", "$1/", "/app/x", None),
            ("/v1/", "/", "/api/v1/x", Some("/")),
            ("^(.*)$", "https://b.test$1", "/a", Some("https://b.test/a")),
            ("/OLD", "/new", "/old", None),
        ] {
            let rule = PathRule {
                pattern: pattern.to_owned(),
                target: target.to_owned(),
                redirect: None,
            };
            let compiled = CompiledPathRule::compile(&rule, &mut Patterns::new()).unwrap();
            assert_eq!(compiled.apply(path).as_deref(), want, "{pattern} {path}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_said() {
        for (pattern, target, redirect, want) in [
            ("(", "/", None, "regular expression `(`"),
            ("/a", "/b\r\nx: y", None, "printable"),
            ("/a", "/b", Some(200), "status 200"),
        ] {
            let rule = PathRule {
                pattern: pattern.to_owned(),
                target: target.to_owned(),
                redirect,
            };
            let fault = CompiledPathRule::compile(&rule, &mut Patterns::new()).unwrap_err();
            assert!(fault.contains(want), "{fault}");
        }
    }
}
