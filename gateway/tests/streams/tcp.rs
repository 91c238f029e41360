//! Connections from a port to a pod.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway::LogFormat;
use model::StreamRules;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::shared::{counted, eventually, soon};
use crate::support::*;

#[tokio::test]
async fn a_server_may_speak_first_and_both_sides_are_counted() {
    let (model, port) = with_port(&[parrot("hello ").await]);
    let site = Site::start(model).await;
    let entrance = format!("entrance=\"tcp/{port}\"");
    let labels = [entrance.as_str(), "service=\"pg\"", "service_port=\"5432\""];
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "hello ").await;
    exchange(&mut stream, "world", "world").await;
    assert!((counted("lockgate_streams_open", &labels) - 1.0).abs() < 0.1);
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"");

    let line = site.log.ended("done").await;
    for (field, want) in [
        ("protocol", "TCP"),
        ("remote_addr", "127.0.0.1"),
        ("namespace", "lockgate"),
        ("service", "pg"),
        ("service_port", "5432"),
    ] {
        assert_eq!(line[field], want, "{field} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes_received"], 5);
    assert_eq!(line["bytes_sent"], 11);
    assert_eq!(line["tries"], 1);
    let of = |direction| {
        counted(
            "lockgate_stream_bytes_total",
            &[&labels[..], &[direction]].concat(),
        )
    };
    assert!((of("direction=\"received\"") - 5.0).abs() < 0.1);
    assert!((of("direction=\"sent\"") - 11.0).abs() < 0.1);
    let done = [&labels[..], &["reason=\"done\""]].concat();
    assert!((counted("lockgate_streams_total", &done) - 1.0).abs() < 0.1);
    assert!(counted("lockgate_streams_open", &labels).abs() < 0.1);
}

