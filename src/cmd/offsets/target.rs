//! Where an offset is moved to, and what is passed over or read again by it. Pure.

use std::fmt;

use crate::cli::To;
use crate::client::Bounds;
use crate::record::Offset;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Earliest,
    Latest,
    Offset(Offset),
    /// Milliseconds since 1970 (UTC).
    Time(u64),
    /// From where the group stands.
    Shift(i64),
}

impl Target {
    /// `None` if there is none of them, which the command line does not let through.
    pub(super) fn of(to: &To) -> Option<Self> {
        let offset = to.to_offset.and_then(Offset::new).map(Self::Offset);
        let earliest = to.to_earliest.then_some(Self::Earliest);
        let latest = to.to_latest.then_some(Self::Latest);
        earliest.or(latest).or(offset).or(to.to_time.map(Self::Time)).or(to.shift_by.map(Self::Shift))
    }
}

/// What had to be done to find a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remark {
    /// It lay before the log start.
    BeforeStart(i128),
    /// It lay behind the log end.
    BehindEnd(i128),
    /// No record is of that time or later.
    NothingSoLate,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeStart(wanted) => write!(f, "{wanted} is below the log start: brought to it"),
            Self::BehindEnd(wanted) => write!(f, "{wanted} is beyond the log end: brought to it"),
            Self::NothingSoLate => f.write_str("no record is of that time or later: the log end"),
        }
    }
}

/// The offset that `target` means in a log, always within it; `None` for a shift of a group that stands nowhere.
/// `stands`: where the group is; `at_time`: the log's answer to [`Target::Time`].
pub(super) fn aim(
    target: Target,
    bounds: Bounds,
    stands: Option<Offset>,
    at_time: Option<Offset>,
) -> Option<(Offset, Option<Remark>)> {
    let wanted = match target {
        Target::Earliest => return Some((bounds.log_start, None)),
        Target::Latest => return Some((bounds.log_end, None)),
        Target::Time(_) => match at_time {
            None => return Some((bounds.log_end, Some(Remark::NothingSoLate))),
            Some(offset) => i128::from(offset.get()),
        },
        Target::Offset(offset) => i128::from(offset.get()),
        Target::Shift(by) => i128::from(stands?.get()) + i128::from(by),
    };
    let found = if wanted < i128::from(bounds.log_start.get()) {
        (bounds.log_start, Some(Remark::BeforeStart(wanted)))
    } else if wanted > i128::from(bounds.log_end.get()) {
        (bounds.log_end, Some(Remark::BehindEnd(wanted)))
    } else {
        (i64::try_from(wanted).ok().and_then(Offset::new).unwrap_or(bounds.log_start), None)
    };
    Some(found)
}

/// How many offsets of a log a move passes over, and how many it goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) skipped: u64,
    pub(super) replayed: u64,
}

impl Moved {
    /// Offsets outside of the log hold nothing, and do not count.
    pub(super) fn between(from: Offset, to: Offset, bounds: Bounds) -> Self {
        let clip = |offset: Offset| offset.max(bounds.log_start).min(bounds.log_end);
        Self { skipped: clip(to).since(clip(from)), replayed: clip(from).since(clip(to)) }
    }

    /// The last line of a table: what the moves of so many partitions come to.
    pub(super) fn sum(moves: &[Self]) -> String {
        let sum = |count: fn(&Self) -> u64| moves.iter().map(count).fold(0, u64::saturating_add);
        let (skipped, replayed) = (sum(|moved| moved.skipped), sum(|moved| moved.replayed));
        format!("sum: partitions={} skipped={skipped} replayed={replayed}", moves.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn log() -> Bounds {
        Bounds { log_start: at(10), log_end: at(20) }
    }

    #[test]
    fn each_target_finds_its_place() {
        let aim = |target, stands| aim(target, log(), stands, Some(at(13)));
        assert_eq!(aim(Target::Earliest, None), Some((at(10), None)));
        assert_eq!(aim(Target::Latest, None), Some((at(20), None)));
        assert_eq!(aim(Target::Time(1), None), Some((at(13), None)));
        assert_eq!(super::aim(Target::Time(1), log(), None, None), Some((at(20), Some(Remark::NothingSoLate))));
        assert_eq!(aim(Target::Offset(at(20)), None), Some((at(20), None)));
        assert_eq!(aim(Target::Offset(at(21)), None), Some((at(20), Some(Remark::BehindEnd(21)))));
        assert_eq!(aim(Target::Offset(at(9)), None), Some((at(10), Some(Remark::BeforeStart(9)))));
        assert_eq!(aim(Target::Shift(-3), Some(at(15))), Some((at(12), None)));
        assert_eq!(aim(Target::Shift(3), None), None);
        assert_eq!(aim(Target::Shift(i64::MIN), Some(at(15))).unwrap().0, at(10));
        assert_eq!(aim(Target::Shift(i64::MAX), Some(at(i64::MAX))).unwrap().0, at(20));
    }

    #[test]
    fn only_what_the_log_has_counts() {
        let moved = |from, to| Moved::between(at(from), at(to), log());
        assert_eq!(moved(12, 15), Moved { skipped: 3, replayed: 0 });
        assert_eq!(moved(15, 12), Moved { skipped: 0, replayed: 3 });
        assert_eq!(moved(2, 10), Moved::default(), "expired already");
        assert_eq!(moved(30, 18), Moved { skipped: 0, replayed: 2 });
    }

    proptest! {
        #[test]
        fn a_place_is_always_in_the_log(
            start in 0..i64::MAX, length in 0..i64::MAX, stands in 0..i64::MAX, by in any::<i64>(),
        ) {
            let bounds = Bounds { log_start: at(start), log_end: at(start.saturating_add(length)) };
            for target in [Target::Shift(by), Target::Offset(at(stands))] {
                let (offset, remark) = aim(target, bounds, Some(at(stands)), None).unwrap();
                prop_assert!(bounds.contain(offset));
                let exact = match target { Target::Shift(by) => stands.checked_add(by), _ => Some(stands) };
                prop_assert_eq!(remark.is_none(), exact == Some(offset.get()));
            }
        }
    }
}
