//! Clients of HTTP/2 that want more than their share, and that nobody else pays for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use hyper::{Request, Response, StatusCode};
use model::{BackendProtocol, Endpoint, EndpointSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::interval;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE,
    begin, frame, read,
};
use crate::http2::{connect, connect_with, get, read_all, to_h2c};
use crate::streams_of_http2::h2c;
use crate::support::{
    Site, add_backend_of, add_route, backend, echo, eventually, forward, full, model, raw_backend,
    read_head, soon, to,
};

const SHORT: Duration = Duration::from_millis(300);

/// The code that a stream or its connection ends with.
async fn end_of(stream: &mut TcpStream, number: u32) -> Option<u32> {
    let code = |payload: &[u8]| u32::from_be_bytes(payload.try_into().unwrap());
    while let Some(frame) = soon(read(stream)).await {
        match frame.kind {
            RST_STREAM if frame.stream == number => return Some(code(&frame.payload)),
            GOAWAY => return frame.farewell().map(|(_, code)| code),
            _ => {}
        }
    }
    None
}

#[tokio::test]
async fn clients_that_take_nothing_do_not_stop_those_who_share_a_backend() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let web = h2c(move |_, mut connection| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let large = request.uri().path() == "/large";
                let size = if large { 4 * 1024 * 1024 } else { 4 };
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(vec![b'x'; size].into(), true).unwrap();
            }
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    // Forty streams with windows of a few bytes: their responses come as far as Lockgate lets them.
    let mut slow = h2::client::Builder::new();
    slow.initial_window_size(10).initial_max_send_streams(100);
    let mut slow = connect_with(site.http, &slow).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        slow = soon(slow.ready()).await.unwrap();
        let (response, _) = slow.send_request(get("/large"), true).unwrap();
        held.push(soon(response).await.unwrap());
    }
    // Somebody else is served nevertheless, again and again, and on the same connection.
    let mut client = connect(site.http).await;
    for _ in 0..20 {
        client = soon(client.ready()).await.unwrap();
        let (response, _) = client.send_request(get("/small"), true).unwrap();
        let mut response = soon(response).await.unwrap();
        assert_eq!(read_all(response.body_mut()).await.0, b"xxxx");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    drop(held);
}

#[tokio::test]
async fn what_a_client_does_not_read_does_not_pile_up() {
    const STREAMS: u32 = 200;
    const SIZE: usize = 60 * 1024;
    let asked = Arc::new(Semaphore::new(0));
    let answered = Arc::clone(&asked);
    let web = raw_backend(move |mut stream| {
        let answered = Arc::clone(&answered);
        async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            let answer = [head.as_bytes(), &vec![b'x'; SIZE]].concat();
            while read_head(&mut stream).await.is_some() {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
                answered.add_permits(1);
            }
        }
    })
    .await;
    let site = Site::with(to(web), |settings| settings.limits.h2_max_streams = STREAMS);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(site.http).await.unwrap();
    // SETTINGS_INITIAL_WINDOW_SIZE, and the same for the connection.
    begin(&mut stream, &[(4, 1 << 30)]).await;
    let window = frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    stream.write_all(&window).await.unwrap();
    for number in 0..STREAMS {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, GET);
        stream.write_all(&request).await.unwrap();
    }
    // All have been answered, and nothing is read of that.
    soon(asked.acquire_many(STREAMS)).await.unwrap().forget();
    let mut done = usize::MAX;
    let mut ticks = interval(SHORT);
    let settled = async {
        loop {
            ticks.tick().await;
            let now = site.log.lines().len();
            if now == done {
                return now;
            }
            done = now;
        }
    };
    // The kernel takes up to four mebibytes of the twelve that there are.
    let bytes = soon(settled).await * SIZE;
    assert!(bytes < 8 * 1024 * 1024, "{bytes} bytes are held somewhere");
    // Somebody who reads after all gets everything.
    let mut ended = 0;
    while ended < STREAMS {
        let frame = soon(read(&mut stream)).await.unwrap();
        assert!(
            frame.kind != RST_STREAM && frame.kind != GOAWAY,
            "{frame:?}"
        );
        ended += u32::from(frame.kind == DATA && frame.flags & END_STREAM != 0);
    }
    eventually("all are logged", || site.log.lines().len() == 200).await;
}

#[tokio::test]
async fn a_body_that_trickles_in_is_ended() {
    for rate in [10_000, 0] {
        let site = Site::with(to(echo("web").await), |settings| {
            settings.limits.body_timeout = SHORT;
            settings.limits.min_client_rate = rate;
        });
        let mut client = connect(site.http).await;
        let request = Request::post("http://a.test/trickle")
            .header("content-length", "1000000")
            .body(())
            .unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        let mut ticks = interval(Duration::from_millis(10));
        let mut response = std::pin::pin!(response);
        let mut status = None;
        // Without a rate it lasts as long as the client likes: here, ten times as long as may be between two bytes.
        for _ in 0..if rate > 0 { 2000 } else { 300 } {
            tokio::select! {
                biased;
                answer = &mut response => {
                    status = Some(answer.unwrap().status());
                    break;
                }
                _ = ticks.tick() => { let _ = body.send_data(Bytes::from_static(b"x"), false); }
            }
        }
        let want = (rate > 0).then_some(StatusCode::REQUEST_TIMEOUT);
        assert_eq!(status, want, "{rate}");
    }
}

