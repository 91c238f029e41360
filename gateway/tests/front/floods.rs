//! Clients of HTTP/2 that send what carries nothing, again and again.

use std::time::Duration;

use gateway::Limits;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, begin, frame, read,
};
use crate::support::*;

const PRIORITY: u8 = 2;
const UNKNOWN: u8 = 0xbe;

/// As by default, but for the number.
const MOST: u32 = 500;

fn limits() -> Limits {
    Limits {
        h2_max_control_frames: MOST,
        h2_max_resets: 50,
        ..Limits::default()
    }
}

/// Reads up to the end of the connection; the code of the last GOAWAY.
async fn farewell(stream: &mut (impl AsyncRead + Unpin)) -> Option<u32> {
    let mut code = None;
    while let Some(frame) = read(stream).await {
        if let Some((_, said)) = frame.farewell() {
            code = Some(said);
        }
    }
    code
}

/// Sends this as often as it is taken, at most `most` times. Says how the connection ended, or that it did not.
async fn flood(site: &Site, opening: &[u8], piece: &[u8], most: usize) -> Result<(), Option<u32>> {
    let mut stream = site.plain().await;
    begin(&mut stream, &[]).await;
    stream.write_all(opening).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let many = piece.repeat(20);
    let sending = tokio::spawn(async move {
        for _ in 0..most / 20 {
            if writer.write_all(&many).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        writer
    });
    let ended = timeout(Duration::from_secs(15), farewell(&mut reader)).await;
    sending.abort();
    match ended {
        Ok(code) => Err(code),
        Err(_still_there) => Ok(()),
    }
}

/// `ENHANCE_YOUR_CALM` (RFC 9113, 7). Pingora has no way to say it.
fn is_turned_out(end: Result<(), Option<u32>>) -> bool {
    end == Err(Some(11)) || crate::ENGINE == gateway::Engine::Pingora && end.is_err()
}

#[tokio::test]
async fn frames_that_carry_nothing_have_a_limit() {
    let origin = TestOrigin::start().await;
    let mut model = empty();
    forward(&mut model, origin.address);
    let site = Site::limited(model, limits());
    let labels = ["reason=\"h2-control-frames\""];
    let open = frame(HEADERS, END_HEADERS, 1, GET);
    for (opening, piece, what) in [
        (vec![], frame(PING, 0, 0, &[1; 8]), "PING"),
        (vec![], frame(SETTINGS, 0, 0, &[]), "SETTINGS"),
        (vec![], frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), "PRIORITY"),
        (vec![], frame(UNKNOWN, 0, 0, b"x"), "unknown"),
        (
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            "WINDOW_UPDATE",
        ),
        (open, frame(DATA, 0, 1, &[]), "empty DATA"),
    ] {
        let before = counted("lockgate_connections_cut_total", &labels);
        let end = flood(&site, &opening, &piece, 100_000).await;
        // Of empty DATA, `h2` has a limit of its own.
        assert!(is_turned_out(end), "{what}: {end:?}");
        if what != "empty DATA" {
            eventually("it is counted", || {
                counted("lockgate_connections_cut_total", &labels) > before
            })
            .await;
        }
    }
    // Nobody else is the worse for it.
    let mut stream = site.plain().await;
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 200);
    eventually("nothing is left", || site.running.connections() == 1).await;
}

#[tokio::test]
async fn a_header_section_in_a_thousand_pieces_ends_its_connection() {
    let site = Site::limited(empty(), limits());
    let open = frame(HEADERS, END_STREAM, 1, GET);
    let piece = frame(CONTINUATION, 0, 1, &[]);
    let end = flood(&site, &open, &piece, 100_000).await;
    assert!(is_turned_out(end), "{end:?}");
}

