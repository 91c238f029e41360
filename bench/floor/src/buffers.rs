//! Memory that a thread uses again and again, so that it stays in the processor's cache.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// How much is read at once.
const READ: usize = 64 * 1024;
/// The room that a buffer has at the beginning.
const ROOM: usize = 4 * 1024;
/// How many buffers are kept.
const MOST_SPARE: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Reads what there is, and lets it be used where it is; `use_it` must not read. The end of the stream is an error.
pub(crate) fn poll_read<R, T>(
    reader: &mut R,
    cx: &mut Context<'_>,
    use_it: impl FnOnce(&mut Context<'_>, &[u8]) -> T,
) -> Poll<io::Result<T>>
where
    R: AsyncRead + Unpin,
{
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(reader).poll_read(cx, &mut buf))?;
        Poll::Ready(match buf.filled() {
            [] => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(use_it(cx, bytes)),
        })
    })
}

/// An empty buffer.
pub(crate) fn take() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| Vec::with_capacity(ROOM))
}

/// Gives one back.
pub(crate) fn put(mut buffer: Vec<u8>) {
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MOST_SPARE {
            spare.push(buffer);
        }
    });
}
