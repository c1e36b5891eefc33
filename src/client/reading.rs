//! How a consumer's topics are read: with which library, and who shares their partitions.
//!
//! Words only, for configuration, plan and clients.

use std::collections::BTreeSet;
use std::fmt;

/// A client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Library {
    /// The crate `kafka`: brokers from 0.11 to 3.9, in the clear, gzip and snappy.
    Kafka,
    /// The crate `rdkafka`: all brokers, codecs and listeners.
    Librdkafka,
}

/// `kafka`, as it stands in the configuration.
impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kafka => "kafka",
            Self::Librdkafka => "librdkafka",
        })
    }
}

/// Whether this program was built with librdkafka.
pub const HAS_LIBRDKAFKA: bool = cfg!(feature = "librdkafka");

/// What to do about a program that was built without it.
pub const BUILD_WITH_LIBRDKAFKA: &str = "this program was built without librdkafka: build it with the Cargo feature \
                                         librdkafka, which is on by default (leave out --no-default-features)";

/// Which records of transactions are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those that were committed.
    ReadCommitted,
    /// All, also those that were aborted, or are not decided yet.
    ReadUncommitted,
}

/// Which partitions of its topics a worker reads without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portion {
    /// All of them.
    All,
    /// These.
    Partitions(BTreeSet<i32>),
    /// Every `of`-th, beginning with the partition `number - 1`: `number` of `of` workers.
    Instance {
        /// Which of them this is, from 1.
        number: u32,
        /// How many workers there are.
        of: u32,
    },
}

impl Portion {
    /// Whether this worker reads the partition.
    pub fn contains(&self, partition: i32) -> bool {
        match self {
            Self::All => true,
            Self::Partitions(list) => list.contains(&partition),
            Self::Instance { number, of } => {
                u32::try_from(partition).is_ok_and(|partition| partition % (*of).max(1) + 1 == *number)
            }
        }
    }
}

/// Who decides which partitions a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The worker itself; the group only stores offsets.
    None(Portion),
    /// Kafka's group protocol: the members of the group share the partitions.
    Group {
        /// The name of a static member (`group.instance.id`), which keeps its partitions over a restart.
        instance_id: Option<String>,
    },
}

/// How the topics of one consumer are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The library; `None`: the one that can read it, tried in the order of [`Library`].
    pub library: Option<Library>,
    /// Who decides about partitions.
    pub membership: Membership,
}

impl Reading {
    /// Whether librdkafka may read them, now or when the other library can't.
    pub fn may_use_librdkafka(&self) -> bool {
        match (self.library, &self.membership) {
            (Some(library), Membership::None(_)) => library == Library::Librdkafka,
            (None, _) | (_, Membership::Group { .. }) => HAS_LIBRDKAFKA,
        }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self { library: None, membership: Membership::None(Portion::All) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_share_all_partitions_and_none_twice() {
        for of in 1..5 {
            for partition in 0..20 {
                let holds = (1..=of).filter(|&number| Portion::Instance { number, of }.contains(partition));
                assert_eq!(holds.count(), 1, "partition {partition} of {of} workers");
            }
        }
        assert!(Portion::Instance { number: 1, of: 3 }.contains(0), "the first begins at 0");
        let some = Portion::Partitions([0, 2].into());
        assert_eq!((0..4).filter(|&partition| some.contains(partition)).collect::<Vec<_>>(), [0, 2]);
        assert!(Portion::All.contains(7));
    }
}