#[tokio::test]
async fn streams_that_are_taken_back_have_a_limit() {
    let site = Site::limited(empty(), limits());
    let labels = ["reason=\"h2-resets\""];
    let before = counted("lockgate_connections_cut_total", &labels);
    let mut stream = site.plain().await;
    begin(&mut stream, &[]).await;
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        for number in 0..2000 {
            let id = 2 * number + 1;
            // It waits for more, so that there is no answer yet.
            let mut both = frame(HEADERS, END_HEADERS, id, GET);
            both.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
            if writer.write_all(&both).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    });
    let code = soon(farewell(&mut reader)).await;
    assert!(is_turned_out(Err(code)), "{code:?}");
    sending.abort();
    if crate::ENGINE == gateway::Engine::Pingora {
        eventually("it is counted", || {
            counted("lockgate_connections_cut_total", &labels) > before
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_reads_in_small_steps_is_no_flood() {
    let body = "x".repeat(1024 * 1024);
    let origin = answering(body.clone()).await;
    let mut model = empty();
    forward(&mut model, origin);
    let site = Site::limited(model, limits());
    let mut stream = site.plain().await;
    // Windows of 4 KiB, widened after each kibibyte: two thousand WINDOW_UPDATE frames, and a PING beside each fourth.
    begin(&mut stream, &[(4, 4096)]).await;
    stream
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, GET))
        .await
        .unwrap();
    let (mut got, mut owed, mut steps) = (0, 0_u32, 0_u32);
    loop {
        let frame_in = soon(read(&mut stream)).await;
        let frame_in = frame_in.unwrap_or_else(|| {
            let why = crate::shared::METRICS.render();
            let cut = why.lines().filter(|line| line.contains("cut_total"));
            panic!(
                "after {got} bytes, {steps} steps: {:?}",
                cut.collect::<Vec<_>>()
            )
        });
        assert_eq!(frame_in.farewell(), None, "after {got} bytes");
        if frame_in.kind != DATA {
            continue;
        }
        got += frame_in.payload.len();
        if frame_in.flags & END_STREAM != 0 {
            break;
        }
        owed += u32::try_from(frame_in.payload.len()).unwrap();
        let mut out = Vec::new();
        while owed > 0 {
            let step = owed.min(1024);
            owed -= step;
            steps += 1;
            out.extend(frame(WINDOW_UPDATE, 0, 1, &step.to_be_bytes()));
            out.extend(frame(WINDOW_UPDATE, 0, 0, &step.to_be_bytes()));
            if steps.is_multiple_of(4) {
                out.extend(frame(PING, 0, 0, &[2; 8]));
            }
        }
        stream.write_all(&out).await.unwrap();
    }
    assert_eq!(got, body.len());
    assert!(
        2 * steps > MOST,
        "{steps} steps are too few to prove anything"
    );
}

/// A server that answers everything with this.
async fn answering(body: String) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            tokio::spawn(async move {
                while read_one(&mut stream).await {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads a header section.
async fn read_one(stream: &mut TcpStream) -> bool {
    use tokio::io::AsyncReadExt;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn a_client_of_answers_without_content_is_no_flood() {
    let origin = answering(String::new()).await;
    let mut model = empty();
    forward(&mut model, origin);
    let site = Site::limited(model, limits());
    let mut stream = site.plain().await;
    begin(&mut stream, &[]).await;
    // As some clients do: a window and a priority with each request.
    for number in 0..MOST {
        let id = 2 * number + 1;
        let mut request = frame(HEADERS, END_HEADERS | END_STREAM, id, GET);
        request.extend(frame(WINDOW_UPDATE, 0, id, &1024_u32.to_be_bytes()));
        request.extend(frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1]));
        stream.write_all(&request).await.unwrap();
        loop {
            let answer = soon(read(&mut stream)).await;
            let answer = answer.unwrap_or_else(|| panic!("cut at request {number}"));
            assert_eq!(answer.farewell(), None, "at request {number}");
            if matches!(answer.kind, HEADERS | DATA) && answer.flags & END_STREAM != 0 {
                break;
            }
        }
    }
}
