//! What a group that takes over from another is given. Pure.
//!
//! The rule: no record is passed over that the source group has not done. The source's offset is where it has come; the
//! target's own may be lower because it is to read something again, or merely because it is old. The lower one holds,
//! but where it is proved to be merely old: when a group is taken over from, that is written beside its offset
//! ([`mark`]), and the first commit of any consumer in it overwrites that.

use std::fmt;

use super::memory::Standing;
use crate::client::Committed;
use crate::record::Offset;

/// What is written beside the offset of a group that `by` has taken over.
pub(super) fn mark(by: &str) -> String {
    format!("worker: taken over by {by}")
}

/// Whether `committed` was taken over by the group `by`, and nobody has committed there since.
pub(super) fn is_marked(committed: Option<&Committed>, by: &str) -> bool {
    committed.is_some_and(|committed| committed.metadata == mark(by))
}

/// A group's place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) standing: Standing,
    /// The other group has taken it over, and nobody has committed there since.
    pub(super) taken: bool,
}

/// Why the target is given what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Neither group has an offset.
    Nothing,
    /// The source has none, the target stays.
    OnlyTarget,
    /// The target has none.
    TakenOver,
    /// The topic was made anew; what the target has is of the one before.
    Anew,
    /// Both have the same.
    Same,
    /// The source was taken over before by this very target, and has not moved since.
    TakenBefore,
    /// The target was ahead of the source.
    TargetAhead,
    /// The target was taken over by the source at the lower offset, and has not moved since.
    GivenBack,
    /// The target's own is lower.
    LowerHolds,
    /// The target's own is lower, and the operator wants the source's.
    SourceWins,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing committed in either: auto_offset_reset would decide",
            Self::OnlyTarget => "nothing committed in the source",
            Self::TakenOver => "taken over",
            Self::Anew => "the topic was made anew since the target's offset",
            Self::Same => "the same in both",
            Self::TakenBefore => "taken over before; the source has not moved since",
            Self::TargetAhead => "the source's is lower, and holds",
            Self::GivenBack => "given back: the target has not moved since it was taken over",
            Self::LowerHolds => "the target's own is lower, and holds; --source-wins takes the source's",
            Self::SourceWins => "the source's, as --source-wins says",
        })
    }
}

/// The offset from which the target is to go on, if any, and why.
pub(super) fn decide(source: Side, target: Side, source_wins: bool) -> (Option<Offset>, Reason) {
    let Some(from) = source.standing.offset() else {
        return match target.standing {
            Standing::Nowhere => (None, Reason::Nothing),
            Standing::Anew(start) => (Some(start), Reason::Anew),
            Standing::Committed(own) | Standing::Remembered(own) => (Some(own), Reason::OnlyTarget),
        };
    };
    let own = match target.standing {
        Standing::Nowhere => return (Some(from), Reason::TakenOver),
        Standing::Anew(_) => return (Some(from), Reason::Anew),
        Standing::Committed(own) | Standing::Remembered(own) => own,
    };
    if own == from {
        (Some(own), Reason::Same)
    } else if source.taken && !source_wins {
        (Some(own), Reason::TakenBefore)
    } else if own > from {
        (Some(from), Reason::TargetAhead)
    } else if target.taken {
        (Some(from), Reason::GivenBack)
    } else if source_wins {
        (Some(from), Reason::SourceWins)
    } else {
        (Some(own), Reason::LowerHolds)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn side(offset: i64, taken: bool) -> Side {
        Side { standing: Offset::new(offset).map_or(Standing::Nowhere, Standing::Committed), taken }
    }

    #[test]
    fn the_lower_offset_holds_unless_it_is_proved_to_be_old() {
        let decide = |source, target| decide(source, target, false);
        assert_eq!(decide(side(-1, false), side(-1, false)), (None, Reason::Nothing));
        assert_eq!(decide(side(-1, false), side(3, false)), (Some(at(3)), Reason::OnlyTarget));
        assert_eq!(decide(side(5, false), side(-1, false)), (Some(at(5)), Reason::TakenOver));
        assert_eq!(decide(side(5, false), side(5, true)), (Some(at(5)), Reason::Same));
        assert_eq!(decide(side(5, false), side(9, false)), (Some(at(5)), Reason::TargetAhead));
        assert_eq!(decide(side(5, false), side(3, false)), (Some(at(3)), Reason::LowerHolds));
        assert_eq!(decide(side(5, false), side(3, true)), (Some(at(5)), Reason::GivenBack));
        // The same command twice: what the target has done since is not done again.
        assert_eq!(decide(side(5, true), side(9, false)), (Some(at(9)), Reason::TakenBefore));
        // Reset since, to read something again.
        assert_eq!(decide(side(5, true), side(2, false)), (Some(at(2)), Reason::TakenBefore));
        // It has forgotten.
        assert_eq!(decide(side(5, true), side(-1, false)), (Some(at(5)), Reason::TakenOver));
    }

    #[test]
    fn the_source_wins_where_it_is_to() {
        for (taken, own, reason) in
            [(false, 3, Reason::SourceWins), (true, 3, Reason::SourceWins), (true, 9, Reason::TargetAhead)]
        {
            assert_eq!(decide(side(5, taken), side(own, false), true), (Some(at(5)), reason));
        }
    }

    #[test]
    fn a_topic_that_was_made_anew_is_read_from_its_start() {
        let anew = Side { standing: Standing::Anew(at(1)), taken: false };
        assert_eq!(decide(anew, side(7, false), false), (Some(at(1)), Reason::TargetAhead));
        assert_eq!(decide(side(4, false), anew, false), (Some(at(4)), Reason::Anew));
        assert_eq!(decide(side(-1, false), anew, false), (Some(at(1)), Reason::Anew));
    }

    /// The promise itself, over small worlds: nothing is passed over that the source has not done, but what the operator
    /// passes over by name.
    #[test]
    fn never_beyond_the_source_and_never_forward_without_a_proof() {
        for (s, t) in (-1..6).flat_map(|s| (-1..6).map(move |t| (s, t))) {
            for (taken, untouched) in [(false, false), (true, false), (false, true)] {
                let (to, reason) = decide(side(s, taken), side(t, untouched), false);
                let Some(to) = to.map(Offset::get) else {
                    assert!(s < 0 && t < 0);
                    continue;
                };
                if reason != Reason::TakenBefore && s >= 0 {
                    assert!(to <= s, "{s} {t}: beyond the source");
                }
                if t >= 0 && to > t {
                    assert!(untouched, "{s} {t}: forward");
                }
            }
        }
    }
}
