//! Everything at once: brokers are killed, held still and restarted, leaders move, connections are slow,
//! cut, refused and swallowed, and the worker itself is killed, while producers write to several topics.
//! At the end every record that a producer had an acknowledgement for has been delivered, and between two
//! starts of the worker the offsets of each partition follow each other without a gap.
//!
//! `WORKER_CHAOS_SECONDS` is how long it goes on (60), `WORKER_CHAOS_SEED` what happens when. The seed of a
//! run is printed, with the sums, which `--nocapture` shows.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::kafka_or_skip;
use crate::support::kafka::Kafka;
use crate::support::kafka::daemon::LONG;
use crate::support::kafka::tool::{Flow, Flowed, Tool};
use crate::support::proxy::{Network, Proxy};
use crate::support::worker::{Ended, Rec, Site, Worker, sink};

const TOPICS: [&str; 4] = ["chaos-a", "chaos-b", "chaos-c", "chaos-d"];
const PARTITIONS: u32 = 3;
const GROUP: &str = "chaos";
/// The producers: codec, topics, records a second in all. The first topic has batches of every codec by
/// turns, each of the others those of one.
const FLOWS: [(&str, [&str; 2], u32); 3] = [
    ("none", [TOPICS[0], TOPICS[1]], 120),
    ("gzip", [TOPICS[0], TOPICS[2]], 60),
    ("snappy", [TOPICS[0], TOPICS[3]], 60),
];

