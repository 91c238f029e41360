//! What the annotations of one Ingress say.

use model::BackendProtocol;

/// What the annotations of one Ingress say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Annotations {
    pub(crate) ssl_redirect: Option<bool>,
    pub(crate) force_ssl_redirect: Option<bool>,
    pub(crate) protocol: Option<BackendProtocol>,
    pub(crate) connect_timeout: Option<u32>,
    pub(crate) read_timeout: Option<u32>,
    pub(crate) send_timeout: Option<u32>,
    /// The routes answer 503 for this reason, because something that guards them cannot be done.
    pub(crate) closed: Option<&'static str>,
    /// Meant to get a share of another Ingress's requests.
    pub(crate) canary: bool,
}
