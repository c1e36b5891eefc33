//! What systemd is told of this process: that it is ready, reloads, stops, lives, and how it is doing.
//!
//! The protocol is sd_notify(3): datagrams of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names.
//! Without that variable nothing is done. What always holds:
//! - it waits for nobody for more than [`PATIENCE`], and what can't be told keeps nothing from going on;
//! - `WATCHDOG=1` is sent by the supervisor's loop itself, and only while the observer's has moved
//!   lately: a timer of its own would go on beside a process that hangs.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long a message may wait for a place in systemd's queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// An observer that has not moved for this long may still be well: its loop turns once a second.
const STILL: Duration = Duration::from_secs(3);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Notify {
    to: Option<SocketAddr>,
    watchdog: Option<Watchdog>,
    /// The last `STATUS`.
    status: String,
    failing: bool,
}

#[derive(Debug)]
struct Watchdog {
    /// `WatchdogSec` of the unit.
    timeout: Duration,
    told: Option<Instant>,
    /// Whether the log knows that the observer stands still.
    silent: bool,
}

impl Notify {
    /// As systemd has put it into the environment.
    pub(super) fn from_environment() -> Self {
        let text = |name| env::var(name).ok();
        let mut notify = Self::default();
        if let Some(socket) = env::var_os("NOTIFY_SOCKET") {
            match address(&socket) {
                Ok(address) => notify.to = Some(address),
                Err(error) => log::warn!("systemd can't be told anything NOTIFY_SOCKET={socket:?} error=\"{error}\""),
            }
        }
        let timeout = timeout(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), process::id());
        notify.watchdog = timeout.map(|timeout| Watchdog { timeout, told: None, silent: false });
        notify
    }

    /// Whether anybody wants to hear of this process.
    pub(super) const fn is_wanted(&self) -> bool {
        self.to.is_some()
    }

    /// How often [`alive`](Self::alive) has to be called at least.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.watchdog.as_ref().map(|watchdog| watchdog.timeout / 4)
    }

    /// The start, or a reload, is done.
    pub(super) fn ready(&mut self) {
        self.send("READY=1");
    }

    /// A reload begins. It ends with [`ready`](Self::ready). The time is what lets systemd tell this reload
    /// from an earlier one (`Type=notify-reload`); systemd before 253 does not read it.
    pub(super) fn reloading(&mut self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// A stop begins, and takes at most `within`, whatever the unit's `TimeoutStopSec` is.
    pub(super) fn stopping(&mut self, within: Duration) {
        self.status = format!("stopping, within {} s", within.as_secs());
        self.send(&format!("STOPPING=1\nSTATUS={}\nEXTEND_TIMEOUT_USEC={}", self.status, within.as_micros()));
    }

    /// How it is doing, in one line; sent if it is another one than before.
    pub(super) fn status(&mut self, status: String) {
        if self.status != status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// The supervisor lives. `observer`: for how long the observer has not moved; `None` once it is to end.
    pub(super) fn alive(&mut self, now: Instant, observer: Option<Duration>) {
        let Some(watchdog) = &mut self.watchdog else { return };
        let still = observer.filter(|still| *still > STILL.max(watchdog.timeout / 2));
        if let (Some(still), false) = (still, watchdog.silent) {
            log::error!(
                "the observer stands still for_ms={} watchdog_ms={} meaning=\"systemd is no longer told that this process lives, and starts it again\"",
                still.as_millis(),
                watchdog.timeout.as_millis()
            );
        }
        watchdog.silent = still.is_some();
        let recent = |told: Instant| now.saturating_duration_since(told) < watchdog.timeout / 4;
        if still.is_none() && !watchdog.told.is_some_and(recent) {
            watchdog.told = Some(now);
            self.send("WATCHDOG=1");
        }
    }

    fn send(&mut self, lines: &str) {
        let Some(to) = &self.to else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.send_to_addr(lines.as_bytes(), to)
        });
        if let (Err(error), false) = (&sent, self.failing) {
            log::warn!("systemd can't be told anything message={lines:?} error=\"{error}\"");
        }
        self.failing = sent.is_err();
    }
}

