//! What was given since the last good flush, and what became of it. Pure.
//!
//! A record that is new gets the next number; the reports bear it. As long as all goes well nothing is looked up. When
//! the lane gives records again they are found by the partition and the offset that they come from.

use std::collections::HashMap;

use crate::record::{Offset, TopicPartition};

/// How it stands with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has to be sent, when it is given again.
    Lost,
    /// It was sent and not reported.
    Sent,
    /// All replicas in sync have it.
    Done,
    /// It never will be, for this reason.
    Rejected(String),
}

/// A record that was given.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    source: u32,
    offset: Offset,
    /// Where it goes: a number of the caller's, and a partition.
    pub(super) target: u32,
    pub(super) partition: i32,
    /// Bytes of key and value.
    pub(super) bytes: usize,
    pub(super) state: State,
    /// It is to be sent when nothing else is under way.
    pub(super) alone: bool,
    /// The lane has been told that it was taken: the next flush answers for it.
    taken: bool,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: Vec<Entry>,
    sources: Vec<TopicPartition>,
    sent: usize,
    bytes: usize,
    /// Where each record is, once the lane gives some again.
    index: Option<HashMap<(u32, Offset), usize>>,
}

impl Window {
    /// A number for a partition that records come from.
    pub(super) fn source(&mut self, of: &TopicPartition) -> u32 {
        let at = self.sources.iter().rposition(|known| known == of).unwrap_or_else(|| {
            self.sources.push(of.clone());
            self.sources.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// A flush has failed: nothing counts as taken, and all may be given again.
    pub(super) fn again(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.taken = false);
        self.look_up();
    }

    /// From now on records are looked up before they are taken for new.
    pub(super) fn look_up(&mut self) {
        let entries = self.entries.iter().enumerate();
        self.index.get_or_insert_with(|| entries.map(|(at, entry)| ((entry.source, entry.offset), at)).collect());
    }

    /// Whether they are looked up.
    pub(super) fn looks_up(&self) -> bool {
        self.index.is_some()
    }

    /// The number of a record that was given before.
    pub(super) fn find(&self, source: u32, offset: Offset) -> Option<usize> {
        self.index.as_ref()?.get(&(source, offset)).copied()
    }

    /// A record that was not given before. It counts as lost until it was sent.
    pub(super) fn add(&mut self, source: u32, offset: Offset, target: u32, partition: i32, bytes: usize) -> usize {
        let number = self.entries.len();
        self.entries.push(Entry {
            source,
            offset,
            target,
            partition,
            bytes,
            state: State::Lost,
            alone: false,
            taken: false,
        });
        if let Some(index) = &mut self.index {
            index.insert((source, offset), number);
        }
        number
    }

    pub(super) fn get(&self, number: usize) -> Option<&Entry> {
        self.entries.get(number)
    }

    /// It goes elsewhere than before, as the topic has got more partitions.
    pub(super) fn place(&mut self, number: usize, partition: i32) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.partition = partition;
        }
    }

    /// It has to be sent when nothing else is under way.
    pub(super) fn isolate(&mut self, number: usize) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.alone = true;
        }
    }

    pub(super) fn set(&mut self, number: usize, state: State) {
        let Some(entry) = self.entries.get_mut(number) else { return };
        if entry.state == State::Sent {
            (self.sent, self.bytes) = (self.sent - 1, self.bytes - entry.bytes);
        }
        if state == State::Sent {
            (self.sent, self.bytes) = (self.sent + 1, self.bytes + entry.bytes);
        }
        entry.state = state;
    }

    /// How many were sent and not reported, and their bytes.
    pub(super) fn under_way(&self) -> (usize, usize) {
        (self.sent, self.bytes)
    }

    /// What was sent and not reported is lost.
    pub(super) fn lose(&mut self) {
        self.entries.iter_mut().filter(|entry| entry.state == State::Sent).for_each(|entry| entry.state = State::Lost);
        (self.sent, self.bytes) = (0, 0);
    }

    /// The lane is told that it was taken, or that it was not.
    pub(super) fn take(&mut self, number: usize, taken: bool) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.taken = taken;
        }
    }

    /// The first one that was taken and is not delivered: where it comes from.
    pub(super) fn undone(&self) -> Option<(&Entry, &TopicPartition, Offset)> {
        let entry = self.entries.iter().find(|entry| entry.taken && entry.state != State::Done)?;
        Some((entry, self.sources.get(entry.source as usize)?, entry.offset))
    }

    /// All of it is delivered, and nothing of it will be given again.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.sources.clear();
        (self.sent, self.bytes, self.index) = (0, 0, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn what_is_given_again_is_found_and_what_was_not_taken_is_new() {
        let mut window = Window::default();
        let (a, b) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let source = window.source(&a);
        assert_eq!((source, window.source(&b), window.source(&a)), (0, 1, 0));
        for offset in 5..8 {
            let number = window.add(source, at(offset), 0, 0, 10);
            window.set(number, State::Sent);
        }
        assert_eq!((window.under_way(), window.find(source, at(6))), ((3, 30), None));
        (0..3).for_each(|number| window.take(number, true));
        window.set(0, State::Done);
        window.lose();
        let (entry, from, offset) = window.undone().unwrap();
        assert_eq!((&entry.state, from, offset), (&State::Lost, &a, at(6)));
        window.again();
        assert!(window.undone().is_none(), "nothing counts as taken");
        assert_eq!((window.under_way(), window.find(source, at(6)), window.find(1, at(6))), ((0, 0), Some(1), None));
        window.take(1, true);
        assert_eq!(window.undone().unwrap().2, at(6));
        window.set(1, State::Done);
        assert!(window.undone().is_none(), "what is behind was not given again");
        let number = window.add(source, at(8), 0, 0, 10);
        assert_eq!((number, window.find(source, at(8))), (3, Some(3)));
        window.clear();
        assert!(!window.looks_up() && window.get(0).is_none());
    }
}
