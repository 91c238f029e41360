use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::origin::{self, Site};

/// Asks an origin for the same thing over and over.
struct Same {
    address: std::net::SocketAddr,
    path: &'static str,
    backend: &'static str,
}

impl Traffic for Same {
    type Mark = ();

    fn target(&self, _: u64) -> Target {
        Target {
            address: self.address,
            server_name: None,
            authority: "a.test".into(),
        }
    }

    fn opening(&self, _: &Target) {}

    fn opened(
        &self,
        _: &Target,
        (): (),
        leaf: Option<&CertificateDer<'static>>,
    ) -> Result<(), String> {
        leaf.is_none().then_some(()).ok_or_else(String::new)
    }

    fn request(&self, target: &Target, _: u64) -> (Request<Body>, ()) {
        let uri = format!("http://{}{}", target.authority, self.path);
        let request = Request::get(uri).body(Body::default()).unwrap();
        (request, ())
    }

    fn judge(&self, _: &Target, (): (), answer: &Answer) -> Result<(), String> {
        let backend = answer.header("x-backend");
        if answer.status == StatusCode::OK && backend == self.backend {
            Ok(())
        } else {
            Err(format!("{} from {backend}", answer.status))
        }
    }
}

const SHAPE: Shape = Shape {
    version: Version::Http1,
    connections: 4,
    streams: 5,
    renew_after: None,
    rate: None,
    timeout: Duration::from_secs(10),
};

async fn figures(traffic: Same, shape: Shape, requests: u64) -> Figures {
    let roots = Arc::new(rustls::RootCertStore::empty());
    let collector = Arc::new(Collector::default());
    run(
        Arc::new(traffic),
        Connector::new(&roots, false).unwrap(),
        shape,
        Arc::new(Budget::new(Some(requests), None)),
        Arc::clone(&collector),
    )
    .await;
    collector.figures()
}

#[tokio::test]
async fn every_request_of_the_budget_is_answered_once() {
    let address = origin::start(Site::new("blue", None)).await.unwrap();
    for (version, renew_after, connections, why) in [
        (Version::Http1, None, 4..=4, "kept connections"),
        (
            Version::Http1,
            Some(1),
            200..=204,
            "a fresh one for each request",
        ),
        (Version::Http2, None, 4..=4, "many requests on each"),
        (Version::Http2, Some(25), 8..=12, "25 requests on each"),
    ] {
        let traffic = Same {
            address,
            path: "/?size=3000&parts=3",
            backend: "blue",
        };
        let shape = Shape {
            version,
            renew_after,
            ..SHAPE
        };
        let figures = figures(traffic, shape, 200).await;
        assert_eq!(
            (figures.answers, figures.failed),
            (200, 0),
            "{why}: {figures}"
        );
        assert_eq!(figures.body_bytes, 200 * 3000, "{why}");
        assert!(
            connections.contains(&figures.connections),
            "{why}: {figures}"
        );
    }
}

#[tokio::test]
async fn a_server_that_stalls_cannot_hide_it_from_a_rate() {
    let address = origin::start(Site::new("blue", None)).await.unwrap();
    let traffic = Same {
        address,
        path: "/?delay=50",
        backend: "blue",
    };
    // One lane can answer 20 per second: of 200 per second, the last ones wait for nearly a second.
    let shape = Shape {
        connections: 1,
        rate: Some(200.0),
        ..SHAPE
    };
    let figures = figures(traffic, shape, 20).await;
    assert_eq!((figures.answers, figures.failed), (20, 0), "{figures}");
    assert!(figures.max_ms > 700.0, "{figures}");
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let address = origin::start(Site::new("green", None)).await.unwrap();
    let traffic = |address, path| Same {
        address,
        path,
        backend: "blue",
    };
    let wrong = figures(traffic(address, "/"), SHAPE, 20).await;
    assert_eq!(wrong.failures[&FailureKind::Answer], 20, "{wrong}");

    let shape = Shape {
        timeout: Duration::from_millis(30),
        ..SHAPE
    };
    let late = figures(traffic(address, "/?delay=5000"), shape, 4).await;
    assert_eq!(late.failures[&FailureKind::Timeout], 4, "{late}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let refused = figures(traffic(nobody, "/"), SHAPE, 5).await;
    assert_eq!(refused.failures[&FailureKind::Connect], 5, "{refused}");
    assert_eq!(refused.answers, 0);
}

#[tokio::test]
async fn a_budget_ends_when_its_time_is_over() {
    let address = origin::start(Site::new("blue", None)).await.unwrap();
    let traffic = Same {
        address,
        path: "/",
        backend: "blue",
    };
    let collector = Arc::new(Collector::default());
    let run = run(
        Arc::new(traffic),
        Connector::new(&Arc::new(rustls::RootCertStore::empty()), false).unwrap(),
        SHAPE,
        Arc::new(Budget::new(None, Some(Duration::from_millis(100)))),
        Arc::clone(&collector),
    );
    tokio::time::timeout(Duration::from_secs(10), run)
        .await
        .expect("it ends by itself");
    let figures = collector.figures();
    assert!(figures.answers > 0 && figures.failed == 0, "{figures}");
}

#[tokio::test]
async fn fresh_connections_keep_the_rate() {
    let address = origin::start(Site::new("blue", None)).await.unwrap();
    let traffic = Same {
        address,
        path: "/",
        backend: "blue",
    };
    let shape = Shape {
        connections: 2,
        renew_after: Some(1),
        rate: Some(100.0),
        ..SHAPE
    };
    let figures = figures(traffic, shape, 20).await;
    assert_eq!((figures.answers, figures.connections), (20, 20));
    assert!(figures.seconds >= 0.1, "{figures}");
}

/// A server that says goodbye when it sees a request and does not look at it; then one that answers.
async fn says_goodbye_first(listener: tokio::net::TcpListener) {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let (mut first, _) = listener.accept().await.unwrap();
    first.write_all(SETTINGS).await.unwrap();
    let mut preface = [0; 24];
    first.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        first.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        first.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    first.write_all(GOAWAY).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answer = http::Response::builder().header("x-backend", "second");
                respond
                    .send_response(answer.body(()).unwrap(), true)
                    .unwrap();
            }
        });
    }
}

#[tokio::test]
async fn a_request_that_the_server_did_not_look_at_goes_to_another_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let traffic = Same {
        address: listener.local_addr().unwrap(),
        path: "/",
        backend: "second",
    };
    let server = tokio::spawn(says_goodbye_first(listener));
    let shape = Shape {
        version: Version::Http2,
        connections: 1,
        ..SHAPE
    };
    let figures = figures(traffic, shape, 20).await;
    assert_eq!((figures.answers, figures.failed), (20, 0), "{figures}");
    server.abort();
}
