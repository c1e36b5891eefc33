//! The pages: all topics, and one topic with its partitions.
//!
//! Plain HTML that is complete without script and takes nothing from elsewhere. Whatever comes from
//! outside the program (names, errors) goes through [`Escaped`].

use std::fmt::{self, Display, Write};
use std::time::Instant;

use super::look::Look;
use super::status::{PartitionStatus, Status, TopicStatus};
use crate::observe::sight::{HISTORY, Point};

pub(super) const CSS: &str = include_str!("page.css");
pub(super) const JS: &str = include_str!("page.js");
pub(super) const ICON: &str = include_str!("icon.svg");
/// How often the page reloads itself where scripts are off, in seconds.
const RELOAD: u32 = 10;
/// The sparkline's own measures.
const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 30.0;

/// Text in HTML, also inside an attribute in double quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

/// How much somebody has to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Calm,
    Good,
    Warn,
    Bad,
}

impl Grade {
    fn class(self) -> &'static str {
        match self {
            Self::Calm => "",
            Self::Good => " ok",
            Self::Warn => " warn",
            Self::Bad => " bad",
        }
    }
}

/// The verdict in words for people, and how much it matters.
fn words(topic: &TopicStatus) -> (&'static str, Grade) {
    match topic.verdict.as_ref().map_or("", |verdict| &verdict.word) {
        "idle" => ("idle", Grade::Good),
        "empty" => ("empty topic", Grade::Calm),
        "paused" => ("paused", Grade::Calm),
        "uncommitted" if topic.consumer.commit_trouble.is_some() => ("commits fail", Grade::Warn),
        "uncommitted" => ("not committed yet", Grade::Good),
        "catching-up" => ("catching up", Grade::Good),
        "falling-back" => ("falling back", Grade::Warn),
        // Every topic stands still for a moment now and then.
        "stalled" => ("stalled", if topic.stalled { Grade::Bad } else { Grade::Warn }),
        "out-of-range" => ("out of range", Grade::Bad),
        "missing" => ("missing", Grade::Bad),
        "failing" => ("failing", Grade::Bad),
        "unknown" => ("unknown", Grade::Warn),
        _ => ("not judged yet", Grade::Calm),
    }
}

/// What fails at present, the nearest cause first: what and for how long, and its error.
fn failing<'a>(status: &'a Status, topic: &'a TopicStatus) -> Option<(String, &'a str)> {
    let since = |what: &str, age_ms: u64, error: &'a str| (format!("{what} for {}", Ago(age_ms)), error);
    if let Some(trouble) = &topic.consumer.trouble {
        return Some(since("client fails", trouble.age_ms, &trouble.error));
    }
    let part = topic.partitions.iter().find_map(|part| Some((part.partition, part.trouble.as_ref()?)));
    if let Some((number, trouble)) = part {
        return Some(since(&format!("partition {number} fails"), trouble.age_ms, &trouble.error));
    }
    let sink = status.sinks.iter().find(|sink| sink.sink == topic.sink).and_then(|sink| sink.trouble.as_ref());
    if let Some(trouble) = sink {
        return Some(since(&format!("sink {} fails", topic.sink), trouble.age_ms, &trouble.error));
    }
    if let Some(commit) = &topic.consumer.commit_trouble {
        return Some(since("commits fail", commit.age_ms, &commit.error));
    }
    let shared = topic.consumer.shared_group.as_ref()?;
    Some(since("group shared", shared.age_ms, &shared.error))
}

fn grade(status: &Status, topic: &TopicStatus) -> Grade {
    let fails = if failing(status, topic).is_some() { Grade::Warn } else { Grade::Calm };
    words(topic).1.max(fails)
}

/// A length of time as people say it.
struct Ago(u64);

impl Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        match seconds {
            0..=119 => write!(f, "{seconds} s"),
            120..=7199 => write!(f, "{} min", seconds / 60),
            7200..=172_799 => write!(f, "{} h", seconds / 3600),
            _ => write!(f, "{} d", seconds / 86_400),
        }
    }
}

/// A whole number in groups of three digits.
struct Grouped(i64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        if self.0 < 0 {
            f.write_char('−')?;
        }
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                // A narrow blank at which no line breaks.
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// Or a dash, where it is not known.
fn number(value: Option<i64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| Grouped(value).to_string())
}

fn unsigned(value: Option<u64>) -> String {
    number(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)))
}

