//! Everything that can be set, each with a word on what it does.

use std::ops::RangeInclusive;

use eframe::egui::{self, Response, RichText, SliderClamping, Ui, WidgetText};
use tintype::device::Kind;
use tintype::generate::{Settings, bytes};
use tintype::model::Architecture;
use tintype::precision::Precision;
use tintype::settings::{Quality, Setting};

use super::{average, more, second_seed};
use crate::action::Action;
use crate::app::{App, Chosen, Networks};
use crate::dialogs::Purpose;
use crate::face::label;
use crate::{quality, text};

/// Only what somebody moves is clamped and rounded: other settings come with pictures and models.
const SHOWN_AS_IT_IS: SliderClamping = SliderClamping::Edits;

pub(super) fn show(app: &mut App, ui: &mut Ui, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    pictures(app, ui, actions);
    sampler(app, ui, actions);
    model(app, ui, actions);
    device(app, ui, actions);
    folder(app, ui, actions);
}

fn heading(ui: &mut Ui, text: &str) {
    ui.add_space(8.0);
    ui.label(RichText::new(text).strong());
}

/// A name, a widget that answers to it, and what it means.
pub(super) fn row(
    ui: &mut Ui,
    name: &str,
    tip: impl Into<WidgetText> + Clone,
    widget: impl FnOnce(&mut Ui) -> Response,
) -> Response {
    let label = ui.label(name).on_hover_text(tip.clone());
    let response = ui.horizontal(widget).inner;
    let response = response.labelled_by(label.id).on_hover_text(tip);
    ui.end_row();
    response
}

/// The useful range of a setting, for its slider.
pub(super) fn range<N: egui::emath::Numeric>(setting: Setting) -> RangeInclusive<N> {
    match setting.slider().or(setting.range()) {
        Some(range) => N::from_f64(range.min)..=N::from_f64(range.max),
        None => N::MIN..=N::MAX,
    }
}

pub(super) fn grid<R>(ui: &mut Ui, name: &str, contents: impl FnOnce(&mut Ui) -> R) -> R {
    egui::Grid::new(name).num_columns(2).spacing([10.0, 6.0]).show(ui, contents).inner
}

/// Seeds and counts.
fn pictures(app: &mut App, ui: &mut Ui, actions: &mut Vec<Action>) {
    ui.label(RichText::new("Pictures").strong());
    let form = &mut app.preferences.form;
    grid(ui, "pictures", |ui| {
        row(
            ui,
            "Seed",
            "The number that all noise comes from: the same seed, class and settings make the same \
             picture",
            |ui| {
                let seed = ui.add(egui::DragValue::new(&mut form.seed).speed(1.0));
                let new = ui.small_button("New").on_hover_text("Another seed");
                if new.clicked() {
                    actions.push(Action::NewSeed);
                }
                seed
            },
        );
        ui.label("");
        let lock = ui.checkbox(&mut form.seed_locked, "Keep the seed");
        lock.on_hover_text("Otherwise it is another one after each press of Generate");
        ui.end_row();
        second_seed::show(form, ui, actions);
        let tip = "Pictures of each class; their seeds count up";
        row(ui, label(Setting::Count), tip, |ui| {
            ui.add(egui::Slider::new(&mut form.count, range(Setting::Count)).logarithmic(true))
        });
    });
}

