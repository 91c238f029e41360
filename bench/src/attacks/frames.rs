//! Frames of HTTP/2 (RFC 9113) that no client library would send.

/// What a client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const CANCEL: u32 = 8;

/// One frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], into: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    into.extend_from_slice(length.to_be_bytes().get(1..).unwrap_or_default());
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// `GET /` over https for this host, in HPACK (RFC 7541) and without its dynamic table.
fn request(host: &str) -> Vec<u8> {
    // From the static table: the method, the scheme, the path; then `:authority` with a value of our own.
    let mut block = vec![0x82, 0x87, 0x84, 0x01];
    block.push(u8::try_from(host.len() & 0x7f).unwrap_or_default());
    block.extend_from_slice(host.as_bytes());
    block
}

/// Preface and empty settings.
pub(super) fn opening() -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    frame(SETTINGS, 0, 0, &[], &mut bytes);
    bytes
}

/// Requests from `first` on, each taken back at once.
pub(super) fn taken_back(host: &str, first: u32, count: u32) -> Vec<u8> {
    let block = request(host);
    let mut bytes = Vec::new();
    for number in 0..count {
        let stream = first.wrapping_add(number * 2);
        frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &block,
            &mut bytes,
        );
        frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes(), &mut bytes);
    }
    bytes
}

/// The beginning of a header section that is never complete.
pub(super) fn endless_header(host: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(HEADERS, END_STREAM, 1, &request(host), &mut bytes);
    bytes
}

/// More of it: some frames with fields, and as many with nothing.
pub(super) fn more_of_it(count: usize) -> Vec<u8> {
    let mut fields = Vec::new();
    for _ in 0..8 {
        // A field without indexing: the name `x`, a value of 120 bytes.
        fields.extend_from_slice(&[0x00, 1, b'x', 120]);
        fields.extend_from_slice(&[b'y'; 120]);
    }
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame(CONTINUATION, 0, 1, &fields, &mut bytes);
        frame(CONTINUATION, 0, 1, &[], &mut bytes);
    }
    bytes
}

/// Settings that have to be acknowledged one by one.
pub(super) fn settings(count: usize) -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE, 65,535.
    let window = [0, 4, 0, 0, 0xff, 0xff];
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame(SETTINGS, 0, 0, &window, &mut bytes);
    }
    bytes
}

/// Pings that have to be answered one by one.
pub(super) fn pings(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame(PING, 0, 0, b"attack!!", &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What h2's server makes of a connection with these bytes: how many requests, and the error that it ends with.
    /// The client goes after them, unless it stays until a request has come.
    async fn seen(bytes: Vec<u8>, stays: bool) -> (usize, Option<h2::Error>) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut reader, mut writer) = tokio::io::split(ours);
        tokio::spawn(async move {
            writer.write_all(&bytes).await?;
            if !stays {
                writer.shutdown().await?;
            }
            let mut answers = Vec::new();
            reader.read_to_end(&mut answers).await?;
            io::Result::Ok(())
        });
        let mut server = h2::server::handshake(theirs).await.unwrap();
        let mut requests = 0;
        let deadline = Duration::from_secs(30);
        let error = loop {
            match tokio::time::timeout(deadline, server.accept())
                .await
                .unwrap()
            {
                Some(Ok((request, _))) => {
                    assert_eq!(request.uri().to_string(), "https://a.test/");
                    requests += 1;
                    if stays {
                        break None;
                    }
                }
                // The client goes without a word.
                Some(Err(error)) if error.is_io() => break None,
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        (requests, error)
    }

    #[tokio::test]
    async fn a_server_of_another_make_reads_the_frames_as_they_are_meant() {
        let with = |more: Vec<u8>| [opening(), more].concat();
        let (requests, error) = seen(with(taken_back("a.test", 1, 3)), false).await;
        assert!(error.is_none(), "{error:?}");
        // Those that are taken back before they are looked at may be left out.
        assert!(requests <= 3);
        for harmless in [settings(3), pings(3)] {
            let (requests, error) = seen(with(harmless), false).await;
            assert!(requests == 0 && error.is_none(), "{error:?}");
        }
        let flood = [endless_header("a.test"), more_of_it(200)].concat();
        let (requests, _) = seen(with(flood.clone()), false).await;
        assert_eq!(requests, 0, "the header section is never complete");
        let mut complete = flood;
        frame(CONTINUATION, END_HEADERS, 1, &[], &mut complete);
        let (requests, error) = seen(with(complete), true).await;
        assert_eq!(requests, 1, "now it is: {error:?}");
    }
}
