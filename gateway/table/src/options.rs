//! What few routes ask for, compiled.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use model::{
    Balance, Canary, CanaryHeader, CanaryValue, Deadlines, MOST_COLLECTED, Retry, RouteOptions,
};

use crate::affinity::{CompiledAffinity, CompiledHash};
use crate::backends::{BackendSlot, Backends};
use crate::mirror::CompiledMirror;
use crate::pattern::{Anchor, Pattern, Patterns};

/// What a route asks for beyond the usual.
#[derive(Clone, Debug)]
pub struct CompiledOptions {
    /// Alternatives to the backends of the route.
    pub canaries: Vec<CompiledCanary>,
    /// What answers when the backend has no endpoints.
    pub backup: Option<BackendSlot>,
    /// When another endpoint is tried.
    pub retry: Option<Retry>,
    /// Until when there has to be an answer.
    pub deadlines: Option<Deadlines>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Milliseconds until a new endpoint gets as many requests as the others; 0 is at once.
    pub slow_start: u64,
    /// Users stay at one endpoint.
    pub affinity: Option<CompiledAffinity>,
    /// A key decides about the endpoint.
    pub hash_by: Option<CompiledHash>,
    /// What makes error pages.
    pub errors: Option<CompiledErrorPages>,
    /// Copies of requests go elsewhere, too.
    pub mirror: Option<Box<CompiledMirror>>,
    /// Requests are not written to the access log.
    pub unlogged: bool,
    /// Up to how many bytes a body that is announced is waited for.
    pub collect: u32,
}

/// A backend that answers in the place of others that fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledErrorPages {
    /// For which statuses.
    pub statuses: Vec<u16>,
    /// Who makes them.
    pub backend: BackendSlot,
    /// What a backend has answered stays.
    pub keeps_answers: bool,
}

/// A backend that takes some of the requests of a route.
#[derive(Clone, Debug)]
pub struct CompiledCanary {
    /// Where its requests go.
    pub backend: BackendSlot,
    weight: u32,
    total: u32,
    header: Option<(HeaderName, Wanted)>,
    cookie: Option<Box<str>>,
}

#[derive(Clone, Debug)]
enum Wanted {
    Word,
    Exact(Box<str>),
    Pattern(Arc<Pattern>),
}

impl CompiledOptions {
    /// `None` where the route asks for nothing.
    pub(crate) fn compile(
        options: &RouteOptions,
        backends: &mut Backends,
        acquired: &mut Vec<BackendSlot>,
        patterns: &mut Patterns,
        faults: &mut Vec<String>,
    ) -> Option<Box<Self>> {
        if options.is_default() {
            return None;
        }
        let RouteOptions {
            canaries,
            backup,
            retry,
            deadlines,
            balance,
            slow_start,
            affinity,
            hash_by,
            errors,
            mirror,
            unlogged,
            collect,
        } = options;
        let mirror = mirror
            .as_ref()
            .map(|mirror| CompiledMirror::compile(mirror, backends, acquired));
        let mirror = mirror.transpose().unwrap_or_else(|fault| {
            faults.push(format!("{fault}; requests are not copied"));
            None
        });
        let mut acquire = |id| {
            let slot = backends.acquire(id);
            acquired.push(slot);
            slot
        };
        let mut compiled = Vec::with_capacity(canaries.len());
        for canary in canaries {
            let Canary {
                backend,
                weight,
                total,
                header,
                cookie,
            } = canary;
            let header = header
                .as_ref()
                .map(|header| compile_header(header, patterns))
                .transpose();
            match header {
                Ok(header) => compiled.push(CompiledCanary {
                    header,
                    backend: acquire(backend),
                    weight: *weight,
                    total: *total,
                    cookie: cookie.as_deref().map(Box::from),
                }),
                Err(fault) => faults.push(format!("{fault}; canary {backend} gets no requests")),
            }
        }
        let affinity = affinity.as_ref().map(CompiledAffinity::compile);
        let affinity = affinity.transpose().unwrap_or_else(|fault| {
            faults.push(format!("{fault}; users do not stay at one endpoint"));
            None
        });
        let hash_by = hash_by.as_ref().map(CompiledHash::compile);
        let hash_by = hash_by.transpose().unwrap_or_else(|fault| {
            faults.push(format!("{fault}; endpoints are chosen without a key"));
            None
        });
        Some(Box::new(Self {
            canaries: compiled,
            backup: backup.as_ref().map(&mut acquire),
            retry: retry.clone(),
            deadlines: *deadlines,
            balance: *balance,
            slow_start: u64::from(*slow_start) * 1_000,
            affinity,
            hash_by,
            errors: errors.as_ref().map(|errors| CompiledErrorPages {
                statuses: errors.statuses.clone(),
                backend: acquire(&errors.backend),
                keeps_answers: errors.keeps_answers,
            }),
            mirror: mirror.map(Box::new),
            unlogged: *unlogged,
            collect: (*collect).min(MOST_COLLECTED),
        }))
    }

    /// The canary that takes a request with these headers, if one does.
    pub fn canary(&self, headers: &HeaderMap, random: u32) -> Option<BackendSlot> {
        let decided = self
            .canaries
            .iter()
            .find(|canary| canary.decided(headers) == Some(true));
        if let Some(canary) = decided {
            return Some(canary.backend);
        }
        // Shares are compared in units of 2^-32.
        let mut upto = 0_u64;
        self.canaries
            .iter()
            .filter(|canary| canary.decided(headers).is_none())
            .find(|canary| {
                upto += (u64::from(canary.weight) << 32) / u64::from(canary.total.max(1));
                u64::from(random) < upto
            })
            .map(|canary| canary.backend)
    }
}

