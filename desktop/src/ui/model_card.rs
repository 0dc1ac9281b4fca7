//! A published model: what is known of it, and what can be done with it.

use std::time::Instant;

use eframe::egui::{self, RichText};
use tintype::catalogue::Kind;
use tintype::generate::bytes;
use tintype_download::Presence;

use crate::action::Action;
use crate::app::App;
use crate::browser::{CacheStatus, Card, Fetch, Phase, Question, Section, memory_words};

pub(super) fn show(app: &App, card: &Card, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let mut frame = egui::Frame::group(ui.style()).inner_margin(10.0);
    if app.is_open(card) {
        frame = frame.stroke(egui::Stroke::new(2.0, ui.visuals().selection.bg_fill));
    }
    ui.push_id(&card.name, |ui| {
        frame.show(ui, |ui| {
            ui.set_min_width(ui.available_width());
            let is_supported = card.section() != Section::Unsupported;
            ui.add_enabled_ui(is_supported, |ui| facts(app, card, ui));
            for note in &card.notes {
                line(ui, RichText::new(note).weak().small());
            }
            page(card, ui, actions);
            if !is_supported {
                line(ui, RichText::new("It needs a later version of Tintype.").weak());
            }
            foot(app, card, ui, actions);
        });
    });
}

/// A text over the width of the card.
fn line(ui: &mut egui::Ui, text: RichText) -> egui::Response {
    ui.add(egui::Label::new(text).wrap())
}

/// What is known.
fn facts(app: &App, card: &Card, ui: &mut egui::Ui) {
    line(ui, RichText::new(&card.title).strong());
    line(ui, RichText::new(&card.name).monospace().weak());
    if !card.about.is_empty() {
        tipped(line(ui, RichText::new(&card.about)), &card.results);
    }
    let size = if card.has_files { format!("{}, ", card.size) } else { String::new() };
    tipped(line(ui, format!("{size}{}", card.licence).into()), &card.licence_source);
    if card.kind == Kind::Network {
        let needed = card.memory(app.preferences.choice.precision);
        let (words, fits) = memory_words(needed, app.device_memory());
        let text = RichText::new(words);
        let text = if fits { text.weak() } else { text.color(ui.visuals().warn_fg_color) };
        line(ui, text).on_hover_text(
            "Weights of the network in the chosen precision, and its autoencoder's file; choose \
             device and precision on the right",
        );
    }
    if card.has_files {
        tipped(line(ui, RichText::new(&card.verified).weak()), &card.sources);
    }
}

/// The link to the page that describes it.
fn page(card: &Card, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let Some(page) = &card.page else { return };
    let link = ui.link("Page");
    link.widget_info(|| {
        let name = format!("Page: {}", card.title);
        egui::WidgetInfo::labeled(egui::accesskit::Role::Link, true, name)
    });
    if link.on_hover_text(page).clicked() {
        actions.push(Action::OpenPage(page.clone()));
    }
}

fn tipped(response: egui::Response, tip: &str) {
    if !tip.is_empty() {
        response.on_hover_text(tip);
    }
}

/// A button, whose spoken name also tells of which model it is.
fn button(ui: &mut egui::Ui, card: &Card, is_enabled: bool, text: &str, tip: &str) -> bool {
    let button = ui.add_enabled(is_enabled, egui::Button::new(text).wrap());
    button.widget_info(|| {
        let name = format!("{text}: {}", card.title);
        egui::WidgetInfo::labeled(egui::accesskit::Role::Button, is_enabled, name)
    });
    button.on_hover_text(tip).on_disabled_hover_text(tip).clicked()
}

/// What can be done, and what is being done.
fn foot(app: &App, card: &Card, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let Some(status) = &card.status else { return };
    if app.browser.is_removing(&card.name) {
        line(ui, RichText::new("Removing…").weak());
        return;
    }
    let is_asked = |question: &Question| app.browser.question.as_ref() == Some(question);
    if is_asked(&Question::Remove(card.name.clone())) {
        ask_to_remove(card, status, ui, actions);
    } else if is_asked(&Question::Fetch(card.name.clone())) {
        ask_for_licence(app, card, status, ui, actions);
    } else if let Some(fetch) = app.browser.fetch(&card.name) {
        fetching(app, card, fetch, ui, actions);
    } else {
        offer(app, card, status, ui, actions);
    }
}

/// A model that nothing is being done with.
fn offer(
    app: &App,
    card: &Card,
    status: &CacheStatus,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let is_here = status.bytes > 0 || card.section() == Section::Here;
    let can_be = card.section() == Section::ToDownload && card.has_files;
    if !is_here && !can_be {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        match card.section() {
            Section::Here if app.is_open(card) => {
                ui.label(RichText::new("in use").weak());
            }
            Section::Here => {
                let (text, tip) = match card.kind {
                    Kind::Autoencoder => {
                        ("Use with this network", "Takes it in place of the present autoencoder")
                    }
                    _ => ("Use", "Makes the next pictures with it; nothing is downloaded"),
                };
                if button(ui, card, true, text, tip) {
                    actions.push(Action::UseModel(card.name.clone()));
                }
            }
            Section::ToDownload if can_be => download(app, card, status, ui, actions),
            Section::ToDownload | Section::Unsupported => {}
        }
        remove(app, card, status, ui, actions);
    });
}

