//! Where nobody listens.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// An address where nobody listens. The port stays taken to the end of the process, or another test could get it.
pub(crate) fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket: &TcpSocket = Box::leak(Box::new(socket));
    socket.local_addr().unwrap()
}
