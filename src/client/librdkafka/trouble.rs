//! What librdkafka's errors and statistics mean for partitions.

use super::context::{Fetches, Statistics, Trouble};
use super::properties::MESSAGE;
use super::*;
use crate::client::{Principal, Resource};

/// A member whose place another one has taken tries to take it back this often: not so often that both do nothing else.
const FENCED_RETRY: Duration = Duration::from_secs(300);
/// librdkafka's words for an answer that is larger than it may be; the connection is closed then.
const TOO_LARGE: &str = "increase receive.message.max.bytes";

/// How a broker answers fetches, from one look at the statistics to the next. librdkafka tells nobody of requests that are
/// not answered: it closes the connection, opens another and asks again.
#[derive(Default)]
pub(super) struct Answers {
    last: Fetches,
    /// What had been sent and was not given up, when it fell silent.
    silent: Option<u64>,
}

impl Answers {
    /// Whether the broker answers no fetch: since the last look, or an earlier one, each was given up. One may be under
    /// way at each look. Asked again with the same numbers, for another partition of the broker, it says the same.
    fn is_silent(&mut self, now: Fetches) -> bool {
        let answered = |fetches: Fetches| fetches.sent.saturating_sub(fetches.timeouts);
        let before = self.silent.unwrap_or(answered(self.last));
        let gave_up = now.timeouts > self.last.timeouts;
        let goes_on = answered(now) > before + 1;
        self.last = now;
        self.silent = ((gave_up || self.silent.is_some()) && !goes_on).then_some(before);
        self.silent.is_some()
    }
}

/// The group among what is in trouble.
pub(super) const GROUP: &str = "group";

/// What an error means for a member of a group; `None`: nothing, or a partition that is lost tells it.
fn group_trouble(group: &str, who: &Principal, joining: &Joining, trouble: &Trouble) -> Option<Fault> {
    let refused = |what: &str| Fault::Refused { call: "JoinGroup", code: format!("{:?}: {what}", trouble.code) };
    let unauthorized = |what| Fault::unauthorized("JoinGroup", what, format!("{:?}", trouble.code), who.clone());
    Some(match trouble.code {
        Code::GroupAuthorizationFailed => unauthorized(Resource::Group(group.to_owned())),
        Code::TopicAuthorizationFailed => {
            unauthorized(Resource::Topics(joining.topics.iter().map(ToString::to_string).collect()))
        }
        Code::InconsistentGroupProtocol => refused(&format!(
            "group {group} has members with another assignment strategy or protocol, for instance the program that this one replaces; stop them"
        )),
        Code::GroupMaxSizeReached => refused(&format!("group {group} has as many members as the broker allows")),
        Code::InvalidSessionTimeout => refused(
            "session.timeout.ms under [kafka.librdkafka] is outside of group.min.session.timeout.ms and group.max.session.timeout.ms of the broker",
        ),
        Code::UnsupportedAssignor | Code::UnsupportedVersion | Code::UnsupportedFeature => refused(&trouble.text),
        _ => return None,
    })
}

impl LibrdkafkaReader {
    /// librdkafka will do nothing more in this life.
    pub(super) fn fatal(&mut self, code: Code, text: &str, now: Instant) {
        let instance = self.joining.as_ref().and_then(|joining| joining.instance_id.clone());
        log::debug!("librdkafka gives up consumer={} code={code:?} error=\"{text}\"", self.name);
        self.remake();
        let (fault, wait) = match (code, instance) {
            (Code::FencedInstanceId, Some(instance)) => {
                (Fault::InstanceFenced { group: self.group.clone(), instance }, FENCED_RETRY)
            }
            _ => (Fault::Broken { call: "librdkafka", why: text.to_owned() }, self.backoff.next_wait()),
        };
        self.not_before = Some(now + wait);
        self.told.trouble(GROUP, fault);
    }

    /// An error of a broker or of the cluster. The survey looks at the brokers over our own socket, and says what is
    /// wrong with them in better words.
    pub(super) fn broker_trouble(&mut self, trouble: &Trouble) {
        log::debug!(
            "librdkafka tells an error consumer={} code={:?} error=\"{}\"",
            self.name,
            trouble.code,
            trouble.text
        );
        self.told.survey_soon = true;
        if let Some(joining) = &self.joining
            && let Some(fault) = group_trouble(&self.group, &self.connection.security.principal(), joining, trouble)
        {
            self.told.trouble(GROUP, fault);
        }
        // That all brokers are down says less than what it said of the last of them.
        if trouble.code != Code::AllBrokersDown {
            self.last_trouble = Some(trouble.text.clone());
        }
        if trouble.text.contains(TOO_LARGE) {
            // It does not say of which partition.
            for part in self.parts.iter_mut().filter(|part| part.step == Step::Run) {
                part.step = Step::Ask(Question::Batch { fault: None });
            }
        }
    }

