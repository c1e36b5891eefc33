//! What can go wrong between a client and its brokers, in words for an operator.
//!
//! Each fault knows whether a retry makes sense. The text is written here, once.

use std::fmt;

use crate::client::Bounds;
use crate::client::reading::HAS_LIBRDKAFKA;
use crate::client::security::Principal;
use crate::record::Offset;

/// What reads what the crate `kafka` can't.
const OTHER: &str = if HAS_LIBRDKAFKA {
    "set client = \"auto\" or \"librdkafka\""
} else {
    "use a program that was built with librdkafka"
};

/// Whether it makes sense to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Passes by itself: a broker restarts, a leader moves.
    Soon,
    /// Needs somebody to change something outside, but may well be changed while we run.
    Slowly,
    /// This client will never read it.
    Never,
}

/// What an ACL is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Topics, by name.
    Topics(Vec<String>),
    /// A group.
    Group(String),
    /// The cluster as a whole.
    Cluster,
}

impl Resource {
    /// One topic.
    pub fn topic(name: &str) -> Self {
        Self::Topics(vec![name.to_owned()])
    }

    /// What `kafka-acls --add` takes to allow what this program does with it. Read includes Describe.
    fn for_acls(&self) -> String {
        match self {
            Self::Topics(names) => {
                let names: Vec<String> = names.iter().map(|name| format!(" --topic {name}")).collect();
                format!("--operation Read{}", names.concat())
            }
            Self::Group(name) => format!("--operation Read --group {name}"),
            Self::Cluster => "--operation Describe --cluster".to_owned(),
        }
    }
}

