//! How far the topics have come at the start, and what the log says of it.
//!
//! Pure: time is a parameter. A line when every topic is read or known to be missing; if that takes
//! longer, one that names what waits and why; and one when the last topic is read at last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A start that takes longer than this says what it waits for.
const LONG: Duration = Duration::from_secs(10);

/// See the module's text.
pub(super) struct Startup {
    topics: BTreeSet<Arc<str>>,
    started: BTreeSet<Arc<str>>,
    missing: BTreeSet<Arc<str>>,
    why: BTreeMap<Arc<str>, String>,
    /// When to say what waits; `None` once it was said, or needs not be.
    long: Option<Instant>,
    told: bool,
    told_all: bool,
    /// Which topics there are is not known yet.
    unlisted: bool,
}

impl Startup {
    pub(super) fn new(topics: impl IntoIterator<Item = Arc<str>>, now: Instant) -> Self {
        Self {
            topics: topics.into_iter().collect(),
            started: BTreeSet::new(),
            missing: BTreeSet::new(),
            why: BTreeMap::new(),
            long: Some(now + LONG),
            told: false,
            told_all: false,
            unlisted: false,
        }
    }

    /// Topics are read by pattern, and the cluster's list is not there yet.
    pub(super) fn awaits_list(&mut self) {
        self.unlisted = true;
    }

    /// The list is there, or no longer waited for.
    pub(super) fn needs_no_list(&mut self) {
        self.unlisted = false;
    }

    /// Whether the list is waited for.
    pub(super) fn is_unlisted(&self) -> bool {
        self.unlisted
    }

    /// Another topic is to be read.
    pub(super) fn expect(&mut self, topic: Arc<str>, now: Instant) {
        if self.topics.insert(topic) {
            (self.told, self.told_all, self.long) = (false, false, Some(now + LONG));
        }
    }

    /// A topic is no longer to be read.
    pub(super) fn forget(&mut self, topic: &Arc<str>) {
        self.topics.remove(topic);
        self.started.remove(topic);
        self.missing.remove(topic);
        self.why.remove(topic);
    }

    pub(super) fn started(&mut self, topic: Arc<str>) {
        // It may have been removed while its consumer said so.
        if !self.topics.contains(&topic) {
            return;
        }
        self.missing.remove(&topic);
        self.why.remove(&topic);
        self.started.insert(topic);
    }

    pub(super) fn missing(&mut self, topic: Arc<str>) {
        if self.topics.contains(&topic) && !self.started.contains(&topic) {
            self.missing.insert(topic);
        }
    }

    pub(super) fn waiting(&mut self, topics: Vec<Arc<str>>, why: Option<&str>) {
        for topic in topics.into_iter().filter(|topic| self.topics.contains(topic)) {
            match why {
                Some(why) => drop(self.why.insert(topic, why.to_owned())),
                None => drop(self.why.remove(&topic)),
            }
        }
    }

    /// The topics that have never been read.
    pub(super) fn not_started(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.difference(&self.started)
    }

    /// The topics that are neither read nor known to be missing.
    pub(super) fn starting(&self) -> impl Iterator<Item = &Arc<str>> {
        self.not_started().filter(|topic| !self.missing.contains(*topic))
    }

    /// How many topics are read, in a few words.
    pub(super) fn status(&self) -> String {
        let (all, started, missing) = (self.topics.len(), self.started.len(), self.missing.len());
        let mut status = format!("{started} of {all} topics read");
        for (count, what) in [(missing, "missing"), (all.saturating_sub(started + missing), "starting")] {
            if count > 0 {
                status += &format!(", {count} {what}");
            }
        }
        if self.unlisted {
            status += ", the cluster's topics are not listed yet";
        }
        status
    }

