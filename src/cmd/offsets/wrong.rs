//! What can be wrong with a command about offsets, and what stands against carrying it out, in words for an operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::change::HalfWay;
use super::{FAILURE, USAGE};
use crate::client::Fault;
use crate::cmd::ask;

/// Why a command ends without having done what it was asked.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The configuration, or topics that are not in it.
    Asked(ask::Wrong),
    /// What was asked for does not exist, or can't be done, in words.
    CommandLine(String),
    /// The cluster.
    Cluster(Fault),
    /// One question was not answered.
    Unanswered {
        /// What was asked.
        what: String,
        /// Why there is no answer.
        fault: Fault,
    },
    /// Something stands against it. Never empty.
    Refused(Vec<Obstacle>),
    /// A commit failed after others had been made, or may have been.
    HalfWay(HalfWay),
    /// The groups have the new offsets, the state file has the old ones.
    NotKept {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The output.
    Output(io::Error),
}

impl Wrong {
    /// The exit code that says so.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Asked(wrong) => wrong.code(),
            Self::CommandLine(_) => USAGE,
            Self::Cluster(_)
            | Self::Unanswered { .. }
            | Self::Refused(_)
            | Self::HalfWay(_)
            | Self::NotKept { .. }
            | Self::Output(_) => FAILURE,
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(wrong) => wrong.fmt(f),
            Self::CommandLine(what) => f.write_str(what),
            Self::Cluster(fault) => write!(f, "the cluster can't be asked, nothing was changed: {fault}"),
            Self::Unanswered { what, fault } => write!(f, "no answer about {what}, nothing was changed: {fault}"),
            Self::Refused(obstacles) => {
                for obstacle in obstacles {
                    writeln!(f, "refused: {obstacle}")?;
                }
                f.write_str("nothing was changed; --force does it all the same")
            }
            Self::HalfWay(half_way) => half_way.fmt(f),
            Self::NotKept { path, error } => write!(
                f,
                "the groups have the new offsets, but {} can't be written: {error}; it still has the old ones, which count \
                 only if the broker forgets the group's: mend that, and run this again with --to-offset, or remove the file",
                path.display()
            ),
            Self::Output(error) => write!(f, "the output can't be written: {error}"),
        }
    }
}

/// Why it is not safe at present to move offsets.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// A worker runs with this state directory.
    WorkerRuns {
        /// The directory.
        dir: PathBuf,
        /// The process that holds its lock.
        owner: String,
    },
    /// A state directory is there, and can't be used.
    State {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        why: String,
    },
    /// A group has live members.
    Members {
        /// The group.
        group: String,
        /// Who they are.
        members: Vec<String>,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerRuns { dir, owner } => write!(
                f,
                "the worker runs (process {owner} holds the lock in {}) and would commit its own offsets again; stop it first",
                dir.display()
            ),
            Self::State { dir, why } => write!(
                f,
                "the state directory {} can't be kept in line: {why}; run this as root, or as the user as whom the worker runs; a file without sense has to be moved away",
                dir.display()
            ),
            Self::Members { group, members } => write!(
                f,
                "group {group} has live members: {}; stop them first (the broker forgets one that was killed after its \
                 session timeout)",
                members.join(", ")
            ),
        }
    }
}
