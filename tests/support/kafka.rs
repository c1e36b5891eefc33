//! A real Apache Kafka for tests: one node a version that all tests of the process share, or nodes of one's own.
//!
//! Owns the nodes' processes, ports and directories. No node outlives the test process: each runs
//! below `tests/kafka/guard.sh`, which kills it when the pipe from here ends, be it by panic or
//! `kill -9`. Everything is at free ports of 127.0.0.1 and below `target/kafka/test`.
//! Tests that share the node use names of topics and groups that are their own: [`Kafka::name`].

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

pub mod daemon;
pub mod install;
#[cfg(feature = "librdkafka")]
pub mod secure;
pub mod tool;

use install::{Install, Version, scripts};
use tool::Tool;

use crate::support::proxy::Proxy;

/// How long a node may take to start or to stop. Far above what it takes (2 s), for busy machines.
const PATIENCE: Duration = Duration::from_secs(90);

/// One or several nodes, and Kafka's own clients beside them.
pub struct Kafka {
    version: Version,
    nodes: Vec<Node>,
    tool: Tool,
    /// `host:port` of all nodes, parted by commas.
    pub bootstrap: String,
    dir: PathBuf,
}

struct Node {
    address: String,
    dir: PathBuf,
    running: Mutex<Option<Running>>,
}

/// A node's process. Dropped: killed, and gone.
struct Running {
    guard: Child,
    signals: Option<ChildStdin>,
    /// Of the JVM, not of its guard; known once it has started.
    pid: Option<String>,
    /// Its lines; disconnected when it has ended.
    stdout: Receiver<String>,
}

