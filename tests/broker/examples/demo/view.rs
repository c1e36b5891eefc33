//! What is printed: lines of at most 80 columns, in colours only on a terminal.

use std::io::{self, IsTerminal, Write};

const WIDTH: usize = 80;

/// Standard output. When its reader is gone (`make demo | head`), nothing more is written.
pub struct View {
    colours: bool,
    closed: bool,
}

impl View {
    pub fn new() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { colours, closed: false }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// One or several lines as they are.
    pub fn say(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        self.closed |= writeln!(out, "{text}").and_then(|()| out.flush()).is_err();
    }

    /// A headline.
    pub fn head(&mut self, text: &str) {
        let text = self.paint("1", text);
        self.say(&text);
    }

    /// A line of somebody else's, wrapped, with `from` before each of its lines.
    pub fn quote(&mut self, from: &str, text: &str) {
        let colour = if from == "worker" { "36" } else { "32" };
        let prefix = self.paint(colour, &format!("{from:>6} |"));
        let room = WIDTH - "worker | ".len();
        let lines: Vec<String> = wrap(text, room).iter().map(|line| format!("{prefix} {line}")).collect();
        self.say(&lines.join("\n"));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Breaks at blanks where there are any, else anywhere. Later lines are indented by two.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if used > 2 && used + 1 + width(&word) > room {
            lines.push("  ".to_owned());
            used = 2;
        } else if used > 0 && used != 2 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            used += 1;
        }
        while used + width(&word) > room {
            let mut fits = 0;
            while used + width(&word[..=fits]) <= room {
                fits += 1;
            }
            let rest = word.split_off(fits);
            lines.last_mut().into_iter().for_each(|line| line.extend(&word));
            lines.push("  ".to_owned());
            (word, used) = (rest, 2);
        }
        used += width(&word);
        lines.last_mut().into_iter().for_each(|line| line.extend(&word));
    }
    lines
}

/// Columns on a terminal: the demo's payloads have Chinese characters, which take two.
fn width(text: &[char]) -> usize {
    text.iter().map(|&c| if c >= '\u{2e80}' { 2 } else { 1 }).sum()
}
