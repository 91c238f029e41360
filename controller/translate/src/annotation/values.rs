//! What the annotations of one Ingress say.

use ipnet::IpNet;
use model::{BackendProtocol, Pace};

/// What the annotations of one Ingress say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Annotations {
    pub(crate) ssl_redirect: Option<bool>,
    pub(crate) force_ssl_redirect: Option<bool>,
    pub(crate) protocol: Option<BackendProtocol>,
    pub(crate) connect_timeout: Option<u32>,
    pub(crate) read_timeout: Option<u32>,
    pub(crate) send_timeout: Option<u32>,
    /// Who may pass, and how often.
    pub(crate) access: Option<Box<AccessValues>>,
    /// The routes answer 503 for this reason, because something that guards them cannot be done.
    pub(crate) closed: Option<&'static str>,
    /// Meant to get a share of another Ingress's requests.
    pub(crate) canary: bool,
}

impl Annotations {
    /// Where values of access go.
    pub(crate) fn access(&mut self) -> &mut AccessValues {
        self.access.get_or_insert_default()
    }
}

/// What the annotations of one Ingress say about who may pass, and how often.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct AccessValues {
    pub(crate) allow: Option<Vec<IpNet>>,
    /// By the old name, which gives way to the new one.
    pub(crate) whitelist: Option<Vec<IpNet>>,
    pub(crate) deny: Option<Vec<IpNet>>,
    pub(crate) satisfy_any: bool,
    /// 0 is no limit.
    pub(crate) per_second: u32,
    pub(crate) per_minute: u32,
    pub(crate) concurrent: u32,
    pub(crate) burst: Option<u32>,
    pub(crate) unlimited: Vec<IpNet>,
    /// In KiB; 0 is no limit.
    pub(crate) pace: Option<u32>,
    pub(crate) pace_after: Option<u32>,
}

impl AccessValues {
    /// How fast responses go.
    pub(crate) fn pace(&self, global: (u32, u32)) -> Option<Pace> {
        let bytes = |kibibytes: u32| u64::from(kibibytes) * 1024;
        let rate = self.pace.unwrap_or(global.0);
        (rate > 0).then(|| Pace {
            bytes_per_second: bytes(rate),
            after: bytes(self.pace_after.unwrap_or(global.1)),
        })
    }
}
