//! Where a partition starts, and where it goes on when its position is outside the log.
//!
//! Pure: from what the group has and what the log has to a place, with the ranges that are passed
//! over on the way, so that no jump happens without its numbers.

use std::ops::Range;

use crate::client::Bounds;
use crate::record::Offset;

/// Where a group without a committed offset starts (`auto_offset_reset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoOffsetReset {
    /// Behind the last record: only what is written from now on is read.
    Latest,
    /// At the log start: everything that still exists is read.
    Earliest,
}

/// Where a partition goes on whose position is outside the log (`on_out_of_range`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// As `auto_offset_reset` says.
    AutoOffsetReset,
    /// At the log start.
    Earliest,
    /// At the log end.
    Latest,
    /// At the end of the range that is nearer to the lost position: one below the log start goes to
    /// the log start, one beyond the log end to the log end.
    Nearest,
    /// Not at all: the partition stops, for somebody to decide.
    Stop,
}

/// What to do when a partition can't be started because the group still has live members after
/// `takeover_timeout_ms` (`on_takeover_timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTakeoverTimeout {
    /// Wait on, for as long as it takes.
    Wait,
    /// Read from the chosen place. Commits go on being refused until the members have left.
    Proceed,
}

/// A place to read from, and what is passed over to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The new position.
    pub to: Offset,
    /// Offsets that Kafka itself threw away (retention) before they were read.
    pub expired: Option<Range<Offset>>,
    /// Offsets that exist and are not read, by choice.
    pub reset: Option<Range<Offset>>,
}

impl Jump {
    fn to(to: Offset) -> Self {
        Self { to, expired: None, reset: None }
    }

    /// How many offsets are passed over in all.
    pub fn skipped(&self) -> u64 {
        let len = |range: &Option<Range<Offset>>| range.as_ref().map_or(0, |r| r.end.since(r.start));
        len(&self.expired) + len(&self.reset)
    }
}

/// The start of a partition for which the group has no committed offset.
///
/// `is_new`: the partition appeared after its group had started, or came back. Nothing that was
/// written before we noticed it is skipped, whatever `reset` says.
pub fn first_start(bounds: Bounds, reset: AutoOffsetReset, is_new: bool) -> Jump {
    match reset {
        AutoOffsetReset::Latest if !is_new => Jump {
            to: bounds.log_end,
            expired: None,
            reset: (bounds.log_start < bounds.log_end).then_some(bounds.log_start..bounds.log_end),
        },
        AutoOffsetReset::Latest | AutoOffsetReset::Earliest => Jump::to(bounds.log_start),
    }
}

/// Where to go on from `lost`, which is outside `bounds`. `None`: the partition stops.
pub fn out_of_range(lost: Offset, bounds: Bounds, policy: OnOutOfRange, reset: AutoOffsetReset) -> Option<Jump> {
    let below = lost < bounds.log_start;
    let latest = match policy {
        OnOutOfRange::Stop => return None,
        OnOutOfRange::AutoOffsetReset => reset == AutoOffsetReset::Latest,
        OnOutOfRange::Earliest => false,
        OnOutOfRange::Latest => true,
        OnOutOfRange::Nearest => !below,
    };
    let to = if latest { bounds.log_end } else { bounds.log_start };
    Some(Jump {
        to,
        expired: below.then_some(lost..bounds.log_start),
        reset: (below && latest && bounds.log_start < to).then_some(bounds.log_start..to),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(n: i64) -> Offset {
        Offset::new(n).unwrap()
    }
    fn bounds(start: i64, end: i64) -> Bounds {
        Bounds { log_start: at(start), log_end: at(end) }
    }

    #[test]
    fn a_first_start_at_latest_names_what_it_does_not_read() {
        let jump = first_start(bounds(5, 9), AutoOffsetReset::Latest, false);
        assert_eq!(jump, Jump { to: at(9), expired: None, reset: Some(at(5)..at(9)) });
        assert_eq!(first_start(bounds(9, 9), AutoOffsetReset::Latest, false).reset, None);
    }

    #[test]
    fn a_new_partition_is_read_from_its_start_whatever_the_reset() {
        for reset in [AutoOffsetReset::Latest, AutoOffsetReset::Earliest] {
            assert_eq!(first_start(bounds(5, 9), reset, true), Jump::to(at(5)));
        }
    }

    #[test]
    fn every_policy_in_both_directions() {
        use AutoOffsetReset as R;
        use OnOutOfRange as O;
        let range = bounds(100, 200);
        let go = |lost, policy, reset| out_of_range(at(lost), range, policy, reset).map(|j| (j.to.get(), j.skipped()));
        for (policy, reset, below, beyond) in [
            (O::AutoOffsetReset, R::Latest, Some((200, 140)), Some((200, 0))),
            (O::AutoOffsetReset, R::Earliest, Some((100, 40)), Some((100, 0))),
            (O::Earliest, R::Latest, Some((100, 40)), Some((100, 0))),
            (O::Latest, R::Earliest, Some((200, 140)), Some((200, 0))),
            (O::Nearest, R::Latest, Some((100, 40)), Some((200, 0))),
            (O::Stop, R::Latest, None, None),
        ] {
            assert_eq!(go(60, policy, reset), below, "{policy:?} below the log start");
            assert_eq!(go(260, policy, reset), beyond, "{policy:?} beyond the log end");
        }
    }

    #[test]
    fn the_log_start_itself_is_in_range() {
        assert!(bounds(5, 9).contain(at(5)) && bounds(5, 9).contain(at(9)));
        assert!(!bounds(5, 9).contain(at(4)) && !bounds(5, 9).contain(at(10)));
    }
}
