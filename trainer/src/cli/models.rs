//! `tintype models`

mod table;

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tintype::catalogue::{Entry, File, Kind, Licence, Size};
use tintype::generate::bytes;
use tintype::labels::printable;
use tintype_download::Presence;

use super::published::Library;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Words to search for (name, title, architecture, licence, size), or the name of one model, which shows all
    /// that is known of it
    #[arg(value_name = "SEARCH")]
    search: Vec<String>,
    /// Remove the files of these models from this machine
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["search", "json", "markdown"])]
    remove: Vec<String>,
    /// Print networks as a Markdown table
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command. Makes no request.
///
/// # Errors
///
/// If the user's own catalogue cannot be read, nothing is found, a file cannot be removed, or standard output cannot
/// be written.
pub fn run(args: Args) -> Result<()> {
    let library = Library::open()?;
    if !args.remove.is_empty() {
        return remove(&library, &args.remove);
    }
    let search = args.search.join(" ");
    let mut out = std::io::stdout().lock();
    let one = library.catalogue.get(search.trim());
    let found = one.map_or_else(|| library.catalogue.search(&search), |entry| vec![entry]);
    if found.is_empty() {
        match library.catalogue.find(&search) {
            Err(error) => bail!(error),
            Ok(_) => bail!("nothing is found"),
        }
    }
    if args.json {
        let list: Vec<Value> = found.iter().map(|entry| described(&library, entry)).collect();
        writeln!(out, "{}", Value::Array(list))?;
    } else if args.markdown {
        write!(out, "{}", table::markdown(&library.catalogue, &found))?;
    } else if let Some(entry) = one {
        write!(out, "{}", details(&library, entry))?;
    } else {
        write!(out, "{}", listing(&library, &found))?;
    }
    Ok(())
}

/// An entry and what is on this machine, for programs.
fn described(library: &Library, entry: &Entry) -> Value {
    let files: Vec<Value> = library
        .catalogue
        .files(entry)
        .into_iter()
        .map(|(of, file)| {
            json!({"of": of.name, "role": file.role, "address": file.address,
                   "bytes": file.bytes, "about_bytes": file.about_bytes, "sha256": file.sha256,
                   "verified": verified(file), "path": library.downloader.find(file)})
        })
        .collect();
    let mut value = json!(entry);
    if let Some(value) = value.as_object_mut() {
        value.insert("supported".into(), entry.is_supported().into());
        value.insert("here".into(), (presence(library, entry) == Presence::Here).into());
        value.insert("files".into(), files.into());
    }
    value
}

fn presence(library: &Library, entry: &Entry) -> Presence {
    library.downloader.presence(&library.catalogue, entry)
}

/// What of a file has been verified.
fn verified(file: &File) -> Vec<&'static str> {
    let sources = &file.sources;
    let parts = [(&sources.name, "name"), (&sources.bytes, "size"), (&sources.sha256, "SHA-256")];
    parts.into_iter().filter_map(|(source, what)| source.as_ref().map(|_| what)).collect()
}

/// What has been verified of all of an entry's own files.
fn verified_of(entry: &Entry) -> String {
    let Some(first) = entry.files.first() else { return "nothing".into() };
    let rest = &entry.files[1..];
    let of_all = |what: &&str| rest.iter().all(|file| verified(file).contains(what));
    let of_all: Vec<&str> = verified(first).into_iter().filter(of_all).collect();
    if of_all.is_empty() { "nothing".into() } else { of_all.join(", ") }
}

fn licence(licence: &Licence) -> String {
    match (licence.commercial, &licence.source) {
        (Some(false), _) => format!("{} (no commercial use)", licence.id),
        (_, Some(_)) => licence.id.clone(),
        (_, None) if licence.id == "unknown" => "unknown".into(),
        (_, None) => format!("{}?", licence.id),
    }
}

