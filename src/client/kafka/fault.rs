//! From the `kafka` crate's errors to ours.

use std::io;

use kafka::Error;
use kafka::error::KafkaCode;

use crate::client::Fault;
use crate::record::Offset;
use crate::wire::Codec;

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

/// Sorts an error of `call`. `peer` is who was asked, in words: the crate does not say it.
pub(super) fn meaning(call: &'static str, peer: &str, error: &Error) -> Meaning {
    match error {
        Error::Kafka(KafkaCode::CorruptMessage) => Meaning::Undecodable("a checksum does not match".to_owned()),
        Error::UnsupportedCompression => Meaning::Undecodable("compressed with a codec it does not have".to_owned()),
        Error::UnsupportedProtocol => Meaning::Undecodable("a message format it does not know".to_owned()),
        Error::InvalidSnappy(why) => Meaning::Undecodable(format!("snappy: {why}")),
        Error::Kafka(code) | Error::TopicPartitionError { error_code: code, .. } => Meaning::Code(*code),
        Error::ArcSelf(inner) => meaning(call, peer, inner),
        // Unpacking gzip reports what is wrong with the data as an I/O error of these kinds.
        Error::Io(why) if matches!(why.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Meaning::Undecodable(format!("gzip: {why}"))
        }
        Error::Io(why) if is_end(why.kind()) => {
            Meaning::Broken(Fault::Broken { call, why: format!("{peer} closed the connection") })
        }
        other => Meaning::Broken(Fault::Broken { call, why: format!("{peer}: {other}") }),
    }
}

/// What a batch with this codec, up to the offset `last`, means for this client, if it can't decode it.
pub(in crate::client) fn unreadable(codec: Codec, offset: Offset, last: Option<Offset>) -> Option<Fault> {
    let unreadable = !matches!(codec, Codec::None | Codec::Gzip | Codec::Snappy);
    unreadable.then(|| Fault::Unreadable { offset, last, what: format!("codec={codec}") })
}

/// The broker does not convert for the old version of Fetch that this client speaks.
pub(in crate::client) fn no_down_conversion(offset: Offset) -> Fault {
    let what = "down-conversion is disabled on the broker or the topic: message.downconversion.enable".to_owned();
    Fault::Unreadable { offset, last: None, what }
}

/// Only another library can tell whether a transaction was committed.
pub(super) fn in_transaction(offset: Offset, last: Offset) -> Fault {
    let what = "written in a transaction, of which old fetches do not tell whether it was aborted".to_owned();
    Fault::Unreadable { offset, last: Some(last), what }
}

/// How the end of a connection is reported; an answer that ends too early is one, too.
fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// The fault of a call that concerns no single partition.
pub(super) fn fault(call: &'static str, peer: &str, error: &Error) -> Fault {
    match meaning(call, peer, error) {
        Meaning::Broken(fault) => fault,
        Meaning::Code(code) => Fault::Refused { call, code: format!("{code:?}") },
        Meaning::Undecodable(why) => Fault::Broken { call, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_connection_is_told_with_its_broker() {
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe] {
            let told = fault("Fetch", "broker b:9092", &Error::Io(kind.into())).to_string();
            assert_eq!(told, "Fetch failed: broker b:9092 closed the connection; trying again over a new connection");
        }
    }

    #[test]
    fn data_that_cannot_be_unpacked_are_no_matter_of_the_connection() {
        let error = Error::Io(io::Error::new(io::ErrorKind::InvalidInput, "corrupt deflate stream"));
        assert!(matches!(meaning("Fetch", "broker b:9092", &error), Meaning::Undecodable(_)));
    }
}
