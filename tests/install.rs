//! What a person touches beside the program: `make install`, the init script, the demo.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::eventually;

const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// A command in the project's directory, without what an outer make has put into the environment.
fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR", "PREFIX"] {
        command.env_remove(name);
    }
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn make(target: &str, root: &Path) -> String {
    let output = command("make")
        .args([target, "PREFIX=/opt/worker", &format!("DESTDIR={}", root.display()), &format!("WORKER={WORKER}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "make {target}: {}", text(&output));
    text(&output)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn install_keeps_a_changed_configuration_and_uninstall_keeps_what_is_not_its_own() {
    let root = TempDir::with_prefix("worker install ").unwrap();
    let at = |path: &str| root.path().join(path);
    let config = at("etc/worker/consumer.toml");
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/consumer.toml")).unwrap();
    // The service's user can't write beside its configuration.
    let example = example.replace("#dir = ", "dir = ");

    let said = make("install", root.path());
    let last = said.lines().last().unwrap();
    assert!(last.contains(" /etc/worker/consumer.toml") && !last.contains("start"), "{last}");
    assert!(!last.contains(&*root.path().to_string_lossy()), "paths as they will be: {last}");
    let rotation = fs::read_to_string(at("etc/logrotate.d/worker")).unwrap();
    assert!(
        rotation.contains("\n/var/log/worker/worker.log {") && rotation.contains("    copytruncate\n"),
        "{rotation}"
    );
    fs::write(at("etc/logrotate.d/worker"), "# mine\n").unwrap();
    assert_eq!((mode(&at("opt/worker/bin/worker")), mode(&at("etc/init.d/worker"))), (0o755, 0o755));
    assert!(at("var/lib/worker").is_dir() && at("var/log/worker").is_dir());
    assert_eq!(fs::read_to_string(&config).unwrap(), example);
    let script = fs::read_to_string(at("etc/init.d/worker")).unwrap();
    assert!(script.contains("WORKER_BIN:-/opt/worker/bin/worker}"), "{script}");
    assert!(script.contains("WORKER_CONFIG:-/etc/worker/consumer.toml}"), "{script}");
    let version = command(at("opt/worker/bin/worker")).arg("--version").output().unwrap();
    assert_eq!(text(&version), format!("worker {}\n", env!("CARGO_PKG_VERSION")));

    // Again, with nothing changed: nothing to compare, nothing left lying about.
    assert!(make("install", root.path()).contains("unchanged"));
    assert_eq!(fs::read_to_string(at("etc/logrotate.d/worker")).unwrap(), "# mine\n");
    assert!(!at("etc/worker/consumer.toml.new").exists());

    fs::write(&config, "# mine\n").unwrap();
    assert!(make("install", root.path()).contains("consumer.toml, which differs"));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
    assert_eq!(fs::read_to_string(at("etc/worker/consumer.toml.new")).unwrap(), example);

    fs::write(at("var/lib/worker/orders.jsonl"), "{}\n").unwrap();
    make("uninstall", root.path());
    assert!(!at("opt/worker/bin/worker").exists() && !at("etc/init.d/worker").exists());
    assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
    assert!(at("var/lib/worker/orders.jsonl").exists() && at("var/log/worker").is_dir());
}

/// An installed init script whose paths all lead into a directory of the test.
struct Service {
    root: TempDir,
}

impl Service {
    fn install(config: &str) -> Self {
        let service = Self { root: TempDir::with_prefix("worker init ").unwrap() };
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

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn configure(&self, config: &str) {
        fs::write(self.at("etc/worker/consumer.toml"), config).unwrap();
    }

    /// Runs an action; its exit code and what it printed.
    fn run(&self, action: &str) -> (i32, String) {
        let output = command(self.at("etc/init.d/worker"))
            .arg(action)
            .env("WORKER_DEFAULTS", self.at("etc/default/worker"))
            .output()
            .unwrap();
        (output.status.code().unwrap(), text(&output))
    }

    fn expect(&self, action: &str, code: i32, words: &str) -> String {
        let (found, text) = self.run(action);
        assert!(
            found == code && text.contains(words),
            "{action}: exit code {found}, expected {code} and {words:?}: {text}"
        );
        text
    }

    fn log(&self) -> String {
        fs::read_to_string(self.at("var/log/worker/worker.log")).unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Of a test that failed, it may still run; or the script was never installed.
        let mut stop = command(self.at("etc/init.d/worker"));
        let _ = stop.arg("stop").env("WORKER_DEFAULTS", self.at("etc/default/worker")).output();
    }
}

/// Nobody answers there; `${BROKER}` comes from /etc/default/worker.
fn config(more: &str) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!(
        "[kafka]\nbootstrap_servers = \"${{BROKER}}:{port}\"\n[consumer]\ngroup_id = \"g\"\ntopics = [\"t\"]\n\
         [shutdown]\ndrain_timeout_ms = 1000\n{more}"
    )
}

#[test]
fn the_init_script_starts_tells_reloads_and_stops() {
    let service = Service::install(&config("[log]\nlevel = \"info\"\n"));
    service.expect("status", 3, "does not run");
    service.expect("reload", 7, "does not run");
    service.expect("stop", 0, "does not run");
    service.expect("try-restart", 0, "");
    service.expect("status", 3, "does not run");
    service.expect("nonsense", 2, "usage: ");

    service.expect("start", 0, "started (pid ");
    let pid = fs::read_to_string(service.at("worker.pid")).unwrap();
    service.expect("status", 0, &format!("runs (pid {})", pid.trim()));
    service.expect("start", 0, "runs already");
    assert_eq!(fs::read_to_string(service.at("worker.pid")).unwrap(), pid);
    service.expect("reload", 0, "opened anew");

    // As logrotate's copytruncate does it: what is logged from then on begins the file again.
    let earlier = service.log();
    fs::OpenOptions::new().write(true).truncate(true).open(service.at("var/log/worker/worker.log")).unwrap();
    service.expect("reload", 0, "opened anew");
    eventually("the line of the second reload", || service.log().contains("reopening files"));
    assert!(!service.log().contains('\0'), "it is appended to, wherever its end is");
    assert!(earlier.contains("worker starting"), "{earlier}");

    // A wrong configuration does not end what runs.
    service.configure("[kafka]\n");
    service.expect("restart", 6, "kafka.bootstrap_servers: is missing");
    service.expect("status", 0, pid.trim());
    service.configure(&config(""));
    service.expect("restart", 0, "started (pid ");
    let second = fs::read_to_string(service.at("worker.pid")).unwrap();
    assert_ne!(second, pid);

    service.expect("stop", 0, "stopped");
    service.expect("status", 3, "does not run");
    let log = service.log();
    assert!(log.contains("reopening files signal=SIGHUP"), "{log}");
    assert_eq!(log.matches("stopped exit_code=0").count(), 2, "{log}");
}

#[test]
fn a_start_that_fails_says_why() {
    let sink = "[sink.lost]\ntype = \"file\"\npath = \"/nonexistent/worker/lost.jsonl\"\n[[topic]]\nname = \"t\"\nsink = \"lost\"\n";
    let service = Service::install(&config(sink));
    service.expect(
        "start",
        6,
        "sink.lost.path: /nonexistent/worker/lost.jsonl: the directory /nonexistent/worker does not exist",
    );
    service.expect("status", 3, "does not run");

    service.configure("[kafka]\n");
    service.expect("start", 6, "consumer.group_id: is missing");
    fs::remove_file(service.at("etc/worker/consumer.toml")).unwrap();
    service.expect("start", 6, "consumer.toml is missing");
    fs::remove_file(service.at("opt/worker/bin/worker")).unwrap();
    service.expect("start", 5, "bin/worker is missing");
}

/// A crash leaves the pid file; another program may have its number by now.
#[test]
fn a_stale_pid_file_is_nobodys() {
    let service = Service::install(&config(""));
    fs::write(service.at("worker.pid"), format!("{}\n", std::process::id())).unwrap();
    service.expect("status", 1, "did not end by stop");
    service.expect("start", 0, "started (pid ");
    service.expect("stop", 0, "stopped");
    fs::write(service.at("worker.pid"), "nonsense").unwrap();
    service.expect("status", 1, "did not end by stop");
    service.expect("stop", 0, "does not run");
    service.expect("status", 3, "does not run");
}

/// The whole of it: the real program against the embedded broker, each record looked at.
#[test]
fn the_demo_accounts_for_every_record() {
    let output = command("make").args(["demo", "DEMO_SECONDS=5"]).env("CARGO_TARGET_DIR", target()).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\nTOPIC ") && text.contains("\nworker | ") && text.contains("\n  sink | "), "{text}");
    assert!(text.contains(" missing=0 again=0 wrong=0"), "{text}");
    assert!(text.contains("catching up") && text.contains("idle"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours in a pipe: {text}");
    let shown = text
        .lines()
        .skip_while(|line| !line.starts_with("worker: "))
        .filter(|line| !line.contains(target().to_str().unwrap()));
    let too_long: Vec<&str> = shown.filter(|line| line.chars().count() > 80).collect();
    assert_eq!(too_long, Vec::<&str>::new());
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn the_readmes_configuration_is_right() {
    let readme = readme();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    let config = worker::config::parse(&blocks.concat(), &|_| None).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// Each line of the log that the README explains is one that the program writes.
#[test]
fn the_readme_explains_lines_that_exist() {
    fn sources(dir: &Path, all: &mut String) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.path() {
                dir if dir.is_dir() => sources(&dir, all),
                file => all.push_str(&fs::read_to_string(file).unwrap()),
            }
        }
    }
    let mut source = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut source);
    let readme = readme();
    let table = readme.split("### Lines of the log").nth(1).unwrap().split("\n## ").next().unwrap();
    let explained: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .flat_map(|line| line.split(['…', '(']))
        .map(str::trim)
        .filter(|piece| !piece.is_empty() && !piece.starts_with("codec="))
        .collect();
    assert!(explained.len() > 20, "{explained:?}");
    for piece in explained {
        assert!(source.contains(piece), "README.md explains {piece:?}, which nothing in src writes");
    }
}

/// Cargo's target directory of this run.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}
