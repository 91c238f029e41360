//! One process takes the place of another one on the same host.
//!
//! The older one listens on a Unix socket. The newer one connects, gets every listening socket as a descriptor, reads its
//! objects, begins to accept, and says so; only then does the older one drain. At any time at least one of them accepts
//! from each socket, and none is ever closed, so that no connection is refused or lost in a queue. A newer process that
//! fails before it serves changes nothing.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recvmsg, sendmsg, socket_with,
};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::telemetry;

/// What the sockets may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a newer process may take until it serves. One that takes longer may serve nevertheless, but nobody makes room for
/// it.
const READING: Duration = Duration::from_mins(10);

/// The longest message.
const LONGEST: usize = 1024;

/// A connection on which whole messages are sent, so that each one keeps its descriptor.
const KIND: SocketType = SocketType::SEQPACKET;

/// What a socket is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Purpose {
    /// Connections of clients.
    Tcp,
    /// Datagrams of clients.
    Udp,
    /// Connections of operators.
    Admin,
}

/// A socket with what has to be known about it.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) purpose: Purpose,
    pub(crate) address: SocketAddr,
    pub(crate) socket: OwnedFd,
}

/// What two processes say to each other.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Message {
    /// The older one: a socket, which comes along.
    Socket {
        purpose: Purpose,
        address: SocketAddr,
    },
    /// The older one: that was all.
    All { version: String },
    /// The newer one: it accepts connections.
    Serving { version: String },
}

/// A connection between two processes.
#[derive(Debug)]
struct Channel(UnixStream);

impl Channel {
    /// The other end has to belong to the own user, or to root.
    fn check_user(&self) -> anyhow::Result<()> {
        let user = self.0.peer_cred()?.uid();
        if !may_take_part(user, geteuid().as_raw()) {
            bail!("the other process belongs to user {user}");
        }
        Ok(())
    }

    async fn send(&self, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let descriptors = descriptor.as_slice();
        self.0
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty()
                    && !control.push(SendAncillaryMessage::ScmRights(descriptors))
                {
                    return Err(io::Error::other("there is no room for a descriptor"));
                }
                let text = [IoSlice::new(&text)];
                sendmsg(&self.0, &text, &mut control, SendFlags::NOSIGNAL)?;
                Ok(())
            })
            .await
    }

    async fn receive(&self) -> io::Result<(Message, Option<OwnedFd>)> {
        self.0
            .async_io(Interest::READABLE, || {
                let mut text = [0; LONGEST];
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut text)];
                let got = recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let descriptor = control.drain().find_map(|message| {
                    let RecvAncillaryMessage::ScmRights(mut descriptors) = message else {
                        return None;
                    };
                    descriptors.next()
                });
                if got.bytes == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let message = text.get(..got.bytes).unwrap_or_default();
                Ok((serde_json::from_slice(message)?, descriptor))
            })
            .await
    }
}

/// May a process of this user give sockets to one of that user, or get them?
fn may_take_part(user: u32, own: u32) -> bool {
    user == own || user == 0
}

/// The process that has served until now.
#[derive(Debug)]
pub(crate) struct Predecessor(Channel);

impl Predecessor {
    /// Tells it that somebody else accepts connections: it drains.
    pub(crate) async fn relieve(self) {
        let version = telemetry::VERSION.to_owned();
        if let Err(error) = self.0.send(&Message::Serving { version }, None).await {
            // It has ended meanwhile, which is all that it was to do.
            warn!(%error, "The process before this one could not be told to end");
        }
    }
}

/// Asks the process that listens there for its sockets. Nothing if there is no such process.
pub(crate) async fn ask(path: &Path) -> anyhow::Result<Option<(Vec<Handed>, Predecessor)>> {
    let asked = timeout(PATIENCE, ask_for_all(path)).await;
    asked
        .map_err(anyhow::Error::new)
        .flatten()
        .with_context(|| {
            format!(
                "cannot take over from the process behind {} (--takeover-socket)",
                path.display()
            )
        })
}

async fn ask_for_all(path: &Path) -> anyhow::Result<Option<(Vec<Handed>, Predecessor)>> {
    let Some(channel) = connected(path)? else {
        return Ok(None);
    };
    // In a folder where others may write as well, it need not be a process of ours.
    channel.check_user()?;
    let mut sockets = Vec::new();
    loop {
        match channel.receive().await? {
            (Message::Socket { purpose, address }, Some(socket)) => sockets.push(Handed {
                purpose,
                address,
                socket,
            }),
            (Message::All { version }, None) => {
                info!(
                    sockets = sockets.len(),
                    version, "Got the sockets of another process"
                );
                return Ok(Some((sockets, Predecessor(channel))));
            }
            (message, _) => bail!("it says what nobody understands: {message:?}"),
        }
    }
}