    /// What there is to say at `now`. A stop ends it: then nothing waits any more.
    pub(super) fn line(&mut self, now: Instant) -> Option<String> {
        if self.told_all {
            return None;
        }
        let (all, started, missing) = (self.topics.len(), self.started.len(), self.missing.len());
        let counts = format!("topics={started} missing={missing}");
        if started == all && !self.unlisted {
            (self.told_all, self.long) = (true, None);
            return Some(format!("all consumers started {counts}"));
        }
        if !self.told && !self.unlisted && started + missing == all {
            (self.told, self.long) = (true, None);
            return Some(format!("consumers started {counts}"));
        }
        self.long.take_if(|long| *long <= now)?;
        let list = self.unlisted.then(|| "topics_regex: the cluster's topics are not listed yet".to_owned());
        let waits: Vec<String> = list.into_iter().chain(self.starting().map(|topic| self.reason(topic))).collect();
        Some(format!("consumers still starting {counts} waiting={} waits_for=\"{}\"", waits.len(), waits.join("; ")))
    }

    fn reason(&self, topic: &Arc<str>) -> String {
        let why = self.why.get(topic).map_or("its brokers and its group have not answered yet", String::as_str);
        format!("{topic}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup() -> (Startup, Instant) {
        let now = Instant::now();
        (Startup::new(["a".into(), "b".into(), "c".into()], now), now)
    }

    #[test]
    fn all_that_start_at_once_are_one_line() {
        let (mut startup, now) = startup();
        for topic in ["a", "b"] {
            startup.started(topic.into());
            assert_eq!(startup.line(now), None);
        }
        startup.started("c".into());
        assert_eq!(startup.line(now).as_deref(), Some("all consumers started topics=3 missing=0"));
        assert_eq!(startup.line(now + LONG), None);
    }

    #[test]
    fn a_topic_that_is_created_later_makes_them_all() {
        let (mut startup, now) = startup();
        startup.started("a".into());
        assert_eq!(startup.status(), "1 of 3 topics read, 2 starting");
        startup.started("b".into());
        startup.missing("c".into());
        assert_eq!(startup.line(now).as_deref(), Some("consumers started topics=2 missing=1"));
        assert_eq!(startup.line(now + LONG), None, "nothing waits but what is missing");
        assert_eq!(startup.status(), "2 of 3 topics read, 1 missing");
        startup.started("c".into());
        assert_eq!(startup.line(now + LONG).as_deref(), Some("all consumers started topics=3 missing=0"));
    }

    #[test]
    fn topics_that_come_and_go_are_counted() {
        let (mut startup, now) = startup();
        startup.forget(&"c".into());
        startup.started("a".into());
        startup.started("b".into());
        startup.started("c".into());
        startup.missing("c".into());
        assert_eq!(startup.line(now).as_deref(), Some("all consumers started topics=2 missing=0"));
        startup.expect("d".into(), now + LONG);
        startup.expect("a".into(), now + LONG);
        assert_eq!(startup.line(now + LONG), None);
        assert_eq!(startup.not_started().map(|t| &**t).collect::<Vec<_>>(), ["d"]);
        startup.started("d".into());
        assert_eq!(startup.line(now + LONG).as_deref(), Some("all consumers started topics=3 missing=0"));
        assert_eq!(startup.line(now + LONG), None);
    }

    #[test]
    fn what_waits_is_named_with_its_reason_after_a_while() {
        let (mut startup, now) = startup();
        startup.missing("c".into());
        startup.waiting(vec!["a".into(), "b".into()], Some("no broker"));
        startup.waiting(vec!["b".into()], None);
        assert_eq!(startup.line(now + LONG - Duration::from_millis(1)), None);
        assert_eq!(
            startup.line(now + LONG).as_deref(),
            Some(
                "consumers still starting topics=0 missing=1 waiting=2 waits_for=\"a: no broker; \
                 b: its brokers and its group have not answered yet\""
            )
        );
        assert_eq!(startup.line(now + 2 * LONG), None, "once");
        startup.started("a".into());
        startup.started("b".into());
        assert_eq!(startup.line(now + 2 * LONG).as_deref(), Some("consumers started topics=2 missing=1"));
        assert_eq!(startup.not_started().map(|t| &**t).collect::<Vec<_>>(), ["c"]);
    }
}
