//! What a reload can't change: it takes a restart. Pure.
//!
//! Everything else can: what belongs to a consumer by draining it and starting it again, sinks by
//! lanes that begin and end, the observer by starting it again, the log's level at once.

use std::fmt;

use super::{Config, GateSettings};

/// A key whose new value does not hold before the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The key, or the table.
    pub key: String,
    /// Why, and what follows.
    pub meaning: &'static str,
}

/// `key=memory.limit meaning="…"`
impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key={} meaning=\"{}\"", self.key, self.meaning)
    }
}

impl Config {
    /// What holds of `self` in a worker that runs with `running`, and the keys that stay as they were. `open`
    /// says which sinks are open: these keep their settings, also while only a consumer that is to leave uses
    /// them.
    #[must_use]
    pub fn reloaded(mut self, running: &Self, open: impl Fn(&str) -> bool) -> (Self, Vec<Fixed>) {
        let mut fixed = Vec::new();
        let mut fix = |key: &str, meaning| fixed.push(Fixed { key: key.to_owned(), meaning });
        if self.mode != running.mode {
            fix(
                "consumer.multi_consumer_mode",
                "the groups have other names in the other mode, so their offsets have to be taken over while nothing runs; topics and sinks stay as they were, too",
            );
            self.mode = running.mode;
            self.topics.clone_from(&running.topics);
            self.discovery.clone_from(&running.discovery);
            self.sinks.clone_from(&running.sinks);
            self.spreads.clone_from(&running.spreads);
            self.dead_letter.clone_from(&running.dead_letter);
            self.gate.clone_from(&running.gate);
        }
        if self.memory_limit != running.memory_limit {
            fix("memory.limit", "what is in flight is counted against the limit of the start");
            self.memory_limit = running.memory_limit;
        }
        if self.state_dir != running.state_dir {
            fix("state.dir", "its lock and its offsets belong to the running process");
            self.state_dir.clone_from(&running.state_dir);
        }
        if self.drain_timeout != running.drain_timeout {
            fix("shutdown.drain_timeout_ms", "the deadline of a stop is set at the start");
            self.drain_timeout = running.drain_timeout;
        }
        if self.admin != running.admin {
            let meaning = match (running.admin, self.admin) {
                (None, _) => "nothing listens there before the worker is started again",
                (_, None) => "it goes on to be served until the worker ends",
                _ => "the port of the start is served until the worker ends, and the other one after the next start",
            };
            fix("admin.listen", meaning);
            self.admin = running.admin;
        }
        if self.log_format != running.log_format {
            fix("log.format", "a log has one form, for those who read it");
            self.log_format = running.log_format;
        }
        let gate = running.gate.clone().and_then(|gate| gate.without(&self, running));
        if self.gate != gate {
            fix("gate", "the gate is one of the start; it does not close again");
        }
        self.gate = gate;
        for (name, old) in running.sinks.iter().filter(|(name, _)| open(name)) {
            let new = self.sinks.insert(name.clone(), old.clone());
            let (spread, new_spread) = (running.spreads.get(name), self.spreads.remove(name));
            self.spreads.extend(spread.map(|spread| (name.clone(), *spread)));
            let spread = spread.copied().unwrap_or_default();
            if new.is_some_and(|new| new != *old || new_spread.unwrap_or_default() != spread) {
                fixed.push(Fixed {
                    key: format!("sink.{name}"),
                    meaning: "it is open; or give the sink another name, and name that in the topics",
                });
            }
        }
        (self, fixed)
    }
}

