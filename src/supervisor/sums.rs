//! The last lines of the log: what became of each topic.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::consumer::Report;

/// Writes one line a topic; `states`: what there is to say of some, which may never have been read.
pub(super) fn log<'a>(
    reports: impl IntoIterator<Item = &'a Report>,
    states: impl Iterator<Item = (&'a Arc<str>, &'static str)>,
) {
    for line in lines(reports, states) {
        log::info!("sums {line}");
    }
}

fn lines<'a>(
    reports: impl IntoIterator<Item = &'a Report>,
    states: impl Iterator<Item = (&'a Arc<str>, &'static str)>,
) -> Vec<String> {
    let states: BTreeMap<&str, &str> = states.map(|(topic, state)| (topic.as_ref(), state)).collect();
    let mut topics: BTreeMap<&str, Vec<&Report>> = states.keys().map(|topic| (*topic, Vec::new())).collect();
    for report in reports {
        topics.entry(&report.partition.topic).or_default().push(report);
    }
    let state = |topic: &str| states.get(topic).map(|state| format!(" state={state}")).unwrap_or_default();
    let of = |(topic, mut parts): (&str, Vec<&Report>)| {
        parts.sort_by_key(|report| report.partition.partition);
        line(topic, &parts) + &state(topic)
    };
    topics.into_iter().map(of).collect()
}

fn line(topic: &str, parts: &[&Report]) -> String {
    let sum = |of: fn(&Report) -> u64| parts.iter().map(|report| of(report)).sum::<u64>();
    let mut line = format!("topic={topic} delivered={} committed=", sum(|r| r.delivered));
    if parts.is_empty() {
        line.push('-');
    }
    for (index, report) in parts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let offset = report.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
        // Writing to a String cannot fail.
        let _ = match parts.len() {
            1 => write!(line, "{offset}"),
            _ => write!(line, "{comma}{}:{offset}", report.partition.partition),
        };
    }
    let _ =
        write!(line, " in_flight={} expired={} reset={}", sum(|r| r.in_flight), sum(|r| r.expired), sum(|r| r.reset));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    #[test]
    fn one_line_a_topic_with_the_committed_offset_of_each_partition() {
        let report = |partition, committed| Report {
            partition: TopicPartition::new("t", partition),
            delivered: 5,
            in_flight: 1,
            expired: 2,
            reset: 3,
            committed,
        };
        let (a, b) = (report(0, Some(7)), report(1, None));
        assert_eq!(line("t", &[&a]), "topic=t delivered=5 committed=7 in_flight=1 expired=2 reset=3");
        assert_eq!(line("t", &[&a, &b]), "topic=t delivered=10 committed=0:7,1:- in_flight=2 expired=4 reset=6");
    }

    #[test]
    fn a_topic_that_was_never_read_has_its_line_too() {
        let report = Report {
            partition: TopicPartition::new("t", 0),
            delivered: 5,
            in_flight: 0,
            expired: 0,
            reset: 0,
            committed: Some(7),
        };
        assert_eq!(
            lines(&[report], [(&"a".into(), "not-started")].into_iter()),
            [
                "topic=a delivered=0 committed=- in_flight=0 expired=0 reset=0 state=not-started",
                "topic=t delivered=5 committed=7 in_flight=0 expired=0 reset=0"
            ]
        );
    }
}
