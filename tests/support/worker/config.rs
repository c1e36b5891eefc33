//! Configurations for tests: short times, a file sink, and whatever a test wants otherwise.

use std::fmt;
use std::fmt::Write as _;

/// A configuration. Its `Display` is the file's text; `@DIR@` in it is the [`Site`](super::Site)'s
/// directory. All topics go to `@DIR@/out.jsonl`, and start at `earliest`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Table, key, value as TOML.
    values: Vec<(String, String, String)>,
    more: String,
}

impl Config {
    /// These topics of these brokers, in groups `g-TOPIC`.
    pub fn new(bootstrap: &[String], topics: &[&str]) -> Self {
        let config = Self { values: Vec::new(), more: String::new() };
        config
            .set("kafka", "bootstrap_servers", format!("{bootstrap:?}"))
            // Where the library makes no difference; see `for_clients!` and `on_each!` for where it does.
            .set("kafka", "client", "'kafka'")
            .set("kafka", "connect_timeout_ms", 1_000)
            .set("kafka", "request_timeout_ms", 5_000)
            .set("kafka", "metadata_max_age_ms", 500)
            .set("consumer", "group_id", "'g'")
            .set("consumer", "topics", format!("{topics:?}"))
            .set("consumer", "auto_offset_reset", "'earliest'")
            .set("consumer", "fetch_max_wait_ms", 200)
            .set("consumer", "fetch_min_bytes", 1)
            .set("consumer", "sink", "'out'")
            .set("commit", "interval_ms", 100)
            .set("commit", "min_interval_ms", 20)
            .set("commit", "retry_delay_ms", 50)
            .set("shutdown", "drain_timeout_ms", 5_000)
            .set("sink.out", "type", "'file'")
            .set("sink.out", "path", "'@DIR@/out.jsonl'")
    }

    /// Sets a key of a table to a value as TOML writes it (texts in quotes).
    #[must_use]
    pub fn set(mut self, table: &str, key: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        match self.values.iter_mut().find(|(t, k, _)| t == table && k == key) {
            Some((_, _, old)) => *old = value,
            None => self.values.push((table.to_owned(), key.to_owned(), value)),
        }
        self
    }

    /// Leaves a key out.
    #[must_use]
    pub fn without(mut self, table: &str, key: &str) -> Self {
        self.values.retain(|(t, k, _)| t != table || k != key);
        self
    }

    /// Appends lines: `[[topic]]` tables and the like.
    #[must_use]
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tables: Vec<&str> = Vec::new();
        for (table, ..) in &self.values {
            if !tables.contains(&table.as_str()) {
                tables.push(table);
            }
        }
        let mut text = String::new();
        for table in tables {
            writeln!(text, "[{table}]")?;
            for (_, key, value) in self.values.iter().filter(|(t, ..)| t == table) {
                writeln!(text, "{key} = {value}")?;
            }
        }
        f.write_str(&text)?;
        f.write_str(&self.more)
    }
}
