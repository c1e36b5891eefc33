use super::*;
use crate::client::Bounds;
use crate::record::Offset;
use crate::trend::Rates;
use crate::verdict::Seen;

const OVER: Duration = Duration::from_secs(10);

fn row(topic: &str, committed: i64, end: i64, verdict: Verdict) -> Row {
    let at = |number| Offset::new(number).unwrap();
    let bounds = Bounds { log_start: at(3), log_end: at(end) };
    Row {
        group: format!("g-{topic}"),
        topic: topic.into(),
        partition: Some(0),
        seen: Ok(Seen { bounds, committed: Offset::new(committed), last_stable: None }),
        verdict,
        rates: Some(Rates { consumed: Offset::new(committed).map(|_| 3.0), produced: 1.0, over: OVER }),
    }
}

fn missing() -> Row {
    let fault = Fault::TopicMissing { topic: "gone".to_owned() };
    Row {
        group: "g-gone".to_owned(),
        topic: "gone".into(),
        partition: None,
        seen: Err(fault),
        verdict: Verdict::Missing,
        rates: None,
    }
}

#[test]
fn a_table_has_a_dash_where_there_is_nothing() {
    let rows = [row("orders", 1, 100, Verdict::Idle), row("t", -1, 5, Verdict::Empty), missing()];
    assert_eq!(
        Table::new(&rows, false).lines(),
        [
            "GROUP     TOPIC   PARTITION  CURRENT-OFFSET  LOG-START-OFFSET  LOG-END-OFFSET  LAG  READABLE  EXPIRED  VERDICT",
            "g-orders  orders          0               1                 3             100   99        97        2  idle",
            "g-t       t               0               -                 3               5    -         2        0  empty",
            "g-gone    gone            -               -                 -               -    -         -        -  missing",
        ]
    );
    let with_rates = Table::new(&rows, true);
    let tails: Vec<&str> = with_rates.lines().iter().map(|line| line.split("EXPIRED  ").last().unwrap()).collect();
    assert_eq!(tails[0], "CONSUMED/s  PRODUCED/s  CATCH-UP  VERDICT");
    assert!(tails[1].ends_with("3.0         1.0       49s  idle"), "{}", tails[1]);
    assert!(tails[2].ends_with("-         1.0         -  empty"), "{}", tails[2]);
}

#[test]
fn times_are_short() {
    let table =
        [(0, "0s"), (1, "1s"), (59_001, "1m00s"), (190_000, "3m10s"), (7_500_000, "2h05m"), (360_000_000, "4d04h")];
    for (ms, text) in table {
        assert_eq!(time(Duration::from_millis(ms)), text);
    }
}

#[test]
fn a_screen_keeps_its_size_and_what_has_most_to_read() {
    let mut rows: Vec<Row> = (0..100).map(|n| row(&format!("topic-{n}"), 3, 100 + n, Verdict::Idle)).collect();
    rows.push(missing());
    let draw = |rows: &[Row], first| {
        let mut out = Vec::new();
        redraw(&Ok(rows.to_vec()), first, Duration::from_secs(2), (10, 60), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let screen = draw(&rows, true);
    assert!(screen.starts_with("\x1b[2J\x1b[H") && screen.ends_with("\x1b[J"));
    let lines: Vec<&str> = screen["\x1b[2J\x1b[H".len()..].split("\x1b[K\r\n").collect();
    assert_eq!(lines.len(), 10, "nine lines, and the cursor's");
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:?}");
    assert!(lines[2].starts_with("gone"), "{}", lines[2]);
    assert!(lines[3].starts_with("topic-99") && lines[7].starts_with("topic-95"), "{lines:?}");
    assert_eq!(lines[8], "and 95 more, with less to read");
    // It fits: in the order of the configuration, drawn over what was there.
    let screen = draw(&rows[..3], false);
    assert!(screen.starts_with("\x1b[H") && !screen.contains("\x1b[2J"));
    let at = |name: &str| screen.find(name).unwrap();
    assert!(at("topic-0 ") < at("topic-1 ") && at("topic-1 ") < at("topic-2 "));
}
