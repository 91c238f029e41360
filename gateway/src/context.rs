//! What is known about one request while it is served.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, StatusCode};
use model::BackendProtocol;
use smallvec::SmallVec;
use table::{BackendSlot, CompiledBackend, CompiledRoute, Table};

use crate::clients::Judgement;
use crate::connection::{Connection, Deadline};
use crate::error::Reason;
use crate::external::Reply;
use crate::filters::pace::Progress;
use crate::limits::Permit;
use crate::mirror::Duplicate;
use crate::phases::stand_in::StandIn;
use crate::telemetry::BackendSeries;
use crate::upstream::{InFlight, Place, Session};

/// One request, from its header section to its log line.
///
/// It holds the table that was current when it began and never looks at another one: every decision about a request
/// is made from one state of the world, whatever is published meanwhile.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// The pinned table.
    pub(crate) table: Arc<Table>,
    /// The connection that it came on.
    pub(crate) connection: Arc<Connection>,
    /// When its header section had been read.
    pub(crate) started: Instant,
    /// The same by the wall clock, for the log.
    pub(crate) started_at: SystemTime,
    /// Size of its header section as text.
    pub(crate) header_bytes: usize,
    /// Who sent it, in whose words, and for whom.
    pub(crate) client: Client,
    /// The route that was found.
    pub(crate) route: Option<Arc<CompiledRoute>>,
    /// The path in normal form, where that is not what came.
    pub(crate) path: Option<String>,
    /// The value for `X-Forwarded-Prefix`, where the route rewrites the path.
    pub(crate) prefix: Option<HeaderValue>,
    /// `Access-Control-Allow-Origin`, where the client's origin may read the response.
    pub(crate) allowed_origin: Option<HeaderValue>,
    /// Body bytes that came so far, where they are limited.
    pub(crate) body_received: u64,
    /// What ends it, for engines that cannot wait for two things at once.
    pub(crate) leash: Option<Arc<Deadline>>,
    /// When the last of its body came, for engines that cannot see that later.
    pub(crate) sent_at: Option<Instant>,
    /// Another backend than the route's own answers.
    pub(crate) stand_in: Option<StandIn>,
    /// The identity that is passed on and logged; [`None`] until the request goes upstream.
    pub(crate) request_id: Option<HeaderValue>,
    /// The backend that was chosen.
    pub(crate) target: Option<Target>,
    /// Tries to get an answer from an endpoint, in order.
    pub(crate) tries: SmallVec<[Try; 1]>,
    /// The place of the key that decides about the endpoint.
    pub(crate) place: Option<Place>,
    /// The session of the user, where it stays at one endpoint.
    pub(crate) session: Option<Box<Session>>,
    /// The certificate of the client, where the route asks for one and there is one.
    pub(crate) certificate: Option<Arc<Judgement>>,
    /// What another server said when it let the request pass, or sent the client elsewhere.
    pub(crate) reply: Option<Arc<Reply>>,
    /// What the access log wants to know of the response.
    pub(crate) shown: Option<Box<Shown>>,
    /// What goes to another server, too.
    pub(crate) copy: Option<Box<Duplicate>>,
    /// Holds the place of the request among those that its client may have at the same time.
    pub(crate) permit: Option<Permit>,
    /// How fast the response may go.
    pub(crate) pace: Option<Progress>,
    /// Why there was no answer from a backend, or not all of it.
    pub(crate) reason: Option<Reason>,
    /// The status that Lockgate decided on without a backend.
    pub(crate) own_status: Option<StatusCode>,
}

/// What is kept of a response for its line in the access log.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Fields of the backend's response, those that the format names.
    pub(crate) upstream: Box<[Option<HeaderValue>]>,
    /// Fields of the response to the client.
    pub(crate) sent: Box<[Option<HeaderValue>]>,
    /// The size of its header section as text.
    pub(crate) header_bytes: usize,
}

/// Who a request is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    /// The address: that of the connection, or what a trusted peer says.
    pub(crate) address: IpAddr,
    /// Is the peer trusted to speak for the client?
    pub(crate) trusted: bool,
    /// Did the client use https, as far as we or the trusted peer know?
    pub(crate) https: bool,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its place in the table.
    pub(crate) slot: BackendSlot,
    /// The backend.
    pub(crate) backend: Arc<CompiledBackend>,
    /// Its counters.
    pub(crate) series: Arc<BackendSeries>,
    /// What is spoken to it.
    pub(crate) protocol: BackendProtocol,
}

/// One try to get an answer from an endpoint.
#[derive(Debug)]
pub(crate) struct Try {
    /// The endpoint. While this is held, the endpoint counts the request as in flight.
    pub(crate) in_flight: InFlight,
    /// When it began.
    pub(crate) began: Instant,
    /// Until there was a connection.
    pub(crate) connected: Option<Duration>,
    /// Was the connection there already?
    pub(crate) reused: bool,
    /// Until there was a response header.
    pub(crate) header: Option<Duration>,
    /// Until it was over; unset while it lasts.
    pub(crate) ended: Option<Duration>,
    /// The status that the endpoint sent.
    pub(crate) status: Option<StatusCode>,
    /// What its failure would have been answered with, where another try followed.
    pub(crate) failed: Option<StatusCode>,
}

impl Try {
    /// The endpoint's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.in_flight.endpoint().address()
    }
}

impl RequestContext {
    /// Does the route ask for no line in the access log?
    pub(crate) fn is_unlogged(&self) -> bool {
        let options = self.route.as_ref().and_then(|route| route.options.as_ref());
        options.is_some_and(|options| options.unlogged)
    }

    /// A request on this connection, seen with this table.
    pub(crate) fn new(table: Arc<Table>, connection: Arc<Connection>) -> Self {
        let client = Client {
            address: connection.client.ip().to_canonical(),
            trusted: false,
            https: connection.tls.is_some(),
        };
        Self {
            table,
            connection,
            started: Instant::now(),
            started_at: SystemTime::now(),
            header_bytes: 0,
            client,
            route: None,
            path: None,
            prefix: None,
            allowed_origin: None,
            body_received: 0,
            leash: None,
            sent_at: None,
            stand_in: None,
            request_id: None,
            target: None,
            tries: SmallVec::new(),
            place: None,
            session: None,
            certificate: None,
            reply: None,
            shown: None,
            copy: None,
            permit: None,
            pace: None,
            reason: None,
            own_status: None,
        }
    }

    /// Notes why Lockgate answers by itself. The first reason stays: later ones follow from it.
    pub(crate) fn fail(&mut self, reason: Reason) -> &Reason {
        self.reason.get_or_insert(reason)
    }

    /// The try that is going on.
    pub(crate) fn current(&mut self) -> Option<&mut Try> {
        self.tries.last_mut()
    }

    /// Was this endpoint tried before?
    pub(crate) fn tried(&self, address: SocketAddr) -> bool {
        self.tries
            .iter()
            .any(|attempt| attempt.address() == address)
    }
}
