//! What is measured.

/// The configuration that a case needs: proxies are started once for each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum World {
    /// A few routes, no access log.
    Plain,
    /// The same with an access log.
    Logged,
    /// 1,000 hosts with 100 paths each.
    Routes,
    /// A few routes, and Lockgate's limits on what clients may use.
    Guarded,
    /// The routes of [`World::Routes`] with those limits.
    GuardedRoutes,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Requests of HTTP/1.1 on kept connections.
    Http1 {
        /// Path of the target; it decides about the size of the answer.
        path: &'static str,
        /// Bytes of the request's body.
        upload: usize,
        /// Header fields beyond the usual ones.
        fields: usize,
    },
    /// Requests of HTTP/1.1, each on a connection of its own.
    Fresh {
        /// TLS sessions are resumed.
        resumed: bool,
    },
    /// Requests to all hosts and paths of [`World::Routes`] in turn.
    Mixed,
    /// Requests of HTTP/2.
    Http2,
    /// Unary calls of gRPC.
    Grpc,
    /// Messages that come back.
    WebSocket,
    /// Nothing, on ten thousand connections: what each takes of memory.
    Idle,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// For `--case`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// What it needs.
    pub world: World,
    /// What is asked for.
    pub what: What,
    /// The host that is asked for by TLS; `None`: no TLS.
    pub tls: Option<&'static str>,
    /// Connections at the same time.
    pub connections: usize,
    /// Requests at the same time on each.
    pub streams: usize,
}

/// The host whose certificate has an ECDSA key.
pub(crate) const ECDSA: &str = "localhost";
/// The host whose certificate has an RSA key.
pub(super) const RSA: &str = "rsa.localhost";
/// Bytes of an upload.
const UPLOAD: usize = 1 << 20;
/// Bytes of a message of gRPC or WebSocket.
pub(super) const MESSAGE: usize = 128;
/// The unary method of the backend.
pub(super) const GRPC_METHOD: &str = "/lockgate.origin.Origin/Echo";
/// Where the backend speaks WebSocket.
pub(super) const WEBSOCKET_PATH: &str = "/ws";

const SMALL: What = What::Http1 {
    path: "/",
    upload: 0,
    fields: 0,
};

const fn sized(path: &'static str) -> What {
    What::Http1 {
        path,
        upload: 0,
        fields: 0,
    }
}

const fn case(name: &'static str, title: &'static str, what: What) -> Case {
    Case {
        name,
        title,
        world: World::Plain,
        what,
        tls: None,
        connections: 64,
        streams: 1,
    }
}

impl Case {
    const fn tls(mut self, host: &'static str) -> Self {
        self.tls = Some(host);
        self
    }

    const fn at(mut self, connections: usize, streams: usize) -> Self {
        self.connections = connections;
        self.streams = streams;
        self
    }

    const fn world(mut self, world: World) -> Self {
        self.world = world;
        self
    }

    /// The path that is asked for; with [`What::Mixed`] one of many.
    pub fn path(&self) -> &'static str {
        match self.what {
            What::Http1 { path, .. } => path,
            What::Grpc => GRPC_METHOD,
            What::WebSocket => WEBSOCKET_PATH,
            What::Fresh { .. } | What::Mixed | What::Http2 | What::Idle => "/",
        }
    }
}

/// All cases, in the order of the table.
pub const CASES: [Case; 19] = [
    case("http1", "HTTP/1.1, 1 KiB", SMALL),
    case(
        "headers",
        "HTTP/1.1, 40 header fields",
        What::Http1 {
            path: "/",
            upload: 0,
            fields: 36, // beside Host and what the proxy adds
        },
    ),
    case("100k", "HTTP/1.1, 100 KiB", sized("/100k")).at(32, 1),
    case("10m", "HTTP/1.1, 10 MiB", sized("/10m")).at(8, 1),
    case(
        "upload",
        "HTTP/1.1, upload of 1 MiB",
        What::Http1 {
            path: "/",
            upload: UPLOAD,
            fields: 0,
        },
    )
    .at(16, 1),
    case(
        "fresh",
        "HTTP/1.1, new connection per request",
        What::Fresh { resumed: false },
    ),
    case("https1", "HTTPS, HTTP/1.1, 1 KiB", SMALL).tls(ECDSA),
    case(
        "tls-ecdsa",
        "TLS handshake, ECDSA, full",
        What::Fresh { resumed: false },
    )
    .tls(ECDSA)
    .at(32, 1),
    case(
        "tls-resumed",
        "TLS handshake, ECDSA, resumed",
        What::Fresh { resumed: true },
    )
    .tls(ECDSA)
    .at(8, 1), // rustls keeps eight tickets for a server
    case(
        "tls-rsa",
        "TLS handshake, RSA 2048, full",
        What::Fresh { resumed: false },
    )
    .tls(RSA)
    .at(32, 1),
    case("h2-1", "HTTPS, HTTP/2, 1 stream", What::Http2).tls(ECDSA),
    case("h2-100", "HTTPS, HTTP/2, 100 streams", What::Http2)
        .tls(ECDSA)
        .at(8, 100),
    case("grpc", "gRPC over TLS, unary", What::Grpc)
        .tls(ECDSA)
        .at(16, 16),
    case("websocket", "WebSocket, echo of 128 B", What::WebSocket),
    case("log", "HTTP/1.1, 1 KiB, access log on", SMALL).world(World::Logged),
    case("https1-log", "HTTPS, HTTP/1.1, 1 KiB, access log on", SMALL)
        .tls(ECDSA)
        .world(World::Logged),
    case("mixed", "HTTP/1.1, 1,000 hosts with 100 paths", What::Mixed).world(World::Routes),
    case("idle", "idle connections", What::Idle),
    case("idle-tls", "idle TLS connections", What::Idle).tls(ECDSA),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
    }
}
