//! `make demo`: the worker at work, without a Kafka and without Java.
//!
//! Owns an embedded broker with six topics, produces records into them, runs the real `worker` as a
//! child process, and shows its log, some of what it delivers, and where each topic stands. At the
//! end every record is accounted for: exit code 0 means that nothing is missing.

use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use broker::{Options, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

mod delivered;
mod topics;
mod view;
mod worker;

use delivered::Delivered;
use topics::{Rhythm, TOPICS, Topic};
use view::View;
use worker::{GROUP, Worker};

/// How often records are produced and the files are looked at.
const TICK: Duration = Duration::from_millis(50);
const TABLE_EVERY: Duration = Duration::from_secs(4);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How long the worker may take at the end to deliver and commit what there is.
const CATCH_UP: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM: its own drain_timeout_ms, and some.
const END_WITHIN: Duration = Duration::from_secs(20);

/// What happens beside the clock.
pub enum Event {
    /// A line of the worker's log.
    Log(String),
    /// The worker has closed its log: it ends.
    LogEnds,
    /// Ctrl-C, or another signal that ends the demo.
    Stop,
}

fn main() -> ExitCode {
    let seconds = match arguments(env::args().skip(1)) {
        Ok(seconds) => seconds,
        Err(text) => {
            eprintln!("demo: {text}");
            return ExitCode::from(2);
        }
    };
    match run(Duration::from_secs(seconds)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<u64, String> {
    match (given.next(), given.next()) {
        (None, _) => Ok(20),
        (Some(seconds), None) => match seconds.parse() {
            Ok(seconds @ 1..=3_600) => Ok(seconds),
            _ => Err(format!("{seconds:?} is no number of seconds from 1 to 3600; usage: demo [SECONDS]")),
        },
        (Some(_), Some(_)) => Err("too many arguments; usage: demo [SECONDS]".to_owned()),
    }
}

fn run(length: Duration) -> io::Result<ExitCode> {
    let (program, beside) = places()?;
    let (dir, _lock) = own_directory(&beside)?;
    let mut view = View::new();
    let server = Server::start(Options::default()).map_err(io::Error::other)?;
    let files = worker::configure(&dir, &server.bootstrap().join(","))?;
    for old in &files.sinks {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let (tell, events) = sync_channel(1_000);
    signals(tell.clone())?;
    let mut demo = Demo {
        produced: vec![0; TOPICS.len()],
        shown: vec![0; TOPICS.len()],
        delivered: Delivered::new(files.sinks.clone()),
        server,
        events,
        started: Instant::now(),
        worker_ended: false,
    };
    demo.create()?;
    view.head(&format!(
        "worker: six Kafka topics, a thread and a consumer group each ({} s; Ctrl-C ends)",
        length.as_secs()
    ));
    view.say(&format!("Broker   embedded, speaks Kafka's protocol at {}", demo.server.bootstrap().join(",")));
    view.say(&format!("Config   {}", files.config.display()));
    view.say("Topics");
    for topic in &TOPICS {
        view.say(&format!("  {}", topic.describe()));
    }
    view.say(
        "\n\"worker |\" is the worker's log, \"sink |\" some of what arrives in its files.\n\
         LAG is what kafka-consumer-groups shows: log end - committed offset.\n\
         idle: nothing new, all is committed. live: new records, delivered as they come.\n\
         catching up: more is waiting than has just been produced.",
    );
    demo.table(&mut view, "Before the worker starts")?;
    let mut worker = Worker::start(&program, &files.config, tell)?;
    demo.started = Instant::now();
    let in_time = demo.main_part(&mut view, length)? && demo.catch_up(&mut view)?;
    let by_itself = demo.worker_ended;
    if !by_itself {
        view.say("\nStopping the worker with SIGTERM: it finishes and commits what it has.");
        worker.terminate()?;
        if !demo.await_end(&mut view) {
            view.say(&format!("The worker did not end within {} s and is killed.", END_WITHIN.as_secs()));
            return Ok(ExitCode::FAILURE);
        }
    }
    let status = worker.wait()?;
    if by_itself || !status.success() {
        view.say(&format!("\nThe worker ended with {status}; its log above says why."));
    }
    let whole = demo.sums(&mut view)?;
    for file in &files.sinks {
        view.say(&format!("Delivered to {}", file.display()));
    }
    let good = whole && in_time && !by_itself && status.success();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The worker's program, and the directory that it is in: cargo puts this one into `examples` there.
fn places() -> io::Result<(PathBuf, PathBuf)> {
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let program = target.join("worker");
    if !program.is_file() {
        let missing = format!("{} is missing; build it with: cargo build --bin worker", program.display());
        return Err(io::Error::other(missing));
    }
    Ok((program, target.to_owned()))
}

/// A directory for the demo's files that no other demo uses while the lock is held.
fn own_directory(beside: &Path) -> io::Result<(PathBuf, File)> {
    for number in 1..100 {
        let dir = beside.join(if number == 1 { "demo".to_owned() } else { format!("demo-{number}") });
        fs::create_dir_all(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok((dir, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::other(format!("a hundred demos run already in {}", beside.display())))
}

fn signals(tell: SyncSender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in &mut signals {
            if tell.send(Event::Stop).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

struct Demo {
    server: Server,
    events: Receiver<Event>,
    delivered: Delivered,
    /// Records of each topic so far.
    produced: Vec<u64>,
    /// The same, when the table was last shown.
    shown: Vec<u64>,
    started: Instant,
    worker_ended: bool,
}

impl Demo {
    fn create(&mut self) -> io::Result<()> {
        for (topic, produced) in TOPICS.iter().zip(&mut self.produced) {
            self.server.create_topic(topic.name, 1).map_err(io::Error::other)?;
            topic.produce(&self.server, produced, topic.backlog).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Produces, reads and shows, until the time is over, or Ctrl-C; `false`: the worker has ended.
    fn main_part(&mut self, view: &mut View, length: Duration) -> io::Result<bool> {
        let (mut table, mut sample) = (TABLE_EVERY, SAMPLE_EVERY);
        loop {
            let elapsed = self.started.elapsed();
            if elapsed >= length || view.is_closed() {
                return Ok(true);
            }
            for (topic, produced) in TOPICS.iter().zip(&mut self.produced) {
                let new = topic.produce(&self.server, produced, topic.due(elapsed)).map_err(io::Error::other)?;
                if matches!(topic.rhythm, Rhythm::Burst { .. }) && new > 0 {
                    view.say(&format!("\nA burst: {new} records into {}.", topic.name));
                    table = elapsed;
                }
            }
            if elapsed >= table {
                self.table(view, &format!("After {:.1} s", self.started.elapsed().as_secs_f32()))?;
                table = elapsed + TABLE_EVERY;
            }
            self.delivered.read()?;
            if elapsed >= sample {
                if let Some(line) = self.delivered.sample() {
                    view.quote("sink", &line);
                }
                sample = elapsed + SAMPLE_EVERY;
            }
            match self.next(view) {
                Next::Stop => {
                    view.say("\nStopped early: nothing more is produced.");
                    return Ok(true);
                }
                Next::WorkerEnds => return Ok(false),
                Next::GoOn => {}
            }
        }
    }

    /// Nothing more is produced; waits until all of it is delivered, and says whether it was.
    fn catch_up(&mut self, view: &mut View) -> io::Result<bool> {
        let until = Instant::now() + CATCH_UP;
        loop {
            self.delivered.read()?;
            let delivered =
                |(topic, produced): (&Topic, &u64)| self.delivered.tallies[topic.name].delivered >= *produced;
            if TOPICS.iter().zip(&self.produced).all(delivered) {
                return Ok(true);
            }
            if Instant::now() >= until {
                view.say(&format!("The worker has not caught up within {} s.", CATCH_UP.as_secs()));
                return Ok(false);
            }
            match self.next(view) {
                Next::GoOn => {}
                Next::Stop | Next::WorkerEnds => return Ok(false),
            }
        }
    }

    /// Waits until the worker has closed its log; says whether it did.
    fn await_end(&mut self, view: &mut View) -> bool {
        let until = Instant::now() + END_WITHIN;
        while Instant::now() < until && !self.worker_ended {
            // Another Ctrl-C makes it no faster: the worker has a limit of its own.
            self.next(view);
        }
        self.worker_ended
    }

    /// Shows the worker's log for one tick.
    fn next(&mut self, view: &mut View) -> Next {
        let until = Instant::now() + TICK;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Log(line)) => view.quote("worker", short(&line)),
                Ok(Event::Stop) => return Next::Stop,
                Ok(Event::LogEnds) | Err(RecvTimeoutError::Disconnected) => {
                    self.worker_ended = true;
                    return Next::WorkerEnds;
                }
                Err(RecvTimeoutError::Timeout) => return Next::GoOn,
            }
        }
    }

    fn committed(&self, index: usize) -> Option<u64> {
        let name = TOPICS[index].name;
        self.server.committed(&format!("{GROUP}-{name}"), name, 0).and_then(|offset| u64::try_from(offset).ok())
    }

    /// Where each topic stands. The committed offsets are looked at first: what is committed has been
    /// delivered before.
    fn table(&mut self, view: &mut View, when: &str) -> io::Result<()> {
        let committed: Vec<Option<u64>> = (0..TOPICS.len()).map(|index| self.committed(index)).collect();
        self.delivered.read()?;
        let mut text = String::new();
        view.head(&format!(
            "\n{when}\n{:<27} {:>8} {:>9} {:>9} {:>7}  STATE",
            "TOPIC", "PRODUCED", "DELIVERED", "COMMITTED", "LAG"
        ));
        for (index, topic) in TOPICS.iter().enumerate() {
            let (produced, new) = (self.produced[index], self.produced[index] - self.shown[index]);
            let lag = committed[index].map(|committed| produced.saturating_sub(committed));
            // A commit comes after 100 records or 5 s: up to that, lag is no sign of being behind.
            let usual = match topic.rhythm {
                Rhythm::Steady(a_second) => 100 + a_second,
                Rhythm::Burst { .. } | Rhythm::Silent => 0,
            };
            let state = match lag {
                None => "not started",
                Some(0) if new == 0 => "idle",
                Some(lag) if lag > usual => "catching up",
                Some(_) => "live",
            };
            let dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{:<27} {produced:>8} {:>9} {:>9} {:>7}  {state}{}",
                topic.name,
                self.delivered.tallies[topic.name].delivered,
                dash(committed[index]),
                dash(lag),
                if index + 1 < TOPICS.len() { "\n" } else { "" }
            );
            self.shown[index] = produced;
        }
        view.say(&text);
        Ok(())
    }

    /// The last table; returns whether all is well.
    fn sums(&mut self, view: &mut View) -> io::Result<bool> {
        self.delivered.read()?;
        view.head(&format!(
            "\n{:<27} {:>8} {:>9} {:>9} {:>7} {:>6} {:>5}",
            "SUMS", "PRODUCED", "DELIVERED", "COMMITTED", "MISSING", "AGAIN", "WRONG"
        ));
        let mut total = [0; 6];
        for (index, topic) in TOPICS.iter().enumerate() {
            let tally = &self.delivered.tallies[topic.name];
            let (produced, committed) = (self.produced[index], self.committed(index).unwrap_or(0));
            let row = [produced, tally.delivered, committed, tally.missing(produced), tally.again, tally.wrong];
            view.say(&line(topic.name, row));
            total.iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
        }
        view.say(&line("all", total));
        let [produced, delivered, committed, missing, again, wrong] = total;
        view.say(&format!("\nproduced={produced} delivered={delivered} committed={committed} missing={missing} again={again} wrong={wrong}"));
        Ok(missing == 0 && wrong == 0 && committed == produced)
    }
}

enum Next {
    GoOn,
    Stop,
    WorkerEnds,
}

fn line(name: &str, [produced, delivered, committed, missing, again, wrong]: [u64; 6]) -> String {
    format!("{name:<27} {produced:>8} {delivered:>9} {committed:>9} {missing:>7} {again:>6} {wrong:>5}")
}

/// A line of the log without its date.
fn short(line: &str) -> &str {
    match line.split_once('T') {
        Some((date, rest)) if date.len() == "2025-11-19".len() && date.starts_with('2') => rest,
        _ => line,
    }
}
