//! What a test may order to go wrong, so that it states the fault and nothing else.
//!
//! An [`Order`] says which requests it is for, and how often. It strikes at arriving requests, the
//! oldest order first; a request is struck by one order of each scope at most (the whole request, a
//! group, a topic, a partition), so that two orders of one scope strike two requests, one after the other.

use std::time::Duration;

use crate::api::Api;
use crate::request::Body;

/// Error codes of the protocol, by the names that Kafka gives them.
pub mod code {
    #![allow(missing_docs, reason = "the names say it all")]
    pub const UNKNOWN_SERVER_ERROR: i16 = -1;
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const CORRUPT_MESSAGE: i16 = 2;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    pub const NOT_LEADER_OR_FOLLOWER: i16 = 6;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const NOT_COORDINATOR: i16 = 16;
    pub const INVALID_TOPIC_EXCEPTION: i16 = 17;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i16 = 30;
    pub const UNSUPPORTED_VERSION: i16 = 35;
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
    pub const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The answer has this error code: for each partition, or the one of the order's scope; for the
    /// topic in Metadata, unless the scope is a partition; for the whole in requests without topics.
    /// What was asked is not done. See [`code`].
    Error(i16),
    /// The connection is closed; what was asked is not done.
    CloseUnserved,
    /// The connection is closed without an answer, but what was asked has been done.
    CloseServed,
    /// This many bytes of the answer are sent, its length included, then the connection is closed.
    Truncate(usize),
    /// The answer has the request's correlation id plus this number.
    CorrelationId(i32),
    /// No answer; the connection stays open. Nothing is done.
    Hang,
    /// The answer comes later by this time.
    Delay(Duration),
    /// The answer has no topics in it, as when a client quota is exceeded (Fetch).
    Throttled,
    /// No partition has a leader (Metadata: leader -1, error 5).
    NoLeader,
    /// These bytes come instead of an answer, then the connection is closed.
    Raw(Vec<u8>),
    /// The answer claims this length, whatever it has.
    Length(i32),
    /// The first array of the answer claims this many elements, whatever it has.
    Count(i32),
    /// The checksum of the first message or batch of each partition is damaged (Fetch).
    Checksum,
    /// The answer is longer by this many bytes, which mean nothing. Its length is right.
    Oversized(usize),
}

impl Fault {
    /// An HTTP server at the port.
    pub fn http() -> Self {
        Self::Raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec())
    }

    /// A TLS server at the port: the fatal alert *unexpected_message*, in TLS 1.2.
    pub fn tls_alert() -> Self {
        Self::Raw(vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x0a])
    }

    /// Bytes without a meaning, always the same for the same seed (xorshift). The first one is
    /// not negative as a length, but far too large.
    pub fn random(bytes: usize, seed: u64) -> Self {
        let mut state = seed | 1;
        let mut noise: Vec<u8> = (0..bytes)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        if let Some(first) = noise.first_mut() {
            *first = *first & 0x7f | 0x40;
        }
        Self::Raw(noise)
    }
}

/// The number of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderId(pub(crate) u64);

/// Which part of which requests an order is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Scope {
    group: Option<String>,
    topic: Option<String>,
    partition: Option<i32>,
}

/// A fault, the requests that it is for, and how often it strikes.
#[derive(Clone, Debug)]
pub struct Order {
    api: Option<Api>,
    fault: Fault,
    broker: Option<i32>,
    scope: Scope,
    skip: u64,
    /// `None`: until it is cancelled.
    times: Option<u64>,
}

impl Order {
    /// A fault for the next request of a kind.
    pub fn new(api: Api, fault: Fault) -> Self {
        Self { api: Some(api), ..Self::any(fault) }
    }

    /// A fault for the next request, of whatever kind.
    pub fn any(fault: Fault) -> Self {
        Self { api: None, fault, broker: None, scope: Scope::default(), skip: 0, times: Some(1) }
    }

    /// Only requests to this broker.
    #[must_use]
    pub fn broker(mut self, id: i32) -> Self {
        self.broker = Some(id);
        self
    }

