//! The core against a simulated world: a log with holes and retention, a client, sinks that finish
//! out of order, give up or fail, a group that refuses commits, and a clock that jumps.
//!
//! Every seed is a run of its own. A failure names the seed; `WORKER_SIM_SEED=n` runs that one alone,
//! `WORKER_SIM_SEEDS=n` runs so many instead of ten thousand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use super::*;
use crate::client::{Fault, Loss};
use crate::record::{Arena, Record};

/// What a ticket does, without a channel: the world holds the open ones and acks them in any order.
struct Open {
    partition: usize,
    offsets: Vec<i64>,
    /// So many of them were said to be done.
    marked: usize,
    ack: Ack,
}

struct Offsets(Vec<i64>);

impl Arena for Offsets {
    fn record(&self, index: usize) -> Record<'_> {
        Record { offset: Offset::new(self.0[index]).unwrap(), ..Record::default() }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One partition of the simulated cluster, and what the run has seen of it.
struct Log {
    name: TopicPartition,
    start: i64,
    end: i64,
    holes: BTreeSet<i64>,
    assigned: bool,
    position: Option<i64>,
    /// The group's offset at the broker.
    committed: Option<i64>,
    /// It had one in this run.
    was_committed: bool,
    /// What it has is of an earlier run, or of a commit that had been given up: no commit since succeeded.
    old: bool,
    /// Acknowledged at least once.
    delivered: BTreeSet<i64>,
    /// The first position of the run; nothing below it is owed.
    first: Option<i64>,
    /// Where the place that is read began.
    slot: Option<i64>,
    /// What was jumped over, with a line in the log.
    excused: Vec<Range<i64>>,
    /// The next offset that a delivery may begin with.
    expected: Option<i64>,
    /// The group takes it away since then.
    revoked: Option<Instant>,
    /// It was another member's in between.
    was_away: bool,
}

impl Log {
    fn exists(&self, offset: i64) -> bool {
        !self.holes.contains(&offset)
    }
    fn owed(&self, below: i64) -> Option<i64> {
        let first = self.first?;
        (first..below).find(|o| {
            self.exists(*o) && !self.delivered.contains(o) && !self.excused.iter().any(|range| range.contains(o))
        })
    }
}

struct World {
    random: Random,
    logs: Vec<Log>,
    open: Vec<Open>,
    commit: Option<Vec<(TopicPartition, Offset)>>,
    /// A commit that was given up, and may still land.
    late: Vec<(TopicPartition, Offset)>,
    now: Instant,
    start: Instant,
    batches: usize,
    bytes: usize,
    span: usize,
    group: &'static str,
    trouble: bool,
    /// What `on_takeover_timeout` allows.
    proceed: bool,
    /// The group's partitions go from member to member.
    with_members: bool,
}

const POLICIES: [OnOutOfRange; 4] =
    [OnOutOfRange::AutoOffsetReset, OnOutOfRange::Earliest, OnOutOfRange::Latest, OnOutOfRange::Nearest];

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        random.below(2);
    }
    let reset = if random.one_in(2) { AutoOffsetReset::Latest } else { AutoOffsetReset::Earliest };
    let policy = POLICIES[random.below(4) as usize];
    let topics: Vec<Arc<str>> = vec!["a".into(), "b".into()];
    let max_poll_records = 1 + random.below(40) as usize;
    let takeover_timeout = Duration::from_millis(random.below(20_000));
    let proceed = random.one_in(2);
    let on_takeover_timeout = if proceed { OnTakeoverTimeout::Proceed } else { OnTakeoverTimeout::Wait };
    let settings = Settings {
        group: "g".to_owned(),
        topics: topics
            .iter()
            .map(|t| {
                (
                    Arc::clone(t),
                    Policy {
                        reset,
                        on_out_of_range: policy,
                        max_poll_records,
                        takeover_timeout,
                        on_takeover_timeout,
                        came_later: false,
                    },
                )
            })
            .collect(),
        pace: Pace {
            interval: Duration::from_millis(5000),
            batch_size: 1 + random.below(200),
            min_interval: Duration::from_millis(100),
            max_retries: random.below(4) as u32,
            retry_delay: Duration::from_millis(1 + random.below(1500)),
            max_uncommitted: if random.one_in(2) { 0 } else { 1 + random.below(300) },
        },
        drain_timeout: Duration::from_millis(10_000),
        batches: 1 + random.below(20) as usize,
        bytes: 1000,
    };
    let logs = topics.iter().flat_map(|topic| (0..2).map(|n| TopicPartition::new(Arc::clone(topic), n)));
    let logs = logs.map(|name| {
        let start = random.below(50) as i64;
        let end = start + random.below(500) as i64;
        let holes = (start..end + 2000).filter(|_| random.one_in(6)).collect();
        let committed = random.one_in(3).then(|| random.below(end as u64 + 40) as i64);
        Log {
            name,
            start,
            end,
            holes,
            assigned: false,
            position: None,
            committed,
            was_committed: committed.is_some(),
            old: true,
            delivered: BTreeSet::new(),
            first: None,
            slot: None,
            excused: Vec::new(),
            expected: None,
            revoked: None,
            was_away: false,
        }
    });
    let logs = logs.collect();
    let now = Instant::now();
    let (batches, bytes) = (settings.batches, settings.bytes);
    let mut core = Core::new(settings);
    let (trouble, with_members) = (random.one_in(4), random.one_in(2));
    let mut world = World {
        random,
        logs,
        open: Vec::new(),
        commit: None,
        late: Vec::new(),
        now,
        start: now,
        batches,
        bytes,
        span: 0,
        group: "g",
        trouble,
        proceed,
        with_members,
    };
    world.go(&mut core);
}

