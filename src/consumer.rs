//! One consumer: the thread that drives a client by what its core decides.
//!
//! Owns the client, the core, and the receiving end of the acks; touches no sink. It waits in one
//! place, and what can wake it stands there: the client, an ack, the end of the process, a time.
//!
//! A consumer that died, or hangs, is run again by the supervisor, with a client and a core of its own.
//! A run begins only when nothing that the earlier one handed over is still under way, so that budgets
//! hold and records of a partition stay in order; and a run that was given up ends, as soon as it moves
//! again, without delivering or committing anything more.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, never, select};

use crate::client::{Assignment, Client, Event, Fault, Loss};
use crate::progress::counts::Counts;
use crate::progress::{EVERY, Phase, Progress};
use crate::record::{Records, TopicPartition};
use crate::state::Ledger;
use crate::ticket::{Ack, AckReceiver, AckSender, Mark, Ticket};

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

/// The ends of the channels that a consumer holds, and what it shares with others. One for each run.
pub struct Ends {
    /// To the dispatcher: groups of batches of one topic, because each message may wake a thread.
    pub deliveries: Sender<Vec<Batch>>,
    /// Dropped at the other end when this consumer is to end: it drains.
    pub stop: Receiver<Never>,
    /// Dropped at the other end when this run is given up: another one takes its place.
    pub retired: Receiver<Never>,
    /// To the supervisor.
    pub notices: Sender<Notice>,
    /// Where it is noted what the group has.
    pub ledger: Arc<Ledger>,
    /// Where acks come back, as many as there may be batches in flight.
    pub acks: (AckSender, AckReceiver),
    /// What this run tells of itself.
    pub progress: Arc<Progress>,
}

/// What a run that has ended, or hangs, may have left in flight.
#[derive(Clone)]
pub struct Flight {
    /// Where the acks of what it handed over arrive.
    pub acks: Receiver<Vec<Ack>>,
    /// What it told of itself.
    pub progress: Arc<Progress>,
}

impl Flight {
    /// Waits until all of it is delivered or given up, and says so; `false`: one of the channels was dropped at
    /// its other end before that. `progress` is that of the run that waits. What was delivered meanwhile is
    /// delivered again.
    pub fn settle(&self, progress: &Progress, stop: &Receiver<Never>, retired: &Receiver<Never>) -> bool {
        progress.enter(Phase::Settling);
        let mut left = self.progress.batches();
        while left > 0 {
            if is_dropped(stop) || is_dropped(retired) {
                return false;
            }
            select! {
                recv(self.acks) -> group => match group {
                    Ok(group) => {
                        left = left.saturating_sub(group.len());
                        // The run itself takes no acks any more; the next one may have to go on here.
                        self.progress.set_batches(left);
                    }
                    // Neither a ticket nor the run itself is left.
                    Err(_) => break,
                },
                recv(stop) -> _ => {}
                recv(retired) -> _ => {}
            }
        }
        progress.enter(Phase::Working);
        true
    }
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
    let AckReceiver { acks, marks } = &ends.acks.1;
    let core = Core::new(settings);
    let counts = Arc::clone(ends.progress.counts());
    let mut driver = Driver {
        core,
        client,
        ends,
        batches: Vec::new(),
        gone: false,
        told,
        published: None,
        counts,
        committing: None,
    };
    let mut stop = ends.stop.clone();
    let (mut heard, mut marked): (Vec<Ack>, Vec<Mark>) = Default::default();
    loop {
        ends.progress.enter(Phase::Working);
        if is_dropped(&ends.retired) {
            break;
        }
        // The stop is looked at after the acks have come in, and told before them: what is given up
        // because of it is in flight at the end, and not to be read again.
        heard.extend(acks.try_iter().flatten());
        if driver.gone || is_dropped(&stop) {
            stop = never();
            driver.gone = false;
            driver.apply(Input::Stop);
        }
        for mark in marked.drain(..).chain(marks.try_iter()) {
            driver.apply(Input::Mark(mark));
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
                driver.committing = Some(now);
                driver.apply(Input::CommitSent);
            }
            Action::Release(partitions) => {
                driver.client.release(&partitions);
                driver.apply(Input::Released(partitions));
            }
            Action::Poll { room, until } => match driver.client.poll(room) {
                // Another run has taken over while the client was away: it reads the same records.
                _ if is_dropped(&ends.retired) => break,
                Ok(Some(event)) => {
                    let notice = driver.told.event(&event, now);
                    driver.mention(notice);
                    ends.progress.event(&event);
                    driver.count(&event);
                    enter(&event, &ends.ledger, driver.core.group());
                    driver.apply(Input::Event(event));
                }
                Ok(None) => wait = Some(until),
                Err(fault) => {
                    ends.progress.set_trouble(Some(&fault));
                    driver.counts.fail(fault.to_string());
                    let notice = driver.told.fault(fault, now);
                    driver.mention(notice);
                }
            },
        }
        driver.hand_over();
        let publish_at = driver.publish(wait.is_some());
        if let Some(until) = wait
            && !driver.gone
        {
            let until = [until, driver.client.wake(), driver.told.wake(), publish_at].into_iter().flatten().min();
            let alarm = until.map_or_else(never, crossbeam_channel::at);
            ends.progress.enter(Phase::Waiting);
            select! {
                recv(driver.client.ready()) -> _ => {}
                recv(acks) -> group => heard.extend(group.into_iter().flatten()),
                recv(marks) -> mark => marked.extend(mark),
                recv(stop) -> _ => driver.gone = true,
                recv(ends.retired) -> _ => {}
                recv(alarm) -> _ => {}
            }
        }
    }
    if !is_dropped(&ends.retired) {
        driver.told.end(driver.core.parts());
    }
    driver.core.parts().iter().map(report).collect()
}

