//! `tintype download`

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use tintype::catalogue::{Address, Entry, File, Hub, Role};
use tintype::generate::bytes;
use tintype_download::{DownloadError, Downloader, Listed, Listing};

use super::Outcome;
use super::interrupt::Interruptible;
use super::published::{DownloadArgs, Library, Watched, all_fetched, ask};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of published models (`tintype models`), each with the autoencoder, statistics and guide that it needs, or
    /// addresses: hub:OWNER/REPO/PATH[@REVISION], https://…
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    download: DownloadArgs,
    /// Print progress as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command. Files of a branch are asked for again; a newer one is fetched, once that is agreed to.
///
/// # Errors
///
/// If a name is unknown, the user does not agree, or a file cannot be fetched; files that can be are fetched all the
/// same.
pub fn run(args: Args) -> Result<Outcome> {
    let library = Library::of_process();
    let mut wanted: Vec<(Option<&Entry>, File)> = Vec::new();
    for name in &args.names {
        for (entry, file) in files(&library, name)? {
            if wanted.iter().all(|(_, other)| other.address != file.address) {
                wanted.push((entry, file));
            }
        }
    }
    let downloader = &library.downloader;
    let files: Vec<(Option<&Entry>, &File)> = wanted.iter().map(|(e, file)| (*e, file)).collect();
    for entry in files.iter().filter_map(|(entry, _)| *entry) {
        if !entry.is_supported() {
            let architecture = entry.architecture.as_deref().unwrap_or("its network");
            eprintln!("note: {}: this version does not have {architecture} yet", entry.name);
        }
    }
    for (_, file) in &files {
        if let Some(misfit) = downloader.misfit(file) {
            eprintln!("note: {misfit}, so it counts as missing");
        }
    }
    if let Some(line) = before_newer(downloader, &files) {
        eprintln!("{line}");
    }
    let to_come = to_come(downloader, &files, args.json)?;
    if !to_come.is_empty() && !downloader.environment().offline {
        ask(downloader, &to_come, args.download.yes)?;
    }
    let interruptible =
        Interruptible::begin("stopping; what has arrived is kept, run the same command to resume")?;
    let only: Vec<&File> = files.iter().map(|(_, file)| *file).collect();
    let watched = Watched::new(&only, args.json);
    let results = downloader.fetch_all(&only, &watched.watch(), interruptible.flag());
    watched.finish(&results);
    let told = files.iter().zip(results).map(|((entry, file), result)| {
        let what = entry.map_or_else(|| file.address.to_string(), |entry| entry.name.clone());
        if !args.json
            && let Ok(fetched) = &result
        {
            println!("{}", fetched.path.display());
        }
        (what, downloader.place(file), result)
    });
    all_fetched(told.collect())?;
    Ok(Outcome::Done)
}

/// The files that are missing, or of which a Hub has newer ones. Where it cannot be asked, what is here is taken, and
/// the download says why.
///
/// # Errors
///
/// [`DownloadError::Stopped`] if a signal ends the asking; afterwards one ends the program, also at a question.
fn to_come<'a>(
    downloader: &Downloader,
    files: &[(Option<&'a Entry>, &'a File)],
    json: bool,
) -> Result<Vec<(Option<&'a Entry>, &'a File)>> {
    let interruptible = Interruptible::begin("stopping")?;
    let stop = interruptible.flag();
    let asked = asked_again(downloader, files);
    let watched = Watched::new(&asked, json);
    let watch = watched.watch();
    let has_changed = |file: &File| {
        let index = asked.iter().position(|other| other.address == file.address);
        index.is_some_and(|index| {
            let newer = downloader.newer(file, &|state| watch(index, state), stop);
            newer.is_ok_and(|bytes| bytes.is_some())
        })
    };
    let is_to_come = |file: &File| downloader.find(file).is_none() || has_changed(file);
    let to_come = files.iter().filter(|(_, file)| is_to_come(file)).copied().collect();
    // No bar stays where a question is asked.
    watched.finish(&[]);
    match stop.load(Ordering::Relaxed) {
        true => Err(DownloadError::Stopped.into()),
        false => Ok(to_come),
    }
}

/// The files that are here and that a Hub is asked for again.
fn asked_again<'a>(
    downloader: &Downloader,
    files: &[(Option<&'a Entry>, &'a File)],
) -> Vec<&'a File> {
    let is_asked =
        |file: &&File| downloader.is_asked_again(file) && downloader.find(file).is_some();
    files.iter().map(|(_, file)| *file).filter(is_asked).collect()
}

/// The files that a name or an address means.
fn files<'a>(library: &'a Library, name: &str) -> Result<Vec<(Option<&'a Entry>, File)>> {
    if Address::is_meant(name) {
        return Ok(vec![(None, File::at(Role::Network, name.parse()?))]);
    }
    let entry = library.catalogue()?.find(name)?;
    let files = library.catalogue()?.files(entry);
    if files.is_empty() {
        bail!("{}: {}", entry.name, by_hand(library, entry));
    }
    Ok(files.into_iter().map(|(of, file)| (Some(of), file.clone())).collect())
}