/// `topic orders`, `group g`
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topics(names) => {
                write!(f, "{} {}", if names.len() == 1 { "topic" } else { "topics" }, names.join(", "))
            }
            Self::Group(name) => write!(f, "group {name}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// A failure of a broker, the network, or this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection: refused, unresolvable, timed out.
    Unreachable {
        /// `host:port`
        broker: String,
        /// The system's reason.
        why: String,
        /// The address comes from the cluster (`advertised.listeners`), not from our configuration.
        advertised: bool,
    },
    /// Something answers at the port, but it does not speak Kafka's protocol in the clear.
    NotKafka {
        /// `host:port`
        broker: String,
        /// What it looks like, and what to do.
        looks_like: String,
    },
    /// The broker no longer serves the requests of the `kafka` crate (Kafka 4 and newer).
    TooNew {
        /// `host:port`
        broker: String,
        /// The lowest version of Fetch that it serves.
        fetch_min: i16,
    },
    /// The broker is older than what this client needs (0.11).
    TooOld {
        /// `host:port`
        broker: String,
        /// Which request it lacks.
        lacks: &'static str,
    },
    /// It speaks Kafka's protocol, but answers no Metadata: a KRaft controller's listener.
    NoMetadata {
        /// `host:port`
        broker: String,
    },
    /// A call did not come back in its time.
    Deadline {
        /// What was called.
        call: &'static str,
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
    /// A broker accepted the connection, and did not answer a request in its time.
    Silent {
        /// `host:port`
        broker: String,
        /// What was asked.
        call: &'static str,
        /// How long was waited, in milliseconds.
        after_ms: u64,
    },
    /// Several earlier calls have not come back at all, long after their time: no new one is made.
    Stuck {
        /// What was to be called.
        call: &'static str,
        /// How many have not come back.
        earlier: usize,
    },
    /// A broker answered, again and again, without a word about a partition that it was asked for.
    Unanswered {
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// The connection broke, or the answer made no sense.
    Broken {
        /// What was called.
        call: &'static str,
        /// The reason as the library states it.
        why: String,
    },
    /// The broker answered with an error code.
    Refused {
        /// What was called.
        call: &'static str,
        /// Kafka's name of the code.
        code: String,
    },
    /// The broker refused to believe who we are.
    Unauthenticated {
        /// `host:port`
        broker: String,
        /// What it says, and what to look at.
        why: String,
    },
    /// No TLS connection came about.
    Tls {
        /// `host:port`
        broker: String,
        /// What is wrong, and what to look at.
        why: String,
    },
    /// The broker knows who we are, and does not let us: an ACL is missing.
    Unauthorized {
        /// What was called.
        call: &'static str,
        /// Kafka's name of the code.
        code: String,
        /// What it was about, and who we are there.
        denied: Box<(Resource, Principal)>,
    },
    /// Another member has joined the group under the name of this one.
    InstanceFenced {
        /// The group.
        group: String,
        /// `group_instance_id`
        instance: String,
    },
    /// The partition has no leader at present.
    NoLeader,
    /// The topic does not exist, and is not created by asking for it.
    TopicMissing {
        /// Its name.
        topic: String,
    },
    /// The group has live members; a commit from outside is refused until they are gone.
    GroupHasMembers {
        /// The group's name.
        group: String,
        /// Kafka's name of the code.
        code: String,
        /// Who they are, each as `client id at host`; empty if that could not be learned.
        members: Vec<String>,
    },
    /// A batch that this client can't decode.
    Unreadable {
        /// The offset at which it is.
        offset: Offset,
        /// The last offset in it, if that is known.
        last: Option<Offset>,
        /// What it is: `codec=lz4`.
        what: String,
    },
    /// A batch that is larger than a fetch may be.
    TooLarge {
        /// The offset at which it begins.
        offset: Offset,
        /// Its size in bytes.
        size: usize,
        /// What a fetch may have, in bytes.
        limit: usize,
        /// The setting that limits it.
        setting: &'static str,
    },
    /// The broker sends only a part of a batch.
    Cut {
        /// The offset at which it is.
        offset: Offset,
        /// Its size in bytes.
        size: usize,
    },
    /// The position is outside the log, and the policy is to stop there.
    OutOfRange {
        /// The position.
        at: Offset,
        /// The log's range.
        bounds: Bounds,
        /// The group whose offset it is.
        group: String,
    },
    /// A batch whose checksum does not match its bytes.
    Corrupt {
        /// The offset at which it was asked.
        offset: Offset,
    },
}

impl Fault {
    /// The broker knows us as `who`, and refused `call` on `what` with `code`: see [`Fault::Unauthorized`].
    pub fn unauthorized(call: &'static str, what: Resource, code: String, who: Principal) -> Self {
        Self::Unauthorized { call, code, denied: Box::new((what, who)) }
    }

    /// Whether it makes sense to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Deadline { .. }
            | Self::Silent { .. }
            | Self::Stuck { .. }
            | Self::Unanswered { .. }
            | Self::Broken { .. }
            | Self::Refused { .. }
            | Self::NoLeader => Retry::Soon,
            Self::NotKafka { .. }
            | Self::Unauthenticated { .. }
            | Self::Tls { .. }
            | Self::Unauthorized { .. }
            | Self::TooOld { .. }
            | Self::NoMetadata { .. }
            | Self::TopicMissing { .. }
            | Self::GroupHasMembers { .. }
            | Self::InstanceFenced { .. }
            | Self::Corrupt { .. }
            | Self::TooLarge { .. }
            | Self::Cut { .. }
            | Self::OutOfRange { .. } => Retry::Slowly,
            Self::TooNew { .. } | Self::Unreadable { .. } => Retry::Never,
        }
    }

    /// Whether the brokers answer, and do not let us in: TLS, the user, or a missing ACL.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Unauthenticated { .. } | Self::Tls { .. } | Self::Unauthorized { .. })
    }

    /// Why another library takes over, without what else could be done about it.
    pub fn in_short(&self) -> String {
        match self {
            Self::Unreadable { offset, what, .. } => format!("{what}, at offset={offset}"),
            Self::TooNew { broker, fetch_min } => format!("broker {broker} serves Fetch from version {fetch_min} on"),
            other => other.to_string(),
        }
    }

    /// How it stands in the log: what passes by itself is a warning, what somebody has to change an error.
    pub fn level(&self) -> log::Level {
        match self.retry() {
            Retry::Soon => log::Level::Warn,
            Retry::Slowly | Retry::Never => log::Level::Error,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { broker, why, advertised: false } => write!(
                f,
                "no connection to broker {broker}: {why}; check kafka.bootstrap_servers, and that the broker runs"
            ),
            Self::Unreachable { broker, why, advertised: true } => write!(
                f,
                "no connection to broker {broker}: {why}; the cluster gives this address (the broker's advertised.listeners): check that the broker runs, and that the name resolves and is reachable from here"
            ),
            Self::NotKafka { broker, looks_like } => {
                write!(f, "what answers at {broker} is no plain Kafka listener: {looks_like}")
            }
            Self::TooNew { broker, fetch_min } => write!(
                f,
                "broker {broker} is too new for the client 'kafka': it serves Fetch from version {fetch_min} on, this client speaks version 0 (Kafka up to 3.9); {OTHER}"
            ),
            Self::TooOld { broker, lacks } => {
                write!(f, "broker {broker} is too old: it does not serve {lacks} (Kafka 0.11 or newer is needed)")
            }
            Self::NoMetadata { broker } => write!(
                f,
                "{broker} does not serve Metadata: this looks like the listener of a KRaft controller; name the listener of a broker in kafka.bootstrap_servers"
            ),
            Self::Deadline { call, after_ms } => {
                write!(f, "no answer to {call} within {after_ms} ms; trying again over a new connection")
            }
            Self::Silent { broker, call, after_ms } => write!(
                f,
                "broker {broker} did not answer {call} within {after_ms} ms: it hangs, is overloaded, or is no Kafka; trying again over a new connection"
            ),
            Self::Stuck { call, earlier } => {
                write!(f, "{earlier} earlier calls have not returned, and no further {call} is made before one does")
            }
            Self::Unanswered { for_ms } => write!(
                f,
                "for {for_ms} ms the broker's answers have said nothing of this partition: it throttles this client (see the quotas of its client.id or user), or it no longer leads the partition"
            ),
            Self::Broken { call, why } => write!(f, "{call} failed: {why}; trying again over a new connection"),
            Self::Refused { call, code } => write!(f, "the broker refused {call}: {code}"),
            Self::Unauthenticated { broker, why } => write!(f, "broker {broker} does not let us in: {why}"),
            Self::Tls { broker, why } => write!(f, "no TLS connection to broker {broker}: {why}"),
            Self::Unauthorized { call, code, denied } => {
                let (what, who) = &**denied;
                write!(f, "the broker refused {call}: {code}; {who} has no ACL for it on {what}")?;
                if matches!(what, Resource::Topics(_)) && *call != "Fetch" {
                    write!(f, ", or it does not exist, which the broker does not tell without one")?;
                }
                write!(f, ": kafka-acls --add --allow-principal {} {}", who.for_acls(), what.for_acls())
            }
            Self::InstanceFenced { group, instance } => write!(
                f,
                "another member of group {group} has joined as {instance}, and this one is shut out: give each worker a group_instance_id of its own, and restart; it is tried again every five minutes"
            ),
            Self::NoLeader => write!(f, "the partition has no leader at present"),
            Self::TopicMissing { topic } => {
                write!(f, "topic {topic} does not exist; it is not created by asking for it, and is looked for again")
            }
            Self::GroupHasMembers { group, code, members } => {
                write!(f, "group {group} has live members ({code}): ")?;
                match members.as_slice() {
                    [] => write!(f, "another consumer still runs in it, or did a moment ago; stop it"),
                    some => write!(f, "{}; stop them", some.join(", ")),
                }
            }
            Self::Unreadable { offset, last: Some(last), what } => write!(
                f,
                "the batch of offsets {offset} to {last} can't be read by this client ({what}); {OTHER}, or produce with gzip, snappy or no compression; to pass it over, stop the worker and set the group's offset to {}",
                last.next()
            ),
            Self::Unreadable { offset, last: None, what } => write!(
                f,
                "the batch at offset={offset} can't be read by this client ({what}); {OTHER}, or produce with gzip, snappy or no compression"
            ),
            Self::TooLarge { offset, size, limit, setting } => {
                write!(f, "the batch at offset={offset} has {size} bytes, a fetch may have {limit}; raise {setting}")?;
                // A quarter of it is the reserve, which has to hold the batch.
                let needed = if *setting == "memory.limit" { size.saturating_mul(4) } else { *size };
                write!(f, " to {}MiB or more", needed.div_ceil(1 << 20))
            }
            Self::Cut { offset, size } => write!(
                f,
                "the broker sends only a part of the batch at offset={offset}, which has {size} bytes; raise fetch.max.bytes in the broker's configuration above that"
            ),
            Self::OutOfRange { at, bounds, group } => write!(
                f,
                "offset {at} is outside the log ({bounds}) and on_out_of_range is stop: set an offset for group {group} and restart, or choose another policy"
            ),
            Self::Corrupt { offset } => write!(
                f,
                "the batch at offset={offset} fails its checksum or can't be unpacked: damaged on the broker's disk or on the way; it is asked again (check_crcs = false would deliver it as it is)"
            ),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_acl_is_told_with_who_needs_it_and_the_command() {
        let text = |call, what, who| Fault::unauthorized(call, what, "Code".to_owned(), who).to_string();
        let alice = || Principal::User("alice".to_owned());
        assert_eq!(
            text("Metadata", Resource::topic("orders"), alice()),
            "the broker refused Metadata: Code; user alice (kafka.sasl.username) has no ACL for it on topic orders, or it does not exist, which the broker does not tell without one: kafka-acls --add --allow-principal User:alice --operation Read --topic orders"
        );
        let both = Resource::Topics(vec!["a".to_owned(), "b".to_owned()]);
        let told = text("JoinGroup", both, Principal::Certificate("/etc/client.pem".into()));
        for words in [
            "the SUBJECT of kafka.tls.certificate (/etc/client.pem) has no ACL for it on topics a, b, or",
            "--allow-principal User:SUBJECT --operation Read --topic a --topic b",
        ] {
            assert!(told.contains(words), "{words:?}: {told}");
        }
        assert_eq!(
            text("OffsetCommit", Resource::Group("g".to_owned()), Principal::Anonymous),
            "the broker refused OffsetCommit: Code; ANONYMOUS (there is neither [kafka.sasl] nor kafka.tls.certificate) has no ACL for it on group g: kafka-acls --add --allow-principal User:ANONYMOUS --operation Read --group g"
        );
        assert!(!text("Fetch", Resource::topic("t"), alice()).contains("exist"), "what is read is there");
    }
}
