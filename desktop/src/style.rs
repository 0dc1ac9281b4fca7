//! Colours of iron, varnish and amber light.

use eframe::egui::{self, Color32, CornerRadius, Theme, ThemePreference};

use crate::preferences;

/// The latent stream.
pub const LATENT: Color32 = Color32::from_rgb(0x5b, 0x8d, 0xb8);
/// The pixel stream.
pub const PIXELS: Color32 = Color32::from_rgb(0xd8, 0x96, 0x3c);

/// What the window is cleared with. Panels draw no background of their own: where a processor draws,
/// filling the window twice more costs most of a frame.
pub fn background(visuals: &egui::Visuals) -> Color32 {
    match visuals.dark_mode {
        true => Color32::from_rgb(0x1d, 0x1c, 0x1b),
        false => Color32::from_rgb(0xf5, 0xf2, 0xec),
    }
}

/// Sets colours and distances of both themes.
pub fn apply(ctx: &egui::Context) {
    for (theme, accent) in [
        (Theme::Dark, Color32::from_rgb(0x8a, 0x5a, 0x1e)),
        (Theme::Light, Color32::from_rgb(0xf0, 0xc9, 0x85)),
    ] {
        ctx.style_mut_of(theme, |style| {
            let visuals = &mut style.visuals;
            visuals.panel_fill = Color32::TRANSPARENT;
            visuals.window_fill = background(visuals);
            visuals.selection.bg_fill = accent;
            visuals.selection.stroke.color = match theme {
                Theme::Dark => Color32::WHITE,
                Theme::Light => Color32::BLACK,
            };
            visuals.override_text_color = Some(match theme {
                Theme::Dark => Color32::from_gray(0xd6),
                Theme::Light => Color32::from_gray(0x28),
            });
            visuals.weak_text_color = Some(match theme {
                Theme::Dark => Color32::from_gray(0x98),
                Theme::Light => Color32::from_gray(0x68),
            });
            for widget in [
                &mut visuals.widgets.inactive,
                &mut visuals.widgets.hovered,
                &mut visuals.widgets.active,
                &mut visuals.widgets.open,
            ] {
                widget.corner_radius = CornerRadius::same(5);
            }
            style.spacing.item_spacing = egui::vec2(8.0, 6.0);
            style.spacing.button_padding = egui::vec2(8.0, 4.0);
        });
    }
}

/// Light, dark, or as the system says.
pub fn set_theme(ctx: &egui::Context, theme: preferences::Theme) {
    ctx.set_theme(match theme {
        preferences::Theme::System => ThemePreference::System,
        preferences::Theme::Light => ThemePreference::Light,
        preferences::Theme::Dark => ThemePreference::Dark,
    });
}
