//! Topics that are found by pattern: the cluster's list, and what follows from it.
//!
//! A change of what is found is a change of the plan, as a reload is. Invariants:
//! - the configuration's file is not read for it: what holds is what was read last;
//! - a list that brings nothing new changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::bounded;

use super::threads::{End, Role};
use super::{StartError, Supervisor};
use crate::config::discovery::MOST;
use crate::discover;

/// How many names a line has at most.
const NAMED: usize = 20;

impl Supervisor {
    /// Lists the cluster's topics from now on, if there are patterns; who does so already ends.
    pub(super) fn discover(&mut self) -> Result<(), StartError> {
        self.discoverer = None;
        if self.config.discovery.is_none() {
            self.startup.needs_no_list();
            return Ok(());
        }
        if !self.listing.is_known() {
            self.startup.awaits_list();
        }
        let (stop, stop_rx) = bounded(0);
        self.discoverer = Some(stop);
        self.discoverers += 1;
        let kafka = self.config.kafka.clone();
        let (make, of_link) = (self.observers.cluster(), kafka.clone());
        let listed = self.listed_tx.clone();
        let ends = discover::Ends { stop: stop_rx, listed, cluster: Arc::new(move || make(&of_link)) };
        let exits = self.observers.exits();
        self.spawn(Role::Discover(self.discoverers), &exits, move || {
            discover::run(&kafka, ends);
            End::Discover
        })
    }

    /// The cluster has these topics now.
    pub(super) fn listed(&mut self, names: BTreeSet<Arc<str>>) {
        self.listing.take(names);
        self.startup.needs_no_list();
        self.find();
    }

    /// Makes hold what the newest list comes to.
    pub(super) fn find(&mut self) {
        self.find_again = self.lanes.is_ending();
        if self.find_again || self.consumers.is_none() {
            return;
        }
        let (config, left_out) = self.config.clone().with_found(&self.listing);
        if config.topics == self.config.topics {
            return;
        }
        if left_out > 0 {
            log::warn!(
                "more topics fit topics_regex than are read limit={MOST} left_out={left_out} meaning=\"the first by name are read; narrow topics_regex\""
            );
        }
        let names =
            |of: &crate::config::Config| of.topics.iter().map(|one| Arc::clone(&one.name)).collect::<BTreeSet<_>>();
        let (before, after) = (names(&self.config), names(&config));
        for (phrase, names) in [
            ("topics found", after.difference(&before).collect::<Vec<_>>()),
            ("found topics are gone", before.difference(&after).collect()),
        ] {
            if !names.is_empty() {
                let mut shown: Vec<&str> = names.iter().take(NAMED).map(|name| &***name).collect();
                if names.len() > NAMED {
                    shown.push("…");
                }
                log::info!("{phrase} count={} topics=\"{}\"", names.len(), shown.join(","));
            }
        }
        if let Err(error) = self.adopt(config, None) {
            log::error!(
                "topics that were found can't be read error=\"{error}\" meaning=\"tried again with the next list\""
            );
        }
        self.advance();
    }
}
