//! The real worker as a child process: its configuration, its log, its end.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;

use crate::Event;
use crate::topics::{Rhythm, TOPICS};

/// The topics' groups are this, a dash, and the topic's name.
pub const GROUP: &str = "stack-charge-tcp-command-xfy";

/// Where the worker writes, and what it reads.
pub struct Files {
    pub config: PathBuf,
    pub sinks: Vec<PathBuf>,
}

/// Writes the configuration into the empty directory `dir`.
pub fn configure(dir: &Path, bootstrap: &str) -> io::Result<Files> {
    let sinks = ["orders", "records"];
    let mut text = format!(
        "[kafka]\nbootstrap_servers = {bootstrap:?}\n\n[consumer]\ngroup_id = {GROUP:?}\n\
         auto_offset_reset = \"earliest\"  # the backlog is read, too\nsink = \"records\"\ntopics = [\n"
    );
    for topic in &TOPICS {
        text += &format!("    {:?},\n", topic.name);
    }
    text += "]\n";
    for topic in TOPICS.iter().filter(|topic| topic.sink != "records" || matches!(topic.rhythm, Rhythm::Burst { .. })) {
        let burst = matches!(topic.rhythm, Rhythm::Burst { .. });
        let own = if burst { "max_poll_records = 1000".to_owned() } else { format!("sink = {:?}", topic.sink) };
        text += &format!("\n[[topic]]\nname = {:?}\n{own}\n", topic.name);
    }
    for sink in sinks {
        let path = dir.join(format!("{sink}.jsonl"));
        text += &format!("\n[sink.{sink}]\ntype = \"file\"\npath = {:?}\n", path.display().to_string());
    }
    text += "\n[log]\nlevel = \"info,worker::dispatch=debug\"  # with the statistics of the poll rounds\n";
    let config = dir.join("consumer.toml");
    fs::write(&config, text)?;
    Ok(Files { config, sinks: sinks.iter().map(|sink| dir.join(format!("{sink}.jsonl"))).collect() })
}

/// A running worker. Dropped before it has ended: killed.
pub struct Worker {
    child: Child,
}

impl Worker {
    /// Starts it; each line of its log goes to `events`, and the end of the log.
    pub fn start(program: &Path, config: &Path, events: SyncSender<Event>) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C reaches the demo alone, which ends the worker when all is delivered.
            .process_group(0)
            .spawn()?;
        if let Some(log) = child.stderr.take() {
            thread::Builder::new().name("worker-log".to_owned()).spawn(move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    if events.send(Event::Log(line)).is_err() {
                        return;
                    }
                }
                // Nobody listens any more: nobody needs to know.
                let _ = events.send(Event::LogEnds);
            })?;
        }
        Ok(Self { child })
    }

    /// Asks it to finish what it has, and to end.
    pub fn terminate(&self) -> io::Result<()> {
        // The shell's own kill: not every system has the program, and the standard library has no other
        // signal than SIGKILL. The process is not waited for yet, so its number is still its own.
        let kill =
            Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh"]).arg(self.child.id().to_string()).status()?;
        if kill.success() { Ok(()) } else { Err(io::Error::other("kill -TERM failed")) }
    }

    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
