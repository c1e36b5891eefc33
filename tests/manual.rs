//! Manual pages and completions: made from the command line's definition, and kept in etc/, so that an
//! installation needs nothing but files, and the program has nothing in it that only makes them.
//!
//! With `WORKER_WRITE_MANUAL` set (`make manual`) the files are written; without, they are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use worker::cli::Arguments;

use crate::support::install::has;

fn etc(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(path)
}

const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Every command, the program itself first, with the names by which it is called.
fn commands() -> Vec<clap::Command> {
    fn collect(command: &clap::Command, all: &mut Vec<clap::Command>) {
        all.push(command.clone());
        command.get_subcommands().filter(|sub| !sub.is_hide_set()).for_each(|sub| collect(sub, all));
    }
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    let mut all = Vec::new();
    collect(&root, &mut all);
    all
}

/// What there is to be in etc/man and etc/completions.
fn generated() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for command in commands() {
        let man = Man::new(command.clone()).source(concat!("worker ", env!("CARGO_PKG_VERSION"))).manual("worker");
        let mut page = Vec::new();
        man.render_title(&mut page).unwrap();
        man.render_name_section(&mut page).unwrap();
        man.render_synopsis_section(&mut page).unwrap();
        man.render_description_section(&mut page).unwrap();
        man.render_options_section(&mut page).unwrap();
        if command.has_subcommands() {
            man.render_subcommands_section(&mut page).unwrap();
        }
        // Each section comes with the definition of the apostrophe; once is enough.
        let page = String::from_utf8(page).unwrap();
        let mut page = format!("{APOSTROPHE}{}", page.replace(APOSTROPHE, ""));
        if command.get_name() == "worker" {
            page += &fs::read_to_string(etc("man/worker.1.more")).unwrap();
        } else {
            page += ".SH \"SEE ALSO\"\n\\fBworker\\fR(1)\n";
        }
        files.insert(etc("man").join(man.get_filename()), page);
    }
    for (shell, name) in [(Shell::Bash, "worker.bash"), (Shell::Zsh, "_worker"), (Shell::Fish, "worker.fish")] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "worker", &mut script);
        files.insert(etc("completions").join(name), String::from_utf8(script).unwrap());
    }
    files
}

#[test]
fn etc_has_what_the_definition_makes() {
    let files = generated();
    let found = |dir: &str| fs::read_dir(etc(dir)).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let stale = found("man").into_iter().chain(found("completions"));
    let stale: Vec<PathBuf> =
        stale.filter(|path| !files.contains_key(path) && *path != etc("man/worker.1.more")).collect();
    if env::var_os("WORKER_WRITE_MANUAL").is_some() {
        stale.iter().for_each(|path| fs::remove_file(path).unwrap());
        files.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
        return;
    }
    assert_eq!(stale, Vec::<PathBuf>::new(), "of no command any more; make manual");
    for (path, text) in &files {
        let same = fs::read_to_string(path).is_ok_and(|found| found == *text);
        assert!(same, "{} is not what src/cli.rs makes; make manual", path.display());
    }
}

/// A page as a reader has it, without the typesetting.
fn plain(roff: &str) -> String {
    let text = ["\\fB", "\\fI", "\\fR"].iter().fold(roff.to_owned(), |text, font| text.replace(font, ""));
    text.replace("\\-", "-").replace("\\*(Aq", "'")
}

#[test]
fn each_page_names_every_option_of_its_command() {
    let files = generated();
    let commands = commands();
    assert!(commands.len() >= 2);
    for command in commands {
        let name = command.get_display_name().unwrap_or("worker").to_owned();
        let page = plain(&files[&etc("man").join(format!("{name}.1"))]);
        let mut options = 0;
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            options += 1;
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            let value =
                argument.get_value_names().filter(|_| argument.is_positional()).map(|names| names[0].to_string());
            for word in [long, short, value].into_iter().flatten() {
                assert!(page.contains(&word), "{name}(1) does not name {word}:\n{page}");
            }
            let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string);
            let help = help.unwrap_or_else(|| panic!("{name}: {} has no text", argument.get_id()));
            assert!(
                page.contains(help.lines().next().unwrap()),
                "{name}(1) does not explain {}:\n{page}",
                argument.get_id()
            );
        }
        assert!(options > 0, "{name}");
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            assert!(page.contains(sub.get_name()), "{name}(1) does not name {}", sub.get_name());
        }
    }
}

/// What a reader would stumble over: none of the pages makes its formatter complain.
#[test]
fn the_pages_are_sound() {
    if !has("man", "the_pages_are_sound") {
        return;
    }
    for path in generated().keys().filter(|path| path.extension().is_some_and(|extension| extension == "1")) {
        let output = Command::new("man")
            .args(["--warnings", "-l", "-E", "UTF-8"])
            .arg(path)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", path.display());
        assert!(String::from_utf8_lossy(&output.stdout).contains("OPTIONS"), "{}", path.display());
    }
}

/// Each shell reads its file, and offers the options where it can be asked without a terminal.
#[test]
fn the_shells_read_their_completions() {
    let bash = format!(
        "source '{}'; COMP_WORDS=(worker --lo); COMP_CWORD=1; _worker worker --lo worker; echo \"${{COMPREPLY[@]}}\"",
        etc("completions/worker.bash").display()
    );
    let zsh = format!(
        "autoload -U compinit; compinit -u -D; source '{}'; whence -w _worker",
        etc("completions/_worker").display()
    );
    let fish = format!("source '{}'; complete -C 'worker --lo'", etc("completions/worker.fish").display());
    for (shell, script, expected) in
        [("bash", bash, "--log-level"), ("zsh", zsh, "_worker: function"), ("fish", fish, "--log-level")]
    {
        if has(shell, "the_shells_read_their_completions") {
            let output = Command::new(shell).arg("-c").arg(&script).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains(expected), "{shell}: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
