//! The bounds that the guard keeps on labelled texts, where those are at hand.
#![allow(clippy::unwrap_used)]

#[path = "../examples/pii/measure.rs"]
mod measure;

use std::path::PathBuf;

/// Label, least recall. What is found must be right in 95 of 100.
const RECALL: [(&str, f64); 6] = [
    ("CREDIT_CARD", 0.99),
    ("IBAN_CODE", 0.99),
    ("EMAIL_ADDRESS", 0.99),
    ("IP_ADDRESS", 0.99),
    ("US_SSN", 0.99),
    ("PHONE_NUMBER", 0.85),
];
const PRECISION: f64 = 0.95;

#[test]
fn recall_and_precision_on_labelled_texts() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    #[allow(clippy::disallowed_methods)] // where tests look for foreign data
    let shared =
        std::env::var_os("NEARFAR_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let folder = shared.join("data/pii");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no data at {}", folder.display());
        return;
    }
    let report = measure::measure(&folder).unwrap();
    println!("{}", report.table());
    for (label, least) in RECALL {
        let tally = report.by_label[label];
        assert!(tally.labelled > 0, "no {label} in the data");
        assert!(
            tally.recall() >= least,
            "{label}: recall {:.3}",
            tally.recall()
        );
        assert!(
            tally.precision() >= PRECISION,
            "{label}: precision {:.3}",
            tally.precision()
        );
    }
    for label in ["PERSON", "STREET_ADDRESS"] {
        assert!(
            report.not_covered.contains_key(label),
            "{label} is said to be not covered"
        );
    }
}
