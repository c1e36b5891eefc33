//! The wire against peers that follow a script: each answers the requests one by one with given bytes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::client::{Committed, Retry};
use crate::record::{Offset, TopicId, TopicPartition};

mod versions;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(150);

/// What a peer does with a request.
pub(super) enum Reply {
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// A frame with the correlation id of the request in front.
    Body(Vec<u8>),
    /// A frame that announces so many bytes more than it has.
    Short(Vec<u8>, i32),
    /// The same, and closes the connection then.
    Cut(Vec<u8>, i32),
    /// Closes the connection.
    Close,
    /// Says nothing until the other side goes away.
    Silence,
}

/// Serves one connection; returns its address.
pub(super) fn peer(script: Vec<Reply>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        for reply in script {
            let Some(request) = request(&mut socket) else { return };
            let answer = |body: &[u8], more: i32| {
                let size = i32::try_from(body.len()).unwrap() + 4 + more;
                [&size.to_be_bytes()[..], &request[4..8], body].concat()
            };
            let bytes = match reply {
                Reply::Raw(bytes) => bytes,
                Reply::Body(body) => answer(&body, 0),
                Reply::Short(body, more) => answer(&body, more),
                Reply::Cut(body, more) => {
                    let _ = socket.write_all(&answer(&body, more));
                    return;
                }
                Reply::Close => return,
                Reply::Silence => Vec::new(),
            };
            // The other side may have seen enough and gone.
            let _ = socket.write_all(&bytes);
        }
        let _ = socket.read(&mut [0]);
    });
    address
}

fn request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut frame = vec![0; i32::from_be_bytes(length).try_into().unwrap()];
    socket.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn connect(script: Vec<Reply>, timeout: Duration) -> Result<Wire, Fault> {
    Wire::connect(&peer(script), "test", LONG, timeout)
}