/// Numbers that look random, always the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// A time, in milliseconds.
    fn time(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

/// Ends when its sender is dropped: when the time is over, or the test fails.
type Over = Receiver<std::convert::Infallible>;

/// `false`: it is over.
fn wait(over: &Over, time: Duration) -> bool {
    over.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

/// What was done to the cluster.
#[derive(Debug, Default)]
struct Cluster {
    kills: u32,
    stops: u32,
    freezes: u32,
    moves: u32,
    /// Kafka did not want it just then.
    moves_refused: u32,
}

/// Kills, stops and holds brokers still, one at a time, and moves leaders. All run when it returns.
fn trouble_the_cluster(kafka: &Kafka, mut dice: Dice, over: &Over) -> Cluster {
    let mut done = Cluster::default();
    while wait(over, dice.time(500, 3_000)) {
        let node = usize::try_from(dice.below(3)).unwrap();
        match dice.below(10) {
            0..3 => {
                kafka.kill(node);
                done.kills += 1;
                wait(over, dice.time(200, 4_000));
                kafka.start(node);
            }
            3 => {
                kafka.stop(node);
                done.stops += 1;
                wait(over, dice.time(200, 2_000));
                kafka.start(node);
            }
            4..6 => {
                kafka.freeze(node);
                done.freezes += 1;
                wait(over, dice.time(500, 8_000));
                kafka.thaw(node);
            }
            _ => {
                let (topic, partition) = (*dice.one_of(&TOPICS), dice.below(PARTITIONS.into()).to_string());
                let replicas = *dice.one_of(&["1,2,3", "2,3,1", "3,1,2"]);
                let moved = kafka
                    .tool()
                    .request("reassign", &[topic, &partition, replicas])
                    .and_then(|_| kafka.tool().request("elect", &[topic, &partition]));
                match moved {
                    Ok(_) => done.moves += 1,
                    Err(_) => done.moves_refused += 1,
                }
            }
        }
    }
    done
}

/// What was done to the worker and its network, and what it had delivered at each kill.
#[derive(Debug, Default)]
struct Client {
    slow: u32,
    holes: u32,
    refusals: u32,
    /// How many lines the sink's file had when a worker was killed.
    lines_at_kills: Vec<usize>,
    ended: Vec<Ended>,
}

/// Makes the network bad in many ways, and kills the worker. Everything is well when it returns.
fn trouble_the_worker(
    site: &Site,
    config: &str,
    mut worker: Worker,
    proxies: &[Proxy],
    mut dice: Dice,
    over: &Over,
) -> (Client, Worker) {
    let mut done = Client::default();
    let mut heals: Vec<(Instant, usize)> = Vec::new();
    let mut next = Instant::now();
    loop {
        let wake = heals.iter().map(|(when, _)| *when).min().map_or(next, |heal| heal.min(next));
        if !wait(over, wake.saturating_duration_since(Instant::now())) {
            break;
        }
        let now = Instant::now();
        heals.retain(|(when, proxy)| {
            if *when <= now {
                // Connections may not survive it.
                if dice.below(3) == 0 {
                    proxies[*proxy].forget();
                }
                proxies[*proxy].set(Network::Good);
            }
            *when > now
        });
        if now < next {
            continue;
        }
        next = now + dice.time(200, 1_500);
        let index = usize::try_from(dice.below(proxies.len() as u64)).unwrap();
        let proxy = &proxies[index];
        let mut make = |network, time| {
            proxy.set(network);
            heals.retain(|(_, healing)| *healing != index);
            heals.push((now + time, index));
        };
        match dice.below(20) {
            0..2 => {
                done.ended.push(worker.kill9());
                done.lines_at_kills.push(lines(site));
                worker = site.start(config);
            }
            2..6 => proxy.cut(),
            6..12 => proxy.cut_in_answer(usize::try_from(*dice.one_of(&[0, 1, 3, 4, 7, 30, 100, 2_000])).unwrap()),
            12..15 => {
                make(Network::Slow(dice.time(5, 300)), dice.time(500, 3_000));
                done.slow += 1;
            }
            15..18 => {
                make(Network::BlackHole, dice.time(300, 9_000));
                done.holes += 1;
            }
            _ => {
                make(Network::Refuses, dice.time(300, 3_000));
                proxy.cut();
                done.refusals += 1;
            }
        }
    }
    proxies.iter().for_each(|proxy| proxy.set(Network::Good));
    (done, worker)
}

/// How many whole lines the sink's file has.
fn lines(site: &Site) -> usize {
    let bytes = std::fs::read(site.out()).unwrap_or_default();
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// What arrived, held against what was acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    acked: usize,
    delivered: usize,
    twice: usize,
    /// Acknowledged, and never delivered.
    missing: Vec<(String, i32, i64)>,
    /// Offsets that did not follow each other, and values that are not those that were written.
    wrong: Vec<String>,
}

/// `starts` says where in `records` a new run of the worker begins.
fn account(acked: &[(String, i32, i64, String)], records: &[Rec], starts: &[usize]) -> Account {
    let mut account = Account { acked: acked.len(), delivered: records.len(), ..Account::default() };
    let mut arrived: HashMap<(&str, i32, i64), &Rec> = HashMap::new();
    // The next offset that is new, and the one that follows in this run.
    let mut highest: HashMap<(&str, i32), i64> = HashMap::new();
    let mut next: HashMap<(&str, i32), i64> = HashMap::new();
    for (line, record) in records.iter().enumerate() {
        if starts.contains(&line) {
            next.clear();
        }
        let partition = (record.topic.as_str(), record.partition);
        let high = highest.entry(partition).or_insert(0);
        let follows = match next.get(&partition) {
            Some(next) => record.offset == *next,
            // A new run may begin before what had arrived, and never behind it.
            None => record.offset <= *high,
        };
        if !follows {
            let before = next.get(&partition);
            account.wrong.push(format!("line {line}: {partition:?} has {} after {before:?}, {high}", record.offset));
        }
        next.insert(partition, record.offset + 1);
        *high = (*high).max(record.offset + 1);
        if let Some(before) = arrived.insert((&record.topic, record.partition, record.offset), record) {
            account.twice += 1;
            if before.value != record.value {
                account.wrong.push(format!("line {line}: {partition:?} {} has two values", record.offset));
            }
        }
    }
    for (topic, partition, offset, value) in acked {
        match arrived.get(&(topic.as_str(), *partition, *offset)) {
            None => account.missing.push((topic.clone(), *partition, *offset)),
            Some(record) if record.text().starts_with(value) => {}
            Some(record) => {
                account.wrong.push(format!("{topic}/{partition} {offset}: {} is not {value}", record.text()))
            }
        }
    }
    account
}

/// How many offsets the groups have yet to commit; `None` if that is not known.
fn lag(tool: &Tool) -> Option<i64> {
    let of_topic = |topic: &&str| {
        let rows = tool.request("group", &[&format!("{GROUP}-{topic}")]).ok()?;
        // Topic, partition, committed, log end, lag.
        let lags = rows.iter().map(|row| row[4].parse::<i64>().ok());
        if rows.len() == PARTITIONS as usize { lags.sum::<Option<i64>>() } else { None }
    };
    TOPICS.iter().map(of_topic).sum()
}

/// Whether the last record of every partition has arrived.
fn all_delivered(tool: &Tool, site: &Site) -> bool {
    let records = site.records();
    TOPICS.iter().all(|topic| {
        let Ok(rows) = tool.request("bounds", &[topic]) else { return false };
        // Partition, log start, log end.
        rows.iter().all(|row| {
            let (partition, end) = (row[0].parse().unwrap(), row[2].parse::<i64>().unwrap());
            end == 0 || sink::offsets(&records, topic, partition).contains(&(end - 1))
        })
    })
}

/// Committed, log end, and next to be delivered, of each partition.
fn standing(kafka: &Kafka, site: &Site) -> String {
    let records = site.records();
    let mut text = String::new();
    for topic in TOPICS {
        for of in kafka.tool().group(&format!("{GROUP}-{topic}")) {
            let delivered = sink::offsets(&records, topic, of.partition).into_iter().max().map_or(0, |last| last + 1);
            let (committed, end) = (of.committed, of.log_end);
            text += &format!("{topic}/{}: committed {committed} of {end}, delivered up to {delivered}\n", of.partition);
        }
    }
    text
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

#[test]
fn chaos() {
    let proxies = [Proxy::new(), Proxy::new(), Proxy::new()];
    let kafka = kafka_or_skip!(Kafka::behind(&proxies));
    let time = Duration::from_secs(variable("WORKER_CHAOS_SECONDS").unwrap_or(60));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = variable("WORKER_CHAOS_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    println!("chaos: WORKER_CHAOS_SEED={seed} WORKER_CHAOS_SECONDS={}", time.as_secs());
    let tool = kafka.tool();
    for topic in TOPICS {
        tool.create(topic, "1,2,3;2,3,1;3,1,2", "");
    }
    let servers: Vec<String> = proxies.iter().map(Proxy::address).collect();
    let config = kafka
        .config(GROUP, &TOPICS)
        .set("kafka", "bootstrap_servers", format!("{servers:?}"))
        .set("log", "level", "'info,worker=debug,worker::dispatch=info'")
        .to_string();
    let site = Site::new();
    let first = site.start(&config);
    for (codec, topics, rate) in &FLOWS {
        let configs = format!("compression.type={codec};linger.ms=100");
        let flow = Flow { name: codec, topics, partitions: PARTITIONS, rate: *rate, size: 400, configs: &configs };
        tool.flow(flow);
    }

    let (ends, over) = bounded(0);
    let (cluster, (mut client, worker)) = thread::scope(|scope| {
        let cluster = scope.spawn(|| trouble_the_cluster(&kafka, Dice(seed), &over));
        let client = scope.spawn(|| trouble_the_worker(&site, &config, first, &proxies, Dice(!seed), &over));
        let until = Instant::now() + time;
        // Earlier, if one of them fails.
        while Instant::now() < until && !cluster.is_finished() && !client.is_finished() {
            thread::sleep(Duration::from_millis(50));
        }
        drop(ends);
        (cluster.join().unwrap(), client.join().unwrap())
    });
    let healed = Instant::now();
    let flowed: Vec<Flowed> = FLOWS.iter().map(|(codec, ..)| tool.end_flow(codec)).collect();
    let flushed = healed.elapsed();
    while !all_delivered(tool, &site) {
        assert!(
            healed.elapsed() < LONG,
            "WORKER_CHAOS_SEED={seed}: {LONG:?} after the faults it stands at\n{}",
            standing(&kafka, &site)
        );
        thread::sleep(Duration::from_millis(250));
    }
    let recovery = healed.elapsed();
    let behind = lag(tool);
    client.ended.push(worker.stop());
    // A commit of an earlier process, which the network held, may have landed late. The last word has the stop.
    crate::real_kafka::eventually("everything is committed by the stop", || lag(tool) == Some(0));

    let acked: Vec<(String, i32, i64, String)> = FLOWS
        .iter()
        .zip(&flowed)
        .flat_map(|((codec, ..), flowed)| {
            let value = move |number: &u64| format!("{number:012} {codec} ");
            flowed.acked.iter().map(move |(topic, at, offset, n)| (topic.clone(), *at, *offset, value(n)))
        })
        .collect();
    let account = account(&acked, &site.records(), &client.lines_at_kills);
    let cuts: u64 = proxies.iter().map(Proxy::cuts).sum();
    let connections: u64 = proxies.iter().map(Proxy::connections).sum();
    let said = |words: &[&str]| client.ended.iter().map(|ended| ended.lines_with(words).len()).sum::<usize>();
    println!(
        "chaos: seed={seed} seconds={} produced={} acked={} refused={} delivered={} twice={} missing={} wrong={} \
         worker_kills={} cuts={cuts} connections={connections} slow={} holes={} refusals={} broker_kills={} \
         broker_stops={} freezes={} moves={} moves_refused={} producers_ms={} recovery_ms={} lag_before_stop={} late_commits={} warnings={} errors={}",
        time.as_secs(),
        flowed.iter().map(|flowed| flowed.sent).sum::<u64>(),
        account.acked,
        flowed.iter().map(|flowed| flowed.refused).sum::<u64>(),
        account.delivered,
        account.twice,
        account.missing.len(),
        account.wrong.len(),
        client.lines_at_kills.len(),
        client.slow,
        client.holes,
        client.refusals,
        cluster.kills,
        cluster.stops,
        cluster.freezes,
        cluster.moves,
        cluster.moves_refused,
        flushed.as_millis(),
        recovery.as_millis(),
        behind.unwrap_or(-1),
        said(&["an old commit landed late"]) + said(&["was moved by someone else"]),
        said(&[" WARN "]),
        said(&[" ERROR "]),
    );
    for words in [" ERROR ", "an old commit landed late", "was moved by someone else"] {
        client.ended.iter().flat_map(|ended| ended.lines_with(&[words])).for_each(|line| println!("{line}"));
    }
    if !account.missing.is_empty() || !account.wrong.is_empty() {
        for ended in &client.ended {
            println!("log of a worker, {}:\n  {}", ended.status, ended.log.join("\n  "));
        }
    }
    assert!(account.acked > 0, "nothing was produced");
    assert_eq!(account.missing, [], "WORKER_CHAOS_SEED={seed}: acknowledged and not delivered");
    assert_eq!(account.wrong, [""; 0], "WORKER_CHAOS_SEED={seed}");
    let (last, killed) = client.ended.split_last().unwrap();
    assert_eq!(last.code(), Some(0), "{}", last.log.join("\n"));
    for ended in killed {
        assert_eq!(ended.status.signal(), Some(9), "it ended by itself:\n{}", ended.log.join("\n"));
    }
    // Nothing of this makes a position invalid: no acknowledged record is lost by the cluster itself.
    assert_eq!(said(&["position out of range"]), 0);
    assert_eq!(said(&["thread panicked, stopping"]), 0);
}

#[test]
fn the_account_of_the_chaos_finds_what_is_missing_and_out_of_order() {
    let record = |offset: i64| Rec {
        topic: "t".into(),
        partition: 0,
        offset,
        key: None,
        value: Some(format!("{offset:012} none x").into_bytes()),
        headers: Vec::new(),
    };
    let acked: Vec<_> = (0..6).map(|at| ("t".to_owned(), 0, at, format!("{at:012} none "))).collect();
    let of = |offsets: &[i64], starts: &[usize]| {
        account(&acked, &offsets.iter().map(|at| record(*at)).collect::<Vec<_>>(), starts)
    };
    let good = of(&[0, 1, 2, 1, 2, 3, 4, 5], &[3]);
    assert_eq!((good.acked, good.delivered, good.twice), (6, 8, 2));
    assert_eq!((good.missing.len(), good.wrong.len()), (0, 0), "{good:?}");
    // Again without a restart; a gap within a run; a gap at a restart; never delivered; another's value.
    assert_eq!(of(&[0, 1, 2, 1, 2, 3, 4, 5], &[]).wrong.len(), 1);
    assert_eq!(of(&[0, 1, 3, 4, 5, 2, 3, 4, 5], &[5]).wrong.len(), 1);
    assert_eq!(of(&[0, 1, 3, 4, 5, 0, 1, 2, 3], &[2, 5]).wrong.len(), 1);
    assert_eq!(of(&[0, 1, 2, 3, 4], &[]).missing, [("t".to_owned(), 0, 5)]);
    let mut other = vec![record(0), record(1), record(2), record(3), record(4), record(5)];
    other[2].value = other[3].value.clone();
    assert_eq!(account(&acked, &other, &[]).wrong.len(), 1);
}
