//! What systemd hears from the daemon: the protocol of sd_notify(3) over a datagram socket of the test.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::bed::Bed;
use crate::support::worker::{PATIENCE, Worker};

/// The place of systemd.
struct Manager {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// The next message, unless there is none for so long.
    fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// All messages up to the one that begins like this.
    #[track_caller]
    fn until(&self, beginning: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(message) = self.next(left) else { panic!("no {beginning:?} after {all:?}") };
            let found = message.starts_with(beginning);
            all.push(message);
            if found {
                return all;
            }
        }
    }
}

fn command(bed: &Bed, manager: &Manager, config: &str) -> Command {
    let mut command = Worker::command();
    command.arg("-c").arg(bed.site.write_config(config)).env("NOTIFY_SOCKET", manager.path());
    command
}

/// The system's monotonic clock, in microseconds, as systemd compares it.
fn monotonic() -> i128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000
}

#[test]
fn it_is_ready_reloads_and_stops() {
    let bed = Bed::new(&["t"]);
    let manager = Manager::new();
    let worker = Worker::spawn(command(&bed, &manager, &bed.config(&["t", "none"]).to_string()));
    assert_eq!(manager.until("READY=1"), ["READY=1"], "nothing is told before");
    worker.wait_words(&["worker starting"]);
    let told = manager.until("STATUS=1 of 2 topics read, 1 missing");
    assert!(told.iter().all(|message| message.starts_with("STATUS=")), "without WatchdogSec no WATCHDOG=1: {told:?}");

    let before = monotonic();
    worker.signal("HUP");
    let message = manager.until("RELOADING=1").pop().unwrap();
    let time: i128 = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=monotonic()).contains(&time), "{before} {time}");
    manager.until("READY=1");

    worker.signal("TERM");
    let message = manager.until("STOPPING=1").pop().unwrap();
    // The drain's time-out of the fixture and what may follow it.
    assert!(message.contains("\nSTATUS=stopping, within ") && message.contains("\nEXTEND_TIMEOUT_USEC="), "{message}");
    assert_eq!(worker.exit(PATIENCE).code(), Some(0));
}

/// A start that fails is never ready.
#[test]
fn a_start_that_fails_is_told_by_its_exit_code_alone() {
    let bed = Bed::new(&["t"]);
    let manager = Manager::new();
    let config = bed.config(&["t"]).set("sink.lost", "type", "'file'").set("sink.lost", "path", "'/nonexistent/lost'");
    let config = config.set("consumer", "sink", "'lost'").to_string();
    let ended = Worker::spawn(command(&bed, &manager, &config)).exit(PATIENCE);
    assert_eq!(ended.code(), Some(1), "{}", ended.log.join("\n"));
    assert_eq!(manager.next(Duration::from_millis(1)), None);
}

/// Nobody reads the log, and with the log the supervisor stands still: no timer goes on beside it.
#[test]
fn a_supervisor_that_stands_still_is_no_longer_alive() {
    let bed = Bed::new(&["t"]);
    let manager = Manager::new();
    let config = bed.config(&["t"]).set("consumer", "sink", "'log'").to_string();
    let mut command = command(&bed, &manager, &config);
    command.env("WATCHDOG_USEC", "2000000").stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    // For longer than an observer may stand still: its loop turns, though it has nothing to ask for 30 s.
    for _ in 0..10 {
        manager.until("WATCHDOG=1");
    }
    bed.fill("t", 5000);
    // 5000 lines are more than a pipe holds. Once it is full, the next line of the supervisor waits behind them.
    let pid = child.0.id().to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        // It lives every half second; 2 s are its whole time.
        if (0..5).any(|_| manager.next(Duration::from_secs(2)).is_none()) {
            break;
        }
        assert!(Instant::now() < deadline, "it says that it lives while it can't write its log");
    }
    let mut log = child.0.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        log.read_to_end(&mut text).unwrap();
    });
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    drop(child);
    reader.join().unwrap();
}

/// The watchdog of another process: the variable came down from a parent.
#[test]
fn a_watchdog_that_is_meant_for_another_process_hears_nothing() {
    let bed = Bed::new(&["t"]);
    let manager = Manager::new();
    let mut command = command(&bed, &manager, &bed.config(&["t"]).to_string());
    command.env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "1");
    let worker = Worker::spawn(command);
    manager.until("STATUS=1 of 1 topics read");
    while let Some(message) = manager.next(Duration::from_millis(500)) {
        assert!(!message.starts_with("WATCHDOG"), "{message}");
    }
    bed.stop(worker);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
