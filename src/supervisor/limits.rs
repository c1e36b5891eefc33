//! The limits of the process: how many files it may have open.
//!
//! Each consumer holds a connection to every broker that leads one of its partitions, one for its
//! group, and one more for a moment now and then. The usual soft limit of 1,024 is meant for programs that
//! use `select`; the hard limit is what the operator allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sinks, the log, the observer, the state directory, and what libraries open.
const OTHERS: u64 = 64;
/// Connections a consumer, with one broker; each further broker is one more.
const A_CONSUMER: u64 = 3;

/// Raises the soft limit of open files to the hard one, and says so if that is little for so many consumers.
pub(super) fn raise_open_files(consumers: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(soft) = current else { return };
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { Some(soft) };
    let needed = OTHERS + A_CONSUMER * consumers as u64;
    match limit {
        Some(limit) if limit < needed => log::warn!(
            "the limit of open files may be too low limit={limit} needed={needed} meaning=\"topics whose connections \
             can't be opened are not read\" action=\"raise the hard limit (ulimit -Hn, LimitNOFILE)\""
        ),
        _ => log::debug!("open files limit={} before={soft}", limit.map_or("none".to_owned(), |l| l.to_string())),
    }
}
