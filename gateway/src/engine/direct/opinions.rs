//! What hyper and Pingora make of the bytes of a message. Neither shares code with this engine, but for the `httparse`
//! under all three.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Runtime;

/// Method, target and content of a request.
pub(super) type Asked = (String, String, Vec<u8>);
/// Status and content of a response.
pub(super) type Answered = (u16, Vec<u8>);

fn run<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// More than a test sends.
const ROOM: usize = 1 << 20;

/// A stream from which `text` can be read, and then its end; with the other side of it.
async fn stream_of(text: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut theirs, ours) = duplex(ROOM);
    theirs.write_all(text).await.unwrap();
    theirs.shutdown().await.unwrap();
    (ours, theirs)
}

/// The first request in `text`, if all of it is there, as hyper's server sees it.
pub(super) fn hyper_request(text: &[u8]) -> Option<Asked> {
    let seen = Rc::new(RefCell::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let content = body.collect().await?.to_bytes().to_vec();
            let asked = (parts.method.to_string(), parts.uri.to_string(), content);
            seen.borrow_mut().get_or_insert(asked);
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    run(async {
        let (stream, _theirs) = stream_of(text).await;
        let mut http = hyper::server::conn::http1::Builder::new();
        http.half_close(true).keep_alive(false);
        // What it has seen is what counts.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    });
    seen.take()
}

/// The first request in `text`, if all of it is there, as Pingora's session sees it.
pub(super) fn pingora_request(text: &[u8]) -> Option<Asked> {
    run(async {
        let (stream, _theirs) = stream_of(text).await;
        let mut session = v1::server::HttpSession::new(Box::new(stream));
        session.read_request().await.ok()??;
        let mut content = Vec::new();
        while let Some(part) = session.read_body_bytes().await.ok()? {
            content.extend_from_slice(&part);
        }
        let request = session.req_header();
        let target = String::from_utf8_lossy(request.raw_path()).into_owned();
        let method = request.method.to_string();
        session.is_body_done().then_some((method, target, content))
    })
}

/// The response in `text` to a request with this method, if all of it is there, as hyper's client sees it.
pub(super) fn hyper_response(text: &[u8], method: &str) -> Option<Answered> {
    run(async {
        let (ours, mut theirs) = duplex(ROOM);
        let http = hyper::client::conn::http1::Builder::new();
        let (mut sender, driver) = http.handshake(TokioIo::new(ours)).await.ok()?;
        let request = Request::builder().method(method).uri("/");
        let request = request.header("host", "a.test").body(Empty::<Bytes>::new());
        let answer = async move {
            let response = sender.send_request(request.unwrap()).await.ok()?;
            let status = response.status().as_u16();
            let content = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, content.to_vec()))
        };
        let backend = async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(theirs.read_u8().await.ok()?);
            }
            theirs.write_all(text).await.ok()?;
            theirs.shutdown().await.ok()?;
            let mut rest = Vec::new();
            theirs.read_to_end(&mut rest).await.ok()
        };
        let (answer, ..) = tokio::join!(answer, driver, backend);
        answer
    })
}

/// The response in `text` to a request with this method, if all of it is there, as Pingora's client sees it.
pub(super) fn pingora_response(text: &[u8], method: &str) -> Option<Answered> {
    run(async {
        let (stream, _theirs) = stream_of(text).await;
        let mut session = v1::client::HttpSession::new(Box::new(stream));
        let mut request = RequestHeader::build(method, b"/", None).ok()?;
        request.insert_header("host", "a.test").ok()?;
        session.write_request_header(Box::new(request)).await.ok()?;
        session.read_response().await.ok()?;
        let mut content = Vec::new();
        while let Some(part) = session.read_body_bytes().await.ok()? {
            content.extend_from_slice(&part);
        }
        let status = session.get_status()?.as_u16();
        session.is_body_done().then_some((status, content))
    })
}
