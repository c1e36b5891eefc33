//! Rows as they are printed: a table of text, a screen that is drawn again and again, an object for programs.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::client::Fault;
use crate::cmd::table::{columns, or_dash};
use crate::trend::Row;
use crate::verdict::Verdict;

/// A row for programs: the columns of the table by name, `null` where there is nothing.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    group: &'a str,
    topic: &'a str,
    partition: Option<i32>,
    current_offset: Option<i64>,
    log_start_offset: Option<i64>,
    log_end_offset: Option<i64>,
    lag: Option<i64>,
    readable: Option<u64>,
    expired: Option<u64>,
    verdict: &'static str,
    verdict_text: String,
    consumed_per_second: Option<f64>,
    produced_per_second: Option<f64>,
    /// Until everything is read, at these rates; `null` if that is never, or not known.
    catch_up_ms: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) fn new(row: &'a Row) -> Self {
        let seen = row.seen.as_ref().ok();
        let readable = seen.map(|seen| seen.readable());
        let catch_up = row.rates.zip(readable).and_then(|(rates, readable)| rates.catch_up(readable));
        Self {
            group: &row.group,
            topic: &row.topic,
            partition: row.partition,
            current_offset: seen.and_then(|seen| seen.committed).map(|offset| offset.get()),
            log_start_offset: seen.map(|seen| seen.bounds.log_start.get()),
            log_end_offset: seen.map(|seen| seen.bounds.log_end.get()),
            lag: seen.and_then(|seen| seen.lag()),
            readable,
            expired: seen.map(|seen| seen.expired()),
            verdict: row.verdict.word(),
            verdict_text: row.verdict.to_string(),
            consumed_per_second: row.rates.and_then(|rates| rates.consumed),
            produced_per_second: row.rates.map(|rates| rates.produced),
            catch_up_ms: catch_up.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The cells of its line in the table.
    fn cells(&self, rates: bool) -> Vec<String> {
        let mut cells = vec![
            self.group.to_owned(),
            self.topic.to_owned(),
            or_dash(self.partition),
            or_dash(self.current_offset),
            or_dash(self.log_start_offset),
            or_dash(self.log_end_offset),
            or_dash(self.lag),
            or_dash(self.readable),
            or_dash(self.expired),
        ];
        if rates {
            let a_second = |rate: Option<f64>| or_dash(rate.map(|rate| format!("{rate:.1}")));
            let catch_up = match (self.catch_up_ms, self.readable, self.consumed_per_second) {
                (Some(ms), ..) => time(Duration::from_millis(ms)),
                (None, Some(_), Some(_)) => "never".to_owned(),
                _ => "-".to_owned(),
            };
            cells.extend([a_second(self.consumed_per_second), a_second(self.produced_per_second), catch_up]);
        }
        cells
    }
}

/// `0s`, `42s`, `3m10s`, `2h05m`, `4d02h`
fn time(time: Duration) -> String {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

const COLUMNS: [&str; 9] = [
    "GROUP",
    "TOPIC",
    "PARTITION",
    "CURRENT-OFFSET",
    "LOG-START-OFFSET",
    "LOG-END-OFFSET",
    "LAG",
    "READABLE",
    "EXPIRED",
];
const RATES: [&str; 3] = ["CONSUMED/s", "PRODUCED/s", "CATCH-UP"];
/// GROUP, LOG-START-OFFSET, EXPIRED.
const NOT_ON_SCREEN: [usize; 3] = [0, 4, 8];
/// From here on cells are numbers, which stand to the right.
const NUMBERS: usize = 2;

/// Lines of text below their titles.
pub(super) struct Table {
    lines: Vec<String>,
}

impl Table {
    /// `rates`: with how fast it goes.
    pub(super) fn new(rows: &[Row], rates: bool) -> Self {
        let (cells, verdict) = Self::cells(rows, rates);
        Self { lines: columns(&cells, |column| (NUMBERS..verdict).contains(&column)) }
    }

    /// With rates, and without what a screen has no room for: the verdict stands at the end of the line.
    fn narrow(rows: &[Row]) -> Self {
        let (mut cells, verdict) = Self::cells(rows, true);
        for line in &mut cells {
            let mut column = 0;
            line.retain(|_| {
                column += 1;
                !NOT_ON_SCREEN.contains(&(column - 1))
            });
        }
        let verdict = verdict - NOT_ON_SCREEN.len();
        Self { lines: columns(&cells, |column| (NUMBERS - 1..verdict).contains(&column)) }
    }

    /// All cells below their titles, and the column of the verdict.
    fn cells(rows: &[Row], rates: bool) -> (Vec<Vec<String>>, usize) {
        let titles = COLUMNS.iter().chain(RATES.iter().filter(|_| rates)).chain(&["VERDICT"]);
        let mut cells: Vec<Vec<String>> = vec![titles.map(|title| (*title).to_owned()).collect()];
        cells.extend(rows.iter().map(|row| [Line::new(row).cells(rates), vec![verdict(row)]].concat()));
        let verdict = cells.first().map_or(0, Vec::len) - 1;
        (cells, verdict)
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Its word; and where that says nothing without it, why.
fn verdict(row: &Row) -> String {
    match &row.verdict {
        Verdict::Unknown(fault) => format!("{} ({fault})", row.verdict.word()),
        other => other.word().to_owned(),
    }
}

/// Rows and columns of the terminal at standard output, or the usual ones.
pub(super) fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (usize::from(size.ws_row), usize::from(size.ws_col)),
        _ => (24, 80),
    }
}

/// Draws over what was drawn before, in one write so that nothing flickers. What does not fit is left out:
/// of the partitions those that have least to read.
pub(super) fn redraw(
    seen: &Result<Vec<Row>, Fault>,
    first: bool,
    interval: Duration,
    (height, width): (usize, usize),
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut lines = vec![format!("worker lag, every {} s, {}; Ctrl-C ends it", interval.as_secs_f64(), super::clock())];
    match seen {
        Err(fault) => lines.push(fault.to_string()),
        Ok(rows) => {
            // This line, the titles, the last line that says how many are missing, and the cursor's own.
            let room = height.saturating_sub(4).max(1);
            let mut rows: Vec<&Row> = rows.iter().collect();
            let missing = rows.len().saturating_sub(room);
            if missing > 0 {
                // What the cluster does not say comes first.
                rows.sort_by_key(|row| std::cmp::Reverse(row.seen.as_ref().map_or(u64::MAX, |seen| seen.readable())));
                rows.truncate(room);
            }
            let rows: Vec<Row> = rows.into_iter().cloned().collect();
            lines.extend_from_slice(Table::narrow(&rows).lines());
            if missing > 0 {
                lines.push(format!("and {missing} more, with less to read"));
            }
        }
    }
    // ECMA-48: home (CUP), erase to the end of the line (EL), erase what is below (ED).
    let mut screen = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in lines {
        screen.extend(line.chars().take(width));
        screen.push_str("\x1b[K\r\n");
    }
    screen.push_str("\x1b[J");
    out.write_all(screen.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "table_tests.rs"]
mod tests;