/// How pictures are sampled.
fn sampler(app: &mut App, ui: &mut Ui, actions: &mut Vec<Action>) {
    let (Some(mut settings), Some(model)) = (app.settings(), app.model()) else { return };
    let before = settings;
    let architecture = model.inspection.architecture.clone();
    let (gate, defaults) = (model.gate(), model.defaults);
    let (is_guidable, has_guide) = (model.is_guidable(), model.guide.is_some());
    heading(ui, "Sampler");
    qualities(app, &mut settings, defaults, &architecture, ui);
    live(app, ui, actions);
    grid(ui, "sampler", |ui| {
        row(ui, label(Setting::Sampler), "The way from noise to the picture", |ui| {
            let mut choice = settings.sampler;
            let response = egui::ComboBox::from_id_salt("sampler")
                .selected_text(choice.name())
                .width(140.0)
                .show_ui(ui, |ui| {
                    for sampler in architecture.samplers() {
                        ui.selectable_value(&mut choice, *sampler, sampler.name());
                    }
                })
                .response;
            settings.sampler = choice;
            response
        });
        let tip = "More steps take longer and follow the noise more exactly";
        row(ui, label(Setting::Steps), tip, |ui| {
            let least = settings.sampler.least_steps();
            settings.steps = settings.steps.max(least);
            let range = least..=*range(Setting::Steps).end();
            let slider = egui::Slider::new(&mut settings.steps, range).logarithmic(true);
            ui.add(slider.clamping(SHOWN_AS_IT_IS))
        });
        if is_guidable {
            guidance(&mut settings, &architecture, has_guide, ui);
            interval(&mut settings, &architecture, ui);
        } else {
            // Remembered from a time when it had no effect, or of a guide.
            (settings.guidance.scale, settings.agreement) = (1.0, None);
        }
        // Of networks whose authors use them.
        if let (Some(latents), Some(_)) = (architecture.latent_space(), defaults.guidance.channels)
        {
            row(
                ui,
                label(Setting::GuidanceChannels),
                "Guides only the first latent channels; the authors guide 3",
                |ui| {
                    let all = latents.channels;
                    let mut channels = settings.guidance.channels.unwrap_or(all);
                    let response = ui.add(egui::Slider::new(&mut channels, 1..=all));
                    settings.guidance.channels = (channels < all).then_some(channels);
                    response
                },
            );
            if settings.sampler.takes_times() {
                shift(&mut settings, ui);
            }
        }
        if let Some(gate) = gate {
            row(
                ui,
                label(Setting::GateTime),
                "The time at which the network begins to work on pixels, too; it was trained with \
                 its default",
                |ui| {
                    let mut tau = settings.tau.unwrap_or(gate);
                    let range = range(Setting::GateTime);
                    let slider = egui::Slider::new(&mut tau, range).max_decimals(2);
                    let response = ui.add(slider.clamping(SHOWN_AS_IT_IS));
                    settings.tau = (tau != gate).then_some(tau);
                    response
                },
            );
        }
        precision(app, ui, actions);
    });
    more::show(app, &mut settings, ui, actions);
    if settings != before {
        app.edit_settings(|current| *current = settings);
    }
    if settings != defaults {
        let tip = "The sampler, steps and guidance that the authors of the model use";
        if ui.button("Back to the model's defaults").on_hover_text(tip).clicked() {
            actions.push(Action::Defaults);
        }
    }
}

/// Draft, good and best, each a sampler with its steps; nothing for a network that has but one.
fn qualities(
    app: &App,
    settings: &mut Settings,
    defaults: Settings,
    architecture: &Architecture,
    ui: &mut Ui,
) {
    let current = *settings;
    let of = |quality| (quality, quality::settings(quality, current, defaults, architecture));
    let choices = Quality::ALL.map(of);
    if choices[0].1 == choices[2].1 {
        return;
    }
    let chosen = app.quality();
    ui.columns(choices.len(), |columns| {
        for (ui, (quality, wanted)) in columns.iter_mut().zip(choices) {
            let (name, tip) = match quality {
                Quality::Draft => ("Draft", "To see what comes: few steps of a fast sampler"),
                Quality::Good => ("Good", "To look at: more steps of a fast sampler"),
                Quality::Best => ("Best", "The sampler and steps that the model's authors use"),
            };
            let steps = text::steps(&wanted);
            let seconds = app.seconds(&wanted).map(text::duration);
            let about = seconds.as_ref().map_or(String::new(), |s| format!(", about {s}"));
            let full_name = format!("{name}, {steps}{about}");
            ui.vertical_centered_justified(|ui| {
                let selected = chosen == Some(quality);
                let button = egui::Button::selectable(selected, name).frame_when_inactive(true);
                let button = ui.add(button);
                button.widget_info(|| {
                    let role = egui::accesskit::Role::Button;
                    egui::WidgetInfo::selected(role, true, selected, &full_name)
                });
                if button.on_hover_text(format!("{tip} ({steps}{about})")).clicked() {
                    *settings = wanted;
                }
                let below = RichText::new(seconds.unwrap_or(steps)).weak().small();
                ui.add(egui::Label::new(below).selectable(false));
            });
        }
    });
    ui.add_space(2.0);
}