impl World {
    fn go(&mut self, core: &mut Core) {
        let stop_at = self.start + Duration::from_millis(2000 + self.random.below(60_000));
        let mut stopped = None;
        let mut late_commits = 0;
        for step in 0.. {
            assert!(step < 200_000, "stuck");
            self.broker_moves();
            if stopped.is_none() && self.random.one_in(40) {
                self.disturb_group(core);
            }
            if self.random.one_in(3) {
                self.finish_a_batch(core);
            }
            if self.random.one_in(6) {
                self.mark_a_batch(core);
            }
            if self.with_members && self.random.one_in(50) {
                self.rebalance(core);
            }
            if stopped.is_none() && self.now >= stop_at {
                stopped = Some(self.now);
                let out = core.apply(Input::Stop, self.now);
                assert!(out.is_empty(), "a stop delivers nothing");
            }
            match core.next(self.now) {
                Action::Done => break,
                Action::Commit(offsets) => {
                    let late = |at: Instant| self.now >= at + Duration::from_millis(10_000);
                    late_commits += i32::from(stopped.is_some_and(late));
                    assert!(late_commits <= 1, "one last commit is tried after the drain's deadline");
                    self.commit_sent(core, offsets);
                }
                Action::Release(partitions) => self.release(core, partitions),
                Action::Poll { room, until } => {
                    self.check_uncommitted(core, room);
                    self.poll(core, room, until, stopped.is_some());
                }
            }
            self.check_budget(core);
        }
        let stopped = stopped.expect("it ends only when it is asked to");
        let took = self.now.saturating_duration_since(stopped);
        assert!(took <= Duration::from_millis(10_000) + LAST_COMMIT + Duration::from_millis(1), "took {took:?}");
        self.check_end(core);
    }

    /// Producers write, retention deletes.
    fn broker_moves(&mut self) {
        let which = self.random.below(self.logs.len() as u64) as usize;
        let grow = if self.random.one_in(4) { self.random.below(20) as i64 } else { 0 };
        let expire = self.random.one_in(300);
        let log = &mut self.logs[which];
        log.end = (log.end + grow).min(log.start + 1500);
        if expire {
            let left = (log.end - log.start) as u64;
            log.start += self.random.below(left + 1) as i64;
        }
    }

    /// The group forgets an offset, a commit that was given up lands, somebody sets an offset back; and
    /// then the client looks at what the group has, as it does while no commit is under way.
    fn disturb_group(&mut self, core: &mut Core) {
        let unread = self.logs.iter().any(|log| log.assigned && log.position.is_none());
        if self.commit.is_some() || unread {
            return;
        }
        let which = self.random.below(self.logs.len() as u64) as usize;
        match self.random.below(4) {
            0 => self.logs[which].committed = None,
            1 => {
                for (name, at) in std::mem::take(&mut self.late) {
                    let log = self.logs.iter_mut().find(|log| log.name == name).unwrap();
                    (log.committed, log.old) = (Some(at.get()), true);
                }
            }
            2 => {
                let log = &mut self.logs[which];
                (log.committed, log.old) = (log.committed.map(|at| at - at.min(3)), true);
            }
            _ => {}
        }
        let read = self.logs.iter().filter(|log| log.position.is_some());
        let found = read.map(|log| (log.name.clone(), log.committed.and_then(Offset::new))).collect();
        let out = core.apply(Input::Event(Event::ReadBack(found)), self.now);
        self.carry_out(core, out);
        for log in self.logs.iter().filter(|log| log.position.is_some() && log.committed.is_none()) {
            let part = core.parts().iter().find(|part| part.partition == log.name).unwrap();
            let Place::Reading(tracker) = &part.place else { continue };
            assert!(tracker.committed().is_none() && core.dirty, "{}: it is committed again", log.name);
        }
    }

