//! What a connection takes that does nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use http::Request;
use tokio::task::JoinSet;

use super::case::Case;
use super::generate::{quick_client, target};
use super::{Proxy, machine};
use crate::load::{Body, Connection, Connector, Version};

/// Connections that are opened at the same time.
const AT_ONCE: usize = 32;

/// Time for a proxy to give back what it only needs for a request.
const SETTLE: Duration = Duration::from_secs(2);

/// Bytes of memory for each of very many connections, after each has had one answer.
pub(super) async fn per_connection(case: &Case, proxy: &Proxy) -> Result<f64> {
    let count = machine::idle_connections();
    let connector = Connector::with(&quick_client()?, false);
    let process = proxy.process()?;
    // What it needs once is there afterwards.
    drop(open(case, proxy, &connector, AT_ONCE).await?);
    tokio::time::sleep(SETTLE).await;
    let before = machine::memory(process)?;
    let mut open_connections = Vec::with_capacity(count);
    while open_connections.len() < count {
        let wanted = AT_ONCE.min(count - open_connections.len());
        open_connections.extend(open(case, proxy, &connector, wanted).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let after = machine::memory(process)?;
    // A proxy that has closed some would look good.
    for (connection, mut exchange) in open_connections {
        ensure!(exchange.ready().await, "it has closed idle connections");
        drop(connection);
    }
    #[expect(clippy::cast_precision_loss, reason = "memory of this machine")]
    let bytes = after as f64 - before as f64;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let count = count as f64;
    Ok(bytes / count)
}

type Open = (Connection, crate::load::Exchange);

async fn open(
    case: &Case,
    proxy: &Proxy,
    connector: &Connector,
    count: usize,
) -> Result<Vec<Open>> {
    let target = target(case, proxy)?;
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (connector, target) = (connector.clone(), target.clone());
        opening.spawn(async move {
            let connection = connector.open(&target, Version::Http1).await;
            let connection = connection.map_err(|failure| anyhow!("{failure}"))?;
            let mut exchange = connection.exchange();
            let url = format!("http://{}/", target.authority);
            let request = Request::get(url).body(Body::default())?;
            let answer = exchange.send(request).await;
            let answer = answer.map_err(|error| anyhow!("{error}"))?;
            ensure!(answer.status == 200, "status {}", answer.status);
            Ok((connection, exchange))
        });
    }
    let mut open = Vec::with_capacity(count);
    while let Some(opened) = opening.join_next().await {
        open.push(opened.context("a task has failed")??);
    }
    Ok(open)
}
