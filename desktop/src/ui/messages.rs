//! Messages below the top bar.

use eframe::egui::{self, RichText};

use crate::action::Action;
use crate::app::App;
use crate::notices::Severity;

pub fn show(app: &App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    for notice in app.notices.shown() {
        ui.horizontal(|ui| {
            let (mark, colour) = match notice.severity {
                Severity::Info => ("i", ui.visuals().hyperlink_color),
                Severity::Trouble => ("!", ui.visuals().warn_fg_color),
            };
            ui.label(RichText::new(mark).strong().color(colour));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if ui.button("Dismiss").clicked() {
                    actions.push(Action::Dismiss(notice.id));
                }
                if let Some((name, action)) = &notice.way_out
                    && ui.button(*name).clicked()
                {
                    actions.push(action.clone());
                    actions.push(Action::Dismiss(notice.id));
                }
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                    ui.add(egui::Label::new(&notice.text).wrap());
                });
            });
        });
    }
}
