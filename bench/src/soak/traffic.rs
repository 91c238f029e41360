//! The requests of the soak, and which answers are right.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use rustls::pki_types::CertificateDer;

use super::gateways::Doors;
use super::world::{Host, World};
use crate::certs;
use crate::load::{Answer, Body, Target, Traffic};

/// Which port the requests go to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Site {
    Plain,
    Secure { resumed: bool },
}

#[derive(Debug)]
pub(super) struct SoakTraffic {
    world: Arc<World>,
    doors: Arc<Doors>,
    site: Site,
    slow: bool,
    upload: Bytes,
}

/// What was known before.
#[derive(Debug)]
pub(super) struct Mark {
    routes: u64,
    endpoints: u64,
    certificate: u64,
    ask: Ask,
}

#[derive(Debug)]
enum Ask {
    Connection,
    /// The description of the request, from whatever `/` leads to.
    Describe(String),
    /// The same, from whatever `/pods` leads to.
    DescribePods(String),
    /// This many bytes.
    Download(u64),
    Upload,
}

/// The backends that are right in a state.
type Backends = fn(u64) -> &'static [&'static str];

const UPLOAD: usize = 64 << 10;

impl SoakTraffic {
    pub(super) fn new(world: Arc<World>, doors: Arc<Doors>, site: Site) -> Self {
        Self {
            world,
            doors,
            site,
            slow: false,
            upload: Bytes::from(vec![b'u'; UPLOAD]),
        }
    }

    /// Requests that take longer than the delay of a shutdown.
    pub(super) fn slow(world: Arc<World>, doors: Arc<Doors>, site: Site) -> Self {
        Self {
            slow: true,
            ..Self::new(world, doors, site)
        }
    }

    fn host(&self, target: &Target) -> &Host {
        let name = target.authority.split(':').next().unwrap_or_default();
        self.world.named(name).unwrap_or_else(|| self.world.host(0))
    }

    fn mark(host: &Host, ask: Ask) -> Mark {
        Mark {
            routes: host.routes.oldest(),
            endpoints: host.endpoints.oldest(),
            certificate: host.certificate.oldest(),
            ask,
        }
    }

    fn choose(&self, number: u64) -> (String, Ask) {
        if self.slow {
            let path = format!("/slow/{number}?delay=4000");
            return (path.clone(), Ask::Describe(path));
        }
        let path = match number % 64 {
            0 => return (format!("/up/{number}"), Ask::Upload),
            1 => return (format!("/big/{number}?size=300000"), Ask::Download(300_000)),
            2 => {
                let path = format!("/parts/{number}?size=5000&parts=5&every=4");
                return (path, Ask::Download(5000));
            }
            3 => format!("/late/{number}?delay=30"),
            odd if !odd.is_multiple_of(2) => {
                let path = format!("/pods/{number}");
                return (path.clone(), Ask::DescribePods(path));
            }
            _ => format!("/item/{number}"),
        };
        (path.clone(), Ask::Describe(path))
    }
}

impl Traffic for SoakTraffic {
    type Mark = Mark;

    fn target(&self, connection: u64) -> Target {
        let host = self.world.host(connection);
        let secure = matches!(self.site, Site::Secure { .. });
        let address = self.doors.address(secure);
        Target {
            address,
            server_name: secure
                .then(|| certs::server_name(&host.name).ok())
                .flatten(),
            authority: format!("{}:{}", host.name, address.port()).into(),
        }
    }

    fn opening(&self, target: &Target) -> Mark {
        Self::mark(self.host(target), Ask::Connection)
    }

    fn opened(
        &self,
        target: &Target,
        mark: Mark,
        leaf: Option<&CertificateDer<'static>>,
    ) -> Result<(), String> {
        let host = self.host(target);
        let oldest = match self.site {
            Site::Plain => return Ok(()),
            // The client remembers the certificate of the session that it resumes.
            Site::Secure { resumed: true } => 0,
            Site::Secure { resumed: false } => mark.certificate,
        };
        let newest = host.certificate.newest();
        match leaf {
            Some(leaf) if host.had_certificate(leaf, oldest, newest) => Ok(()),
            Some(_) => Err(format!(
                "{} showed a certificate of none of the states {oldest} to {newest}",
                host.name
            )),
            None => Err(format!("{} showed no certificate", host.name)),
        }
    }

    fn request(&self, target: &Target, number: u64) -> (Request<Body>, Mark) {
        let (path, ask) = self.choose(number);
        let mut request = Request::new(match &ask {
            Ask::Upload => Body::new(self.upload.clone()),
            Ask::Connection | Ask::Describe(_) | Ask::DescribePods(_) | Ask::Download(_) => {
                Body::default()
            }
        });
        if matches!(ask, Ask::Upload) {
            *request.method_mut() = http::Method::POST;
        }
        let scheme = if target.server_name.is_some() {
            "https"
        } else {
            "http"
        };
        let uri = format!("{scheme}://{}{path}", target.authority);
        *request.uri_mut() = uri.parse().unwrap_or_default();
        (request, Self::mark(self.host(target), ask))
    }

