//! Which library reads a topic, and what the readers have to tell.
//!
//! With `kafka.client = "auto"` a topic begins with the first library that can read it, as far as that is
//! known then, and goes over to librdkafka at its position when the crate `kafka` meets what it can't read.
//! It does not come back: what it met once is there for others of its group as well.

use super::*;
use crate::client::kafka::KafkaReader;
use crate::client::reading::HAS_LIBRDKAFKA;

impl AssignedClient {
    pub(super) fn reader_of(&mut self, partition: &TopicPartition) -> Option<&mut Box<dyn Reader>> {
        let library = self.libraries.get(&partition.topic)?;
        self.readers.get_mut(library)
    }

    pub(super) fn state_of(&self, partition: &TopicPartition) -> Option<crate::client::reader::PartState> {
        self.readers.get(self.libraries.get(&partition.topic)?)?.state(partition)
    }

    /// Takes a partition of a topic in, whose reader is decided if it is the first one.
    pub(super) fn hold(&mut self, partition: &TopicPartition, old_fetch: &Result<(), Fault>) {
        let library = match self.libraries.get(&partition.topic) {
            Some(library) => *library,
            None => {
                let library = self.first_library(&partition.topic, old_fetch);
                self.libraries.insert(Arc::clone(&partition.topic), library);
                library
            }
        };
        self.parts.insert(partition.clone());
        self.reader(library).add(partition);
    }

    fn may_change(&self) -> bool {
        self.reading.library.is_none() && HAS_LIBRDKAFKA
    }

    fn first_library(&self, topic: &str, old_fetch: &Result<(), Fault>) -> Library {
        let why = match old_fetch {
            Err(fault) => fault.in_short(),
            Ok(()) if !self.connection.security.is_plain() => {
                format!("the brokers' listeners are {}", self.connection.security.protocol())
            }
            Ok(()) => return self.reading.library.unwrap_or(Library::Kafka),
        };
        if !self.may_change() {
            return self.reading.library.unwrap_or(Library::Kafka);
        }
        log::debug!("reading with librdkafka topic={topic} group_id={} reason=\"{why}\"", self.group);
        Library::Librdkafka
    }

    fn reader(&mut self, library: Library) -> &mut Box<dyn Reader> {
        let may_change = self.may_change();
        let Self { readers, name, connection, settings, ready, held, .. } = self;
        #[cfg(feature = "librdkafka")]
        let group = &self.group;
        readers.entry(library).or_insert_with(|| match library {
            #[cfg(feature = "librdkafka")]
            Library::Librdkafka => Box::new(crate::client::librdkafka::LibrdkafkaReader::new(
                name,
                group,
                Arc::clone(connection),
                Arc::clone(settings),
                ready.0.clone(),
                held.clone(),
            )),
            // Without the feature the configuration has refused the other one.
            _ => Box::new(KafkaReader::new(
                name,
                Arc::clone(connection),
                Arc::clone(settings),
                ready.0.clone(),
                held.clone(),
                may_change,
            )),
        })
    }

    /// Takes what the readers have to tell.
    pub(super) fn take_told(&mut self, now: Instant) {
        let (mut events, mut links, mut soon) = (Vec::new(), Vec::new(), false);
        for (library, reader) in &mut self.readers {
            let told = reader.told();
            events.extend(told.events.drain(..));
            links.extend(told.links.drain(..).map(|(link, state)| (*library, link, state)));
            soon |= std::mem::take(&mut told.survey_soon);
        }
        for event in events {
            match &event {
                Event::Failing(partition, fault) if self.goes_over(partition, fault) => {
                    let (topic, why) = (Arc::clone(&partition.topic), fault.in_short());
                    self.go_over(&topic, &why, now);
                }
                _ => self.events.push_back(event),
            }
        }
        for (library, link, state) in links {
            match state {
                Ok(()) => self.well(&Place::Reader(library, link)),
                Err(fault @ Fault::TooNew { .. }) if self.may_change() => self.all_go_over(&fault, now),
                Err(fault) => self.trouble(Place::Reader(library, link), fault),
            }
        }
        if soon {
            self.survey_soon(now);
        }
    }

    fn goes_over(&self, partition: &TopicPartition, fault: &Fault) -> bool {
        let with_kafka = self.libraries.get(&partition.topic) == Some(&Library::Kafka);
        with_kafka && self.may_change() && matches!(fault, Fault::Unreadable { .. })
    }

    fn all_go_over(&mut self, fault: &Fault, now: Instant) {
        let with_kafka = self.libraries.iter().filter(|(_, library)| **library == Library::Kafka);
        let topics: Vec<Arc<str>> = with_kafka.map(|(topic, _)| Arc::clone(topic)).collect();
        let why = fault.in_short();
        topics.iter().for_each(|topic| self.go_over(topic, &why, now));
    }

    /// Everything of the topic goes to librdkafka, each partition at its position.
    fn go_over(&mut self, topic: &Arc<str>, why: &str, now: Instant) {
        if self.libraries.insert(Arc::clone(topic), Library::Librdkafka) == Some(Library::Librdkafka) {
            return;
        }
        log::info!(
            "reading with librdkafka from now on topic={topic} group_id={} reason=\"{why}\" meaning=\"it goes on at \
             the same positions; of transactions only what was committed is delivered, unless isolation_level says otherwise\"",
            self.group
        );
        let of_topic: Vec<TopicPartition> = self.parts.iter().filter(|part| part.topic == *topic).cloned().collect();
        let Some(old) = self.readers.get_mut(&Library::Kafka) else { return };
        let mut positions = Vec::new();
        for partition in of_topic {
            let state = old.state(&partition);
            old.remove(&partition);
            if state.is_some_and(|state| state.is_told_failing) {
                self.events.push_back(Event::Recovered(partition.clone()));
            }
            positions.push((partition, state.and_then(|state| state.position)));
        }
        let new = self.reader(Library::Librdkafka);
        for (partition, position) in positions {
            new.add(&partition);
            if let Some(position) = position {
                new.seek(&partition, position);
            }
        }
        self.tidy(now);
    }

    /// A reader that nobody needs any more is closed; the others learn who leads their partitions.
    pub(super) fn tidy(&mut self, now: Instant) {
        let used: BTreeSet<Library> =
            self.parts.iter().filter_map(|part| self.libraries.get(&part.topic).copied()).collect();
        let idle: Vec<Library> = self.readers.keys().filter(|library| !used.contains(library)).copied().collect();
        for library in idle {
            self.readers.remove(&library);
            let gone: Vec<Place> = self
                .troubled
                .places()
                .filter(|place| matches!(place, Place::Reader(of, _) if *of == library))
                .cloned()
                .collect();
            gone.iter().for_each(|place| self.well(place));
        }
        let Self { readers, leaders, .. } = self;
        readers.values_mut().for_each(|reader| reader.leaders(leaders, now));
    }
}
