//! Colours of iron, varnish and amber light.

use eframe::egui::{self, Color32, CornerRadius, Theme, ThemePreference};

use crate::preferences;

/// The latent stream.
pub const LATENT: Color32 = Color32::from_rgb(0x5b, 0x8d, 0xb8);
/// The pixel stream.
pub const PIXELS: Color32 = Color32::from_rgb(0xd8, 0x96, 0x3c);

/// Sets fonts, colours and distances of both themes.
pub fn apply(ctx: &egui::Context) {
    for (theme, accent, panel) in [
        (Theme::Dark, Color32::from_rgb(0x8a, 0x5a, 0x1e), Color32::from_rgb(0x1d, 0x1c, 0x1b)),
        (Theme::Light, Color32::from_rgb(0xf0, 0xc9, 0x85), Color32::from_rgb(0xf5, 0xf2, 0xec)),
    ] {
        ctx.style_mut_of(theme, |style| {
            let visuals = &mut style.visuals;
            visuals.panel_fill = panel;
            visuals.window_fill = panel;
            visuals.selection.bg_fill = accent;
            visuals.selection.stroke.color = match theme {
                Theme::Dark => Color32::WHITE,
                Theme::Light => Color32::BLACK,
            };
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
