//! What only the direct engine does with HTTP/2: request trailers, limits on what a client may take back, no request
//! lost to a connection that closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::http2::{connect, get, read_all, to_h2c};
use crate::support::{Site, backend, echo, full, raw_backend, read_head, soon, to};

type Connection = server::Connection<TcpStream, Bytes>;

/// A backend that does what it likes with each connection of HTTP/2; `handler` gets its number as well.
pub(crate) async fn h2c<F, R>(handler: F) -> SocketAddr
where
    F: Fn(usize, Connection) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let connection = server::handshake(stream).await.unwrap();
            tokio::spawn(handler(number, connection));
            number += 1;
        }
    });
    address
}

fn answer(mut respond: server::SendResponse<Bytes>) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data("fine".into(), true).unwrap();
}

async fn ask(client: &h2::client::SendRequest<Bytes>, method: &str, path: &str) -> u16 {
    let mut client = soon(client.clone().ready()).await.unwrap();
    let mut request = get(path);
    *request.method_mut() = method.parse().unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut response = soon(response).await.unwrap();
    read_all(response.body_mut()).await;
    response.status().as_u16()
}

#[tokio::test]
async fn trailers_of_a_request_pass() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&seen);
    let web = backend(move |request: Request<hyper::body::Incoming>| {
        let kept = Arc::clone(&kept);
        async move {
            let collected = request.into_body().collect().await.unwrap();
            *kept.lock().unwrap() = collected.trailers().cloned();
            Response::new(full(collected.to_bytes()))
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data("content".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1234".parse().unwrap());
    body.send_trailers(trailers.clone()).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(read_all(response.body_mut()).await.0, b"content");
    assert_eq!(*seen.lock().unwrap(), Some(trailers));
}

#[tokio::test]
async fn a_backend_that_goes_away_in_peace_loses_no_request() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let web = h2c(move |_, mut connection| {
        let count = Arc::clone(&count);
        async move {
            let mut here = 0;
            while let Some(Ok((_, respond))) = connection.accept().await {
                answer(respond);
                count.fetch_add(1, Ordering::SeqCst);
                here += 1;
                if here == 3 {
                    connection.graceful_shutdown();
                }
            }
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let client = connect(site.http).await;
    for n in 0..30 {
        assert_eq!(ask(&client, "POST", &format!("/{n}")).await, 200, "{n}");
    }
    assert_eq!(answered.load(Ordering::SeqCst), 30);
}

#[tokio::test]
async fn a_refused_request_is_sent_again_whatever_it_does() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let web = h2c(move |_, mut connection| {
        let count = Arc::clone(&count);
        async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if count.fetch_add(1, Ordering::SeqCst) == 0 {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    continue;
                }
                tokio::spawn(async move {
                    let mut body: RecvStream = request.into_body();
                    let (all, _) = read_all(&mut body).await;
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(all.into(), true).unwrap();
                });
            }
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/again").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data("one, ".into(), false).unwrap();
    body.send_data("two".into(), true).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(read_all(response.body_mut()).await.0, b"one, two");
    assert_eq!(tries.load(Ordering::SeqCst), 2);
    assert_eq!(site.log.of("/again").await["tries"], 2);
}

#[tokio::test]
async fn a_connection_that_breaks_is_replaced_for_what_may_be_sent_twice() {
    // The first connection answers one request and breaks under the second one.
    let web = h2c(|number, mut connection| async move {
        let mut here = 0;
        while let Some(Ok((_, respond))) = connection.accept().await {
            here += 1;
            if number == 0 && here == 2 {
                return;
            }
            answer(respond);
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let client = connect(site.http).await;
    assert_eq!(ask(&client, "GET", "/1").await, 200);
    assert_eq!(ask(&client, "GET", "/2").await, 200);
    assert_eq!(site.log.of("/2").await["tries"], 2);
}

#[tokio::test]
async fn a_stream_of_a_backend_that_is_reset_is_no_whole_response() {
    let web = h2c(|_, mut connection| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if request.uri().path() == "/early" {
                respond.send_reset(Reason::INTERNAL_ERROR);
                continue;
            }
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data("half".into(), false).unwrap();
            tokio::spawn(async move {
                // The client has the first half before the rest fails.
                tokio::task::yield_now().await;
                body.send_reset(Reason::INTERNAL_ERROR);
            });
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let client = connect(site.http).await;
    assert_eq!(ask(&client, "POST", "/early").await, 502);
    assert_eq!(site.log.of("/early").await["reason"], "upstream-reset");
    let mut client = soon(client.ready()).await.unwrap();
    let (response, _) = client.send_request(get("/late"), true).unwrap();
    let whole = async {
        let mut body = response.await?.into_body();
        while let Some(part) = body.data().await {
            body.flow_control().release_capacity(part?.len())?;
        }
        Ok::<_, h2::Error>(body.is_end_stream())
    };
    let whole = soon(whole).await;
    assert!(whole.is_err(), "{whole:?}");
}

#[tokio::test]
async fn an_answer_may_come_before_the_body() {
    let web = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
        stream.write_all(answer.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let site = Site::start(to(web));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data("the beginning".into(), false).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(read_all(response.body_mut()).await.0, b"no");
    // The rest is not wanted, which is no failure.
    let reason = soon(std::future::poll_fn(|cx| body.poll_reset(cx))).await;
    assert_eq!(reason.unwrap(), Reason::NO_ERROR);
}

#[tokio::test]
async fn two_lengths_are_no_request() {
    let site = Site::start(to(echo("web").await));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/")
        .header("content-length", "4")
        .header("content-length", "4")
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    let _ = body.send_data("body".into(), true);
    let error = soon(response).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    let client = client.ready().await.unwrap();
    assert_eq!(ask(&client, "GET", "/").await, 200, "the others go on");
}

#[tokio::test]
async fn a_connection_has_a_last_request() {
    let site = Site::with(to(echo("web").await), |settings| {
        // As many for each stream that there may be at the same time.
        settings.limits.max_requests_per_connection = 3;
        settings.limits.h2_max_streams = 2;
    });
    let client = connect(site.http).await;
    let mut answered = 0;
    while let Ok(mut ready) = soon(client.clone().ready()).await {
        let Ok((response, _)) = ready.send_request(get("/"), true) else {
            break;
        };
        // One that comes after the GOAWAY is not answered, and the client knows that it was not looked at.
        match soon(response).await {
            Ok(mut response) => {
                read_all(response.body_mut()).await;
                answered += 1;
            }
            Err(error) => {
                assert!(error.is_go_away(), "{error}");
                break;
            }
        }
        assert!(answered < 20);
    }
    assert!(answered >= 6, "{answered}");
    crate::support::eventually("it ends", || site.running.connections() == 0).await;
}

#[tokio::test]
async fn a_silent_connection_is_told_to_go() {
    let site = Site::with(to(echo("web").await), |settings| {
        settings.limits.idle_timeout = Duration::from_millis(200);
    });
    let stream = TcpStream::connect(site.http).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(ask(&client, "GET", "/").await, 200);
    // A GOAWAY without an error is a peaceful end.
    soon(connection).await.unwrap().unwrap();
    assert!(client.ready().await.is_err());
}

#[tokio::test]
async fn a_client_that_takes_back_what_it_asks_for_is_turned_out() {
    let web =
        raw_backend(|mut stream| async move { while read_head(&mut stream).await.is_some() {} })
            .await;
    let site = Site::start(to(web));
    let stream = TcpStream::connect(site.http).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut taken_back = 0;
    while let Ok(mut ready) = soon(client.clone().ready()).await {
        let Ok((response, mut stream)) = ready.send_request(get("/"), true) else {
            break;
        };
        // Only what has arrived costs anything.
        tokio::task::yield_now().await;
        stream.send_reset(Reason::CANCEL);
        assert!(soon(response).await.is_err());
        taken_back += 1;
        assert!(taken_back < 20_000, "nobody minds");
    }
    assert!(taken_back >= 100, "{taken_back} are nothing yet");
    // What it was just writing may have failed before it read why.
    let end = soon(connection).await.unwrap().unwrap_err();
    let calm = end.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    assert!(calm || end.is_io(), "{end}");
}
