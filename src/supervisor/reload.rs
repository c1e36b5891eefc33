//! SIGHUP: files are opened anew, and the configuration is read again.
//!
//! A reload is the difference of two plans. Invariants:
//! - a configuration that is wrong, or whose sinks can't be opened, changes nothing;
//! - who is in both plans as it was goes on undisturbed; a consumer that changed leaves, and another one comes;
//! - a reload never waits: another one, or a stop, may come while consumers still drain for this one. Then
//!   the last configuration counts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::consumers::Consumers;
use super::{Supervisor, open, start};
use crate::config::{Config, Fixed, LoadError};
use crate::observe;
use crate::plan::{Difference, Plan};

impl Supervisor {
    /// SIGHUP.
    pub(super) fn hangup(&mut self) {
        log::info!("reopening files signal=SIGHUP");
        if self.consumers.is_some() {
            // Perhaps while another one is under way: then its end is the end of both.
            self.notify.reloading();
            self.reloading.get_or_insert_with(Instant::now);
            self.reload();
        }
        // Behind the reload: what a topic's policy has stopped is tried again by the new one.
        self.lanes.reopen();
    }

    /// Reads the configuration, and makes it hold.
    pub(super) fn reload(&mut self) {
        // A lane that is ending still has its file open; this goes on when it has ended, which waits for
        // nothing but a file to be closed.
        self.reload_again = self.lanes.is_ending();
        if self.reload_again || self.consumers.is_none() {
            return;
        }
        match (self.source.load)() {
            Ok(config) => self.take_over(config),
            Err(error) => {
                tell_errors(&error);
                self.refused("");
            }
        }
        self.advance();
    }

    /// The new configuration can't be taken over, and nothing has changed.
    fn refused(&mut self, error: &str) {
        log::error!("configuration not reloaded {error}meaning=\"the one before goes on\"");
        if !self.consumers.as_ref().is_some_and(Consumers::in_transition) {
            // Nothing else is under way that could be complete.
            self.reloading = None;
            self.notify.ready();
        }
    }

    fn take_over(&mut self, config: Config) {
        let (config, fixed) = config.reloaded(&self.config, |sink| self.lanes.has(sink));
        let (config, _) = config.with_found(&self.listing);
        if let Err(error) = self.adopt(config, Some(&fixed)) {
            return self.refused(&format!("error=\"{error}\" "));
        }
        // At once: a new pattern is not to wait for the next list.
        if let Err(error) = self.discover() {
            log::error!("topics can't be looked for, stopping error=\"{error}\"");
            self.fail();
        }
    }

    /// Makes `config` hold, of which everything can. `fixed`: it was read anew, and of that these keys stay as they were.
    ///
    /// # Errors
    /// A sink can't be opened; nothing has changed.
    pub(super) fn adopt(&mut self, config: Config, fixed: Option<&[Fixed]>) -> Result<(), open::StartError> {
        let plan = Plan::over(&config, &self.plan);
        let new: Vec<&String> = plan.used().into_iter().filter(|name| !self.lanes.has(name)).collect();
        let sinks = open::open_sinks(&config, new.into_iter())?;
        if config.dead_letter != self.config.dead_letter {
            self.lanes.failures().set_letters(open::open_letters(&config)?);
        }
        self.lanes.failures().set_policies(start::policies(&config));
        let mut difference = Difference::new(&self.plan, &plan);
        let before: HashMap<_, _> = start::policies(&self.config).collect();
        let other: HashSet<_> = start::policies(&config)
            .filter(|(topic, policy)| before.get(topic).is_some_and(|before| before != policy))
            .map(|(topic, _)| topic)
            .collect();
        let concerned = plan.consumers.iter().filter(|consumer| consumer.sinks.keys().any(|own| other.contains(own)));
        difference.said.other_policies(concerned.map(|consumer| consumer.name.as_str()));
        if let Some(fixed) = fixed {
            for warning in &config.warnings {
                log::warn!("configuration: {warning}");
            }
            log::info!("configuration reloaded {}", difference.said);
            for fixed in fixed {
                log::warn!("restart needed {fixed}");
            }
        }
        if plan.consumers.len() > self.plan.consumers.len() {
            super::limits::raise_open_files(plan.consumers.len());
        }
        if config.log_level != self.config.log_level {
            (self.source.set_log_level)(&config.log_level);
        }
        if let Err(error) = self.change(&config, &plan, &difference, sinks) {
            // Half of it holds: only a new start makes it whole.
            log::error!("configuration can't be reloaded, stopping error=\"{error}\"");
            self.fail();
        }
        (self.config, self.plan) = (config, plan);
        Ok(())
    }

