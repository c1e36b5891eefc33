//! A handler's process: started, waited for, ended.
//!
//! Owns the process, its pipes and its process group. What always holds:
//! - the group is killed before its leader is reaped: until then its number can't be another's;
//! - dropping one kills it;
//! - once its lane's [`Brake`] was used it is about to end, and no other one is started.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};

use super::Settings;
use super::talk::Talk;
use super::told::{Kind, Told};
use crate::logging::foreign;

/// How long one that was sent SIGKILL may take to be gone: the system does that, unless it hangs in a file system.
const LAST: Duration = Duration::from_secs(1);
/// How often to look for the end of a process where the system has no event for it (Linux before 5.3).
const LOOK: Duration = Duration::from_millis(50);

/// The process groups of all handlers.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills all handlers that are left, with what they have started: for the end of a process that can wait no longer.
pub fn kill_left() {
    for pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Ends the handlers of one lane from another thread, when nobody waits for their answers any more.
#[derive(Debug)]
pub(super) struct Brake {
    told: Arc<Told>,
    state: Mutex<Braked>,
}

#[derive(Debug, Default)]
struct Braked {
    /// How often it was used.
    times: u32,
    /// The one that runs. A lane has one at a time.
    running: Option<Pid>,
}

impl Brake {
    fn state(&self) -> MutexGuard<'_, Braked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends SIGTERM to what runs, and SIGKILL from the second time on.
    pub(super) fn press(&self) {
        let mut state = self.state();
        state.times += 1;
        let Some(pid) = state.running else { return };
        let signal = if state.times == 1 { Signal::TERM } else { Signal::KILL };
        let _ = kill_process_group(pid, signal);
        drop(state);
        let (sink, name) = (self.told.sink(), name_of(signal));
        self.told.say(
            Kind::Lost,
            format_args!("drain is over, handler is ended sink={sink} pid={} signal={name}", pid.as_raw_nonzero()),
        );
    }

    fn is_pressed(&self) -> bool {
        self.state().times > 0
    }

    /// One runs. If it was started just when that was no longer wanted it ends at once.
    fn enter(&self, pid: Pid) {
        let mut state = self.state();
        state.running = Some(pid);
        if state.times > 0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// It is about to be reaped: then its number may be another's.
    fn leave(&self) {
        self.state().running = None;
    }
}

/// What all handlers of a lane are started from.
#[derive(Clone, Debug)]
pub(super) struct Starter {
    pub(super) settings: Settings,
    pub(super) told: Arc<Told>,
    pub(super) brake: Arc<Brake>,
}

impl Starter {
    /// Of a lane of sink `name`.
    pub(super) fn new(name: &str, settings: Settings) -> Self {
        let told = Told::of(name);
        let brake = Arc::new(Brake { told: Arc::clone(&told), state: Mutex::default() });
        Self { settings, told, brake }
    }
}

/// What a wait has brought.
pub(super) struct Ready {
    /// The process that was started has ended. What it wrote is still in its pipes.
    pub(super) ended: bool,
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// `None`: it is not gone yet, in spite of SIGKILL.
    pub(super) status: Option<ExitStatus>,
    /// It ended without having been asked to.
    pub(super) by_itself: bool,
    /// The last line of its standard error.
    pub(super) last_words: Option<String>,
}

/// `exit code 3, last line of its standard error: 'no such table'`
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "exit code {code}")?,
            Some((None, Some(signal))) => match Signal::from_named_raw(signal).map(name_of) {
                Some(name) if !name.is_empty() => write!(f, "signal {signal}, {name}")?,
                _ => write!(f, "signal {signal}")?,
            },
            Some((None, None)) | None => f.write_str("it is not gone yet in spite of SIGKILL")?,
        }
        match &self.last_words {
            Some(line) => {
                let line: String = line.chars().take(200).collect();
                write!(f, "; last line of its standard error: '{}'", foreign(&line))
            }
            None => f.write_str("; nothing on its standard error"),
        }
    }
}

fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::HUP => "SIGHUP",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::PIPE => "SIGPIPE",
        Signal::SEGV => "SIGSEGV",
        Signal::TERM => "SIGTERM",
        _ => "",
    }
}

/// A running handler.
#[derive(Debug)]
pub(super) struct Process {
    child: Option<Child>,
    pid: Pid,
    /// Readable when the process has ended; absent where the system has no such thing.
    pidfd: Option<OwnedFd>,
    stdin: Option<PipeWriter>,
    /// The end that it reads from, of one that does not answer: whether it has read all can then be asked of the pipe,
    /// also when it has ended. It is closed in the handler by the exec, and never read here.
    ///
    /// As long as this is open a handler that closes its input shows no broken pipe. Who answers is owed an answer, and
    /// a broken pipe says early that none will come; so such a one has none of this. A run with an exit code is waited
    /// for until its end or its deadline in any case: a pipe that nobody reads is full until then, or holds all.
    unread: Option<PipeReader>,
    stdout: Option<ChildStdout>,
    talk: Talk,
    brake: Arc<Brake>,
}

