//! What the tests share: a cluster with one topic, clients, and fetches as lists of offsets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use broker::{Api, Options, Server};
use bytes::{Bytes, BytesMut};
use kafka::client::{FetchPartition, GroupOffsetStorage, KafkaClient};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeGroupsRequest, DescribeGroupsResponse, FetchRequest,
    FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// Longer than anything here takes; what waits that long has failed.
pub const LONG: Duration = Duration::from_secs(20);
/// More than any answer has.
pub const ALL: i32 = 1 << 20;

/// No offsets.
pub const NONE: [i64; 0] = [];

/// A request of `kafka-protocol`, and its answer. (The crate's own `Request` needs the half of it
/// that brokers use.)
pub trait Ask: Encodable + HeaderVersion {
    const API: Api;
    type Answer: Decodable + HeaderVersion;
}

macro_rules! ask {
    ($($api:ident: $request:ident => $answer:ident,)*) => {
        $(impl Ask for $request {
            const API: Api = Api::$api;
            type Answer = $answer;
        })*
    };
}

ask! {
    Fetch: FetchRequest => FetchResponse,
    ListOffsets: ListOffsetsRequest => ListOffsetsResponse,
    Metadata: MetadataRequest => MetadataResponse,
    DescribeGroups: DescribeGroupsRequest => DescribeGroupsResponse,
    ApiVersions: ApiVersionsRequest => ApiVersionsResponse,
}

/// One broker with topic `t` of one partition.
pub fn server() -> Server {
    let server = Server::start(Options::default()).unwrap();
    server.create_topic("t", 1).unwrap();
    server
}

/// Three brokers with topic `t` of three partitions, each led by another one.
pub fn three_brokers() -> Server {
    let server = Server::start(Options { brokers: 3, ..Options::default() }).unwrap();
    server.create_topic("t", 3).unwrap();
    server
}

/// A client that knows all topics and never waits long.
pub fn client(server: &Server) -> KafkaClient {
    let mut client = KafkaClient::new(server.bootstrap());
    client.load_metadata_all().unwrap();
    client.set_fetch_max_wait_time(Duration::from_millis(10)).unwrap();
    client.set_fetch_min_bytes(1);
    client.set_group_offset_storage(Some(GroupOffsetStorage::Kafka));
    client.set_retry_backoff_time(Duration::from_millis(1));
    client
}

/// The offsets that a fetch of partition 0 of `t` gives.
pub fn fetch(client: &mut KafkaClient, position: i64, max_bytes: i32) -> kafka::Result<Vec<i64>> {
    fetch_from(client, 0, position, max_bytes)
}

/// The same, for any partition.
pub fn fetch_from(client: &mut KafkaClient, number: i32, position: i64, max: i32) -> kafka::Result<Vec<i64>> {
    let request = FetchPartition::new("t", number, position).with_max_bytes(max);
    let mut offsets = Vec::new();
    for response in client.fetch_messages(&[request])? {
        for topic in response.topics() {
            for partition in topic.partitions() {
                match partition.data() {
                    Ok(data) => offsets.extend(data.messages().iter().map(|message| message.offset)),
                    Err(error) => match &*error {
                        kafka::Error::Kafka(code) => return Err(kafka::Error::Kafka(*code)),
                        other => panic!("{other}"),
                    },
                }
            }
        }
    }
    Ok(offsets)
}

/// The offsets that a loop delivers that takes every answer for complete.
pub fn plain_loop(client: &mut KafkaClient, end: i64, max_bytes: i32) -> Vec<i64> {
    let (mut position, mut delivered) = (0, Vec::new());
    while position < end {
        let offsets = fetch(client, position, max_bytes).unwrap();
        let Some(last) = offsets.last() else { break };
        position = last + 1;
        delivered.extend(offsets);
    }
    delivered
}

/// A bare connection to a broker.
pub struct Wire(pub TcpStream);

impl Wire {
    pub fn to(server: &Server, broker: usize) -> Self {
        let socket = TcpStream::connect(&server.bootstrap()[broker]).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self(socket)
    }

    /// Sends a request as `kafka-protocol` encodes it, and decodes the answer so.
    pub fn call<R: Ask>(&mut self, version: i16, request: &R) -> Option<R::Answer> {
        let header = RequestHeader::default()
            .with_request_api_key(R::API as i16)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes, R::header_version(version)).unwrap();
        request.encode(&mut bytes, version).unwrap();
        self.send(&bytes);
        let mut answer = Bytes::from(self.receive()?);
        let header = ResponseHeader::decode(&mut answer, R::Answer::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 77);
        let response = R::Answer::decode(&mut answer, version).unwrap();
        assert!(answer.is_empty(), "nothing is left over");
        Some(response)
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &[u8]) {
        // In one piece: two would wait for each other's acknowledgement.
        let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length, frame].concat()).unwrap();
    }

    /// A frame, or `None` if the connection was closed.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer in {LONG:?}"),
            Err(_) => return None,
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut frame).unwrap();
        Some(frame)
    }
}
