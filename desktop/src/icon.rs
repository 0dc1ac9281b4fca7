//! The icon of the window.

use eframe::icon_data::from_png_bytes;
use egui::IconData;

/// Rendered by `packaging/icons.sh`.
const PNG: &[u8] = include_bytes!("../packaging/icon-128.png");

/// What task bars and window lists show. macOS takes the icon of the bundle, which is finer and would
/// be replaced by this one.
pub fn window_icon() -> IconData {
    if cfg!(target_os = "macos") { IconData::default() } else { decoded() }
}

/// The picture as pixels, or the system's own icon should it not be readable.
fn decoded() -> IconData {
    from_png_bytes(PNG).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_icon_is_opaque_between_transparent_corners() {
        let icon = decoded();
        assert_eq!((icon.width, icon.height), (128, 128));
        let alpha = |x: usize, y: usize| icon.rgba[(y * 128 + x) * 4 + 3];
        assert_eq!([alpha(0, 0), alpha(127, 0), alpha(0, 127), alpha(127, 127)], [0; 4]);
        assert_eq!(alpha(64, 64), 255);
    }
}
