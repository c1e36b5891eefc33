//! The keys of `type = "exec"`.

use super::super::read::Reader;
use super::super::resolve::KAFKA_INT_MAX;
use super::super::value::{self, Choice};
use crate::sink::exec::{Mode, Settings};

/// The longest batch that a consumer hands over has fewer.
const RECORDS_MAX: u64 = 100_000;
/// A handler that takes longer to end is none.
const KILL_MAX_MS: u64 = 600_000;

impl Choice for Mode {
    const ALL: &'static [(&'static str, Self)] = &[("stream", Self::Stream), ("batch", Self::Batch)];
}

/// Reads them.
pub(super) fn read(sink: &mut Reader<'_, '_>, name: &str) -> Option<Settings> {
    let example = format!("[\"/usr/local/lib/{name}.py\"]");
    let command = sink.list("command", &example, false, word);
    let command = sink.required("command", command, &example);
    let mode = sink.choice("mode");
    let timeout = sink.millis("timeout_ms", 1..=KAFKA_INT_MAX);
    let start_timeout = sink.millis("start_timeout_ms", 1..=KAFKA_INT_MAX);
    if mode == Some(Mode::Batch) {
        if sink.own("start_timeout_ms").is_some() {
            let text = "does nothing with mode = \"batch\", where timeout_ms is for a whole run; leave it out";
            sink.wrong("start_timeout_ms", text.to_owned());
        }
        sink.set_aside("start_timeout_ms");
        sink.leave_out("start_timeout_ms");
    }
    let max_batch_records = sink.number("max_batch_records", 1..=RECORDS_MAX);
    let kill_timeout = sink.millis("kill_timeout_ms", 0..=KILL_MAX_MS);
    let command: Vec<String> = command?.into_iter().map(toml::Spanned::into_inner).collect();
    if command.first().is_none_or(String::is_empty) {
        sink.wrong("command", format!("has no program; write it first, such as {example}"));
        return None;
    }
    Some(Settings {
        command,
        mode: mode?,
        timeout: timeout?,
        start_timeout: start_timeout?,
        max_batch_records: max_batch_records?,
        kill_timeout: kill_timeout?,
    })
}

/// Of a sink without a type: each key has its type of value.
pub(super) fn any(sink: &mut Reader<'_, '_>) {
    let _ = sink.list("command", "[\"/usr/local/lib/handler.py\"]", false, word);
    let _ = sink.choice::<Mode>("mode");
    let _ = sink.millis("timeout_ms", 1..=KAFKA_INT_MAX);
    let _ = sink.millis("start_timeout_ms", 1..=KAFKA_INT_MAX);
    let _ = sink.number::<usize>("max_batch_records", 1..=RECORDS_MAX);
    let _ = sink.millis("kill_timeout_ms", 0..=KILL_MAX_MS);
}

/// One word of a command. The system ends it at a zero byte.
fn word(word: &str) -> Result<(), String> {
    if word.contains('\0') {
        return Err(format!("is {}, with a zero byte; leave that out", value::show_text(word)));
    }
    Ok(())
}
