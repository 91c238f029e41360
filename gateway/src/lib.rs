//! The data plane: serves a [`table::Table`] over HTTP and HTTPS.
//!
//! [`Gateway::bind`] takes the sockets, [`Gateway::start`] serves them, [`Running::drain`] ends it in peace. The
//! table comes through a [`table::TableReader`] and may be swapped at any moment: a connection takes its certificate
//! and a request its routes from the table that is current when it begins. Nothing in here knows Kubernetes.

mod access_log;
mod asked;
mod clients;
mod connection;
mod context;
mod drain;
mod engine;
mod error;
mod external;
mod filters;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod heritage;
mod housekeeping;
mod limits;
mod listen;
mod mirror;
mod names;
mod passwords;
mod phases;
mod relief;
mod section;
mod settings;
mod stream;
mod telemetry;
mod timer;
mod upstream;

use std::hash::{BuildHasher as _, RandomState};

use table::{CompiledBackend, TableReader};

pub use access_log::LogOutput;
pub use drain::Running;
pub use heritage::HandedSocket;
pub use listen::{BindError, Gateway};
pub use relief::Pressure;
pub use settings::{Engine, Limits, LogFormat, NginxLabels, Settings};
pub use telemetry::{NGINX_BUCKETS, describe_metrics, describe_nginx_metrics};
pub use upstream::{BackendState, EndpointState};

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The current table.
    pub(crate) tables: TableReader,
    /// What the gateway was started with.
    pub(crate) settings: Settings,
    /// Live state of endpoints; outlives every table.
    pub(crate) registry: upstream::EndpointRegistry,
    /// Where requests are logged.
    pub(crate) access_log: access_log::AccessLog,
    /// Looks up names of endpoints.
    pub(crate) resolver: upstream::Resolver,
    /// Checks passwords of users.
    pub(crate) passwords: passwords::Passwords,
    /// What other servers said about requests.
    pub(crate) replies: external::Replies,
    /// How often clients came.
    pub(crate) limiters: limits::Limiters,
    /// Where streams go, for as long as any of them lives.
    pub(crate) streams: stream::Routes,
    /// Places for TLS handshakes.
    pub(crate) handshakes: std::sync::Arc<front::crowd::Seats>,
    /// How many series of metrics there may be.
    pub(crate) series: telemetry::SeriesBudget,
    /// What sessions at backends without a key of their own are derived from.
    seed: Box<str>,
}

impl Shared {
    /// What sessions at a backend are derived from.
    pub(crate) fn seed_of<'a>(&'a self, backend: &'a CompiledBackend) -> &'a str {
        match &backend.seed {
            Some(seed) => seed.expose(),
            None => &self.seed,
        }
    }

    fn new(settings: Settings, tables: TableReader) -> Self {
        Self {
            tables,
            registry: upstream::EndpointRegistry::new(),
            access_log: access_log::AccessLog::new(
                settings.access_log,
                settings.access_log_output.clone(),
            ),
            resolver: upstream::Resolver::new(),
            passwords: passwords::Passwords::new(),
            replies: external::Replies::new(),
            limiters: limits::Limiters::new(),
            streams: stream::Routes::default(),
            handshakes: front::crowd::Seats::new(settings.limits.max_handshakes),
            series: telemetry::SeriesBudget::new(settings.max_series),
            seed: format!("{:?}", [(); 4].map(|()| RandomState::new().hash_one(0_u8))).into(),
            settings,
        }
    }
}
