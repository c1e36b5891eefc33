//! How fast sinks are, beside what they are made of and beside what else there is for it.
//!
//! - `exec`: the Python example, beside the same program reading the same lines from a file; with a handler that
//!   computes, two lanes beside one;
//! - `keys`: a handler that takes 5 ms, 64 lanes by key on one partition beside one;
//! - `file`: a file of raw values, synced, beside `kcat … > file` and Kafka Connect's FileStreamSink;
//! - `isolation`: the latency of a topic, alone and beside one whose handler hangs.
//!
//! One real broker on the same machine. `cargo bench --bench sinks -- exec file` runs only these. kcat and Maven are
//! looked for; who is not there is left out, which the output says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use worker::record::{Records, TopicPartition};
use worker::sink::{Sink, Stopped};

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use support::kafka::Kafka;
use support::kafka::install::{self, Version};
use support::kafka::tool::Produce;

#[path = "run.rs"]
#[allow(dead_code)]
mod run;

use run::{Killed, median, show};

const ROUNDS: usize = 3;

fn main() {
    if let Err(why) = install::available(Version::V3) {
        println!("no benchmark: {why}");
        std::process::exit(1);
    }
    install::FULL_SPEED.store(true, Ordering::Relaxed);
    let kafka = Kafka::node(&[]);
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    type Bench = fn(&Kafka);
    let all: [(&str, Bench); 4] = [("exec", exec), ("keys", keys), ("file", file), ("isolation", isolation)];
    for (name, bench) in all {
        if only.is_empty() || only.iter().any(|one| one == name) {
            bench(&kafka);
        }
    }
}

/// A worker on one topic, from its start.
struct Run {
    dir: tempfile::TempDir,
    process: Killed,
    group: String,
}

impl Run {
    /// `more`: what stands in the configuration behind `[consumer]`.
    fn start(kafka: &Kafka, topic: &str, more: &str) -> Self {
        let (dir, group) = (tempfile::tempdir().unwrap(), Kafka::name("bench"));
        let config = dir.path().join("consumer.toml");
        let text = format!(
            "[kafka]\nbootstrap_servers = [\"{}\"]\n[log]\nlevel = \"warn\"\n[consumer]\ngroup_id = \"{group}\"\ntopics = [\"{topic}\"]\n\
             auto_offset_reset = \"earliest\"\nsink = \"s\"\n{}",
            kafka.address(0),
            more.replace("@DIR@", &dir.path().display().to_string())
        );
        fs::write(&config, text).unwrap();
        let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"));
        let child = worker.arg("-c").arg(&config).stdin(Stdio::null()).spawn().unwrap();
        Self { dir, process: Killed(child), group: format!("{group}-{topic}") }
    }

