//! Changes the path of a request.

use http::HeaderValue;
use model::normalise_path;
use table::CompiledRewrite;

use crate::error::Reason;

/// Path and `X-Forwarded-Prefix` for the backend. Nothing where the pattern does not match.
///
/// What comes out is brought into normal form again: groups of a path can come together to a dot segment, and the
/// backend must not see a path that means something else than it says.
pub(crate) fn apply(
    rewrite: &CompiledRewrite,
    path: &str,
) -> Result<Option<(String, Option<HeaderValue>)>, Reason> {
    let Some(rewritten) = rewrite.apply(path) else {
        return Ok(None);
    };
    let path = normal(rewritten.path)?;
    let prefix = rewritten
        .prefix
        .and_then(|prefix| HeaderValue::try_from(prefix).ok());
    Ok(Some((path, prefix)))
}

/// A path that was put together, in normal form.
pub(super) fn normal(mut text: String) -> Result<String, Reason> {
    if !text.starts_with('/') {
        text.insert(0, '/');
    }
    let path = normalise_path(&text).map_err(|_| Reason::BadPath)?;
    Ok(path.into_owned())
}
