//! The classes: search, favourites, recent ones, several at once; the keyboard first.

use eframe::egui::{self, RichText};
use tintype::labels::{LabelError, Labels};

use super::search_field;
use crate::action::Action;
use crate::app::App;
use crate::search::Picker;
use crate::text;

/// A line of the list.
enum Row {
    Heading(&'static str),
    Class(usize),
}

/// The panel.
pub(super) fn show(app: &mut App, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    app.picker.sharing = 0;
    app.picker.picked &= !app.preferences.form.classes.is_empty();
    let Some(labels) = app.model().map(|model| model.inspection.labels.clone()) else {
        ui.label(RichText::new("Classes").strong());
        return;
    };
    egui::Panel::bottom("generate").show_separator_line(false).show(ui, |ui| {
        chosen(app, &labels, ui, actions);
        generate(app, &labels, ui, actions);
    });
    if labels.is_empty() {
        ui.label("This model has no classes.");
        return;
    }
    search(app, ui);
    let called = labels.called(&app.picker.query).len();
    app.picker.sharing = if called > 1 { called } else { 0 };
    if app.picker.sharing > 0 {
        let name = app.picker.query.trim();
        let sentence =
            format!("{called} classes are called “{name}”: pick one (arrow keys, then Enter).");
        ui.add(egui::Label::new(sentence).wrap());
    }
    let rows = rows(app, &labels);
    app.picker.found = rows
        .iter()
        .filter_map(|row| match row {
            Row::Class(class) => Some(*class),
            Row::Heading(_) => None,
        })
        .collect();
    if rows.is_empty() {
        nothing(app, &labels, ui);
        return;
    }
    list(app, &labels, &rows, ui, actions);
}

fn search(app: &mut App, ui: &mut egui::Ui) {
    let id = app.picker.search_id();
    let words = ["Search classes", "Search: name, synonym or number"];
    let Picker { query, wants_focus, .. } = &mut app.picker;
    if search_field::show(ui, id, words, query, wants_focus).changed() {
        app.picker.restart();
    }
}

/// What was found; without a search favourites and recent classes before all others.
fn rows(app: &App, labels: &Labels) -> Vec<Row> {
    let query = app.picker.query.trim();
    if !query.is_empty() {
        return labels.search(query).into_iter().map(|(class, _)| Row::Class(class)).collect();
    }
    let mut rows = Vec::new();
    let mut section = |name, classes: &[usize]| {
        let classes: Vec<_> = classes.iter().filter(|class| **class < labels.len()).collect();
        if !classes.is_empty() {
            rows.push(Row::Heading(name));
            rows.extend(classes.into_iter().map(|class| Row::Class(*class)));
        }
    };
    if let Some(of_model) = app.of_model() {
        section("Favourites", &of_model.favourites);
        section("Recent", &of_model.recent);
    }
    let all: Vec<usize> = (0..labels.len()).collect();
    section("All classes", &all);
    rows
}

fn list(
    app: &mut App,
    labels: &Labels,
    rows: &[Row],
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let height = ui.spacing().interact_size.y + 4.0;
    let moved = std::mem::take(&mut app.picker.moved);
    let at = app.picker.found.get(app.picker.at).copied();
    // The place of the keyboard among all rows: headings are in between.
    let mut classes = 0;
    let place = rows.iter().position(|row| match row {
        Row::Class(_) => {
            classes += 1;
            classes == app.picker.at + 1
        }
        Row::Heading(_) => false,
    });
    let mut area = egui::ScrollArea::vertical().auto_shrink([false, false]);
    if let (true, Some(place)) = (moved, place) {
        let row = height + ui.spacing().item_spacing.y;
        let middle = place as f32 * row - ui.available_height() / 2.0;
        area = area.vertical_scroll_offset(middle.max(0.0));
    }
    // Enter takes the marked class only after the keyboard was used.
    app.picker.moved = moved && at.is_some() || app.picker.at > 0;
    let searching = !app.picker.query.trim().is_empty() && app.picker.sharing == 0;
    let takes_marked = !app.picker.picked && (app.picker.moved || searching);
    let marked = takes_marked.then_some(place).flatten();
    let before = actions.len();
    area.show_rows(ui, height, rows.len(), |ui, visible| {
        for index in visible {
            match &rows[index] {
                Row::Heading(name) => {
                    let size = egui::vec2(ui.available_width(), height);
                    let layout = egui::Layout::left_to_right(egui::Align::Max);
                    ui.allocate_ui_with_layout(size, layout, |ui| {
                        ui.label(RichText::new(*name).weak().small());
                    });
                }
                Row::Class(class) => {
                    row(app, labels, *class, (index, marked == Some(index)), height, ui, actions);
                }
            }
        }
    });
    let is_choice = |action: &Action| matches!(action, Action::Choose { .. });
    app.picker.picked |= actions[before..].iter().any(is_choice);
}

/// A class: star, name, number, and a button that adds it to the others.
fn row(
    app: &App,
    labels: &Labels,
    class: usize,
    (index, marked): (usize, bool),
    height: f32,
    ui: &mut egui::Ui,
    actions: &mut Vec<Action>,
) {
    let name = labels.name(class);
    let short = text::short(&name).to_string();
    let chosen = app.preferences.form.classes.contains(&class);
    let favourite = app.of_model().is_some_and(|of_model| of_model.favourites.contains(&class));
    let button = |ui: &mut egui::Ui, text: &str, does: String| {
        let button = ui.add(egui::Button::new(text).frame(false));
        button
            .widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &does));
        button.on_hover_text(does).clicked()
    };
    ui.push_id((index, class), |ui| {
        ui.horizontal(|ui| {
            ui.set_height(height);
            let (star, does) = match favourite {
                true => ("★", format!("Take the star from {short}")),
                false => ("☆", format!("Give {short} a star")),
            };
            if button(ui, star, does) {
                actions.push(Action::Favourite(class));
            }
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let (text, does) = match chosen {
                    true => ("−", format!("Take {short} out")),
                    false => ("+", format!("Add {short}")),
                };
                if button(ui, text, does) {
                    actions.push(Action::Choose { class, add: true });
                }
                let width = ui.available_width();
                // Classes without names are known by their numbers alone.
                let number = if short == class.to_string() { "" } else { &class.to_string() };
                // What shares its name is told apart by its other ones.
                let alike = app.picker.found.iter().take(app.picker.sharing).any(|c| *c == class);
                let label = egui::Button::selectable(
                    chosen,
                    if alike { name.as_str() } else { short.as_str() },
                )
                .right_text(RichText::new(number).weak())
                .truncate()
                .min_size(egui::vec2(width, 0.0));
                let response = ui.add(label);
                if marked {
                    let stroke = egui::Stroke::new(1.5, ui.visuals().hyperlink_color);
                    let inside = egui::StrokeKind::Inside;
                    ui.painter().rect_stroke(response.rect, 4.0, stroke, inside);
                }
                response.widget_info(|| {
                    let role = egui::accesskit::Role::Button;
                    egui::WidgetInfo::selected(
                        role,
                        true,
                        chosen,
                        format!("{short}, class {class}"),
                    )
                });
                let add = ui.input(|input| input.modifiers.command || input.modifiers.shift);
                let response = response.on_hover_text(format!("{name} (class {class})"));
                if response.double_clicked() {
                    actions.push(Action::Generate);
                } else if response.clicked() {
                    actions.push(Action::Choose { class, add });
                }
            });
        });
    });
}

