//! Connections to endpoints that wait for their next request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::error::Fault;
use crate::phases::upstream::Upstream;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_mins(1);
/// How often connections are looked at that nobody uses.
const SWEEP: Duration = Duration::from_secs(5);

/// The connections of one worker. They are cleartext HTTP/1.1, so that the address is all that tells them apart.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    idle: AHashMap<SocketAddr, Vec<Idle>>,
    count: usize,
    sweeping: bool,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Instant,
}

impl Idle {
    /// Has it not been here for too long, and has the endpoint neither closed it nor said anything? Asks the kernel
    /// only when it has reported an event.
    fn is_usable(&self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= IDLE {
            return false;
        }
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl Pool {
    /// Keeps up to `most` connections.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            most,
        })
    }

    /// Takes the connection that was used last.
    pub(super) fn take(&self, address: SocketAddr, now: Instant) -> Option<TcpStream> {
        let mut state = self.lock();
        let State { idle, count, .. } = &mut *state;
        let waiting = idle.get_mut(&address)?;
        while let Some(last) = waiting.pop() {
            *count -= 1;
            if last.is_usable(now) {
                return Some(last.stream);
            }
        }
        None
    }

    /// Keeps a connection on which a response has come to its end.
    pub(super) fn put(self: &Arc<Self>, address: SocketAddr, stream: TcpStream, now: Instant) {
        let mut state = self.lock();
        if state.count >= self.most {
            return;
        }
        state.count += 1;
        state
            .idle
            .entry(address)
            .or_default()
            .push(Idle { stream, since: now });
        if !state.sweeping {
            state.sweeping = true;
            tokio::spawn(Arc::clone(self).sweep());
        }
    }

    /// Closes connections that nobody uses, until there are none.
    async fn sweep(self: Arc<Self>) {
        loop {
            sleep(SWEEP).await;
            let now = Instant::now();
            let mut state = self.lock();
            let mut count = 0;
            state.idle.retain(|_, waiting| {
                waiting.retain(|idle| idle.is_usable(now));
                count += waiting.len();
                !waiting.is_empty()
            });
            state.count = count;
            if count == 0 {
                state.sweeping = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a connection.
pub(super) async fn connect(to: &Upstream) -> Result<TcpStream, Fault> {
    let stream = match timeout(to.connect, TcpStream::connect(to.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err(Fault::Connect),
        Err(_) => return Err(Fault::ConnectTimeout),
    };
    stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_freshest_connection_that_is_still_open_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::new(3);
        let now = Instant::now();
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..4 {
            let stream = TcpStream::connect(address).await.unwrap();
            ours.push(stream.local_addr().unwrap());
            pool.put(address, stream, now);
            theirs.push(listener.accept().await.unwrap().0);
        }
        assert!(pool.take("127.0.0.1:1".parse().unwrap(), now).is_none());
        // The fourth was one too many; the third is closed by the endpoint, the second has something to say.
        theirs.remove(2);
        theirs[1].write_all(b"HTTP/1.1 408 ").await.unwrap();
        let found = async {
            loop {
                // The runtime has to hear of both first.
                tokio::task::yield_now().await;
                let found = pool.take(address, now).unwrap();
                if found.local_addr().unwrap() == ours[0] {
                    return;
                }
                pool.put(address, found, now);
            }
        };
        timeout(Duration::from_secs(10), found).await.unwrap();
        assert!(pool.take(address, now).is_none());
        assert_eq!(pool.lock().count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::new(3);
        let stream = TcpStream::connect(address).await.unwrap();
        let old = Instant::now().checked_sub(IDLE).unwrap();
        pool.put(address, stream, old);
        sleep(SWEEP * 2).await;
        assert_eq!(pool.lock().count, 0);
        assert!(!pool.lock().sweeping);
        let stream = TcpStream::connect(address).await.unwrap();
        pool.put(address, stream, old);
        assert!(pool.take(address, Instant::now()).is_none());
    }
}