impl Process {
    /// Starts the command. `answers`: its standard output is read here; else it goes to the log as its standard
    /// error does.
    ///
    /// # Errors
    /// The reason, in words for the log.
    pub(super) fn start(starter: &Starter, answers: bool) -> Result<Self, String> {
        let Starter { settings, told, brake } = starter;
        if brake.is_pressed() {
            return Err("the worker stops, and no handler is started any more".to_owned());
        }
        let wrong = |error: io::Error| {
            let hint = match error.kind() {
                ErrorKind::NotFound => "it is not there, or its first line (#!) names a program that is not",
                ErrorKind::PermissionDenied => "chmod +x, and let the worker's user get at it",
                ErrorKind::ExecutableFileBusy => "it is being written",
                _ => "look at the limits of processes and of open files",
            };
            format!("the handler {:?} can't be started: {error}; {hint}", settings.program())
        };
        let (err, err_of_child) = io::pipe().map_err(wrong)?;
        let (stdin_of_child, stdin) = io::pipe().map_err(wrong)?;
        let unread = if answers { None } else { Some(stdin_of_child.try_clone().map_err(wrong)?) };
        let mut command = Command::new(settings.program());
        command
            .args(&settings.command[1..])
            .process_group(0)
            .stdin(stdin_of_child)
            .stderr(err_of_child.try_clone().map_err(wrong)?)
            // What systemd has told us is not meant for others.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC");
        if answers {
            drop(err_of_child);
            command.stdout(Stdio::piped());
        } else {
            command.stdout(err_of_child);
        }
        let talk = Talk::begin(told, err).map_err(wrong)?;
        let mut child = command.spawn().map_err(wrong)?;
        // The command holds our copies of the child's ends.
        drop(command);
        let pid = Pid::from_child(&child);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(pid.as_raw_nonzero().get());
        brake.enter(pid);
        let stdout = child.stdout.take();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let process =
            Self { child: Some(child), pid, pidfd, stdin: Some(stdin), unread, stdout, talk, brake: Arc::clone(brake) };
        process.stdin.iter().try_for_each(|pipe| ioctl_fionbio(pipe, true)).map_err(|error| wrong(error.into()))?;
        process.stdout.iter().try_for_each(|pipe| ioctl_fionbio(pipe, true)).map_err(|error| wrong(error.into()))?;
        Ok(process)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether the process that was started has ended. It is not reaped by that.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) => {}
                Ok(status) => return status.is_some(),
                // Somebody else has reaped it.
                Err(_) => return true,
            }
        }
    }

    /// Waits until it has ended, its output can be read, or, with `write`, its input can be written; at most until
    /// `until`. It may come back before any of that.
    pub(super) fn wait(&self, write: bool, until: Instant) -> Ready {
        let mut left = until.saturating_duration_since(Instant::now());
        if self.pidfd.is_none() {
            if self.has_ended() {
                return Ready { ended: true };
            }
            left = left.min(LOOK);
        }
        let timeout = Timespec::try_from(left).ok();
        let mut fds = Vec::with_capacity(3);
        fds.extend(self.pidfd.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        fds.extend(self.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(self.stdin.as_ref().filter(|_| write).map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        let _ = poll(&mut fds, timeout.as_ref());
        let ended = self.pidfd.is_some() && fds.first().is_some_and(|pidfd| !pidfd.revents().is_empty());
        Ready { ended }
    }

    /// Writes as much of `bytes` as its pipe takes now.
    ///
    /// # Errors
    /// It has closed its input.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &mut self.stdin else { return Err(ErrorKind::BrokenPipe.into()) };
        let mut done = 0;
        while done < bytes.len() {
            match stdin.write(&bytes[done..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(some) => done += some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads what it has answered; `None`: nothing at present. 0: its output is closed.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match self.stdout.as_mut()?.read(buffer) {
                Ok(count) => return Some(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(0),
            }
        }
    }

    /// How many bytes of what was written it has not read, of one that does not answer. To be asked when it has ended,
    /// and before its group is killed: what it has left behind may still read.
    pub(super) fn unread(&self) -> u64 {
        self.unread.as_ref().and_then(|pipe| ioctl_fionread(pipe).ok()).unwrap_or(0)
    }

    /// Closes its input: nothing more is to come.
    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Asks it to end by closing its input, then by SIGTERM, and kills it.
    pub(super) fn end(mut self, patience: Duration) -> Ending {
        self.close_input();
        self.await_end(patience);
        self.finish(LAST)
    }

    /// Sends SIGTERM, and kills it after `patience`.
    pub(super) fn stop(mut self, patience: Duration) -> Ending {
        self.close_input();
        self.finish(patience)
    }

    /// Waits for its end, at most so long. What it still answers is thrown away.
    pub(super) fn await_end(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            match self.read(&mut buffer) {
                Some(0) => self.stdout = None,
                Some(_) => {}
                None => {
                    self.wait(false, until);
                }
            }
        }
    }

    fn finish(&mut self, patience: Duration) -> Ending {
        let by_itself = self.has_ended();
        if !by_itself {
            let _ = kill_process_group(self.pid, Signal::TERM);
            self.await_end(patience);
        }
        let status = self.kill();
        Ending { status, by_itself, last_words: self.talk.last_words() }
    }

    /// Kills the whole group, and reaps the process.
    fn kill(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let _ = kill_process_group(self.pid, Signal::KILL);
        let gone = self.await_end(LAST);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid());
        self.brake.leave();
        if gone {
            return child.wait().ok();
        }
        // It hangs in the system. Whoever waits for it must not be the lane.
        let _ = thread::Builder::new().name("reap".to_owned()).spawn(move || child.wait());
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
