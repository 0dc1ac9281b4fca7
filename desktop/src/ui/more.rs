//! Settings that only some networks and samplers have, and that most people leave alone.

use std::path::Path;

use eframe::egui::{self, Response, RichText, Ui};
use tintype::generate::Settings;
use tintype::settings::{Setting, TimeGrid};

use super::controls::{grid, row, shift};
use crate::action::Action;
use crate::app::App;
use crate::dialogs::Purpose;
use crate::face::{self, label};
use crate::model::{Model, file_name};
use crate::options::{NUMBERS, applies, fitting, number, parsed};

/// Points that a field and a list are wide.
const FIELD: f32 = 60.0;
const LIST: f32 = 110.0;

/// The section, with what the model and the sampler have; empty if they have none of it. What they do not
/// have is taken out of the settings.
pub(super) fn show(app: &App, settings: &mut Settings, ui: &mut Ui, actions: &mut Vec<Action>) {
    let Some(model) = app.model() else { return };
    let architecture = &model.inspection.architecture;
    *settings = fitting(*settings, architecture);
    let has_times = applies(Setting::Times, settings, architecture);
    // What has times can shift them.
    let has_shift = has_times && !is_shift_above(model);
    let is_here = |option: &Setting| {
        let is_idle = *option == Setting::GuidanceAgreement && !model.is_guidable();
        !is_idle && applies(*option, settings, architecture)
    };
    let numbers: Vec<Setting> = NUMBERS.into_iter().filter(is_here).collect();
    if !has_times && numbers.is_empty() && !model.takes_guide() {
        return;
    }
    let section = egui::CollapsingHeader::new("More settings").show_unindented(ui, |ui| {
        grid(ui, "more", |ui| {
            if has_times {
                times(&mut settings.times, ui);
            }
            if has_shift {
                shift(settings, ui);
            }
            for option in numbers {
                if let Some(number) = number(settings, option) {
                    row(ui, label(option), tip(option), |ui| field(option, number, ui));
                }
            }
        });
        if let Err(error) = model.check(settings) {
            let sentence = RichText::new(face::sentence(&error)).color(ui.visuals().warn_fg_color);
            ui.add(egui::Label::new(sentence).wrap());
        }
        if model.takes_guide() {
            guide(app, settings, ui, actions);
        }
    });
    if section.header_response.clicked() {
        // Of those that may guide.
        actions.push(Action::LookForModels);
    }
    // Other times have other options.
    *settings = fitting(*settings, architecture);
}

/// Whether the authors shift the times: theirs is above.
fn is_shift_above(model: &Model) -> bool {
    let is_latent = model.inspection.architecture.latent_space().is_some();
    is_latent && model.defaults.guidance.channels.is_some()
}

/// Where the steps of a flow lie.
fn times(times: &mut TimeGrid, ui: &mut Ui) {
    row(ui, label(Setting::Times), Setting::Times.summary(), |ui| {
        egui::ComboBox::from_id_salt("times")
            .selected_text(times.name())
            .width(LIST)
            .show_ui(ui, |ui| {
                for grid in TimeGrid::ALL {
                    ui.selectable_value(times, grid, grid.name());
                }
            })
            .response
    });
}

/// What a number does, and what it may be.
fn tip(option: Setting) -> String {
    let range = option.range().map_or(String::new(), |range| format!(", {range}"));
    format!("{}{range}; empty for the default", option.summary())
}

/// A field that is empty for the default. What is typed stands while it is typed, also where it is no number.
fn field(option: Setting, value: &mut Option<f64>, ui: &mut Ui) -> Response {
    let id = egui::Id::unique(("option", option.name()));
    let typed = ui.data(|data| data.get_temp::<String>(id));
    let typed = typed.filter(|_| ui.memory(|memory| memory.has_focus(id)));
    let mut text = typed.unwrap_or_else(|| value.map_or(String::new(), |value| value.to_string()));
    let colour = parsed(&text).is_none().then(|| ui.visuals().warn_fg_color);
    let field = egui::TextEdit::singleline(&mut text).id(id).hint_text("default");
    let response = ui.add(field.desired_width(FIELD).text_color_opt(colour));
    if let (true, Some(number)) = (response.changed(), parsed(&text)) {
        *value = number;
    }
    ui.data_mut(|data| data.insert_temp(id, text));
    response
}

/// The network of autoguidance: none, a published one on this machine, or a file.
fn guide(app: &App, settings: &Settings, ui: &mut Ui, actions: &mut Vec<Action>) {
    let tip = "Guides by a smaller or earlier network of the same kind in place of the network's own \
               prediction without a class";
    let name = ui.label("Guide (autoguidance)").on_hover_text(tip);
    let current = app.preferences.choice.paths.guide.as_deref();
    let guides = app.guides();
    let title = |path: &Path| {
        let found = guides.iter().find(|(_, file)| *file == path);
        found.map_or_else(|| file_name(path), |(title, _)| (*title).to_string())
    };
    let width = ui.available_width() - 8.0;
    let response = egui::ComboBox::from_id_salt("guide")
        .selected_text(current.map_or("none".into(), title))
        .width(width)
        .truncate()
        .show_ui(ui, |ui| {
            let none = ui.selectable_label(current.is_none(), "none");
            if none.clicked() && current.is_some() {
                actions.push(Action::Guide(None));
            }
            for (title, file) in &guides {
                let is_current = current == Some(*file);
                if ui.selectable_label(is_current, *title).clicked() && !is_current {
                    actions.push(Action::Guide(Some(file.to_path_buf())));
                }
            }
            if ui.selectable_label(false, "File…").clicked() {
                actions.push(Action::Ask(Purpose::Guide));
            }
        })
        .response;
    response.labelled_by(name.id).on_hover_text(tip);
    if current.is_some() && settings.guidance.scale == 1.0 {
        ui.label(RichText::new("It does nothing at guidance 1.").weak());
    }
}