/// Whether pictures are made as settings change, where that is quick.
fn live(app: &App, ui: &mut Ui, actions: &mut Vec<Action>) {
    if !app.can_be_live() {
        return;
    }
    let mut is_on = app.is_live();
    let tip = "Makes the picture anew whenever class, seed or settings change; it is saved once you \
               keep it";
    ui.horizontal(|ui| {
        if ui.checkbox(&mut is_on, "Live").on_hover_text(tip).changed() {
            actions.push(Action::Live(is_on));
        }
        if let Some(seconds) = app.settings().and_then(|settings| app.seconds(&settings)) {
            let about = format!("about {} a picture", text::duration(seconds));
            ui.label(RichText::new(about).weak());
        }
    });
}

/// More of the steps at strong noise.
pub(super) fn shift(settings: &mut Settings, ui: &mut Ui) {
    let tip = "Spends more of the steps on strong noise; 0 is even";
    row(ui, label(Setting::TimeShift), tip, |ui| {
        let range = range(Setting::TimeShift);
        let slider = egui::Slider::new(&mut settings.shift, range).max_decimals(2);
        ui.add(slider.clamping(SHOWN_AS_IT_IS))
    });
}

/// The guidance scale.
fn guidance(settings: &mut Settings, architecture: &Architecture, has_guide: bool, ui: &mut Ui) {
    let least = architecture.process().least_guidance();
    let tip = match least > 0.0 {
        _ if has_guide => "How far the picture goes on from that of the guide; 1 is none",
        true => "How strongly the picture keeps to its class; 1 is none, large values exaggerate",
        false => {
            "How strongly the picture keeps to its class; 1 is none, large values exaggerate. \
             Type less than 1 to weaken the class, 0 to leave it out"
        }
    };
    row(ui, label(Setting::GuidanceScale), tip, |ui| {
        let scale = &mut settings.guidance.scale;
        let slider = egui::Slider::new(scale, range(Setting::GuidanceScale));
        ui.add(slider.clamping(egui::SliderClamping::Never).max_decimals(2))
    });
    settings.guidance.scale = settings.guidance.scale.max(least);
}

/// The times at which guidance acts.
fn interval(settings: &mut Settings, architecture: &Architecture, ui: &mut Ui) {
    // Noise levels of a denoiser, times of a flow.
    let most = architecture.process().start();
    let guidance = &mut settings.guidance;
    let tip = "Guidance acts while the noise is between these: 0 is the picture, the largest value \
               pure noise";
    let mut high = guidance.high.min(most);
    let from = ui.label(label(Setting::GuidanceInterval)).on_hover_text(tip);
    ui.horizontal(|ui| {
        let speed = most / 200.0;
        let low = egui::DragValue::new(&mut guidance.low).speed(speed).max_decimals(3);
        ui.add(low.range(0.0..=high)).labelled_by(from.id).on_hover_text(tip);
        let to = ui.label("to");
        let upper = egui::DragValue::new(&mut high).speed(speed).max_decimals(3);
        ui.add(upper.range(guidance.low..=most)).labelled_by(to.id).on_hover_text(tip);
    });
    ui.end_row();
    if high < most || guidance.high < most {
        guidance.high = high;
    }
}

fn precision(app: &App, ui: &mut Ui, actions: &mut Vec<Action>) {
    let current = app.preferences.choice.precision;
    let able = match &app.networks {
        Networks::Ready(ready) => ready.precisions.clone(),
        _ => Precision::ALL.to_vec(),
    };
    let tip = "16-bit numbers need half the memory and are faster on many GPUs";
    row(ui, label(Setting::Precision), tip, |ui| {
        egui::ComboBox::from_id_salt("precision")
            .selected_text(current.to_string())
            .width(140.0)
            .show_ui(ui, |ui| {
                for precision in Precision::ALL {
                    let name =
                        egui::Button::selectable(precision == current, precision.to_string());
                    let able = able.contains(&precision);
                    let choice = ui.add_enabled(able, name);
                    if choice.on_disabled_hover_text("This device does not have it").clicked() {
                        actions.push(Action::Precision(precision));
                    }
                }
            })
            .response
    });
}

