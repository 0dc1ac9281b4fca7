//! Several models side by side: class, seed and quality above, and a row for each model.

use eframe::egui::{self, Rect, RichText, Sense, vec2};
use tintype::settings::{Quality, Setting};

use super::controls::range;
use super::{fit, paint, picture, search_field};
use crate::action::{Action, View};
use crate::app::App;
use crate::compare::{Comparison, Row, Stage};
use crate::dialogs::Purpose;
use crate::face::label;
use crate::queue::Queue;
use crate::stage::{Develop, Running};

/// Points that what stands beside the pictures is wide.
const CAPTIONS: f32 = 230.0;
/// Points that a picture is wide, and between two of them.
const SIDE: f32 = 128.0;
const GAP: f32 = 6.0;

pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    app.comparison.look_up();
    title(ui, actions);
    class(&mut app.comparison, ui);
    wanted(&mut app.comparison, ui, actions);
    buttons(app, ui, actions);
    ui.separator();
    if app.comparison.rows().is_empty() {
        ui.centered_and_justified(|ui| {
            let hint = "Add models, or drop their files here; then name a class and press Enter";
            ui.label(RichText::new(hint).weak().size(18.0));
        });
        return;
    }
    let App { comparison, develop, queue, .. } = app;
    let (develop, queue, quality) = (&*develop, &*queue, comparison.quality);
    egui::ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
        for row in comparison.rows_mut() {
            ui.push_id(row.id, |ui| {
                ui.horizontal_top(|ui| {
                    ui.vertical(|ui| {
                        ui.set_width(CAPTIONS);
                        captions(row, quality, (develop, queue), ui, actions);
                    });
                    pictures(row, develop, ui, actions);
                });
            });
            ui.separator();
        }
    });
}

/// What the page is, and the way back.
fn title(ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.label(RichText::new("Compare models").strong());
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if ui.button("Close").on_hover_text("Back to the pictures (Esc)").clicked() {
                actions.push(Action::Show(View::Develop));
            }
        });
    });
}

/// The class, and the names that what is typed may mean.
fn class(comparison: &mut Comparison, ui: &mut egui::Ui) {
    let id = comparison.search_id();
    let words =
        ["Class of all models", "Class: name or number, which each model looks up for itself"];
    let Comparison { query, wants_focus, .. } = comparison;
    search_field::show(ui, id, words, query, wants_focus);
    let suggested = comparison.suggested().to_vec();
    if suggested.is_empty() {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        for name in suggested {
            if ui.small_button(name.as_str()).clicked() {
                comparison.query = name;
            }
        }
    });
}

/// Seed, count and quality.
fn wanted(comparison: &mut Comparison, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        let name = ui.label("Seed");
        let tip = "The number that all noise comes from: the same noise for models whose latents or \
                   pixels have the same shape";
        let seed = ui.add(egui::DragValue::new(&mut comparison.seed).speed(1.0));
        seed.labelled_by(name.id).on_hover_text(tip);
        if ui.small_button("New").on_hover_text("Another seed").clicked() {
            actions.push(Action::NewComparisonSeed);
        }
        let name = ui.label(label(Setting::Count));
        let count = egui::DragValue::new(&mut comparison.count);
        let count = ui.add(count.range(range::<usize>(Setting::Count)).speed(0.1));
        count.labelled_by(name.id).on_hover_text("Pictures of each model; their seeds count up");
        for (quality, name, tip) in [
            (Quality::Draft, "Draft", "Few steps of a fast sampler, for every model that has one"),
            (Quality::Good, "Good", "More steps of a fast sampler, for every model that has one"),
            (Quality::Best, "Best", "The sampler and steps of each model's authors"),
        ] {
            ui.selectable_value(&mut comparison.quality, quality, name).on_hover_text(tip);
        }
    });
}

