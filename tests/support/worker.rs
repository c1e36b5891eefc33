//! The daemon as a process of its own, and what it wrote.
//!
//! Owns the child process, its configuration file and its output. Nothing here knows which broker it
//! talks to. A [`Site`] is a directory that outlives a process, so that a restart finds the same
//! configuration and sink; a [`Worker`] is one process. No worker outlives its test: dropping it
//! kills it, and if the test fails its log is printed.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub mod config;
pub mod sink;

pub use config::Config;
pub use sink::Rec;

/// How long a test waits for what is to happen at once. Far above what it takes, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory for the configuration and the sinks of a worker, whichever process it is.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// A file of this directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file to which the sink of [`Config`] writes.
    pub fn out(&self) -> PathBuf {
        self.path("out.jsonl")
    }

    /// Writes the configuration, with `@DIR@` replaced by this directory, and starts the daemon.
    pub fn start(&self, config: &str) -> Worker {
        self.start_with(config, &[])
    }

    /// Like [`start`](Self::start), with more arguments.
    pub fn start_with(&self, config: &str, arguments: &[&str]) -> Worker {
        let file = self.write_config(config);
        let mut command = Worker::command();
        command.arg("-c").arg(file).args(arguments);
        Worker::spawn(command)
    }

    /// Writes the configuration file and returns its path.
    pub fn write_config(&self, config: &str) -> PathBuf {
        let file = self.path("consumer.toml");
        fs::write(&file, config.replace("@DIR@", &self.dir.path().display().to_string())).unwrap();
        file
    }

    /// What stands in the sink's file.
    #[track_caller]
    pub fn records(&self) -> Vec<Rec> {
        sink::read(&self.out())
    }

    /// Waits until the sink's file has at least `count` records, and returns all of them.
    #[track_caller]
    pub fn wait_records(&self, count: usize, at_most: Duration) -> Vec<Rec> {
        sink::wait(&self.out(), count, at_most)
    }
}

/// One of the child's output streams, line by line.
#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    /// Collects the lines of `stream` on a thread until it is closed.
    fn collect(name: &str, stream: impl Read + Send + 'static) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let own = Arc::clone(&lines);
        let collect = move || {
            let mut reader = BufReader::new(stream);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                let line = String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned();
                own.state.lock().unwrap().lines.push(line);
                own.changed.notify_all();
                bytes.clear();
            }
            own.state.lock().unwrap().closed = true;
            own.changed.notify_all();
        };
        thread::Builder::new().name(name.to_owned()).spawn(collect).unwrap();
        lines
    }

    fn all(&self) -> Vec<String> {
        self.state.lock().unwrap().lines.clone()
    }

    /// Waits until a line from `from` on is wanted; `Err`: the stream has ended, or the time is over.
    fn wait(
        &self,
        from: usize,
        wanted: impl Fn(&str) -> bool,
        at_most: Duration,
    ) -> Result<(usize, String), &'static str> {
        let deadline = Instant::now() + at_most;
        let mut seen = from;
        let mut state = self.state.lock().unwrap();
        loop {
            while let Some(line) = state.lines.get(seen) {
                seen += 1;
                if wanted(line) {
                    return Ok((seen, line.clone()));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed {
                return Err("the process has ended");
            }
            if left.is_zero() {
                return Err("the time is over");
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_closed(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.state.lock().unwrap();
        self.changed.wait_timeout_while(state, left, |state| !state.closed).unwrap().0.closed
    }
}

/// How a process ended, and all it said.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// Its log: standard error.
    pub log: Vec<String>,
    pub stdout: Vec<String>,
}

impl Ended {
    /// The exit code. That a signal ended it is told with its log: what crashes says why there, or not at all.
    #[track_caller]
    pub fn code(&self) -> Option<i32> {
        assert!(self.status.signal().is_none(), "ended by {}; its log:\n{}", self.status, self.log.join("\n"));
        self.status.code()
    }

    /// The lines of the log that contain every one of `words`.
    pub fn lines_with(&self, words: &[&str]) -> Vec<&str> {
        with(&self.log, words)
    }

    /// The one line of the sums of `topic`: `delivered=… committed=… in_flight=… expired=… reset=…`.
    #[track_caller]
    pub fn sums(&self, topic: &str) -> String {
        let lead = format!("sums topic={topic} ");
        let found: Vec<&str> =
            self.log.iter().filter_map(|line| line.split_once(lead.as_str()).map(|(_, sums)| sums)).collect();
        assert_eq!(found.len(), 1, "one line of sums of topic {topic} in:\n{}", self.log.join("\n"));
        found[0].to_owned()
    }
}

fn with<'a>(lines: &'a [String], words: &[&str]) -> Vec<&'a str> {
    let fits = |line: &&String| words.iter().all(|word| line.contains(word));
    lines.iter().filter(fits).map(String::as_str).collect()
}

/// A running daemon.
pub struct Worker {
    child: Child,
    log: Arc<Lines>,
    stdout: Arc<Lines>,
}

