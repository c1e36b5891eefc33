//! Records that were taken from librdkafka's queue, as they are: its messages are held until the last record is done.
//!
//! Nothing is copied, and headers are read when somebody asks for them: both were a third of what a record cost.
//! A message keeps the answer of a broker, or the unpacked batch, that it came in; so a batch counts with all that its
//! messages were when the first of them is done, and only the first and the last answer that it reaches into may
//! hold more than that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Sender;
use rdkafka::message::{BorrowedMessage, Headers as _, Message, OwnedMessage};
use self_cell::self_cell;

use super::properties::MESSAGE;
use super::session::Tether;
use crate::client::librdkafka::Queue;
use crate::logging::without_panic;
use crate::memory::{Answer, Loan};
use crate::record::{Arena, Header, Headers, Offset, Record};

/// The name of a header whose own name is no text (UTF-8): the crate can't give it.
const UNREADABLE: &str = "\u{FFFD}";

type Messages<'a> = Vec<BorrowedMessage<'a>>;

self_cell!(
    struct Held {
        owner: Arc<Queue>,
        #[covariant]
        dependent: Messages,
    }
);

/// Messages that were taken.
pub(super) struct Taken {
    messages: Held,
    /// Goes behind the messages: the consumer ends when there is none of them left.
    _tether: Tether,
}

/// Messages that are given back to the thread that took them: what one thread takes from the allocator and another one
/// gives back costs a fifth of the throughput.
struct Lent {
    taken: Option<Taken>,
    back: Sender<Taken>,
}

impl Lent {
    fn messages(&self) -> &[BorrowedMessage<'_>] {
        // They are there until it is dropped.
        self.taken.as_ref().map_or(&[], |taken| taken.messages.borrow_dependent())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // If nobody wants them, they end here.
        let _ = self.taken.take().map(|taken| self.back.try_send(taken));
    }
}

enum Content {
    Held(Lent),
    /// One record that there was no room for when it was taken: a copy holds no more than itself while it waits.
    Copied(Box<OwnedMessage>),
}

/// One partition's records, in ascending order.
pub(super) struct Batch {
    content: Content,
    payload: usize,
    /// librdkafka reads a message's headers when it is first asked for them, and several threads may ask.
    headers: Mutex<()>,
    /// A header's name could not be read, and the log has it.
    is_damage_told: AtomicBool,
    /// What it counts in, once it is complete.
    counts: Vec<Arc<Answer>>,
    loan: Option<Loan>,
}

impl Batch {
    /// Of what `take` takes from the queue, `usual` messages or so; it returns the bytes of keys and values. When they
    /// are done, they come `back`.
    pub(super) fn new(
        queue: Arc<Queue>,
        tether: Tether,
        usual: usize,
        back: Sender<Taken>,
        take: impl for<'a> FnOnce(&'a Queue, &mut Messages<'a>) -> usize,
    ) -> Self {
        let mut payload = 0;
        let held = Held::new(queue, |queue| {
            let mut messages = Messages::with_capacity(usual);
            payload = take(queue, &mut messages);
            messages
        });
        let taken = Some(Taken { messages: held, _tether: tether });
        Self::with(Content::Held(Lent { taken, back }), payload)
    }

    /// Of a copy of one message.
    pub(super) fn copied(message: &BorrowedMessage<'_>) -> Self {
        Self::with(Content::Copied(Box::new(message.detach())), payload(message))
    }

    fn with(content: Content, payload: usize) -> Self {
        let (headers, is_damage_told) = (Mutex::new(()), AtomicBool::new(false));
        Self { content, payload, headers, is_damage_told, counts: Vec::new(), loan: None }
    }

    pub(super) fn len(&self) -> usize {
        match &self.content {
            Content::Held(lent) => lent.messages().len(),
            Content::Copied(_) => 1,
        }
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory(&self) -> usize {
        self.payload + self.len() * MESSAGE
    }

    /// The last record's offset.
    pub(super) fn last(&self) -> Option<Offset> {
        let last = self.len().checked_sub(1)?;
        Some(self.record(last).offset)
    }

    /// From now on it counts, until the last of its records is done; what the loan pays for counts in no share.
    pub(super) fn count(&mut self, counts: Vec<Arc<Answer>>, loan: Option<Loan>) -> usize {
        let memory = self.memory();
        let bytes = memory - loan.as_ref().map_or(0, Loan::bytes).min(memory);
        counts.iter().for_each(|answer| answer.add(bytes));
        (self.counts, self.loan) = (counts, loan);
        bytes
    }

    fn header_of<'a, M: Message>(&self, message: &'a M, number: usize) -> Option<Header<'a>>
    where
        M::Headers: 'a,
    {
        let headers = {
            // Nothing that is done under the lock panics; what it guards is librdkafka's.
            let _reading = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
            message.headers()?
        };
        // The crate panics at a name that is not UTF-8, and the record has to be delivered all the same.
        if let Some(header) = without_panic(|| headers.try_get(number)) {
            return header.map(|header| (header.key, header.value));
        }
        if !self.is_damage_told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "a header's name is no UTF-8 topic={} partition={} offset={} meaning=\"the record is delivered, with the header's name and value replaced\"",
                message.topic(),
                message.partition(),
                message.offset()
            );
        }
        Some((UNREADABLE, None))
    }

    fn record_of<'a>(&'a self, message: &'a impl Message, index: usize) -> Record<'a> {
        Record {
            // It was looked at when the message was taken.
            offset: Offset::new(message.offset()).unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: Headers::of(self, index),
        }
    }
}

/// Bytes of its key and value.
pub(super) fn payload(message: &BorrowedMessage<'_>) -> usize {
    message.key_len() + message.payload_len()
}

impl Arena for Batch {
    fn record(&self, index: usize) -> Record<'_> {
        match &self.content {
            Content::Held(lent) => match lent.messages().get(index) {
                Some(message) => self.record_of(message, index),
                None => Record::default(),
            },
            Content::Copied(message) => self.record_of(&**message, index),
        }
    }

    fn header(&self, index: usize, number: usize) -> Option<Header<'_>> {
        match &self.content {
            Content::Held(lent) => self.header_of(lent.messages().get(index)?, number),
            Content::Copied(message) => self.header_of(&**message, number),
        }
    }
}
