//! Pictures in the making, and the latest finished ones.

use eframe::egui::{self, RichText, Sense, vec2};
use tintype::generate::ImageSpec;
use tintype::model::Process;

use super::timeline::{self, Timeline};
use super::{fit, paint, picture, sketch};
use crate::action::{Action, View};
use crate::app::{App, Chosen, Networks};
use crate::gallery::Size;
use crate::stage::Running;
use crate::text;

pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    match (&app.develop.running, app.develop.finished.as_slice()) {
        (Some(_), _) => developing(app, ui, actions),
        _ if is_live(app) => sketch::show(app, ui, actions),
        (None, [id]) => picture::large(app, *id, ui, actions),
        (None, []) => welcome(app, ui, actions),
        (None, _) => finished(app, ui, actions),
    }
}

/// Whether the picture of the current settings has the stage.
fn is_live(app: &App) -> bool {
    app.is_live() && (app.sketch.latest().is_some() || app.sketch.is_busy())
}

/// The finished picture that has the stage alone.
pub(super) fn large(app: &App) -> Option<u64> {
    match (&app.develop.running, app.develop.finished.as_slice()) {
        (None, [id]) if !is_live(app) => Some(*id),
        _ => None,
    }
}

/// A job at work.
fn developing(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let Some(running) = &app.develop.running else { return };
    let line = timeline_of(app, running);
    egui::Panel::bottom("timeline").show_separator_line(false).show(ui, |ui| {
        ui.add_space(4.0);
        timeline::show(ui, &line);
        ui.horizontal(|ui| {
            ui.label(&line.words);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let stopping = app.queue.is_cancelled(running.job);
                let stop = egui::Button::new(if stopping { "Stopping…" } else { "Stop" });
                let stop = ui.add_enabled(!stopping, stop);
                let tip = "Stops after the step in hand; finished pictures are kept (Esc)";
                if stop.on_hover_text(tip).clicked() {
                    actions.push(Action::Cancel(running.job));
                }
            });
        });
    });
    let textures = app.develop.live.textures();
    if textures.is_empty() {
        ui.centered_and_justified(|ui| {
            let what = match &app.networks {
                Networks::Ready(_) => "The first step takes a little longer…",
                _ => "Loading the network…",
            };
            ui.label(RichText::new(what).weak().size(18.0));
        });
        return;
    }
    let images = running.step.as_ref().map_or(&[][..], |step| &step.images);
    for (at, (texture, cell)) in textures.iter().zip(cells(ui, textures.len())).enumerate() {
        let rect = fit(texture.size, cell);
        paint(ui, texture.id, rect);
        let response = ui.interact(rect, ui.scope_id().with(("live", at)), Sense::hover());
        let name = images.get(at).map_or_else(String::new, |spec| spec_name(app, spec));
        response.widget_info(|| {
            let name = format!("{name} developing");
            egui::WidgetInfo::labeled(egui::accesskit::Role::Image, true, name)
        });
        if textures.len() > 1 {
            response.on_hover_text(name);
        }
    }
}

fn spec_name(app: &App, spec: &ImageSpec) -> String {
    let labels = app.model_at_work().map(|model| &model.inspection.labels);
    match (labels, spec.class) {
        (Some(labels), Some(class)) => {
            format!("{}, {}", text::short(&labels.name(class)), text::seed(spec))
        }
        _ => text::seed(spec),
    }
}

