//! What only a real Apache Kafka can say.

mod fixture;