impl Kafka {
    /// The node that all tests of this process share; started by the first that asks.
    pub fn shared() -> &'static Self {
        Self::shared_of(Version::V3)
    }

    /// The same of a version.
    pub fn shared_of(version: Version) -> &'static Self {
        static SHARED: [OnceLock<Kafka>; 2] = [OnceLock::new(), OnceLock::new()];
        SHARED[version as usize].get_or_init(|| Self::node_of(version, &[]))
    }

    /// A node of one's own, with these lines of its server.properties changed or added. `@PORT@` and
    /// `@CONTROLLER_PORT@` in a value stand for the node's ports.
    pub fn node(overrides: &[(&str, &str)]) -> Self {
        Self::node_of(Version::V3, overrides)
    }

    /// The same of a version.
    pub fn node_of(version: Version, overrides: &[(&str, &str)]) -> Self {
        Self::start_all(version, 1, overrides, &[])
    }

    /// Several nodes that replicate: three replicas (or as many as there are nodes), two in sync.
    /// A broker that was killed is noticed after about three seconds.
    pub fn cluster(nodes: usize) -> Self {
        Self::cluster_of(Version::V3, nodes)
    }

    /// The same of a version.
    pub fn cluster_of(version: Version, nodes: usize) -> Self {
        Self::start_all(version, nodes, &[], &[])
    }

    /// A cluster like [`cluster`](Self::cluster)'s with a node behind each proxy. A client that is told of the
    /// proxies meets nothing else; `bootstrap`, the tool and the nodes among themselves go past them.
    pub fn behind(proxies: &[Proxy]) -> Self {
        Self::start_all(Version::V3, proxies.len(), &[], proxies)
    }

    fn start_all(version: Version, count: usize, overrides: &[(&str, &str)], proxies: &[Proxy]) -> Self {
        // A free port can be taken by another process before the node binds it; then with others.
        for _ in 0..5 {
            if let Some(kafka) = Self::try_start_all(version, count, overrides, proxies) {
                return kafka;
            }
        }
        panic!("five times in a row the chosen ports were taken by others");
    }

    fn try_start_all(version: Version, count: usize, overrides: &[(&str, &str)], proxies: &[Proxy]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let install = Install::get(version).expect("kafka_or_skip! goes first");
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = install.base.join("test").join(name);
        fs::create_dir_all(&dir).unwrap();
        let tool = Tool::start(install, &dir);

        let ports = free_ports(2 * count + proxies.len());
        let (brokers, ports) = ports.split_at(count);
        let (controllers, behind) = ports.split_at(count);
        let nodes: Vec<Node> = (0..count)
            .map(|index| {
                let node = Node {
                    address: format!("127.0.0.1:{}", brokers[index]),
                    dir: dir.join(format!("node{}", index + 1)),
                    running: Mutex::new(None),
                };
                fs::create_dir_all(&node.dir).unwrap();
                let mut text = properties(index, brokers[index], controllers, &node.dir, overrides);
                if let Some((proxy, port)) = proxies.get(index).zip(behind.get(index)) {
                    text.push_str(&listener_behind(proxy, *port, brokers[index], controllers[index]));
                    proxy.lead_to(&format!("127.0.0.1:{port}"));
                }
                fs::write(node.properties(), text).unwrap();
                node
            })
            .collect();
        for node in &nodes {
            let config = node.properties().display().to_string();
            tool.java("kafka.tools.StorageTool", &["format", "-t", "worker-kafka-test-0001", "-c", &config]);
        }
        let bootstrap = nodes.iter().map(|node| node.address.as_str()).collect::<Vec<_>>().join(",");
        let kafka = Self { version, nodes, tool, bootstrap, dir };
        for node in &kafka.nodes {
            *node.running.lock().unwrap() = Some(Running::spawn(version, &kafka.dir, node));
        }
        for node in &kafka.nodes {
            if !node.wait_started() {
                return None;
            }
        }
        kafka.tool.connect(&kafka.bootstrap);
        kafka.tool.brokers(count);
        Some(kafka)
    }

    /// A topic's config for segments of so many bytes. Kafka 4 has a least size, and another name to go below it.
    pub fn segment_bytes(&self, bytes: u32) -> String {
        let key = if self.version == Version::V3 { "segment.bytes" } else { "internal.segment.bytes" };
        format!("{key}={bytes}")
    }

    /// Kafka's own Java clients, connected to these nodes.
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// `host:port` of a node; they count from 0, Kafka's node ids from 1.
    pub fn address(&self, node: usize) -> &str {
        &self.nodes[node].address
    }

    /// Where a node keeps the log of a partition.
    #[cfg(feature = "librdkafka")]
    pub fn partition_dir(&self, node: usize, topic: &str, partition: i32) -> PathBuf {
        self.nodes[node].dir.join("data").join(format!("{topic}-{partition}"))
    }

    /// A name for a topic or a group that no other test has: `what` and a number.
    pub fn name(what: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("{what}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// What `kafka-consumer-groups --describe --group` prints, word by word.
    pub fn describe_group(&self, group: &str) -> String {
        self.tool.java(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            &["--bootstrap-server", &self.bootstrap, "--describe", "--group", group],
        )
    }

    /// Ends a node as `kill -9` does. Its data stay.
    pub fn kill(&self, node: usize) {
        self.nodes[node].end("KILL");
    }

    /// Stops a node in good order: its leaderships move first. Its data stay.
    pub fn stop(&self, node: usize) {
        self.nodes[node].end("TERM");
    }

    /// Starts a node that was killed or stopped, at the port that it had; returns when it answers.
    pub fn start(&self, node: usize) {
        let node = &self.nodes[node];
        let mut running = node.running.lock().unwrap();
        assert!(running.is_none(), "{} runs already", node.address);
        *running = Some(Running::spawn(self.version, &self.dir, node));
        drop(running);
        assert!(node.wait_started(), "the port of {} was taken by another process meanwhile", node.address);
    }

    /// Holds a node still: its connections stay open, and from now on nothing is answered.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].signal("STOP");
        self.nodes[node].wait_stopped();
    }

    /// Lets a node that was held still go on.
    pub fn thaw(&self, node: usize) {
        self.nodes[node].signal("CONT");
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for node in &self.nodes {
            *node.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Node {
    fn properties(&self) -> PathBuf {
        self.dir.join("server.properties")
    }

    /// `false` if its port is taken by somebody else.
    fn wait_started(&self) -> bool {
        let mut running = self.running.lock().unwrap();
        let running = running.as_mut().unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match running.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("Kafka Server started") => return true,
                Ok(line) => running.pid = line.strip_prefix("pid ").map(str::to_owned).or(running.pid.take()),
                Err(error) => {
                    let read = |name| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
                    let logs = read("node.log") + &read("stderr.log");
                    if error == RecvTimeoutError::Disconnected && logs.contains("Address already in use") {
                        return false;
                    }
                    panic!("node {} does not start ({error}):\n{logs}", self.address);
                }
            }
        }
    }

    fn signal(&self, signal: &str) {
        let mut running = self.running.lock().unwrap();
        let running = running.as_mut().unwrap_or_else(|| panic!("{} does not run", self.address));
        writeln!(running.signals.as_mut().unwrap(), "{signal}").unwrap();
    }

    /// The signal goes by way of the guard, and there is no event for its effect: so it is looked for.
    fn wait_stopped(&self) {
        let running = self.running.lock().unwrap();
        let pid = running.as_ref().and_then(|running| running.pid.as_deref()).expect("it has started");
        let until = Instant::now() + PATIENCE;
        loop {
            let ps = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().unwrap();
            if ps.stdout.starts_with(b"T") {
                return;
            }
            assert!(Instant::now() < until, "{} does not stop: {ps:?}", self.address);
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn end(&self, signal: &str) {
        self.signal("keep");
        self.signal(signal);
        let running = self.running.lock().unwrap().take().unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match running.stdout.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end by signal {signal}", self.address),
            }
        }
    }
}

impl Running {
    fn spawn(version: Version, kafka_dir: &Path, node: &Node) -> Self {
        let install = Install::get(version).expect("it was found when the node was made");
        let log = node.dir.join("node.log");
        // A benchmark's broker gets what Kafka's own start script gives to one.
        let (first_heap, heap) =
            if install::FULL_SPEED.load(Ordering::Relaxed) { ("1g", "1g") } else { ("64m", "512m") };
        let mut guard = Command::new(scripts().join("guard.sh"))
            .arg(kafka_dir)
            .arg("java")
            .arg(format!("-Xms{first_heap}"))
            .args(install.jvm(heap, ""))
            .arg(format!("-Dnode.log={}", log.display()))
            .args(["kafka.Kafka".as_ref(), node.properties().as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(node.dir.join("stderr.log")).unwrap())
            .spawn()
            .unwrap();
        let signals = guard.stdin.take();
        let stdout = guard.stdout.take().unwrap();
        let (lines, received) = channel();
        thread::Builder::new()
            .name(format!("stdout of {}", node.address))
            .spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody listens any more once it has started; it is read on, so that it never blocks.
                    let _ = lines.send(line);
                }
            })
            .unwrap();
        Self { guard, signals, pid: None, stdout: received }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signals = None;
        let _ = self.guard.wait();
    }
}