/// Lines of entries, by kind.
fn listing(library: &Library, found: &[&Entry]) -> String {
    let headings = [
        (Kind::Network, "Networks"),
        (Kind::Autoencoder, "Autoencoders"),
        (Kind::FeatureExtractor, "Feature extractors and teachers"),
        (Kind::Reference, "References of evaluation"),
        (Kind::Dataset, "Data sets"),
    ];
    let names = found.iter().map(|entry| entry.name.len());
    let width = names.chain(headings.map(|(_, heading)| heading.len())).max().unwrap_or(0);
    let mut text = String::new();
    for (kind, heading) in headings {
        let of_kind: Vec<&&Entry> = found.iter().filter(|entry| entry.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        text.push_str(&format!(
            "{heading:<width$}  {:<11} {:>18}  {:>5}  {:<14} {}\n",
            "on disk", "size", "FID", "licence", "verified"
        ));
        for entry in of_kind {
            let here = match presence(library, entry) {
                Presence::Here => "yes",
                Presence::Partly => "partly",
                Presence::Missing if !entry.is_supported() => "unsupported",
                Presence::Missing => "no",
            };
            let fid = entry.fid().map_or("-".into(), |fid| format!("{fid:.2}"));
            let size = library.catalogue.size(entry).to_string();
            text.push_str(&format!(
                "{:<width$}  {here:<11} {size:>18}  {fid:>5}  {:<14} {}\n",
                entry.name,
                licence(&entry.licence),
                verified_of(entry)
            ));
        }
        text.push('\n');
    }
    text.push_str(
        "size: with autoencoder and statistics. FID: as published, guided. A licence with ? has not been\n\
         verified. Names, sizes and digests are verified where another source than the download states them.\n\
         `tintype models NAME` shows all that is known of a model, `tintype download NAME` fetches it.\n",
    );
    text
}

/// All that is known of an entry.
fn details(library: &Library, entry: &Entry) -> String {
    let mut text = format!("{}\n{} ({})\n", printable(&entry.title), entry.name, entry.kind.name());
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{key:<10} {}\n", printable(&value)));
        }
    };
    let support = if entry.is_supported() { "" } else { ", which this version does not have yet" };
    line("network", entry.architecture.as_ref().map_or(String::new(), |a| format!("{a}{support}")));
    line("images", entry.image_size.map_or(String::new(), |side| format!("{side} × {side}")));
    line("classes", entry.classes.map_or(String::new(), |n| n.to_string()));
    line("parameters", entry.parameters().map_or(String::new(), |n| n.to_string()));
    let source = entry.licence.source.as_ref();
    let source = source.map_or("not verified".into(), |source| format!("by {source}"));
    line("licence", format!("{} ({source})", licence(&entry.licence).trim_end_matches('?')));
    line("page", entry.page.clone().unwrap_or_default());
    for result in &entry.results {
        let how = if result.guided { "guided" } else { "without guidance" };
        let note = result.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        line("FID", format!("{} {how}{note}", result.fid));
    }
    if let Some(settings) = &entry.sampling {
        line(
            "settings",
            format!(
                "{}, {} steps, guidance scale {} between {} and {}{}{}",
                settings.sampler.name(),
                settings.steps,
                settings.guidance.scale,
                settings.guidance.low,
                settings.guidance.high,
                settings.guidance.channels.map_or(String::new(), |n| format!(", {n} channels")),
                if settings.shift == 0.0 {
                    String::new()
                } else {
                    format!(", time shift {}", settings.shift)
                },
            ),
        );
    }
    for (of, file) in library.catalogue.files(entry) {
        let of = if of.name == entry.name { String::new() } else { format!(" ({})", of.name) };
        line("file", format!("{}{of}", file.address));
        let size = Size::of([file]);
        let digest =
            file.sha256.as_ref().map_or("no SHA-256 pinned".into(), |d| format!("SHA-256 {d}"));
        line("", format!("  {size}, {digest}"));
        let sources = &file.sources;
        let by = |what: &str, source: &Option<String>| {
            source.as_ref().map(|source| format!("{what} by {source}"))
        };
        let known =
            [by("name", &sources.name), by("size", &sources.bytes), by("SHA-256", &sources.sha256)];
        let known: Vec<String> = known.into_iter().flatten().collect();
        let known = if known.is_empty() { "nothing".into() } else { known.join("; ") };
        line("", format!("  verified: {known}"));
        let here = library.downloader.find(file).map(|path| path.display().to_string());
        line("", format!("  on disk: {}", here.unwrap_or_else(|| "no".into())));
    }
    for note in &entry.notes {
        line("note", note.clone());
    }
    text
}

/// Removes the files of entries; those of the entries that they need stay.
fn remove(library: &Library, names: &[String]) -> Result<()> {
    let entries: Vec<&Entry> =
        names.iter().map(|name| library.catalogue.find(name)).collect::<Result<_, _>>()?;
    for entry in entries {
        let mut freed = 0;
        for file in &entry.files {
            freed += library.downloader.remove(file)?;
        }
        let users: Vec<&str> = library
            .catalogue
            .entries()
            .iter()
            .filter(|other| other.needs.contains(&entry.name))
            .filter(|other| presence(library, other) == Presence::Partly)
            .map(|other| other.name.as_str())
            .collect();
        let needed = match users.as_slice() {
            [] => String::new(),
            users => format!("; {} needs it", users.join(", ")),
        };
        println!("{}: {} removed{needed}", entry.name, bytes(freed));
    }
    Ok(())
}
