//! Moves the octets of a connection through a pipe.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::match_wild_err_arm,
    reason = "helpers of tests may fail"
)]

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http2::{Connection, Ended, Head, Stream};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Until the connection or the pipe is over. `on_request` is told of each request.
pub async fn drive(
    connection: Connection,
    mut io: DuplexStream,
    mut on_request: impl FnMut(Head, Stream),
) {
    let mut out = Vec::new();
    let mut at = 0;
    let mut buffer = vec![0; 20_000];
    poll_fn(|cx| {
        loop {
            let mut moved = false;
            connection.wake_for_output(cx);
            if at == out.len() {
                out.clear();
                at = 0;
                connection.take_output(&mut out);
            }
            if at < out.len() {
                match Pin::new(&mut io).poll_write(cx, &out[at..]) {
                    Poll::Ready(Ok(written)) => {
                        at += written;
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => {
                        connection.lost();
                        return Poll::Ready(());
                    }
                    Poll::Pending => {}
                }
            } else if connection.over().is_some() {
                return Poll::Ready(());
            }
            if connection.wants_input() && connection.over().is_none() {
                let mut read = ReadBuf::new(&mut buffer);
                if let Poll::Ready(result) = Pin::new(&mut io).poll_read(cx, &mut read) {
                    if result.is_err() || read.filled().is_empty() {
                        connection.lost();
                        return Poll::Ready(());
                    }
                    connection.receive(read.filled());
                    while let Some((head, stream)) = connection.accept() {
                        on_request(head, stream);
                    }
                    moved = true;
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// All of it, in pieces as they come.
pub async fn send_all(stream: &mut Stream, mut content: &[u8], last: bool) -> Result<(), Ended> {
    loop {
        let sent = poll_fn(|cx| stream.poll_send(cx, content, last)).await?;
        content = &content[sent..];
        if content.is_empty() {
            return Ok(());
        }
    }
}

/// Fails if nothing can go on any more: the clock of these tests stands still as long as anything can.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(1000), future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: everybody waits"),
    }
}

/// Numbers that are the same every time (`SplitMix64`).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 1).unwrap() % most.max(1)
    }

    pub fn octets(&mut self, length: usize) -> Vec<u8> {
        let step = self.below(255) + 1;
        let start = self.below(256);
        (0..length)
            .map(|at| ((start + at * step + at / 251) % 256).to_le_bytes()[0])
            .collect()
    }
}
