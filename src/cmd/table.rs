//! Text in columns, as commands print it.

use std::fmt;

/// Lines of cells below their titles. A column of numbers stands to the right, any other to the left.
pub(super) struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(titles: &[&str]) -> Self {
        Self { lines: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// A line; it has as many cells as there are titles.
    pub(super) fn line(&mut self, cells: Vec<String>) {
        debug_assert_eq!(Some(cells.len()), self.lines.first().map(Vec::len));
        self.lines.push(cells);
    }
}

/// A cell that may have nothing in it.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Each line of cells as a text, the columns below each other; those that are `right` stand to the right.
pub(super) fn columns(lines: &[Vec<String>], right: impl Fn(usize) -> bool) -> Vec<String> {
    let width = |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(|index| width(index).unwrap_or(0)).collect();
    let text = |line: &Vec<String>| {
        let mut text = String::new();
        for (index, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let padded = if right(index) { format!("{cell:>width$}  ") } else { format!("{cell:width$}  ") };
            text.push_str(&padded);
        }
        text.truncate(text.trim_end().len());
        text
    };
    lines.iter().map(text).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_number = |cell: &String| cell == "-" || cell.parse::<i64>().is_ok();
        let right = |index: usize| self.lines.iter().skip(1).filter_map(|line| line.get(index)).all(is_number);
        columns(&self.lines, right).iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(&["TOPIC", "OFFSET", "NOTE"]);
        table.line(vec!["a".to_owned(), "7".to_owned(), String::new()]);
        table.line(vec!["orders".to_owned(), or_dash(None::<i64>), "a note".to_owned()]);
        assert_eq!(table.to_string(), "TOPIC   OFFSET  NOTE\na            7\norders       -  a note\n");
    }
}