/// The model, its files and how they fit.
fn model(app: &App, ui: &mut Ui, actions: &mut Vec<Action>) {
    heading(ui, "Model");
    match &app.chosen {
        Chosen::Reading => {
            ui.horizontal(|ui| {
                ui.spinner();
                ui.label("Reading…");
            });
        }
        Chosen::Trouble(trouble) => {
            ui.colored_label(ui.visuals().warn_fg_color, trouble);
        }
        Chosen::Model(model) => {
            let inspection = &model.inspection;
            let [width, height] = inspection.image_size;
            let classes = match inspection.labels.len() {
                0 => "no classes".into(),
                n => format!("{n} classes"),
            };
            ui.add(egui::Label::new(&model.name).truncate()).on_hover_text(
                model
                    .paths
                    .model
                    .as_ref()
                    .map_or("It is part of the program".into(), |path| path.display().to_string()),
            );
            let kind = format!(
                "{}, {:.1} million weights, {width}×{height} pixels, {classes}",
                inspection.architecture.name(),
                model.values as f64 / 1e6
            );
            ui.add(egui::Label::new(RichText::new(kind).weak()).wrap());
            average::show(model, ui, actions);
            for note in &inspection.notes {
                ui.add(egui::Label::new(RichText::new(note).weak()).wrap());
            }
            egui::CollapsingHeader::new("How the weights fit").show(ui, |ui| {
                for (file, report) in &inspection.reports {
                    let name = crate::model::file_name(file.as_ref());
                    ui.add(egui::Label::new(RichText::new(name).strong()).truncate());
                    ui.add(egui::Label::new(report.to_string()).wrap());
                }
            });
        }
    }
    ui.horizontal_wrapped(|ui| {
        for (name, tip, purpose) in [
            (
                "Model…",
                "Opens weights: .safetensors, .pt, .ckpt (Ctrl+O, or drop them)",
                Purpose::Model,
            ),
            ("Autoencoder…", "What turns latents into pictures", Purpose::Autoencoder),
            (
                "Statistics…",
                "Mean and spread of the latents: latents_stats.pt",
                Purpose::Statistics,
            ),
            (
                "Configuration…",
                "Describes the network where its weights do not",
                Purpose::Configuration,
            ),
        ] {
            if ui.button(name).on_hover_text(tip).clicked() {
                actions.push(Action::Ask(purpose));
            }
        }
        let own = app.preferences.choice.paths != Default::default();
        if own && ui.button("Emoji").on_hover_text("The model inside the program").clicked() {
            actions.push(Action::EmbeddedModel);
        }
    });
}

/// Where the networks run.
fn device(app: &App, ui: &mut Ui, actions: &mut Vec<Action>) {
    heading(ui, "Device");
    let current = match app.preferences.choice.device.as_str() {
        "" => "auto",
        name => name,
    };
    let name = |id: &str| {
        let row = app.devices.iter().find(|device| device.id == id);
        match (id, row) {
            ("auto", _) => "automatic".to_string(),
            ("cpu", _) => "processor".into(),
            (_, Some(row)) => row.description.clone(),
            (id, None) => id.into(),
        }
    };
    let label = ui.label(RichText::new("Where pictures are computed").weak());
    let width = ui.available_width() - 8.0;
    let response = egui::ComboBox::from_id_salt("device")
        .selected_text(name(current))
        .width(width)
        .truncate()
        .show_ui(ui, |ui| {
            let ids = std::iter::once("auto").chain(app.devices.iter().map(|d| d.id.as_str()));
            for id in ids {
                let row = app.devices.iter().find(|device| device.id == id);
                let memory = row.and_then(|row| row.memory).map(|memory| {
                    let whose = if id == "cpu" { "free" } else { "of memory" };
                    format!(", {} {whose}", bytes(memory))
                });
                let software = row.is_some_and(|row| row.kind == Kind::Software);
                let software = if software { ", a processor in disguise: slow" } else { "" };
                let text = format!("{}{}{software}", name(id), memory.unwrap_or_default());
                if ui.selectable_label(id == current, text).clicked() {
                    actions.push(Action::Device(id.into()));
                }
            }
        })
        .response;
    response.labelled_by(label.id).on_hover_text(
        "Automatic takes the fastest kind: an NVIDIA GPU, another GPU, the processor",
    );
}

/// Where pictures are saved.
fn folder(app: &App, ui: &mut Ui, actions: &mut Vec<Action>) {
    heading(ui, "Pictures are saved in");
    let path = app.folder().display().to_string();
    ui.add(egui::Label::new(RichText::new(&path).weak()).truncate()).on_hover_text(&path);
    ui.horizontal(|ui| {
        let change = ui.button("Change…").on_hover_text("Another folder for pictures");
        if change.clicked() {
            actions.push(Action::Ask(Purpose::Output));
        }
        if app.preferences.output.is_some() {
            let default = ui.button("Default").on_hover_text("The folder of a first start");
            if default.clicked() {
                actions.push(Action::DefaultFolder);
            }
        }
    });
}
