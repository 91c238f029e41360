//! The sockets of the process.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use gateway::Gateway;
use table::TableReader;
use tokio::net::TcpListener;
use tracing::info;
use translate::NamespacedName;

use super::succession::Heritage;
use super::{Listen, admission};
use crate::telemetry;

/// All sockets of the process.
pub(super) struct Sockets {
    pub(super) gateway: Gateway,
    /// For operators.
    pub(super) listener: TcpListener,
    pub(super) reviews: Option<admission::Parts>,
    /// Where they are; port 0 has become a real one.
    pub(super) bound: Listen,
}

impl Sockets {
    pub(super) async fn bind(
        listen: Listen,
        settings: impl FnOnce(Vec<SocketAddr>, Vec<SocketAddr>) -> gateway::Settings,
        tables: TableReader,
        certificate: Option<&NamespacedName>,
        heritage: Heritage,
    ) -> anyhow::Result<Self> {
        let Listen {
            http,
            https,
            admin,
            admission,
        } = listen;
        let Heritage {
            gateway: handed,
            admin: inherited,
        } = heritage;
        let gateway = Gateway::succeed(settings(http, https), tables, handed)?;
        let listener = match inherited {
            Some((address, listener)) if address == admin => TcpListener::from_std(listener),
            Some(_) | None => TcpListener::bind(admin).await,
        }
        .with_context(|| format!("cannot listen on {admin} (--admin-listen)"))?;
        let reviews = match admission {
            Some(listen) => Some(admission::bind(listen, certificate).await?),
            None => None,
        };
        let bound = Listen {
            http: gateway.http_addresses().to_vec(),
            https: gateway.https_addresses().to_vec(),
            admin: listener.local_addr()?,
            admission: reviews.as_ref().map(|reviews| reviews.address),
        };
        info!(
            http = ?bound.http,
            https = ?bound.https,
            admin = %bound.admin,
            version = telemetry::VERSION,
            "Lockgate has its sockets; waiting for the first full sync"
        );
        Ok(Self {
            gateway,
            listener,
            reviews,
            bound,
        })
    }

    /// Another handle of the socket for operators.
    pub(super) fn admin_copy(&self) -> anyhow::Result<(SocketAddr, OwnedFd)> {
        Ok((
            self.bound.admin,
            self.listener.as_fd().try_clone_to_owned()?,
        ))
    }
}