#[tokio::test]
async fn the_text_format_is_that_of_ingress_nginx() {
    let (model, port) = with_port(&[parrot("hello ").await]);
    let site = Site::with(model, |settings| {
        settings.access_log = Some(LogFormat::Text);
    })
    .await;
    let mut stream = connect(port).await;
    exchange(&mut stream, "world", "hello world").await;
    drop(stream);
    eventually("a line is written", || site.log.text().ends_with('\n')).await;
    // `[$remote_addr] [$time_local] $protocol $status $bytes_sent $bytes_received $session_time`
    let line = site.log.text();
    let (client, rest) = line.split_once("] [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(client, "[127.0.0.1");
    assert!(
        time.ends_with(" +0000") && time.matches(':').count() == 3,
        "{time}"
    );
    let (counts, seconds) = rest.trim_end().rsplit_once(' ').unwrap();
    assert_eq!(counts, "TCP 200 11 5");
    assert!(seconds.parse::<f64>().unwrap() < 20.0, "{seconds}");
}

#[tokio::test]
async fn a_side_that_has_ended_still_listens() {
    // It answers only once it has heard everything.
    let address = server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let sum: u64 = all.iter().map(|byte| u64::from(*byte)).sum();
        let answer = format!("{} {sum}", all.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let (model, port) = with_port(&[address]);
    let _site = Site::start(model).await;
    let mut stream = connect(port).await;
    let sent: Vec<u8> = (0..3_000_017_u32).map(|n| n.to_le_bytes()[0]).collect();
    let sum: u64 = sent.iter().map(|byte| u64::from(*byte)).sum();
    soon(stream.write_all(&sent)).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = rest(&mut stream).await.unwrap();
    let want = format!("{} {sum}", sent.len());
    assert_eq!(String::from_utf8(answer).unwrap(), want);
}

#[tokio::test]
async fn what_a_client_does_not_take_is_not_kept_for_it() {
    let written = Arc::new(AtomicUsize::new(0));
    let stuck = Arc::new(Notify::new());
    let (count, signal) = (Arc::clone(&written), Arc::clone(&stuck));
    let address = server(move |mut stream| {
        let (count, signal) = (Arc::clone(&count), Arc::clone(&signal));
        async move {
            let chunk = vec![7; 64 * 1024];
            // A write that waits for a second waits for its reader.
            while let Ok(Ok(length)) = timeout(Duration::from_secs(1), stream.write(&chunk)).await {
                count.fetch_add(length, Ordering::Relaxed);
            }
            signal.notify_one();
            // The connection stays.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let (model, port) = with_port(&[address]);
    let _site = Site::start(model).await;
    let mut stream = connect(port).await;
    soon(stuck.notified()).await;
    let total = written.load(Ordering::Relaxed);
    // Four socket buffers of the system, whose size it chooses.
    assert!(total < 64 << 20, "{total} bytes are under way");
    // Nothing is lost.
    let mut got = vec![0; total];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_broken_stream_does_not_look_complete() {
    let address = server(|mut stream| async move {
        stream.write_all(b"half").await.unwrap();
        let mut said = [0; 2];
        stream.read_exact(&mut said).await.unwrap();
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    })
    .await;
    let (model, port) = with_port(&[address]);
    let site = Site::start(model).await;
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "half").await;
    stream.write_all(b"ok").await.unwrap();
    let end = rest(&mut stream).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    site.log.ended("upstream-reset").await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let good = parrot("good").await;
    let (model, port) = with_port(&[nobody(), good]);
    let site = Site::start(model).await;
    for _ in 0..10 {
        let mut stream = connect(port).await;
        exchange(&mut stream, "", "good").await;
    }
    // At least the first one went to the wrong place before, on one of the workers.
    let line = site.log.line(|line| line["tries"] == 2).await;
    let tried = line["upstream_addr"].as_str().unwrap();
    assert!(tried.ends_with(&format!(", {good}")), "{tried}");
}

#[tokio::test]
async fn without_an_endpoint_the_connection_is_closed() {
    for (addresses, tries, reason) in [
        (vec![], StreamRules::default().tries, "no-endpoints"),
        (vec![nobody()], 0, "connect-failed"),
        (vec![nobody(), parrot("x").await], 1, "connect-failed"),
    ] {
        let (mut model, port) = with_port(&addresses);
        let with_tries = route_with("pg", |route| route.rules.tries = tries);
        model.streams.tcp.insert(port, with_tries);
        let site = Site::start(model).await;
        let closed = async {
            // Which endpoint comes first is up to the worker; the parrot would say something.
            while connect(port)
                .await
                .read(&mut [0; 1])
                .await
                .is_ok_and(|length| length > 0)
            {}
        };
        soon(closed).await;
        let line = site.log.ended(reason).await;
        assert_eq!(line["status"], 502);
    }
}

#[tokio::test]
async fn silence_ends_a_stream() {
    let (mut model, port) = with_port(&[parrot("hi").await]);
    let impatient = route_with("pg", |route| route.rules.idle = 1);
    model.streams.tcp.insert(port, impatient);
    let site = Site::start(model).await;
    let begun = Instant::now();
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "hi").await;
    // What is said in between counts.
    let mut ticks = tokio::time::interval(Duration::from_millis(300));
    for _ in 0..6 {
        ticks.tick().await;
        exchange(&mut stream, "x", "x").await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1200));
    assert_eq!(rest(&mut stream).await.unwrap(), b"");
    site.log.ended("idle-timeout").await;
}

#[tokio::test]
async fn new_endpoints_are_for_new_streams() {
    let (model, port) = with_port(&[parrot("old").await]);
    let mut site = Site::start(model).await;
    let mut before = connect(port).await;
    exchange(&mut before, "", "old").await;
    let new = parrot("new").await;
    for _ in 0..3 {
        site.change(|model| endpoints(model, "pg", &[new])).await;
        let mut after = connect(port).await;
        exchange(&mut after, "", "new").await;
        exchange(&mut before, "still there", "still there").await;
    }
}

#[tokio::test]
async fn the_proxy_protocol_is_taken_off_and_put_on() {
    const HEADER: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4242 443\r\n";
    let echo = server(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await;
    let (mut model, plain) = with_port(&[echo]);
    let mut ports = vec![plain];
    for (proxy_in, proxy_out) in [(true, false), (true, true), (false, true)] {
        let port = free_port();
        let route = route_with("pg", |route| {
            route.proxy_in = proxy_in;
            route.proxy_out = proxy_out;
        });
        model.streams.tcp.insert(port, route);
        ports.push(port);
    }
    model.streams.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let mut site = Site::start(model).await;
    // It is not ours to read where nobody asked for it.
    exchange(&mut connect(ports[0]).await, HEADER, HEADER).await;
    let mut stream = connect(ports[1]).await;
    exchange(&mut stream, &format!("{HEADER}data"), "data").await;
    let mut stream = connect(ports[2]).await;
    exchange(
        &mut stream,
        &format!("{HEADER}data"),
        &format!("{HEADER}data"),
    )
    .await;
    drop(stream);
    let line = site
        .log
        .line(|line| line["remote_addr"] == "203.0.113.9")
        .await;
    assert_eq!(line["proxy_protocol_addr"], "203.0.113.9");
    assert_eq!(line["peer_addr"], "127.0.0.1");
    // The pod learns of the connection as it is.
    let mut stream = connect(ports[3]).await;
    let ours: SocketAddr = stream.local_addr().unwrap();
    let want = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        ours.port(),
        ports[3]
    );
    exchange(&mut stream, "", &want).await;
    exchange(&mut stream, "data", "data").await;

    for (from, said, reason) in [
        ("127.0.0.0/8", "no header", "proxy-protocol-missing"),
        (
            "127.0.0.0/8",
            "PROXY TCP9 1 2 3 4\r\n",
            "proxy-protocol-invalid",
        ),
        ("10.0.0.0/8", HEADER, "proxy-protocol-untrusted"),
    ] {
        site.change(|model| {
            model.streams.proxy_protocol_from = vec![from.parse().unwrap()];
        })
        .await;
        let labels = [
            format!("listener=\"tcp/{}\"", ports[1]),
            format!("reason=\"{reason}\""),
        ];
        let labels = labels.each_ref().map(String::as_str);
        let mut stream = connect(ports[1]).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        // What was sent and not read makes the end a reset.
        let answer = rest(&mut stream).await.unwrap_or_default();
        assert_eq!(answer, b"");
        eventually(reason, || {
            counted("lockgate_connections_refused_total", &labels) > 0.5
        })
        .await;
    }
}