fn connected(path: &Path) -> io::Result<Option<Channel>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, KIND, flags, None)?;
    let Err(error) = connect(&socket, &SocketAddrUnix::new(path)?) else {
        let stream = UnixStream::from_std(socket.into())?;
        return Ok(Some(Channel(stream)));
    };
    // Nobody has ever been there, or it has ended without a word.
    let nobody = [Errno::NOENT, Errno::CONNREFUSED].contains(&error);
    if nobody { Ok(None) } else { Err(error.into()) }
}

/// Where the next process asks.
#[derive(Debug)]
pub(crate) struct Offer {
    listener: UnixListener,
}

impl Offer {
    /// Takes the path, from the process before this one or from one that has crashed.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        Self::bind(path).with_context(|| {
            let path = path.display();
            format!("cannot listen on {path} (--takeover-socket)")
        })
    }

    fn bind(path: &Path) -> anyhow::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, KIND, flags, None)?;
        // Whoever asks meets one of the two, never none.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        // Left by a process that had the same number and crashed: in a container, numbers are always the same.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        bind(&socket, &SocketAddrUnix::new(&new)?)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        listen(&socket, 1)?;
        fs::rename(&new, path).inspect_err(|_error| {
            let _ = fs::remove_file(&new);
        })?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener })
    }

    /// Hands `sockets` to whoever asks, until one of those has begun to serve.
    pub(crate) async fn handed_over(&self, sockets: impl Fn() -> io::Result<Vec<Handed>>) {
        loop {
            match self.serve_one(&sockets).await {
                Ok(version) => {
                    info!(version, "Another process has the sockets and serves");
                    return;
                }
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        "Another process asked for the sockets and does not serve; this one goes on"
                    );
                    // In case that even accepting fails.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve_one(
        &self,
        sockets: &impl Fn() -> io::Result<Vec<Handed>>,
    ) -> anyhow::Result<String> {
        let (stream, _) = self.listener.accept().await.context("accepting")?;
        let channel = Channel(stream);
        channel.check_user()?;
        let sending = async {
            for handed in sockets()? {
                let message = Message::Socket {
                    purpose: handed.purpose,
                    address: handed.address,
                };
                channel.send(&message, Some(handed.socket.as_fd())).await?;
            }
            let version = telemetry::VERSION.to_owned();
            channel.send(&Message::All { version }, None).await
        };
        timeout(PATIENCE, sending)
            .await
            .context("it does not take them")?
            .context("sending them")?;
        info!("Handed the sockets to another process; waiting for it to serve");
        let (message, _) = timeout(READING, channel.receive())
            .await
            .context("it takes too long to begin")?
            .context("it has gone")?;
        match message {
            Message::Serving { version } => Ok(version),
            Message::Socket { .. } | Message::All { .. } => bail!("it says {message:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;

    fn handed(listener: &TcpListener) -> io::Result<Vec<Handed>> {
        Ok(vec![Handed {
            purpose: Purpose::Tcp,
            address: listener.local_addr()?,
            socket: listener.as_fd().try_clone_to_owned()?,
        }])
    }

    #[tokio::test]
    async fn a_socket_arrives_with_what_waits_in_its_queue() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("takeover");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        let offer = Offer::new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let older = async {
            offer.handed_over(|| handed(&listener)).await;
            drop(listener);
        };
        let newer = async {
            let (sockets, predecessor) = ask(&path).await.unwrap().unwrap();
            predecessor.relieve().await;
            sockets
        };
        let ((), mut sockets) = tokio::join!(older, newer);
        assert_eq!(sockets.len(), 1);
        let handed = sockets.pop().unwrap();
        assert_eq!((handed.purpose, handed.address), (Purpose::Tcp, address));
        let listener = TcpListener::from(handed.socket);
        let (_, client) = listener.accept().unwrap();
        assert_eq!(client, waiting.local_addr().unwrap());
    }

    #[tokio::test]
    async fn whoever_goes_without_serving_changes_nothing() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("takeover");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let offer = Offer::new(&path).unwrap();
        let older = offer.handed_over(|| handed(&listener));
        let newer = async {
            for _ in 0..2 {
                drop(ask(&path).await.unwrap().unwrap());
            }
            let (_, predecessor) = ask(&path).await.unwrap().unwrap();
            predecessor.relieve().await;
        };
        timeout(PATIENCE, async { tokio::join!(older, newer) })
            .await
            .unwrap();
    }

    #[test]
    fn nobody_else_takes_part() {
        for (user, own, want) in [
            (1000, 1000, true),
            (0, 1000, true),
            (1001, 1000, false),
            (1000, 0, false),
        ] {
            assert_eq!(may_take_part(user, own), want, "{user} {own}");
        }
    }

    #[tokio::test]
    async fn a_path_that_a_crash_has_left_behind_is_nobodys() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("takeover");
        assert!(ask(&path).await.unwrap().is_none(), "there is none");
        drop(Offer::new(&path).unwrap());
        assert!(path.exists());
        assert!(ask(&path).await.unwrap().is_none(), "nobody listens");
        let mut half_way = path.clone().into_os_string();
        half_way.push(format!(".{}", std::process::id()));
        fs::write(&half_way, "").unwrap();
        let _offer = Offer::new(&path).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