/// Carries out what the core decides.
struct Driver<'a> {
    core: Core,
    client: &'a mut dyn Client,
    ends: &'a Ends,
    /// To be handed over with one message; all of one topic.
    batches: Vec<Batch>,
    /// Nobody is left to deliver to: that is the supervisor's to see, and nothing can be done here.
    gone: bool,
    told: Told,
    /// When it was last told how far it is, if anything happened since.
    published: Option<Published>,
    counts: Arc<Counts>,
    /// When the commit was sent that is under way.
    committing: Option<Instant>,
}

/// What was told last.
#[derive(Clone, Copy)]
struct Published {
    at: Instant,
    /// Nothing was done since.
    all: bool,
}

/// Tells how far it got also if the thread panics: the next run, and the last lines of the log, go by it.
impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.ends.progress.publish(self.core.parts(), false, None, Instant::now());
    }
}

fn is_dropped(channel: &Receiver<Never>) -> bool {
    matches!(channel.try_recv(), Err(TryRecvError::Disconnected))
}

impl Driver<'_> {
    /// Tells the core, and carries out what follows before anything else happens: a client that is
    /// polled before it was told to seek would bring records of the place that was left.
    fn apply(&mut self, input: Input) {
        for output in self.core.apply(input, Instant::now()) {
            self.carry_out(output);
        }
        self.ends.progress.set_batches(self.core.batches_in_flight());
        if let Some(published) = &mut self.published {
            published.all = false;
        }
    }

    /// Counts what an event says.
    fn count(&mut self, event: &Event) {
        match event {
            Event::Span(span) => {
                if let Some(counts) = self.counts.topic(&span.partition.topic) {
                    let offsets = span.offsets.end.since(span.offsets.start);
                    counts.absent.add(offsets.saturating_sub(span.records.len() as u64));
                }
            }
            Event::Committed(answer) => {
                let took = self.committing.take().map(|sent| sent.elapsed());
                match (answer, took) {
                    (Ok(_), Some(took)) => self.counts.commits.observe(took),
                    (Ok(_), None) => {}
                    (Err(fault), _) => {
                        self.counts.commit_failures.add(1);
                        self.counts.fail(format!("commit: {fault}"));
                    }
                }
            }
            Event::Failing(partition, fault) => self.counts.fail(format!("{partition}: {fault}")),
            Event::TopicId(..)
            | Event::Assigned(_)
            | Event::Missing(_)
            | Event::Unstarted(..)
            | Event::NoneHeld(_)
            | Event::OtherWorker(..)
            | Event::OutOfRange { .. }
            | Event::Recovered(_)
            | Event::Connected
            | Event::ReadBack(_)
            | Event::Lost(..)
            | Event::Revoking(_) => {}
        }
    }

    /// Tells how far it is, not too often. `waits`: nothing else is to be done. Returns when there will be
    /// something to tell, if nothing else happens.
    fn publish(&mut self, waits: bool) -> Option<Instant> {
        let now = Instant::now();
        let next = self.published.map(|last| last.at + EVERY);
        if next.is_some_and(|next| now < next) {
            return next.filter(|_| waits && self.published.is_some_and(|last| !last.all));
        }
        self.ends.progress.set_shared(self.core.shared());
        self.ends.progress.publish(self.core.parts(), self.core.is_full(), self.client.under_way(), now);
        self.published = Some(Published { at: now, all: true });
        None
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Deliver(delivery) => {
                let topic = &delivery.partition.topic;
                if self.batches.last().is_some_and(|last| last.partition.topic != *topic) {
                    self.hand_over();
                }
                if let Some(counts) = self.counts.topic(topic) {
                    counts.records.add(delivery.records.len() as u64);
                    counts.bytes.add(delivery.bytes as u64);
                    counts.batches.add(1);
                }
                let (records, acks) = (delivery.records.clone(), self.ends.acks.0.clone());
                let ticket = Ticket::new(delivery.slot, delivery.seq, delivery.bytes, records, acks);
                self.batches.push(Batch { partition: delivery.partition, records: delivery.records, ticket });
            }
            Output::Seek(partition, to) => self.client.seek(&partition, to),
            Output::Started(topic) => {
                self.told.started(&topic);
                self.tell(Notice::Started { topic, group: self.core.group().to_owned() });
            }
            Output::Missing(topic) => self.tell(Notice::Missing { topic }),
            Output::Stopped(partition, at, bounds) => self.told.stopped(partition, at, bounds, Instant::now()),
        }
    }

    /// Sends what was gathered. It waits only while the dispatcher's queue is full.
    fn hand_over(&mut self) {
        if !self.batches.is_empty() {
            self.ends.progress.enter(Phase::HandingOver);
            self.gone |= self.ends.deliveries.send(std::mem::take(&mut self.batches)).is_err();
            self.ends.progress.enter(Phase::Working);
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
        Event::Lost(partitions, Loss::TopicDeleted) => ledger.lost(group, partitions),
        Event::Assigned(round) => {
            let has = |a: &Assignment| Some((a.partition.clone(), a.committed.filter(|_| !a.is_new)?));
            ledger.committed(group, &round.iter().filter_map(has).collect::<Vec<_>>());
        }
        Event::Unstarted(..)
        | Event::NoneHeld(_)
        | Event::OtherWorker(..)
        | Event::Missing(_)
        | Event::Span(_)
        | Event::OutOfRange { .. }
        | Event::Failing(..)
        | Event::Recovered(_)
        | Event::Connected
        | Event::Committed(Err(_))
        | Event::Revoking(_)
        | Event::Lost(_, Loss::LeftGroup)
        | Event::ReadBack(_) => {}
    }
}

/// What the delivery of `part` has come to.
pub(crate) fn report(part: &Part) -> Report {
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
