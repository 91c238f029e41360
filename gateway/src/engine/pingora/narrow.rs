//! TLS to endpoints that Pingora cannot be told about: of one version, with some suites, by short chains.
//!
//! The handshake is below Pingora, which takes what comes out of it for a connection without TLS. Such a connection is
//! for one request: Pingora keeps only those whose socket it sees. Sessions are resumed, which saves most of the work.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType, Result};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to the endpoints of one name.
pub(super) struct NarrowConnect {
    /// `None` connects to nobody, because what is asked for cannot be done.
    pub(super) config: Option<Arc<ClientConfig>>,
    pub(super) server_name: String,
    /// The time for each of TCP and TLS.
    pub(super) timeout: Duration,
}

impl fmt::Debug for NarrowConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NarrowConnect")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for NarrowConnect {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let unusable = || Error::explain(ErrorType::TLSHandshakeFailure, "nothing can be spoken");
        let config = self.config.as_ref().ok_or_else(unusable)?;
        let name = ServerName::try_from(self.server_name.clone()).map_err(|_| unusable())?;
        let address = address.as_inet().ok_or_else(unusable)?;
        let connecting = tokio::time::timeout(self.timeout, TcpStream::connect(address));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => return Error::e_because(kind(&fault), "connecting", fault),
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "connecting"),
        };
        stream
            .set_nodelay(true)
            .map_err(|fault| Error::because(ErrorType::SocketError, "connecting", fault))?;
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        let stream = match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => {
                return Error::e_because(ErrorType::TLSHandshakeFailure, "handshake", fault);
            }
            Err(_) => return Error::e_explain(ErrorType::TLSHandshakeTimedout, "handshake"),
        };
        Ok(VirtualSocketStream::new(Box::new(Tls(stream))).into())
    }
}

fn kind(fault: &io::Error) -> ErrorType {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only those that somebody could look for have a name"
    )]
    match fault.kind() {
        io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            ErrorType::ConnectNoRoute
        }
        _ => ErrorType::ConnectError,
    }
}

/// What Pingora reads from and writes to.
#[derive(Debug)]
struct Tls(TlsStream<TcpStream>);

impl VirtualSocket for Tls {
    /// All that is wanted of the socket has been set before.
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
