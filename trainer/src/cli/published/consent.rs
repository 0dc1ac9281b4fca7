//! What is said, and asked, before anything is fetched or removed.

use std::io::{BufRead, IsTerminal};

use anyhow::{Result, bail};
use tintype::catalogue::{Entry, File, Size};
use tintype_download::Downloader;

/// A line for each file that is to be fetched, and one for each licence.
fn about(files: &[(Option<&Entry>, &File)]) -> Vec<String> {
    let of_file = |(_, file): &(_, &File)| format!("{} ({})", file.address, Size::of([*file]));
    let mut lines: Vec<String> = files.iter().map(of_file).collect();
    let mut seen: Vec<&str> = Vec::new();
    for entry in files.iter().filter_map(|(entry, _)| *entry) {
        if seen.contains(&entry.name.as_str()) {
            continue;
        }
        seen.push(&entry.name);
        let summary = || format!("licence {}", entry.licence.summary());
        lines.push(format!("{}: {}", entry.name, entry.licence.warning().unwrap_or_else(summary)));
    }
    if files.iter().any(|(entry, _)| entry.is_none()) {
        lines.push("the licence of an address is not known here".into());
    }
    lines
}

/// Says what would be fetched and asks whether it may be; `--yes` is the answer where it is given.
///
/// # Errors
///
/// If the answer is no, or there is nobody to ask.
pub fn ask(downloader: &Downloader, files: &[(Option<&Entry>, &File)], yes: bool) -> Result<()> {
    let size = Size::of(files.iter().map(|(_, file)| *file));
    let mut hosts: Vec<String> = files.iter().map(|(_, file)| downloader.host(file)).collect();
    hosts.sort();
    hosts.dedup();
    let (count, hosts) = (files.len(), hosts.join(", "));
    let what = format!("{count} file{} from {hosts}, {size}", if count == 1 { "" } else { "s" });
    let lines = about(files);
    if yes {
        eprintln!("downloading {what}:\n  {}", lines.join("\n  "));
        return Ok(());
    }
    match agreed(&format!("This needs {what}:\n  {}\nDownload?", lines.join("\n  ")))? {
        Some(true) => Ok(()),
        Some(false) => bail!("nothing was downloaded"),
        None => bail!("this needs {what}; --yes downloads them: {}", lines.join("; ")),
    }
}

/// The answer to a question; `None` where there is nobody to ask.
///
/// # Errors
///
/// If the answer cannot be read.
pub fn agreed(question: &str) -> Result<Option<bool>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(None);
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype::catalogue::Catalogue;

    #[test]
    fn a_licence_is_said_before_a_download() {
        let entry = |name: &str, licence: &str| {
            format!(
                r#"{{"name": "{name}", "title": "M", "kind": "network", "licence": {licence},
                "files": [{{"role": "network", "address": "https://example.org/{name}.pt", "bytes": 2048}}]}}"#
            )
        };
        let mine = format!(
            r#"{{"models": [{}, {}, {}]}}"#,
            entry("a", r#"{"id": "CC-BY-NC-4.0", "commercial": false}"#),
            entry("b", r#"{"id": "unknown"}"#),
            entry("c", r#"{"id": "MIT", "commercial": true, "source": "the card"}"#),
        );
        let catalogue = Catalogue::built_in().extended(&mine, "models.json").expect("a catalogue");
        let entries = ["a", "b", "c", "a"].map(|name| catalogue.find(name).expect("it is there"));
        let files: Vec<_> = entries.iter().map(|entry| (Some(*entry), &entry.files[0])).collect();
        let lines = about(&files);
        assert_eq!(lines[0], "https://example.org/a.pt (2.0 KiB)");
        assert_eq!(
            lines[4..],
            [
                "a: licence CC-BY-NC-4.0: no commercial use",
                "b: its licence is not known; see the model's page before you use it",
                "c: licence MIT",
            ]
        );
    }
}
