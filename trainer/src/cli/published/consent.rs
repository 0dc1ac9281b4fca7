//! What is said, and asked, before anything is fetched.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Result, bail};
use tintype::catalogue::{Address, Entry, File, Licence, Size};

/// A licence in a few words; what it forbids or what is not known of it comes first.
fn licence(licence: &Licence) -> String {
    let id = &licence.id;
    match (licence.commercial, &licence.source) {
        (Some(false), _) => format!("{id}: NO COMMERCIAL USE"),
        (Some(true), Some(_)) => id.clone(),
        (Some(true), None) => format!("{id} (not verified)"),
        (None, _) if id == "unknown" => "unknown; see the model's page before you use it".into(),
        (None, _) => format!("{id}; see the model's page before you use it"),
    }
}

/// A line for each file that is to be fetched, and one for each licence.
pub fn about(files: &[(Option<&Entry>, &File)]) -> String {
    let mut text = String::new();
    for (_, file) in files {
        let size = Size::of([*file]);
        text.push_str(&format!("  {} ({size})\n", file.address));
    }
    let mut entries: Vec<&Entry> = files.iter().filter_map(|(entry, _)| *entry).collect();
    entries.dedup_by_key(|entry| &entry.name);
    for entry in entries {
        text.push_str(&format!("  {}: licence {}\n", entry.name, licence(&entry.licence)));
    }
    if files.iter().any(|(entry, _)| entry.is_none()) {
        text.push_str("  the licence of an address is not known here\n");
    }
    text
}

/// The hosts that files come from, on this endpoint.
pub fn hosts(files: &[(Option<&Entry>, &File)], endpoint: &str) -> String {
    let host = |file: &File| {
        let url = match &file.address {
            Address::Hub(_) => endpoint,
            Address::Url(url) | Address::Link(url) => url.as_str(),
        };
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        host.split('/').next().unwrap_or(host).to_string()
    };
    let mut hosts: Vec<String> = files.iter().map(|(_, file)| host(file)).collect();
    hosts.sort();
    hosts.dedup();
    hosts.join(", ")
}

/// Says what would be fetched and asks whether it may be; `--yes` is the answer where it is given.
///
/// # Errors
///
/// If the answer is no, or there is nobody to ask.
pub fn ask(files: &[(Option<&Entry>, &File)], endpoint: &str, yes: bool) -> Result<()> {
    let size = Size::of(files.iter().map(|(_, file)| *file));
    let (count, hosts) = (files.len(), hosts(files, endpoint));
    let what = format!("{count} file{} from {hosts}, {size}", if count == 1 { "" } else { "s" });
    let mut err = std::io::stderr();
    if yes {
        let _ = write!(err, "downloading {what}:\n{}", about(files));
        return Ok(());
    }
    let (stdin, is_seen) = (std::io::stdin(), err.is_terminal());
    if !stdin.is_terminal() || !is_seen {
        let addresses: Vec<String> = files.iter().map(|(_, f)| f.address.to_string()).collect();
        let warning: String = files
            .iter()
            .filter_map(|(entry, _)| *entry)
            .find(|entry| entry.licence.commercial == Some(false))
            .map(|entry| format!("; {}: licence {}", entry.name, licence(&entry.licence)))
            .unwrap_or_default();
        bail!("needs {what}: {}; --yes downloads them{warning}", addresses.join(", "));
    }
    let _ = write!(err, "This needs {what}:\n{}Download? [y/N] ", about(files));
    let _ = err.flush();
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was downloaded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype::catalogue::Catalogue;

    #[test]
    fn a_licence_is_said_before_a_download() {
        let mine = r#"{"models": [{"name": "mine", "title": "M", "kind": "network",
            "licence": {"id": "CC-BY-NC-4.0", "commercial": false},
            "files": [{"role": "network", "address": "https://example.org/m.pt", "bytes": 2048}]}]}"#;
        let catalogue = Catalogue::built_in().extended(mine, "models.json").expect("a catalogue");
        let entry = catalogue.find("mine").expect("it is there");
        let files: Vec<_> = entry.files.iter().map(|file| (Some(entry), file)).collect();
        assert_eq!(
            about(&files),
            "  https://example.org/m.pt (2.0 KiB)\n  mine: licence CC-BY-NC-4.0: NO COMMERCIAL USE\n"
        );
        assert_eq!(hosts(&files, "https://huggingface.co"), "example.org");
    }
}
