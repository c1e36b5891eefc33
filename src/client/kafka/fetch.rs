//! Fetching: one link a broker, and what is asked over it.

use super::answer::{Payment, run};
use super::choose::is_oversized;
use super::data::{Ask, Data, Failed, Fetched};
use super::fault::{Meaning, meaning, no_down_conversion};
use super::partition::{Step, Why};
use super::*;
use crate::client::{Bounds, Principal, Resource};
use crate::memory::Loan;
use crate::wire::Header;
use kafka::error::KafkaCode;
use std::collections::VecDeque;

/// What was asked over a link, to know its answer by.
pub(super) enum Asked {
    /// `loan`: what the reserve lends for it, until the call takes it along.
    Records {
        parts: Vec<AskedPart>,
        loan: Option<Loan>,
    },
    Header(AskedPart),
    Bounds(AskedPart),
}

/// One partition's part of a question.
pub(super) struct AskedPart {
    pub(super) name: TopicPartition,
    pub(super) epoch: u64,
    pub(super) position: Offset,
    pub(super) bytes: usize,
    /// Memory set aside for the answer, in bytes.
    pub(super) reserved: usize,
}

/// What a data link's call returns.
pub(super) enum DataReply {
    /// With the loan that pays for the answer, if there is one.
    Records(Result<(Fetched, Option<Loan>), Failed>),
    Header(Result<Header, Fault>),
    Bounds(Result<Bounds, Fault>),
}

/// A link to one broker.
pub(super) struct DataLink {
    link: Link<Data, DataReply>,
    /// What is under way.
    asked: Option<Asked>,
    /// The partition, by its place in the list, to begin the next round with.
    pub(super) turn: usize,
    /// What was asked last concerned one partition alone.
    pub(super) last_was_own: bool,
    pub(super) not_before: Option<Instant>,
    /// It did not answer in time: before the next fetch it has to answer a small question.
    pub(super) hung: bool,
    /// It was told to be in trouble.
    troubled: bool,
    backoff: Backoff,
}

impl DataLink {
    fn reserved(&self) -> usize {
        match &self.asked {
            Some(Asked::Records { parts, .. }) => parts.iter().map(|part| part.reserved).sum(),
            _ => 0,
        }
    }
}