/// What to do where the names of a model's files are not known: its repository is asked for them.
fn by_hand(library: &Library, entry: &Entry) -> String {
    let page = entry.page.as_deref().unwrap_or_default();
    let repository = page.split_once("huggingface.co/").map(|(_, repository)| repository);
    let address = repository.and_then(|repository| format!("hub:{repository}/-").parse().ok());
    let Some(Address::Hub(hub)) = address else { return entry.notes.join(" ") };
    if let Some(line) = before_listing(&library.downloader, &hub) {
        eprintln!("{line}");
    }
    match library.downloader.list(&hub, &AtomicBool::new(false)) {
        Ok(listing) => format!(
            "the catalogue does not know which of these files are the model's; name them:{}",
            lines(&listing)
        ),
        Err(error) => format!("{} ({error})", entry.notes.join(" ")),
    }
}

/// A line for each file of a repository, and one for those that cannot be fetched.
fn lines(listing: &Listing) -> String {
    let line = |file: &Listed| {
        let size = file.bytes.map_or(String::new(), |n| format!(" ({})", bytes(n)));
        format!("\n  {}{size}", file.address)
    };
    let mut lines: String = listing.files.iter().map(line).collect();
    if listing.left_out > 0 {
        lines +=
            &format!("\n  and {} whose names are not allowed on every system", listing.left_out);
    }
    lines
}

/// What is said before a Hub is asked whether files that are here have changed; `None` where it is not asked.
fn before_newer(downloader: &Downloader, files: &[(Option<&Entry>, &File)]) -> Option<String> {
    let asked = asked_again(downloader, files);
    let host = downloader.host(asked.first()?);
    let addresses: Vec<String> = asked.iter().map(|file| file.address.to_string()).collect();
    Some(format!("asking {host} whether these have changed: {}", addresses.join(", ")))
}

/// What is said before a Hub is asked for the files of a repository; `None` where it is not asked.
fn before_listing(downloader: &Downloader, of: &Hub) -> Option<String> {
    let host = downloader.host(&File::at(Role::Network, Address::Hub(of.clone())));
    let line = format!("asking {host} which files {} has", of.repository);
    (!downloader.environment().offline).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tintype_download::Environment;

    const COMMIT: &str = "1111111111111111111111111111111111111111";

    #[test]
    fn a_hub_is_named_before_it_is_asked() {
        let cache = tempfile::tempdir().expect("a folder");
        let repository = cache.path().join("models--maker--model");
        let snapshot = repository.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(repository.join("refs")).expect("a folder");
        std::fs::create_dir_all(&snapshot).expect("a folder");
        std::fs::write(repository.join("refs/main"), COMMIT).expect("a ref");
        std::fs::write(snapshot.join("here.bin"), "weights").expect("a file");
        let downloader = |offline: &str| {
            Downloader::new(Environment::of(|name| match name {
                "HF_ENDPOINT" => Some("https://hub.example".into()),
                "HF_HUB_CACHE" => Some(cache.path().into()),
                "HF_HUB_OFFLINE" => Some(offline.into()),
                _ => None,
            }))
        };
        let at = |address: &str| File::at(Role::Network, address.parse().expect("an address"));
        let here = at("hub:maker/model/here.bin");
        let others = [
            at("hub:maker/model/missing.bin"),
            at(&format!("hub:maker/model/here.bin@{COMMIT}")),
            at("https://files.example/x.pt"),
        ];
        let mut files: Vec<(Option<&Entry>, &File)> =
            others.iter().map(|file| (None, file)).collect();
        assert_eq!(before_newer(&downloader("0"), &files), None, "there is nothing to ask for");
        files.push((None, &here));
        let line = "asking hub.example whether these have changed: hub:maker/model/here.bin";
        assert_eq!(before_newer(&downloader("0"), &files).as_deref(), Some(line));
        assert_eq!(before_newer(&downloader("1"), &files), None, "no request may be made");
        let Address::Hub(hub) = &here.address else { panic!("a Hub's") };
        let line = "asking hub.example which files maker/model has";
        assert_eq!(before_listing(&downloader("0"), hub).as_deref(), Some(line));
        assert_eq!(before_listing(&downloader("1"), hub), None);
    }

    #[test]
    fn a_listing_counts_what_it_leaves_out() {
        let address = "hub:maker/model/a.bin".parse().expect("an address");
        let files = vec![Listed { address, bytes: Some(2048) }];
        let listing = Listing { files, left_out: 0 };
        assert_eq!(lines(&listing), "\n  hub:maker/model/a.bin (2.0 KiB)");
        let said = lines(&Listing { left_out: 2, ..listing });
        assert!(said.ends_with("\n  and 2 whose names are not allowed on every system"), "{said}");
    }
}
