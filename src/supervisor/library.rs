//! Where the supervisor takes from what it does not make itself: clients, and a configuration at a reload.

use std::sync::Arc;

use crate::client::assigned::AssignedClient;
use crate::client::{Client, Cluster, Connection, KnownHosts, Remembered, control};
#[cfg(feature = "librdkafka")]
use crate::client::{Membership, librdkafka::member::GroupClient};
use crate::config::{Config, KafkaSettings, LoadError};
use crate::plan::ConsumerPlan;

/// Makes the client of a consumer, given what earlier runs have read.
pub type MakeClient = dyn Fn(&ConsumerPlan, &[Remembered]) -> Box<dyn Client> + Send + Sync;
/// Makes what is asked about the cluster.
pub type MakeCluster = dyn Fn(&KafkaSettings) -> Box<dyn Cluster> + Send + Sync;

/// Where clients come from: one a consumer, made on its thread, and one that asks about the cluster.
#[derive(Clone)]
pub struct Library {
    /// Makes the client of a consumer, given what earlier runs have read.
    pub client: Arc<MakeClient>,
    /// Makes what the observer asks.
    pub cluster: Arc<MakeCluster>,
}

impl Library {
    /// The clients of real clusters.
    pub fn real() -> Self {
        // Who has answered so far is known to all of them, whatever else they are told.
        let known = KnownHosts::default();
        let connect = move |kafka: &KafkaSettings| Arc::new(Connection { known: known.clone(), ..kafka.connection() });
        let connect_cluster = connect.clone();
        let client = move |plan: &ConsumerPlan, remembered: &[Remembered]| -> Box<dyn Client> {
            let topics = plan.settings.topics.iter().map(|(topic, _)| Arc::clone(topic)).collect();
            let (connection, fetch) = (connect(&plan.kafka), Arc::new(plan.fetch.clone()));
            let (name, group, reading) = (&plan.name, &plan.settings.group, plan.reading.clone());
            #[cfg(feature = "librdkafka")]
            if let Membership::Group { instance_id } = reading.membership {
                return Box::new(GroupClient::new(name, group, topics, connection, fetch, instance_id, remembered));
            }
            Box::new(AssignedClient::new(name, group, topics, connection, fetch, reading, remembered))
        };
        Self { client: Arc::new(client), cluster: Arc::new(move |kafka| control::cluster(connect_cluster(kafka))) }
    }
}

/// What a reload needs.
pub struct Source {
    /// Reads the configuration again.
    pub load: Box<dyn Fn() -> Result<Config, LoadError>>,
    /// The log's level is this from now on: a `log.level`.
    pub set_log_level: Box<dyn Fn(&str)>,
}
