//! What a handler writes to standard error (and, run once a batch, to standard output): lines of our log.
//!
//! Owns a thread a handler, `sink:NAME/err`, and nothing else. It ends with the pipe's last writer, and at the
//! latest when its [`Talk`] is heard out, even if a process that the handler has left behind holds the pipe.
//! What always holds: no more than [`LINE_MAX`] bytes of a line are kept, and no more than [`LINES`] lines in
//! [`WINDOW`] are logged; the rest is counted.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::pipe::fcntl_setpipe_size;

/// Of a line of the handler's, in bytes.
const LINE_MAX: usize = 1_000;
/// So many lines are logged in a window,
const LINES: u32 = 100;
/// which is so long.
const WINDOW: Duration = Duration::from_secs(10);
/// What is read at once, and what may still be read when the handler has ended.
const PIPE: usize = 64 << 10;
/// What the pipe is asked to hold, so that a handler that talks much need not wait for us.
const ROOM: usize = 1 << 20;
/// While nothing more is logged the pipe is looked at only so often: a handler that writes a line a record would else
/// wake us, and wait for us, at each of them.
const REST: Duration = Duration::from_millis(10);

/// How much is said in a time; what goes beyond is counted. Pure.
#[derive(Debug, Default)]
pub(super) struct Ration {
    /// When the present window began.
    since: Option<Instant>,
    said: u32,
    hidden: u64,
}

impl Ration {
    /// Whether one more may be said.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.said = 0;
        }
        let allowed = self.said < LINES;
        if allowed {
            self.said += 1;
        } else {
            self.hidden += 1;
        }
        allowed
    }

    /// Whether nothing more may be said for now.
    fn is_used_up(&self, now: Instant) -> bool {
        self.said >= LINES && self.since.is_some_and(|since| now.saturating_duration_since(since) < WINDOW)
    }

    /// When there is something to say of what was hidden.
    fn alarm(&self) -> Option<Instant> {
        self.since.filter(|_| self.hidden > 0).map(|since| since + WINDOW)
    }

    /// How many were hidden since this was asked last.
    pub(super) fn hidden(&mut self) -> u64 {
        std::mem::take(&mut self.hidden)
    }
}

/// The listening to one handler.
#[derive(Debug)]
pub(super) struct Talk {
    thread: Option<JoinHandle<Option<String>>>,
    /// Dropped when the handler has ended.
    stop: Option<PipeWriter>,
}

impl Talk {
    /// Logs what comes out of `pipe` as lines of the handler of sink `name`.
    pub(super) fn begin(name: &str, pipe: PipeReader) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        ioctl_fionbio(&pipe, true)?;
        // Where an unprivileged user may not have so much, the usual 64 KiB do as well.
        let _ = fcntl_setpipe_size(&pipe, ROOM);
        let sink = name.to_owned();
        let thread = thread::Builder::new().name(format!("sink:{name}/err")).spawn(move || {
            Listener { sink, line: Vec::new(), cut: 0, last: None, ration: Ration::default() }.run(pipe, &stopped)
        })?;
        Ok(Self { thread: Some(thread), stop: Some(stop) })
    }

    /// The last line that was written, when the handler has ended. What is in the pipe by now is still logged.
    pub(super) fn last_words(&mut self) -> Option<String> {
        self.stop = None;
        self.thread.take()?.join().ok()?
    }
}

struct Listener {
    sink: String,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    /// How many bytes of it were thrown away.
    cut: usize,
    last: Option<String>,
    ration: Ration,
}

impl Listener {
    fn run(mut self, mut pipe: PipeReader, stopped: &PipeReader) -> Option<String> {
        let mut buffer = vec![0; PIPE];
        // So much may still come once the handler has ended.
        let mut left = PIPE;
        let mut ended = false;
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.push(&buffer[..count]);
                    if ended {
                        left = left.saturating_sub(count);
                        if left == 0 {
                            break;
                        }
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {}
                // A pipe that is empty, or that can't be read: nothing more is to come.
                Err(_) => break,
            }
            let now = Instant::now();
            let alarm = self.ration.alarm().map(|at| at.saturating_duration_since(now));
            if alarm == Some(Duration::ZERO) {
                self.tell_hidden();
                continue;
            }
            let rests = self.ration.is_used_up(now).then_some(REST);
            let timeout = alarm.into_iter().chain(rests).min().and_then(|wait| Timespec::try_from(wait).ok());
            let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(&pipe, PollFlags::IN)];
            let seen = if rests.is_some() { 1 } else { 2 };
            let result = poll(&mut fds[..seen], timeout.as_ref());
            ended = !fds[0].revents().is_empty() || result.is_err_and(|error| error != rustix::io::Errno::INTR);
        }
        if !self.line.is_empty() {
            self.end_line();
        }
        self.tell_hidden();
        self.last
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.keep(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.cut += bytes.len() - room;
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
        if !text.is_empty() {
            if self.ration.allows(Instant::now()) {
                let cut = if self.cut > 0 { format!(" cut_bytes={}", self.cut) } else { String::new() };
                log::info!("handler wrote sink={}{cut} line={text:?}", self.sink);
            }
            self.last = Some(text);
        }
        self.line.clear();
        self.cut = 0;
    }

    fn tell_hidden(&mut self) {
        let hidden = self.ration.hidden();
        if hidden > 0 {
            log::warn!(
                "handler wrote more than is logged sink={} hidden_lines={hidden} limit=\"{LINES} lines in {} s\"",
                self.sink,
                WINDOW.as_secs()
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_window_has_its_ration_and_the_rest_is_counted() {
        let (mut ration, base) = (Ration::default(), Instant::now());
        let allowed = (0..LINES + 20).filter(|_| ration.allows(base)).count();
        assert_eq!((allowed, ration.alarm()), (LINES as usize, Some(base + WINDOW)));
        assert_eq!((ration.hidden(), ration.hidden(), ration.alarm()), (20, 0, None));
        assert!(!ration.allows(base + WINDOW / 2));
        assert!(ration.allows(base + WINDOW));
    }

    #[test]
    fn the_last_line_is_known_though_somebody_holds_the_pipe() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut talk = Talk::begin("t", reader).unwrap();
        writer.write_all(b"one\ntwo\n\n").unwrap();
        assert_eq!(talk.last_words().as_deref(), Some("two"));
        assert_eq!(talk.last_words(), None);
        drop(writer);
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut talk = Talk::begin("t", reader).unwrap();
        for _ in 0..100 {
            writer.write_all(&[b'x'; 10_000]).unwrap();
        }
        drop(writer);
        // Its end is awaited by the end of the pipe, so all of it was read.
        let thread = talk.thread.take().unwrap();
        assert_eq!(thread.join().unwrap().map(|line| line.len()), Some(LINE_MAX));
    }
}
