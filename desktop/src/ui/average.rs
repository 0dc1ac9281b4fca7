//! The choice of one of the averages that a network's file holds.

use eframe::egui::{self, Ui};

use super::controls::{grid, row};
use crate::action::Action;
use crate::model::Model;

/// Points that the list is wide.
const LIST: f32 = 140.0;

/// The averages by the names that the file has; shown only where there are several.
pub(super) fn show(model: &Model, ui: &mut Ui, actions: &mut Vec<Action>) {
    if model.averages.is_empty() {
        return;
    }
    let present = model.average();
    let numbered = || (1..).zip(&model.averages);
    let shown = numbered().find(|(number, _)| *number == present);
    let tip = "Which of the moving averages (EMA) of the weights that the file holds; another one \
               loads the network again";
    grid(ui, "average", |ui| {
        row(ui, "Average", tip, |ui| {
            egui::ComboBox::from_id_salt("average")
                .selected_text(shown.map_or("", |(_, average)| average.name.as_str()))
                .width(LIST)
                .truncate()
                .show_ui(ui, |ui| {
                    for (number, average) in numbered() {
                        let is_present = number == present;
                        let choice = ui.selectable_label(is_present, average.name.as_str());
                        if choice.clicked() && !is_present {
                            actions.push(Action::Average(number));
                        }
                    }
                })
                .response
        });
    });
}
