//! What a handler answers, and what that settles. Pure.
//!
//! Owns the protocol's second half: the lines that come back, and the numbers that are owed. What always
//! holds:
//! - nothing is settled that was not given: a number counts as given when the last byte of its line is
//!   in the handler's pipe;
//! - of a line that does not end no more than [`LONGEST_LINE`] bytes are kept;
//! - what makes no sense settles nothing, and is an error that says what came.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::logging::foreign;

/// An answer has some 30 bytes, or a reason as well. What is longer is none.
pub(super) const LONGEST_LINE: usize = 64 << 10;
/// Of a reason in the log and in what becomes of the record, in characters.
const REASON_MAX: usize = 1_000;
/// Of a line that is no answer, in characters.
const SHOWN: usize = 120;

/// What a handler said of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing yet.
    No,
    Done,
    Failed {
        reason: String,
        retry: bool,
    },
}

/// What came is no answer, or one about a number that is not owed. The text says what, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) String);

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Everything up to this number that has not failed is done.
    Ack(u64),
    /// This number alone.
    Fail { seq: u64, reason: String, retry: bool },
}

/// The members of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    ack: Option<u64>,
    fail: Option<u64>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    retry: Option<bool>,
}

fn parse(line: &[u8]) -> Result<Answer, Nonsense> {
    let no_answer = |why: &str| {
        Nonsense(format!(
            "what it wrote to its standard output is no answer{why}: {}; answers are {{\"ack\": N}} and {{\"fail\": N, \
             \"reason\": \"…\", \"retry\": false}}, each alone on a line; anything else belongs on standard error",
            shown(line)
        ))
    };
    // A list would be taken for an object, its elements for the members in their order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(no_answer(""));
    }
    let members: Members<'_> =
        serde_json::from_slice(line).map_err(|error| no_answer(&format!(" ({})", without_place(&error))))?;
    match members {
        Members { ack: Some(seq), fail: None, reason: None, retry: None } => Ok(Answer::Ack(seq)),
        Members { ack: None, fail: Some(seq), reason, retry } => {
            let reason = reason.as_deref().map_or("no reason given", str::trim);
            let reason = reason.chars().take(REASON_MAX).collect();
            Ok(Answer::Fail { seq, reason, retry: retry.unwrap_or(true) })
        }
        Members { ack: Some(_), fail: Some(_), .. } => Err(no_answer(" (it has both ack and fail)")),
        Members { ack: Some(_), .. } => Err(no_answer(" (reason and retry belong to fail)")),
        Members { ack: None, fail: None, .. } => Err(no_answer(" (it has neither ack nor fail)")),
    }
}

/// What serde says, without "at line 1 column 7".
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// The beginning of what came, in quotes, without anything that a terminal would obey.
pub(super) fn shown(bytes: &[u8]) -> String {
    // A character has at most four bytes.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]);
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < bytes.len() {
        shown.push('…');
    }
    // Single quotes, as this stands inside of error="…".
    format!("'{}'", foreign(&shown))
}

/// Bytes to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line that has not ended yet.
    rest: Vec<u8>,
}

impl Lines {
    /// Hands each line that ends in `bytes` to `take`, without its line break.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Nonsense>,
    ) -> Result<(), Nonsense> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let line = &bytes[..end];
            if self.rest.len() + line.len() > LONGEST_LINE {
                self.rest.extend_from_slice(&line[..line.len().min(LONGEST_LINE)]);
                return Err(too_long(&self.rest));
            }
            if self.rest.is_empty() {
                take(line)?;
            } else {
                self.rest.extend_from_slice(line);
                let result = take(&self.rest);
                self.rest.clear();
                result?;
            }
            bytes = &bytes[end + 1..];
        }
        let room = LONGEST_LINE.saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room { Err(too_long(&self.rest)) } else { Ok(()) }
    }
}

fn too_long(line: &[u8]) -> Nonsense {
    Nonsense(format!(
        "a line of its standard output is longer than {} KiB: {}; answers are short, anything else belongs on standard \
         error",
        LONGEST_LINE >> 10,
        shown(line)
    ))
}

/// What one handler was given since the last [`begin`](Self::begin), and what it said of it.
#[derive(Debug)]
pub(super) struct Owed {
    /// The number of the first one.
    first: u64,
    /// Everything up to this one is settled.
    acked: u64,
    /// One for each number from `first` on.
    states: Vec<Settled>,
    /// How many of `states` are in the handler's pipe; the rest waits here.
    sent: usize,
    /// How many of `states` are not settled.
    open: usize,
    failed: bool,
}

impl Owed {
    /// Of a handler that was just started: its numbers begin with 1.
    pub(super) const fn new() -> Self {
        Self { first: 1, acked: 0, states: Vec::new(), sent: 0, open: 0, failed: false }
    }

    /// Forgets what is settled, to give more.
    pub(super) fn begin(&mut self) {
        self.first += self.states.len() as u64;
        self.acked = self.first - 1;
        self.states.clear();
        (self.sent, self.open, self.failed) = (0, 0, false);
    }

    /// Takes one more number.
    pub(super) fn give(&mut self) -> u64 {
        self.states.push(Settled::No);
        self.open += 1;
        self.first + self.states.len() as u64 - 1
    }

    /// The next number that was taken has gone out as a whole.
    pub(super) fn has_gone(&mut self) {
        self.sent = (self.sent + 1).min(self.states.len());
    }

    /// How many numbers wait for an answer.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Whether one has failed since the last [`begin`](Self::begin).
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// What is known of each number since the last [`begin`](Self::begin).
    pub(super) fn states(&self) -> &[Settled] {
        &self.states
    }

    /// Takes a line of the handler's.
    pub(super) fn take(&mut self, line: &[u8]) -> Result<(), Nonsense> {
        match parse(line)? {
            Answer::Ack(seq) => {
                self.is_given(seq, "acknowledges")?;
                if seq <= self.acked {
                    return Err(Nonsense(format!(
                        "it acknowledges {seq}, and everything up to {} is settled already; each ack has a higher \
                         number than the one before it",
                        self.acked
                    )));
                }
                for state in &mut self.states[(self.acked + 1 - self.first) as usize..=(seq - self.first) as usize] {
                    if *state == Settled::No {
                        *state = Settled::Done;
                        self.open -= 1;
                    }
                }
                self.acked = seq;
            }
            Answer::Fail { seq, reason, retry } => {
                self.is_given(seq, "fails")?;
                let state = if seq > self.acked { self.states.get_mut((seq - self.first) as usize) } else { None };
                let Some(state) = state.filter(|state| **state == Settled::No) else {
                    return Err(Nonsense(format!(
                        "it fails {seq}, which is settled already; each number has one answer, and an ack answers all \
                         up to its own"
                    )));
                };
                *state = Settled::Failed { reason, retry };
                self.open -= 1;
                self.failed = true;
            }
        }
        Ok(())
    }

    fn is_given(&self, seq: u64, verb: &str) -> Result<(), Nonsense> {
        let last = self.first + self.sent as u64 - 1;
        if (1..=last).contains(&seq) {
            return Ok(());
        }
        let given = if last == 0 { "it was given none yet".to_owned() } else { format!("it was given 1 to {last}") };
        Err(Nonsense(format!("it {verb} {seq}, and {given}; an answer has the seq of a record that was read")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