#[tokio::test]
async fn a_stream_may_be_slow_but_has_to_say_something() {
    for (content, want) in [("x", 200), ("", 408)] {
        let site = Site::with(to(echo("web").await), |settings| {
            settings.limits.body_timeout = SHORT;
            settings.limits.min_client_rate = 10_000;
        });
        let mut client = connect(site.http).await;
        let request = Request::post("http://a.test/").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        let mut ticks = interval(Duration::from_millis(20));
        for _ in 0..60 {
            ticks.tick().await;
            // Fails once it has been ended.
            let _ = body.send_data(content.into(), false);
        }
        let _ = body.send_data(Bytes::new(), true);
        assert_eq!(soon(response).await.unwrap().status(), want, "{content:?}");
    }
}

#[tokio::test]
async fn a_response_that_trickles_out_is_ended() {
    for rate in [1_000_000, 0] {
        let web = backend(|_| async { Response::new(full(vec![b'x'; 100_000])) }).await;
        let site = Site::with(to(web), |settings| {
            settings.limits.write_timeout = SHORT;
            settings.limits.min_client_rate = rate;
        });
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1);
        let mut client = connect_with(site.http, &builder).await;
        let (response, _) = client.send_request(get("/trickle"), true).unwrap();
        let mut body = soon(response).await.unwrap().into_body();
        let mut ticks = interval(Duration::from_millis(5));
        let mut ended = false;
        for _ in 0..if rate > 0 { 4000 } else { 300 } {
            ticks.tick().await;
            let Some(Ok(part)) = soon(body.data()).await else {
                ended = true;
                break;
            };
            body.flow_control().release_capacity(part.len()).unwrap();
        }
        assert_eq!(ended, rate > 0, "{rate}");
        if ended {
            let line = site.log.of("/trickle").await;
            assert_eq!(line["reason"], "client-closed");
        }
    }
}

