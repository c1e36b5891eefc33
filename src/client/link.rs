//! A link: a thread that runs one blocking call at a time, each with a deadline.
//!
//! Owns the thread and, on it, the session: wire sockets, a client of the crate `kafka`, or nothing, whatever the
//! calls need. Only the link's thread touches the session. A call that panics, breaks the connection or does not come back in
//! its time costs the session: the next call gets a new thread with a new one. The abandoned thread
//! can deliver nothing, because nobody holds the receiver of its reply, and ends by itself when its
//! socket gives up. A thread without calls ends and leaves the session to the next one: topics without records are
//! many, and a thread is the larger part of what a link costs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::client::{Call, Fault};

/// Threads whose call did not return that are put up with before no new one is made.
const MAX_ABANDONED: usize = 4;

/// A thread that has had no call for so long is not kept.
const KEPT: Duration = Duration::from_secs(10);

type Job<S, R> = Box<dyn FnOnce(&mut S) -> R + Send>;

struct Running<S, R> {
    calls: Sender<Job<S, R>>,
    replies: Receiver<Result<R, String>>,
    /// The thread holds the other end for as long as it runs.
    alive: Weak<()>,
    /// Where it leaves the session when it has no more calls.
    left: Receiver<S>,
}

struct Busy {
    call: &'static str,
    started: Instant,
    deadline: Instant,
}

/// See the module's text. `S` is the session, `R` what calls return.
pub(crate) struct Link<S, R> {
    name: String,
    make: Arc<dyn Fn() -> S + Send + Sync>,
    ready: Sender<()>,
    running: Option<Running<S, R>>,
    busy: Option<Busy>,
    /// When the last reply came.
    used: Option<Instant>,
    /// The session of a thread that has ended.
    left: Option<Receiver<S>>,
    abandoned: Vec<Weak<()>>,
}

impl<S: Send + 'static, R: Send + 'static> Link<S, R> {
    /// A link that starts its thread with its first call. `make` runs on that thread.
    pub(crate) fn new(name: String, ready: Sender<()>, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let make = Arc::new(make);
        Self { name, make, ready, running: None, busy: None, used: None, left: None, abandoned: Vec::new() }
    }

