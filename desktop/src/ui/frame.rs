//! One frame: what other threads did, what is seen, what people want done.

use std::sync::atomic::Ordering;
use std::time::Duration;

use eframe::egui;

use crate::app::{App, Networks};

/// A frame of a common screen.
const SIXTIETH: Duration = Duration::from_micros(16_667);

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        self.update(ctx);
        if self.window_lost.swap(false, Ordering::Relaxed) {
            self.leave_lost_window();
        }
    }

    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        if let Some(times) = &mut self.frame_times {
            let developing = self.queue.running().is_some();
            times.frame(developing);
            if developing {
                ui.ctx().request_repaint_after(SIXTIETH);
            }
        }
        let mut actions = super::keys::actions(self, ui.ctx());
        super::show(self, ui, &mut actions);
        self.focused = ui.ctx().memory(|memory| memory.focused());
        self.picker.enter(&mut actions);
        let ctx = ui.ctx().clone();
        for action in actions {
            self.act(action, &ctx);
        }
        self.pursue();
        self.remember(&ctx);
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        crate::style::background(visuals).to_normalized_gamma_f32()
    }

    fn on_exit(&mut self) {
        self.queue.cancel_all();
        self.browser.pause_all();
        self.close_settings();
        if let (Some(times), Networks::Ready(ready)) = (&self.frame_times, &self.networks) {
            let shared = if ready.shared { ", which also drew the window" } else { "" };
            eprintln!("{times}; networks on {}{shared}", ready.device);
        }
    }
}