impl KafkaReader {
    /// When a data link wants attention: a deadline, or the end of a wait.
    pub(super) fn data_wakes(&self) -> impl Iterator<Item = Instant> + '_ {
        let deadlines = self.data.values().filter_map(|data| data.link.deadline());
        let waits = self.parts.iter().filter(|part| part.position.is_some()).filter_map(|part| {
            let data = self.data.get(part.leader.as_ref()?)?;
            if data.link.is_busy() { None } else { part.not_before.max(data.not_before) }
        });
        deadlines.chain(waits)
    }

    /// What is under way on the data links.
    pub(super) fn data_calls(&self) -> impl Iterator<Item = Call> + '_ {
        self.data.values().filter_map(|data| data.link.call())
    }

    pub(super) fn collect_data(&mut self, now: Instant) {
        let brokers: Vec<String> = self.data.keys().cloned().collect();
        for broker in brokers {
            let Some(data) = self.data.get_mut(&broker) else { continue };
            let call = data.link.call();
            let Some(reply) = data.link.reply(now) else { continue };
            if let (Some(call), Ok(DataReply::Records(Ok(_)))) = (call, &reply) {
                self.settings.times.observe(now.saturating_duration_since(call.since));
            }
            if let Some(asked) = data.asked.take() {
                self.answered(&broker, reply, asked, now);
            }
        }
    }

    fn answered(&mut self, broker: &str, reply: Result<DataReply, Fault>, asked: Asked, now: Instant) {
        match (reply, asked) {
            (Ok(DataReply::Records(Ok((fetched, loan)))), Asked::Records { parts, .. }) => {
                self.link_well(broker);
                self.fetched(&fetched, loan, &parts, now);
            }
            (Ok(DataReply::Records(Err(Failed::Undecodable(why)))), Asked::Records { parts, .. }) => {
                log::debug!("answer undecodable broker={broker} partitions={} reason=\"{why}\"", parts.len());
                self.link_well(broker);
                for asked in &parts {
                    self.with_part(asked, |part, events| part.undecodable(now, events));
                }
            }
            (Ok(DataReply::Header(Ok(header))), Asked::Header(asked)) => {
                self.link_well(broker);
                self.header(&header, &asked, now);
            }
            (Ok(DataReply::Bounds(Ok(bounds))), Asked::Bounds(asked)) => {
                self.link_well(broker);
                self.with_part(&asked, |part, events| part.bounds(bounds, now, events));
            }
            (
                Ok(DataReply::Header(Err(fault)) | DataReply::Bounds(Err(fault))),
                Asked::Header(asked) | Asked::Bounds(asked),
            ) => {
                let whole = matches!(fault, Fault::Silent { .. } | Fault::Unreachable { .. } | Fault::Broken { .. });
                if whole && self.data.get(broker).is_some_and(|data| data.hung) {
                    return self.link_failed(broker, fault, now);
                }
                if matches!(fault, Fault::Refused { .. } | Fault::NoLeader) {
                    self.told.survey_soon = true;
                }
                self.with_part(&asked, |part, events| part.fail(fault, now, events));
            }
            (Err(Fault::Deadline { call, after_ms }), _) => {
                self.link_failed(broker, Fault::Silent { broker: broker.to_owned(), call, after_ms }, now);
            }
            (Ok(DataReply::Records(Err(Failed::Fault(fault)))) | Err(fault), _) => self.link_failed(broker, fault, now),
            (Ok(_), _) => self.link_failed(broker, Fault::Broken { call: "Fetch", why: "mixed up".to_owned() }, now),
        }
    }

    fn link_well(&mut self, broker: &str) {
        if let Some(data) = self.data.get_mut(broker) {
            data.not_before = None;
            data.hung = false;
            data.backoff.reset();
        }
        if self.data.get_mut(broker).is_some_and(|data| std::mem::take(&mut data.troubled)) {
            self.told.well(broker);
        }
    }

    fn link_failed(&mut self, broker: &str, fault: Fault, now: Instant) {
        if let Some(data) = self.data.get_mut(broker) {
            data.link.replace();
            data.asked = None;
            data.not_before = Some(now + data.backoff.next_wait());
            data.hung |= matches!(fault, Fault::Silent { .. });
            data.troubled = true;
        }
        // A broker that may be gone has to answer a small question before anything is borrowed for it.
        for part in self.parts.iter_mut().filter(|part| part.leader.as_deref() == Some(broker)) {
            if is_oversized(part, self.settings.memory) {
                part.step = Step::Header(Why::Suspicion);
            }
        }
        // Its partitions may have another leader by now.
        self.told.survey_soon = true;
        self.told.trouble(broker, fault);
    }

    /// Runs `act` on the partition, if it still is where it was when it was asked.
    fn with_part(&mut self, asked: &AskedPart, act: impl FnOnce(&mut Partition, &mut VecDeque<Event>)) {
        let same = |part: &&mut Partition| {
            part.name == asked.name && part.epoch == asked.epoch && part.position == Some(asked.position)
        };
        if let Some(part) = self.parts.iter_mut().find(same) {
            act(part, &mut self.told.events);
        }
    }

    fn fetched(&mut self, fetched: &Fetched, mut loan: Option<Loan>, asked: &[AskedPart], now: Instant) {
        let held = self.held.answer();
        if !fetched.moved.is_empty() {
            self.told.survey_soon = true;
        }
        for asked in asked {
            let found = fetched.response.as_ref().and_then(|response| {
                let topic = response.topics().iter().position(|t| *t.topic() == *asked.name.topic)?;
                let parts = response.topics()[topic].partitions();
                Some((response, topic, parts.iter().position(|p| p.partition() == asked.name.partition)?))
            });
            let Some((response, topic, index)) = found else {
                // Throttled, or not led by this broker: no answer, and no proof of anything.
                self.with_part(asked, |part, events| part.unanswered(now, events));
                continue;
            };
            match response.topics()[topic].partitions()[index].data() {
                Ok(data) => {
                    let end = Offset::new(data.highwatermark_offset());
                    // What is borrowed is borrowed for one partition alone.
                    let payment = Payment { held: Arc::clone(&held), loan: loan.take() };
                    let run = run(response, topic, index, asked.position, asked.bytes, payment);
                    self.with_part(asked, |part, events| part.answered(asked.bytes, run, end, now, events));
                }
                Err(error) => self.refused(asked, &error, now),
            }
        }
    }

    fn refused(&mut self, asked: &AskedPart, error: &kafka::Error, now: Instant) {
        let code = match meaning("Fetch", "the broker", error) {
            Meaning::Code(code) => code,
            Meaning::Undecodable(_) => {
                return self.with_part(asked, |part, events| part.undecodable(now, events));
            }
            Meaning::Broken(fault) => return self.with_part(asked, |part, events| part.fail(fault, now, events)),
        };
        match code {
            KafkaCode::OffsetOutOfRange => self.with_part(asked, |part, _| part.step = Step::Bounds),
            // Every code above 35 becomes Unknown in the crate; the one for a codec that old
            // fetches can't have is 76, and the header tells.
            KafkaCode::Unknown => self.with_part(asked, |part, events| {
                part.fail(
                    Fault::Refused { call: "Fetch", code: "a code that this client does not know".to_owned() },
                    now,
                    events,
                );
                part.step = Step::Header(Why::Undecodable);
            }),
            KafkaCode::UnsupportedVersion => self.with_part(asked, |part, events| {
                part.fail(no_down_conversion(asked.position), now, events);
                part.step = Step::Fetch;
            }),
            code => {
                self.told.survey_soon = true;
                let name = format!("{code:?}");
                let fault = match code {
                    KafkaCode::TopicAuthorizationFailed => {
                        // It reads from PLAINTEXT listeners only.
                        let (what, who) = (Resource::topic(&asked.name.topic), Principal::Anonymous);
                        Fault::unauthorized("Fetch", what, name, who)
                    }
                    _ => Fault::Refused { call: "Fetch", code: name },
                };
                self.with_part(asked, |part, events| part.fail(fault, now, events));
            }
        }
    }

    fn header(&mut self, header: &Header, asked: &AskedPart, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let limits = [
            (settings.max_partition_bytes, "max_partition_fetch_bytes"),
            (settings.max_bytes, "fetch_max_bytes"),
            (settings.memory.max(settings.reserve.bytes()), "memory.limit"),
        ];
        match header {
            Header::Batch(batch) => self.with_part(asked, |part, events| part.header(batch, &limits, now, events)),
            // What made us look is gone; the next fetch will tell.
            Header::Nothing { .. } => self.with_part(asked, |part, _| {
                part.step = Step::Fetch;
                part.retry(now);
            }),
            Header::Inconclusive { .. } => self.with_part(asked, |part, _| part.retry(now)),
            Header::OutOfRange => self.with_part(asked, |part, _| part.step = Step::Bounds),
            Header::Refused(fault) => {
                self.told.survey_soon = true;
                let fault = fault.clone();
                self.with_part(asked, |part, events| {
                    part.step = Step::Fetch;
                    part.fail(fault, now, events);
                });
            }
        }
    }

    /// Starts a call on each idle link whose partitions want something.
    pub(super) fn start_data(&mut self, room: Room, now: Instant) {
        let queued = queued_bytes(&self.told.events);
        let held: usize = self.parts.iter().map(Partition::held_bytes).sum();
        let reserved: usize = self.data.values().map(DataLink::reserved).sum();
        // An answer stays as a whole until the last of its records is done, and those of one topic may
        // be done long before those of another: so what is there counts as well as what is not done.
        let free = room.bytes.saturating_sub(queued + held);
        let mut free = free.min(self.settings.memory.saturating_sub(self.held.bytes())).saturating_sub(reserved);
        // All of the share is free: then even the largest answer may be asked for.
        let all_free = free >= self.settings.memory;
        self.stand_in_line(free, now);
        let leaders: BTreeSet<String> = self.parts.iter().filter_map(|part| part.leader.clone()).collect();
        for broker in leaders {
            if !self.data.contains_key(&broker) {
                let link = self.new_data_link(&broker);
                self.data.insert(broker.clone(), link);
            }
            let Some(data) = self.data.get(&broker) else { continue };
            if data.link.is_busy() || data.not_before.is_some_and(|at| at > now) {
                continue;
            }
            let before = free;
            let asked = self.choose(&broker, &mut free, all_free, room, now);
            if let Some(asked) = asked
                && let Err(fault) = self.ask(&broker, asked, before, now)
            {
                self.link_failed(&broker, fault, now);
            }
        }
    }

    fn new_data_link(&self, broker: &str) -> DataLink {
        let (connection, settings, address) =
            (Arc::clone(&self.connection), Arc::clone(&self.settings), broker.to_owned());
        let make = move || Data::new(Arc::clone(&connection), Arc::clone(&settings), address.clone());
        DataLink {
            link: Link::new(format!("link:{}/{broker}", self.name), self.ready.clone(), make),
            asked: None,
            turn: 0,
            last_was_own: false,
            not_before: None,
            hung: false,
            troubled: false,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
        }
    }

    fn ask(&mut self, broker: &str, mut asked: Asked, free: usize, now: Instant) -> Result<(), Fault> {
        let timeout = self.connection.request_timeout;
        let wait = match &asked {
            // It is there, and everybody waits for what it borrows.
            Asked::Records { loan: Some(_), .. } => Duration::ZERO,
            _ => self.may_wait(broker, free, now),
        };
        let Some(data) = self.data.get_mut(broker) else { return Ok(()) };
        match &mut asked {
            Asked::Records { parts, loan } => {
                let asks: Vec<Ask> = parts
                    .iter()
                    .map(|p| Ask { partition: p.name.clone(), position: p.position, max_bytes: p.bytes })
                    .collect();
                let loan = loan.take();
                let call = move |session: &mut Data| {
                    DataReply::Records(session.fetch(&asks, wait).map(|fetched| (fetched, loan)))
                };
                data.link.start("Fetch", timeout + wait, now, call)?;
            }
            Asked::Header(part) => {
                let (name, position) = (part.name.clone(), part.position);
                let call = move |session: &mut Data| DataReply::Header(session.header(&name, position));
                data.link.start("Fetch (batch header)", timeout + SLACK, now, call)?;
            }
            Asked::Bounds(part) => {
                let name = part.name.clone();
                let call = move |session: &mut Data| DataReply::Bounds(session.bounds(&name));
                data.link.start("ListOffsets", timeout + SLACK, now, call)?;
            }
        }
        data.asked = Some(asked);
        Ok(())
    }
}
