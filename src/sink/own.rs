//! Sinks of a program that has the worker inside: how they are made.

use std::fmt;
use std::sync::Arc;

use super::Sink;

/// Makes the sinks of one name, one a lane. Two are equal if they are the same.
#[derive(Clone)]
pub struct OwnSink {
    make: Arc<Make>,
}

type Make = dyn Fn(usize) -> Result<Box<dyn Sink>, String> + Send + Sync;

impl OwnSink {
    /// `make` is called for each lane, with its number from 0 on: at the start, and whenever a sink that no topic used
    /// is used again.
    pub fn new<S: Sink + 'static>(make: impl Fn(usize) -> Result<S, String> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(move |lane| Ok(Box::new(make(lane)?) as Box<dyn Sink>)) }
    }

    /// The sink of a lane.
    ///
    /// # Errors
    /// What `make` says: the worker does not start.
    pub(crate) fn open(&self, lane: usize) -> Result<Box<dyn Sink>, String> {
        (self.make)(lane)
    }
}

impl PartialEq for OwnSink {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.make, &other.make)
    }
}

impl Eq for OwnSink {}

impl fmt::Debug for OwnSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnSink")
    }
}
