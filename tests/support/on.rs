//! The matrix of clients and brokers: one test, run on each of them.
//!
//! A test that is written as `fn name(on: On)` and listed in [`on_each!`](crate::on_each) runs as
//! `kafka_3_9::name`, `librdkafka_3_9::name` and `librdkafka_4_1::name`; one that is written as
//! `fn name(version: Version)` and listed in [`on_brokers!`](crate::on_brokers) as `broker_3_9::name` and
//! `broker_4_1::name`. On the embedded broker, one that is written as `fn name(client: Library)` and listed in
//! [`for_clients!`](crate::for_clients) runs as `kafka::name` and `librdkafka::name`. A test that is not listed is dead code, which the compiler reports.

use std::ops::Deref;

use super::kafka::Kafka;
use super::kafka::install::Version;
use super::worker::Config;

/// Which client reads from which Kafka.
#[derive(Clone, Copy, Debug)]
pub struct On {
    /// The broker's.
    pub version: Version,
    /// As `kafka.client` names it.
    pub client: &'static str,
}

impl On {
    pub const KAFKA_3_9: Self = Self { version: Version::V3, client: "kafka" };
    #[cfg(feature = "librdkafka")]
    pub const LIBRDKAFKA_3_9: Self = Self { version: Version::V3, client: "librdkafka" };
    #[cfg(feature = "librdkafka")]
    pub const LIBRDKAFKA_4_1: Self = Self { version: Version::V4, client: "librdkafka" };

    /// Whether it is the client over the crate `kafka`: by Fetch 0 it sees aborted transactions, and can't read
    /// lz4, zstd, and what the broker does not convert.
    pub fn is_old(self) -> bool {
        self.client == "kafka"
    }

    /// See [`Version::member`].
    pub fn member(self) -> &'static str {
        self.version.member()
    }

    /// The node that all tests share.
    pub fn shared(self) -> Stand {
        Stand { on: self, kafka: Place::Shared(Kafka::shared_of(self.version)) }
    }

    /// A node of one's own; see [`Kafka::node`].
    pub fn node(self, overrides: &[(&str, &str)]) -> Stand {
        Stand { on: self, kafka: Place::Own(Kafka::node_of(self.version, overrides)) }
    }

    /// Several nodes of one's own; see [`Kafka::cluster`].
    pub fn cluster(self, nodes: usize) -> Stand {
        Stand { on: self, kafka: Place::Own(Kafka::cluster_of(self.version, nodes)) }
    }
}

/// A Kafka whose configurations name the client.
pub struct Stand {
    on: On,
    kafka: Place,
}

enum Place {
    Shared(&'static Kafka),
    Own(Kafka),
}

impl Stand {
    /// As [`Kafka::config`].
    pub fn config(&self, group: &str, topics: &[&str]) -> Config {
        (**self).config(group, topics).set("kafka", "client", format!("'{}'", self.on.client))
    }
}

impl Deref for Stand {
    type Target = Kafka;

    fn deref(&self) -> &Kafka {
        match &self.kafka {
            Place::Shared(kafka) => kafka,
            Place::Own(kafka) => kafka,
        }
    }
}

/// See the module's text. The one place that says which clients are tested.
#[macro_export]
macro_rules! on_each {
    ($($name:ident),+ $(,)?) => {
        mod kafka_3_9 {
            $($crate::on_each!(@ KAFKA_3_9, $name);)+
        }
        #[cfg(feature = "librdkafka")]
        mod librdkafka_3_9 {
            $($crate::on_each!(@ LIBRDKAFKA_3_9, $name);)+
        }
        #[cfg(feature = "librdkafka")]
        mod librdkafka_4_1 {
            $($crate::on_each!(@ LIBRDKAFKA_4_1, $name);)+
        }
    };
    (@ $on:ident, $name:ident) => {
        #[test]
        fn $name() {
            let on = $crate::support::on::On::$on;
            $crate::kafka_or_skip!(on.version, ());
            super::$name(on);
        }
    };
}

/// See the module's text.
#[macro_export]
macro_rules! on_brokers {
    ($($name:ident),+ $(,)?) => {
        mod broker_3_9 {
            $($crate::on_brokers!(@ V3 $name);)+
        }
        mod broker_4_1 {
            $($crate::on_brokers!(@ V4 $name);)+
        }
    };
    (@ $version:ident $name:ident) => {
        #[test]
        fn $name() {
            let version = $crate::support::kafka::install::Version::$version;
            $crate::kafka_or_skip!(version, ());
            super::$name(version);
        }
    };
}

/// See the module's text.
#[macro_export]
macro_rules! for_clients {
    ($($name:ident),+ $(,)?) => {
        mod kafka {
            $(#[test] fn $name() { super::$name(worker::client::reading::Library::Kafka); })+
        }
        #[cfg(feature = "librdkafka")]
        mod librdkafka {
            $(#[test] fn $name() { super::$name(worker::client::reading::Library::Librdkafka); })+
        }
    };
}
