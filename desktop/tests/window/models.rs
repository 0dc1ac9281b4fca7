//! The browser of published models: found, downloaded, opened, paused and removed.

use std::path::{Path, PathBuf};

use eframe::egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;
use serde_json::{Value, json};
use tintype_desktop::action::{Action, View};
use tintype_desktop::browser::Phase;

use super::bench::{Bench, environment, settings, sized};
use super::people::generate;
use super::server::Server;

/// The files of the emoji model.
const FILES: [(&str, &str); 2] =
    [("network", "hidit.safetensors"), ("autoencoder", "vae-decoder.safetensors")];

fn emoji(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    std::fs::read(folder.join(file)).expect("it is in the repository")
}

/// Serves the emoji model, so many bytes of it at first.
fn server(allowed: usize) -> Server {
    Server::start(FILES.map(|(_, file)| (file, emoji(file))).into(), allowed)
}

/// A catalogue in which the emoji model is on a server.
fn catalogue(server: &Server) -> Value {
    let file = |(role, name): (&str, &str)| {
        let address = format!("http://{}/{name}", server.host);
        json!({"role": role, "address": address, "bytes": emoji(name).len()})
    };
    json!({"models": [{
        "name": "served", "title": "Emoji, served", "kind": "network", "architecture": "Hi-DiT",
        "image_size": 128, "classes": 41,
        "licence": {"id": "Apache-2.0", "commercial": true, "source": "the file"},
        "files": FILES.map(file),
        "sampling": {
            "sampler": "euler-maruyama", "steps": 3,
            "guidance": {"scale": 2.0, "low": 0.0, "high": 1.0, "channels": null},
        },
        "results": [{"fid": 12.5, "guided": true}],
    }, {
        "name": "of-tomorrow", "title": "Of tomorrow", "kind": "network", "architecture": "None yet",
        "licence": {"id": "MIT", "commercial": true},
        "files": [{"role": "network", "address": "https://example.org/tomorrow.pt"}],
    }]})
}

/// Settings with which models have those of their authors.
fn plain() -> Value {
    json!({"choice": {"device": "cpu"}, "form": settings(1)["form"].clone()})
}

/// A window that shows the browser of a catalogue.
fn bench(catalogue: &Value, is_offline: bool) -> Bench {
    let mut bench = Bench::built(&plain(), sized([1180.0, 780.0]), |start| {
        let own = start.preferences.with_file_name("models.json");
        std::fs::write(own, catalogue.to_string()).expect("written");
        if let Some(environment) = &mut start.environment {
            environment.offline = is_offline;
        }
    });
    show(&mut bench);
    bench
}

/// Opens the browser and waits until it has looked what is here.
fn show(bench: &mut Bench) {
    click(bench, "Models…");
    bench.until("looked for", |app| app.browser().cards().iter().all(|c| c.status.is_some()));
    assert_eq!(bench.harness.state().view(), View::Models);
}

fn click(bench: &mut Bench, name: &str) {
    bench.harness.get_by_label(name).click();
    bench.harness.step();
    bench.harness.step();
}

/// The button that downloads the served model.
fn question(server: &Server) -> String {
    format!("Download 30.8 MiB from {}: Emoji, served", server.host)
}

fn phase(bench: &Bench) -> Option<Phase> {
    bench.harness.state().browser().fetch("served").map(|fetch| fetch.phase.clone())
}

/// The network's file, once it is open.
fn open_file(bench: &Bench) -> Option<PathBuf> {
    bench.harness.state().model()?.paths.model.clone()
}

#[test]
fn the_browser_opens_searches_and_closes() {
    let server = server(0);
    let mut bench = bench(&catalogue(&server), false);
    for label in ["To download", "Emoji, served", "41 classes, 128², FID 12.5", "Of tomorrow"] {
        bench.harness.get_by_label(label);
    }
    let later = bench.harness.query_all_by_label("It needs a later version of Tintype.");
    assert_eq!(later.count(), 1, "the one of tomorrow");
    assert!(bench.harness.query_by_label("On this machine").is_none());
    // Letters go into the search.
    bench.harness.get_by_label("Search models").type_text("tomorrow");
    bench.harness.step();
    bench.harness.step();
    assert!(bench.harness.query_by_label("Emoji, served").is_none());
    bench.harness.get_by_label("Of tomorrow");
    bench.harness.get_by_label("Search models").type_text(" nonsense");
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("No model matches “tomorrow nonsense”.");
    // Escape empties the search, then closes the browser.
    for view in [View::Models, View::Develop] {
        bench.harness.key_press(Key::Escape);
        bench.harness.step();
        assert_eq!(bench.harness.state().view(), view);
    }
    bench.harness.key_press_modifiers(Modifiers::COMMAND, Key::Num3);
    bench.harness.step();
    bench.harness.step();
    bench.harness.get_by_label("Emoji, served");
    click(&mut bench, "Close");
    assert_eq!(bench.harness.state().view(), View::Develop);
    assert!(server.asked().is_empty(), "nothing was asked for: {:?}", server.asked());
}