    /// Records a second between the first and the last commit that were seen; until `most` are committed or `time` is over.
    fn rate(mut self, kafka: &Kafka, most: i64, time: Duration) -> f64 {
        let (mut seen, end) = (Vec::new(), Instant::now() + time);
        while seen.last().is_none_or(|(_, at)| *at < most) && Instant::now() < end {
            let committed: i64 = kafka.tool().group(&self.group).iter().map(|one| one.committed).sum();
            if committed > 0 && seen.last().is_none_or(|(_, at)| *at < committed) {
                seen.push((Instant::now(), committed));
            }
            // Often enough for a commit each 100 ms, and seldom enough not to be a load.
            thread::sleep(Duration::from_millis(100));
        }
        self.process.stop();
        assert!(seen.len() > 2, "nothing was committed twice");
        // The last commit may be late, if the end of the log came first.
        let (first, last) = (seen[0], seen[seen.len() - 2]);
        (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
    }
}

fn script(dir: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("handler.py");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The example with another `handle`.
fn handler(dir: &Path, handle: &str) -> PathBuf {
    let example = fs::read_to_string(example()).unwrap();
    let (head, rest) = example.split_once("def handle(record):").unwrap();
    let (_, rest) = rest.split_once("\nwaiting = {}").unwrap();
    script(dir, &format!("{head}def handle(record):\n    {handle}\n\n\nwaiting = {{}}{rest}"))
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/handlers/handler.py")
}

fn exec_sink(command: &Path, more: &str) -> String {
    format!("[sink.s]\ntype = \"exec\"\ncommand = [\"{}\"]\n{more}", command.display())
}

fn exec(kafka: &Kafka) {
    const RECORDS: u64 = 1_000_000;
    kafka.tool().create("exec", "1", "");
    kafka.tool().produce(&Produce { size: 100, ..Produce::new("exec", RECORDS) });
    let dir = tempfile::tempdir().unwrap();
    let lines = lines(kafka, "exec", RECORDS, dir.path());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(read_file(&example(), &lines, RECORDS));
        let run = Run::start(kafka, "exec", &exec_sink(&example(), ""));
        ours.push(run.rate(kafka, RECORDS as i64, Duration::from_secs(120)));
    }
    println!("\nexec, etc/handlers/handler.py, 100 B, records/s, median of {ROUNDS} (lowest to highest)\n");
    println!("| one lane | the same program, the same lines from a file | ratio |\n|---|---|---|");
    let ratio = median(&mut ours) / median(&mut bare);
    println!("| {} | {} | {ratio:.2} |", show(&ours), show(&bare));

    kafka.tool().create("computed", "1", "");
    kafka.tool().produce(&Produce { size: 100, keys: "10000", ..Produce::new("computed", RECORDS) });
    // Computes for some 200 µs.
    let slow = handler(dir.path(), "hashlib.pbkdf2_hmac('sha256', record['value'].encode(), b'', 400)");
    let text = fs::read_to_string(&slow).unwrap().replace("import base64\n", "import base64\nimport hashlib\n");
    fs::write(&slow, text).unwrap();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (lanes, rates) in [(1, &mut one), (2, &mut two)] {
            let more = exec_sink(&slow, &format!("lanes = {lanes}\norder = \"key\"\n"));
            rates.push(Run::start(kafka, "computed", &more).rate(kafka, RECORDS as i64, Duration::from_secs(20)));
        }
    }
    println!(
        "\nexec, a handler that computes, order = \"key\", records/s\n\n| one lane | two lanes | ratio |\n|---|---|---|"
    );
    let ratio = median(&mut two) / median(&mut one);
    println!("| {:.0} | {:.0} | {ratio:.2} |", median(&mut one), median(&mut two));
}

/// The lines that a handler would get.
fn lines(kafka: &Kafka, topic: &str, records: u64, dir: &Path) -> PathBuf {
    let more = "[sink.s]\ntype = \"file\"\npath = \"@DIR@/out.jsonl\"\n";
    let mut run = Run::start(kafka, topic, more);
    let end = Instant::now() + Duration::from_secs(120);
    while kafka.tool().group(&run.group).iter().map(|one| one.committed).sum::<i64>() < records as i64 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(100));
    }
    run.process.stop();
    let path = dir.join("lines.jsonl");
    let mut out = BufWriter::new(File::create(&path).unwrap());
    for (seq, line) in (1..).zip(BufReader::new(File::open(run.dir.path().join("out.jsonl")).unwrap()).lines()) {
        writeln!(out, "{{\"seq\":{seq},{}", &line.unwrap()[1..]).unwrap();
    }
    path
}