/// Models to add, the way to begin and to stop, the way to keep all, and how far it is.
fn buttons(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        candidates(app, ui, actions);
        if app.comparison.is_busy(&app.queue) {
            let stopping = app.comparison.jobs().iter().any(|job| app.queue.is_cancelled(*job));
            let stop = egui::Button::new(if stopping { "Stopping…" } else { "Stop" });
            let tip = "Stops after the step in hand; finished pictures are kept (Esc)";
            if ui.add_enabled(!stopping, stop).on_hover_text(tip).clicked() {
                actions.push(Action::StopComparison);
            }
        } else {
            let start = egui::Button::new(RichText::new("Start").strong());
            let start = ui.add(start.fill(ui.visuals().selection.bg_fill));
            let tip = "Makes the pictures, one model after the other, and saves them (Enter)";
            if start.on_hover_text(tip).clicked() {
                actions.push(Action::StartComparison);
            }
        }
        let has_pictures = app.comparison.has_pictures();
        let save = ui.add_enabled(has_pictures, egui::Button::new("Save as picture…"));
        if save.on_hover_text("All pictures in one; each is saved for itself already").clicked() {
            actions.push(Action::Ask(Purpose::Sheet(file_name(app))));
        }
        if !app.comparison.rows().is_empty() {
            let summary = app.comparison.summary(&app.queue);
            ui.label(RichText::new(summary).weak());
        }
    });
}

/// The name that is suggested for all pictures in one: that of the first.
fn file_name(app: &App) -> String {
    let first = app.comparison.rows().iter().find_map(|row| row.run.as_ref()?.pictures.first());
    let entry = first.and_then(|first| app.gallery.get(first.id));
    let stem = entry.and_then(|entry| Some(entry.origin.as_ref()?.file_stem()));
    stem.map_or_else(|| "comparison.png".into(), |stem| format!("comparison-{stem}.png"))
}

fn candidates(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let menu = ui.menu_button("Add a model", |ui| {
        egui::ScrollArea::vertical().max_height(320.0).show(ui, |ui| {
            let candidates = app.candidates();
            if candidates.is_empty() {
                ui.label(RichText::new("No other model is open or on this machine").weak());
            }
            for (name, paths) in candidates {
                if ui.button(name.as_str()).clicked() {
                    actions.push(Action::AddToComparison { name, paths });
                    ui.close();
                }
            }
        });
    });
    menu.response.on_hover_text(
        "The model inside the program, published ones on this machine, the open one, and other \
         averages of a file; files that are dropped here are added, too",
    );
}

/// What stands beside the pictures.
fn captions(
    row: &Row,
    quality: Quality,
    (develop, queue): (&Develop, &Queue),
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    ui.horizontal(|ui| {
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let does = format!("Remove {}", row.name);
            let remove = ui.small_button("×");
            remove.widget_info(|| {
                egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &does)
            });
            if remove.on_hover_text(&does).clicked() {
                actions.push(Action::RemoveFromComparison(row.id));
            }
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                let name = RichText::new(&row.name).strong();
                // Two runs have files of one name.
                let path = row.paths.model.as_ref().map(|path| path.display().to_string());
                let whole = path.unwrap_or_else(|| row.name.clone());
                ui.add(egui::Label::new(name).truncate()).on_hover_text(whole);
            });
        });
    });
    for caption in row.captions(quality) {
        line(ui, RichText::new(caption).weak());
    }
    let warning = ui.visuals().warn_fg_color;
    match row.stage(queue) {
        Stage::Ready | Stage::Done => {}
        Stage::Reading => line(ui, "reading its files…".into()),
        Stage::Waiting => line(ui, "waiting".into()),
        Stage::Stopped => line(ui, "stopped".into()),
        Stage::LeftOut(reason) | Stage::Failed(reason) => {
            line(ui, RichText::new(reason).color(warning));
        }
        Stage::Running => {
            let running = develop.running.as_ref();
            progress(row, running, running.is_some_and(|job| queue.is_cancelled(job.job)), ui);
        }
    }
}

