//! The rows of `raw` and `raw_http2` beside `HAProxy` and nginx: docs/strict-http.md.
//!
//! What Lockgate makes of them is what the tests of those tables demand. What the others make of them is kept in
//! `strict/peers.json`; `make strict` asks all three anew, in one run, and writes file and page.

mod page;
mod peers;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use self::peers::Peer;
use crate::raw::{self, Notes, Status, notary};
use crate::raw_http2;
use crate::support::{Site, to};

/// Which table a row stands in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// What came of a request: the status that the client got, and what the backend saw.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Outcome {
    status: Status,
    seen: String,
}

impl Outcome {
    fn new((status, seen): (Status, &str)) -> Self {
        Self {
            status,
            seen: seen.to_owned(),
        }
    }

    fn is_refused(&self) -> bool {
        self.seen.is_empty()
    }

    /// Does the same come of it for the backend? With which words a request is refused makes no difference.
    fn means(&self, other: &Self) -> bool {
        self.seen == other.seen && (self.is_refused() || self.status == other.status)
    }
}

/// A row of one of the tables.
struct Row {
    protocol: Protocol,
    name: &'static str,
    shown: String,
    lockgate: Outcome,
}

impl Row {
    fn key(&self) -> String {
        format!("{}: {}", self.protocol.name(), self.name)
    }
}

fn rows() -> Vec<Row> {
    let http1 = raw::REQUESTS.iter().map(|(name, text, want)| Row {
        protocol: Protocol::Http1,
        name,
        shown: text.escape_debug().to_string(),
        lockgate: Outcome::new(want.of_this_engine()),
    });
    let http2 = raw_http2::REQUESTS.iter().map(|(name, request, want)| {
        let mut shown = request.fields.join("\n");
        for part in [request.body, request.trailers.map(|_| "")]
            .into_iter()
            .flatten()
        {
            write!(shown, "\n\n{part}").unwrap();
        }
        shown += &request.trailers.unwrap_or_default().join("\n");
        Row {
            protocol: Protocol::Http2,
            name,
            shown: shown.escape_debug().to_string(),
            lockgate: Outcome::new(want.of_this_engine()),
        }
    });
    http1.chain(http2).collect()
}

/// What the others make of the rows, as it was found last.
struct Kept {
    versions: BTreeMap<String, String>,
    rows: BTreeMap<String, BTreeMap<String, Outcome>>,
}

fn file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

const KEPT: &str = "tests/proxy_direct/strict/peers.json";

impl Kept {
    fn read() -> Self {
        let text = std::fs::read_to_string(file(KEPT)).unwrap_or_else(|_| "{}".to_owned());
        let value: Value = serde_json::from_str(&text).unwrap();
        let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let outcome = |value: &Value| Outcome {
            status: value[0].as_u64().unwrap().try_into().unwrap(),
            seen: value[1].as_str().unwrap().to_owned(),
        };
        let versions = object(&value["versions"]).into_iter();
        let rows = object(&value["rows"]).into_iter();
        Self {
            versions: versions
                .map(|(name, version)| (name, version.as_str().unwrap().to_owned()))
                .collect(),
            rows: rows
                .map(|(key, of)| {
                    let of = object(&of).into_iter();
                    (
                        key,
                        of.map(|(name, found)| (name, outcome(&found))).collect(),
                    )
                })
                .collect(),
        }
    }

    fn write(&self) {
        let rows: BTreeMap<_, BTreeMap<_, _>> = self
            .rows
            .iter()
            .map(|(key, of)| {
                let of = of.iter();
                (
                    key,
                    of.map(|(name, found)| (name, json!([found.status, found.seen])))
                        .collect(),
                )
            })
            .collect();
        let value = json!({ "versions": self.versions, "rows": rows });
        let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
        std::fs::write(file(KEPT), text).unwrap();
    }
}

/// Sends every row to one of the three.
async fn ask_all(address: std::net::SocketAddr, seen: &Notes) -> BTreeMap<String, Outcome> {
    let mut found = BTreeMap::new();
    let keys = rows().into_iter().map(|row| row.key()).collect::<Vec<_>>();
    let mut keys = keys.into_iter();
    for (_, text, _) in raw::REQUESTS {
        let outcome = match raw::ask(address, seen, text).await {
            Ok((status, seen)) => Outcome { status, seen },
            // What follows was swallowed or doubled: that is a find of its own.
            Err(found) => Outcome {
                status: 0,
                seen: format!("desynchronised: {found}"),
            },
        };
        found.insert(keys.next().unwrap(), outcome);
    }
    for (_, request, _) in raw_http2::REQUESTS {
        let (status, seen) = raw_http2::ask(address, seen, request).await;
        found.insert(keys.next().unwrap(), Outcome { status, seen });
    }
    found
}

/// What the others make of the rows, and where Lockgate does not do what its tables say.
async fn ask_peers() -> (Kept, Vec<String>) {
    let (address, seen) = notary().await;
    let site = Site::start(to(address));
    let (of_haproxy, seen_by_haproxy) = notary().await;
    let haproxy = Peer::haproxy(of_haproxy).await;
    let (of_nginx, seen_by_nginx) = notary().await;
    let nginx = Peer::nginx(of_nginx).await;
    let (lockgate, by_haproxy, by_nginx) = tokio::join!(
        ask_all(site.http, &seen),
        ask_all(haproxy.address, &seen_by_haproxy),
        ask_all(nginx.address, &seen_by_nginx),
    );
    let wrong = rows()
        .into_iter()
        .filter(|row| lockgate[&row.key()] != row.lockgate)
        .map(|row| format!("{}: not {:?}", row.key(), lockgate[&row.key()]))
        .collect();
    let mut rows: BTreeMap<String, BTreeMap<String, Outcome>> = BTreeMap::new();
    for (peer, found) in [(&haproxy, by_haproxy), (&nginx, by_nginx)] {
        for (key, outcome) in found {
            rows.entry(key)
                .or_default()
                .insert(peer.name.to_owned(), outcome);
        }
    }
    let kept = Kept {
        versions: [&haproxy, &nginx]
            .map(|peer| (peer.name.to_owned(), peer.version.clone()))
            .into(),
        rows,
    };
    (kept, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_beside_haproxy_and_nginx_is_true() {
    let path = file("../docs/strict-http.md");
    if std::env::var_os("LOCKGATE_WRITE_STRICT").is_some() {
        let (kept, wrong) = ask_peers().await;
        kept.write();
        let (page, mut problems) = page::page(&rows(), &kept);
        std::fs::write(&path, page).unwrap();
        problems.extend(wrong);
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
        return;
    }
    let (page, problems) = page::page(&rows(), &Kept::read());
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/strict-http.md is not what the tables say: run `make strict`"
    );
}
