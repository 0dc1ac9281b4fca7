//! Finished pictures: those of the session and those of the output folder, the latest first.

mod loader;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui;
use tintype::generate::Origin;

pub use loader::Size;
use loader::{Loader, LoaderEvent};

use crate::engine::{Made, save};

/// A picture.
pub struct Entry {
    /// Its number in this session.
    pub id: u64,
    /// Its file, if it is saved.
    pub path: Option<PathBuf>,
    /// How it was made, once that is read; other programs' pictures do not say.
    pub origin: Option<Origin>,
    /// What the latent of a Hi-DiT decodes to, for pictures of this session.
    pub latent: Option<Shown>,
    /// The picture at the size of a thumbnail and at its own.
    thumb: Option<Shown>,
    full: Option<Shown>,
    /// The file's content, while it is in memory.
    png: Option<Arc<Vec<u8>>>,
    /// Sizes that the loader was asked for.
    asked: [bool; 2],
    /// Why it cannot be shown.
    pub trouble: Option<String>,
}

/// An image, and the texture of it once it was drawn.
pub struct Shown {
    image: Arc<egui::ColorImage>,
    texture: Option<egui::TextureHandle>,
}

impl Shown {
    /// An image that was not drawn yet.
    pub fn new(image: Arc<egui::ColorImage>) -> Self {
        Self { image, texture: None }
    }

    /// Its texture, made on the first call.
    pub fn texture(&mut self, ctx: &egui::Context) -> egui::load::SizedTexture {
        let texture = self.texture.get_or_insert_with(|| {
            ctx.load_texture("picture", self.image.clone(), egui::TextureOptions::LINEAR)
        });
        egui::load::SizedTexture::from_handle(texture)
    }
}

/// A deleted picture.
struct Deleted {
    at: usize,
    entry: Entry,
}

/// All pictures.
pub struct Gallery {
    entries: Vec<Entry>,
    deleted: Vec<Deleted>,
    loader: Loader,
    folder: PathBuf,
    last_id: u64,
}

/// Pictures of this session whose pixels stay in memory.
const IN_MEMORY: usize = 64;
/// Thumbnails that stay on the device.
const THUMBS: usize = 600;

impl Gallery {
    /// The pictures of a folder, which are listed by and by.
    pub fn open(folder: &Path, ctx: egui::Context) -> Self {
        let loader = Loader::start(ctx);
        loader.list(folder.into());
        Self { entries: Vec::new(), deleted: Vec::new(), loader, folder: folder.into(), last_id: 0 }
    }

    /// Goes to another folder; pictures of this session stay.
    pub fn set_folder(&mut self, folder: &Path) {
        self.entries.retain(|entry| entry.png.is_some());
        self.folder = folder.into();
        self.loader.list(folder.into());
    }

