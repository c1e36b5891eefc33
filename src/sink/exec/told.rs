//! What the log has of the handlers of one sink, all its lanes together.
//!
//! Owns how much of it: sixty-four lanes whose handlers die at once, or write much, fill no disk. What always holds: what
//! goes beyond a [`Kind`]'s ration in a [`WINDOW`] is counted, and the count is told when the window is over, at the
//! latest at the sink's end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::Level;

/// For so long a ration is.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What handlers write.
    Wrote,
    /// That they are started, and end.
    Came,
    /// That they are lost.
    Lost,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Wrote, Self::Came, Self::Lost];

    /// So many lines in a window.
    const fn most(self) -> u32 {
        match self {
            Self::Wrote => 100,
            Self::Came | Self::Lost => 10,
        }
    }

    const fn level(self) -> Level {
        match self {
            Self::Wrote | Self::Came => Level::Info,
            Self::Lost => Level::Warn,
        }
    }

    /// There was more than the ration.
    const fn more(self) -> (Level, &'static str) {
        match self {
            Self::Wrote => (Level::Warn, "handler wrote more than is logged"),
            Self::Came => (Level::Info, "handlers started and ended more often than is logged"),
            Self::Lost => (Level::Warn, "handlers lost more often than is logged"),
        }
    }
}

/// How much is said in a window; what goes beyond is counted. Pure.
#[derive(Debug, Default)]
struct Ration {
    /// When the present window began.
    since: Option<Instant>,
    said: u32,
    hidden: u64,
}

impl Ration {
    /// When the present window is over.
    fn end(&self) -> Option<Instant> {
        self.since.map(|since| since + WINDOW)
    }

    /// How many were hidden in the window that is over.
    fn over(&mut self, now: Instant) -> u64 {
        if self.end().is_none_or(|end| now < end) {
            return 0;
        }
        std::mem::take(self).hidden
    }

    /// Whether one more may be said.
    fn allows(&mut self, most: u32, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let allowed = self.said < most;
        if allowed {
            self.said += 1;
        } else {
            self.hidden += 1;
        }
        allowed
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Told {
    sink: String,
    /// One for each kind, in their order.
    rations: Mutex<[Ration; Kind::ALL.len()]>,
}

/// Those of the sinks that are open, by name: each lane opens its own, and knows no other.
static OPEN: Mutex<BTreeMap<String, Weak<Told>>> = Mutex::new(BTreeMap::new());

impl Told {
    /// The one of this sink.
    pub(super) fn of(sink: &str) -> Arc<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, told| told.strong_count() > 0);
        if let Some(told) = open.get(sink).and_then(Weak::upgrade) {
            return told;
        }
        let told = Arc::new(Self { sink: sink.to_owned(), rations: Mutex::default() });
        open.insert(sink.to_owned(), Arc::downgrade(&told));
        told
    }

    /// The sink's name.
    pub(super) fn sink(&self) -> &str {
        &self.sink
    }

    fn rations(&self) -> MutexGuard<'_, [Ration; Kind::ALL.len()]> {
        self.rations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes this line, if there may be one more.
    pub(super) fn say(&self, kind: Kind, line: fmt::Arguments<'_>) {
        // Not under the lock: whoever writes slowly holds nobody up.
        let (hidden, allowed) = {
            let (now, ration) = (Instant::now(), &mut self.rations()[kind as usize]);
            (ration.over(now), ration.allows(kind.most(), now))
        };
        self.tell(kind, hidden);
        if allowed {
            log::log!(kind.level(), "{line}");
        }
    }

    /// Whether nothing more of this kind may be said for now.
    pub(super) fn is_used_up(&self, kind: Kind, now: Instant) -> bool {
        let ration = &self.rations()[kind as usize];
        ration.said >= kind.most() && ration.end().is_some_and(|end| now < end)
    }

    /// When [`tell_hidden`](Self::tell_hidden) has something to tell.
    pub(super) fn alarm(&self) -> Option<Instant> {
        self.rations().iter().filter(|ration| ration.hidden > 0).filter_map(Ration::end).min()
    }

    /// Tells how much was hidden in the windows that are over.
    pub(super) fn tell_hidden(&self, now: Instant) {
        for kind in Kind::ALL {
            let hidden = self.rations()[kind as usize].over(now);
            self.tell(kind, hidden);
        }
    }

    fn tell(&self, kind: Kind, hidden: u64) {
        if hidden > 0 {
            let ((level, more), most, sink) = (kind.more(), kind.most(), &self.sink);
            let seconds = WINDOW.as_secs();
            log::log!(level, "{more} sink={sink} hidden_lines={hidden} limit=\"{most} lines in {seconds} s\"");
        }
    }
}

/// What is to be told is told, however it ends.
impl Drop for Told {
    fn drop(&mut self) {
        self.tell_hidden(Instant::now() + WINDOW);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_its_ration_and_the_rest_is_counted() {
        let (mut ration, base) = (Ration::default(), Instant::now());
        let allowed = (0..30).filter(|_| ration.allows(10, base)).count();
        assert_eq!((allowed, ration.hidden, ration.end()), (10, 20, Some(base + WINDOW)));
        assert_eq!((ration.over(base + WINDOW / 2), ration.allows(10, base + WINDOW / 2)), (0, false));
        assert_eq!((ration.over(base + WINDOW), ration.over(base + WINDOW)), (21, 0));
        assert!(ration.allows(10, base + WINDOW));
    }

    #[test]
    fn lanes_of_a_sink_share_what_is_said_and_sinks_do_not() {
        let told = Told::of("told-a");
        for _ in 0..Kind::Lost.most() {
            Told::of("told-a").say(Kind::Lost, format_args!("lost"));
        }
        let now = Instant::now();
        assert!(told.is_used_up(Kind::Lost, now) && told.alarm().is_none());
        assert!(!told.is_used_up(Kind::Came, now) && !Told::of("told-b").is_used_up(Kind::Lost, now));
        Told::of("told-a").say(Kind::Lost, format_args!("lost"));
        assert!(told.alarm().is_some_and(|at| at > now && at <= now + WINDOW));
        told.tell_hidden(now);
        assert!(told.alarm().is_some(), "not yet");
        told.tell_hidden(now + WINDOW);
        assert!(told.alarm().is_none() && !told.is_used_up(Kind::Lost, now));
        drop(told);
        assert_eq!(Told::of("told-a").rations()[Kind::Lost as usize].said, 0, "another one");
    }
}
