//! The figures as they come in, and the table of them.

use crate::command::{Retrieval, System};
use std::collections::BTreeMap;

/// Who reached a figure.
pub(crate) type Who = (System, Retrieval);

/// What was measured, in the order of the rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<String>,
    cells: BTreeMap<(String, Who), Vec<f64>>,
    texts: BTreeMap<(String, Who), String>,
}

impl Table {
    fn row(&mut self, row: &str) -> String {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        row.to_owned()
    }

    /// One more value of a figure.
    pub(crate) fn add(&mut self, row: &str, who: Who, value: f64) {
        let row = self.row(row);
        println!("{} {}: {row}: {value:.3}", who.0, who.1);
        self.cells.entry((row, who)).or_default().push(value);
    }

    /// What a figure came to where there is no number.
    pub(crate) fn note(&mut self, row: &str, who: Who, text: String) {
        let row = self.row(row);
        println!("{} {}: {row}: {text}", who.0, who.1);
        self.texts.insert((row, who), text);
    }

    /// In Markdown: medians, with the least and the most where there were several.
    pub(crate) fn print(&self) {
        let mut columns: Vec<Who> = self.cells.keys().map(|(_, who)| *who).collect();
        columns.extend(self.texts.keys().map(|(_, who)| *who));
        columns.sort_unstable();
        columns.dedup();
        let heads = columns
            .iter()
            .map(|(system, how)| format!("{system}, {how}"));
        println!("\n| | {} |", heads.collect::<Vec<_>>().join(" | "));
        println!("|---|{}", "---|".repeat(columns.len()));
        for row in &self.rows {
            let cells = columns.iter().map(|who| self.cell(row, *who));
            println!("| {row} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }

    fn cell(&self, row: &str, who: Who) -> String {
        let key = (row.to_owned(), who);
        if let Some(text) = self.texts.get(&key) {
            return text.clone();
        }
        let Some(values) = self.cells.get(&key) else {
            return "-".to_owned();
        };
        let mut values = values.clone();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        let median = show(values[values.len() / 2]);
        if values.len() == 1 {
            return median;
        }
        format!("{median} ({}-{})", show(least), show(most))
    }
}

fn show(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
