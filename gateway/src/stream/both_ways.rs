//! Moves bytes between two connections until both have ended.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep_until;

use super::record::{Ending, Record};

/// How much is moved at once. A stream that has nothing to say has no buffer.
const BUFFER: usize = 16 * 1024;

/// Which end failed.
enum Broken {
    Reading,
    Writing,
}

/// Passes everything on, `first` before anything else. What one side does not take is not read from the other; a side
/// that has ended may still listen.
pub(super) async fn pass(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    first: Bytes,
    record: &Record,
    idle: Duration,
) -> Ending {
    let (from_client, mut to_client) = client.split();
    let (from_upstream, mut to_upstream) = upstream.split();
    let upload = async {
        write(&first, &mut to_upstream, |bytes| record.received(bytes)).await?;
        drop(first);
        pump(&from_client, &mut to_upstream, |bytes| {
            record.received(bytes);
        })
        .await
    };
    let download = pump(&from_upstream, &mut to_client, |bytes| record.sent(bytes));
    let silence = silence(record, idle);
    tokio::pin!(upload, download, silence);
    let (mut uploading, mut downloading) = (true, true);
    while uploading || downloading {
        tokio::select! {
            ended = &mut upload, if uploading => match ended {
                // The endpoint does not listen any more; what it says may still be an answer.
                Ok(()) | Err(Broken::Writing) => uploading = false,
                Err(Broken::Reading) => return Ending::ClientReset,
            },
            ended = &mut download, if downloading => match ended {
                Ok(()) => downloading = false,
                Err(Broken::Writing) => return Ending::ClientReset,
                Err(Broken::Reading) => return Ending::UpstreamReset,
            },
            () = &mut silence => return Ending::Idle,
        }
    }
    Ending::Done
}

async fn pump(
    from: &ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    moved: impl Fn(usize),
) -> Result<(), Broken> {
    loop {
        from.readable().await.map_err(|_| Broken::Reading)?;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => {
                    // It may be closed already.
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                Ok(_) => write(&buffer, to, &moved).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Broken::Reading),
            }
        }
    }
}

async fn write(
    mut bytes: &[u8],
    to: &mut WriteHalf<'_>,
    moved: impl Fn(usize),
) -> Result<(), Broken> {
    while !bytes.is_empty() {
        let written = to.write(bytes).await.map_err(|_| Broken::Writing)?;
        if written == 0 {
            return Err(Broken::Writing);
        }
        moved(written);
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Waits until nothing has been moved for so long.
async fn silence(record: &Record, idle: Duration) {
    loop {
        let at = record.touched() + idle;
        if at <= std::time::Instant::now() {
            return;
        }
        sleep_until(at.into()).await;
    }
}
