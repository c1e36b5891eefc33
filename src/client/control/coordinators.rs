//! Who coordinates a group, and open sockets to them.
//!
//! Owns the sockets. What always holds: an answer comes from a socket that was open and well, or from a
//! new one: a connection that was idle for long may have been closed by the broker
//! (`connections.max.idle.ms`) or forgotten by a firewall, and a coordinator may have moved. So a
//! question over what was known before is asked once more, anew, before it fails; but not if the
//! broker did not answer in time, because then the time is used up.

use std::collections::HashMap;
use std::sync::Arc;

use super::open_wire;
use crate::client::{Connection, Fault};
use crate::wire::Wire;

/// See the module's text.
pub(super) struct Coordinators {
    connection: Arc<Connection>,
    /// The address of each group's coordinator.
    addresses: HashMap<String, String>,
    /// Open sockets, by address.
    open: HashMap<String, Wire>,
    /// Hosts that failed since [`Coordinators::begin`]: other groups of a dead broker do not wait for it again.
    failed: HashMap<String, Fault>,
}

impl Coordinators {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, addresses: HashMap::new(), open: HashMap::new(), failed: HashMap::new() }
    }

    /// What failed before is tried again from now on.
    pub(super) fn begin(&mut self) {
        self.failed.clear();
    }

    /// Asks the coordinator of `group`; `hosts` are those who may be asked who that is.
    pub(super) fn ask<T>(
        &mut self,
        hosts: &[String],
        group: &str,
        ask: impl Fn(&mut Wire) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Some(known) = self.addresses.get(group).cloned() {
            let reused = self.open.contains_key(&known);
            match self.ask_host(&known, &ask) {
                Err(fault) if is_worth_another(&fault, reused) => self.forget(group, &known),
                answer => return answer.inspect_err(|_| self.forget(group, &known)),
            }
        }
        let address = self.look_up(hosts, group)?;
        self.addresses.insert(group.to_owned(), address.clone());
        self.ask_host(&address, &ask).inspect_err(|_| self.forget(group, &address))
    }

    /// It may be another broker's group by now.
    fn forget(&mut self, group: &str, address: &str) {
        self.addresses.remove(group);
        if self.open.get(address).is_some_and(|wire| !wire.is_open()) {
            self.open.remove(address);
        }
    }

    fn look_up(&mut self, hosts: &[String], group: &str) -> Result<String, Fault> {
        let mut last = Fault::NoLeader;
        for host in hosts {
            let reused = self.open.contains_key(host);
            let mut answer = self.ask_host(host, &|wire| wire.coordinator(group));
            if answer.as_ref().is_err_and(|fault| is_worth_another(fault, reused)) {
                answer = self.ask_host(host, &|wire| wire.coordinator(group));
            }
            match answer {
                Ok(address) => return Ok(address),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Asks `host` over the socket that is open to it, or a new one.
    fn ask_host<T>(&mut self, host: &str, ask: &impl Fn(&mut Wire) -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(fault) = self.failed.get(host) {
            return Err(fault.clone());
        }
        let mut reused = true;
        let mut wire = match self.open.remove(host) {
            Some(wire) => wire,
            None => {
                reused = false;
                let opened = open_wire(&self.connection, host);
                opened.inspect_err(|fault| drop(self.failed.insert(host.to_owned(), fault.clone())))?
            }
        };
        let answer = ask(&mut wire);
        match &answer {
            _ if wire.is_open() => drop(self.open.insert(host.to_owned(), wire)),
            Err(fault) if !is_worth_another(fault, reused) => drop(self.failed.insert(host.to_owned(), fault.clone())),
            _ => {}
        }
        answer
    }
}

/// Whether the fault may be that of what was known before: a connection that had been idle, a
/// coordinator that has moved.
fn is_worth_another(fault: &Fault, reused: bool) -> bool {
    match fault {
        Fault::Broken { .. } => reused,
        Fault::Refused { code, .. } => code == "NotCoordinator",
        _ => false,
    }
}
