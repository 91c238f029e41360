use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use model::ListenerName;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::time::interval;

use super::*;
use crate::connection::Deadline;
use crate::drain::Tracker;
use crate::settings::Limits;

impl Linger for DuplexStream {
    async fn linger(mut self) {
        let mut rest = Vec::new();
        let _ = self.read_to_end(&mut rest).await;
    }
}

const SHORT: Duration = Duration::from_millis(80);
const LONG: Duration = Duration::from_mins(10);

fn guard(header: Duration, idle: Duration, http2: bool) -> (GuardIo<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1024);
    let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let connection = Connection {
        peer: address,
        client: address,
        local: address,
        proxied: false,
        listener: ListenerName::http(),
        tls: None,
        http2,
        deadline: Arc::new(Deadline::new(Instant::now(), header, idle)),
        linger: AtomicBool::new(false),
        limits: Arc::default(),
        // Leaked: without a sender, everything would be at its end.
        longest_idle: Box::leak(Box::new(tokio::sync::watch::Sender::new(
            crate::front::idle::ANY,
        )))
        .subscribe(),
        given: Arc::default(),
        flooded: false.into(),
        client_text: std::sync::OnceLock::new(),
        slot: Tracker::new(&Limits::default(), false).open().unwrap(),
        logged: crate::connection::Logged::default(),
    };
    let digests = Digests {
        id: 0,
        socket: Arc::new(SocketDigest::from_raw_fd(-1)),
        tls: None,
    };
    (GuardIo::new(ours, Arc::new(connection), digests), theirs)
}

/// Reads up to the first failure, for ten seconds at most.
async fn read_all(guard: &mut GuardIo<DuplexStream>) -> (usize, io::ErrorKind, Duration) {
    let begun = Instant::now();
    let mut buf = [0; 64];
    let mut length = 0;
    let read = async {
        loop {
            match guard.read(&mut buf).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof,
                Ok(read) => length += read,
                Err(error) => return error.kind(),
            }
        }
    };
    let kind = timeout(Duration::from_secs(10), read).await.unwrap();
    (length, kind, begun.elapsed())
}

#[tokio::test]
async fn silence_is_cut() {
    let (mut guard, _client) = guard(SHORT, LONG, false);
    let (length, kind, after) = read_all(&mut guard).await;
    assert_eq!((length, kind), (0, io::ErrorKind::TimedOut));
    assert!(after + Duration::from_millis(1) >= SHORT, "after {after:?}");
}

#[tokio::test]
async fn a_trickle_is_cut() {
    let (mut guard, mut client) = guard(SHORT, LONG, false);
    let trickle = tokio::spawn(async move {
        let mut tick = interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            if client.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let (length, kind, _) = read_all(&mut guard).await;
    assert_eq!(kind, io::ErrorKind::TimedOut);
    assert!(length > 0, "bytes that came in time are read");
    drop(guard);
    timeout(Duration::from_secs(5), trickle)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_request_that_runs_is_not_cut() {
    let (mut guard, mut client) = guard(SHORT, LONG, false);
    guard.guarded.connection.request_started();
    let quiet = timeout(SHORT * 3, guard.read_u8()).await;
    assert!(quiet.is_err(), "the read is still waiting");
    client.write_all(b"x").await.unwrap();
    assert_eq!(guard.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn the_idle_time_ends_with_the_first_byte_of_the_next_request() {
    // Silence between two requests: the idle time counts, although a timer for later exists already.
    let (mut idle, _client) = guard(LONG, SHORT, false);
    assert!(timeout(SHORT / 4, idle.read_u8()).await.is_err());
    idle.guarded.connection.request_started();
    idle.guarded.connection.request_finished(Instant::now());
    assert_eq!(read_all(&mut idle).await.1, io::ErrorKind::TimedOut);

    // The first byte came in time: now the header time counts, not the rest of the idle time.
    let (mut slow, mut client) = guard(SHORT, LONG, false);
    slow.guarded.connection.request_started();
    slow.guarded.connection.request_finished(Instant::now());
    client.write_all(b"G").await.unwrap();
    let (length, kind, _) = read_all(&mut slow).await;
    assert_eq!((length, kind), (1, io::ErrorKind::TimedOut));
}

#[tokio::test]
async fn an_idle_http2_connection_is_left_to_its_own_timer() {
    let (mut guard, mut client) = guard(SHORT, SHORT, true);
    guard.guarded.connection.request_started();
    guard.guarded.connection.request_finished(Instant::now());
    assert!(timeout(SHORT * 3, guard.read_u8()).await.is_err());
    client.write_all(b"x").await.unwrap();
    assert_eq!(guard.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn who_is_to_go_and_still_speaks_is_heard() {
    let (mut guard, mut client) = guard(SHORT, LONG, true);
    let connection = Arc::clone(&guard.guarded.connection);
    connection.request_started();
    connection.deadline.arm_farewell(Instant::now());
    // Looked at too late: what had come until then is not lost.
    let at = connection.deadline.at().unwrap();
    client.write_all(b"x").await.unwrap();
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
    assert_eq!(guard.read_u8().await.unwrap(), b'x');
    // Every byte gives it the whole time once more.
    let begun = Instant::now();
    while begun.elapsed() < SHORT * 3 {
        client.write_all(b"x").await.unwrap();
        assert_eq!(guard.read_u8().await.unwrap(), b'x');
        tokio::task::yield_now().await;
    }
    let (length, kind, _) = read_all(&mut guard).await;
    assert_eq!((length, kind), (0, io::ErrorKind::TimedOut));
}

#[tokio::test]
async fn a_request_that_came_in_time_is_read_however_late() {
    let (mut guard, mut client) = guard(LONG, SHORT, false);
    let connection = Arc::clone(&guard.guarded.connection);
    connection.request_started();
    connection.request_finished(Instant::now());
    let at = connection.deadline.at().unwrap();
    client.write_all(b"G").await.unwrap();
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
    assert_eq!(guard.read_u8().await.unwrap(), b'G');
}

#[tokio::test]
async fn a_half_read_request_is_read_after_the_end() {
    for lingers in [false, true] {
        let (guard, mut client) = guard(LONG, LONG, false);
        if lingers {
            guard.guarded.connection.linger();
        }
        let connection = Arc::downgrade(&guard.guarded.connection);
        drop(guard);
        // More than the pipe holds.
        let sent = timeout(Duration::from_secs(5), client.write_all(&[b'x'; 5000]));
        assert_eq!(sent.await.unwrap().is_ok(), lingers);
        assert_eq!(
            connection.upgrade().is_some(),
            lingers,
            "it counts meanwhile"
        );
        drop(client);
        let gone = async {
            while connection.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.unwrap();
    }
}

#[tokio::test]
async fn a_timer_moves_both_ways() {
    let (mut guard, _client) = guard(SHORT, LONG, false);
    assert!(timeout(SHORT / 4, guard.read_u8()).await.is_err());
    // Later: the timer that exists fires too early and is set again.
    guard.guarded.connection.deadline.arm_idle(Instant::now());
    assert!(timeout(SHORT * 2, guard.read_u8()).await.is_err());
    // Earlier.
    guard.guarded.connection.deadline.arm_header(Instant::now());
    assert_eq!(read_all(&mut guard).await.1, io::ErrorKind::TimedOut);
}
