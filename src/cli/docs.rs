//! Completions and manual pages, made from the grammar itself.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use super::failed::Failed;
use super::style;

/// Prints a shell's completions.
pub(super) fn completions(shell: Shell) -> Result<(), Failed> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "nearfar", &mut text);
    Ok(style::print(&String::from_utf8_lossy(&text))?)
}

/// Prints the main page, or writes a page for each verb.
pub(super) fn man(dir: Option<&Path>) -> Result<(), Failed> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        return Ok(style::print(&String::from_utf8_lossy(&text))?);
    };
    let wrote = write_pages(dir).map_err(|error| {
        Failed::new(format!(
            "The pages cannot be written to {}: {error}.",
            dir.display()
        ))
        .mend("Name a directory that you may write to.")
    })?;
    style::note(&format!("{wrote} pages written to {}", dir.display()));
    Ok(())
}

/// Writes every page; returns how many.
fn write_pages(dir: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    // The generated `help` verbs say nothing that a page of their own needs.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    page(&root, dir)
}

fn page(command: &clap::Command, dir: &Path) -> std::io::Result<usize> {
    clap_mangen::Man::new(command.clone()).generate_to(dir)?;
    let mut wrote = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        wrote += page(sub, dir)?;
    }
    Ok(wrote)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_verb_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let wrote = write_pages(dir.path()).unwrap();
        let mut pages: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages.len(), wrote);
        for verb in Cli::command().get_subcommands() {
            let page = format!("nearfar-{}.1", verb.get_name());
            let text = std::fs::read_to_string(dir.path().join(&page)).unwrap();
            assert!(text.len() > 200, "{page} says nothing");
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
        assert!(pages.contains(&"nearfar-config-check.1".to_owned()));
    }

    #[test]
    fn every_shell_completes_every_verb() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nearfar", &mut text);
            let text = String::from_utf8(text).unwrap();
            for verb in Cli::command().get_subcommands() {
                assert!(
                    text.contains(verb.get_name()),
                    "{shell}: {}",
                    verb.get_name()
                );
            }
        }
    }
}
