//! One consumer: the thread that drives a client by what its core decides.
//!
//! Owns the client, the core, and the receiving end of the acks; touches no sink. It waits in one
//! place, and what can wake it stands there: the client, an ack, the end of the process, a time.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, never, select};

use crate::client::{Assignment, Client, Event, Fault};
use crate::record::{Records, TopicPartition};
use crate::state::Ledger;
use crate::ticket::{Ack, Ticket};

pub mod core;
pub mod part;
pub mod resolve;
pub mod schedule;
mod told;
pub mod tracker;

use core::{Action, Core, Input, Output, Settings};
use part::Part;
use told::Told;

/// Records on their way to a sink. The records are dropped before the ticket is: when the consumer
/// hears of the end, the memory is free again.
#[derive(Debug)]
pub struct Batch {
    /// Where they come from.
    pub partition: TopicPartition,
    /// The records.
    pub records: Records,
    /// To be told when they are delivered.
    pub ticket: Ticket,
}

/// Nothing is ever sent on it: that it is dropped is the message.
#[derive(Debug)]
pub enum Never {}

/// What a consumer tells its supervisor.
#[derive(Debug)]
pub enum Notice {
    /// The first position of every partition of the topic is committed, and it is being read.
    Started {
        /// The topic.
        topic: Arc<str>,
        /// Its group.
        group: String,
    },
    /// The topic does not exist at present.
    Missing {
        /// The topic.
        topic: Arc<str>,
    },
    /// These topics are not read yet.
    Waiting {
        /// The topics.
        topics: Vec<Arc<str>>,
        /// What keeps them; `None`: nothing that is known.
        why: Option<String>,
    },
}

/// The ends of the channels that a consumer holds, and what it shares with others.
#[derive(Clone)]
pub struct Ends {
    /// To the dispatcher: groups of batches of one topic, because each message may wake a thread.
    pub deliveries: Sender<Vec<Batch>>,
    /// Dropped at the other end when the process is to end.
    pub stop: Receiver<Never>,
    /// To the supervisor.
    pub notices: Sender<Notice>,
    /// Where it is noted what the group has.
    pub ledger: Arc<Ledger>,
}

/// What a partition's delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The partition.
    pub partition: TopicPartition,
    /// Records delivered and acknowledged.
    pub delivered: u64,
    /// Records given to a sink and not acknowledged: they are delivered again after a restart.
    pub in_flight: u64,
    /// Offsets that Kafka's retention took before they were read.
    pub expired: u64,
    /// Offsets that exist and were not read, by choice.
    pub reset: u64,
    /// What the group has, as far as this process knows.
    pub committed: Option<i64>,
}

/// Runs a consumer until `ends.stop` is dropped and what was in flight is done, or the drain's
/// deadline has passed. Returns what became of each partition.
pub fn run(settings: Settings, client: &mut dyn Client, ends: &Ends) -> Vec<Report> {
    let told = Told::new(&settings.group, settings.topics.iter().map(|(topic, _)| Arc::clone(topic)));
    let (acks_tx, acks) = bounded::<Vec<Ack>>(settings.batches);
    let mut driver =
        Driver { core: Core::new(settings), client, ends, acks: acks_tx, batches: Vec::new(), gone: false, told };
    let mut stop = ends.stop.clone();
    let mut heard: Vec<Ack> = Vec::new();
    loop {
        // The stop is looked at after the acks have come in, and told before them: what is given up
        // because of it is in flight at the end, and not to be read again.
        heard.extend(acks.try_iter().flatten());
        if driver.gone || matches!(stop.try_recv(), Err(TryRecvError::Disconnected)) {
            stop = never();
            driver.gone = false;
            driver.apply(Input::Stop);
        }
        for ack in heard.drain(..) {
            driver.apply(Input::Ack(ack));
        }
        let mut wait = None;
        let now = Instant::now();
        driver.told.remind(now);
        match driver.core.next(now) {
            Action::Done => break,
            Action::Commit(offsets) => {
                driver.client.commit(&offsets);
                driver.apply(Input::CommitSent);
            }
            Action::Poll { room, until } => match driver.client.poll(room) {
                Ok(Some(event)) => {
                    let notice = driver.told.event(&event, now);
                    driver.mention(notice);
                    enter(&event, &ends.ledger, driver.core.group());
                    driver.apply(Input::Event(event));
                }
                Ok(None) => wait = Some(until),
                Err(fault) => {
                    let notice = driver.told.fault(fault, now);
                    driver.mention(notice);
                }
            },
        }
        driver.hand_over();
        if let Some(until) = wait
            && !driver.gone
        {
            let until = [until, driver.client.wake(), driver.told.wake()].into_iter().flatten().min();
            let alarm = until.map_or_else(never, crossbeam_channel::at);
            select! {
                recv(driver.client.ready()) -> _ => {}
                recv(acks) -> group => heard.extend(group.into_iter().flatten()),
                recv(stop) -> _ => driver.gone = true,
                recv(alarm) -> _ => {}
            }
        }
    }
    driver.told.end(driver.core.parts());
    driver.core.parts().iter().map(report).collect()
}

