//! The bar at the top: views, where the networks run, help, light and dark.

use eframe::egui::{self, RichText};

use super::keys;
use crate::action::{Action, View};
use crate::app::{App, Networks};
use crate::preferences::Theme;

pub fn show(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    egui::MenuBar::new().ui(ui, |ui| {
        ui.label(RichText::new("Tintype").strong().size(16.0));
        ui.separator();
        let develop = ui.selectable_label(app.view == View::Develop, "Develop");
        if develop.on_hover_text("Pictures in the making (Ctrl+1)").clicked() {
            actions.push(Action::Show(View::Develop));
        }
        let gallery = matches!(app.view, View::Gallery | View::Picture(_) | View::Compare(..));
        let all = ui.selectable_label(gallery, "Gallery");
        if all.on_hover_text("All pictures of this session and of the folder (Ctrl+2)").clicked() {
            actions.push(Action::Show(View::Gallery));
        }
        let models = ui.selectable_label(app.view == View::Models, "Models…");
        let tip = "Published models: those on this machine, and those to download (Ctrl+3)";
        if models.on_hover_text(tip).clicked() {
            actions.push(Action::Show(View::Models));
        }
        if let Some(summary) = app.browser.summary() {
            ui.label(RichText::new(summary).weak()).on_hover_text("Downloaded so far");
        }
        let compare = ui.selectable_label(app.view == View::CompareModels, "Compare");
        let tip = "One class and seed from several models, side by side (Ctrl+4)";
        if compare.on_hover_text(tip).clicked() {
            actions.push(Action::Show(View::CompareModels));
        }
        ui.separator();
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            theme(app, ui, actions);
            let help = ui.menu_button("Keys", |ui| {
                egui::Grid::new("keys").num_columns(2).spacing([18.0, 4.0]).show(ui, |ui| {
                    for (key, meaning) in keys::HELP {
                        ui.label(RichText::new(key).strong());
                        ui.label(meaning);
                        ui.end_row();
                    }
                });
            });
            help.response.on_hover_text("What the keyboard does");
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                let (text, tip) = whereabouts(app);
                let text = egui::Label::new(RichText::new(text).weak()).truncate();
                ui.add(text).on_hover_text(tip);
            });
        });
    });
}

/// Where the networks run, and why there.
fn whereabouts(app: &App) -> (String, String) {
    match &app.networks {
        Networks::None => (String::new(), String::new()),
        Networks::Loading(device) => (
            format!("loading on {}…", device_name(app, device)),
            "The network is being loaded.".into(),
        ),
        Networks::Ready(ready) if ready.device == "cpu" => (
            match ready.reason.as_str() {
                "it was asked for" => "on the processor".into(),
                reason => format!("on the processor: {reason}"),
            },
            "Any computer can do this; a GPU is many times faster.".into(),
        ),
        Networks::Ready(ready) => (
            format!("on {}", device_name(app, &ready.device)),
            match ready.shared {
                true => "It also draws the window, so pictures never leave it.".into(),
                false => "Pictures are copied from it to the window.".to_string(),
            },
        ),
    }
}

fn device_name(app: &App, id: &str) -> String {
    match app.devices.iter().find(|device| device.id == id) {
        _ if id == "cpu" => "the processor".into(),
        Some(device) => device.description.split(" (").next().unwrap_or(id).to_string(),
        None => id.into(),
    }
}

fn theme(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let name = |theme| match theme {
        Theme::System => "As the system",
        Theme::Light => "Light",
        Theme::Dark => "Dark",
    };
    let current = app.preferences.theme;
    let menu = ui.menu_button("Theme", |ui| {
        for theme in [Theme::System, Theme::Light, Theme::Dark] {
            if ui.radio(theme == current, name(theme)).clicked() {
                actions.push(Action::Theme(theme));
                ui.close();
            }
        }
    });
    menu.response.on_hover_text("Light or dark");
}