/// Every card of the program's own catalogue, in letters that the fonts have and without a request.
#[test]
fn all_models_are_listed() {
    let mut bench = bench(&json!({"models": []}), false);
    let titles: Vec<String> =
        bench.harness.state().browser().cards().iter().map(|card| card.title.clone()).collect();
    assert!(titles.len() > 30);
    for title in &titles {
        bench.harness.get_by_label(title);
    }
    // One column in the smallest window.
    bench.harness.set_size([760.0, 480.0].into());
    bench.harness.run_steps(3);
    bench.harness.get_by_label(&titles[0]);
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

#[test]
fn one_click_downloads_and_opens_a_model() {
    let server = server(usize::MAX);
    let mut bench = bench(&catalogue(&server), false);
    click(&mut bench, &question(&server));
    bench.until("open", |app| app.model().is_some_and(|model| model.name == "Emoji, served"));
    let folder = bench.folder.path().to_path_buf();
    let file = open_file(&bench).expect("it has a file");
    assert!(file.starts_with(folder.join("cache")), "{}", file.display());
    assert_eq!(std::fs::read(&file).expect("it is there"), emoji("hidit.safetensors"));
    let app = bench.harness.state();
    assert_eq!(app.view(), View::Develop);
    assert_eq!(app.settings().map(|settings| settings.steps), Some(3), "as published");
    assert_eq!(app.preferences().choice.paths.model.as_ref(), Some(&file), "it is remembered");
    // Its classes are there, and it makes a picture.
    generate(&mut bench, "fruit");
    bench.until("a picture", |app| !app.gallery().entries().is_empty());
    bench.idle();
    // What is in use is not removed; what is not frees the disk, and asks first.
    show(&mut bench);
    bench.harness.get_by_label("On this machine");
    assert!(bench.harness.query_by_label("Remove…: Emoji, served").is_none());
    let ctx = bench.harness.ctx.clone();
    bench.harness.state_mut().act(Action::EmbeddedModel, &ctx);
    bench.harness.run_steps(2);
    click(&mut bench, "Remove…: Emoji, served");
    bench.harness.get_by_label("Remove 30.8 MiB from this machine?");
    click(&mut bench, "Keep: Emoji, served");
    assert!(file.exists());
    // What is here is opened without a request.
    let asked = server.asked().len();
    click(&mut bench, "Use: Emoji, served");
    bench.until("open", |app| app.model().is_some_and(|model| model.name == "Emoji, served"));
    bench.harness.state_mut().act(Action::EmbeddedModel, &ctx);
    show(&mut bench);
    click(&mut bench, "Remove…: Emoji, served");
    click(&mut bench, "Remove: Emoji, served");
    bench.until("removed", |app| !app.browser().is_removing("served"));
    assert!(!file.exists());
    bench.harness.get_by_label(&question(&server));
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn a_download_pauses_and_goes_on() {
    let server = server(4 << 20);
    let mut bench = bench(&catalogue(&server), false);
    click(&mut bench, &question(&server));
    bench.until("on its way", |app| {
        app.browser().fetch("served").is_some_and(|fetch| fetch.progress.done() > 0)
    });
    bench.harness.get_by_label("Download: Emoji, served");
    click(&mut bench, "Pause: Emoji, served");
    assert!(matches!(phase(&bench), Some(Phase::Stopping | Phase::Paused)));
    // A download that waits for bytes notes it when they come.
    server.open();
    bench.until("paused", |app| {
        app.browser().fetch("served").is_some_and(|fetch| fetch.phase == Phase::Paused)
    });
    assert!(open_file(&bench).is_none());
    assert!(server.asked().iter().all(|(_, from)| *from == 0), "{:?}", server.asked());
    click(&mut bench, "Resume: Emoji, served");
    bench.until("open", |app| app.model().is_some_and(|model| model.name == "Emoji, served"));
    let went_on = server.asked().iter().any(|(_, from)| *from > 0);
    assert!(went_on, "what had arrived was kept: {:?}", server.asked());
    let file = open_file(&bench).expect("it has a file");
    assert_eq!(std::fs::read(file).expect("it is there"), emoji("hidit.safetensors"));
}

#[test]
fn a_download_that_a_closed_window_left_is_resumed() {
    let server = server(4 << 20);
    let mut bench = bench(&catalogue(&server), false);
    click(&mut bench, &question(&server));
    bench.until("on its way", |app| {
        app.browser().fetch("served").is_some_and(|fetch| fetch.progress.done() > 0)
    });
    click(&mut bench, "Pause: Emoji, served");
    server.open();
    bench.until("paused", |app| {
        app.browser().fetch("served").is_some_and(|fetch| fetch.phase == Phase::Paused)
    });
    let Bench { harness, folder } = bench;
    drop(harness);
    let mut later = Bench::built(&plain(), sized([1180.0, 780.0]), |start| {
        start.environment = Some(environment(folder.path()));
    });
    show(&mut later);
    assert!(later.harness.query_by_label(&question(&server)).is_none());
    later.harness.get_by_label("Remove…: Emoji, served");
    let asked = server.asked().len();
    later.harness.get_by_label_contains("Resume ").click();
    later.until("open", |app| app.model().is_some_and(|model| model.name == "Emoji, served"));
    let went_on = server.asked()[asked..].iter().any(|(_, from)| *from > 0);
    assert!(went_on, "what had arrived was kept: {:?}", server.asked());
    let file = open_file(&later).expect("it has a file");
    assert_eq!(std::fs::read(file).expect("it is there"), emoji("hidit.safetensors"));
}

#[test]
fn another_model_that_was_chosen_meanwhile_stays() {
    let server = server(4 << 20);
    let mut bench = bench(&catalogue(&server), false);
    click(&mut bench, &question(&server));
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji");
    let files = FILES.map(|(_, file)| models.join(file));
    bench.drop_files(&[&files[0], &files[1]]);
    bench.until("open", |app| app.model().is_some_and(|m| m.name == "hidit.safetensors"));
    server.open();
    bench.until("told", |app| !app.notices().shown().is_empty());
    assert_eq!(bench.notices(), ["Emoji, served is on this machine now."]);
    assert_eq!(open_file(&bench).as_ref(), Some(&files[0]));
    click(&mut bench, "Use it");
    bench.until("open", |app| app.model().is_some_and(|model| model.name == "Emoji, served"));
}

#[test]
fn nothing_is_downloaded_offline() {
    let server = server(usize::MAX);
    let mut bench = bench(&catalogue(&server), true);
    bench.harness.get_by_label("HF_HUB_OFFLINE is set: nothing is downloaded.");
    click(&mut bench, &question(&server));
    assert_eq!(phase(&bench), None);
    assert!(server.asked().is_empty());
}

#[test]
fn an_unclear_licence_is_said_first_and_a_failure_in_the_card() {
    let server = server(usize::MAX);
    let mut catalogue = catalogue(&server);
    let model = &mut catalogue["models"][0];
    model["licence"] = json!({"id": "CC-BY-NC-4.0", "commercial": false});
    model["files"][1]["address"] = json!(format!("http://{}/missing.safetensors", server.host));
    let mut bench = bench(&catalogue, false);
    let once = format!("Download 30.8 MiB from {}…: Emoji, served", server.host);
    for answer in ["Cancel: Emoji, served".to_string(), question(&server)] {
        click(&mut bench, &once);
        bench.harness.get_by_label_contains("licence CC-BY-NC-4.0: no commercial use");
        assert!(server.asked().is_empty());
        click(&mut bench, &answer);
    }
    bench.until("failed", |app| {
        let fetch = app.browser().fetch("served");
        fetch.is_some_and(|fetch| matches!(fetch.phase, Phase::Failed(_)))
    });
    bench.harness.get_by_label_contains("missing.safetensors");
    bench.harness.get_by_label("Retry: Emoji, served");
    assert!(bench.notices().is_empty(), "{:?}", bench.notices());
}

/// As their authors publish them: k-diffusion's training checkpoint, and REPA's network on an autoencoder of diffusers,
/// with a file of statistics.
#[test]
fn checkpoints_open_as_their_authors_nest_them() {
    let case = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/cases");
        std::fs::read(folder.join(name)).expect("it is in the repository")
    };
    const PTH: &str = "kdiffusion.pth";
    const SIT: &str = "repa-sit.safetensors";
    const VAE: &str = "diffusers-vae.safetensors";
    const STATS: &str = "sd-vae-latents-stats.safetensors";
    let server =
        Server::start([PTH, SIT, VAE, STATS].map(|name| (name, case(name))).into(), usize::MAX);
    let entry = |title: &str, architecture: &str, files: &[(&str, &str)]| {
        let file = |&(role, name): &(&str, &str)| {
            let address = format!("http://{}/{name}", server.host);
            json!({"role": role, "address": address, "bytes": case(name).len()})
        };
        let files: Vec<Value> = files.iter().map(file).collect();
        json!({"name": title.to_lowercase(), "title": title, "kind": "network", "files": files,
               "architecture": architecture, "licence": {"id": "MIT", "commercial": true}})
    };
    let latent = [("network", SIT), ("autoencoder", VAE), ("statistics", STATS)];
    let models = [entry("Pixels", "HDiT", &[("network", PTH)]), entry("Latents", "SiT", &latent)];
    let mut bench = bench(&json!({"models": models}), false);
    let latents = [SIT, VAE, STATS].map(|name| case(name).len()).iter().sum();
    for (title, size) in [("Pixels", case(PTH).len()), ("Latents", latents)] {
        let ctx = bench.harness.ctx.clone();
        bench.harness.state_mut().act(Action::Show(View::Models), &ctx);
        bench.until("looked for", |app| app.browser().cards().iter().all(|c| c.status.is_some()));
        let size = tintype::generate::bytes(size as u64);
        click(&mut bench, &format!("Download {size} from {}: {title}", server.host));
        bench.until("open", |app| app.model().is_some_and(|model| model.name == title));
        generate(&mut bench, "3");
        bench.idle();
    }
    bench.until("pictures", |app| app.gallery().entries().len() == 2);
    let told =
        ["Pixels", "Latents"].map(|title| format!("{title} is on this machine now, and open."));
    assert_eq!(bench.notices(), told);
}