pub(super) fn i16s(numbers: &[i16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(super) fn i32s(numbers: &[i32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

pub(super) fn text(text: &str) -> Vec<u8> {
    [&i16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// The answer to ApiVersions: no error, and these (key, min, max).
pub(super) fn versions(apis: &[[i16; 3]]) -> Reply {
    Reply::Body([i16s(&[0]), i32s(&[apis.len() as i32]), i16s(&apis.concat())].concat())
}

/// Produce, Fetch, ListOffsets, Metadata as Kafka 0.11 has them.
fn old() -> Reply {
    versions(&[[0, 0, 3], [1, 0, 5], [2, 0, 2], [3, 0, 4], [18, 0, 1]])
}

/// A connection to a broker that was asked for its versions and now answers this.
fn wire(reply: Reply) -> Wire {
    connect(vec![old(), reply], LONG).unwrap()
}

#[track_caller]
fn looks_like(script: Vec<Reply>, words: &str) {
    match connect(script, LONG) {
        Err(fault @ Fault::NotKafka { .. }) => {
            assert!(fault.to_string().contains(words), "{fault}");
            assert!(fault.to_string().contains("127.0.0.1:"), "{fault}");
            assert_eq!(fault.retry(), Retry::Slowly);
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn broken<T: std::fmt::Debug>(result: Result<T, Fault>, words: &str) {
    match result {
        Err(fault @ Fault::Broken { .. }) => {
            assert!(fault.to_string().contains(words), "{fault}");
            assert!(fault.to_string().contains("broker 127.0.0.1:"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn strangers_are_named() {
    looks_like(vec![Reply::Raw(b"\x15\x03\x03\x00\x02\x02\x46".to_vec())], "TLS alert");
    looks_like(vec![Reply::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())], "HTTP");
    looks_like(vec![Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())], "SSH");
    looks_like(vec![Reply::Close], "TLS listener does so");
    looks_like(vec![Reply::Raw(b"\xde\xad\xbe\xef".to_vec())], "de ad be ef");
    looks_like(vec![Reply::Raw(b"\x7f\xff\xff\xff".to_vec())], "7f ff ff ff");
    looks_like(vec![Reply::Raw(b"\0\0\0\0".to_vec())], "00 00 00 00");
    looks_like(vec![Reply::Raw(b"\0\0\0\x08\0\0\0\x63abcd".to_vec())], "correlation id 99 came where 1");
}

#[test]
fn a_listener_that_wants_sasl_is_named() {
    let fault = wire(Reply::Close).metadata(&[Arc::from("t")]).unwrap_err();
    assert!(fault.to_string().contains("SASL listener"), "{fault}");
}

#[test]
fn silence_ends_by_the_deadline_however_slowly_it_drips() {
    let started = Instant::now();
    match connect(vec![Reply::Silence], SHORT) {
        Err(Fault::Silent { call: "ApiVersions", after_ms, .. }) => assert!(after_ms >= 150),
        other => panic!("{other:?}"),
    }
    // A byte every now and then is no answer either.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(b"\0\0\x01\0\0\0\0\x01").unwrap();
        while socket.write_all(b"\0").is_ok() {
            thread::sleep(Duration::from_millis(40));
        }
    });
    let dripping = Wire::connect(&address, "test", LONG, SHORT);
    assert!(matches!(dripping, Err(Fault::Silent { .. })), "{dripping:?}");
    assert!(started.elapsed() < LONG);
}

#[test]
fn what_cannot_be_connected_to_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for (address, word) in [
        (format!("127.0.0.1:{port}"), "refused"),
        ("no-such-host.invalid:9092".to_owned(), "no-such-host.invalid"),
        ("no-port".to_owned(), "no-port"),
    ] {
        match Wire::connect(&address, "test", LONG, LONG) {
            Err(fault @ Fault::Unreachable { .. }) => assert!(fault.to_string().contains(word), "{fault}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    // Many systems give ::1 first for this name, where this peer does not listen.
    let address = peer(vec![old()]).replace("127.0.0.1", "localhost");
    Wire::connect(&address, "test", LONG, LONG).unwrap();
}

#[test]
fn lies_about_lengths_are_broken_answers() {
    let frame = |body: &[u8]| Reply::Body(body.to_vec());
    broken(connect(vec![frame(b"\0\0\x7f\xff\xff\xff")], LONG), "makes no sense");
    broken(connect(vec![frame(b"\0\0\xff\xff\xff\xfe")], LONG), "makes no sense");
    broken(connect(vec![frame(b"\0\0\0\0\0\0!")], LONG), "more than expected");
    broken(connect(vec![Reply::Cut(b"\0\0".to_vec(), 1000)], LONG), "closed the connection");
    let short = connect(vec![Reply::Short(b"\0\0".to_vec(), 1000)], SHORT);
    assert!(matches!(short, Err(Fault::Silent { call: "ApiVersions", .. })), "{short:?}");
    let topics = [Arc::from("t")];
    broken(wire(Reply::Raw(b"\xff\xff\xff\xff".to_vec())).metadata(&topics), "a length of -1");
    broken(wire(Reply::Raw(i32s(&[MAX_ANSWER as i32 + 1]))).metadata(&topics), "a length of 16777217");
    broken(wire(Reply::Raw(i32s(&[4, 77]))).metadata(&topics), "correlation id 77");
    let brokers = [i32s(&[0, i32::MAX])].concat();
    broken(wire(Reply::Body(brokers)).metadata(&topics), "makes no sense");
}

#[test]
fn after_a_fault_of_the_connection_it_is_closed() {
    let mut wire = wire(Reply::Raw(b"\xff\xff\xff\xff".to_vec()));
    assert!(wire.is_open());
    wire.metadata(&[]).unwrap_err();
    assert!(!wire.is_open());
    broken(wire.metadata(&[]), "closed already");
}

#[test]
fn versions_decide_which_client_can_read() {
    let require = |apis: &[[i16; 3]]| connect(vec![versions(apis)], LONG).unwrap().require_old_fetch();
    assert_eq!(require(&[[1, 0, 17], [3, 0, 12]]), Ok(()));
    // Kafka 4.1.1
    assert!(matches!(require(&[[1, 4, 18], [3, 0, 13]]), Err(Fault::TooNew { fetch_min: 4, .. })));
    assert!(matches!(require(&[[1, 0, 3], [3, 0, 4]]), Err(Fault::TooOld { lacks: "Fetch 4", .. })));
    assert!(matches!(require(&[[1, 0, 4], [3, 0, 2]]), Err(Fault::TooOld { lacks: "Metadata 4", .. })));
    // What a controller of Kafka 3.9 serves of these: Fetch and ApiVersions.
    assert!(matches!(require(&[[1, 0, 17], [18, 0, 4]]), Err(Fault::NoMetadata { .. })));
    let require = |apis: &[[i16; 3]]| connect(vec![versions(apis)], LONG).unwrap().require();
    assert_eq!(require(&[[1, 4, 18], [3, 0, 13]]), Ok(()));
    assert!(matches!(require(&[[1, 4, 18], [3, 0, 3]]), Err(Fault::TooOld { lacks: "Metadata 4", .. })));
    assert!(matches!(require(&[[1, 4, 18]]), Err(Fault::NoMetadata { .. })));
    let mut wire = connect(vec![versions(&[[2, 0, 0]])], LONG).unwrap();
    assert!(matches!(wire.bounds(&[]), Err(Fault::TooOld { lacks: "ListOffsets 1", .. })));
}

#[test]
fn metadata_of_an_old_broker() {
    let partition = |error, index, leader| [i16s(&[error]), i32s(&[index, leader, 1, 7, 0])].concat();
    let topic = |error, name: &str, partitions: Vec<Vec<u8>>| {
        [i16s(&[error]), text(name), vec![0], i32s(&[partitions.len() as i32]), partitions.concat()].concat()
    };
    let body = [
        i32s(&[0, 2, 7]),
        text("kafka7"),
        i32s(&[9092]),
        text("rack"),
        i32s(&[8]),
        text("::1"),
        i32s(&[9093]),
        i16s(&[-1]),
        text("cluster"),
        i32s(&[7, 4]),
        topic(0, "there", vec![partition(0, 1, 8), partition(0, 0, 7), partition(5, 2, -1), partition(9, 3, 99)]),
        topic(3, "missing", vec![]),
        topic(29, "secret", vec![]),
        topic(17, "in/valid", vec![]),
    ];
    let names = ["missing", "there", "secret", "in/valid", "forgotten"].map(Arc::from);
    let view = wire(Reply::Body(body.concat())).metadata(&names).unwrap();
    assert_eq!(view.brokers, [(7, "kafka7:9092".to_owned()), (8, "[::1]:9093".to_owned())]);
    assert_eq!(view.topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), names.each_ref().map(|n| &**n));
    let [missing, there, secret, invalid, forgotten] = view.topics.as_slice() else { panic!("{view:?}") };
    assert_eq!(missing.partitions, Err(Fault::TopicMissing { topic: "missing".into() }));
    let leaders: Vec<_> =
        there.partitions.as_ref().unwrap().iter().map(|p| (p.partition, p.leader.as_deref())).collect();
    assert_eq!(leaders, [(0, Some("kafka7:9092")), (1, Some("[::1]:9093")), (2, None), (3, None)]);
    assert_eq!(there.id, None);
    let refused = |code: &str| Err(Fault::Refused { call: "Metadata", code: code.into() });
    let code = "TopicAuthorizationFailed".to_owned();
    assert_eq!(
        secret.partitions,
        Err(Fault::unauthorized("Metadata", Resource::topic("secret"), code, Principal::Anonymous))
    );
    assert_eq!(invalid.partitions, refused("InvalidTopicException"));
    assert!(matches!(forgotten.partitions, Err(Fault::Broken { .. })));
}

#[test]
fn offsets_are_matched_by_name_and_not_by_place() {
    let partition = |index, error, offset: i64| {
        [i32s(&[index]), i16s(&[error]), (-1_i64).to_be_bytes().to_vec(), offset.to_be_bytes().to_vec()].concat()
    };
    let answer = |parts: Vec<Vec<u8>>| {
        Reply::Body([i32s(&[0, 1]), text("t"), i32s(&[parts.len() as i32]), parts.concat()].concat())
    };
    let starts = answer(vec![partition(1, 0, 5), partition(0, 0, 0), partition(2, 6, -1)]);
    let ends = answer(vec![partition(0, 0, 9), partition(1, 0, 7), partition(2, 6, -1)]);
    let mut wire = connect(vec![old(), starts, ends], LONG).unwrap();
    let asked = [0, 1, 2, 3].map(|partition| (Arc::from("t"), partition));
    let bounds = wire.bounds(&asked).unwrap();
    let range = |result: &Result<crate::client::Bounds, Fault>| {
        result.as_ref().map(|bounds| (bounds.log_start.get(), bounds.log_end.get())).map_err(Fault::to_string)
    };
    assert_eq!(range(&bounds[0]), Ok((0, 9)));
    assert_eq!(range(&bounds[1]), Ok((5, 7)));
    assert!(range(&bounds[2]).unwrap_err().contains("NotLeaderOrFollower"), "{bounds:?}");
    assert!(range(&bounds[3]).unwrap_err().contains("lacks the partition"), "{bounds:?}");
}

/// The answer to a Fetch of partition 3 of topic `t`, with these records.
fn fetched(error: i16, high_watermark: i64, size: i32, records: &[u8]) -> Vec<u8> {
    let end = high_watermark.to_be_bytes();
    [i32s(&[0, 1]), text("t"), i32s(&[1, 3]), i16s(&[error]), end.to_vec(), end.to_vec(), i32s(&[-1, size])]
        .concat()
        .into_iter()
        .chain(records.iter().copied())
        .collect()
}

/// The first 61 bytes of a batch of magic 2.
fn head(base: i64, length: i32, attributes: i16, delta: i32, count: i32) -> Vec<u8> {
    let mut bytes =
        [base.to_be_bytes().to_vec(), i32s(&[length, 0]), vec![2], i32s(&[0]), i16s(&[attributes])].concat();
    bytes.extend(i32s(&[delta]));
    bytes.resize(57, 0);
    bytes.extend(i32s(&[count]));
    bytes
}

fn header(body: Vec<u8>) -> Result<Header, Fault> {
    wire(Reply::Body(body)).batch_header("t", 3, Offset::ZERO)
}

#[test]
fn headers_are_read_field_by_field() {
    let at = |number| Offset::new(number).unwrap();
    let records = head(70, 49, 0x34, 4, 2);
    assert_eq!(
        header(fetched(0, 99, 61, &records)),
        Ok(Header::Batch(Batch {
            base: at(70),
            size: 61,
            magic: 2,
            details: Some(Details { last: at(74), codec: Codec::Zstd, transactional: true, control: true, count: 2 }),
            high_watermark: at(99),
        }))
    );
    for (number, codec) in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4].into_iter().enumerate() {
        match header(fetched(0, 99, 61, &head(0, 49, number as i16, 0, 1))) {
            Ok(Header::Batch(batch)) => assert_eq!(batch.details.unwrap().codec, codec),
            other => panic!("{other:?}"),
        }
    }
    // Magic 1: offset, size, CRC, magic, attributes, timestamp, null key, null value.
    let old = [5_i64.to_be_bytes().to_vec(), i32s(&[22, 0]), vec![1, 0], vec![0; 8], i32s(&[-1, -1])].concat();
    assert_eq!(
        header(fetched(0, 99, 34, &old)),
        Ok(Header::Batch(Batch { base: at(5), size: 34, magic: 1, details: None, high_watermark: at(99) }))
    );
}

#[test]
fn no_batch_has_its_reason() {
    let at = |number| Offset::new(number).unwrap();
    assert_eq!(header(fetched(0, 7, 0, &[])), Ok(Header::Nothing { high_watermark: at(7) }));
    assert_eq!(header(fetched(0, 7, -1, &[])), Ok(Header::Nothing { high_watermark: at(7) }));
    assert_eq!(header(fetched(1, -1, 0, &[])), Ok(Header::OutOfRange));
    let refused = Fault::Refused { call: "Fetch", code: "NotLeaderOrFollower".into() };
    assert_eq!(header(fetched(6, -1, -1, &[])), Ok(Header::Refused(refused)));
    assert_eq!(header(i32s(&[250, 0])), Ok(Header::Inconclusive { throttle_ms: 250 }));
    let no_partition = [i32s(&[5, 1]), text("t"), i32s(&[0])].concat();
    assert_eq!(header(no_partition), Ok(Header::Inconclusive { throttle_ms: 5 }));
}

#[test]
fn headers_that_lie_are_broken_answers() {
    let sound = fetched(0, 99, 61, &head(0, 49, 0, 0, 1));
    for end in 0..sound.len() {
        // A frame that ends in the middle, wherever that is.
        broken(header(sound[..end].to_vec()), "makes no sense");
    }
    let batch = |base, length, delta, count| header(fetched(0, 99, 61, &head(base, length, 0, delta, count)));
    broken(batch(-1, 49, 0, 1), "base offset");
    broken(batch(0, -13, 0, 1), "batch length");
    broken(batch(0, 48, 0, 1), "60 bytes");
    broken(batch(0, 49, -1, 1), "last offset");
    broken(batch(i64::MAX, 49, 1, 1), "last offset");
    broken(batch(0, 49, 0, -1), "records in a batch");
    broken(header(fetched(0, 99, 16, &[0; 16])), "16 bytes");
    broken(header(fetched(0, 99, 60, &head(0, 49, 0, 0, 1)[..60])), "60 bytes of it given");
    broken(header(fetched(0, -5, 0, &[])), "high watermark");
    broken(header([i32s(&[0, 1]), text("u")].concat()), "another topic");
    broken(header([i32s(&[0, 1]), text("tt")].concat()), "another topic");
    broken(header([i32s(&[0, 2])].concat()), "2 topics");
    broken(header([i32s(&[0, 1]), text("t"), i32s(&[1, 4])].concat()), "another partition");
    broken(header([i32s(&[0, 1]), text("t"), i32s(&[-7])].concat()), "-7 partitions");
}

#[test]
fn a_large_batch_is_not_read() {
    // The peer announces 300 MB and sends the header only: it must not be waited for.
    let size = 300_000_000;
    let body = fetched(0, 99, size, &head(10, size - 12, 1, 9, 10));
    let mut wire = wire(Reply::Short(body, size - 61));
    match wire.batch_header("t", 3, Offset::ZERO) {
        Ok(Header::Batch(batch)) => assert_eq!(batch.size, 300_000_000),
        other => panic!("{other:?}"),
    }
    assert!(!wire.is_open());
}

#[test]
fn a_small_batch_leaves_the_connection_open() {
    let first = fetched(0, 99, 70, &[head(0, 58, 0, 0, 1), vec![0; 9]].concat());
    let second = fetched(0, 99, 0, &[]);
    let mut wire = connect(vec![old(), Reply::Body(first), Reply::Body(second)], LONG).unwrap();
    assert!(matches!(wire.batch_header("t", 3, Offset::ZERO), Ok(Header::Batch(_))));
    assert!(matches!(wire.batch_header("t", 3, Offset::ZERO), Ok(Header::Nothing { .. })));
    assert!(wire.is_open());
}

#[test]
fn codes_have_kafkas_names() {
    assert_eq!(code_name(3), "UnknownTopicOrPartition");
    assert_eq!(code_name(25), "UnknownMemberId");
    assert_eq!(code_name(-1), "UnknownServerError");
    assert_eq!(code_name(9999), "error code 9999");
}

#[test]
fn topic_ids_are_written_as_kafka_does() {
    let id = |bytes| TopicId::new(bytes).map(|id| id.to_string());
    assert_eq!(id([0; 16]), None);
    assert_eq!(id([0xff; 16]).as_deref(), Some("_____________________w"));
    let bytes = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
    assert_eq!(id(bytes).as_deref(), Some("ASNFZ4mrze_-3LqYdlQyEA"));
}

/// A connection to a broker that serves groups, and now answers this.
fn group_wire(body: Vec<u8>) -> Wire {
    connect(vec![versions(&[[9, 1, 1], [10, 0, 0], [18, 0, 0]]), Reply::Body(body)], LONG).unwrap()
}

#[test]
fn the_coordinator_has_an_address_or_a_reason() {
    let answer = |code: i16| [i16s(&[code]), i32s(&[3]), text("b3"), i32s(&[9093])].concat();
    assert_eq!(group_wire(answer(0)).coordinator("g"), Ok("b3:9093".to_owned()));
    match group_wire(answer(15)).coordinator("g") {
        Err(Fault::Refused { code, .. }) => assert_eq!(code, "CoordinatorNotAvailable"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn committed_offsets_come_in_the_order_of_the_question_and_minus_one_is_none() {
    let one = |partition: i32, offset: i64, code: i16| {
        [i32s(&[partition]), offset.to_be_bytes().to_vec(), text(""), i16s(&[code])].concat()
    };
    let answer = |code: i16| [i32s(&[1]), text("t"), i32s(&[2]), one(1, -1, 0), one(0, 7, code)].concat();
    let of = [0, 1].map(|number| TopicPartition::new("t", number));
    let seven = Committed { offset: Offset::new(7).unwrap(), metadata: String::new() };
    assert_eq!(group_wire(answer(0)).committed("g", &of), Ok(vec![Some(seven), None]));
    match group_wire(answer(16)).committed("g", &of) {
        Err(Fault::Refused { code, .. }) => assert_eq!(code, "NotCoordinator"),
        other => panic!("{other:?}"),
    }
    broken(group_wire(answer(0)).committed("g", &[TopicPartition::new("t", 2)]), "lacks topic=t partition=2");
    let lie = [i32s(&[i32::MAX]), text("t")].concat();
    assert!(group_wire(lie).committed("g", &of).is_err(), "a count is not believed");
}
