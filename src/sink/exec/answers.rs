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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `count` numbers given, all of them in the pipe.
    fn owed(count: usize) -> Owed {
        let mut owed = Owed::new();
        for _ in 0..count {
            owed.give();
            owed.has_gone();
        }
        owed
    }

    fn failed(reason: &str, retry: bool) -> Settled {
        Settled::Failed { reason: reason.to_owned(), retry }
    }

    fn take(owed: &mut Owed, line: &str) -> Result<(), String> {
        owed.take(line.as_bytes()).map_err(|nonsense| nonsense.0)
    }

    #[test]
    fn an_ack_settles_everything_up_to_it_that_has_not_failed() {
        let mut owed = owed(5);
        take(&mut owed, r#"{"fail": 2, "reason": " broken ", "retry": false}"#).unwrap();
        take(&mut owed, r#"{"ack":3}"#).unwrap();
        take(&mut owed, r#"{"retry":true,"fail":5}"#).unwrap();
        let expected =
            [Settled::Done, failed("broken", false), Settled::Done, Settled::No, failed("no reason given", true)];
        assert_eq!(owed.states(), expected);
        assert_eq!((owed.open(), owed.has_failed()), (1, true));
        // A chunk's last record fails, and the chunk is acknowledged by its number.
        take(&mut owed, r#" { "ack" : 5 } "#).unwrap();
        assert_eq!(owed.open(), 0);
        owed.begin();
        assert_eq!((owed.give(), owed.has_failed()), (6, false));
    }

    #[test]
    fn numbers_that_were_never_given_or_are_settled_are_told() {
        let mut owed = owed(3);
        for line in [r#"{"ack":0}"#, r#"{"ack":4}"#, r#"{"fail":4}"#, r#"{"ack":18446744073709551615}"#] {
            let why = take(&mut owed, line).unwrap_err();
            assert!(why.contains("it was given 1 to 3"), "{line}: {why}");
        }
        take(&mut owed, r#"{"ack":2}"#).unwrap();
        for line in [r#"{"ack":2}"#, r#"{"ack":1}"#] {
            assert!(take(&mut owed, line).unwrap_err().contains("everything up to 2 is settled already"), "{line}");
        }
        assert!(take(&mut owed, r#"{"fail":2}"#).unwrap_err().contains("it fails 2, which is settled already"));
        take(&mut owed, r#"{"fail":3}"#).unwrap();
        assert!(take(&mut owed, r#"{"fail":3}"#).unwrap_err().contains("settled already"));
        owed.begin();
        assert!(take(&mut owed, r#"{"ack":3}"#).unwrap_err().contains("everything up to 3 is settled already"));
        assert!(take(&mut Owed::new(), r#"{"ack":1}"#).unwrap_err().contains("given none yet"));
    }

    /// What is still on our side can't have been read.
    #[test]
    fn a_line_that_has_not_gone_out_can_not_be_answered() {
        let mut owed = owed(2);
        assert_eq!(owed.give(), 3);
        assert!(take(&mut owed, r#"{"ack":3}"#).unwrap_err().contains("it was given 1 to 2"));
        owed.has_gone();
        take(&mut owed, r#"{"ack":3}"#).unwrap();
    }

    #[test]
    fn what_is_no_answer_is_shown() {
        for (line, words) in [
            ("", "is no answer: ''"),
            ("hello", "is no answer: 'hello'"),
            ("[1,null,null,null]", "is no answer: '[1,null,null,null]'"),
            ("7", "is no answer: '7'"),
            ("{}", "neither ack nor fail"),
            (r#"{"ack":1,"fail":1}"#, "both ack and fail"),
            (r#"{"ack":1,"reason":"x"}"#, "reason and retry belong to fail"),
            (r#"{"ack":-1}"#, "invalid value"),
            (r#"{"ack":1.0}"#, "invalid type"),
            (r#"{"ack":"1"}"#, "invalid type"),
            (r#"{"ack":1,"ack":2}"#, "duplicate field"),
            (r#"{"fail":1,"retries":false}"#, "unknown field `retries`"),
            (r#"{"ack":1"#, "EOF"),
            (r#"{"ack":1}{"ack":2}"#, "trailing characters"),
            ("\u{1b}[31mred", r"'\u{1b}[31mred'"),
        ] {
            let why = take(&mut owed(3), line).unwrap_err();
            assert!(why.contains(words) && why.contains("belongs on standard error"), "{line}: {why}");
            assert!(!why.contains(" at line "), "{why}");
        }
        let long = take(&mut owed(1), &"x".repeat(5_000)).unwrap_err();
        assert!(long.len() < 400 && long.contains("xxx…'"), "{long}");
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 10_000];
        let ok = (0..).take_while(|_| lines.push(&chunk, |_| Ok(())).is_ok()).count();
        assert_eq!(ok, LONGEST_LINE / 10_000);
        assert!(lines.rest.len() <= LONGEST_LINE);
        let mut whole = vec![b'y'; LONGEST_LINE + 1];
        whole.push(b'\n');
        assert!(Lines::default().push(&whole, |_| Ok(())).is_err());
        let mut most = vec![b'y'; LONGEST_LINE];
        most.push(b'\n');
        let mut seen = 0;
        let mut lines = Lines::default();
        for part in most.chunks(7_000) {
            lines
                .push(part, |line| {
                    seen += line.len();
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(seen, LONGEST_LINE);
    }

    /// Answers, near-answers, and anything else.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => (0_u64..12).prop_map(|seq| format!("{{\"ack\":{seq}}}")),
            4 => (0_u64..12, any::<bool>()).prop_map(|(seq, retry)| format!("{{\"fail\":{seq},\"retry\":{retry}}}")),
            1 => "\\PC{0,20}",
            1 => prop::sample::select(&["{", "{}", "null", "{\"ack\":1e3}", "{\"ack\":99999999999999999999}", "[]"][..])
                .prop_map(str::to_owned),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_never_settle_what_was_not_given(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(1_usize..50, 1..20),
            given in 0_usize..8,
        ) {
            let mut owed = owed(given);
            owed.give();
            let mut lines = Lines::default();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (part, behind) = rest.split_at(cut.min(rest.len()));
                let _ = lines.push(part, |line| owed.take(line));
                rest = behind;
            }
            prop_assert_eq!(owed.states()[given].clone(), Settled::No);
        }

        /// Against a naive model: a set of settled numbers.
        #[test]
        fn answers_settle_what_they_say(all in prop::collection::vec(line(), 0..40), given in 0_u64..10) {
            let mut owed = owed(given as usize);
            let mut model: Vec<Option<bool>> = vec![None; given as usize];
            let mut highest = 0;
            for line in all {
                let before = model.clone();
                let json: Option<serde_json::Value> = serde_json::from_str(&line).ok();
                let number = |name: &str| json.as_ref()?.get(name)?.as_u64();
                let good = match (number("ack"), number("fail")) {
                    (Some(ack), _) if ack > highest && ack <= given => {
                        model[..ack as usize].iter_mut().for_each(|state| *state = state.or(Some(true)));
                        highest = ack;
                        true
                    }
                    (_, Some(fail)) if fail > highest && fail <= given && before[fail as usize - 1].is_none() => {
                        model[fail as usize - 1] = Some(false);
                        true
                    }
                    _ => false,
                };
                prop_assert_eq!(owed.take(line.as_bytes()).is_ok(), good, "{}", line);
                let states: Vec<_> = owed.states().iter().map(|state| match state {
                    Settled::No => None,
                    Settled::Done => Some(true),
                    Settled::Failed { .. } => Some(false),
                }).collect();
                prop_assert_eq!(&states, &model);
                prop_assert_eq!(owed.open(), model.iter().filter(|state| state.is_none()).count());
            }
        }
    }
}
