//! The client's side of an HTTP/1 connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::request::{Found, Head, Outline};
use crate::connection::Connection;
use crate::front::conn::Transport;
use crate::front::guard::{Guarded, SHUTDOWN_TIMEOUT};
use crate::timer::Timer;

/// How much is read at once.
const READ: usize = 64 * 1024;
/// How often a connection may read before it is the turn of others: a peer that always has more to give, and one that takes
/// it all, would keep a thread to themselves.
pub(super) const READS: u8 = 4;
/// Bytes up to this many are copied to go out together with what is before them; more are not.
pub(super) const MOST_COPIED: usize = 8 * 1024;
/// Buffers that have grown beyond this are not kept between two writes.
const KEPT: usize = 16 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Where bytes are read to before it is known what becomes of them. There is one per thread and not one per
/// connection, so that connections that wait hold no memory.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    /// Reads before it is the turn of others.
    left: u8,
}

impl Scratch {
    /// Borrows the thread's.
    pub(super) fn take() -> Self {
        let kept = SCRATCH.take();
        Self {
            bytes: kept.unwrap_or_else(|| vec![0; READ].into_boxed_slice()),
            left: READS,
        }
    }

    /// Lets it be read from as often as at first.
    pub(super) fn renew(&mut self) {
        self.left = READS;
    }

    /// Reads what there is; nothing at the end. After a few times there is nothing until the task is polled again, which is
    /// at once.
    pub(super) fn poll_read<R>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>>
    where
        R: AsyncRead + Unpin,
    {
        if self.left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut buf = ReadBuf::new(&mut self.bytes);
        ready!(Pin::new(reader).poll_read(cx, &mut buf))?;
        self.left -= 1;
        let length = buf.filled().len();
        Poll::Ready(Ok(self.bytes.get(..length).unwrap_or_default()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(Some(std::mem::take(&mut self.bytes)).filter(|bytes| !bytes.is_empty()));
    }
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How many buffers a thread keeps for its next requests. One is out for each request that waits for its response.
const MOST_SPARE: usize = 64;
/// The room that a buffer has at least: enough for most header sections. Not a power of two, because the beginnings of
/// many such buffers would share the same few places in the caches of a processor.
const LEAST_ROOM: usize = 768;

/// An empty buffer with room for `capacity` bytes: one that has been used before, if there is one.
pub(super) fn buffer(capacity: usize) -> Vec<u8> {
    let capacity = capacity.max(LEAST_ROOM);
    match SPARE.with_borrow_mut(Vec::pop) {
        Some(mut spare) => {
            spare.reserve(capacity);
            spare
        }
        None => Vec::with_capacity(capacity),
    }
}

/// Bytes on their way out. Its buffer is lent by the thread as long as there are any.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// What has been sent is kept, to be sent again.
    pub(super) keep: bool,
}

impl Outgoing {
    /// Has everything been sent?
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// How much there is, whether it has been sent or not.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// These bytes, to be sent.
    pub(super) fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            sent: 0,
            keep: false,
        }
    }

    /// Where to append.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The same, with room for so many bytes.
    pub(super) fn room(&mut self, capacity: usize) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer(capacity);
        } else {
            self.bytes.reserve(capacity);
        }
        &mut self.bytes
    }

    /// Sends everything again that was kept.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Forgets what was sent and what was not.
    pub(super) fn clear(&mut self) {
        self.sent = 0;
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Writes what there is. Says how much that was.
    pub(super) fn poll_write<W>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin,
    {
        let before = self.sent;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => self.sent += length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.sent > before => return Poll::Ready(Ok(self.sent - before)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let written = self.sent - before;
        if !self.keep {
            self.clear();
        }
        Poll::Ready(Ok(written))
    }

    /// Writes `content` behind what there is, without a copy where the writer takes it at once.
    pub(super) fn write<W>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
        mut content: &[u8],
    ) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        if content.len() > MOST_COPIED && !self.is_empty() && !self.keep {
            content = self.write_both(writer, cx, content)?;
        }
        while self.is_empty() && !self.keep && !content.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, content) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(length)) => content = content.get(length..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.bytes.extend_from_slice(content);
        Ok(())
    }

    /// Writes what there is and `content` in one go. Returns what is left of the latter.
    fn write_both<'c, W>(
        &mut self,
        writer: &mut W,
        cx: &mut Context<'_>,
        content: &'c [u8],
    ) -> io::Result<&'c [u8]>
    where
        W: AsyncWrite + Unpin,
    {
        let before = self.bytes.get(self.sent..).unwrap_or_default();
        let both = [IoSlice::new(before), IoSlice::new(content)];
        let written = match Pin::new(writer).poll_write_vectored(cx, &both) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if let Some(more) = written.checked_sub(before.len()) {
            self.clear();
            return Ok(content.get(more..).unwrap_or_default());
        }
        self.sent += written;
        Ok(content)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 || bytes.capacity() > KEPT {
            return;
        }
        bytes.clear();
        // A thread that ends needs no more buffers.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < MOST_SPARE
            {
                spare.push(bytes);
            }
        });
    }
}