    fn judge(&self, target: &Target, mark: Mark, answer: &Answer) -> Result<(), String> {
        let host = self.host(target);
        if matches!(self.site, Site::Plain) {
            let location = answer.header("location");
            let wanted = format!("https://{}", host.name);
            return (answer.status.as_u16() == 308 && location.starts_with(&wanted))
                .then_some(())
                .ok_or_else(|| format!("status {} with location `{location}`", answer.status));
        }
        if answer.status != http::StatusCode::OK {
            return Err(format!(
                "status {} for {:?}: {}",
                answer.status,
                mark.ask,
                String::from_utf8_lossy(&answer.start)
            ));
        }
        let backend = answer.header("x-backend");
        let (oldest, newest, of): (_, _, Backends) = match mark.ask {
            Ask::DescribePods(_) => (mark.endpoints, host.endpoints.newest(), Host::pod_backends),
            Ask::Connection | Ask::Describe(_) | Ask::Download(_) | Ask::Upload => {
                (mark.routes, host.routes.newest(), Host::root_backends)
            }
        };
        if !(oldest..=newest).any(|state| of(state).contains(&backend)) {
            return Err(format!(
                "{:?} was answered by `{backend}`, which is wrong in the states {oldest} to {newest}",
                mark.ask
            ));
        }
        let text = String::from_utf8_lossy(&answer.start);
        let right = match &mark.ask {
            Ask::Connection => true,
            Ask::Describe(path) | Ask::DescribePods(path) => {
                let path = path.split_once('?').map_or(path.as_str(), |(path, _)| path);
                text.contains(&format!("\"path\": \"{path}\""))
            }
            Ask::Download(length) => answer.length == *length,
            Ask::Upload => text.contains(&format!("\"received\": {UPLOAD},")),
        };
        if right {
            Ok(())
        } else {
            Err(format!(
                "the answer to {:?} has {} bytes: {text}",
                mark.ask, answer.length
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    async fn world(directory: &std::path::Path) -> Arc<World> {
        Arc::new(World::create(directory, 2).await.unwrap())
    }

    fn answer(status: u16, backend: &'static str, text: String) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-backend", HeaderValue::from_static(backend));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            length: text.len() as u64,
            start: Bytes::from(text),
            trailers: HeaderMap::new(),
        }
    }

    #[tokio::test]
    async fn only_states_between_begin_and_end_are_right() {
        let directory = tempfile::tempdir().unwrap();
        let world = world(directory.path()).await;
        let site = Site::Secure { resumed: false };
        let traffic = SoakTraffic::new(Arc::clone(&world), Arc::default(), site);
        let target = traffic.target(0);
        let judge = |mark, status, backend, number: u64| {
            let text = format!("{{\"pod\": \"x\", \"path\": \"/item/{number}\"}}");
            traffic
                .judge(&target, mark, &answer(status, backend, text))
                .is_ok()
        };
        let ask = || traffic.request(&target, 4).1;

        assert!(judge(ask(), 200, "a1", 4), "the first state");
        assert!(
            !judge(ask(), 200, "b1", 4),
            "a state that is not written yet"
        );
        assert!(!judge(ask(), 200, "a1", 6), "the answer to another request");
        assert!(!judge(ask(), 503, "a1", 4), "a failure");
        let before = ask();
        world.host(0).routes.write();
        assert!(
            judge(before, 200, "b1", 4),
            "written while it was under way"
        );
        assert!(judge(ask(), 200, "a2", 4), "not seen to be served yet");
        world.host(0).routes.confirm();
        assert!(!judge(ask(), 200, "a1", 4), "a state that is over");
        assert!(judge(ask(), 200, "b2", 4), "the state that is served");
    }

    #[tokio::test]
    async fn a_certificate_is_right_while_its_state_is() {
        let directory = tempfile::tempdir().unwrap();
        let world = world(directory.path()).await;
        let new = |resumed| {
            let site = Site::Secure { resumed };
            SoakTraffic::new(Arc::clone(&world), Arc::default(), site)
        };
        let (full, resumed) = (new(false), new(true));
        let (target, host) = (full.target(1), world.host(1));
        let first = host.certificate_of(0).unwrap();
        let opened = |traffic: &SoakTraffic, leaf| {
            let mark = traffic.opening(&target);
            traffic.opened(&target, mark, leaf).is_ok()
        };
        assert!(opened(&full, Some(&first)));
        assert!(!opened(&full, None), "no certificate");
        let other = world.host(0).certificate_of(0).unwrap();
        assert!(!opened(&full, Some(&other)), "that of another host");
        let state = host.certificate.write();
        world.write_certificate(host, state).unwrap();
        assert!(opened(&full, Some(&first)), "not seen to be served yet");
        host.certificate.confirm();
        assert!(!opened(&full, Some(&first)), "replaced");
        assert!(opened(&resumed, Some(&first)), "remembered by a session");
        assert!(opened(&full, Some(&host.certificate_of(state).unwrap())));
    }
}