/// A text over the width that there is.
fn line(ui: &mut egui::Ui, text: RichText) {
    ui.add(egui::Label::new(text).wrap());
}

/// How far a row is that is at work.
fn progress(row: &Row, running: Option<&Running>, stopping: bool, ui: &mut egui::Ui) {
    let step = running.and_then(|running| running.step.as_ref());
    let images = row.run.as_ref().map_or(1, |run| run.specs.len());
    let (share, words) = match step {
        None => (0.0, "getting ready".to_string()),
        Some(step) => {
            let of_these = step.total.map_or(0.0, |n| step.index as f32 / n.max(1) as f32);
            let done = step.first as f32 + of_these * step.images.len() as f32;
            let of = step.total.map_or(String::new(), |total| format!(" of {total}"));
            let last = step.first + step.images.len();
            let which = match (images, step.images.len()) {
                (1, _) => String::new(),
                (n, 1) => format!("picture {last} of {n}, "),
                (n, _) => format!("pictures {} to {last} of {n}, ", step.first + 1),
            };
            (done / images as f32, format!("{which}step {}{of}", step.index + 1))
        }
    };
    let bar = ui.add(egui::ProgressBar::new(share).desired_height(6.0));
    bar.widget_info(|| {
        let role = egui::accesskit::Role::ProgressIndicator;
        let mut info = egui::WidgetInfo::labeled(role, true, format!("Progress of {}", row.name));
        info.value = Some((f64::from(share) * 100.0).floor());
        info
    });
    let words = if stopping { format!("{words}, stopping") } else { words };
    line(ui, words.into());
}

/// The pictures of a row: finished ones, of which a click shows one large, those in the making, and the places of
/// those to come.
fn pictures(row: &mut Row, develop: &Develop, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let Some(run) = &mut row.run else { return };
    let width = ui.available_width().max(SIDE);
    let columns = (((width + GAP) / (SIDE + GAP)) as usize).max(1);
    let lines = run.specs.len().div_ceil(columns);
    let size = vec2(width, lines as f32 * (SIDE + GAP));
    let (area, _) = ui.allocate_exact_size(size, Sense::hover());
    let at_work = develop.running.as_ref().filter(|running| running.job == run.job);
    let first = at_work.and_then(|running| running.step.as_ref()).map(|step| step.first);
    let live = first.map_or_else(Vec::new, |_| develop.live.textures());
    for at in 0..run.specs.len() {
        let corner = vec2((at % columns) as f32, (at / columns) as f32) * (SIDE + GAP);
        let cell = Rect::from_min_size(area.min + corner, vec2(SIDE, SIDE));
        ui.painter().rect_filled(cell, 4.0, ui.visuals().extreme_bg_color);
        let title = format!("{}, {}", run.title(&run.specs[at]), row.name);
        let id = ui.scope_id().with(("compared", at));
        if let Some(finished) = run.pictures.get_mut(at) {
            let rect = fit(finished.size(), cell);
            if ui.is_rect_visible(rect) {
                paint(ui, finished.texture(ui.ctx()).id, rect);
            }
            let response = ui.interact(rect, id, Sense::click());
            let does = format!("Show {title}");
            response.widget_info(|| {
                egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &does)
            });
            picture::outline(ui, &response, rect);
            if response.on_hover_text(title).clicked() {
                actions.push(Action::Show(View::Picture(finished.id)));
            }
        } else if let Some(texture) = first.and_then(|first| live.get(at.checked_sub(first)?)) {
            let rect = fit(texture.size, cell);
            paint(ui, texture.id, rect);
            let response = ui.interact(rect, id, Sense::hover());
            response.widget_info(|| {
                let name = format!("{title} developing");
                egui::WidgetInfo::labeled(egui::accesskit::Role::Image, true, name)
            });
        }
    }
}
