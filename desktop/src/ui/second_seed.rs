//! The second seed, and the pictures on the way to it.

use eframe::egui::{self, Ui};
use tintype::settings::Setting;

use super::controls::{range, row};
use crate::action::Action;
use crate::face::label;
use crate::form::{Form, STRIP};

/// Rows of the grid that the first seed is in.
pub(super) fn show(form: &mut Form, ui: &mut Ui, actions: &mut Vec<Action>) {
    let tip = "Pictures may lie between the noise of two seeds; this one counts up with the first";
    let name = ui.label("To seed").on_hover_text(tip);
    ui.horizontal(|ui| {
        let mut is_on = form.to.is_some();
        let switch = ui.checkbox(&mut is_on, "").labelled_by(name.id).on_hover_text(tip);
        if switch.changed() {
            actions.push(Action::SecondSeed(is_on));
        }
        let Some(to) = &mut form.to else { return };
        let seed = egui::DragValue::new(&mut to.seed).speed(1.0);
        ui.add(seed).labelled_by(name.id).on_hover_text(tip);
        let does = "Another second seed";
        let new = ui.small_button("New");
        new.widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, does));
        if new.on_hover_text(does).clicked() {
            actions.push(Action::NewSecondSeed);
        }
    });
    ui.end_row();
    let Some(to) = &mut form.to else { return };
    let tip = "How far a picture is on the way: 0 is that of the seed, 1 that of the second one";
    row(ui, label(Setting::Blend), tip, |ui| {
        // What a strip brought stays as it is.
        let slider = egui::Slider::new(&mut to.amount, range(Setting::Blend));
        ui.add(slider.clamping(egui::SliderClamping::Edits).max_decimals(2))
    });
    ui.label("");
    let tip = format!(
        "Makes {STRIP} pictures of each class, evenly from the seed to the second one, and saves \
         them"
    );
    if ui.button("Interpolate").on_hover_text(tip).clicked() {
        actions.push(Action::Interpolate);
    }
    ui.end_row();
}
