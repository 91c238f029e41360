//! What the query of a request asks for.

use std::time::Duration;

/// The largest body that an order may ask for.
pub const MAX_BODY: usize = 256 << 20;

/// What the query of a request asks for, as in `/any/path?size=1000&delay=20`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Order {
    /// `status=N`: the status of the answer.
    pub status: u16,
    /// `size=N`: a body of that many bytes instead of the description.
    pub size: Option<usize>,
    /// `delay=MS`: wait before the answer begins.
    pub delay: Duration,
    /// `parts=N`: send the body in that many parts, without telling its length.
    pub parts: Option<usize>,
    /// `every=MS`: wait between the parts.
    pub every: Duration,
    /// `fail=close|reset|half|garbage`: do not answer properly.
    pub fault: Option<Fault>,
}

/// A way to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// `close`: the connection is closed before the answer begins; HTTP/2: the stream ends with `INTERNAL_ERROR`.
    Close,
    /// `reset`: the connection is reset before the answer begins; HTTP/2: the stream ends with `REFUSED_STREAM`, which
    /// tells the client that it may try again.
    Reset,
    /// `half`: the connection is closed (HTTP/2: the stream ends with `INTERNAL_ERROR`) in the middle of the body.
    Half,
    /// `garbage`: something is sent that is no HTTP, and the connection is closed; HTTP/2: the stream ends with
    /// `PROTOCOL_ERROR`.
    Garbage,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            status: 200,
            size: None,
            delay: Duration::ZERO,
            parts: None,
            every: Duration::ZERO,
            fault: None,
        }
    }
}

impl Order {
    /// Reads the query of a request target for the server of that name; words it does not know mean nothing. With
    /// `only=NAME`, the order is for the server of that name alone and the others answer as usual.
    pub fn parse(target: &str, server: &str) -> Self {
        let mut order = Self::default();
        let Some((_, query)) = target.split_once('?') else {
            return order;
        };
        for word in query.split('&') {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match (key, value.parse::<usize>()) {
                ("status", Ok(n @ 200..=599)) => order.status = u16::try_from(n).unwrap_or(200),
                ("size", Ok(n)) => order.size = Some(n.min(MAX_BODY)),
                ("delay", Ok(n)) => order.delay = Duration::from_millis(n as u64),
                ("parts", Ok(n)) => order.parts = Some(n.clamp(1, 10_000)),
                ("every", Ok(n)) => order.every = Duration::from_millis(n as u64),
                ("fail", _) => order.fault = Fault::parse(value),
                ("only", _) if value != server => return Self::default(),
                _ => {}
            }
        }
        order
    }

    /// The sizes of the parts of a body of this length.
    pub(super) fn parts_of(&self, length: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.parts.unwrap_or(1);
        (0..count).map(move |index| length * (index + 1) / count - length * index / count)
    }

    /// Whether an answer to `method` has no body.
    pub(super) fn bodiless(&self, method: &str) -> bool {
        method == "HEAD" || matches!(self.status, 204 | 304)
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "close" => Some(Self::Close),
            "reset" => Some(Self::Reset),
            "half" => Some(Self::Half),
            "garbage" => Some(Self::Garbage),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_orders_the_answer() {
        assert_eq!(Order::parse("/a", "blue"), Order::default());
        let order = Order {
            status: 503,
            size: Some(10),
            delay: Duration::from_millis(5),
            parts: Some(3),
            every: Duration::from_millis(2),
            fault: Some(Fault::Half),
        };
        let query = "/a?size=10&delay=5&parts=3&every=2&status=503&fail=half";
        assert_eq!(Order::parse(query, "blue"), order);
        assert_eq!(
            Order::parse("/?size=x&status=99&fail=well&other", "blue"),
            Order::default(),
            "what makes no sense means nothing"
        );
    }

    #[test]
    fn an_order_can_be_for_one_server() {
        let order = |server| Order::parse("/?fail=close&only=blue", server).fault;
        assert_eq!(order("blue"), Some(Fault::Close));
        assert_eq!(order("green"), None);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        for (length, count) in [(10, 3), (2, 5), (0, 1), (1000, 1000)] {
            let order = Order {
                parts: Some(count),
                ..Order::default()
            };
            let parts: Vec<usize> = order.parts_of(length).collect();
            assert_eq!((parts.len(), parts.iter().sum()), (count, length));
        }
    }
}
