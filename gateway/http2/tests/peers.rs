//! Against another implementation, and against ourselves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::similar_names,
    reason = "helpers of tests may fail"
)]

#[path = "kit/driver.rs"]
mod driver;
mod kit;
#[path = "kit/plan.rs"]
mod plan;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use driver::{drive, in_time, send_all};
use http::{HeaderMap, HeaderValue, Request, Response};
use http2::{Code, Connection, Ended, Head, Settings, Stream};
use plan::{Fate, Plan, REQUESTS, plan};
use tokio::sync::Semaphore;

fn sorted(map: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<_> = map
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-"))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    all.sort();
    all
}

fn expected(plan: &Plan) -> Vec<(String, String)> {
    let mut all = plan.fields.clone();
    all.sort();
    all
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

fn settings() -> Settings {
    Settings {
        max_streams: 40,
        ..Settings::default()
    }
}

/// Sends back what comes: its own fields, content and trailers.
async fn echo(head: Head, mut stream: Stream) -> Result<(), Ended> {
    let fields = head.into_fields();
    let own: Vec<_> = fields
        .iter()
        .filter(|(name, ..)| name.starts_with(b"x-"))
        .collect();
    let fate = own
        .iter()
        .find(|(name, ..)| *name == b"x-fate")
        .map(|(_, value, _)| *value);
    stream.respond(103, false, |writer| writer.add(b"x-early", b"1", false))?;
    stream.respond(200, false, |writer| {
        for (name, value, _) in &own {
            writer.add(name, value, false);
        }
    })?;
    let mut first = true;
    while let Some(content) = poll_fn(|cx| stream.poll_content(cx)).await {
        send_all(&mut stream, &content?, false).await?;
        if first && fate == Some(b"ServerResets") {
            stream.reset(Code::INTERNAL_ERROR);
            return Ok(());
        }
        if first && fate == Some(b"ServerDrops") {
            return Ok(());
        }
        first = false;
    }
    match stream.take_trailers() {
        Some(trailers) => stream.send_trailers(&trailers)?,
        None => send_all(&mut stream, b"", true).await?,
    }
    Ok(())
}

/// Asks with the other implementation; an error if there was one.
async fn their_request(
    plan: &Plan,
    send: &mut h2::client::SendRequest<Bytes>,
) -> Result<(), h2::Error> {
    let mut ready = send.clone().ready().await?;
    let (response, mut stream) = ready.send_request(plan.request(), false)?;
    let parts = async {
        for part in plan.parts() {
            stream.send_data(Bytes::copy_from_slice(part), false)?;
            tokio::task::yield_now().await;
            if plan.fate == Fate::ClientResets {
                stream.send_reset(h2::Reason::CANCEL);
                return Ok(());
            }
        }
        if plan.trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-trailer", HeaderValue::from_static("t"));
            stream.send_trailers(trailers)
        } else {
            stream.send_data(Bytes::new(), true)
        }
    };
    let answer = async {
        let response = response.await?;
        assert_eq!(sorted(response.headers()), expected(plan));
        let mut body = response.into_body();
        let mut got = Vec::new();
        while let Some(content) = body.data().await {
            let content = content?;
            got.extend_from_slice(&content);
            body.flow_control().release_capacity(content.len())?;
        }
        assert!(
            got == plan.content,
            "content differs: {} of {}",
            got.len(),
            plan.content.len()
        );
        assert_eq!(body.trailers().await?.is_some(), plan.trailers);
        Ok(())
    };
    let (sent, answered): (Result<(), h2::Error>, _) = tokio::join!(parts, answer);
    // What went wrong with the answer says more.
    answered.and(if plan.fate == Fate::Good {
        sent
    } else {
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn our_server_answers_their_client() {
    let (ours, theirs) = tokio::io::duplex(8 * 1024);
    let server = Connection::server(&settings());
    tokio::spawn(drive(server.clone(), ours, |head, stream| {
        tokio::spawn(echo(head, stream));
    }));
    let (send, connection) = h2::client::handshake(theirs).await.unwrap();
    tokio::spawn(async move { connection.await.unwrap() });
    // A request that has to wait for its turn in the other implementation is reset there only after all its content.
    let turns = Arc::new(Semaphore::new(30));
    let mut all = Vec::new();
    for number in 0..REQUESTS {
        let (mut send, turns) = (send.clone(), turns.clone());
        all.push(tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let plan = plan(number);
            let result = in_time("a request", their_request(&plan, &mut send)).await;
            if plan.fate == Fate::Good {
                result.unwrap_or_else(|error| panic!("{number}: {error}"));
            } else if !plan.content.is_empty() {
                assert!(result.unwrap_err().is_reset(), "{number}");
            }
        }));
    }
    for task in all {
        task.await.unwrap();
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.over(), None);
    assert!(!server.has_streams());
}

/// Asks with our client.
async fn our_request(number: usize, plan: &Plan, client: &Connection) -> Result<(), Ended> {
    let mut stream = client.open(false, |writer| {
        writer.add(b":method", b"POST", false);
        writer.add(b":scheme", b"https", false);
        writer.add(b":authority", b"a.test", false);
        writer.add(b":path", b"/echo", false);
        for (name, value) in &plan.fields {
            writer.add(name.as_bytes(), value.as_bytes(), value.len() % 7 == 0);
        }
    })?;
    let mut parts = plan
        .parts()
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect::<std::collections::VecDeque<_>>();
    let mut sent_trailers = !plan.trailers;
    let mut status = 0;
    let mut got = Vec::new();
    let mut sending = true;
    // One task for both directions, as a stream has one.
    poll_fn(|cx| {
        while sending {
            if plan.fate == Fate::ClientResets && number.is_multiple_of(2) && status == 200 {
                stream.reset(Code::CANCEL);
                return Poll::Ready(Err(Ended::Reset(Code::CANCEL)));
            }
            let part = parts.front().cloned().unwrap_or_default();
            let last = parts.len() <= 1 && !plan.trailers;
            if part.is_empty() && !last && !sent_trailers {
                let mut trailers = http2::Block::default();
                trailers.add(b"x-trailer", b"t", false);
                if let Err(why) = stream.send_trailers(&trailers) {
                    return Poll::Ready(Err(why));
                }
                sent_trailers = true;
                sending = false;
                break;
            }
            match stream.poll_send(cx, &part, last) {
                Poll::Ready(Ok(sent)) if sent == part.len() => {
                    parts.pop_front();
                    sending = !last;
                }
                Poll::Ready(Ok(sent)) => drop(parts[0].drain(..sent)),
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Pending => break,
            }
        }

        while status != 200 {
            match stream.poll_head(cx) {
                Poll::Ready(Ok(head)) => {
                    status = head.status();
                    if status == 200 {
                        let fields = head.into_fields();
                        let mut all: Vec<_> = fields
                            .iter()
                            .filter(|(name, ..)| name.starts_with(b"x-"))
                            .map(|(name, value, _)| (text(name), text(value)))
                            .collect();
                        all.sort();
                        assert_eq!(all, expected(plan));
                    }
                }
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            match stream.poll_content(cx) {
                Poll::Ready(Some(Ok(content))) => got.extend_from_slice(&content),
                Poll::Ready(Some(Err(why))) => return Poll::Ready(Err(why)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    assert!(got == plan.content, "{number}: content differs");
    assert_eq!(stream.take_trailers().is_some(), plan.trailers);
    assert!(stream.is_finished());
    Ok(())
}

/// The other implementation, sending back what comes.
async fn their_echo(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    respond.send_informational(Response::builder().status(103).body(()).unwrap())?;
    let mut response = Response::builder().status(200);
    for (name, value) in parts
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-"))
    {
        response = response.header(name, value);
    }
    let fate = parts
        .headers
        .get("x-fate")
        .map(|fate| fate.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
    let mut first = true;
    while let Some(content) = body.data().await {
        let content = content?;
        body.flow_control().release_capacity(content.len())?;
        stream.send_data(content, false)?;
        if first && fate == "ServerResets" {
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Ok(());
        }
        if first && fate == "ServerDrops" {
            return Ok(());
        }
        first = false;
    }
    match body.trailers().await? {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

#[tokio::test(start_paused = true)]
async fn our_client_asks_their_server() {
    let (ours, theirs) = tokio::io::duplex(8 * 1024);
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder
            .max_header_list_size(128 * 1024)
            .max_concurrent_streams(40);
        let mut connection = builder.handshake::<_, Bytes>(theirs).await.unwrap();
        while let Some(request) = connection.accept().await {
            let (request, respond) = request.unwrap();
            tokio::spawn(their_echo(request, respond));
        }
    });
    let client = Connection::client(&settings());
    tokio::spawn(drive(client.clone(), ours, |_, _| {
        panic!("a request of a server")
    }));
    ask_all(&client).await;
    assert_eq!(client.over(), None);
    assert!(!client.has_streams());
}

/// All requests with our client, at most 30 at once.
async fn ask_all(client: &Connection) {
    let turns = Arc::new(Semaphore::new(30));
    let mut all = Vec::new();
    for number in 0..REQUESTS {
        let (client, turns) = (client.clone(), turns.clone());
        all.push(tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let plan = plan(number);
            let result = in_time("a request", our_request(number, &plan, &client)).await;
            if matches!(plan.fate, Fate::Good) || plan.fate == Fate::ClientResets && number % 2 == 1
            {
                assert_eq!(result, Ok(()), "{number}");
            } else if !plan.content.is_empty() && plan.fate != Fate::ClientResets {
                assert!(
                    matches!(result, Err(Ended::Reset(_))),
                    "{number}: {result:?}"
                );
            }
        }));
    }
    for task in all {
        task.await.unwrap();
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn our_client_asks_our_server() {
    for room in [64, 8 * 1024, 1 << 20] {
        let (left, right) = tokio::io::duplex(room);
        let server = Connection::server(&settings());
        tokio::spawn(drive(server.clone(), left, |head, stream| {
            tokio::spawn(echo(head, stream));
        }));
        let client = Connection::client(&settings());
        tokio::spawn(drive(client.clone(), right, |_, _| {
            panic!("a request of a server")
        }));
        ask_all(&client).await;
        assert_eq!((client.over(), server.over()), (None, None));
        assert!(!client.has_streams() && !server.has_streams());
    }
}

#[tokio::test(start_paused = true)]
async fn large_pieces_in_both_directions_at_once_arrive() {
    let set = Settings {
        stream_window: 8 << 20,
        connection_window: 8 << 20,
        ..Settings::default()
    };
    let (left, right) = tokio::io::duplex(1024);
    let server = Connection::server(&set);
    let (give, mut take) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(drive(server.clone(), left, move |_, stream| {
        let _ = give.send(stream);
    }));
    let client = Connection::client(&set);
    tokio::spawn(drive(client.clone(), right, |_, _| {}));
    let mut asking = client
        .open(false, |writer| {
            for (name, value) in [(":method", "POST"), (":scheme", "https"), (":path", "/")] {
                writer.add(name.as_bytes(), value.as_bytes(), false);
            }
        })
        .unwrap();
    let mut answering = in_time("a request", take.recv()).await.unwrap();
    answering.respond(200, false, |_| {}).unwrap();
    // Both have heard the settings of the other.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let piece = vec![1; 1 << 20];
    let send = async |stream: &mut Stream| {
        for _ in 0..6 {
            send_all(stream, &piece, false).await?;
        }
        send_all(stream, b"", true).await
    };
    let both = async { tokio::join!(send(&mut asking), send(&mut answering)) };
    assert_eq!(
        in_time("content in both directions", both).await,
        (Ok(()), Ok(()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_farewell_of_our_server_loses_no_request() {
    let (ours, theirs) = tokio::io::duplex(4 * 1024);
    let server = Connection::server(&settings());
    let served = Arc::new(AtomicUsize::new(0));
    let (counted, saying) = (served.clone(), server.clone());
    tokio::spawn(drive(server.clone(), ours, move |head, stream| {
        if counted.fetch_add(1, Ordering::SeqCst) == 20 {
            saying.say_farewell();
        }
        tokio::spawn(echo(head, stream));
    }));
    let (send, connection) = h2::client::handshake(theirs).await.unwrap();
    tokio::spawn(connection);
    let mut all = Vec::new();
    for number in 0..200 {
        let mut send = send.clone();
        all.push(tokio::spawn(async move {
            let plan = Plan {
                fate: Fate::Good,
                fields: vec![("x-fate".to_owned(), "Good".to_owned())],
                ..plan(number)
            };
            in_time("a request", their_request(&plan, &mut send)).await
        }));
    }
    let mut good = 0;
    for task in all {
        match task.await.unwrap() {
            Ok(()) => good += 1,
            Err(error) => assert!(error.is_go_away() || error.reason().is_none(), "{error:?}"),
        }
    }
    assert_eq!(good, served.load(Ordering::SeqCst));
    assert!((20..200).contains(&good), "{good}");
    assert!(server.is_served() && server.over().is_none() || server.over() == Some(Code::NO_ERROR));
    assert!(!server.has_streams());
}

#[tokio::test(start_paused = true)]
async fn our_client_learns_what_a_server_that_says_farewell_has_not_seen() {
    let (ours, theirs) = tokio::io::duplex(4 * 1024);
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    tokio::spawn(async move {
        let mut connection = h2::server::Builder::new()
            .handshake::<_, Bytes>(theirs)
            .await
            .unwrap();
        while let Some(request) = connection.accept().await {
            let Ok((request, respond)) = request else {
                break;
            };
            if counted.fetch_add(1, Ordering::SeqCst) == 20 {
                connection.graceful_shutdown();
            }
            tokio::spawn(their_echo(request, respond));
        }
    });
    let client = Connection::client(&settings());
    tokio::spawn(drive(client.clone(), ours, |_, _| {}));
    let turns = Arc::new(Semaphore::new(15));
    let mut all = Vec::new();
    for number in 0..200 {
        let (client, turns) = (client.clone(), turns.clone());
        all.push(tokio::spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            let plan = Plan {
                fate: Fate::Good,
                fields: vec![("x-fate".to_owned(), "Good".to_owned())],
                ..plan(number)
            };
            in_time("a request", our_request(number, &plan, &client)).await
        }));
    }
    let mut good = 0;
    for task in all {
        match task.await.unwrap() {
            Ok(()) => good += 1,
            Err(why) => assert_eq!(why, Ended::NotSeen),
        }
    }
    assert_eq!(good, served.load(Ordering::SeqCst));
    assert!((20..200).contains(&good), "{good}");
    assert!(!client.has_streams());
}