fn rate(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value > 0.0 && value < 9.95 => format!("{value:.1}/s"),
        // No rate is that large that the cast could cut it.
        Some(value) => format!("{}/s", Grouped(value.round() as i64)),
    }
}

/// The page of all topics.
pub(super) fn topics(look: &Look) -> String {
    let status = &look.status;
    let mut order: Vec<usize> = (0..status.topics.len()).collect();
    // The worst first; of those that are equally bad the one with the most to read.
    order.sort_by_cached_key(|&index| {
        let topic = &status.topics[index];
        (std::cmp::Reverse((grade(status, topic), words(topic).1, topic.lag)), topic.topic.clone())
    });
    let worst = status.topics.iter().filter(|topic| grade(status, topic) >= Grade::Warn).count();
    let title = if worst == 0 { "worker".to_owned() } else { format!("({worst}) worker") };
    let mut out = String::with_capacity(1024 * (order.len() + 8));
    // Writing to a String cannot fail, here and below.
    let _ = head(&mut out, &title, "worker", look);
    out.push_str(
        "<div class=\"tools\" id=\"tools\" hidden>\
         <label>Filter <input type=\"search\" id=\"filter\" placeholder=\"topic, group, sink, verdict\" autocomplete=\"off\"></label>\
         <label><input type=\"checkbox\" id=\"attention\"> only what needs attention</label>\
         <span class=\"dim small\" id=\"shown\" role=\"status\"></span></div>",
    );
    out.push_str("<div id=\"live\">");
    chips(&mut out, status);
    out.push_str(
        "<div class=\"frame\"><table class=\"topics\"><thead><tr><th scope=\"col\">Topic</th><th scope=\"col\">Verdict</th>\
         <th scope=\"col\" class=\"num\">Lag</th><th scope=\"col\" class=\"num\">Read</th><th scope=\"col\" class=\"num\">Written</th>\
         <th scope=\"col\">Lag, last 10 min</th><th scope=\"col\">What is wrong, or was last</th></tr></thead><tbody>",
    );
    for index in order {
        let _ = row(&mut out, status, &status.topics[index], &look.histories[index], look.now);
    }
    out.push_str("</tbody></table></div></div>");
    foot(&mut out);
    out
}

fn head(out: &mut String, title: &str, heading: &str, look: &Look) -> fmt::Result {
    let (status, process) = (&look.status, &look.status.process);
    write!(
        out,
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/page.css\"><script src=\"/page.js\" defer></script>\
         <noscript><meta http-equiv=\"refresh\" content=\"{RELOAD}\"></noscript></head><body><main><header id=\"head\">",
        Escaped(title)
    )?;
    let (class, word) = match (process.stopping, status.ready) {
        (true, _) => (" warn", "stopping"),
        (false, true) => (" ok", "ready"),
        (false, false) => (" bad", "not ready"),
    };
    write!(out, "<h1>{} <span class=\"badge{class}\">{word}</span></h1>", Escaped(heading))?;
    write!(
        out,
        "<p class=\"facts\">version {} · process {} · up {} · {}</p>",
        Escaped(&process.version),
        process.pid,
        Ago(process.uptime_ms),
        Escaped(&process.config)
    )?;
    let interval = Ago(status.observed.interval_ms.max(1000));
    match status.observed.age_ms {
        Some(age) => write!(
            out,
            "<p class=\"facts\">Lag, rates and verdicts as of {} ago; looked at every {interval}.</p>",
            Ago(age)
        )?,
        None => write!(out, "<p class=\"facts\">The cluster has not been looked at yet; it is every {interval}.</p>")?,
    }
    if let Some(error) = &status.observed.error {
        write!(out, "<p class=\"notice\">The last look at the cluster failed: {}</p>", Escaped(error))?;
    }
    for reason in &status.not_ready {
        write!(out, "<p class=\"notice\">Not ready: {}.</p>", Escaped(reason))?;
    }
    out.push_str("</header><p class=\"notice\" id=\"late\" role=\"status\" hidden></p>");
    Ok(())
}

fn foot(out: &mut String) {
    out.push_str(
        "<footer>For programs: <a href=\"/status\">/status</a> · <a href=\"/metrics\">/metrics</a> · \
         <a href=\"/readyz\">/readyz</a> · <a href=\"/healthz\">/healthz</a></footer></main></body></html>",
    );
}