fn timeline_of(app: &App, running: &Running) -> Timeline {
    let model = app.model_at_work();
    let architecture = model.map(|model| &model.inspection.architecture);
    let process = architecture.map(|architecture| architecture.process());
    let karras = matches!(process, Some(Process::Denoiser { .. }));
    let tau = app.queue.running().and_then(|job| job.settings.tau);
    let gate = model.and_then(|model| model.gate()).map(|gate| tau.unwrap_or(gate));
    let Some(step) = &running.step else {
        return Timeline {
            done: 0.0,
            gate: gate.map(|gate| 1.0 - gate as f32),
            pixels_only: karras,
            words: format!("{}: getting ready", running.name),
        };
    };
    let share = step.total.map(|total| step.index as f32 / total.max(1) as f32);
    let done = match process {
        Some(process) if !matches!(process, Process::Denoiser { .. }) => 1.0 - step.time as f32,
        // Noise levels, or of a model that is neither open nor compared.
        _ => share.unwrap_or(0.5),
    };
    let last = step.first + step.images.len();
    let which = match running.total_images {
        1 => running.name.clone(),
        n if step.images.len() == 1 => format!("{}: picture {last} of {n}", running.name),
        n => format!("{}: pictures {} to {last} of {n}", running.name, step.first + 1),
    };
    let of = step.total.map_or(String::new(), |total| format!(" of {total}"));
    let stream = match (gate, step.pixels) {
        (None, _) => "",
        (Some(_), false) => ", latents at work",
        (Some(_), true) => ", latents and pixels at work",
    };
    let left = match (step.total, step.index) {
        (Some(total), index) if index >= 3 => {
            let each = step.began.elapsed().as_secs_f64() / index as f64;
            let left = each * (total - index) as f64;
            format!(", {} left", text::duration(left))
        }
        _ => String::new(),
    };
    Timeline {
        done,
        gate: gate.map(|gate| 1.0 - gate as f32),
        pixels_only: karras,
        words: format!("{which}: step {}{of}{stream}{left}", step.index + 1),
    }
}

/// Cells of a grid over the space that there is.
fn cells(ui: &egui::Ui, count: usize) -> Vec<egui::Rect> {
    let area = ui.available_rect_before_wrap().shrink(4.0);
    let shape = area.width() / area.height().max(1.0);
    let columns = ((count as f32 * shape).sqrt().round() as usize).clamp(1, count.max(1));
    let rows = count.div_ceil(columns);
    let size = vec2(area.width() / columns as f32, area.height() / rows as f32);
    let cell = |at: usize| {
        let corner = vec2((at % columns) as f32 * size.x, (at / columns) as f32 * size.y);
        egui::Rect::from_min_size(area.min + corner, size).shrink(3.0)
    };
    (0..count).map(cell).collect()
}

/// Several finished pictures; a click shows one large.
fn finished(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let ids = app.develop.finished.clone();
    for (id, cell) in ids.iter().zip(cells(ui, ids.len())) {
        let Some(texture) = app.gallery.texture(*id, Size::Full, ui.ctx()) else { continue };
        let rect = fit(texture.size, cell);
        paint(ui, texture.id, rect);
        let response = ui.interact(rect, ui.scope_id().with(("finished", id)), Sense::click());
        let name = app.gallery.get(*id).map(picture::title).unwrap_or_default();
        response.widget_info(|| {
            egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, format!("Show {name}"))
        });
        picture::outline(ui, &response, rect);
        if response.on_hover_text(name).clicked() {
            actions.push(Action::Show(View::Picture(*id)));
        }
    }
}

/// Nothing made yet.
fn welcome(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.vertical_centered(|ui| {
        ui.add_space(ui.available_height() * 0.3);
        match &app.chosen {
            Chosen::Reading => {
                ui.spinner();
                ui.label("Reading the model…");
            }
            Chosen::Trouble(_) => {
                ui.label(RichText::new("There is no model to make pictures with").size(20.0));
                ui.add_space(8.0);
                if ui.button("Use the emoji model").clicked() {
                    actions.push(Action::EmbeddedModel);
                }
            }
            Chosen::Model(model) => {
                let [line, hint] = match model.has_classes() {
                    true => [
                        "Pick a class and press Enter",
                        "Type to search. Several at once: the + behind a class, or Ctrl+Enter.",
                    ],
                    false => ["Press Enter to make a picture", "This model has no classes."],
                };
                ui.label(RichText::new(line).size(24.0));
                ui.add_space(4.0);
                ui.label(RichText::new(hint).weak());
                ui.add_space(16.0);
                if model.has_classes() {
                    let surprise = egui::Button::new(RichText::new("Surprise me").size(16.0));
                    let tip = "A picture of any class (Ctrl+R)";
                    if ui.add(surprise).on_hover_text(tip).clicked() {
                        actions.push(Action::Surprise);
                    }
                }
            }
        }
    });
}
