//! `make install` into a directory of the test, and the init script from there.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program that is tested.
pub const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// A command in the project's directory, without what an outer make has put into the environment.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX"] {
        command.env_remove(name);
    }
    command
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn make(target: &str, root: &Path) -> String {
    let output = command("make")
        .args([target, "PREFIX=/opt/worker", &format!("DESTDIR={}", root.display()), &format!("WORKER={WORKER}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "make {target}: {}", text(&output));
    text(&output)
}

pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

/// An installed init script whose paths all lead into a directory of the test.
pub struct Service {
    root: TempDir,
    /// What runs the script; empty: its first line says it.
    shell: Vec<&'static str>,
}

impl Service {
    pub fn install(config: &str) -> Self {
        let service = Self { root: TempDir::with_prefix("worker init ").unwrap(), shell: Vec::new() };
        make("install", service.root.path());
        let at = |path: &str| service.at(path).display().to_string();
        let defaults = format!(
            "WORKER_BIN='{}'\nWORKER_CONFIG='{}'\nWORKER_PIDFILE='{}'\nWORKER_LOG='{}'\nBROKER=127.0.0.1\n",
            at("opt/worker/bin/worker"),
            at("etc/worker/consumer.toml"),
            at("worker.pid"),
            at("var/log/worker/worker.log")
        );
        fs::create_dir(service.at("etc/default")).unwrap();
        fs::write(service.at("etc/default/worker"), defaults).unwrap();
        service.configure(config);
        // Whoever it runs as has to get at the files, whatever the umask here is.
        fs::set_permissions(service.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        service
    }

    /// The same script, run by this shell.
    pub fn with_shell(mut self, shell: &[&'static str]) -> Self {
        self.shell = shell.to_vec();
        self
    }

    fn script(&self) -> Command {
        let script = self.at("etc/init.d/worker");
        let mut command = match self.shell.split_first() {
            None => command(script),
            Some((shell, rest)) => {
                let mut command = command(shell);
                command.args(rest).arg(script);
                command
            }
        };
        command.env("WORKER_DEFAULTS", self.at("etc/default/worker"));
        command
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.at("etc/worker/consumer.toml"), config).unwrap();
    }

    /// Runs an action; its exit code and what it printed.
    fn run(&self, action: &str) -> (i32, String) {
        let output = self.script().args(action.split_whitespace()).output().unwrap();
        (output.status.code().unwrap(), text(&output))
    }

    #[track_caller]
    pub fn expect(&self, action: &str, code: i32, words: &str) -> String {
        let (found, text) = self.run(action);
        assert!(
            found == code && text.contains(words),
            "{action}: exit code {found}, expected {code} and {words:?}: {text}"
        );
        text
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.at("var/log/worker/worker.log")).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Of a test that failed, it may still run; or the script was never installed.
        let _ = self.script().arg("stop").output();
    }
}

/// A configuration. Nobody answers there; `${BROKER}` comes from /etc/default/worker.
pub fn config(more: &str) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!(
        "[kafka]\nbootstrap_servers = \"${{BROKER}}:{port}\"\n[consumer]\ngroup_id = \"g\"\ntopics = [\"t\"]\n\
         [shutdown]\ndrain_timeout_ms = 1000\n{more}"
    )
}

/// Whether this machine has a program; if not, says past the capture of the test harness that the test is
/// skipped, so that it is seen for a passing test too.
pub fn has(program: &str, test: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]).output().unwrap().status.success();
    if !found {
        let line = format!("\nSKIPPED {test}: there is no {program} on this machine\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}
