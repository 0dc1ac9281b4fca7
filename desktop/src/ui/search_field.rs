//! A field for what is searched.

use eframe::egui;

/// Draws the field over the width that there is.
///
/// * `words`: what it is called, and the hint in it
/// * `wants_focus`: the keyboard is put into it, once
pub(super) fn show(
    ui: &mut egui::Ui,
    id: egui::Id,
    [name, hint]: [&'static str; 2],
    query: &mut String,
    wants_focus: &mut bool,
) -> egui::Response {
    let field = egui::TextEdit::singleline(query).id(id).hint_text(hint);
    let response = ui.add(field.desired_width(f32::INFINITY));
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::new(egui::accesskit::Role::TextInput);
        info.label = Some(name.into());
        info.current_text_value = Some(query.clone());
        info
    });
    if std::mem::take(wants_focus) {
        response.request_focus();
        // The cursor goes behind what was typed elsewhere.
        if let Some(mut state) = egui::TextEdit::load_state(ui.ctx(), id) {
            let end = egui::text::CCursor::new(query.chars().count());
            state.cursor.set_char_range(Some(egui::text::CCursorRange::one(end)));
            state.store(ui.ctx(), id);
        }
    }
    response
}
