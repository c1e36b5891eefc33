//! Where Apache Kafka is on this machine; fetched by `tests/kafka/fetch.sh` when it is not there yet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The files of `tests/kafka`.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka")
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
    pub fn get() -> Result<&'static Self, &'static str> {
        static FOUND: OnceLock<Result<Install, String>> = OnceLock::new();
        FOUND.get_or_init(Self::find).as_ref().map_err(String::as_str)
    }

    fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("CARGO_TARGET_TMPDIR has no parent")?;
        let output = Command::new(scripts().join("fetch.sh"))
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

    /// The arguments of a small and quickly started JVM with Kafka on its class path.
    pub fn jvm(&self, heap: &str) -> Vec<String> {
        // The first compiler alone starts sooner; a benchmark wants both.
        let tier = if FULL_SPEED.load(Ordering::Relaxed) { 4 } else { 1 };
        vec![
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
pub fn available() -> Result<(), &'static str> {
    let Err(why) = Install::get() else { return Ok(()) };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "CI=true, and Kafka is not available: {why}");
    Err(why)
}

/// A Kafka for a test: the shared one, or the given expression's. Where there is no Kafka to be had,
/// says so and returns from the test.
#[macro_export]
macro_rules! kafka_or_skip {
    () => {
        $crate::kafka_or_skip!($crate::support::kafka::Kafka::shared())
    };
    ($kafka:expr) => {
        match $crate::support::kafka::install::available() {
            Ok(()) => $kafka,
            Err(why) => {
                // Past the capture of the test harness, so that it is seen for a passing test too.
                let _ = std::io::Write::write_all(
                    &mut std::io::stderr(),
                    format!("\nSKIPPED {}:{}: no real Kafka here: {why}\n", file!(), line!()).as_bytes(),
                );
                return;
            }
        }
    };
}
