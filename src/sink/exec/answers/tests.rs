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