/// Carries out what the core decides.
struct Driver<'a> {
    core: Core,
    client: &'a mut dyn Client,
    ends: &'a Ends,
    acks: Sender<Vec<Ack>>,
    /// To be handed over with one message; all of one topic.
    batches: Vec<Batch>,
    /// Nobody is left to deliver to: that is the supervisor's to see, and nothing can be done here.
    gone: bool,
    told: Told,
}

impl Driver<'_> {
    /// Tells the core, and carries out what follows before anything else happens: a client that is
    /// polled before it was told to seek would bring records of the place that was left.
    fn apply(&mut self, input: Input) {
        for output in self.core.apply(input, Instant::now()) {
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Deliver(delivery) => {
                let topic = &delivery.partition.topic;
                if self.batches.last().is_some_and(|last| last.partition.topic != *topic) {
                    self.hand_over();
                }
                let ticket = Ticket::new(delivery.slot, delivery.seq, delivery.bytes, self.acks.clone());
                self.batches.push(Batch { partition: delivery.partition, records: delivery.records, ticket });
            }
            Output::Seek(partition, to) => self.client.seek(&partition, to),
            Output::Started(topic) => {
                self.told.started(&topic);
                self.tell(Notice::Started { topic, group: self.core.group().to_owned() });
            }
            Output::Missing(topic) => self.tell(Notice::Missing { topic }),
        }
    }

    /// Sends what was gathered. It waits only while the dispatcher's queue is full.
    fn hand_over(&mut self) {
        if !self.batches.is_empty() {
            self.gone |= self.ends.deliveries.send(std::mem::take(&mut self.batches)).is_err();
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.gone |= self.ends.notices.send(notice).is_err();
    }

    /// What is good to know, and nothing to wait for.
    fn mention(&self, notice: Option<Notice>) {
        if let Some(notice) = notice {
            let _ = self.ends.notices.try_send(notice);
        }
    }
}

/// Notes what has to be known after the group has forgotten it.
fn enter(event: &Event, ledger: &Ledger, group: &str) {
    match event {
        Event::TopicId(topic, id) => ledger.topic(group, topic, *id),
        Event::Committed(Ok(offsets)) => ledger.committed(group, offsets),
        Event::Lost(partitions) => ledger.lost(group, partitions),
        Event::Assigned(round) => {
            let has = |a: &Assignment| Some((a.partition.clone(), a.committed.filter(|_| !a.is_new)?));
            ledger.committed(group, &round.iter().filter_map(has).collect::<Vec<_>>());
        }
        Event::Missing(_)
        | Event::Span(_)
        | Event::OutOfRange { .. }
        | Event::Failing(..)
        | Event::Recovered(_)
        | Event::Connected
        | Event::Committed(Err(_))
        | Event::ReadBack(_) => {}
    }
}

fn report(part: &Part) -> Report {
    let (past, in_flight) = part.sums();
    Report {
        partition: part.partition.clone(),
        delivered: past.delivered,
        in_flight,
        expired: past.expired,
        reset: past.reset,
        committed: part.committed().map(crate::record::Offset::get),
    }
}
