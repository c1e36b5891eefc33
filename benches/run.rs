//! What the benchmarks share: running the worker, and looking at what it costs.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kafka::client::{FetchGroupOffset, GroupOffsetStorage, KafkaClient};

use super::support::kafka::Kafka;

/// What is read.
pub struct Case {
    pub topic: String,
    pub records: u64,
}

/// The one in the middle; sorts them.
pub fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// In millions: the median, the lowest and the highest.
pub fn show(sorted: &[f64]) -> String {
    let m = |v: f64| format!("{:.2}", v / 1e6);
    format!("{} M ({}–{})", m(sorted[sorted.len() / 2]), m(sorted[0]), m(sorted[sorted.len() - 1]))
}

/// The rate between two commits, the first and the last that were seen: so neither the start of the
/// process nor the end of the log is counted. And seconds of CPU a record, and the highest resident
/// memory in bytes.
pub fn run_worker(kafka: &Kafka, case: &Case, client: &str, crc: bool, round: usize) -> (f64, f64, u64) {
    let group = format!("bench-{client}-{crc}-{round}");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("consumer.toml");
    let text = format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\nclient = \"{client}\"\n[consumer]\ngroup_id = \"{group}\"\ntopics = [\"{}\"]\n\
         auto_offset_reset = \"earliest\"\ncheck_crcs = {crc}\nsink = \"drop\"\n[log]\nlevel = \"warn\"\n",
        kafka.address(0),
        case.topic
    );
    fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_worker")).arg("-c").arg(&config).stdin(Stdio::null()).spawn();
    let mut worker = Killed(child.unwrap());
    let mut client = KafkaClient::new(vec![kafka.address(0).to_owned()]);
    client.set_group_offset_storage(Some(GroupOffsetStorage::Kafka));
    client.load_metadata(&[&case.topic]).unwrap();
    let group = format!("{group}-{}", case.topic);
    let mut seen: Vec<(Instant, i64)> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while seen.last().is_none_or(|last| last.1 < case.records as i64) {
        assert!(Instant::now() < deadline, "the worker does not get to the end");
        let answer = client.fetch_group_offsets(&group, &[FetchGroupOffset::new(&case.topic, 0)]).unwrap();
        let committed = answer[&case.topic][0].offset;
        if committed > 0 && seen.last().is_none_or(|last| last.1 < committed) {
            seen.push((Instant::now(), committed));
        }
        // Often enough for a commit each 100 ms, and seldom enough not to be a load.
        thread::sleep(Duration::from_millis(20));
    }
    let (cpu, rss) = (cpu(&worker.0.id().to_string()), peak_memory(worker.0.id()));
    worker.stop();
    // The last commit may be late, if the end of the log came first.
    let (first, last) = (seen[0], seen[seen.len().saturating_sub(2).max(1)]);
    ((last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64(), cpu / case.records as f64, rss)
}

/// Seconds of CPU that a process, or the calling thread, has used.
pub fn cpu(whose: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{whose}/stat")).unwrap();
    // Behind the name, which may hold blanks: utime and stime are fields 14 and 15, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A child that does not outlive its owner.
pub struct Killed(pub Child);

impl Killed {
    /// Ends it in good order.
    pub fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
