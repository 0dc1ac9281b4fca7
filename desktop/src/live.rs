//! Textures of pictures in the making.

use eframe::egui::load::SizedTexture;
use eframe::{egui, egui_wgpu, wgpu};

use crate::engine::Frame;

/// One texture a picture, reused from step to step.
pub struct Live {
    window: Option<egui_wgpu::RenderState>,
    slots: Vec<Slot>,
}

enum Slot {
    Host(egui::TextureHandle),
    /// Drawn by the device that draws the window; egui keeps only a name for it.
    Gpu {
        id: egui::TextureId,
        texture: wgpu::Texture,
    },
}

impl Live {
    /// For a window that is drawn by this.
    pub fn new(window: Option<egui_wgpu::RenderState>) -> Self {
        Self { window, slots: Vec::new() }
    }

    /// Shows the latest frames.
    pub fn show(&mut self, frames: Vec<Frame>, ctx: &egui::Context) {
        let mut old: Vec<Slot> = std::mem::take(&mut self.slots);
        old.truncate(frames.len());
        let mut old = old.into_iter();
        for frame in frames {
            let slot = match (frame, old.next()) {
                (Frame::Host(image), Some(Slot::Host(mut texture))) => {
                    texture.set(image, egui::TextureOptions::LINEAR);
                    Some(Slot::Host(texture))
                }
                (Frame::Host(image), before) => {
                    before.into_iter().for_each(|slot| self.free(slot));
                    let options = egui::TextureOptions::LINEAR;
                    Some(Slot::Host(ctx.load_texture("developing", image, options)))
                }
                (Frame::Gpu(texture), before) => self.gpu(texture, before),
            };
            self.slots.extend(slot);
        }
    }

    fn gpu(&self, texture: wgpu::Texture, before: Option<Slot>) -> Option<Slot> {
        let window = self.window.as_ref()?;
        let view = texture.create_view(&Default::default());
        let filter = wgpu::FilterMode::Linear;
        let mut renderer = window.renderer.write();
        let id = match before {
            Some(Slot::Gpu { id, .. }) => {
                renderer.update_egui_texture_from_wgpu_texture(&window.device, &view, filter, id);
                id
            }
            _ => renderer.register_native_texture(&window.device, &view, filter),
        };
        Some(Slot::Gpu { id, texture })
    }

    /// Takes all pictures away.
    pub fn clear(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            self.free(slot);
        }
    }

    fn free(&self, slot: Slot) {
        if let (Slot::Gpu { id, .. }, Some(window)) = (slot, &self.window) {
            window.renderer.write().free_texture(&id);
        }
    }

    /// What is shown.
    pub fn textures(&self) -> Vec<SizedTexture> {
        let texture = |slot: &Slot| match slot {
            Slot::Host(texture) => SizedTexture::from_handle(texture),
            Slot::Gpu { id, texture } => {
                let size = egui::vec2(texture.width() as f32, texture.height() as f32);
                SizedTexture::new(*id, size)
            }
        };
        self.slots.iter().map(texture).collect()
    }
}
