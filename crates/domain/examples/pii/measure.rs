//! Compares what the guard finds with the labels of a set of texts.
// Its users, an example and a test, need a part each.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use nearfar_domain::guard::{Finding, Kind, Kinds, findings};
use serde_json::Value;

/// The labels that a kind answers to.
const COVERED: [(&str, Kind); 7] = [
    ("CREDIT_CARD", Kind::Card),
    ("IBAN_CODE", Kind::Iban),
    ("EMAIL_ADDRESS", Kind::Email),
    ("IP_ADDRESS", Kind::Ip),
    ("US_SSN", Kind::Ssn),
    ("PHONE_NUMBER", Kind::Phone),
    ("DOMAIN_NAME", Kind::Url),
];

/// What became of one label's places, or of one kind's findings.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub labelled: usize,
    /// Covered from first to last character by findings of its kind.
    pub covered: usize,
    pub found: usize,
    /// Overlap a place with the right label.
    pub right: usize,
}

impl Tally {
    pub fn recall(&self) -> f64 {
        self.covered as f64 / self.labelled.max(1) as f64
    }

    /// 1 where nothing was found.
    pub fn precision(&self) -> f64 {
        if self.found == 0 {
            1.0
        } else {
            self.right as f64 / self.found as f64
        }
    }
}

/// The comparison.
pub struct Report {
    pub texts: usize,
    pub bytes: usize,
    pub by_label: BTreeMap<&'static str, Tally>,
    /// Labels that no kind answers to, and how many there were.
    pub not_covered: BTreeMap<String, usize>,
    /// Findings of kinds without a label.
    pub unlabelled: BTreeMap<&'static str, usize>,
    notes: Vec<String>,
}

/// Reads every JSON file of a folder and compares.
///
/// # Errors
/// What cannot be read.
pub fn measure(folder: &Path) -> Result<Report, String> {
    let mut report = Report {
        texts: 0,
        bytes: 0,
        by_label: COVERED
            .iter()
            .map(|(label, _)| (*label, Tally::default()))
            .collect(),
        not_covered: BTreeMap::new(),
        unlabelled: BTreeMap::new(),
        notes: Vec::new(),
    };
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    for file in files {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let parsed: Value =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
        for sample in parsed.as_array().into_iter().flatten() {
            report.add(sample);
        }
    }
    if report.texts == 0 {
        return Err(format!("{}: no labelled texts", folder.display()));
    }
    Ok(report)
}

impl Report {
    fn add(&mut self, sample: &Value) {
        let text = sample["full_text"].as_str().unwrap_or_default();
        // Labels count characters.
        let mut places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        places.push(text.len());
        let spans: Vec<(&str, usize, usize)> = sample["spans"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|span| {
                let place = |key: &str| places.get(span[key].as_u64()? as usize).copied();
                let label = span["entity_type"].as_str()?;
                Some((label, place("start_position")?, place("end_position")?))
            })
            .collect();
        let found = findings(text, Kinds::ALL);
        self.texts += 1;
        self.bytes += text.len();
        for (label, start, end) in &spans {
            let Some((known, kind)) = COVERED.iter().find(|(known, _)| known == label) else {
                *self.not_covered.entry((*label).to_owned()).or_default() += 1;
                continue;
            };
            let covered = covered(&found, *kind, *start, *end);
            let tally = self.by_label.entry(known).or_default();
            tally.labelled += 1;
            tally.covered += usize::from(covered);
            if !covered {
                self.note("missed", label, text, *start, *end);
            }
        }
        for finding in &found {
            let Some((known, _)) = COVERED.iter().find(|(_, kind)| *kind == finding.kind) else {
                *self.unlabelled.entry(finding.kind.as_str()).or_default() += 1;
                self.note(
                    "found",
                    finding.kind.as_str(),
                    text,
                    finding.start,
                    finding.end,
                );
                continue;
            };
            let right = spans.iter().any(|(label, start, end)| {
                label == known && finding.start < *end && *start < finding.end
            });
            let tally = self.by_label.entry(known).or_default();
            tally.found += 1;
            tally.right += usize::from(right);
            if !right {
                self.note("wrong", known, text, finding.start, finding.end);
            }
        }
    }

    /// The form of a place and of what is around it, not its content.
    fn note(&mut self, what: &str, label: &str, text: &str, start: usize, end: usize) {
        let form = |part: &str| -> String {
            part.chars()
                .map(|c| match c {
                    '0'..='9' => '9',
                    c if c.is_uppercase() => 'A',
                    c if c.is_alphabetic() => 'a',
                    '\n' => '⏎',
                    c => c,
                })
                .collect()
        };
        let before: Vec<char> = text[..start].chars().rev().take(24).collect();
        let before: String = before.into_iter().rev().collect();
        let after: String = text[end..].chars().take(12).collect();
        let line = format!(
            "{what} {label}: …{}[{}]{}…",
            form(&before),
            form(&text[start..end]),
            form(&after)
        );
        self.notes.push(line);
    }

    /// Recall and precision per label, as Markdown.
    pub fn table(&self) -> String {
        let mut out = format!("{} texts, {} bytes\n\n", self.texts, self.bytes);
        out.push_str("| label | labelled | recall | found | precision |\n|---|---|---|---|---|\n");
        for (label, tally) in &self.by_label {
            let _ = writeln!(
                out,
                "| {label} | {} | {:.3} | {} | {:.3} |",
                tally.labelled,
                tally.recall(),
                tally.found,
                tally.precision()
            );
        }
        out.push_str("\nnot covered:");
        for (label, count) in &self.not_covered {
            let _ = write!(out, " {label} ({count})");
        }
        out.push_str("\nfound without a label for it:");
        for (kind, count) in &self.unlabelled {
            let _ = write!(out, " {kind} ({count})");
        }
        out.push('\n');
        out
    }

    /// Forms of what was missed and of what was found in error.
    pub fn misses(&self) -> String {
        self.notes
            .iter()
            .fold(String::from("\n"), |out, line| out + line + "\n")
    }
}

/// Whether findings of a kind cover a place wholly.
fn covered(found: &[Finding], kind: Kind, start: usize, end: usize) -> bool {
    let mut at = start;
    for finding in found.iter().filter(|finding| finding.kind == kind) {
        if finding.start <= at && at < finding.end {
            at = finding.end;
        }
    }
    at >= end
}
