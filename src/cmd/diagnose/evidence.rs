//! What a finding rests on, in words. Pure.

use std::fmt::Write as _;

use super::finding::{Facts, Kind, Part};
use crate::client::Fault;
use crate::config::AutoOffsetReset;
use crate::consumer::resolve;
use crate::record::Offset;
use crate::state::Running;
use crate::verdict::Verdict;

/// Members and partitions beyond these are only counted.
pub(super) const NAMED: usize = 16;

/// Everything that an operator would have looked up by hand. `foreign`: who else uses the group.
pub(super) fn evidence(facts: &Facts<'_>, kind: Kind, foreign: Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(facts.whole.as_ref().map(Fault::to_string));
    lines.extend(facts.parts.iter().take(NAMED).map(|part| offsets(facts, part)));
    if facts.parts.len() > NAMED {
        lines.push(format!("and {} partitions more; worker lag shows them", facts.parts.len() - NAMED));
    }
    lines.extend(foreign);
    match &facts.group.members {
        Ok(members) if members.is_empty() => lines.push(format!("group {} has no members", facts.group.name)),
        Ok(_) => {}
        // That is said already.
        Err(fault) if facts.whole.as_ref() == Some(fault) => {}
        Err(fault) => lines.push(format!("the members of group {} are not known: {fault}", facts.group.name)),
    }
    lines.extend(facts.parts.iter().filter_map(|part| facts.unreadable(part)).map(|fault| fault.to_string()));
    lines.extend(facts.parts.iter().filter_map(|part| transactional(facts, part)));
    let own = || facts.parts.iter().filter(|part| !part.is_elsewhere());
    lines.extend(own().filter_map(|part| set_from_outside(facts, part)));
    lines.extend(own().filter_map(|part| next_start(facts, part)));
    if let Some((base, offsets)) = &facts.group.base {
        let offsets: Vec<String> = offsets.iter().map(|(number, at)| format!("{number}:{at}")).collect();
        lines.push(format!("group {base}, which all topics shared before, has committed {}", offsets.join(",")));
    }
    if let Some(why) = facts.sink_trouble().filter(|_| kind == Kind::SinkFailing) {
        lines.push(format!("sink {} {why}", facts.sink_name));
    }
    own_state(facts, &mut lines);
    if matches!(kind, Kind::Stalled | Kind::SinkFailing) && *facts.running == Running::No {
        lines.push("the worker does not run".to_owned());
    }
    if let Some(gate) = facts.config.gate.as_ref().filter(|_| kind == Kind::Stalled) {
        let required: Vec<&str> = gate.required_topics.iter().map(|name| &**name).collect();
        lines.push(format!(
            "[gate] is set: after a start nothing is delivered before each of {} has records, or {} rounds of {} ms are over",
            required.join(", "),
            gate.max_attempts,
            gate.timeout.as_millis()
        ));
    }
    lines.extend(settings(facts));
    lines
}

/// The numbers of a partition at both ends of the time.
fn offsets(facts: &Facts<'_>, part: &Part) -> String {
    let seen = match &part.seen {
        Ok(seen) => seen,
        Err(fault) => return format!("partition {}: {fault}", part.number),
    };
    let first = part.first.unwrap_or(*seen);
    let or_dash = |at: Option<Offset>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let both = |from: String, to: String| if from == to { to } else { format!("{from} -> {to}") };
    let mut line = format!(
        "partition {}: CURRENT-OFFSET {}, LOG-START-OFFSET {}, LOG-END-OFFSET {}, LAG {}, READABLE {}, EXPIRED {}",
        part.number,
        both(or_dash(first.committed), or_dash(seen.committed)),
        both(first.bounds.log_start.to_string(), seen.bounds.log_start.to_string()),
        both(first.bounds.log_end.to_string(), seen.bounds.log_end.to_string()),
        seen.lag().map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        seen.readable(),
        seen.expired(),
    );
    if part.is_elsewhere() {
        line.push_str("; read by another worker");
    }
    if let Some(rates) = part.rates {
        let consumed = rates.consumed.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
        // A String takes whatever is written to it.
        let _ = write!(line, "; consumed {consumed}/s, produced {:.1}/s", rates.produced);
        if seen.readable() > 0 && rates.consumed.is_some_and(|rate| rate > 0.0) {
            let _ = match rates.catch_up(seen.readable()) {
                Some(time) => write!(line, ", caught up in {} s", time.as_secs().max(1)),
                None => write!(line, ", never caught up at these rates"),
            };
        }
    }
    if let Verdict::Stalled { still, .. } = part.verdict {
        let _ = write!(line, "; nothing moved for {:.1} s", still.as_secs_f64());
    }
    if let Some(Err(fault)) = part.ahead.as_ref().filter(|_| facts.unreadable(part).is_none()) {
        let _ = write!(line, "; the next batch could not be looked at: {fault}");
    }
    line
}

/// What is readable, and is not what a consumer of committed records would get.
fn transactional(facts: &Facts<'_>, part: &Part) -> Option<String> {
    let ahead = facts.transactional(part)?;
    Some(format!(
        "partition {}: the batch at offset {} belongs to a transaction: this client delivers the records of aborted ones, too",
        part.number, ahead.offset
    ))
}

