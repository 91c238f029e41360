//! Copies of requests, compiled.

use model::Mirror;

use crate::backends::{BackendSlot, Backends};
use crate::external;
use crate::template::Template;

/// Where copies of requests go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledMirror {
    /// Over TLS?
    pub https: bool,
    /// Host and port.
    pub authority: Box<str>,
    /// Path and query.
    pub target: Template,
    /// Whose endpoints get them.
    pub backend: Option<BackendSlot>,
    /// Their `Host`, where it is not that of the URL.
    pub host: Option<Template>,
    /// They have no body.
    pub without_body: bool,
}

impl CompiledMirror {
    pub(crate) fn compile(
        mirror: &Mirror,
        backends: &mut Backends,
        acquired: &mut Vec<BackendSlot>,
    ) -> Result<Self, String> {
        let Mirror {
            url,
            backend,
            host,
            without_body,
        } = mirror;
        let (https, authority, target) = external::split(url)?;
        if authority.contains('$') {
            return Err("no variables can stand in the host that copies go to".to_owned());
        }
        // What stands for a path has a slash of its own.
        let target = match target.strip_prefix('/') {
            Some(rest)
                if rest.starts_with("$request_uri") || rest.starts_with("${request_uri}") =>
            {
                rest
            }
            Some(_) | None => &target,
        };
        let target = Template::parse(target)?;
        let host = host.as_deref().map(Template::parse).transpose()?;
        // What fails before this takes no place.
        let slot = backend.as_ref().map(|id| backends.acquire(id));
        acquired.extend(slot);
        Ok(Self {
            https,
            authority: authority.into(),
            target,
            backend: slot,
            host,
            without_body: *without_body,
        })
    }
}
