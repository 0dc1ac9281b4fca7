//! From noise to picture: which stream is at work, and when the gate opens.

use eframe::egui::{
    self, Align2, Color32, FontId, Rect, Response, Sense, Stroke, WidgetInfo, vec2,
};

use crate::style::{LATENT, PIXELS};

/// What the line shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// How far, 0 (noise) to 1 (picture).
    pub done: f32,
    /// Where pixels join, on the same scale; `None` for networks with one stream.
    pub gate: Option<f32>,
    /// Whether the only stream is that of pixels.
    pub pixels_only: bool,
    /// In words.
    pub words: String,
}

const HEIGHT: f32 = 14.0;

/// Draws the line over the width that there is.
pub fn show(ui: &mut egui::Ui, line: &Timeline) -> Response {
    let labels = if line.gate.is_some() { 18.0 } else { 0.0 };
    let size = vec2(ui.available_width(), HEIGHT + labels);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    let bar = Rect::from_min_size(rect.min, vec2(rect.width(), HEIGHT));
    let painter = ui.painter();
    let x = |share: f32| bar.left() + bar.width() * share.clamp(0.0, 1.0);
    let part = |from: f32, to: f32| {
        Rect::from_min_max(egui::pos2(x(from), bar.top()), egui::pos2(x(to), bar.bottom()))
    };
    let gate = line.gate.unwrap_or(if line.pixels_only { 0.0 } else { 1.0 });
    let dim = |colour: Color32| colour.gamma_multiply(0.25);
    for (from, to, colour) in [(0.0, gate, LATENT), (gate, 1.0, PIXELS)] {
        painter.rect_filled(part(from, to), 3.0, dim(colour));
        if line.done > from {
            painter.rect_filled(part(from, line.done.min(to)), 3.0, colour);
        }
    }
    if let Some(gate) = line.gate {
        let text = ui.visuals().weak_text_color();
        let font = FontId::proportional(11.0);
        let mark = x(gate);
        painter.vline(mark, rect.y_range(), Stroke::new(1.5, ui.visuals().strong_text_color()));
        let below = bar.bottom() + 3.0;
        let label = |at: f32, align: Align2, words: &str| {
            painter.text(egui::pos2(at, below), align, words, font.clone(), text);
        };
        label(bar.left(), Align2::LEFT_TOP, "latents");
        label(mark + 5.0, Align2::LEFT_TOP, "τ: latents and pixels");
    }
    response.widget_info(|| {
        let mut info =
            WidgetInfo::labeled(egui::accesskit::Role::ProgressIndicator, true, &line.words);
        info.value = Some(f64::from(line.done));
        info
    });
    response.on_hover_text(match line.gate {
        Some(_) => {
            "Left is noise, right the picture. First the network works on latents, a small summary \
             of the picture; past the mark τ it works on the pixels, too."
        }
        None => "Left is noise, right the picture.",
    })
}
