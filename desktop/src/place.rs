//! Where on the screens a window lies.

use eframe::egui::{Rect, vec2};

/// Height of a window's upper edge, by which it is moved, in pixels.
const EDGE: f32 = 24.0;
/// How much of the edge's width is enough to take hold of.
const HOLD: f32 = 80.0;

/// Whether enough of a window's upper edge is on a screen to move it from there. All are in pixels.
pub fn is_reachable(window: Rect, screens: &[Rect]) -> bool {
    let edge = Rect::from_min_size(window.min, vec2(window.width(), EDGE));
    screens.iter().any(|screen| {
        let seen = screen.intersect(edge);
        seen.width() >= HOLD && seen.height() >= EDGE / 2.0
    })
}

/// Brings a window that cannot be reached back to the first screen, as where the screen that it was on is gone.
pub(crate) fn bring_back(cc: &eframe::CreationContext<'_>) {
    let Some(window) = cc.winit_window() else { return };
    // Wayland tells no places, and finds them itself.
    let Ok(at) = window.outer_position() else { return };
    let size = window.outer_size();
    let rect = |x: i32, y: i32, width: u32, height: u32| {
        Rect::from_min_size([x as f32, y as f32].into(), [width as f32, height as f32].into())
    };
    let monitors: Vec<_> = window.available_monitors().collect();
    let screens: Vec<Rect> = monitors
        .iter()
        .map(|monitor| {
            let (at, size) = (monitor.position(), monitor.size());
            rect(at.x, at.y, size.width, size.height)
        })
        .collect();
    if is_reachable(rect(at.x, at.y, size.width, size.height), &screens) {
        return;
    }
    if let Some(first) = window.primary_monitor().or(monitors.into_iter().next()) {
        window.set_outer_position(first.position());
    }
}

#[cfg(test)]
mod tests {
    use eframe::egui::pos2;

    use super::*;

    #[test]
    fn a_window_is_reached_by_its_upper_edge() {
        let screen = |x: f32, y: f32| Rect::from_min_size(pos2(x, y), vec2(1920.0, 1080.0));
        let two = [screen(0.0, 0.0), screen(-1920.0, 200.0)];
        let at = |x: f32, y: f32| Rect::from_min_size(pos2(x, y), vec2(1180.0, 780.0));
        for (x, y) in
            [(0.0, 0.0), (-8.0, -8.0), (1800.0, 1000.0), (-1500.0, 300.0), (-2900.0, 900.0)]
        {
            assert!(is_reachable(at(x, y), &two), "{x}, {y}");
        }
        for (x, y) in
            [(1900.0, 0.0), (0.0, -100.0), (0.0, 1079.0), (-1500.0, 0.0), (5000.0, 5000.0)]
        {
            assert!(!is_reachable(at(x, y), &two), "{x}, {y}");
        }
        // The screen on the left is gone.
        assert!(!is_reachable(at(-1500.0, 300.0), &two[..1]));
    }
}
