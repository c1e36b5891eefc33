//! One question at a time about a partition, over the wire socket, and what follows from its answer.
//!
//! Owns which question is under way. What always holds: an answer about a place that was left, of an earlier seek or
//! position, means nothing.

use std::time::Instant;

use super::inquiry::{Answer, Inquiry, Question};
use super::partition::{Partition, Step};
use super::{LibrdkafkaReader, properties};
use crate::client::Fault;
use crate::client::reader::SLACK;
use crate::record::{Offset, TopicPartition};
use crate::wire::Header;

/// The partition that a question is about.
pub(super) struct Asked {
    name: TopicPartition,
    epoch: u64,
    position: Offset,
    question: Question,
}

impl LibrdkafkaReader {
    /// Starts the next question.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.link.is_busy() {
            return;
        }
        let asked = self.parts.iter().find_map(|part| match (&part.step, part.position, &part.leader) {
            (Step::Ask(question), Some(position), Some(leader)) => {
                let (name, epoch) = (part.name.clone(), part.epoch);
                Some((Asked { name, epoch, position, question: question.clone() }, leader.clone()))
            }
            _ => None,
        });
        let Some((asked, leader)) = asked else {
            // Who leads it is not known yet.
            self.told.survey_soon |= self.parts.iter().any(|part| matches!(part.step, Step::Ask(_)));
            return;
        };
        let (name, position, question) = (asked.name.clone(), asked.position, asked.question.clone());
        let call = match &question {
            Question::Bounds => "ListOffsets",
            Question::Batch { .. } => "Fetch (batch header)",
        };
        let run = move |inquiry: &mut Inquiry| inquiry.ask(&question, &leader, &name, position);
        let allowed = self.connection.connect_timeout + self.connection.request_timeout + SLACK;
        match self.link.start(call, allowed, now, run) {
            Ok(()) => self.asked = Some(asked),
            Err(fault) => self.answered(&asked, Err(fault), now),
        }
    }

    pub(super) fn collect(&mut self, now: Instant) {
        let Some(reply) = self.link.reply(now) else { return };
        if let Some(asked) = self.asked.take() {
            self.answered(&asked, reply, now);
        }
    }

    fn answered(&mut self, asked: &Asked, reply: Result<Answer, Fault>, now: Instant) {
        let (limit, setting) = properties::largest_batch(&self.settings);
        let events = &mut self.told.events;
        let same = |part: &&mut Partition| {
            part.name == asked.name && part.epoch == asked.epoch && part.position == Some(asked.position)
        };
        let Some(part) = self.parts.iter_mut().find(same) else { return };
        let fault = match reply {
            Ok(Answer::Bounds(Ok(bounds))) => return part.bounds(bounds, now, events),
            Ok(Answer::Batch(Ok(Header::OutOfRange))) => {
                part.step = Step::Ask(Question::Bounds);
                return;
            }
            Ok(Answer::Batch(Ok(Header::Refused(fault)))) => fault,
            Ok(Answer::Batch(Ok(header))) => {
                let too_large = match &header {
                    Header::Batch(batch) if batch.size > limit => {
                        Some(Fault::TooLarge { offset: asked.position, size: batch.size, limit, setting })
                    }
                    _ => None,
                };
                let known = match &asked.question {
                    Question::Batch { fault } => fault.clone(),
                    Question::Bounds => None,
                };
                let Some(fault) = too_large.or(known) else {
                    // Nothing is wrong with it.
                    part.step = if part.is_assigned { Step::Run } else { Step::Start };
                    return;
                };
                fault
            }
            Ok(Answer::Bounds(Err(fault)) | Answer::Batch(Err(fault))) | Err(fault) => {
                self.told.survey_soon = true;
                fault
            }
        };
        part.fail(fault, now, &mut self.told.events);
    }
}
