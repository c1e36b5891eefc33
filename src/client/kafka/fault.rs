//! From the `kafka` crate's errors to ours.

use std::io;

use kafka::Error;
use kafka::error::KafkaCode;

use crate::client::Fault;

/// What an error of the crate means for the answer it came instead of.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The connection, or the answer as a whole: the link is replaced.
    Broken(Fault),
    /// The broker's own word.
    Code(KafkaCode),
    /// The crate can't decode a batch; which partition's, it does not say.
    Undecodable(String),
}

/// Sorts an error of `call`.
pub(super) fn meaning(call: &'static str, error: &Error) -> Meaning {
    match error {
        Error::Kafka(KafkaCode::CorruptMessage) => Meaning::Undecodable("a checksum does not match".to_owned()),
        Error::UnsupportedCompression => Meaning::Undecodable("compressed with a codec it does not have".to_owned()),
        Error::UnsupportedProtocol => Meaning::Undecodable("a message format it does not know".to_owned()),
        Error::InvalidSnappy(why) => Meaning::Undecodable(format!("snappy: {why}")),
        Error::Kafka(code) | Error::TopicPartitionError { error_code: code, .. } => Meaning::Code(*code),
        Error::ArcSelf(inner) => meaning(call, inner),
        // Unpacking gzip reports what is wrong with the data as an I/O error of these kinds.
        Error::Io(why) if matches!(why.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Meaning::Undecodable(format!("gzip: {why}"))
        }
        other => Meaning::Broken(Fault::Broken { call, why: other.to_string() }),
    }
}

/// The fault of a call that concerns no single partition.
pub(super) fn fault(call: &'static str, error: &Error) -> Fault {
    match meaning(call, error) {
        Meaning::Broken(fault) => fault,
        Meaning::Code(code) => Fault::Refused { call, code: format!("{code:?}") },
        Meaning::Undecodable(why) => Fault::Broken { call, why },
    }
}

/// The fault of a call to the coordinator of `group`.
pub(super) fn group_fault(call: &'static str, group: &str, error: &Error) -> Fault {
    match meaning(call, error) {
        Meaning::Code(
            code @ (KafkaCode::UnknownMemberId | KafkaCode::IllegalGeneration | KafkaCode::RebalanceInProgress),
        ) => Fault::GroupHasMembers { group: group.to_owned(), code: format!("{code:?}"), members: Vec::new() },
        _ => fault(call, error),
    }
}
