//! How output looks: colours on terminals only, tables, and text that cannot
//! steer the terminal.
#![allow(clippy::disallowed_methods, reason = "whether colours are wanted")]

use std::io::{IsTerminal, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Colours, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// No colours at all.
    pub const PLAIN: Style = Style { colours: false };

    /// For standard output.
    pub fn stdout() -> Self {
        Self {
            colours: std::io::stdout().is_terminal() && wanted(),
        }
    }

    /// For standard error.
    pub fn stderr() -> Self {
        Self {
            colours: std::io::stderr().is_terminal() && wanted(),
        }
    }

    /// Of lesser weight.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Of greater weight.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Well.
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Worth a look.
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Wrong.
    pub fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// A zone in its colour: near is green, far is yellow.
    pub fn zone(self, zone: &str) -> String {
        match zone {
            "device" => self.green(zone),
            _ => self.yellow(zone),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// <https://no-color.org>: any value that is not empty turns colours off.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// A table without rules: a heading and aligned columns. `right` names the
/// columns that hold numbers.
pub fn table(heading: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heading.iter().map(|cell| (*cell).to_owned()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| safe(&cell)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text from elsewhere without control characters, on one line.
pub fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An answer's text as a terminal may see it: a model must not be able to move
/// the cursor or set the title. Line breaks and tabs stay.
pub fn harmless(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// Writes to standard output at once; a closed pipe is an error that is quiet.
///
/// # Errors
/// Standard output is closed or full.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to standard error; nothing can be done where that fails.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Milliseconds for people.
pub fn ms(ms: f64) -> String {
    if !ms.is_finite() {
        "-".to_owned()
    } else if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else if ms < 60_000.0 {
        format!("{:.1} s", ms / 1_000.0)
    } else {
        format!("{:.0} min", ms / 60_000.0)
    }
}

/// Micro-units of currency for people.
pub fn money(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{9b}1m"), "a[2Jb\n\tc1m");
        assert_eq!(safe("a\nb"), "a b");
    }

    #[test]
    fn tables_align_without_trailing_blanks() {
        let text = table(
            &["name", "n"],
            vec![
                vec!["a".into(), "1".into()],
                vec!["long one".into(), "12".into()],
            ],
            &[1],
        );
        assert_eq!(text, "name       n\na          1\nlong one  12\n");
    }
}