    /// The pictures, the latest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A picture by its number.
    pub fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }

    /// The picture after (1) or before (−1) one.
    pub fn neighbour(&self, id: u64, by: isize) -> Option<u64> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        Some(self.entries.get(at.checked_add_signed(by)?)?.id)
    }

    /// Adds a finished picture; returns its number: the old one where the same picture was made again.
    pub fn add(&mut self, made: Made) -> u64 {
        let path = made.saved.and_then(Result::ok);
        // Two entries of one file would lose it together.
        let older = self.entries.iter().position(|entry| path.is_some() && entry.path == path);
        let id = match older {
            Some(at) => self.entries.remove(at).id,
            None => self.next_id(),
        };
        let entry = Entry {
            path,
            origin: Some(made.origin),
            latent: made.latent.map(Shown::new),
            thumb: Some(Shown::new(made.image.clone())),
            full: Some(Shown::new(made.image)),
            png: Some(made.png),
            ..self.empty(id)
        };
        self.entries.insert(0, entry);
        // Older ones can be read again.
        for entry in self.entries.iter_mut().filter(|e| e.png.is_some()).skip(IN_MEMORY) {
            if entry.path.is_some() {
                (entry.png, entry.full, entry.latent, entry.thumb) = (None, None, None, None);
                entry.asked = [false; 2];
            }
        }
        id
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn empty(&self, id: u64) -> Entry {
        Entry {
            id,
            path: None,
            origin: None,
            latent: None,
            thumb: None,
            full: None,
            png: None,
            asked: [false; 2],
            trouble: None,
        }
    }

    /// Takes in what was loaded since the last call.
    pub fn update(&mut self) {
        for event in self.loader.events() {
            match event {
                LoaderEvent::Listed(folder, files) if folder == self.folder => self.list(files),
                LoaderEvent::Listed(..) => {}
                LoaderEvent::Loaded { id, size, result } => {
                    let Some(entry) = self.get_mut(id) else { continue };
                    match result {
                        Ok(file) => {
                            let shown = Some(Shown::new(Arc::new(file.image)));
                            match size {
                                Size::Thumb => entry.thumb = shown,
                                Size::Full => entry.full = shown,
                            }
                            entry.origin = entry.origin.take().or(file.origin);
                        }
                        Err(trouble) => entry.trouble = Some(trouble),
                    }
                }
            }
        }
    }

    fn list(&mut self, files: Vec<PathBuf>) {
        for path in files {
            if self.entries.iter().any(|entry| entry.path.as_ref() == Some(&path)) {
                continue;
            }
            let id = self.next_id();
            let entry = Entry { path: Some(path), ..self.empty(id) };
            self.entries.push(entry);
        }
    }

    /// The texture of a picture, or nothing while it is being loaded.
    pub fn texture(
        &mut self,
        id: u64,
        size: Size,
        ctx: &egui::Context,
    ) -> Option<egui::load::SizedTexture> {
        let Self { entries, loader, .. } = self;
        let entry = entries.iter_mut().find(|entry| entry.id == id)?;
        let shown = match size {
            Size::Thumb => &mut entry.thumb,
            Size::Full => &mut entry.full,
        };
        if let Some(shown) = shown {
            return Some(shown.texture(ctx));
        }
        let asked = &mut entry.asked[size as usize];
        if let (false, Some(path)) = (*asked, &entry.path) {
            *asked = true;
            loader.load(id, size, path.clone());
        }
        None
    }

    /// The texture of what a picture's latent decodes to.
    pub fn latent(&mut self, id: u64, ctx: &egui::Context) -> Option<egui::load::SizedTexture> {
        Some(self.get_mut(id)?.latent.as_mut()?.texture(ctx))
    }

    /// Lets go of thumbnails that are far from the ones on the screen.
    pub fn forget_thumbs(&mut self, visible: std::ops::Range<usize>) {
        let loaded = self.entries.iter().filter(|entry| entry.thumb.is_some()).count();
        if loaded <= THUMBS {
            return;
        }
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if !visible.contains(&at) && entry.path.is_some() {
                entry.thumb = None;
                entry.asked[Size::Thumb as usize] = false;
            }
        }
    }

    /// Lets go of large pictures but those of the given numbers, where the disk has them.
    pub fn forget_large(&mut self, keep: &[u64]) {
        for entry in &mut self.entries {
            if entry.full.is_some() && entry.png.is_none() && !keep.contains(&entry.id) {
                entry.full = None;
                entry.asked[Size::Full as usize] = false;
            }
        }
    }

    /// The pixels of a picture that is on the screen.
    pub fn image(&self, id: u64) -> Option<egui::ColorImage> {
        let full = self.get(id)?.full.as_ref()?;
        Some((*full.image).clone())
    }

    /// Writes a picture under a name of somebody's choice; the error is a sentence.
    ///
    /// # Errors
    ///
    /// A sentence where the picture is gone, cannot be read, or cannot be written there.
    pub fn save_as(&self, id: u64, path: &Path) -> Result<(), String> {
        let png = self.content(id)?;
        tintype::files::write_whole(path, &png).map_err(|e| format!("{e}: {}", e.source))
    }

    /// Saves what could not be saved before; returns how many pictures.
    ///
    /// # Errors
    ///
    /// A sentence where a picture cannot be written; those before it are saved.
    pub fn save_unsaved(&mut self) -> Result<usize, String> {
        let saved = self.write_unsaved();
        // The same picture, made twice, went into one file.
        let mut files = HashSet::new();
        self.entries
            .retain(|entry| entry.path.as_ref().is_none_or(|path| files.insert(path.clone())));
        saved
    }

    fn write_unsaved(&mut self) -> Result<usize, String> {
        let mut saved = 0;
        for entry in &mut self.entries {
            if let (None, Some(png), Some(origin)) = (&entry.path, &entry.png, &entry.origin) {
                entry.path = Some(save(&self.folder, &origin.file_stem(), png)?);
                saved += 1;
            }
        }
        Ok(saved)
    }

    fn content(&self, id: u64) -> Result<Arc<Vec<u8>>, String> {
        let entry = self.get(id).ok_or("The picture is gone.")?;
        match (&entry.png, &entry.path) {
            (Some(png), _) => Ok(png.clone()),
            (None, Some(path)) => {
                let read = std::fs::read(path).map(Arc::new);
                read.map_err(|e| format!("{} cannot be read: {e}", path.display()))
            }
            (None, None) => Err("The picture is gone.".into()),
        }
    }

    /// Deletes a picture and its file; whether [`undo`](Self::undo) brings both back: not where the file was gone
    /// already and is not in memory.
    ///
    /// # Errors
    ///
    /// A sentence where the picture is gone, or its file cannot be read or deleted.
    pub fn delete(&mut self, id: u64) -> Result<bool, String> {
        let at = self.entries.iter().position(|entry| entry.id == id);
        let at = at.ok_or("The picture is gone.")?;
        let Entry { path, png, .. } = &self.entries[at];
        let is_missing = path.as_ref().is_some_and(|path| matches!(path.try_exists(), Ok(false)));
        let png = match is_missing && png.is_none() {
            true => None,
            false => Some(self.content(id)?),
        };
        if let Some(path) = path
            && let Err(e) = std::fs::remove_file(path)
            && e.kind() != ErrorKind::NotFound
        {
            return Err(format!("{} cannot be deleted: {e}", path.display()));
        }
        let mut entry = self.entries.remove(at);
        let comes_back = png.is_some();
        if comes_back {
            entry.png = png;
            self.deleted.push(Deleted { at, entry });
        }
        Ok(comes_back)
    }

    /// Brings back the picture that was deleted last, beside one that took its name; returns its number.
    ///
    /// # Errors
    ///
    /// A sentence where the file cannot be written again; the picture is back in the gallery all
    /// the same.
    pub fn undo(&mut self) -> Result<Option<u64>, String> {
        let Some(Deleted { at, mut entry }) = self.deleted.pop() else { return Ok(None) };
        let id = entry.id;
        let mut trouble = None;
        if let (Some(path), Some(png)) = (&entry.path, &entry.png) {
            match tintype::files::write_beside(path, png) {
                Ok(path) => {
                    let there =
                        self.entries.iter().find(|other| other.path.as_ref() == Some(&path));
                    // It was made again meanwhile.
                    if let Some(there) = there {
                        return Ok(Some(there.id));
                    }
                    entry.path = Some(path);
                }
                Err(e) => {
                    trouble = Some(format!("{e}: {}", e.source));
                    entry.path = None;
                }
            }
        }
        self.entries.insert(at.min(self.entries.len()), entry);
        trouble.map_or(Ok(Some(id)), Err)
    }

    /// Whether there is something to bring back.
    pub fn can_undo(&self) -> bool {
        !self.deleted.is_empty()
    }
}

#[cfg(test)]
mod tests;
