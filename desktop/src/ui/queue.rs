//! The jobs: the running one and those that wait.

use eframe::egui::{self, RichText};

use crate::action::Action;
use crate::app::App;
use crate::queue::Job;

pub fn show(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.label(RichText::new("Queue").strong());
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let all = ui.small_button("Stop all");
            let tip =
                "Empties the queue and stops after the step in hand; finished pictures are kept";
            if all.on_hover_text(tip).clicked() {
                actions.push(Action::CancelAll);
            }
        });
    });
    if let Some(job) = app.queue.running() {
        row(job, None, app.queue.is_cancelled(job.id), ui, actions);
    }
    let count = app.queue.waiting().len();
    egui::ScrollArea::vertical().max_height(160.0).show(ui, |ui| {
        for (at, job) in app.queue.waiting().enumerate() {
            row(job, Some((at, count)), false, ui, actions);
        }
    });
}

/// `place` is the number among those that wait, and how many wait.
fn row(
    job: &Job,
    place: Option<(usize, usize)>,
    stopping: bool,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    ui.horizontal(|ui| {
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let name = &job.name;
            let mut button = |ui: &mut egui::Ui, text: &str, does: String, enabled, action| {
                let button = ui.add_enabled(enabled, egui::Button::new(text).small());
                button.widget_info(|| {
                    egui::WidgetInfo::labeled(egui::accesskit::Role::Button, enabled, &does)
                });
                if button.on_hover_text(&does).clicked() {
                    actions.push(action);
                }
            };
            let cancel = Action::Cancel(job.id);
            match place {
                None => button(ui, "×", format!("Stop {name}"), !stopping, cancel),
                Some((at, count)) => {
                    button(ui, "×", format!("Remove {name}"), true, cancel);
                    let down = Action::Shift(job.id, 1);
                    button(ui, "⏷", format!("Move {name} down"), at + 1 < count, down);
                    let up = Action::Shift(job.id, -1);
                    button(ui, "⏶", format!("Move {name} up"), at > 0, up);
                }
            }
            ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                let count = job.images.len();
                let text = match (place, count) {
                    (None, _) if stopping => format!("{name}, stopping"),
                    (None, _) => format!("{name}, {} of {count}", job.done + 1),
                    (Some(_), 1) => name.clone(),
                    (Some(_), _) => format!("{name}, {count} pictures"),
                };
                let text = if place.is_none() { RichText::new(text).strong() } else { text.into() };
                ui.add(egui::Label::new(text).truncate());
            });
        });
    });
}