/// How many topics have each verdict.
fn chips(out: &mut String, status: &Status) {
    let mut counts: Vec<(&str, Grade, usize)> = Vec::new();
    for topic in &status.topics {
        let (word, grade) = words(topic);
        match counts.iter_mut().find(|(known, at, _)| (*known, *at) == (word, grade)) {
            Some((.., count)) => *count += 1,
            None => counts.push((word, grade, 1)),
        }
    }
    counts.sort_by_key(|&(word, grade, count)| (std::cmp::Reverse((grade, count)), word));
    out.push_str("<ul class=\"chips\" aria-label=\"Topics by verdict\">");
    for (word, grade, count) in counts {
        let _ = write!(out, "<li class=\"badge{}\">{count} {word}</li>", grade.class());
    }
    out.push_str("</ul><p></p>");
}

fn row(out: &mut String, status: &Status, topic: &TopicStatus, history: &[Point], now: Instant) -> fmt::Result {
    let (word, own) = words(topic);
    let grade = grade(status, topic);
    let about = format!("{} {} {} {word}", topic.topic, topic.group, topic.sink).to_lowercase();
    let calm = if grade < Grade::Warn { " data-calm=\"1\"" } else { "" };
    write!(
        out,
        "<tr data-topic=\"{}\"{calm}><th scope=\"row\"><a href=\"/topic/{1}\">{1}</a><span class=\"group\">{2} → {3}</span></th>\
         <td><span class=\"badge{4}\">{word}</span></td><td class=\"num\" data-name=\"Lag\">{5}</td>\
         <td class=\"num\" data-name=\"Read\">{6}</td><td class=\"num\" data-name=\"Written\">{7}</td><td data-name=\"Lag, last 10 min\">",
        Escaped(&about),
        Escaped(&topic.topic),
        Escaped(&topic.group),
        Escaped(&topic.sink),
        own.class(),
        number(topic.lag),
        rate(topic.consumed_per_second),
        rate(topic.produced_per_second),
    )?;
    spark(out, history, now)?;
    write!(out, "</td><td class=\"why{}\">", if grade < Grade::Warn { "" } else { grade.class() })?;
    why(out, status, topic, own)?;
    out.push_str("</td></tr>");
    Ok(())
}

/// What is wrong; if nothing is, what was last.
fn why(out: &mut String, status: &Status, topic: &TopicStatus, own: Grade) -> fmt::Result {
    let verdict = topic.verdict.as_ref().filter(|_| own >= Grade::Warn);
    let judged = verdict.map(|verdict| verdict.reason.as_ref().unwrap_or(&verdict.text));
    // A stall is mostly explained by what fails, and then says so itself.
    let fails = failing(status, topic).filter(|(_, error)| judged.is_none_or(|text| !text.contains(error)));
    if judged.is_some() || fails.is_some() {
        let fails = fails.map(|(what, error)| format!("{what}: {error}"));
        let mut all = judged.into_iter().chain(&fails);
        return all.try_for_each(|text| write!(out, "<div>{}</div>", Escaped(text)));
    }
    match &topic.last_error {
        Some(last) => {
            write!(out, "<span class=\"dim\">{} ago, over: {}</span>", Ago(last.age_ms), Escaped(&last.error))
        }
        None => Ok(()),
    }
}

/// The lag over the last ten minutes, as a line.
fn spark(out: &mut String, history: &[Point], now: Instant) -> fmt::Result {
    let (Some(first), Some(last)) = (history.first(), history.last()) else {
        out.push_str("<span class=\"dim\">–</span>");
        return Ok(());
    };
    let most = history.iter().map(|point| point.lag).max().unwrap_or(0).max(1);
    let mut line = String::new();
    let (mut left, mut level) = (WIDTH, HEIGHT);
    for point in history {
        let age = now.saturating_duration_since(point.at).as_secs_f64() / HISTORY.as_secs_f64();
        let x = WIDTH * (1.0 - age.min(1.0));
        let y = HEIGHT - 2.0 - (HEIGHT - 4.0) * point.lag.max(0) as f64 / most as f64;
        left = left.min(x);
        write!(line, "{x:.1},{y:.1} ")?;
        level = y;
    }
    // As far as it is known, it still is so.
    write!(line, "{WIDTH:.1},{level:.1}")?;
    write!(
        out,
        "<svg class=\"spark\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"lag: first {}, now {}, at most {}\"><path class=\"base\" d=\"M0 {HEIGHT}H{WIDTH}\"/><polygon class=\"area\" points=\"{left:.1},{HEIGHT} {line} {WIDTH:.1},{HEIGHT}\"/>\
         <polyline class=\"line\" points=\"{}\"/></svg>",
        Grouped(first.lag),
        Grouped(last.lag),
        Grouped(most),
        line
    )
}

