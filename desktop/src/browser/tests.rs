//! What the browser knows, without a window and without a network.

use super::*;
use tintype::catalogue::Catalogue;
use tintype_download::{Downloader, Environment, State};

/// Two networks that share an autoencoder, and a network of a later version.
const MODELS: &str = r#"{"models": [
    {"name": "new", "title": "Of tomorrow", "kind": "network", "architecture": "None yet",
     "licence": {"id": "MIT", "commercial": true},
     "files": [{"role": "network", "address": "https://example.org/new.pt"}]},
    {"name": "decoder", "title": "Decoder", "kind": "autoencoder",
     "licence": {"id": "MIT", "commercial": true},
     "files": [{"role": "autoencoder", "address": "https://example.org/decoder.pt", "bytes": 7}]},
    {"name": "unnamed", "title": "Unnamed", "kind": "network", "architecture": "SiT",
     "licence": {"id": "unknown"}, "page": "https://example.org", "notes": ["No names."]},
    {"name": "first", "title": "First", "kind": "network", "architecture": "SiT",
     "licence": {"id": "MIT", "commercial": true}, "needs": ["decoder"],
     "files": [{"role": "network", "address": "https://example.org/first.pt", "bytes": 5}]},
    {"name": "second", "title": "Second", "kind": "network", "architecture": "SiT",
     "licence": {"id": "CC-BY-NC-4.0", "commercial": false}, "needs": ["decoder"],
     "files": [{"role": "network", "address": "https://example.org/second.pt", "bytes": 6}]}]}"#;

fn browser(folder: &std::path::Path) -> Browser {
    let of = ["HF_HOME", "TINTYPE_CACHE"];
    let environment = Environment::of(|name| of.contains(&name).then(|| folder.into()));
    let catalogue = Catalogue::built_in().extended(MODELS, "models.json").expect("a catalogue");
    let library = Library { catalogue, downloader: Downloader::new(environment) };
    Browser::new(Arc::new(library), egui::Context::default())
}

/// Puts the file of a model where a download would.
fn bring(browser: &mut Browser, name: &str, bytes: &[u8]) {
    let library = browser.library.clone();
    let entry = library.catalogue.get(name).expect(name);
    let path = library.downloader.place(&entry.files[0]);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, bytes).expect("written");
    browser.take_in(Event::Stocked(library.statuses()), Instant::now());
}

/// Names in a section, of those that are not in the program's own catalogue.
fn names(browser: &Browser, section: Section) -> Vec<&str> {
    let sections = browser.sections();
    let (_, places) = sections.iter().find(|(of, _)| *of == section).expect("a section");
    let cards = places.iter().map(|at| &browser.cards()[*at]);
    let is_own = |card: &&Card| Catalogue::built_in().get(&card.name).is_none();
    cards.filter(is_own).map(|card| card.name.as_str()).collect()
}

#[test]
fn what_is_here_comes_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = browser(folder.path());
    let to_download = ["first", "second", "unnamed", "decoder"];
    assert_eq!(names(&browser, Section::ToDownload), to_download);
    assert_eq!(names(&browser, Section::Unsupported), ["new"]);
    bring(&mut browser, "first", b"first");
    assert!(names(&browser, Section::Here).is_empty(), "its autoencoder is missing");
    let question = browser.card("first").and_then(|card| Some(card.status.as_ref()?.question()));
    assert_eq!(question.as_deref(), Some("Download 0.0 KiB from example.org"));
    bring(&mut browser, "decoder", b"decoder");
    assert_eq!(names(&browser, Section::Here), ["first", "decoder"]);
    let status = browser.card("first").and_then(|card| card.status.clone()).expect("looked for");
    assert_eq!((status.bytes, status.files.len()), (5, 1));
    assert!(status.paths.model.is_some() && status.paths.vae.is_some());
    // The autoencoder is in use by a model that was opened with it.
    assert!(browser.card("decoder").is_some_and(|card| card.is_of(&status.paths)));
    assert!(browser.card("second").is_some_and(|card| !card.is_of(&status.paths)));
    let network = status.paths.model.as_deref().and_then(|path| browser.library.entry_of(path));
    assert_eq!(network.map(|entry| entry.name.as_str()), Some("first"));
}

#[test]
fn searching_filters_every_section() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = browser(folder.path());
    browser.type_text("cc-by-nc");
    assert_eq!(names(&browser, Section::ToDownload), ["second"]);
    assert!(names(&browser, Section::Unsupported).is_empty());
    browser.ask(Some(Question::Remove("second".into())));
    assert!(browser.step_back() && browser.question.is_none(), "the question is taken back first");
    assert!(browser.step_back() && browser.query.is_empty());
    assert!(!browser.step_back());
}

#[test]
fn a_download_runs_pauses_fails_and_completes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = browser(folder.path());
    let now = Instant::now();
    let (name, beside) = ("first".to_string(), ModelPaths::default());
    browser.fetches.insert(name.clone(), Fetch::new(beside));
    assert_eq!(browser.summary().as_deref(), Some("0.0 KiB"));
    browser.take_in(Event::Begun { name: name.clone(), sizes: vec![Some(5), Some(7)] }, now);
    let state = State::Receiving { done: 3, total: Some(5) };
    browser.take_in(Event::State { name: name.clone(), file: 0, state }, now);
    assert_eq!(browser.summary().as_deref(), Some("25 %"));
    browser.pause("first");
    let fetch = browser.fetch("first").expect("it is there");
    assert_eq!(fetch.phase, Phase::Stopping);
    assert!(fetch.stop.load(std::sync::atomic::Ordering::Relaxed));
    browser.take_in(Event::Ended { name: name.clone(), ending: Ending::Stopped }, now);
    assert_eq!(browser.fetch("first").map(|fetch| &fetch.phase), Some(&Phase::Paused));
    assert_eq!(browser.summary(), None);
    let failed = Ending::Failed("it broke".into());
    let news = browser.take_in(Event::Ended { name: name.clone(), ending: failed }, now);
    assert!(matches!(news, Some(News::Failed { trouble, .. }) if trouble == "it broke"));
    let news = browser.take_in(Event::Ended { name, ending: Ending::Complete }, now);
    assert!(matches!(news, Some(News::Complete { .. })));
    assert!(browser.fetch("first").is_none());
}

#[test]
fn removing_frees_the_models_own_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = browser(folder.path());
    bring(&mut browser, "first", b"first");
    bring(&mut browser, "decoder", b"decoder");
    browser.remove("first");
    let started = Instant::now();
    let news = loop {
        let news = browser.update(Instant::now());
        if !news.is_empty() {
            break news;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is removed");
        std::thread::sleep(Duration::from_millis(2));
    };
    let [News::Removed { name, bytes: 5 }] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!(name, "first");
    assert_eq!(names(&browser, Section::Here), ["decoder"]);
}
