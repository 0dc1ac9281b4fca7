//! The published models: those on this machine, those to download, and those of later versions.

use std::time::Duration;

use eframe::egui::{self, RichText};

use super::{model_card, search_field};
use crate::action::{Action, View};
use crate::app::App;
use crate::browser::{Browser, Section};

/// Points that a card is wide at least.
const CARD: f32 = 330.0;
/// Rates, and waits that count down, are drawn so often.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    top(app, ui, actions);
    ui.separator();
    let app: &App = app;
    if app.browser.is_at_work() {
        ui.ctx().request_repaint_after(INTERVAL);
    }
    let sections = app.browser.sections();
    if sections.iter().all(|(_, places)| places.is_empty()) {
        let query = app.browser.query.trim();
        ui.centered_and_justified(|ui| {
            ui.label(RichText::new(format!("No model matches “{query}”.")).weak().size(18.0));
        });
        return;
    }
    egui::ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
        for (section, places) in sections {
            if !places.is_empty() {
                cards(app, section, &places, ui, actions);
            }
        }
    });
}

/// What the page is, its search, and the way back.
fn top(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.label(RichText::new("Published models").strong());
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if ui.button("Close").on_hover_text("Back to the pictures (Esc)").clicked() {
                actions.push(Action::Show(View::Develop));
            }
        });
    });
    if app.browser.is_offline() {
        let sentence = "HF_HUB_OFFLINE is set: nothing is downloaded.";
        ui.colored_label(ui.visuals().warn_fg_color, sentence);
    }
    let id = app.browser.search_id();
    let words = ["Search models", "Search: name, network, size or licence"];
    let Browser { query, wants_focus, .. } = &mut app.browser;
    search_field::show(ui, id, words, query, wants_focus);
}

/// The cards of a section, in as many columns as there is room for.
fn cards(
    app: &App,
    section: Section,
    places: &[usize],
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let name = match section {
        Section::Here => "On this machine",
        Section::ToDownload => "To download",
        Section::Unsupported => "Not supported yet",
    };
    ui.add_space(6.0);
    ui.label(RichText::new(name).strong().size(16.0));
    let count = ((ui.available_width() / CARD) as usize).max(1);
    ui.columns(count, |columns| {
        for (at, place) in places.iter().enumerate() {
            // Columns stretch what is in them; a card does not.
            columns[at % count].vertical(|ui| {
                model_card::show(app, &app.browser.cards()[*place], ui, actions);
            });
        }
    });
}
