//! `tintype models`

mod table;

use std::io::Write;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tintype::catalogue::{Catalogue, Entry, File, Kind, Size};
use tintype::generate::bytes;
use tintype::labels::printable;
use tintype_download::Presence;

use super::published::{Library, agreed};
use super::terminal::{shown, shown_json};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Words to search for (name, title, architecture, licence, size), or the name of one model, which shows all
    /// that is known of it
    #[arg(value_name = "SEARCH")]
    search: Vec<String>,
    /// Remove the files of these models from this machine, in all versions: those of a Hub are in the cache that
    /// Python's programs use, too. What other models need besides stays
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["search", "json", "markdown"])]
    remove: Vec<String>,
    /// Remove without asking
    #[arg(long, requires = "remove")]
    yes: bool,
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
    let library = Library::of_process();
    if !args.remove.is_empty() {
        return remove(&library, &args.remove, args.yes);
    }
    let search = args.search.join(" ");
    let mut out = std::io::stdout().lock();
    let catalogue = library.catalogue()?;
    let one = catalogue.get(&search.trim().to_lowercase());
    let found = one.map_or_else(|| catalogue.search(&search), |entry| vec![entry]);
    if found.is_empty() {
        match catalogue.find(&search) {
            Err(error) => bail!(error),
            Ok(_) => bail!("nothing is found"),
        }
    }
    if args.json {
        let list: Vec<Value> =
            found.iter().map(|entry| described(&library, catalogue, entry)).collect();
        writeln!(out, "{}", shown_json(&Value::Array(list).to_string()))?;
    } else if args.markdown {
        write!(out, "{}", shown(&table::markdown(catalogue, &found)))?;
    } else if let Some(entry) = one {
        write!(out, "{}", shown(&details(&library, catalogue, entry)))?;
    } else {
        write!(out, "{}", shown(&listing(&library, catalogue, &found)))?;
    }
    Ok(())
}

/// An entry and what is on this machine, for programs.
fn described(library: &Library, catalogue: &Catalogue, entry: &Entry) -> Value {
    let files: Vec<Value> = catalogue
        .files(entry)
        .into_iter()
        .map(|(of, file)| {
            // A path need not be Unicode, but JSON is.
            let path = library.downloader.find(file).map(|path| path.display().to_string());
            json!({"of": of.name, "role": file.role, "address": file.address,
                   "bytes": file.bytes, "about_bytes": file.about_bytes, "sha256": file.sha256,
                   "verified": file.verified(), "path": path})
        })
        .collect();
    let mut value = json!(entry);
    if let Some(value) = value.as_object_mut() {
        value.insert("supported".into(), entry.is_supported().into());
        value.insert("here".into(), (presence(library, catalogue, entry) == Presence::Here).into());
        value.insert("files".into(), files.into());
    }
    value
}

fn presence(library: &Library, catalogue: &Catalogue, entry: &Entry) -> Presence {
    library.downloader.presence(catalogue, entry)
}

/// What has been verified of all of an entry's own files.
fn verified_of(entry: &Entry) -> String {
    let Some(first) = entry.files.first() else { return "nothing".into() };
    let rest = &entry.files[1..];
    let of_all = |what: &&str| rest.iter().all(|file| file.verified().contains(what));
    let of_all: Vec<&str> = first.verified().into_iter().filter(of_all).collect();
    if of_all.is_empty() { "nothing".into() } else { of_all.join(", ") }
}

/// Lines of entries, by kind.
fn listing(library: &Library, catalogue: &Catalogue, found: &[&Entry]) -> String {
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
            "{heading:<width$}  {:<11} {:>18}  {:>5}  {:<22} {}\n",
            "on disk", "size", "FID", "licence", "verified"
        ));
        for entry in of_kind {
            let here = match presence(library, catalogue, entry) {
                Presence::Here => "yes",
                Presence::Partly => "partly",
                Presence::Missing if !entry.is_supported() => "unsupported",
                Presence::Missing => "no",
            };
            let fid = entry.fid().map_or("-".into(), |fid| format!("{fid:.2}"));
            let size = match entry.files.is_empty() {
                true => "by hand".into(),
                false => catalogue.size(entry).to_string(),
            };
            text.push_str(&format!(
                "{:<width$}  {here:<11} {size:>18}  {fid:>5}  {:<22} {}\n",
                entry.name,
                entry.licence.summary(),
                verified_of(entry)
            ));
        }
        text.push('\n');
    }
    text.push_str(
        "size: with autoencoder, statistics and guide. FID: as published, guided.\n\
         Names, sizes and digests are verified where another source than the download states them.\n\
         `tintype models NAME` shows all that is known of a model, `tintype download NAME` fetches it.\n",
    );
    text
}

/// All that is known of an entry.
fn details(library: &Library, catalogue: &Catalogue, entry: &Entry) -> String {
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
    line("parameters", entry.parameters().map_or(String::new(), table::millions));
    let source = entry.licence.source.as_ref();
    let source = source.map_or("not verified".into(), |source| format!("by {source}"));
    line("licence", format!("{} ({source})", entry.licence.id));
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
    for (of, file) in catalogue.files(entry) {
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

/// Removes the files of entries; those of the entries that they need, and what others list, too, stay.
fn remove(library: &Library, names: &[String], yes: bool) -> Result<()> {
    let (catalogue, downloader) = (library.catalogue()?, &library.downloader);
    let entries: Vec<&Entry> =
        names.iter().map(|name| catalogue.find(name)).collect::<Result<_, _>>()?;
    let is_removed = |other: &Entry| entries.iter().any(|entry| entry.name == other.name);
    let others = || catalogue.entries().iter().filter(|other| !is_removed(other));
    let shared_by = |file: &File| {
        let place = downloader.place(file);
        let has = |other: &&Entry| other.files.iter().any(|f| downloader.place(f) == place);
        others().find(has)
    };
    let files = || entries.iter().flat_map(|entry| &entry.files);
    let here: Vec<String> = files()
        .filter(|file| shared_by(file).is_none())
        .filter_map(|file| Some(downloader.find(file)?.display().to_string()))
        .collect();
    if !yes && !here.is_empty() {
        let question = format!("This removes:\n  {}\nRemove?", here.join("\n  "));
        match agreed(&question)? {
            Some(true) => {}
            Some(false) => bail!("nothing was removed"),
            None => bail!("this removes {}; --yes does it", here.join(", ")),
        }
    }
    for entry in &entries {
        let (mut freed, mut kept) = (0, String::new());
        for file in &entry.files {
            match shared_by(file) {
                Some(other) => {
                    kept.push_str(&format!("; {} is of {}, too", file.name(), other.name))
                }
                None => freed += downloader.remove(file)?,
            }
        }
        let needs_it = |other: &&Entry| {
            other.needs.contains(&entry.name)
                && presence(library, catalogue, other) == Presence::Partly
        };
        let users: Vec<&str> = others().filter(needs_it).map(|other| other.name.as_str()).collect();
        let needed = match users.as_slice() {
            [] => String::new(),
            users => format!("; needed by {}", users.join(", ")),
        };
        println!("{}: {} removed{kept}{needed}", entry.name, bytes(freed));
    }
    Ok(())
}
