//! Errors of the device that draws the window. wgpu ends the process for them unless somebody listens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::{egui, wgpu};

/// Listens to a device that window and networks share.
#[derive(Debug, Default)]
pub struct Watch {
    /// When the window's surface was last refused.
    refused: Mutex<Option<Instant>>,
    /// What else went wrong.
    failure: Mutex<Option<String>>,
}

/// How long the networks stay away after the window was refused its surface.
const PAUSE: Duration = Duration::from_millis(120);

impl Watch {
    /// Listens from now on; `ctx` is of the window that the device draws.
    pub fn listen(self: &Arc<Self>, device: &wgpu::Device, ctx: egui::Context) {
        let watch = self.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let text = error.to_string();
            // A surface is configured only while the device is idle: after the next step.
            if text.contains("Surface") || text.contains("surface") {
                *held(&watch.refused) = Some(Instant::now());
            } else {
                let mut reason = text.lines().map(str::trim).filter(|line| !line.is_empty());
                *held(&watch.failure) = reason.next_back().map(String::from);
            }
            ctx.request_repaint();
        }));
    }

    /// Between two steps: lets the window have the device if it waits for it.
    pub fn give_way(&self) {
        while held(&self.refused).is_some_and(|at| at.elapsed() < PAUSE) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What went wrong since the last call.
    pub fn failure(&self) -> Option<String> {
        held(&self.failure).take()
    }
}

fn held<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