    fn change(
        &mut self,
        config: &Config,
        plan: &Plan,
        difference: &Difference,
        sinks: open::Sinks,
    ) -> Result<(), open::StartError> {
        for (name, sink) in sinks {
            self.running.extend(self.lanes.start(&name, sink)?);
        }
        let now = Instant::now();
        let topics = |plan: &Plan| plan.routes().map(|(topic, _)| Arc::clone(topic)).collect::<BTreeSet<_>>();
        let (before, after) = (topics(&self.plan), topics(plan));
        before.difference(&after).for_each(|topic| self.startup.forget(topic));
        after.difference(&before).for_each(|topic| self.startup.expect(Arc::clone(topic), now));
        if let Some(consumers) = &mut self.consumers {
            for name in &difference.stop {
                self.running.extend(consumers.leave(name, now)?);
            }
            difference.start.iter().for_each(|consumer| consumers.add(consumer));
            consumers.show_paused(&plan.paused);
        }
        let settings = observe::Settings::new(config);
        if settings != observe::Settings::new(&self.config) {
            self.observe(settings)?;
        }
        Ok(())
    }

    /// Starts what can be started, and says so when a reload is done. To be called whenever something has
    /// changed of what that may wait for.
    pub(super) fn advance(&mut self) {
        if let Err(error) = self.start_ready() {
            log::error!("consumer can't be started, stopping error=\"{error}\"");
            return self.fail();
        }
        let Some(consumers) = &self.consumers else { return };
        if let Some(since) = self.reloading
            && !self.reload_again
            && !consumers.in_transition()
        {
            let names: Vec<&str> = consumers.waiting().map(|plan| plan.name.as_str()).collect();
            let topics = consumers.waiting().flat_map(|plan| plan.sinks.keys().cloned()).collect();
            self.startup.waiting(topics, Some("a consumer that was stopped still has records under way"));
            let waiting = names.join(",");
            let waiting = if waiting.is_empty() { "-" } else { &waiting };
            log::info!("reload complete after_ms={} waiting={waiting}", since.elapsed().as_millis());
            self.reloading = None;
            self.notify.ready();
        }
    }

    /// Starts what can be started. The dispatcher is told of their routes before.
    pub(super) fn start_ready(&mut self) -> Result<(), open::StartError> {
        let Some(consumers) = &mut self.consumers else { return Ok(()) };
        let round = self.config.topics.iter().map(|topic| topic.timeout).min().unwrap_or_default();
        self.lanes.route(consumers.routing(round));
        for index in consumers.ready() {
            self.running.extend(consumers.start(index)?);
        }
        Ok(())
    }

    /// Gives up consumers that were to leave and have not in time, and starts who waited for them. Called now
    /// and then, for that is told by no event: a sink's slow progress, a time.
    pub(super) fn look_after_leavers(&mut self) {
        let Some(consumers) = self.consumers.as_mut().filter(|consumers| !consumers.are_settled()) else { return };
        for (index, role, hangs) in consumers.overdue(Instant::now()) {
            log::warn!(
                "consumer did not drain in time thread={role} meaning=\"what it holds is not committed, and delivered again to whoever reads its topics next, who waits until its sink has let go of it\""
            );
            if !hangs {
                continue;
            }
            self.running.remove(&role);
            match consumers.give_up(index) {
                Ok(role) => self.running.extend(role),
                Err(error) => {
                    log::error!("consumer can't be given up, stopping error=\"{error}\"");
                    return self.fail();
                }
            }
        }
        self.advance();
    }
}

/// One line for each error, with its place.
fn tell_errors(error: &LoadError) {
    let text = error.to_string();
    for line in text.lines() {
        log::error!("configuration: {line}");
    }
}
