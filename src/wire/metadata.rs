//! Which topics exist, their partitions and leaders. Never creates a topic.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::shape::Shape;
use super::{Wire, refused};
use crate::client::{Fault, Principal, Resource};
use crate::record::TopicId;

/// From here on a request can forbid the creation of topics.
const MIN_VERSION: i16 = 4;
/// The newest version whose shape is known here.
const MAX_VERSION: i16 = 12;
/// UNKNOWN_TOPIC_OR_PARTITION
const UNKNOWN_TOPIC: i16 = 3;

/// What a broker knows of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Node id and `host:port` of each broker that is up, as they advertise themselves.
    pub brokers: Vec<(i32, String)>,
    /// The topics, in the order in which they were asked.
    pub topics: Vec<TopicView>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, which a topic that is deleted and created again does not keep; from Kafka 2.8 on.
    pub id: Option<TopicId>,
    /// Its partitions by number. [`Fault::TopicMissing`] if it does not exist; [`Fault::Refused`]
    /// with Kafka's reason, for instance that we are not authorized, or that the name is invalid.
    pub partitions: Result<Vec<PartitionView>, Fault>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Its number.
    pub partition: i32,
    /// `host:port` of its leader; `None` while it has none that is up.
    pub leader: Option<String>,
}

impl Wire {
    /// The names of all topics that we may see (DESCRIBE), but those that are the cluster's own.
    ///
    /// # Errors
    /// The broker did not answer, or [`Fault::TooOld`].
    pub fn topic_names(&mut self) -> Result<BTreeSet<Arc<str>>, Fault> {
        let version = self.choose(ApiKey::Metadata, (MIN_VERSION, MAX_VERSION), "Metadata 4")?;
        // Absent topics are all of them: MetadataRequest.json, from version 1 on.
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.call("Metadata", ApiKey::Metadata, version, &request, &shape(version))?;
        let own = answer.topics.iter().filter(|topic| !topic.is_internal && topic.error_code != UNKNOWN_TOPIC);
        Ok(own.filter_map(|topic| topic.name.as_ref().map(|name| Arc::from(name.0.as_str()))).collect())
    }

    /// Looks topics up, at the newest version of Metadata that both sides speak (4 to 12). Topics
    /// that do not exist are not created.
    ///
    /// # Errors
    /// The broker did not answer, or [`Fault::TooOld`]. What concerns one topic is in its view.
    pub fn metadata(&mut self, topics: &[Arc<str>]) -> Result<ClusterView, Fault> {
        let version = self.choose(ApiKey::Metadata, (MIN_VERSION, MAX_VERSION), "Metadata 4")?;
        let ask = topics.iter().map(|name| {
            let name = StrBytes::from_string(name.to_string());
            MetadataRequestTopic::default().with_name(Some(TopicName(name)))
        });
        let request = MetadataRequest::default().with_topics(Some(ask.collect())).with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.call("Metadata", ApiKey::Metadata, version, &request, &shape(version))?;

        let brokers: Vec<(i32, String)> =
            answer.brokers.iter().map(|broker| (broker.node_id.0, address(&broker.host, broker.port))).collect();
        let by_id: HashMap<i32, &String> = brokers.iter().map(|(id, address)| (*id, address)).collect();
        let by_name: HashMap<&str, &MetadataResponseTopic> =
            answer.topics.iter().filter_map(|topic| topic.name.as_ref().map(|name| (name.0.as_str(), topic))).collect();
        let broker = self.broker();
        let view = |name: &Arc<str>| match by_name.get(&**name) {
            Some(topic) => view(name, topic, &by_id, &self.who),
            None => TopicView {
                name: Arc::clone(name),
                id: None,
                partitions: Err(Fault::Broken {
                    call: "Metadata",
                    why: format!("the answer of broker {broker} lacks topic {name}"),
                }),
            },
        };
        Ok(ClusterView { topics: topics.iter().map(view).collect(), brokers: brokers.clone() })
    }
}

fn view(name: &Arc<str>, topic: &MetadataResponseTopic, brokers: &HashMap<i32, &String>, who: &Principal) -> TopicView {
    let partitions = match topic.error_code {
        0 => {
            let mut partitions: Vec<PartitionView> = topic
                .partitions
                .iter()
                .map(|partition| PartitionView {
                    partition: partition.partition_index,
                    leader: brokers.get(&partition.leader_id.0).map(|&address| address.clone()),
                })
                .collect();
            partitions.sort_by_key(|partition| partition.partition);
            Ok(partitions)
        }
        UNKNOWN_TOPIC => Err(Fault::TopicMissing { topic: name.to_string() }),
        code => Err(refused(who, "Metadata", Resource::topic(name), code)),
    };
    TopicView { name: Arc::clone(name), id: TopicId::new(topic.topic_id.into_bytes()), partitions }
}

pub(super) fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The shape of MetadataResponse (Kafka's `MetadataResponse.json`), versions 4 to 12.
fn shape(version: i16) -> Vec<Shape> {
    let flexible = version >= 9;
    let text = || if flexible { Shape::CompactText } else { Shape::Text };
    let array = |element: Vec<Shape>| if flexible { Shape::CompactArray(element) } else { Shape::Array(element) };
    let tags = || if flexible { vec![Shape::Tags] } else { vec![] };
    let from = |first: i16, size: usize| Shape::Fixed(if version >= first { size } else { 0 });
    let numbers = || array(vec![Shape::Fixed(4)]);

    // node id; host; port; rack
    let broker = [vec![Shape::Fixed(4), text(), Shape::Fixed(4), text()], tags()].concat();
    // error, index, leader; leader epoch; replicas, in sync, offline (from 5 on)
    let mut partition = vec![Shape::Fixed(10), from(7, 4), numbers(), numbers()];
    if version >= 5 {
        partition.push(numbers());
    }
    let partition = [partition, tags()].concat();
    // error; name; id; is internal; partitions; authorized operations
    let topic =
        [vec![Shape::Fixed(2), text(), from(10, 16), Shape::Fixed(1), array(partition), from(8, 4)], tags()].concat();
    // throttle time; brokers; cluster id; controller; topics; authorized operations (8 to 10)
    let operations = Shape::Fixed(if (8..=10).contains(&version) { 4 } else { 0 });
    [vec![Shape::Fixed(4), array(broker), text(), Shape::Fixed(4), array(topic), operations], tags()].concat()
}