/// The group is not where this worker left it, and stands still: somebody has set it, which may be right.
fn set_from_outside(facts: &Facts<'_>, part: &Part) -> Option<String> {
    let (last, own) = (part.seen.as_ref().ok()?.committed?, part.told?);
    let still = *facts.running == Running::No && part.first?.committed == Some(last);
    // What was committed in the last seconds before a kill -9 is not in the file.
    let killed = if last > own { ", or the worker was killed before it wrote that down" } else { "" };
    (still && last != own).then(|| {
        format!(
            "partition {}: this worker committed {own} last, the group has {last}: it was set since, by a reset of offsets or by another program{killed}",
            part.number
        )
    })
}

/// Where the next start goes on that can't go on where it was.
fn next_start(facts: &Facts<'_>, part: &Part) -> Option<String> {
    let (number, settings) = (part.number, facts.settings);
    let bounds = part.seen.as_ref().ok()?.bounds;
    match part.verdict {
        Verdict::OutOfRange { committed, .. } => {
            let place = if committed < bounds.log_start { "was deleted by retention" } else { "is beyond the log end" };
            let jump = resolve::out_of_range(committed, bounds, settings.on_out_of_range, settings.auto_offset_reset);
            Some(match jump {
                None => format!(
                    "partition {number}: offset {committed} {place}; on_out_of_range is stop, so it will not be read"
                ),
                Some(jump) => {
                    let passed = jump.reset.map_or(0, |range| range.end.since(range.start));
                    format!(
                        "partition {number}: offset {committed} {place}; the next start goes on at {}, and passes over {passed} offsets that exist",
                        jump.to
                    )
                }
            })
        }
        Verdict::NotStarted { .. } => Some(match part.told {
            Some(own) => {
                format!("partition {number}: the state directory remembers offset {own}, where the next start goes on")
            }
            None => {
                if facts.is_new(part) {
                    return Some(format!(
                        "partition {number}: it is new, and read from its start, {}",
                        bounds.log_start
                    ));
                }
                let jump = resolve::first_start(bounds, settings.auto_offset_reset, false);
                let word = match settings.auto_offset_reset {
                    AutoOffsetReset::Latest => "latest",
                    AutoOffsetReset::Earliest => "earliest",
                };
                format!(
                    "partition {number}: auto_offset_reset is {word}: the first start begins at {}, and passes over {} offsets",
                    jump.to,
                    jump.skipped()
                )
            }
        }),
        _ => None,
    }
}

/// What the running worker says of the topic.
fn own_state(facts: &Facts<'_>, lines: &mut Vec<String>) {
    if facts.unknown_to_worker {
        lines.push(
            "the running worker does not have this topic: it has read another configuration than this".to_owned(),
        );
    }
    let Some(status) = facts.status else { return };
    let consumer = &status.consumer;
    let mut say = |line: String| lines.push(format!("the worker says: {line}"));
    if let Some(verdict) = &status.verdict {
        say(format!("{} (run {})", verdict.text, consumer.run));
    }
    if let Some(trouble) = &consumer.trouble {
        say(format!("its client is in trouble for {} ms: {}", trouble.age_ms, trouble.error));
    }
    if let Some(trouble) = &consumer.commit_trouble {
        say(format!("its commits fail for {} ms: {}", trouble.age_ms, trouble.error));
    }
    if let Some(ms) = consumer.full_for_ms {
        say(format!("its memory or its batches are used up for {ms} ms: it waits for its sink"));
    }
    if let Some(call) = consumer.call.as_ref().filter(|call| u128::from(call.age_ms) >= facts.looked.as_millis()) {
        say(format!("{} has not come back from the broker for {} ms", call.request, call.age_ms));
    }
    for part in &status.partitions {
        if let Some(trouble) = &part.trouble {
            say(format!("partition {} can't be read for {} ms: {}", part.partition, trouble.age_ms, trouble.error));
        }
        if let Some(state) = part.state.as_ref().filter(|state| !matches!(state.as_str(), "reading" | "not-held")) {
            say(format!("partition {} is {state}", part.partition));
        }
        if part.in_flight > 0 {
            say(format!("partition {} has {} records with its sink", part.partition, part.in_flight));
        }
    }
}

/// What the settings mean at the rate at which it is written: how late records come, never whether they come.
fn settings(facts: &Facts<'_>) -> Option<String> {
    let settings = facts.settings;
    let bytes_a_second: f64 = facts
        .parts
        .iter()
        .filter_map(|part| {
            let (newest, rates) = (part.newest?, part.rates?);
            let records = newest.records.filter(|count| *count > 0)?;
            Some(newest.size as f64 / f64::from(records) * rates.produced)
        })
        .sum();
    if bytes_a_second <= 0.0 {
        return None;
    }
    let fills = f64::from(settings.fetch_min_bytes) / bytes_a_second;
    let most = settings.fetch_max_wait;
    (fills > most.as_secs_f64()).then(|| {
        format!(
            "about {bytes_a_second:.0} B/s are written, so fetch_min_bytes = {} is not there within fetch_max_wait_ms = {}: the broker \
             answers that much later, and no record is missed; profile = \"real-time\" has them sooner",
            settings.fetch_min_bytes,
            most.as_millis()
        )
    })
}