    /// The group takes a partition away, with notice or without.
    fn rebalance(&mut self, core: &mut Core) {
        let which = self.random.below(self.logs.len() as u64) as usize;
        if !self.logs[which].assigned || self.logs[which].revoked.is_some() {
            return;
        }
        let lost = self.random.one_in(3);
        let log = &mut self.logs[which];
        log.position = None;
        let names = vec![log.name.clone()];
        let event = if lost {
            Event::Lost(names, Loss::LeftGroup)
        } else {
            log.revoked = Some(self.now);
            Event::Revoking(names)
        };
        let out = core.apply(Input::Event(event), self.now);
        self.carry_out(core, out);
        if lost {
            self.another_member(which);
        }
    }

    fn release(&mut self, core: &mut Core, partitions: Vec<TopicPartition>) {
        for name in &partitions {
            let which = self.logs.iter().position(|log| log.name == *name).unwrap();
            let log = &self.logs[which];
            let since = log.revoked.expect("only what is taken away is let go");
            let took = self.now.saturating_duration_since(since);
            assert!(took <= Duration::from_millis(10_001), "{name} was let go after {took:?}");
            let part = core.parts().iter().find(|part| part.partition == *name).unwrap();
            if let Place::Reading(tracker) = &part.place
                && took < Duration::from_millis(10_000)
                && !log.old
            {
                assert_eq!(log.committed, Some(tracker.acknowledged().get()), "{name} was let go without a commit");
                assert_eq!(log.expected.map(|at| log.owed(at)), Some(None), "{name} was let go with records open");
            }
            self.another_member(which);
        }
        let out = core.apply(Input::Released(partitions), self.now);
        self.carry_out(core, out);
    }

    /// Another member has the partition, reads on from where the group is, and gives it back some time. What this one
    /// sends late is refused from now on.
    fn another_member(&mut self, which: usize) {
        let count = self.random.below(60) as i64;
        let log = &mut self.logs[which];
        (log.assigned, log.revoked, log.was_away) = (false, None, true);
        self.late.retain(|(name, _)| *name != log.name);
        if let Some(offsets) = &mut self.commit {
            offsets.retain(|(name, _)| *name != log.name);
        }
        match log.committed {
            Some(from) => {
                let to = from.max((from + count).min(log.end));
                let read: Vec<i64> = (from..to).filter(|o| log.exists(*o)).collect();
                log.delivered.extend(read);
                (log.committed, log.expected) = (Some(to), Some(to));
            }
            None => (log.first, log.expected) = (None, None),
        }
    }

    fn finish_a_batch(&mut self, core: &mut Core) {
        if self.open.is_empty() {
            return;
        }
        let which = self.random.below(self.open.len() as u64) as usize;
        let ok = !(self.trouble && self.random.one_in(20));
        let open = self.open.swap_remove(which);
        if ok {
            self.logs[open.partition].delivered.extend(&open.offsets);
        }
        let out = core.apply(Input::Ack(Ack { ok, ..open.ack }), self.now);
        self.carry_out(core, out);
    }

    /// Some more records of a batch that goes on are delivered for good; one in three times nobody hears of it.
    fn mark_a_batch(&mut self, core: &mut Core) {
        if self.open.is_empty() {
            return;
        }
        let which = self.random.below(self.open.len() as u64) as usize;
        let (more, is_lost) = (self.random.below(8) as usize, self.random.one_in(3));
        let open = &mut self.open[which];
        open.marked = (open.marked + more).min(open.offsets.len());
        let Some(last) = open.offsets[..open.marked].last() else { return };
        let below = open.offsets.get(open.marked).map_or(last + 1, |next| *next);
        self.logs[open.partition].delivered.extend(&open.offsets[..open.marked]);
        if !is_lost {
            let (Ack { slot, seq, .. }, records) = (open.ack, open.marked as u64);
            let mark = Mark { slot, seq, below: Offset::new(below).unwrap(), records };
            let out = core.apply(Input::Mark(mark), self.now);
            self.carry_out(core, out);
        }
    }

