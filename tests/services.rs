//! What keeps the installed worker running: the init script, the systemd unit, logrotate.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::bed::Bed;
use crate::support::eventually;
use crate::support::install::{Service, command, config, has, make, mode, text};

#[test]
fn the_init_script_starts_tells_reloads_and_stops() {
    let service = Service::install(&config("[log]\nlevel = \"info\"\n"));
    service.expect("status", 3, "does not run");
    service.expect("reload", 7, "does not run");
    service.expect("stop", 0, "does not run");
    service.expect("try-restart", 0, "");
    service.expect("status", 3, "does not run");
    service.expect("force-reload", 7, "does not run");
    for wrong in ["nonsense", "", "start now"] {
        service.expect(wrong, 2, "usage: ");
    }

    service.expect("start", 0, "started (pid ");
    let pid = fs::read_to_string(service.at("worker.pid")).unwrap();
    service.expect("status", 0, &format!("runs (pid {})", pid.trim()));
    service.expect("start", 0, "runs already");
    assert_eq!(fs::read_to_string(service.at("worker.pid")).unwrap(), pid);
    // Records may stand in the log; whether it runs, everybody may ask.
    let modes = [mode(&service.at("var/log/worker/worker.log")), mode(&service.at("etc/worker/consumer.state/lock"))];
    assert_eq!((modes, mode(&service.at("worker.pid")) & 0o044), ([0o640; 2], 0o044));
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
    let before = service.log().matches("reopening files").count();
    service.expect("force-reload", 6, "files are opened anew, and nothing else has changed");
    eventually("its files are opened anew", || service.log().matches("reopening files").count() > before);
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

/// What it is unless somebody sets another number.
#[test]
fn the_allocator_has_two_heaps_unless_the_defaults_say_otherwise() {
    let service = Service::install(&config(""));
    let told = |number: u32| {
        service.expect("start", 0, "started (pid ");
        let pid = fs::read_to_string(service.at("worker.pid")).unwrap();
        let environment = fs::read(format!("/proc/{}/environ", pid.trim())).unwrap();
        let expected = format!("MALLOC_ARENA_MAX={number}");
        assert!(environment.split(|byte| *byte == 0).any(|entry| entry == expected.as_bytes()), "{expected}");
        service.expect("stop", 0, "stopped");
    };
    told(2);
    let defaults = service.at("etc/default/worker");
    fs::write(&defaults, fs::read_to_string(&defaults).unwrap() + "MALLOC_ARENA_MAX=1\n").unwrap();
    told(1);
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

/// Another worker, for instance one of systemd, has the state: its lock says so, and the first goes on.
#[test]
fn a_second_one_is_refused_and_takes_nothing_from_the_first() {
    let service = Service::install(&config(""));
    service.expect("start", 0, "started (pid ");
    let pid = fs::read_to_string(service.at("worker.pid")).unwrap();
    let words = format!("another worker (process {}) runs with the state directory", pid.trim());
    fs::write(service.at("worker.pid"), "").unwrap();
    service.expect("start", 1, &words);
    fs::write(service.at("worker.pid"), &pid).unwrap();
    service.expect("status", 0, "runs");
    service.expect("stop", 0, "stopped");
    // The lock is the system's, not the file: what is left of that names nobody.
    assert!(service.at("etc/worker/consumer.state/lock").exists());
    service.expect("start", 0, "started (pid ");
    service.expect("stop", 0, "stopped");
}

#[test]
fn the_init_script_works_with_other_shells() {
    for shell in [&["dash"][..], &["busybox", "sh"], &["bash", "--posix"]] {
        if !has(shell[0], "the_init_script_works_with_other_shells") {
            continue;
        }
        let service = Service::install(&config("")).with_shell(shell);
        service.expect("status", 3, "does not run");
        service.expect("start", 0, "started (pid ");
        service.expect("start", 0, "runs already");
        service.expect("status", 0, "runs (pid ");
        service.expect("reload", 0, "opened anew");
        service.expect("restart", 0, "started (pid ");
        service.expect("try-restart", 0, "started (pid ");
        service.expect("stop", 0, "stopped");
        service.expect("status", 3, "does not run");
        assert_eq!(service.log().matches("stopped exit_code=0").count(), 3, "{shell:?}");
    }
}

#[test]
fn shellcheck_finds_nothing() {
    if !has("shellcheck", "shellcheck_finds_nothing") {
        return;
    }
    let scripts = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    let scripts = scripts.filter(|path| path.extension().is_some_and(|extension| extension == "sh"));
    let output = command("shellcheck").arg("etc/worker.init").args(scripts).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A unit that `make install` has written, with the program where it is.
fn unit() -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::TempDir::new().unwrap();
    make("install", root.path());
    let path = root.path().join("etc/systemd/system/worker.service");
    let unit = fs::read_to_string(&path).unwrap();
    let program = root.path().join("opt/worker/bin/worker").display().to_string();
    assert!(unit.contains("\nExecStart=/opt/worker/bin/worker -c /etc/worker/consumer.toml\n"), "{unit}");
    fs::write(&path, unit.replace("/opt/worker/bin/worker", &program)).unwrap();
    (root, path)
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    if !has("systemd-analyze", "systemd_has_nothing_to_say_against_the_unit") {
        return;
    }
    let (_root, unit) = unit();
    let output = command("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output));
    // From 0.0, all is forbidden, to 10.0. What is left is what it is for: the network, and its files. The
    // threshold is in tenths.
    let security = ["security", "--offline=true", "--no-pager", "--threshold=15"];
    let output = command("systemd-analyze").args(security).arg(&unit).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn the_unit_fits_the_program() {
    let (_root, unit) = unit();
    let unit = fs::read_to_string(unit).unwrap();
    let value = |key: &str| {
        let lead = format!("\n{key}=");
        unit.split_once(&lead).map(|(_, rest)| rest.lines().next().unwrap_or_default())
    };
    assert_eq!(value("Type"), Some("notify"));
    assert_eq!(value("Restart"), Some("on-failure"));
    // Of a configuration that is wrong, and of nothing else.
    assert_eq!(value("RestartPreventExitStatus"), Some(worker::cmd::USAGE.to_string().as_str()));
    // The directory that the installed configuration names, and the only one that it may write.
    assert_eq!((value("StateDirectory"), value("ProtectSystem")), (Some("worker"), Some("strict")));
    let config = fs::read_to_string(root().join("etc/consumer.toml")).unwrap();
    assert!(config.contains("\n#dir = \"/var/lib/worker\"\n"), "{config}");
    // Longer than the default configuration may take to stop.
    let stop: u64 = value("TimeoutStopSec").unwrap().parse().unwrap();
    let config = worker::config::parse(&config, &|_| None).unwrap();
    assert!(stop > worker::supervisor::hard_deadline(&config).as_secs());
}

/// logrotate as it is called by cron, with its state in the test's directory.
fn logrotate(dir: &Path, rules: &str) {
    let file = dir.join("rules");
    fs::write(&file, rules).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output =
        Command::new("logrotate").arg("--force").arg("--state").arg(dir.join("rotated")).arg(&file).output().unwrap();
    let said = text(&output);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn logrotate_rotates_the_log_of_a_worker_that_runs() {
    if !has("logrotate", "logrotate_rotates_the_log_of_a_worker_that_runs") {
        return;
    }
    let service = Service::install(&config(""));
    service.expect("start", 0, "started (pid ");
    let rules = fs::read_to_string(service.at("etc/logrotate.d/worker")).unwrap();
    let log = service.at("var/log/worker/worker.log");
    let rules = rules.replace("/var/log/worker/worker.log", &format!("\"{}\"", log.display()));
    logrotate(&service.at(""), &rules);
    let rotated = fs::read_to_string(service.at("var/log/worker/worker.log.1")).unwrap();
    assert!(rotated.contains("worker starting"), "{rotated}");
    service.expect("reload", 0, "opened anew");
    eventually("it is written on", || service.log().contains("reopening files"));
    assert!(!service.log().contains("worker starting") && !service.log().contains('\0'), "{}", service.log());
    service.expect("stop", 0, "stopped");
}

/// The rules for files of sinks, which stand in the file as an example.
#[test]
fn logrotate_with_sighup_loses_no_record_of_a_sink() {
    if !has("logrotate", "logrotate_with_sighup_loses_no_record_of_a_sink") {
        return;
    }
    let bed = Bed::new(&["t"]);
    let worker = bed.started(&bed.config(&["t"]));
    let rules = fs::read_to_string(root().join("etc/worker.logrotate")).unwrap();
    let example = rules.split_once("#/var/lib/worker/*.jsonl {").unwrap().1;
    let example: String = example.lines().map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
    let reload = "systemctl reload worker 2>/dev/null || /etc/init.d/worker reload >/dev/null";
    // The test's directory is no service's.
    assert!(example.contains(reload) && example.contains("    su worker worker\n"), "{example}");
    let example = example.replace(reload, &format!("kill -HUP {}", worker.pid())).replace("    su worker worker\n", "");
    let rules = format!("{} {{{example}", bed.site.path("*.jsonl").display());

    for round in 1..=3 {
        bed.fill("t", 500);
        // While it is written to.
        eventually("some of it is there", || !bed.site.records().is_empty());
        logrotate(&bed.site.path(""), &rules);
        eventually("the signal has come", || worker.count(&["reopening files"]) == round);
        bed.fill("t", 500);
    }
    bed.await_committed("t", 0, 3000);
    bed.stop(worker);
    // The oldest first; the newest of those that are full is not compressed yet.
    let unpacked = |number| {
        Command::new("gzip").arg("-dc").arg(bed.site.path(&format!("out.jsonl.{number}.gz"))).output().unwrap()
    };
    let mut all = [unpacked(3), unpacked(2)].map(|output| output.stdout).concat();
    for name in ["out.jsonl.1", "out.jsonl"] {
        all.extend(fs::read(bed.site.path(name)).unwrap());
    }
    fs::write(bed.site.out(), all).unwrap();
    bed.assert_all("t", 0);
}
