//! An endpoint that is in trouble now and then: it stands before one that is well and spoils what passes.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How it behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mood {
    /// As the one behind it.
    Well,
    /// Requests are passed on late.
    Slow,
    /// Requests are taken and never answered.
    Hangs,
    /// Connections are reset when a request comes.
    Resets,
    /// Nobody listens; connections that are open are reset when a request comes.
    Gone,
}

impl Mood {
    /// One after the other, so that each follows a good time.
    pub(super) const ROUND: [Self; 8] = [
        Self::Well,
        Self::Resets,
        Self::Well,
        Self::Hangs,
        Self::Well,
        Self::Gone,
        Self::Well,
        Self::Slow,
    ];
}

/// How late [`Mood::Slow`] is.
const LATE: Duration = Duration::from_millis(200);
/// After a port could not be taken back.
const AGAIN: Duration = Duration::from_millis(20);

/// The endpoint.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) address: SocketAddr,
    mood: watch::Sender<Mood>,
}

impl Trouble {
    /// Stands before `origin`; it is well at first.
    pub(super) async fn start(origin: SocketAddr) -> io::Result<Self> {
        // An address of loopback that nothing else uses: the port is free whenever it is to be taken back.
        let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 0, 77), 0)).await?;
        let address = listener.local_addr()?;
        let mood = watch::Sender::new(Mood::Well);
        tokio::spawn(listen(listener, address, origin, mood.subscribe()));
        Ok(Self { address, mood })
    }

    pub(super) fn feel(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn listen(
    listener: TcpListener,
    address: SocketAddr,
    origin: SocketAddr,
    mut mood: watch::Receiver<Mood>,
) {
    let mut listener = Some(listener);
    loop {
        let now = *mood.borrow_and_update();
        if now == Mood::Gone {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
        }
        let Some(open) = &listener else {
            let patience = if now == Mood::Gone {
                Duration::MAX
            } else {
                AGAIN
            };
            if let Ok(Err(_)) = tokio::time::timeout(patience, mood.changed()).await {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = mood.changed() => if changed.is_err() {
                return;
            },
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                let mood = mood.clone();
                tokio::spawn(async move {
                    // Whoever goes away ends this connection and nothing else.
                    let _ = pass(client, origin, mood).await;
                });
            },
        }
    }
}

async fn pass(
    mut client: TcpStream,
    origin: SocketAddr,
    mut mood: watch::Receiver<Mood>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(origin).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                let now = *mood.borrow();
                match now {
                    Mood::Well => {}
                    Mood::Slow => tokio::time::sleep(LATE).await,
                    Mood::Hangs => {
                        tokio::select! {
                            _ = mood.wait_for(|mood| *mood != Mood::Hangs) => {}
                            () = gone(&mut client) => {}
                        }
                        return client.set_zero_linger();
                    }
                    Mood::Resets | Mood::Gone => return client.set_zero_linger(),
                }
                server.write_all(up.get(..length).unwrap_or_default()).await?;
            }
            read = server.read(&mut down) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                client.write_all(down.get(..length).unwrap_or_default()).await?;
            }
        }
    }
}

/// Waits until the client has gone.
async fn gone(client: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while matches!(client.read(&mut bytes).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{self, Site};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What an answer begins with; `None` when the connection is refused, reset or closed without one.
    async fn ask(address: SocketAddr) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer);
        text.starts_with("HTTP/1.1 200").then(|| text.into_owned())
    }

    async fn until(address: SocketAddr, answers: bool) {
        let asking = async {
            while ask(address).await.is_some() != answers {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap();
    }

    #[tokio::test]
    async fn each_mood_is_felt_and_passes() {
        let origin = origin::start(Site::new("x1", None)).await.unwrap();
        let trouble = Trouble::start(origin).await.unwrap();
        let address = trouble.address;
        assert!(ask(address).await.unwrap().contains("x-backend: x1"));
        for mood in [Mood::Resets, Mood::Gone] {
            trouble.feel(mood);
            until(address, false).await;
            trouble.feel(Mood::Well);
            until(address, true).await;
        }
        trouble.feel(Mood::Hangs);
        let hung = tokio::spawn(ask(address));
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(100), other.read_u8()).await;
        assert!(silence.is_err(), "nothing is said: {silence:?}");
        trouble.feel(Mood::Slow);
        assert_eq!(hung.await.unwrap(), None, "nor later");
        let begun = std::time::Instant::now();
        assert!(ask(address).await.is_some());
        assert!(begun.elapsed() >= LATE);
    }
}
