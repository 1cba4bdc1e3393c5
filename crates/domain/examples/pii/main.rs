//! How well the guard finds identifiers, per kind.
//! `cargo run -p nearfar-domain --example pii -- ../shared/data/pii`
//! prints recall and precision; `--misses` adds the forms of what was missed
//! (digits as 9, letters as a).

mod measure;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(folder) = arguments.iter().find(|word| !word.starts_with("--")) else {
        eprintln!("usage: pii DIR [--misses]");
        return std::process::ExitCode::from(2);
    };
    match measure::measure(std::path::Path::new(folder)) {
        Ok(report) => {
            print!("{}", report.table());
            if arguments.iter().any(|word| word == "--misses") {
                print!("{}", report.misses());
            }
            std::process::ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            std::process::ExitCode::FAILURE
        }
    }
}
