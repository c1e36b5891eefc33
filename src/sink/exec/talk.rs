//! What a handler writes to standard error (and, run once a batch, to standard output): lines of our log.
//!
//! Owns a thread a handler, `sink:NAME/err`, and nothing else. It ends with the pipe's last writer, and at the
//! latest when its [`Talk`] is heard out, even if a process that the handler has left behind holds the pipe.
//! What always holds: no more than [`LINE_MAX`] bytes of a line are kept, and no more lines are logged than the sink's
//! [`Told`] allows. As it waits as long as the handler lives, it also sees to it that the sink's counts are told.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::pipe::fcntl_setpipe_size;

use super::told::{Kind, Told, WINDOW};

/// Of a line of the handler's, in bytes.
const LINE_MAX: usize = 1_000;
/// What is read at once, and what may still be read when the handler has ended.
const PIPE: usize = 64 << 10;
/// What the pipe is asked to hold, so that a handler that talks much need not wait for us.
const ROOM: usize = 1 << 20;
/// While nothing more is logged the pipe is looked at only so often: a handler that writes a line a record would else
/// wake us, and wait for us, at each of them.
const REST: Duration = Duration::from_millis(10);

/// The listening to one handler.
#[derive(Debug)]
pub(super) struct Talk {
    thread: Option<JoinHandle<Option<String>>>,
    /// Dropped when the handler has ended.
    stop: Option<PipeWriter>,
}

impl Talk {
    /// Logs what comes out of `pipe` as lines of a handler of `told`'s sink.
    pub(super) fn begin(told: &Arc<Told>, pipe: PipeReader) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        ioctl_fionbio(&pipe, true)?;
        // Where an unprivileged user may not have so much, the usual 64 KiB do as well.
        let _ = fcntl_setpipe_size(&pipe, ROOM);
        let (told, name) = (Arc::clone(told), format!("sink:{}/err", told.sink()));
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || Listener { told, line: Vec::new(), cut: 0, last: None }.run(pipe, &stopped))?;
        Ok(Self { thread: Some(thread), stop: Some(stop) })
    }

    /// The last line that was written, when the handler has ended. What is in the pipe by now is still logged.
    pub(super) fn last_words(&mut self) -> Option<String> {
        self.stop = None;
        self.thread.take()?.join().ok()?
    }
}

struct Listener {
    told: Arc<Told>,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
    /// How many bytes of it were thrown away.
    cut: usize,
    last: Option<String>,
}

impl Listener {
    fn run(mut self, mut pipe: PipeReader, stopped: &PipeReader) -> Option<String> {
        let mut buffer = vec![0; PIPE];
        // So much may still come once the handler has ended.
        let mut left = PIPE;
        let (mut ended, mut busy) = (false, false);
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    self.push(&buffer[..count]);
                    busy = true;
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
            self.told.tell_hidden(now);
            // What another lane hides meanwhile wakes nobody, so it is looked for in time.
            let alarm = self.told.alarm().unwrap_or(now + WINDOW).saturating_duration_since(now);
            let rests = std::mem::take(&mut busy) && self.told.is_used_up(Kind::Wrote, now);
            let timeout = Timespec::try_from(if rests { alarm.min(REST) } else { alarm }).ok();
            let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(&pipe, PollFlags::IN)];
            let seen = if rests { 1 } else { 2 };
            let result = poll(&mut fds[..seen], timeout.as_ref());
            ended = !fds[0].revents().is_empty() || result.is_err_and(|error| error != rustix::io::Errno::INTR);
        }
        if !self.line.is_empty() {
            self.end_line();
        }
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
            let cut = if self.cut > 0 { format!(" cut_bytes={}", self.cut) } else { String::new() };
            self.told.say(Kind::Wrote, format_args!("handler wrote sink={}{cut} line={text:?}", self.told.sink()));
            self.last = Some(text);
        }
        self.line.clear();
        self.cut = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_line_is_known_though_somebody_holds_the_pipe() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut talk = Talk::begin(&Told::of("t"), reader).unwrap();
        writer.write_all(b"one\ntwo\n\n").unwrap();
        assert_eq!(talk.last_words().as_deref(), Some("two"));
        assert_eq!(talk.last_words(), None);
        drop(writer);
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut talk = Talk::begin(&Told::of("t"), reader).unwrap();
        for _ in 0..100 {
            writer.write_all(&[b'x'; 10_000]).unwrap();
        }
        drop(writer);
        // Its end is awaited by the end of the pipe, so all of it was read.
        let thread = talk.thread.take().unwrap();
        assert_eq!(thread.join().unwrap().map(|line| line.len()), Some(LINE_MAX));
    }
}