#[tokio::test]
async fn work_that_was_given_up_is_not_piled_up() {
    // The backend takes connections and never answers a handshake.
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let mute = raw_backend(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let _stream = stream;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let mut routes = model();
    let set = EndpointSet::Addresses(vec![Endpoint::new(mute)]);
    add_backend_of(&mut routes, "tls", BackendProtocol::Https, set);
    add_route(&mut routes, "*", "/", forward("tls"));
    let site = Site::with(routes, |settings| settings.limits.h2_max_streams = 4);
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    begin(&mut stream, &[]).await;
    for number in 0..40 {
        let id = 2 * number + 1;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, id, GET);
        stream.write_all(&request).await.unwrap();
        if number < 8 {
            let wanted = usize::try_from(number).unwrap() + 1;
            eventually("it has arrived", || {
                arrived.load(Ordering::SeqCst) == wanted
            })
            .await;
            let reset = frame(RST_STREAM, 0, id, &8_u32.to_be_bytes());
            stream.write_all(&reset).await.unwrap();
        } else {
            // Refused: another connection may take it.
            assert_eq!(end_of(&mut stream, id).await, Some(7), "{number}");
        }
    }
    assert_eq!(arrived.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn whoever_asks_for_more_at_once_than_there_may_be_is_turned_out() {
    let mute = raw_backend(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let site = Site::with(to(mute), |settings| {
        settings.limits.h2_max_streams = 4;
        settings.limits.h2_max_resets = 10;
    });
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    begin(&mut stream, &[]).await;
    for number in 0..=14 {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, GET);
        stream.write_all(&request).await.unwrap();
        if number >= 4 {
            // REFUSED_STREAM
            assert_eq!(end_of(&mut stream, 2 * number + 1).await, Some(7));
        }
    }
    // ENHANCE_YOUR_CALM
    assert_eq!(end_of(&mut stream, 0).await, Some(11));
    eventually("it is closed", || site.running.connections() == 0).await;
}

#[tokio::test]
async fn a_header_section_has_a_size() {
    let site = Site::start(to(echo("web").await));
    let mut client = connect(site.http).await;
    let request = Request::get("http://a.test/")
        .header("x-large", "a".repeat(66_000))
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 431);
    let mut client = soon(client.ready()).await.unwrap();
    let (response, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_header_section_without_end_is_not_collected() {
    let site = Site::start(to(echo("web").await));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    begin(&mut stream, &[]).await;
    let first = frame(HEADERS, END_STREAM, 1, GET);
    stream.write_all(&first).await.unwrap();
    // `x: ` with a value of 10 bytes, that is not to be kept for the next section.
    let more = frame(CONTINUATION, 0, 1, b"\x00\x01x\x0a0123456789");
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move { while writer.write_all(&more).await.is_ok() {} });
    let end = async {
        while let Some(frame) = read(&mut reader).await {
            if let Some((_, code)) = frame.farewell() {
                return Some(code);
            }
        }
        None
    };
    // ENHANCE_YOUR_CALM, and that is the end of it.
    assert_eq!(soon(end).await, Some(11));
    assert!(soon(read(&mut reader)).await.is_none());
    flood.abort();
    assert_eq!(site.log.text(), "", "no request");
}

#[tokio::test]
async fn a_header_section_that_never_ends_is_cut() {
    let site = Site::with(to(echo("web").await), |settings| {
        settings.limits.idle_timeout = SHORT;
    });
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    begin(&mut stream, &[]).await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    stream.write_all(&request).await.unwrap();
    let begun = frame(HEADERS, END_STREAM, 3, GET);
    stream.write_all(&begun).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let trickle = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(10));
        let more = frame(CONTINUATION, 0, 3, b"\x00\x01x\x01y");
        for byte in more.iter().cycle() {
            ticks.tick().await;
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    let mut all = Vec::new();
    let _ = soon(reader.read_to_end(&mut all)).await;
    drop(reader);
    soon(trickle).await.unwrap();
    eventually("it is closed", || site.running.connections() == 0).await;
}

#[tokio::test]
async fn content_and_its_length_have_to_agree() {
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let web = raw_backend(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            while read_head(&mut stream).await.is_some() {
                let mut body = [0; 5];
                if stream.read_exact(&mut body).await.is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let site = Site::start(to(web));
    for (parts, want) in [
        (&["abcde"][..], Ok(200)),
        (&["abc", "de"], Ok(200)),
        (&["abc"], Err(Reason::PROTOCOL_ERROR)),
        (&[""], Err(Reason::PROTOCOL_ERROR)),
        (&["abc", "def"], Err(Reason::PROTOCOL_ERROR)),
    ] {
        let before = whole.load(Ordering::SeqCst);
        let mut client = connect(site.http).await;
        let request = Request::post("http://a.test/")
            .header("content-length", "5")
            .body(())
            .unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        for (at, part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let _ = body.send_data((*part).into(), last);
        }
        let got = soon(response).await;
        let got = got.map(|response| response.status().as_u16());
        let got = got.map_err(|error| error.reason().unwrap());
        assert_eq!(got, want, "{parts:?}");
        // What is too short is nothing to a backend; what is too long must not be more than was announced.
        if want.is_ok() {
            assert_eq!(whole.load(Ordering::SeqCst), before + 1, "{parts:?}");
        }
        if parts.concat().len() < 5 {
            assert_eq!(whole.load(Ordering::SeqCst), before, "{parts:?}");
        }
    }
}

#[tokio::test]
async fn a_response_ends_where_its_method_and_status_say() {
    let web = h2c(|_, mut connection| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let status: u16 = request.uri().path()[1..].parse().unwrap();
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Ok(mut body) = respond.send_response(response, false) {
                // Nobody asked for it, and the stream may be gone by now.
                let _ = body.send_data("surprise".into(), true);
            }
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let mut client = connect(site.http).await;
    for (method, path, content) in [
        ("HEAD", "/200", ""),
        ("GET", "/204", ""),
        ("GET", "/304", ""),
        ("GET", "/200", "surprise"),
    ] {
        client = soon(client.ready()).await.unwrap();
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let mut response = soon(response).await.unwrap();
        let (all, _) = read_all(response.body_mut()).await;
        assert_eq!(all, content.as_bytes(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_backend_with_http2_may_speak_before_its_response() {
    let web = h2c(|_, mut connection| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut hint = Response::new(());
                *hint.status_mut() = StatusCode::EARLY_HINTS;
                hint.headers_mut().insert("link", "<a>".parse().unwrap());
                respond.send_informational(hint).unwrap();
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                respond.send_informational(go_on).unwrap();
                let (all, _) = read_all(&mut request.into_body()).await;
                let mut body = respond.send_response(Response::new(()), false).unwrap();
                body.send_data(all.into(), true).unwrap();
            });
        }
    })
    .await;
    let site = Site::start(to_h2c(&[web]));
    let mut client = connect(site.http).await;
    let request = Request::post("http://a.test/")
        .header("expect", "100-continue")
        .body(())
        .unwrap();
    let (mut response, mut body) = client.send_request(request, false).unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&StatusCode::CONTINUE) {
        let interim = soon(poll_fn(|cx| response.poll_informational(cx))).await;
        let interim = interim.unwrap().unwrap();
        if interim.status() == StatusCode::EARLY_HINTS {
            assert_eq!(interim.headers()["link"], "<a>");
        }
        seen.push(interim.status());
    }
    assert_eq!(seen, [StatusCode::EARLY_HINTS, StatusCode::CONTINUE]);
    // Only now.
    body.send_data("content".into(), true).unwrap();
    let mut response = soon(response).await.unwrap();
    assert_eq!(read_all(response.body_mut()).await.0, b"content");
}