/// The button that downloads, or asks once more where the licence may forbid what people want.
fn download(
    app: &App,
    card: &Card,
    status: &CacheStatus,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let is_clear = status.warnings.is_empty();
    let text = status.question() + if is_clear { "" } else { "…" };
    let tip = match (app.browser.is_offline(), is_clear) {
        (true, _) => "HF_HUB_OFFLINE forbids it",
        (false, true) if status.begun > 0 => "Goes on where it stopped, and opens the model",
        (false, true) => "Downloads the files and opens the model; it can be paused",
        (false, false) => "Says what the licence allows, and asks once more",
    };
    if button(ui, card, !app.browser.is_offline(), &text, tip) {
        let name = card.name.clone();
        actions.push(match is_clear {
            true => Action::FetchModel(name),
            false => Action::AskModel(Some(Question::Fetch(name))),
        });
    }
}

/// The button that asks whether to free the disk; not of a model that is needed.
fn remove(
    app: &App,
    card: &Card,
    status: &CacheStatus,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let is_partly = status.presence == Presence::Partly;
    let has_part = is_partly || app.browser.fetch(&card.name).is_some();
    if (status.bytes == 0 && !has_part) || app.is_in_use(card) {
        return;
    }
    if button(ui, card, true, "Remove…", "Frees the disk") {
        actions.push(Action::AskModel(Some(Question::Remove(card.name.clone()))));
    }
}

fn ask_to_remove(card: &Card, status: &CacheStatus, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let question = match status.bytes {
        0 => "Remove what has been downloaded?".into(),
        n => format!("Remove {} from this machine?", bytes(n)),
    };
    line(ui, question.into());
    ui.horizontal_wrapped(|ui| {
        if button(ui, card, true, "Remove", "Deletes the files") {
            actions.push(Action::RemoveModel(card.name.clone()));
        }
        if button(ui, card, true, "Keep", "Leaves the files (Esc)") {
            actions.push(Action::AskModel(None));
        }
    });
}

fn ask_for_licence(
    app: &App,
    card: &Card,
    status: &CacheStatus,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let colour = ui.visuals().warn_fg_color;
    for warning in &status.warnings {
        line(ui, RichText::new(warning).color(colour));
    }
    ui.horizontal_wrapped(|ui| {
        let is_allowed = !app.browser.is_offline();
        let tip = "Downloads the files and opens the model; it can be paused";
        if button(ui, card, is_allowed, &status.question(), tip) {
            actions.push(Action::FetchModel(card.name.clone()));
        }
        if button(ui, card, true, "Cancel", "Downloads nothing (Esc)") {
            actions.push(Action::AskModel(None));
        }
    });
}

/// A download: how far it is, and the way to stop it or to go on.
fn fetching(app: &App, card: &Card, fetch: &Fetch, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let name = || card.name.clone();
    let words = match &fetch.phase {
        Phase::Running => fetch.progress.words(Instant::now()),
        Phase::Stopping => format!("{} · pausing…", fetch.progress.amount()),
        Phase::Paused => format!("{} · paused", fetch.progress.amount()),
        Phase::Failed(trouble) => trouble.clone(),
    };
    if let Phase::Failed(_) = fetch.phase {
        let colour = ui.visuals().warn_fg_color;
        line(ui, RichText::new(words).color(colour));
    } else {
        let share = fetch.progress.share().unwrap_or(0.0);
        let bar = ui.add(egui::ProgressBar::new(share).desired_height(6.0));
        bar.widget_info(|| {
            let role = egui::accesskit::Role::ProgressIndicator;
            let name = format!("Download: {}", card.title);
            let mut info = egui::WidgetInfo::labeled(role, true, name);
            info.value = Some((f64::from(share) * 100.0).floor());
            info
        });
        line(ui, words.into());
    }
    ui.horizontal_wrapped(|ui| {
        let (text, tip) = match fetch.phase {
            Phase::Running | Phase::Stopping => {
                ("Pause", "Stops; what has arrived is kept, also when the window is closed")
            }
            Phase::Paused => ("Resume", "Goes on where it stopped"),
            Phase::Failed(_) => ("Retry", "Goes on where it failed"),
        };
        let is_enabled = fetch.phase != Phase::Stopping;
        if button(ui, card, is_enabled, text, tip) {
            actions.push(match fetch.phase {
                Phase::Running | Phase::Stopping => Action::PauseModel(name()),
                Phase::Paused | Phase::Failed(_) => Action::FetchModel(name()),
            });
        }
        if let (false, Some(status)) = (fetch.is_at_work(), &card.status) {
            remove(app, card, status, ui, actions);
        }
    });
}