fn read_file(program: &Path, lines: &Path, records: u64) -> f64 {
    let started = Instant::now();
    let mut command = Command::new(program);
    command.stdin(File::open(lines).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    records as f64 / started.elapsed().as_secs_f64()
}

fn keys(kafka: &Kafka) {
    const RECORDS: u64 = 400_000;
    kafka.tool().create("keys", "1", "");
    kafka.tool().produce(&Produce { size: 100, keys: "10000", ..Produce::new("keys", RECORDS) });
    let dir = tempfile::tempdir().unwrap();
    let slow = handler(dir.path(), "time.sleep(0.005)");
    let text = fs::read_to_string(&slow).unwrap().replace("import sys\n", "import sys\nimport time\n");
    fs::write(&slow, text).unwrap();
    println!("\na handler that takes 5 ms, one partition, 10,000 keys, order = \"key\", records/s\n");
    println!("| lanes | rate | ratio |\n|---|---|---|");
    let mut one = 0.0;
    for lanes in [1, 8, 64] {
        let more = exec_sink(&slow, &format!("lanes = {lanes}\norder = \"key\"\n"));
        let rate = Run::start(kafka, "keys", &more).rate(kafka, RECORDS as i64, Duration::from_secs(30));
        if lanes == 1 {
            one = rate;
        }
        println!("| {lanes} | {rate:.0} | {:.1} |", rate / one);
    }
}

fn file(kafka: &Kafka) {
    const RECORDS: u64 = 5_000_000;
    const SIZE: usize = 100;
    kafka.tool().create("file", "1", "");
    kafka.tool().produce(&Produce { size: SIZE, ..Produce::new("file", RECORDS) });
    let bytes = RECORDS * (SIZE as u64 + 1);
    let kcat = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let connect = connect();
    println!("\na file of raw values, 100 B, one partition, records/s, median of {ROUNDS} (lowest to highest)\n");
    println!("| | rate |\n|---|---|");
    let (mut ours, mut cats, mut connects) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours");
        let more =
            format!("check_crcs = false\n[sink.s]\ntype = \"file\"\nformat = \"raw\"\npath = \"{}\"\n", path.display());
        let mut run = Run::start(kafka, "file", &more);
        ours.push(growth(&path, bytes) / (SIZE + 1) as f64);
        // What was measured is on the disk, or the next who writes pays for it.
        while kafka.tool().group(&run.group).iter().map(|one| one.committed).sum::<i64>() < RECORDS as i64 {
            thread::sleep(Duration::from_millis(50));
        }
        run.process.stop();
        if kcat {
            let path = dir.path().join("kcat");
            let args = ["-C", "-t", "file", "-o", "beginning", "-u", "-q", "-b", kafka.address(0)];
            // As anybody would write it: its output is buffered.
            let args: Vec<&str> = args.into_iter().filter(|argument| *argument != "-u").collect();
            let child = Command::new("kcat").args(args).stdout(File::create(&path).unwrap()).spawn().unwrap();
            let _child = Killed(child);
            // What it keeps in its buffer at the end is not waited for.
            cats.push(growth(&path, bytes - (64 << 10)) / (SIZE + 1) as f64);
        }
        if let Some(jars) = &connect {
            let path = dir.path().join("connect");
            let _child = Killed(start_connect(kafka, jars, dir.path(), &path, round));
            connects.push(growth(&path, bytes) / (SIZE + 1) as f64);
        }
    }
    let row = |name: &str, rates: &mut Vec<f64>| match rates.is_empty() {
        true => println!("| {name} | not here |"),
        false => {
            median(rates);
            println!("| {name} | {} |", show(rates));
        }
    };
    row("worker, synced before each commit", &mut ours);
    row("kcat > file, never synced", &mut cats);
    row("Kafka Connect, FileStreamSink, never synced", &mut connects);
}