/// Nothing found: says what is near.
fn nothing(app: &mut App, labels: &Labels, ui: &mut egui::Ui) {
    let query = app.picker.query.trim().to_string();
    ui.label(format!("No class matches “{query}”."));
    if let Err(LabelError::Unknown { near, .. }) = labels.find(&query) {
        for name in near {
            let name = text::short(&name);
            if ui.button(format!("Did you mean {name}?")).clicked() {
                app.picker.query = name.to_string();
                app.picker.restart();
            }
        }
    }
}

/// The chosen classes; a click takes one out.
fn chosen(app: &App, labels: &Labels, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    let classes = &app.preferences.form.classes;
    if classes.is_empty() || labels.is_empty() {
        return;
    }
    ui.add_space(4.0);
    egui::ScrollArea::vertical().max_height(96.0).id_salt("chosen").show(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            for class in classes {
                let name = labels.name(*class);
                let short = text::short(&name);
                let chip = ui.add(egui::Button::new(format!("{short} ×")).small().selected(true));
                let does = format!("Remove {short} from the choice");
                chip.widget_info(|| {
                    egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, &does)
                });
                if chip.on_hover_text(does).clicked() {
                    actions.push(Action::Choose { class: *class, add: true });
                }
            }
        });
    });
}

/// The buttons that everything leads to.
fn generate(app: &App, labels: &Labels, ui: &mut egui::Ui, actions: &mut Vec<Action>) {
    ui.add_space(4.0);
    let form = &app.preferences.form;
    let count = form.count * if labels.is_empty() { 1 } else { form.classes.len() };
    let keeps = app.keeps();
    let text = match count {
        _ if keeps => "Keep".into(),
        0 | 1 => "Generate".into(),
        n => format!("Generate {n}"),
    };
    ui.vertical_centered_justified(|ui| {
        let button = egui::Button::new(RichText::new(text).size(16.0).strong())
            .fill(ui.visuals().selection.bg_fill)
            .min_size(egui::vec2(0.0, 34.0));
        let tip = match keeps {
            true => "Saves the live picture and adds it to the gallery (Enter)",
            false => "Makes the pictures; while others are made they wait in the queue (Enter)",
        };
        if ui.add_enabled(!keeps || app.can_keep(), button).on_hover_text(tip).clicked() {
            actions.push(Action::Generate);
        }
        let tip = "A picture of any class (Ctrl+R)";
        if !labels.is_empty() && ui.button("Surprise me").on_hover_text(tip).clicked() {
            actions.push(Action::Surprise);
        }
    });
    ui.add_space(4.0);
}