impl Worker {
    /// The program, without arguments. Colours and the environment's filters are off.
    pub fn command() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.env_remove("RUST_LOG").env_remove("RUST_LOG_STYLE").env("NO_COLOR", "1");
        command
    }

    /// Runs the program with these arguments to its end.
    #[track_caller]
    pub fn run(arguments: &[&str]) -> Ended {
        let mut command = Self::command();
        command.args(arguments);
        Self::spawn(command).exit(PATIENCE)
    }

    /// Starts a command of [`Worker::command`], or one that ends in it.
    pub fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::spawn_as_it_is(command)
    }

    /// The same with the standard output that the command has; without one there are no lines of it.
    pub fn spawn_as_it_is(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The command holds our copy of what it gave to the child.
        drop(command);
        let log = Lines::collect("worker-stderr", child.stderr.take().unwrap());
        let stdout = match child.stdout.take() {
            Some(stream) => Lines::collect("worker-stdout", stream),
            None => Lines::collect("worker-stdout", std::io::empty()),
        };
        Self { child, log, stdout }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Whether the process has not ended yet.
    pub fn is_running(&self) -> bool {
        !self.log.state.lock().unwrap().closed
    }

    /// How many lines of the log so far contain every one of `words`.
    pub fn count(&self, words: &[&str]) -> usize {
        with(&self.log.all(), words).len()
    }

    /// Waits for a line of the log, from its beginning on.
    #[track_caller]
    pub fn wait_line(&self, wanted: impl Fn(&str) -> bool, at_most: Duration) -> String {
        self.wait_line_after(0, wanted, at_most).1
    }

    /// Waits for a line that contains every one of `words`.
    #[track_caller]
    pub fn wait_words(&self, words: &[&str]) -> String {
        self.wait_words_after(0, words).1
    }

    /// Waits for a line that contains every one of `words`, from line `from` on, and returns the
    /// number of the line behind it too.
    #[track_caller]
    pub fn wait_words_after(&self, from: usize, words: &[&str]) -> (usize, String) {
        let found = self.log.wait(from, |line| words.iter().all(|word| line.contains(word)), PATIENCE);
        found.unwrap_or_else(|why| panic!("no line with {words:?}: {why}"))
    }

    /// Waits for a line of the log from line `from` on, and returns the number of the line behind it too.
    #[track_caller]
    pub fn wait_line_after(&self, from: usize, wanted: impl Fn(&str) -> bool, at_most: Duration) -> (usize, String) {
        self.log.wait(from, wanted, at_most).unwrap_or_else(|why| panic!("the line did not come: {why}"))
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.all()
    }

    /// Waits for a line of standard output, from its beginning on.
    #[track_caller]
    pub fn wait_stdout(&self, wanted: impl Fn(&str) -> bool, at_most: Duration) -> String {
        let found = self.stdout.wait(0, wanted, at_most);
        found.unwrap_or_else(|why| panic!("the line did not come: {why}; {:#?}", self.stdout.all())).1
    }

    /// Waits until every topic runs or is missing.
    #[track_caller]
    pub fn wait_started(&self) {
        self.wait_words(&["consumers started topics="]);
    }

    /// Sends a signal: `"TERM"`, `"INT"`, `"HUP"`, `"STOP"`, `"CONT"`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {pid}: {sent}");
    }

    /// Ends it as a power cut would, and waits until it is gone.
    pub fn kill9(mut self) -> Ended {
        self.child.kill().unwrap();
        self.ended(Instant::now() + PATIENCE).unwrap()
    }

    /// Asks it to end with SIGTERM, and waits for that.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal("TERM");
        self.exit(PATIENCE)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exit(mut self, at_most: Duration) -> Ended {
        match self.ended(Instant::now() + at_most) {
            Some(ended) => ended,
            None => panic!("it did not end within {at_most:?}"),
        }
    }

    fn ended(&mut self, deadline: Instant) -> Option<Ended> {
        // Both streams are closed by the end of the process, and by nothing else.
        let closed = self.log.wait_closed(deadline) && self.stdout.wait_closed(deadline);
        closed.then(|| {
            let status = self.child.wait().unwrap();
            Ended { status, log: self.log.all(), stdout: self.stdout.all() }
        })
    }

    /// Resident memory, in bytes.
    pub fn rss(&self) -> u64 {
        self.status("VmRSS:") << 10
    }

    /// The most resident memory that it has had, in bytes.
    pub fn peak_rss(&self) -> u64 {
        self.status("VmHWM:") << 10
    }

    /// The same of a process that may end at any moment.
    pub fn peak_rss_if_running(&self) -> Option<u64> {
        Some(self.status_if_running("VmHWM:")? << 10)
    }

    /// How many threads it has.
    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// A number of `/proc/PID/status`.
    fn status(&self, key: &str) -> u64 {
        self.status_if_running(key).unwrap_or_else(|| panic!("no {key}"))
    }

    fn status_if_running(&self, key: &str) -> Option<u64> {
        let path = Path::new("/proc").join(self.pid().to_string()).join("status");
        let text = fs::read_to_string(path).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(value.split_whitespace().next()?.parse().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let mut text = format!("log of worker {}:\n", self.child.id());
            for line in self.log.all() {
                let _ = writeln!(text, "  {line}");
            }
            eprint!("{text}");
        }
    }
}