    fn commit_sent(&mut self, core: &mut Core, offsets: Vec<(TopicPartition, Offset)>) {
        assert!(self.commit.is_none(), "one commit at a time");
        assert!(!offsets.is_empty());
        for (name, offset) in &offsets {
            let log = self.logs.iter().find(|log| log.name == *name).unwrap();
            assert!(log.assigned, "{name}: a commit of what is another member's");
            let part = core.parts().iter().find(|part| part.partition == *name).unwrap();
            // Where a start is chosen anew, because the group has forgotten its offset while another member had
            // the partition, the jump is told and excused with the seek that follows.
            if !matches!(part.place, Place::Held(_)) {
                assert_eq!(log.owed(offset.get()), None, "{name}: {offset} would be committed over an open record");
            }
        }
        self.commit = Some(offsets);
        core.apply(Input::CommitSent, self.now);
    }

    fn poll(&mut self, core: &mut Core, room: Room, until: Option<Instant>, stopping: bool) {
        if self.commit.is_some() && self.random.one_in(3) {
            return self.answer_commit(core);
        }
        let which = self.random.below(self.logs.len() as u64) as usize;
        let event = if self.random.one_in(2) { self.client_event(which, room) } else { None };
        if let Some(event) = event {
            let out = core.apply(Input::Event(event), self.now);
            assert!(!stopping || out.is_empty(), "nothing begins while draining");
            return self.carry_out(core, out);
        }
        // Nothing to do: time passes, up to when the core wants to be asked again.
        let step = Duration::from_millis(1 + self.random.below(300));
        let wake = until.map_or(self.now + step, |until| until.max(self.now).min(self.now + step));
        self.now = wake.max(self.now + Duration::from_millis(1));
    }

    fn answer_commit(&mut self, core: &mut Core) {
        let offsets = self.commit.take().unwrap();
        let answer = if self.random.one_in(12) {
            self.late = offsets;
            Err(Fault::Deadline { call: "OffsetCommit", after_ms: 1 })
        } else if self.random.one_in(4) {
            Err(Fault::GroupHasMembers {
                group: self.group.to_owned(),
                code: "UnknownMemberId".to_owned(),
                members: Vec::new(),
            })
        } else {
            for (name, offset) in &offsets {
                let log = self.logs.iter_mut().find(|log| log.name == *name).unwrap();
                (log.committed, log.was_committed, log.old) = (Some(offset.get()), true, false);
            }
            Ok(offsets)
        };
        let out = core.apply(Input::Event(Event::Committed(answer)), self.now);
        self.carry_out(core, out);
    }

    fn client_event(&mut self, which: usize, room: Room) -> Option<Event> {
        let new_round = !self.logs[which].assigned;
        if new_round {
            return self.random.one_in(4).then(|| self.assign(which));
        }
        let count = 1 + self.random.below(60) as i64;
        let log = &mut self.logs[which];
        let position = log.position?;
        let bounds = Bounds { log_start: Offset::new(log.start).unwrap(), log_end: Offset::new(log.end).unwrap() };
        if position < log.start || position > log.end {
            log.position = None;
            let at = Offset::new(position).unwrap();
            return Some(Event::OutOfRange { partition: log.name.clone(), at, bounds });
        }
        let end = log.end.min(position + count);
        if end == position || room.bytes < 100 {
            return None;
        }
        let offsets: Vec<i64> = (position..end).filter(|o| log.exists(*o)).collect();
        log.position = Some(end);
        let bytes = offsets.len();
        self.span = self.span.max(bytes);
        let records = Records::new(Arc::new(Offsets(offsets.clone())), 0..offsets.len());
        Some(Event::Span(Span {
            partition: log.name.clone(),
            offsets: Offset::new(position).unwrap()..Offset::new(end).unwrap(),
            records,
            bytes,
            log_end: Some(bounds.log_end),
        }))
    }

    /// All partitions of a topic that are not assigned yet, or only one of them: the other comes later.
    fn assign(&mut self, which: usize) -> Event {
        let topic = Arc::clone(&self.logs[which].name.topic);
        let whole = !self.random.one_in(4);
        let seen = self.logs.iter().any(|log| log.name.topic == topic && log.assigned);
        let mut round = Vec::new();
        for (index, log) in self.logs.iter_mut().enumerate() {
            if log.name.topic == topic && !log.assigned && (whole || index == which) {
                log.assigned = true;
                let bounds =
                    Bounds { log_start: Offset::new(log.start).unwrap(), log_end: Offset::new(log.end).unwrap() };
                let committed = log.committed.and_then(Offset::new);
                if committed.is_none() || log.old {
                    // Nobody knows where it was, or the group has it from before this run: it starts anew, with a
                    // line that says so.
                    (log.first, log.expected) = (None, None);
                }
                round.push(Assignment {
                    partition: log.name.clone(),
                    committed,
                    bounds,
                    remembered: None,
                    is_new: seen && !log.was_away,
                });
            }
        }
        Event::Assigned(round)
    }