/// `tests/kafka/server.properties`, filled in.
fn properties(index: usize, port: u16, controllers: &[u16], dir: &Path, overrides: &[(&str, &str)]) -> String {
    let voters: Vec<String> =
        controllers.iter().enumerate().map(|(index, port)| format!("{}@127.0.0.1:{port}", index + 1)).collect();
    let mut text = fs::read_to_string(scripts().join("server.properties")).unwrap();
    if controllers.len() > 1 {
        text.push_str("min.insync.replicas=2\n");
    }
    for (key, value) in overrides {
        // The last line with a key wins.
        let _ = writeln!(text, "{key}={value}");
    }
    text.replace("@NODE@", &(index + 1).to_string())
        .replace("@VOTERS@", &voters.join(","))
        .replace("@PORT@", &port.to_string())
        .replace("@CONTROLLER_PORT@", &controllers[index].to_string())
        .replace("@REPLICAS@", &controllers.len().min(3).to_string())
        .replace("@MIN_ISR@", &controllers.len().min(2).to_string())
        .replace("@DIR@", &dir.join("data").display().to_string())
}

/// One listener more, which advertises its proxy.
fn listener_behind(proxy: &Proxy, port: u16, broker: u16, controller: u16) -> String {
    let listeners =
        format!("PLAINTEXT://127.0.0.1:{broker},BEHIND://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let advertised = format!("PLAINTEXT://127.0.0.1:{broker},BEHIND://{}", proxy.address());
    let protocols = "PLAINTEXT:PLAINTEXT,BEHIND:PLAINTEXT,CONTROLLER:PLAINTEXT";
    format!("listeners={listeners}\nadvertised.listeners={advertised}\nlistener.security.protocol.map={protocols}\n")
}

/// Ports that were free a moment ago, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