    /// Only requests that name this topic, and, where the fault is one of a part of the answer,
    /// only that part.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        self.scope.topic = Some(topic.to_owned());
        self
    }

    /// Like [`topic`](Self::topic), for one partition.
    #[must_use]
    pub fn partition(mut self, topic: &str, partition: i32) -> Self {
        self.scope.partition = Some(partition);
        self.topic(topic)
    }

    /// Only requests that name this group.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.scope.group = Some(group.to_owned());
        self
    }

    /// Lets this many requests pass first.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Strikes this many requests.
    #[must_use]
    pub fn times(mut self, requests: u64) -> Self {
        self.times = Some(requests);
        self
    }

    /// Strikes every request until it is cancelled.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn fits(&self, broker: i32, api: Api, body: &Body) -> bool {
        self.api.is_none_or(|wanted| wanted == api)
            && self.broker.is_none_or(|wanted| wanted == broker)
            && self.scope.group.as_ref().is_none_or(|group| body.mentions_group(group))
            && self.scope.topic.as_ref().is_none_or(|topic| body.mentions(topic, self.scope.partition))
    }
}

/// The orders that have not yet struck as often as they were to.
#[derive(Default)]
pub(crate) struct Orders {
    next: u64,
    pending: Vec<(OrderId, Order)>,
}

impl Orders {
    pub(crate) fn add(&mut self, order: Order) -> OrderId {
        let id = OrderId(self.next);
        self.next += 1;
        self.pending.push((id, order));
        id
    }

    pub(crate) fn cancel(&mut self, id: OrderId) {
        self.pending.retain(|(pending, _)| *pending != id);
    }

    pub(crate) fn cancel_all(&mut self) {
        self.pending.clear();
    }

    pub(crate) fn is_pending(&self, id: OrderId) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == id)
    }

    /// The faults that strike this request.
    pub(crate) fn strike(&mut self, broker: i32, api: Api, body: &Body) -> Struck {
        let mut struck = Struck::default();
        for (id, order) in self.pending.iter_mut().filter(|(_, order)| order.fits(broker, api, body)) {
            if struck.0.iter().any(|(_, scope, _)| *scope == order.scope) {
                continue;
            }
            if order.skip > 0 {
                order.skip -= 1;
                continue;
            }
            order.times = order.times.map(|times| times.saturating_sub(1));
            struck.0.push((*id, order.scope.clone(), order.fault.clone()));
        }
        self.pending.retain(|(_, order)| order.times != Some(0));
        struck
    }
}

/// The faults that strike one request.
#[derive(Default)]
pub(crate) struct Struck(Vec<(OrderId, Scope, Fault)>);

impl Struck {
    pub(crate) fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter().map(|(_, _, fault)| fault)
    }

    fn of(&self, topic: &str, partition: i32) -> impl Iterator<Item = &Fault> {
        let fits = move |scope: &Scope| {
            scope.topic.as_deref().is_none_or(|wanted| wanted == topic)
                && scope.partition.is_none_or(|wanted| wanted == partition)
        };
        self.0.iter().filter(move |(_, scope, _)| fits(scope)).map(|(_, _, fault)| fault)
    }

    /// The error ordered for a partition.
    pub(crate) fn error(&self, topic: &str, partition: i32) -> Option<i16> {
        self.of(topic, partition).find_map(code_of)
    }

    /// The error ordered for a topic as a whole.
    pub(crate) fn topic_error(&self, topic: &str) -> Option<i16> {
        let fits =
            |scope: &Scope| scope.partition.is_none() && scope.topic.as_deref().is_none_or(|wanted| wanted == topic);
        self.0.iter().filter(|(_, scope, _)| fits(scope)).find_map(|(_, _, fault)| code_of(fault))
    }

    /// The error ordered for a request that has no topics.
    pub(crate) fn whole_error(&self) -> Option<i16> {
        self.faults().find_map(code_of)
    }

    pub(crate) fn has(&self, wanted: &Fault) -> bool {
        self.faults().any(|fault| fault == wanted)
    }

    /// Whether this fault is ordered for a partition.
    pub(crate) fn has_for(&self, wanted: &Fault, topic: &str, partition: i32) -> bool {
        self.of(topic, partition).any(|fault| fault == wanted)
    }
}

fn code_of(fault: &Fault) -> Option<i16> {
    match fault {
        Fault::Error(code) => Some(*code),
        _ => None,
    }
}
