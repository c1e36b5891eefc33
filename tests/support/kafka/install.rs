//! Where Apache Kafka is on this machine; fetched by `tests/kafka/fetch.sh` when it is not there yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The files of `tests/kafka`.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka")
}

/// The versions of Kafka that tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The newest line that the client `kafka` can read.
    V3,
    /// Without the old versions of requests (KIP-896), and with the new protocol of groups (KIP-848).
    V4,
}

impl Version {
    const ALL: [Self; 2] = [Self::V3, Self::V4];

    /// As Maven Central has it.
    pub fn number(self) -> &'static str {
        match self {
            Self::V3 => "3.9.1",
            Self::V4 => "4.1.1",
        }
    }

    /// How a consumer of the tool is to join: by the newest protocol of groups that this version has.
    pub fn member(self) -> &'static str {
        match self {
            Self::V3 => "session.timeout.ms=6000",
            Self::V4 => "group.protocol=consumer",
        }
    }
}

/// Kafka's jars, and our tool compiled against them.
#[derive(Debug)]
pub struct Install {
    /// Below this directory everything lives that the tests write: `target/kafka`.
    pub base: PathBuf,
    lib: PathBuf,
    tool: PathBuf,
    archive: PathBuf,
}

/// Whether JVMs that start from now on are to be fast rather than quickly there.
pub static FULL_SPEED: AtomicBool = AtomicBool::new(false);

impl Install {
    /// Finds it, or fetches it; once a process. The error says what is missing and how to install it.
    pub fn get(version: Version) -> Result<&'static Self, &'static str> {
        static FOUND: [OnceLock<Result<Install, String>>; Version::ALL.len()] = [OnceLock::new(), OnceLock::new()];
        FOUND[version as usize].get_or_init(|| Self::find(version)).as_ref().map_err(String::as_str)
    }

    fn find(version: Version) -> Result<Self, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("CARGO_TARGET_TMPDIR has no parent")?;
        let output = Command::new(scripts().join("fetch.sh"))
            .arg(version.number())
            .env("CARGO_TARGET_DIR", target)
            .output()
            .map_err(|error| format!("tests/kafka/fetch.sh can't be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match (output.status.success(), text.lines().collect::<Vec<_>>().as_slice()) {
            (true, [lib, tool, archive]) => {
                Ok(Self { base: target.join("kafka"), lib: lib.into(), tool: tool.into(), archive: archive.into() })
            }
            _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// The arguments of a small and quickly started JVM with Kafka on its class path, whose log goes where
    /// `log4j{logging}.properties` says, and for Kafka 4 `log4j2{logging}.properties`.
    pub fn jvm(&self, heap: &str, logging: &str) -> Vec<String> {
        // The first compiler alone starts sooner; a benchmark wants both.
        let tier = if FULL_SPEED.load(Ordering::Relaxed) { 4 } else { 1 };
        let scripts = scripts();
        let scripts = scripts.display();
        vec![
            format!("-Dlog4j.configuration=file:{scripts}/log4j{logging}.properties"),
            format!("-Dlog4j2.configurationFile=file:{scripts}/log4j2{logging}.properties"),
            format!("-Xmx{heap}"),
            "-XX:+UseSerialGC".into(),
            format!("-XX:TieredStopAtLevel={tier}"),
            // An archive that does not fit this JVM is ignored by it; its warning is not for stdout.
            "-Xlog:disable".into(),
            "-Xlog:all=warning:stderr".into(),
            format!("-XX:SharedArchiveFile={}", self.archive.display()),
            "-cp".into(),
            format!("{}/*:{}", self.lib.display(), self.tool.display()),
        ]
    }
}

/// `Ok`, or the reason for which tests with a real Kafka can't run here; then the caller returns.
/// With `CI=true` the reason is a failure: there nothing may be skipped in silence.
pub fn available(version: Version) -> Result<(), &'static str> {
    let Err(why) = Install::get(version) else { return Ok(()) };
    let number = version.number();
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and Kafka {number} is not available: {why}");
    Err(why)
}

/// A Kafka for a test: the shared 3.9.1, with `V4` the shared 4.1.1, or the given expression's, which may
/// stand behind a version. Where there is no Kafka to be had, says so and returns from the test.
#[macro_export]
macro_rules! kafka_or_skip {
    () => {
        $crate::kafka_or_skip!($crate::support::kafka::Kafka::shared())
    };
    (V4) => {{
        let version = $crate::support::kafka::install::Version::V4;
        $crate::kafka_or_skip!(version, $crate::support::kafka::Kafka::shared_of(version))
    }};
    ($kafka:expr) => {
        $crate::kafka_or_skip!($crate::support::kafka::install::Version::V3, $kafka)
    };
    ($version:expr, $kafka:expr) => {
        match $crate::support::kafka::install::available($version) {
            Ok(()) => $kafka,
            Err(why) => {
                // Past the capture of the test harness, so that it is seen for a passing test too.
                let number = $version.number();
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("\nSKIPPED {}:{}: no real Kafka {number} here: {why}\n", file!(), line!()).as_bytes(),
                );
                return;
            }
        }
    };
}
