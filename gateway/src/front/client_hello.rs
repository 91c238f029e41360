//! TLS: reads the `ClientHello`, chooses by its server name, finishes the handshake.

use std::io;
use std::sync::Arc;

use metrics::{counter, histogram};
use model::HostName;
use rustls::server::Acceptor;
use rustls::{AlertDescription, HandshakeKind, PeerIncompatible, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Shared;
use crate::clients::Presented;
use crate::connection::TlsFacts;
use crate::front::{Refusal, timed_out};
use crate::settings::Limits;
use crate::telemetry;

/// A fatal alert `unrecognized_name` (RFC 6066, section 3) in a record of its own. No key is agreed on yet, so it goes
/// out as it is.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Takes a connection that has stood since `begun` through its handshake. The certificate comes from the table that is current when the
/// `ClientHello` is complete.
///
/// The size of a `ClientHello` is bounded by rustls, which takes handshake messages up to 64 KiB.
pub(crate) async fn accept<S>(
    io: S,
    begun: Instant,
    shared: &Shared,
    limits: &Limits,
) -> Result<(TlsStream<S>, TlsFacts), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io);
    let mut start = timeout_at(begun + limits.client_hello_timeout, hello)
        .await
        .map_err(|_| Refusal::handshake("client-hello-timeout", timed_out()))?
        .map_err(|error| {
            let reason = match reason(&error) {
                "handshake-failed" => "bad-client-hello",
                other => other,
            };
            Refusal::handshake(reason, error)
        })?;

    // One spelling for certificates and for routes. What is no host name counts as none.
    let server_name = start
        .client_hello()
        .server_name()
        .and_then(|name| HostName::parse(name).ok());
    let entry = shared
        .tables
        .pin()
        .tls(server_name.as_ref().map(HostName::as_str))
        .cloned();
    let Some(entry) = entry else {
        // It may not arrive; the connection ends in any case.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        let error = io::Error::other(format!("no certificate for {server_name:?}"));
        return Err(Refusal::handshake("no-certificate", error));
    };

    // Until the client goes on, what was computed for it takes room.
    let mut seat = shared.handshakes.take();
    let deadline = Instant::now() + limits.handshake_timeout;
    let stream = tokio::select! {
        biased;
        done = timeout_at(deadline, start.into_stream(entry.config.clone())) => done
            .map_err(|_| Refusal::handshake("handshake-timeout", timed_out()))?
            .map_err(|error| Refusal::handshake(reason(&error), error))?,
        () = seat.lost() => {
            let error = io::Error::other("others need its place among the handshakes");
            return Err(Refusal::handshake("busy", error));
        }
    };
    drop(seat);

    let session = stream.get_ref().1;
    let facts = TlsFacts {
        server_name: server_name.map(|name| name.as_str().into()),
        version: version(session.protocol_version()),
        cipher: session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("unknown"),
        policy: entry.policy,
        transport: entry.transport,
        presented: entry.clients.as_ref().map(|_| {
            let chain = session.peer_certificates().unwrap_or_default();
            Arc::new(Presented::new(chain))
        }),
        alpn_h2: session.alpn_protocol() == Some(b"h2"),
    };
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    counter!(
        telemetry::TLS_HANDSHAKES,
        "version" => facts.version,
        "resumed" => if resumed { "true" } else { "false" },
    )
    .increment(1);
    histogram!(telemetry::TLS_HANDSHAKE_SECONDS).record(begun.elapsed());
    Ok((stream, facts))
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    if version == Some(ProtocolVersion::TLSv1_3) {
        "TLSv1.3"
    } else {
        "TLSv1.2"
    }
}

/// Sorts failures into a few kinds.
fn reason(error: &io::Error) -> &'static str {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        // The socket failed: the client closed or reset it.
        return "client-aborted";
    };
    if let rustls::Error::AlertReceived(alert) = tls {
        return alert_reason(*alert);
    }
    if let rustls::Error::PeerIncompatible(what) = tls {
        return incompatible_reason(what);
    }
    if matches!(tls, rustls::Error::NoApplicationProtocol) {
        return "no-shared-protocol";
    }
    "handshake-failed"
}

fn alert_reason(alert: AlertDescription) -> &'static str {
    if matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
    ) {
        "certificate-rejected"
    } else {
        "client-alert"
    }
}

fn incompatible_reason(what: &PeerIncompatible) -> &'static str {
    if matches!(
        what,
        PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
    ) {
        "protocol-version"
    } else {
        "no-shared-cipher"
    }
}
