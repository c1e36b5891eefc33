//! The discoverer: lists the cluster's topics, for those who read topics by pattern.
//!
//! Owns the thread `discover` and a link on which the cluster is asked. It knows no pattern and no configuration:
//! what the names mean is the supervisor's. Invariants:
//! - it waits for no answer: a stop ends it at once;
//! - no list is told but one that a broker has given; a cluster that does not answer changes nothing, and a line
//!   says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::backoff::Backoff;
use crate::client::link::Link;
use crate::client::{Cluster, Fault};
use crate::config::KafkaSettings;
use crate::consumer::Never;
use crate::trouble::{Phrases, Trouble};

/// The waits before the next try.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

const PHRASES: Phrases = Phrases {
    begins: "topics can't be listed",
    goes_on: "topics still can't be listed",
    ends: "topics are listed again",
    flaps: "listing topics fails again and again",
};

/// The names of all topics.
type Answer = Result<BTreeSet<Arc<str>>, Fault>;

/// The ends of the channels that the discoverer holds, and what it asks.
pub struct Ends {
    /// Dropped at the other end when it is to end.
    pub stop: Receiver<Never>,
    /// To the supervisor: the names of all topics.
    pub listed: Sender<BTreeSet<Arc<str>>>,
    /// Makes what is asked about the cluster; called on the link's thread.
    pub cluster: Arc<dyn Fn() -> Box<dyn Cluster> + Send + Sync>,
}

/// Lists at once, then every `kafka.metadata_max_age_ms`, until `ends.stop` is dropped.
pub fn run(kafka: &KafkaSettings, ends: Ends) {
    let Ends { stop, listed, cluster } = ends;
    let (ready_tx, ready) = bounded(1);
    let mut link: Link<Box<dyn Cluster>, Answer> = Link::new("link:discover".to_owned(), ready_tx, move || cluster());
    let (mut trouble, mut backoff) = (Trouble::default(), Backoff::new(RETRY.0, RETRY.1));
    let mut why = String::new();
    let mut next = Instant::now();
    loop {
        let alarm = link.deadline().unwrap_or(next);
        select! {
            recv(stop) -> _ => return,
            recv(ready) -> _ => {}
            recv(crossbeam_channel::at(alarm)) -> _ => {}
        }
        let now = Instant::now();
        let answer = match link.reply(now) {
            Some(Ok(Ok(names))) => Some(Ok(names)),
            Some(Ok(Err(fault)) | Err(fault)) => Some(Err(fault)),
            None if now >= next && !link.is_busy() => {
                let allowed = kafka.connect_timeout + kafka.request_timeout;
                link.start("Metadata", allowed, now, |cluster| cluster.topic_names()).err().map(Err)
            }
            None => None,
        };
        let word = match answer {
            Some(Ok(names)) => {
                backoff.reset();
                next = now + kafka.metadata_max_age;
                // The supervisor may have enough to do, and may be stopping.
                select! {
                    recv(stop) -> _ => return,
                    send(listed, names) -> _ => {}
                }
                trouble.succeeded(now)
            }
            Some(Err(fault)) => {
                next = now + backoff.next_wait();
                why = fault.to_string();
                trouble.failed(now, now)
            }
            None => None,
        };
        if let Some(word) = word {
            let who = "key=consumer.topics_regex";
            PHRASES.log(word, log::Level::Warn, &who, &why);
        }
    }
}
