//! What this engine sees to where a connection goes on to the WebSocket protocol.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Duration;

use crate::support::{
    Site, add_backend, add_route_with, forward, model, raw_backend, read_head, soon, to,
};
use crate::websocket::{AGREE, ASK, agreeing, echo, exchange_large, impatient, open};

#[tokio::test]
async fn neither_direction_waits_for_the_other() {
    let site = Site::start(to(echo().await));
    exchange_large(open(&site).await).await;
}

#[tokio::test]
async fn one_side_may_go_on_when_the_other_has_said_all() {
    let (send, mut receive) = mpsc::unbounded_channel();
    // Answers what it has heard once there is no more of it.
    let patient = agreeing(move |mut stream| {
        let send = send.clone();
        async move {
            stream.write_all(b"hello").await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            send.send(all).unwrap();
        }
    })
    .await;
    let site = Site::start(to(patient));
    let mut stream = open(&site).await;
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon(receive.recv()).await.unwrap(), b"question");
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"helloquestion");
    let line = site.log.of("/ws").await;
    assert_eq!(line["reason"], "upstream");

    // The other way round.
    let (send, mut receive) = mpsc::unbounded_channel();
    let brief = agreeing(move |mut stream| {
        let send = send.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            send.send(all).unwrap();
        }
    })
    .await;
    let site = Site::start(to(brief));
    let mut stream = open(&site).await;
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"bye");
    stream.write_all(b"one ").await.unwrap();
    stream.write_all(b"more").await.unwrap();
    drop(stream);
    assert_eq!(soon(receive.recv()).await.unwrap(), b"one more");
}

#[tokio::test]
async fn who_has_said_all_does_not_wait_for_ever() {
    let (held, mut holds) = mpsc::unbounded_channel();
    let deaf = agreeing(move |stream| {
        let held = held.clone();
        async move { held.send(stream).unwrap() }
    })
    .await;
    let site = Site::start(impatient(deaf, 1));
    let mut stream = open(&site).await;
    let _endpoint = soon(holds.recv()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert!(all.is_empty(), "{all:?}");
    // An end like others: nobody was waited for in vain.
    assert_eq!(site.log.of("/ws").await["reason"], "upstream");
}

#[tokio::test]
async fn the_last_words_of_an_endpoint_that_is_cut_off_arrive() {
    let broken = agreeing(|mut stream| async move {
        stream.write_all(b"oh").await.unwrap();
        // Whoever sends this has had the words.
        stream.read_u8().await.unwrap();
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let site = Site::start(to(broken));
    let mut stream = open(&site).await;
    let mut words = [0; 2];
    soon(stream.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"oh");
    stream.write_all(b"x").await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    assert_eq!(site.log.of("/ws").await["reason"], "upstream-reset");
}

#[tokio::test]
async fn an_agreement_to_anything_else_is_none() {
    for (answer, why) in [
        (AGREE.replace("websocket", "h2c"), "another protocol"),
        (AGREE.replace("websocket", "websocket, h2c"), "two"),
        (
            AGREE.replace("Connection", "Upgrade: h2c\r\nConnection"),
            "another one as well",
        ),
        (AGREE.replace("Upgrade: websocket\r\n", ""), "to what?"),
        (AGREE.replace("HTTP/1.1", "HTTP/1.0"), "another version"),
    ] {
        let text = answer.clone();
        let odd = raw_backend(move |mut stream| {
            let text = text.clone();
            async move {
                read_head(&mut stream).await.unwrap();
                stream.write_all(text.as_bytes()).await.unwrap();
                // The end of the connection is all that may come.
                assert!(stream.read_u8().await.is_err());
            }
        })
        .await;
        let site = Site::start(to(odd));
        let all = site.raw(format!("{ASK}early")).await;
        assert!(all.starts_with("HTTP/1.1 502 "), "{why}: {all}");
        let line = site.log.of("/ws").await;
        assert_eq!(line["reason"], "upstream-invalid", "{why}");
    }
}

/// A backend that has agreed, and speaks or listens as it is told to.
async fn one_sided(speaks: bool) -> SocketAddr {
    agreeing(move |mut stream| async move {
        let piece = vec![0; 64 * 1024];
        while speaks && stream.write_all(&piece).await.is_ok() {}
        if !speaks {
            std::future::pending::<()>().await;
        }
    })
    .await
}

#[tokio::test]
async fn who_takes_nothing_is_let_go() {
    let site = Site::with(to(one_sided(true).await), |settings| {
        settings.limits.write_timeout = Duration::from_millis(300);
    });
    let stream = open(&site).await;
    let line = site.log.of("/ws").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &"client-closed".into())
    );
    drop(stream);

    let mut routes = model();
    add_backend(&mut routes, "web", &[one_sided(false).await]);
    add_route_with(&mut routes, "*", "/", forward("web"), |route| {
        route.timeouts.send = 1;
    });
    let site = Site::start(routes);
    let mut stream = open(&site).await;
    let piece = vec![0; 64 * 1024];
    let speak = async { while stream.write_all(&piece).await.is_ok() {} };
    soon(speak).await;
    let line = site.log.of("/ws").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &"write-timeout".into())
    );
}