    fn carry_out(&mut self, core: &Core, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Seek(name, to) => {
                    let to = to.get();
                    let which = self.logs.iter().position(|log| log.name == name).unwrap();
                    let part = core.parts().iter().find(|part| part.partition == name).unwrap();
                    let log = &mut self.logs[which];
                    log.position = Some(to);
                    // A jump forward is excused, because it was told: the sums must know of it.
                    if let Some(expected) = log.expected.or(log.first)
                        && (expected..to).any(|offset| log.exists(offset))
                    {
                        log.excused.push(expected..to);
                        assert!(part.past.expired + part.past.reset > 0, "{name} jumped to {to} without a word");
                    }
                    log.first.get_or_insert(to);
                    log.slot = Some(to);
                    log.expected = Some(to);
                }
                Output::Deliver(delivery) => {
                    let which = self.logs.iter().position(|log| log.name == delivery.partition).unwrap();
                    let log = &mut self.logs[which];
                    assert!(log.was_committed || self.proceed, "nothing is delivered before a first commit");
                    let offsets: Vec<i64> = delivery.records.iter().map(|r| r.offset.get()).collect();
                    let expected = log.expected.expect("a seek comes before records");
                    let next = (expected..).find(|o| log.exists(*o)).unwrap();
                    assert_eq!(offsets.first(), Some(&next), "records come in order and without a gap");
                    let last = *offsets.last().unwrap();
                    assert!((next..=last).filter(|o| log.exists(*o)).eq(offsets.iter().copied()), "no gap inside");
                    log.expected = Some(last + 1);
                    let ack = Ack { slot: delivery.slot, seq: delivery.seq, bytes: delivery.bytes, ok: true };
                    self.open.push(Open { partition: which, offsets, marked: 0, ack });
                }
                Output::Started(_) | Output::Missing(_) | Output::Stopped(..) => {}
            }
        }
    }

    fn check_budget(&self, core: &Core) {
        assert!(self.open.len() <= self.batches, "{} batches in flight", self.open.len());
        assert_eq!(self.open.len(), core.batches_in_flight);
        let held = self.open.iter().map(|open| open.ack.bytes).chain(core.waiting.iter().map(|w| w.bytes));
        assert_eq!(held.sum::<usize>(), core.bytes_in_flight, "every byte is given back, once");
        assert!(core.bytes_in_flight <= self.bytes + self.span, "{} bytes in flight", core.bytes_in_flight);
    }

    /// What is committed by nobody is counted as the core counts it, and stops the fetching at the limit.
    fn check_uncommitted(&self, core: &Core, room: Room) {
        let limit = core.settings.pace.max_uncommitted;
        let of = |part: &Part| match &part.place {
            Place::Reading(tracker) if part.foreign.is_none() => {
                let log = self.logs.iter().find(|log| log.name == part.partition).unwrap();
                let from = tracker.committed().map_or(log.slot.unwrap_or(0), Offset::get);
                tracker.acknowledged().get() - from
            }
            _ => 0,
        };
        let uncommitted: i64 = core.parts().iter().map(of).sum();
        if limit > 0 && core.schedule.fails() && uncommitted as u64 >= limit {
            assert_eq!(room.bytes, 0, "{uncommitted} offsets are not committed, of {limit} that may be");
        }
    }

    fn check_end(&self, core: &Core) {
        for log in &self.logs {
            if let (Some(first), Some(committed)) = (log.first, log.committed)
                && committed > first
                && !log.old
            {
                assert_eq!(log.owed(committed), None, "{}: an open record is below {committed}", log.name);
            }
        }
        for part in core.parts() {
            if let Place::Reading(tracker) = &part.place
                && self.open.is_empty()
                && self.commit.is_none()
                && !self.trouble
            {
                let log = self.logs.iter().find(|log| log.name == part.partition).unwrap();
                // Whatever happened, the last commit was tried; it may have been refused.
                let at = Some(tracker.acknowledged().get());
                let refused = tracker.committable().is_some() || part.foreign.is_some();
                assert!(log.committed == at || refused, "{}: all is done", log.name);
            }
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn ten_thousand_lives_of_a_consumer() {
    let seeds = match variable("WORKER_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + variable("WORKER_SIM_SEEDS").unwrap_or(10_000),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            panic!("seed {seed}: {}", crate::client::link::panic_text(&*panic));
        }
    }
}