/// The page of one topic; `None` if there is no such.
pub(super) fn topic(look: &Look, name: &str) -> Option<String> {
    let status = &look.status;
    let index = status.topics.iter().position(|topic| topic.topic == name)?;
    let (topic, mut out) = (&status.topics[index], String::new());
    let _ = head(&mut out, &format!("{name} – worker"), name, look);
    let _ = one(&mut out, status, topic, &look.histories[index], look.now);
    foot(&mut out);
    Some(out)
}

fn one(out: &mut String, status: &Status, topic: &TopicStatus, history: &[Point], now: Instant) -> fmt::Result {
    let (word, own) = words(topic);
    let consumer = &topic.consumer;
    write!(
        out,
        "<p><a href=\"/\">← all topics</a></p><div id=\"live\" class=\"one\"><p><span class=\"badge{}\">{word}</span></p><div class=\"why{}\">",
        own.class(),
        grade(status, topic).class(),
    )?;
    why(out, status, topic, own)?;
    out.push_str("</div><h2>Lag, last 10 minutes</h2>");
    spark(out, history, now)?;
    out.push_str("<h2>Consumer</h2><div class=\"frame plain pairs\"><table><tbody>");
    let full =
        consumer.full_for_ms.map_or("no".to_owned(), |ms| format!("for {}, so that nothing is fetched", Ago(ms)));
    let call = consumer.call.as_ref();
    let facts = [
        ("Group", topic.group.clone()),
        ("Sink", topic.sink.clone()),
        ("Read, written", format!("{}, {}", rate(topic.consumed_per_second), rate(topic.produced_per_second))),
        ("Last progress", topic.progress_age_ms.map_or("none in this run".to_owned(), |ms| format!("{} ago", Ago(ms)))),
        ("Started again", format!("{} times; this run began {} ago", consumer.run, Ago(consumer.run_age_ms))),
        ("Its thread", format!("{} for {}", consumer.phase, Ago(consumer.phase_age_ms))),
        ("Under way", call.map_or("no call".to_owned(), |call| format!("{} for {}", call.request, Ago(call.age_ms)))),
        ("Batches in flight", format!("{} of {}", consumer.batches_in_flight, consumer.batches_budget)),
        ("Budget used up", full),
    ];
    for (name, value) in facts {
        write!(out, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", Escaped(&value))?;
    }
    out.push_str(
        "</tbody></table></div><h2>Partitions</h2><div class=\"frame plain\"><table><thead><tr><th scope=\"col\" class=\"num\">Partition</th>\
         <th scope=\"col\">State</th><th scope=\"col\" class=\"num\">Current offset</th><th scope=\"col\" class=\"num\">Log start</th>\
         <th scope=\"col\" class=\"num\">Log end</th><th scope=\"col\" class=\"num\">Lag</th><th scope=\"col\" class=\"num\">Readable</th>\
         <th scope=\"col\" class=\"num\">Expired</th><th scope=\"col\" class=\"num\">In flight</th><th scope=\"col\">Verdict</th></tr></thead><tbody>",
    );
    topic.partitions.iter().try_for_each(|part| partition(out, part))?;
    out.push_str("</tbody></table></div></div>");
    Ok(())
}

fn partition(out: &mut String, part: &PartitionStatus) -> fmt::Result {
    let error = part.trouble.as_ref().map(|trouble| &trouble.error).or(part.error.as_ref());
    let text = error.or(part.verdict.as_ref().map(|verdict| &verdict.text)).map_or("not judged yet", String::as_str);
    write!(
        out,
        "<tr><td class=\"num\">{}</td><td>{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td>\
         <td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"why\">{}</td></tr>",
        part.partition,
        part.state.as_deref().unwrap_or("not known yet"),
        number(part.committed),
        number(part.log_start),
        number(part.log_end),
        number(part.lag),
        unsigned(part.readable),
        unsigned(part.expired),
        unsigned(Some(part.in_flight)),
        Escaped(text)
    )
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
