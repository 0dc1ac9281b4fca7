//! The thread that lists folders and decodes pictures.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::SystemTime;

use eframe::egui;
use tintype::generate::Origin;

/// How large a picture is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For the grid.
    Thumb,
    /// As it is.
    Full,
}

/// The longer side of a thumbnail.
const THUMB: u32 = 256;

#[derive(Debug)]
enum Order {
    List(PathBuf),
    Load { id: u64, size: Size, path: PathBuf },
}

/// A picture's file.
#[derive(Debug)]
pub struct File {
    pub image: egui::ColorImage,
    pub origin: Option<Origin>,
}

/// What was done.
#[derive(Debug)]
pub enum LoaderEvent {
    /// The pictures of a folder, the latest first.
    Listed(PathBuf, Vec<PathBuf>),
    /// A picture, or why it cannot be shown.
    Loaded { id: u64, size: Size, result: Result<Box<File>, String> },
}

/// The other end.
#[derive(Debug)]
pub struct Loader {
    orders: Sender<Order>,
    events: Receiver<LoaderEvent>,
}

impl Loader {
    /// Starts the thread.
    pub fn start(ctx: egui::Context) -> Self {
        let (orders, inbox) = channel();
        let (outbox, events) = channel();
        std::thread::spawn(move || {
            for order in inbox {
                let done = match order {
                    Order::List(folder) => LoaderEvent::Listed(folder.clone(), list(&folder)),
                    Order::Load { id, size, path } => {
                        LoaderEvent::Loaded { id, size, result: load(&path, size) }
                    }
                };
                let _ = outbox.send(done);
                ctx.request_repaint();
            }
        });
        Self { orders, events }
    }

    pub fn list(&self, folder: PathBuf) {
        let _ = self.orders.send(Order::List(folder));
    }

    pub fn load(&self, id: u64, size: Size, path: PathBuf) {
        let _ = self.orders.send(Order::Load { id, size, path });
    }

    pub fn events(&self) -> Vec<LoaderEvent> {
        self.events.try_iter().collect()
    }
}

/// A folder that cannot be read has no pictures; saving into it tells why.
fn list(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<(SystemTime, PathBuf)> = files
        .filter_map(|file| file.ok())
        .filter(|file| {
            let path = file.path();
            path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"))
        })
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn load(path: &Path, size: Size) -> Result<Box<File>, String> {
    let name = || path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", name()))?;
    let image = image::load_from_memory(&bytes);
    let image = image.map_err(|e| format!("{} cannot be decoded: {e}", name()))?;
    let image = match size {
        Size::Thumb if image.width().max(image.height()) > THUMB => image.thumbnail(THUMB, THUMB),
        _ => image,
    };
    let pixels = image.to_rgba8();
    let shape = [pixels.width() as usize, pixels.height() as usize];
    Ok(Box::new(File {
        image: egui::ColorImage::from_rgba_unmultiplied(shape, &pixels),
        origin: Origin::read(&bytes).ok(),
    }))
}