/// Bytes a second, from its first bytes until it has so many.
fn growth(path: &Path, bytes: u64) -> f64 {
    let end = Instant::now() + Duration::from_secs(180);
    let size = || path.metadata().map_or(0, |found| found.len());
    let mut first = None;
    loop {
        let (now, size) = (Instant::now(), size());
        assert!(now < end, "{} has {size} of {bytes} bytes", path.display());
        match first {
            None if size > 0 => first = Some((now, size)),
            Some((began, before)) if size >= bytes => {
                return (size - before) as f64 / (now - began).as_secs_f64();
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The jars of Kafka Connect.
fn connect() -> Option<PathBuf> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/connect/pom.xml");
    let jars = Path::new(env!("CARGO_BIN_EXE_worker")).parent().unwrap().join("connect-jars");
    if jars.join(".complete").exists() {
        return Some(jars);
    }
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-f"]).arg(pom);
    maven.arg(format!("-DoutputDirectory={}", jars.display()));
    if !maven.status().is_ok_and(|status| status.success()) {
        println!("no Kafka Connect: Maven can't bring it");
        return None;
    }
    File::create(jars.join(".complete")).unwrap();
    Some(jars)
}

fn start_connect(kafka: &Kafka, jars: &Path, dir: &Path, out: &Path, round: usize) -> Child {
    let worker = format!(
        "bootstrap.servers={}\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.storage.StringConverter\noffset.storage.file.filename={}\n\
         listeners=http://127.0.0.1:0\nplugin.discovery=only_scan\n",
        kafka.address(0),
        dir.join("offsets").display()
    );
    let sink = format!(
        "name=file-{round}-{}\nconnector.class=org.apache.kafka.connect.file.FileStreamSinkConnector\ntasks.max=1\ntopics=file\n\
         file={}\nconsumer.override.auto.offset.reset=earliest\n",
        std::process::id(),
        out.display()
    );
    fs::write(dir.join("connect.properties"), worker).unwrap();
    fs::write(dir.join("sink.properties"), sink).unwrap();
    let mut java = Command::new("java");
    java.args(["-Xmx1g", "-cp"]).arg(format!("{}/*", jars.display()));
    java.arg("org.apache.kafka.connect.cli.ConnectStandalone").arg(dir.join("connect.properties"));
    java.arg(dir.join("sink.properties"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Notes how old each record is when it is delivered, by the time in its value.
#[derive(Clone)]
struct Ages {
    base: Instant,
    all: Arc<Mutex<Vec<u64>>>,
}

impl Sink for Ages {
    fn write(&mut self, _: &TopicPartition, records: &Records) -> Result<(), Stopped> {
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap();
        let sent = |value: &[u8]| u64::from_le_bytes(value.try_into().unwrap());
        self.all.lock().unwrap().extend(records.iter().filter_map(|record| Some(now - sent(record.value?))));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }
}

fn isolation(kafka: &Kafka) {
    const SECONDS: u64 = 20;
    const RATE: u64 = 1_000;
    kafka.tool().create("hangs", "1", "");
    kafka.tool().produce(&Produce { size: 1_000, ..Produce::new("hangs", 1_000_000) });
    let dir = tempfile::tempdir().unwrap();
    let hangs = script(dir.path(), "#!/usr/bin/env python3\nimport signal\nsignal.pause()\n");
    println!("\nlatency from produce to sink, {RATE} records/s for {SECONDS} s, ms\n");
    println!("| beside it | p50 | p99 | highest |\n|---|---|---|---|");
    let mut of = [vec![], vec![]];
    // By turns: the machine is not the same from minute to minute.
    for round in 0..5 {
        for (beside, rows) in [false, true].into_iter().zip(&mut of) {
            let topic = format!("quick-{round}-{beside}");
            kafka.tool().create(&topic, "1", "");
            let (base, all) = (Instant::now(), Arc::default());
            let ages = Ages { base, all: Arc::clone(&all) };
            let topics = if beside { format!("\"{topic}\", \"hangs\"") } else { format!("\"{topic}\"") };
            let hanging = if beside { "[[topic]]\nname = \"hangs\"\nsink = \"h\"\n" } else { "" };
            let text = format!(
                "[kafka]\nbootstrap_servers = [\"{}\"]\n[consumer]\ngroup_id = \"{topic}\"\ntopics = [{topics}]\nauto_offset_reset = \"earliest\"\n\
                 fetch_min_bytes = 1\nsink = \"ages\"\n{hanging}[sink.h]\ntype = \"exec\"\ncommand = [\"{}\"]\nkill_timeout_ms = 100\n\
                 [shutdown]\ndrain_timeout_ms = 1000\n[state]\ndir = \"{}/{topic}\"\n",
                kafka.address(0),
                hangs.display(),
                dir.path().display()
            );
            let inside = worker::Worker::builder().config_text(text).sink("ages", move |_| Ok(ages.clone())).build();
            let inside = inside.unwrap_or_else(|error| panic!("{error}"));
            let stopper = inside.stopper();
            let running = thread::spawn(move || inside.run());
            let producer: BaseProducer =
                ClientConfig::new().set("bootstrap.servers", kafka.address(0)).set("linger.ms", "0").create().unwrap();
            for number in 0..SECONDS * RATE {
                let at = base + Duration::from_nanos(number * 1_000_000_000 / RATE);
                thread::sleep(at.saturating_duration_since(Instant::now()));
                let now = u64::try_from(base.elapsed().as_nanos()).unwrap().to_le_bytes();
                producer.send(BaseRecord::<(), [u8]>::to(&topic).payload(&now)).unwrap();
                producer.poll(Duration::ZERO);
            }
            producer.flush(Duration::from_secs(10)).unwrap();
            let end = Instant::now() + Duration::from_secs(30);
            while (all.lock().unwrap().len() as u64) < SECONDS * RATE {
                assert!(Instant::now() < end, "not all records came");
                thread::sleep(Duration::from_millis(10));
            }
            stopper.stop();
            let _ = running.join().unwrap();
            let mut ages = all.lock().unwrap().clone();
            // The first seconds are the start's.
            let mut ages = ages.split_off((3 * RATE) as usize);
            ages.sort_unstable();
            let part = |part: f64| ages[((ages.len() - 1) as f64 * part) as usize] as f64 / 1e6;
            rows.push([part(0.5), part(0.99), part(1.0)]);
        }
    }
    for (name, rows) in ["nothing", "a topic whose handler hangs"].into_iter().zip(&of) {
        let of = |column: usize| median(&mut rows.iter().map(|row: &[f64; 3]| row[column]).collect::<Vec<_>>());
        println!("| {name} | {:.2} | {:.2} | {:.2} |", of(0), of(1), of(2));
    }
    println!(
        "\np99 of each round: {:?}",
        of.map(|rows| rows.iter().map(|row| (row[1] * 100.0).round() / 100.0).collect::<Vec<_>>())
    );
}