impl GateSettings {
    /// What is left of it without the topics that `new` no longer has.
    fn without(mut self, new: &Config, running: &Config) -> Option<Self> {
        let gone = |name: &str| {
            let has = |config: &Config| config.topics.iter().any(|topic| *topic.name == *name);
            has(running) && !has(new)
        };
        self.required_topics.retain(|name| !gone(name));
        (!self.required_topics.is_empty()).then_some(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(consumer: &str, more: &str) -> Config {
        let text = format!(
            "[kafka]\nbootstrap_servers = 'b:1'\n[consumer]\ngroup_id = 'g'\nsink = 'out'\n{consumer}\n\
             [sink.out]\ntype = 'file'\npath = '/x'\n{more}"
        );
        crate::config::parse(&text, &|_| None).unwrap()
    }

    fn keys(fixed: &[Fixed]) -> Vec<&str> {
        fixed.iter().map(|fixed| fixed.key.as_str()).collect()
    }

    #[test]
    fn what_can_be_changed_holds_and_nothing_is_named() {
        let running = config("topics = ['a', 'b']", "[gate]\nrequired_topics = ['a', 'b']\n");
        let new = config(
            "topics = ['b', 'c']\nmax_poll_records = 7",
            "[sink.more]\ntype = 'file'\npath = '/y'\n[[topic]]\nname = 'c'\nsink = 'more'\npaused = true\n\
             [commit]\ninterval_ms = 7\nmin_interval_ms = 7\n[log]\nlevel = 'debug'\n[observe]\ninterval_ms = 200\n\
             [gate]\nrequired_topics = ['b']\n",
        );
        let (held, fixed) = new.clone().reloaded(&running, |sink| sink == "out");
        assert_eq!((held, keys(&fixed)), (new, vec![]));
    }

    #[test]
    fn what_can_not_is_named_and_stays() {
        let running = config("topics = ['a']", "");
        let more = "[memory]\nlimit = '64MiB'\n[state]\ndir = '/s'\n[shutdown]\ndrain_timeout_ms = 1\n[log]\nformat = 'json'\n\
                    [gate]\nrequired_topics = ['a']\n";
        let (held, fixed) = config("topics = ['a']", more).reloaded(&running, |sink| sink == "out");
        assert_eq!(keys(&fixed), ["memory.limit", "state.dir", "shutdown.drain_timeout_ms", "log.format", "gate"]);
        assert_eq!(Config { report: vec![], ..held }, Config { report: vec![], ..running.clone() });
        let mut new = running.clone();
        let text = "[kafka]\nbootstrap_servers = 'b:1'\n[consumer]\ngroup_id = 'g'\nsink = 'out'\ntopics = ['a']\n\
                    [sink.out]\ntype = 'stdout'\n";
        new.sinks = crate::config::parse(text, &|_| None).unwrap().sinks;
        let (held, fixed) = new.clone().reloaded(&running, |sink| sink == "out");
        assert_eq!((keys(&fixed), held.sinks), (vec!["sink.out"], running.sinks.clone()));
        let (held, fixed) = new.clone().reloaded(&running, |_| false);
        assert_eq!((keys(&fixed), held.sinks), (vec![], new.sinks.clone()), "nobody has it open");
        new.sinks.clear();
        let (held, fixed) = new.reloaded(&running, |_| true);
        assert_eq!((keys(&fixed), held.sinks), (vec![], running.sinks), "it is not closed yet");
    }

    #[test]
    fn a_port_that_comes_goes_or_changes_is_one_of_the_next_start() {
        let with = |port: &str| config("topics = ['a']", &format!("[admin]\nlisten = '127.0.0.1:{port}'\n"));
        let without = config("topics = ['a']", "");
        for (running, new, words) in [
            (&without, with("1"), "nothing listens there before the worker is started again"),
            (&with("1"), without.clone(), "goes on to be served until the worker ends"),
            (&with("1"), with("2"), "the port of the start is served until the worker ends"),
        ] {
            let (held, fixed) = new.reloaded(running, |_| true);
            assert_eq!((keys(&fixed), held.admin), (vec!["admin.listen"], running.admin));
            assert!(fixed[0].meaning.contains(words), "{}", fixed[0]);
        }
    }

    #[test]
    fn another_mode_leaves_the_topics_alone_but_not_the_rest() {
        let running = config("topics = ['a']", "");
        let new = config("topics = ['a', 'b']\nmulti_consumer_mode = false", "[log]\nlevel = 'debug'\n");
        let (held, fixed) = new.reloaded(&running, |sink| sink == "out");
        assert_eq!(keys(&fixed), ["consumer.multi_consumer_mode"]);
        assert_eq!((held.topics, held.mode), (running.topics, running.mode));
        assert_eq!(held.log_level, "debug");
    }
}
