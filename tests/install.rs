//! What a person touches beside the program: `make install`, the demo, the README.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::install::{WORKER, command, make, mode, text};

#[test]
fn install_keeps_a_changed_configuration_and_uninstall_keeps_what_is_not_its_own() {
    let root = TempDir::with_prefix("worker install ").unwrap();
    let at = |path: &str| root.path().join(path);
    let config = at("etc/worker/consumer.toml");
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/consumer.toml")).unwrap();
    // The service's user can't write beside its configuration.
    let example = example.replace("#dir = ", "dir = ").replace("/usr/local/share/worker", "/opt/worker/share/worker");

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

/// Every file and directory that is made, with its mode; and after `uninstall`, what is left.
#[test]
fn the_tree_is_exactly_this() {
    fn tree(dir: &Path, root: &Path, all: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.strip_prefix(root).unwrap().display().to_string();
            if entry.is_dir() {
                tree(&entry, root, all);
                if ["var/lib/worker", "var/log/worker"].contains(&&*name) {
                    all.push(format!("{:o} {name}/", mode(&entry)));
                }
            } else {
                all.push(format!("{:o} {name}", mode(&entry)));
            }
        }
        all.sort_by(|a, b| a[4..].cmp(&b[4..]));
    }
    let root = TempDir::with_prefix("worker tree ").unwrap();
    let found = || {
        let mut all = Vec::new();
        tree(root.path(), root.path(), &mut all);
        all
    };
    make("install", root.path());
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/man")).unwrap();
    let pages = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let pages = pages.filter(|name| name.ends_with(".1")).map(|name| format!("644 opt/worker/share/man/man1/{name}"));
    let left =
        ["644 etc/logrotate.d/worker", "644 etc/worker/consumer.toml", "750 var/lib/worker/", "750 var/log/worker/"];
    let gone = [
        "755 etc/init.d/worker",
        "644 etc/systemd/system/worker.service",
        "755 opt/worker/bin/worker",
        "644 opt/worker/share/bash-completion/completions/worker",
        "644 opt/worker/share/fish/vendor_completions.d/worker.fish",
        "755 opt/worker/share/worker/handlers/handler.py",
        "755 opt/worker/share/worker/handlers/handler.sh",
        "644 opt/worker/share/worker/worker-dashboard.json",
        "644 opt/worker/share/worker/worker.rules.yml",
        "644 opt/worker/share/zsh/site-functions/_worker",
    ];
    let mut all: Vec<String> = left.iter().chain(&gone).map(|&line| line.to_owned()).chain(pages).collect();
    all.sort_by(|a, b| a[4..].cmp(&b[4..]));
    assert_eq!(found(), all);
    // A mode that somebody has set stays.
    fs::set_permissions(root.path().join("var/log/worker"), fs::Permissions::from_mode(0o755)).unwrap();
    make("install", root.path());
    assert_eq!(mode(&root.path().join("var/log/worker")), 0o755);
    fs::set_permissions(root.path().join("var/log/worker"), fs::Permissions::from_mode(0o750)).unwrap();
    make("uninstall", root.path());
    assert_eq!(found(), left);
}

/// Nothing of it happens with DESTDIR, and nothing here to this machine: the system's programs are the
/// test's.
#[test]
fn the_user_is_made_once_and_gets_what_is_roots() {
    let dir = TempDir::with_prefix("worker user ").unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let calls = dir.path().join("calls");
    let owner = |owner: &str| {
        for (name, body) in [
            // Root; and the user is there once it was made.
            ("id", "case $* in -u) echo 0 ;; -g*) echo 997 ;; *) grep -q ^useradd \"$CALLS\" ;; esac"),
            ("useradd", "echo \"useradd $*\" >>\"$CALLS\""),
            ("chown", "echo \"chown $*\" >>\"$CALLS\""),
            ("stat", owner),
        ] {
            fs::write(bin.join(name), format!("#!/bin/sh\n{body}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    };
    let install = |more: &[String]| {
        let at = |path: &str| dir.path().join(path).display().to_string();
        let output = command("make")
            .args(["install".to_owned(), format!("PREFIX={}", at("usr")), format!("SYSCONFDIR={}", at("etc"))])
            .args([format!("LOCALSTATEDIR={}", at("var")), format!("WORKER={WORKER}")])
            .args(more)
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .env("CALLS", &calls)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let heard = || fs::read_to_string(&calls).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    fs::write(&calls, "").unwrap();

    owner("case $2 in %u) echo 0 ;; *) echo 0:0 ;; esac");
    install(&[format!("DESTDIR={}", dir.path().join("tree").display())]);
    assert_eq!(heard(), [""; 0]);

    let said = install(&[]);
    assert!(said.contains("made      the user worker"), "{said}");
    let (data, logs) = (dir.path().join("var/lib/worker"), dir.path().join("var/log/worker"));
    let all = heard();
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].starts_with("useradd --system ") && all[0].ends_with(" worker"), "{all:?}");
    assert_eq!(
        all[1..],
        [format!("chown -R worker:997 {}", data.display()), format!("chown root:997 {}", logs.display())]
    );

    // Again, with owners that somebody has chosen.
    owner("case $2 in %u) echo 5 ;; *) echo 5:5 ;; esac");
    let said = install(&[]);
    assert!(!said.contains("made"), "{said}");
    assert_eq!(heard(), all);

    // Another place of the data is one that the unit allows.
    let unit = fs::read_to_string(dir.path().join("etc/systemd/system/worker.service")).unwrap();
    assert!(unit.contains("\nEnvironment=MALLOC_ARENA_MAX=2\n") && unit.contains("\nEnvironmentFile=-/"), "{unit}");
    let script = fs::read_to_string(dir.path().join("etc/init.d/worker")).unwrap();
    assert!(script.contains("\nMALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}\nexport MALLOC_ARENA_MAX\n"), "{script}");
    assert!(
        unit.contains(&format!("\nReadWritePaths={}\n", data.display())) && !unit.contains("StateDirectory"),
        "{unit}"
    );
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

/// What `more` says goes over what `base` says.
fn lay_over(base: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(more)) => lay_over(base, more),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// The first two blocks are one configuration; each other one is what to add to it. No file that one names is read.
#[test]
fn the_readmes_configuration_is_right() {
    let readme = readme();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let (example, others) = blocks.split_at_checked(2).unwrap();
    let example = example.concat();
    let environment = |name: &str| Some(if name == "NUMBER" { "2".to_owned() } else { "worker-2".to_owned() });
    let is_right = |text: &str| {
        let config = worker::config::parse(text, &environment).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(config.warnings, Vec::<String>::new(), "{text}");
    };
    is_right(&example);
    assert!(!others.is_empty());
    for other in others {
        let more: toml::Table = other.parse().unwrap();
        // A program without librdkafka refuses what only that can do.
        let tables = more.get("kafka").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
        let mut tables = tables.filter(|key| ["tls", "sasl", "librdkafka"].contains(&key.as_str()));
        let forwards = other.contains("type = \"kafka\"") || other.contains("[dead_letter]\ntopic");
        if cfg!(not(feature = "librdkafka")) && (tables.next().is_some() || forwards) {
            continue;
        }
        let mut whole: toml::Table = example.parse().unwrap();
        lay_over(&mut whole, more);
        is_right(&whole.to_string());
    }
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