/// `/run/systemd/notify`, or `@NAME` for a socket that has no file.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other("it begins with neither / nor @")),
    }
}

/// When systemd takes this process for dead, if it looks (sd_watchdog_enabled(3)).
fn timeout(micros: Option<&str>, of: Option<&str>, own: u32) -> Option<Duration> {
    if of.is_some_and(|of| of.parse() != Ok(own)) {
        return None;
    }
    micros?.parse().ok().filter(|micros| *micros > 0).map(Duration::from_micros)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A service manager.
    fn manager(timeout: Option<Duration>) -> (UnixDatagram, Notify) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("@worker-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let to = address(OsStr::new(&name)).unwrap();
        let socket = UnixDatagram::bind_addr(&to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let watchdog = timeout.map(|timeout| Watchdog { timeout, told: None, silent: false });
        (socket, Notify { to: Some(to), watchdog, ..Notify::default() })
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 200];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn it_says_it_lives_while_supervisor_and_observer_do() {
        let (socket, mut notify) = manager(Some(8000 * MS));
        let now = Instant::now();
        notify.alive(now, Some(MS));
        assert_eq!(heard(&socket).as_deref(), Some("WATCHDOG=1"));
        notify.alive(now + 1999 * MS, Some(MS));
        assert_eq!(heard(&socket), None, "a quarter of the time has not gone by");
        notify.alive(now + 2000 * MS, Some(4000 * MS));
        assert_eq!(heard(&socket).as_deref(), Some("WATCHDOG=1"));
        for second in 5..20 {
            notify.alive(now + 1000 * second * MS, Some(4001 * MS));
        }
        assert_eq!(heard(&socket), None, "the observer stands still");
        notify.alive(now + 20_000 * MS, Some(MS));
        assert_eq!(heard(&socket).as_deref(), Some("WATCHDOG=1"));
        notify.alive(now + 40_000 * MS, None);
        assert_eq!(heard(&socket).as_deref(), Some("WATCHDOG=1"), "while it drains there is no observer");
    }

    #[test]
    fn the_same_status_is_told_once() {
        let (socket, mut notify) = manager(None);
        for status in ["a", "a", "b"] {
            notify.status(status.to_owned());
        }
        notify.alive(Instant::now(), Some(MS));
        let all: Vec<_> = std::iter::from_fn(|| heard(&socket)).collect();
        assert_eq!(all, ["STATUS=a", "STATUS=b"]);
    }

    #[test]
    fn the_watchdog_may_be_meant_for_another_process() {
        assert_eq!(timeout(Some("30000000"), None, 7), Some(30_000 * MS));
        assert_eq!(timeout(Some("30000000"), Some("7"), 7), Some(30_000 * MS));
        for (micros, of) in [
            (Some("30000000"), Some("8")),
            (None, Some("7")),
            (Some("0"), None),
            (Some("x"), None),
            (Some("1"), Some("")),
        ] {
            assert_eq!(timeout(micros, of, 7), None, "{micros:?} {of:?}");
        }
    }

    #[test]
    fn addresses() {
        assert!(address(OsStr::new("/run/systemd/notify")).unwrap().as_pathname().is_some());
        assert_eq!(address(OsStr::new("@a/b")).unwrap().as_abstract_name(), Some(&b"a/b"[..]));
        assert!(address(OsStr::new("vsock:2:1")).is_err() && address(OsStr::new("")).is_err());
    }

    #[test]
    fn a_manager_that_is_gone_or_does_not_listen_holds_nothing_up() {
        let (socket, mut notify) = manager(None);
        let began = Instant::now();
        // Until its queue is full.
        while !notify.failing {
            notify.ready();
        }
        assert!(began.elapsed() < 20 * PATIENCE);
        drop(socket);
        notify.ready();
        assert!(notify.failing);
    }
}