    /// An error of one partition, out of its own queue.
    pub(super) fn partition_trouble(&mut self, index: usize, code: Code, text: &str, now: Instant) {
        let Some(part) = self.parts.get_mut(index) else { return };
        log::debug!("librdkafka tells an error {} code={code:?} error=\"{text}\"", part.name);
        let Some(offset) = part.position else { return };
        let name = || format!("{code:?}");
        let fault = match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                part.step = Step::Ask(Question::Bounds);
                return;
            }
            Code::MessageSizeTooLarge => {
                let why = format!("the batch at offset={offset} does not fit: {text}");
                part.step = Step::Ask(Question::Batch { fault: Some(Fault::Broken { call: "Fetch", why }) });
                return;
            }
            // It may have been damaged on the way, or on a disk that is not the leader's a moment later.
            Code::BadMessage | Code::InvalidMessage | Code::BadCompression if part.is_tried_again(now) => return,
            Code::BadMessage | Code::InvalidMessage | Code::BadCompression => Fault::Corrupt { offset },
            Code::TopicAuthorizationFailed => {
                let (what, who) = (Resource::topic(&part.name.topic), self.connection.security.principal());
                Fault::unauthorized("Fetch", what, name(), who)
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.told.survey_soon = true;
                Fault::Refused { call: "Fetch", code: name() }
            }
            _ => {
                self.told.survey_soon = true;
                let why = format!("at offset={offset}: {text}");
                Fault::Broken { call: "Fetch", why }
            }
        };
        part.fail(fault, now, &mut self.told.events);
    }

    /// What librdkafka holds, and which brokers it is connected to.
    pub(super) fn observe(&mut self, statistics: &Statistics, now: Instant) {
        let account = self.held.answer();
        account.add(statistics.queued(MESSAGE));
        self.queued = Some(account);
        let mut well = true;
        for part in self.parts.iter_mut().filter(|part| part.step == Step::Run) {
            let link = statistics.link(&part.name.topic, part.name.partition);
            let last = || self.last_trouble.as_deref().unwrap_or("no reason given");
            let fault = match link {
                Some(link) => {
                    let is_silent = self.answers.entry(link.broker.clone()).or_default().is_silent(link.fetches);
                    match link.down {
                        None if !is_silent => {
                            part.connected(&mut self.told.events);
                            continue;
                        }
                        Some(state) if !is_silent || self.last_trouble.is_some() => {
                            let why = format!("librdkafka is not connected to it ({state}): {}", last());
                            Fault::Unreachable { broker: link.broker, why, advertised: true }
                        }
                        // Between two fetches that are given up it closes the connection, and opens another.
                        _ => {
                            let time = self.connection.request_timeout + self.settings.max_wait;
                            let after_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                            Fault::Silent { broker: link.broker, call: "Fetch", after_ms }
                        }
                    }
                }
                // It has not found out who leads it. The survey says so of a partition without leader.
                None => {
                    let why = format!("librdkafka finds no broker to read from: {}", last());
                    Fault::Broken { call: "Metadata", why }
                }
            };
            well = false;
            part.ails(fault, now, &mut self.told.events);
        }
        if well {
            self.last_trouble = None;
        } else {
            self.told.survey_soon = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_silent_from_the_first_fetch_given_up_until_some_are_answered() {
        let mut answers = Answers::default();
        let mut looks = |sent, timeouts| answers.is_silent(Fetches { sent, timeouts });
        assert!(!looks(20, 0));
        // A request of another kind was given up.
        assert!(!looks(40, 1));
        assert!(looks(44, 5));
        // One takes longer than from one look to the next.
        assert!(looks(44, 5));
        assert!(looks(45, 5));
        assert!(looks(45, 6));
        assert!(looks(45, 6));
        assert!(!looks(48, 6));
        assert!(!looks(48, 6));
        assert!(!looks(60, 6));
    }
}