/// What comes next on a connection.
#[derive(Debug)]
pub(super) enum Next {
    /// A request.
    Request(Outline),
    /// Something for Pingora.
    Foreign,
    /// Something that is refused.
    Refused,
    /// The end.
    Closed,
}

/// A client.
pub(super) struct Client {
    /// The stream. Reads fail when the deadline of the connection is over.
    pub(super) io: Guarded<Transport>,
    /// What has been read and not been used.
    pub(super) held: BytesMut,
    /// What has not been sent yet.
    pub(super) out: Outgoing,
    /// TLS may have something that the socket did not take.
    pub(super) unflushed: bool,
    /// What comes is acknowledged at once, as far as that is ours to say.
    acknowledging: bool,
    /// Waits for the client and for its endpoint.
    pub(super) timer: Timer,
}

impl Client {
    /// Nothing has been read.
    pub(super) fn new(transport: Transport, connection: Arc<Connection>) -> Self {
        Self {
            io: Guarded::for_reader(transport, connection),
            held: BytesMut::new(),
            out: Outgoing::default(),
            unflushed: false,
            acknowledging: false,
            timer: Timer::default(),
        }
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.io.connection()
    }

    /// Waits for a request. `closing` ends connections that are silent.
    pub(super) async fn next_request<C>(
        &mut self,
        head: &mut Head,
        mut closing: Pin<&mut C>,
    ) -> Next
    where
        C: Future,
    {
        if self.held.is_empty() {
            // A connection that waits holds as little as can be.
            self.held = BytesMut::new();
            self.out = Outgoing::default();
        }
        let mut look = !self.held.is_empty();
        loop {
            if look {
                match head.read(&self.held) {
                    Found::Partial => {}
                    Found::Foreign => return Next::Foreign,
                    Found::Refused => return Next::Refused,
                    Found::Complete(outline) => return Next::Request(outline),
                }
            }
            if !self.held.is_empty() {
                // It has begun, and is not here as a whole.
                self.connection().header_begun();
                self.acknowledge();
            }
            let unused = &mut self.held;
            let io = &mut self.io;
            let read = poll_fn(|cx| {
                let mut scratch = Scratch::take();
                match scratch.poll_read(io, cx) {
                    Poll::Ready(Ok(bytes)) => {
                        // A header section ends with a line; without one there is nothing new to see.
                        let look = unused.is_empty() || bytes.contains(&b'\n');
                        unused.extend_from_slice(bytes);
                        Poll::Ready((!bytes.is_empty()).then_some(look))
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(None),
                    Poll::Pending if unused.is_empty() && closing.as_mut().poll(cx).is_ready() => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            match read.await {
                Some(new) => look = new || self.held.len() >= super::request::MOST_BYTES,
                None => return Next::Closed,
            }
        }
    }

    /// What is to be sent is the last, and the connection is closed after it.
    pub(super) fn closing(&mut self) {
        if let Some(transport) = self.io.get_mut() {
            transport.closing();
        }
    }

    /// More has to come before there is anything to say.
    pub(super) fn acknowledge(&mut self) {
        if !self.acknowledging
            && let Some(transport) = self.io.get_ref()
        {
            self.acknowledging = true;
            transport.acknowledge();
        }
    }

    /// Writes and flushes what there is to send. Says whether anything has left.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut moved = false;
        while !self.out.is_empty() {
            self.unflushed = true;
            match self.out.poll_write(&mut self.io, cx) {
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if moved => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx)? {
                Poll::Ready(()) => self.unflushed = false,
                Poll::Pending if !moved => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(moved))
    }

    /// Is there something that has not left?
    pub(super) fn is_sending(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// Sends what there is to send, unless the client stops taking it.
    pub(super) async fn send(&mut self, patience: Duration) -> io::Result<()> {
        let mut touched = Instant::now();
        poll_fn(|cx| {
            while self.is_sending() {
                match self.poll_send(cx)? {
                    Poll::Ready(true) => touched = Instant::now(),
                    Poll::Ready(false) => {}
                    Poll::Pending => {
                        let late = touched.checked_add(patience);
                        let late = late.map_or(Poll::Pending, |at| self.timer.poll(cx, at));
                        return late.map(|()| Err(io::ErrorKind::TimedOut.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The connection for Pingora, with what has been read of it.
    pub(super) fn into_parts(self) -> Option<(Transport, Bytes)> {
        let first = self.held.freeze();
        Some((self.io.into_inner()?, first))
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        // Otherwise that is done behind our back.
        if !self.connection().lingers() {
            let _ = timeout(SHUTDOWN_TIMEOUT, self.io.shutdown()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use tokio::io::repeat;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_always_has_more_to_give_lets_others_have_their_turn() {
        let count = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        for turn in 1..=2 {
            let mut scratch = Scratch::take();
            for _ in 0..READS {
                let read = scratch.poll_read(&mut repeat(b'a'), &mut cx);
                assert!(matches!(read, Poll::Ready(Ok(bytes)) if bytes.len() == READ));
            }
            assert!(scratch.poll_read(&mut repeat(b'a'), &mut cx).is_pending());
            assert_eq!(count.0.load(Ordering::Relaxed), turn, "it goes on at once");
        }
    }
}