    /// Whether a call is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// When the call under way is given up.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.busy.as_ref().map(|busy| busy.deadline)
    }

    /// The call under way.
    pub(crate) fn call(&self) -> Option<Call> {
        self.busy.as_ref().map(|busy| Call { what: busy.call, since: busy.started })
    }

    /// Starts a call. To be asked for by [`Link::reply`], also if this fails.
    pub(crate) fn start(
        &mut self,
        call: &'static str,
        allowed: Duration,
        now: Instant,
        run: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<(), Fault> {
        debug_assert!(self.busy.is_none(), "a link runs one call at a time");
        if self.running.is_none() {
            self.running = Some(self.spawn(call)?);
        }
        let sent = self.running.as_ref().map(|running| running.calls.try_send(Box::new(run)));
        if !matches!(sent, Some(Ok(()))) {
            self.replace();
            return Err(Fault::Broken { call, why: "its thread has ended".to_owned() });
        }
        self.busy = Some(Busy { call, started: now, deadline: now + allowed });
        Ok(())
    }

    /// The reply of the call under way, if it has come or its time is over.
    pub(crate) fn reply(&mut self, now: Instant) -> Option<Result<R, Fault>> {
        let Some(busy) = &self.busy else {
            self.rest(now);
            return None;
        };
        let call = busy.call;
        let replies = &self.running.as_ref()?.replies;
        let fault = match replies.try_recv() {
            Ok(Ok(reply)) => {
                (self.busy, self.used) = (None, Some(now));
                return Some(Ok(reply));
            }
            Ok(Err(panic)) => Fault::Broken { call, why: format!("the client library panicked: {panic}") },
            Err(TryRecvError::Disconnected) => Fault::Broken { call, why: "its thread has ended".to_owned() },
            Err(TryRecvError::Empty) if now < busy.deadline => return None,
            Err(TryRecvError::Empty) => {
                let after = busy.deadline.saturating_duration_since(busy.started).as_millis();
                Fault::Deadline { call, after_ms: u64::try_from(after).unwrap_or(u64::MAX) }
            }
        };
        self.replace();
        Some(Err(fault))
    }

    /// Ends the thread if it has had no call for long.
    fn rest(&mut self, now: Instant) {
        if self.used.is_some_and(|used| now.saturating_duration_since(used) >= KEPT)
            && let Some(running) = self.running.take()
        {
            self.left = Some(running.left);
        }
    }

    /// Gives the session up: what is under way is abandoned, the next call gets a new one.
    pub(crate) fn replace(&mut self) {
        (self.busy, self.left) = (None, None);
        if let Some(running) = self.running.take() {
            self.abandoned.push(running.alive);
        }
        self.abandoned.retain(|thread| thread.strong_count() > 0);
    }

    fn spawn(&mut self, call: &'static str) -> Result<Running<S, R>, Fault> {
        self.abandoned.retain(|thread| thread.strong_count() > 0);
        if self.abandoned.len() >= MAX_ABANDONED {
            return Err(Fault::Stuck { call, earlier: self.abandoned.len() });
        }
        let (calls, inbox) = bounded::<Job<S, R>>(1);
        let (outbox, replies) = bounded(1);
        let (make, ready, token) = (Arc::clone(&self.make), self.ready.clone(), Arc::new(()));
        let (leave, left) = bounded(1);
        let earlier = self.left.take();
        let alive = Arc::downgrade(&token);
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                let _token = token;
                // The earlier thread has no call, and is about to leave it.
                let mut session = earlier.and_then(|left| left.recv().ok()).unwrap_or_else(|| make());
                for call in inbox {
                    let reply = catch_unwind(AssertUnwindSafe(|| call(&mut session)));
                    let panicked = reply.is_err();
                    let gone = outbox.send(reply.map_err(|panic| panic_text(&*panic))).is_err();
                    // Full means that a wake-up is already on its way.
                    let _ = ready.try_send(());
                    if gone || panicked {
                        return;
                    }
                }
                // Nobody wants it if the link is gone.
                let _ = leave.try_send(session);
            })
            .map_err(|why| Fault::Broken { call, why: format!("no thread can be started: {why}") })?;
        Ok(Running { calls, replies, alive, left })
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn link() -> (Link<u32, u32>, Receiver<()>) {
        let (tx, rx) = bounded(1);
        (Link::new("link:test".to_owned(), tx, || 0), rx)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn calls_share_a_session_until_one_panics() {
        let (mut link, ready) = link();
        for expected in [1, 2] {
            let call = |n: &mut u32| {
                *n += 1;
                *n
            };
            link.start("count", LONG, Instant::now(), call).unwrap();
            ready.recv().unwrap();
            assert_eq!(link.reply(Instant::now()), Some(Ok(expected)));
        }
        link.start("panic", LONG, Instant::now(), |_| panic!("available connection")).unwrap();
        ready.recv().unwrap();
        let Some(Err(Fault::Broken { why, .. })) = link.reply(Instant::now()) else { panic!("a fault is expected") };
        assert!(why.contains("available connection"), "{why}");
        link.start("count", LONG, Instant::now(), |n| *n).unwrap();
        ready.recv().unwrap();
        assert_eq!(link.reply(Instant::now()), Some(Ok(0)), "the session is a new one");
    }

    #[test]
    fn a_thread_without_calls_leaves_its_session_to_the_next_one() {
        let (mut link, ready) = link();
        let count = |link: &mut Link<u32, u32>| {
            let now = Instant::now();
            let call = |n: &mut u32| {
                *n += 1;
                *n
            };
            link.start("count", LONG, now, call).unwrap();
            ready.recv().unwrap();
            link.reply(now)
        };
        assert_eq!(count(&mut link), Some(Ok(1)));
        let thread = link.running.as_ref().unwrap().alive.clone();
        link.reply(Instant::now());
        assert!(link.running.is_some(), "it is kept for a while");
        link.reply(Instant::now() + KEPT);
        assert!(link.running.is_none());
        assert_eq!(count(&mut link), Some(Ok(2)), "the session goes on");
        let deadline = Instant::now() + LONG;
        while thread.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the thread must end");
            thread::yield_now();
        }
    }

    #[test]
    fn calls_that_do_not_return_are_given_up_and_bounded_in_number() {
        let (mut link, _ready) = link();
        let (hold, held) = bounded::<()>(0);
        for _ in 0..MAX_ABANDONED {
            let (now, held) = (Instant::now(), held.clone());
            link.start("hang", Duration::ZERO, now, move |_| held.recv().map_or(1, |()| 0)).unwrap();
            // The reply cannot come, so the deadline decides.
            assert_eq!(link.reply(now), Some(Err(Fault::Deadline { call: "hang", after_ms: 0 })));
        }
        assert!(link.start("one more", LONG, Instant::now(), |n| *n).is_err());
        drop(hold);
        // The threads end as soon as their call does; then there is room for a new one.
        let deadline = Instant::now() + LONG;
        while link.start("one more", LONG, Instant::now(), |n| *n).is_err() {
            assert!(Instant::now() < deadline, "abandoned threads must end");
            thread::yield_now();
        }
    }
}