impl CompiledCanary {
    /// Header, then cookie; `None` leaves it to the weight.
    fn decided(&self, headers: &HeaderMap) -> Option<bool> {
        let word = |text: &[u8]| match text {
            b"always" => Some(true),
            b"never" => Some(false),
            _ => None,
        };
        let header = self.header.as_ref().and_then(|(name, wanted)| {
            let value = headers.get(name)?.as_bytes();
            match wanted {
                Wanted::Word => word(value),
                Wanted::Exact(exact) => (value == exact.as_bytes()).then_some(true),
                Wanted::Pattern(pattern) => pattern.matches(value).then_some(true),
            }
        });
        header.or_else(|| {
            let name = self.cookie.as_deref()?;
            word(cookie(headers, name)?)
        })
    }
}

/// The value of the first cookie of this name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = pair.split_at_checked(at)?;
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
        })
}

fn compile_header(
    header: &CanaryHeader,
    patterns: &mut Patterns,
) -> Result<(HeaderName, Wanted), String> {
    let CanaryHeader { name, value } = header;
    let parsed = HeaderName::try_from(name.as_str())
        .map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
    let wanted = match value {
        CanaryValue::Word => Wanted::Word,
        CanaryValue::Exact(text) => Wanted::Exact(text.as_str().into()),
        CanaryValue::Regex(text) => patterns
            .compile(Anchor::None, text)
            .map(Wanted::Pattern)
            .map_err(|fault| format!("regular expression `{text}`: {fault}"))?,
    };
    Ok((parsed, wanted))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use model::BackendId;

    use super::*;

    type Plan<'a> = (u32, u32, Option<(&'a str, CanaryValue)>, Option<&'a str>);

    fn options(canaries: &[Plan<'_>]) -> CompiledOptions {
        let canaries = canaries
            .iter()
            .enumerate()
            .map(|(number, (weight, total, header, cookie))| Canary {
                backend: BackendId::new("a", &format!("canary-{number}"), "80"),
                weight: *weight,
                total: *total,
                header: header.clone().map(|(name, value)| CanaryHeader {
                    name: name.to_owned(),
                    value,
                }),
                cookie: cookie.map(str::to_owned),
            })
            .collect();
        let options = RouteOptions {
            canaries,
            ..RouteOptions::default()
        };
        *CompiledOptions::compile(
            &options,
            &mut Backends::new(),
            &mut Vec::new(),
            &mut Patterns::new(),
            &mut Vec::new(),
        )
        .unwrap()
    }

    fn chosen(
        options: &CompiledOptions,
        headers: &[(&'static str, &str)],
        random: u32,
    ) -> Option<usize> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let slot = options.canary(&map, random)?;
        options
            .canaries
            .iter()
            .position(|canary| canary.backend == slot)
    }

    #[test]
    fn header_comes_before_cookie_and_cookie_before_weight() {
        let word = || Some(("x-canary", CanaryValue::Word));
        let all = options(&[(100, 100, word(), Some("canary"))]);
        let none = options(&[(0, 100, word(), Some("canary"))]);
        for (options, headers, want) in [
            (&all, &[][..], Some(0)),
            (&none, &[], None),
            (&none, &[("x-canary", "always")], Some(0)),
            (&all, &[("x-canary", "never")], None),
            (&none, &[("x-canary", "maybe")], None),
            (
                &none,
                &[("x-canary", "never"), ("cookie", "canary=always")],
                None,
            ),
            (
                &none,
                &[("x-canary", "maybe"), ("cookie", "a=b; canary=always")],
                Some(0),
            ),
            (&all, &[("cookie", "canary=never; canary=always")], None),
            (&all, &[("cookie", "xcanary=never")], Some(0)),
        ] {
            assert_eq!(chosen(options, headers, 7), want, "{headers:?}");
        }
        let exact = options(&[(
            0,
            100,
            Some(("x-canary", CanaryValue::Exact("me".to_owned()))),
            None,
        )]);
        assert_eq!(chosen(&exact, &[("x-canary", "me")], 0), Some(0));
        assert_eq!(chosen(&exact, &[("x-canary", "always")], 0), None);
        let pattern = options(&[(
            0,
            100,
            Some(("x-canary", CanaryValue::Regex("^u[0-9]".to_owned()))),
            None,
        )]);
        assert_eq!(chosen(&pattern, &[("x-canary", "u7x")], 0), Some(0));
        assert_eq!(chosen(&pattern, &[("x-canary", "xu7")], 0), None);
    }

    #[test]
    fn shares_of_several_add_up() {
        let two = options(&[
            (10, 100, None, None),
            (1, 2, Some(("x-b", CanaryValue::Word)), None),
        ]);
        let mut counts = [0_u32; 3];
        for step in 0..1000_u32 {
            let chosen = chosen(&two, &[], step * (u32::MAX / 1000));
            counts[chosen.unwrap_or(2)] += 1;
        }
        for (count, share) in counts.into_iter().zip([100_u32, 500, 400]) {
            assert!(share.abs_diff(count) <= 1, "{counts:?}");
        }
        let without = (0..1000_u32)
            .filter(|step| chosen(&two, &[("x-b", "never")], step * (u32::MAX / 1000)).is_some())
            .count();
        assert!(
            without.abs_diff(100) <= 1,
            "who is left out leaves his share to the main backend: {without}"
        );
    }
}
