//! Options that take a file, the name of a published one, or an address.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use tintype::catalogue::{Address, Entry, File, Hub, Kind, Role};
use tintype::labels::printable;
use tintype::settings::Settings;

use super::{DownloadArgs, Library, Watched, all_fetched, ask};
use crate::cli::interrupt::Interruptible;
use crate::cli::model::{ModelArgs, PartsArgs};

/// What a name brings besides files.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The authors' settings.
    pub settings: Option<Settings>,
}

/// An option that waits for its file.
struct Slot<'a> {
    entry: Option<Entry>,
    file: File,
    set: Box<dyn FnOnce(PathBuf) + 'a>,
}

/// Options of a command that may name published files: collected, asked for once, fetched together.
pub struct FileOptions<'a> {
    library: &'a Library,
    slots: Vec<Slot<'a>>,
    /// Files and folders that are given as paths, with their options.
    local: Vec<(String, PathBuf)>,
    /// Whether options are keys, `vae=FILE` in place of `--vae FILE`.
    keys: bool,
    published: Published,
}

/// The entry of a name that an option was given, unless the value is a file or an address.
///
/// # Errors
///
/// If it looks like a name, and there are models of similar ones.
pub fn entry_named<'a>(library: &'a Library, value: &Path) -> Result<Option<&'a Entry>> {
    let Some(text) = value.to_str() else { return Ok(None) };
    if value.exists() || Address::is_meant(text) || text.contains(['/', '\\']) {
        return Ok(None);
    }
    match library.catalogue()?.find(text) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if !error.near.is_empty() && value.extension().is_none() => {
            bail!("there is no file {}, and {error}", printable(text))
        }
        Err(_) => Ok(None),
    }
}

/// The roles of the files that an autoencoder's name stands for: of a RAE those of its decoder and its encoder, of a
/// DINOv2 its own.
///
/// # Errors
///
/// As [`entry_named`].
pub fn autoencoder_roles(library: &Library, value: &Path) -> Result<Vec<Role>> {
    let entry = entry_named(library, value)?;
    let has = |role: &Role| entry.is_some_and(|entry| entry.file(*role).is_some());
    let roles: Vec<Role> = [Role::Autoencoder, Role::DinoV2].into_iter().filter(has).collect();
    Ok(if roles.is_empty() { vec![Role::Autoencoder] } else { roles })
}

/// An entry has to be a network that this version has; `given` is the option with its value.
fn check_network(given: &str, entry: &Entry) -> Result<()> {
    if entry.kind != Kind::Network {
        bail!("{given}: it is not a network ({})", entry.kind.name());
    }
    if !entry.is_supported() {
        let architecture = entry.architecture.as_deref().unwrap_or("it");
        bail!("{given}: this version does not have {architecture} yet");
    }
    Ok(())
}

impl<'a> FileOptions<'a> {
    pub fn new(library: &'a Library) -> Self {
        let (slots, local, published) = (Vec::new(), Vec::new(), Published::default());
        Self { library, slots, local, keys: false, published }
    }

    /// Of a command that has keys in place of options.
    pub fn of_keys(library: &'a Library) -> Self {
        Self { keys: true, ..Self::new(library) }
    }

    /// An option with its value, as it is given.
    fn given(&self, option: &str, value: impl Display) -> String {
        match self.keys {
            true => format!("{}={value}", option.trim_start_matches('-')),
            false => format!("{option} {value}"),
        }
    }

    /// A network's option, with its autoencoder, its statistics and its guide where none are given.
    ///
    /// # Errors
    ///
    /// If a name has no file for an option, or this version does not have the network.
    pub fn parts(&mut self, parts: &'a mut PartsArgs) -> Result<()> {
        self.parts_guided(parts, true)
    }

    /// [`parts`](Self::parts), of which a published network's own guide is left out where it is not wanted.
    ///
    /// # Errors
    ///
    /// As [`parts`](Self::parts).
    pub fn parts_guided(&mut self, parts: &'a mut PartsArgs, own_guide: bool) -> Result<()> {
        let PartsArgs { model, vae, stats, guide } = parts;
        let entry = self.network(model)?;
        self.published.settings = entry.and_then(|entry| entry.sampling);
        self.part("--vae", Role::Autoencoder, vae, entry)?;
        self.part("--stats", Role::Statistics, stats, entry)?;
        let role = match &guide {
            Some(value) => self.role_of_guide(value)?,
            None => Role::Guide,
        };
        self.part("--guide", role, guide, entry.filter(|_| own_guide))
    }

    /// The file of a name that guides: its guide, else the network itself.
    fn role_of_guide(&self, value: &Path) -> Result<Role> {
        let Some(entry) = entry_named(self.library, value)? else { return Ok(Role::Network) };
        check_network(&self.given("--guide", &entry.name), entry)?;
        let guide = self.library.catalogue()?.file(entry, Role::Guide);
        Ok(guide.map_or(Role::Network, |_| Role::Guide))
    }

    /// An option that is given, or the file of its role that a network's entry brings.
    fn part(
        &mut self,
        option: &str,
        role: Role,
        place: &'a mut Option<PathBuf>,
        network: Option<&'a Entry>,
    ) -> Result<()> {
        if place.is_some() {
            return self.file(option, role, place);
        }
        let Some(entry) = network else { return Ok(()) };
        if let Some(found) = self.library.catalogue()?.file(entry, role) {
            self.published_file(found, move |path| *place = Some(path));
        }
        Ok(())
    }

    /// The option of a network alone.
    ///
    /// # Errors
    ///
    /// As [`parts`](Self::parts).
    pub fn model(&mut self, model: &'a mut ModelArgs) -> Result<()> {
        self.network(model).map(|_| ())
    }

    fn network(&mut self, model: &'a mut ModelArgs) -> Result<Option<&'a Entry>> {
        let ModelArgs { model, config, names, .. } = model;
        self.local("--config", config.as_deref());
        self.local("--names", names.names.as_deref());
        let Some(value) = model.clone() else { return Ok(None) };
        let entry = entry_named(self.library, &value)?;
        if let Some(entry) = entry {
            check_network(&self.given("--model", &entry.name), entry)?;
            if let (None, Some(file)) = (&config, entry.file(Role::Config)) {
                self.slot(Some(entry), file, move |path| *config = Some(path));
            }
        }
        self.file("--model", Role::Network, model)?;
        Ok(entry)
    }

    /// An option that may take the name of a published file of this role, or an address.
    ///
    /// # Errors
    ///
    /// If a name has no such file, or an address is none.
    pub fn file(&mut self, option: &str, role: Role, place: &'a mut Option<PathBuf>) -> Result<()> {
        match place.clone() {
            Some(value) => self.path(option, role, &value, move |path| *place = Some(path)),
            None => Ok(()),
        }
    }

    /// A checkpoint of any kind: the first file of a published model.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn any(&mut self, place: &'a mut PathBuf) -> Result<()> {
        let entry = entry_named(self.library, place)?;
        let role = entry.and_then(|entry| entry.files.first()).map_or(Role::Network, |f| f.role);
        self.needed("the checkpoint", role, place)
    }

    /// [`file`](Self::file) of an option that is always given.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn needed(&mut self, option: &str, role: Role, place: &'a mut PathBuf) -> Result<()> {
        let value = place.clone();
        self.path(option, role, &value, move |path| *place = path)
    }

    /// The weights that encode images, of an option that is always given: an autoencoder's, or the DINOv2 of a RAE. Returns
    /// which of them.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn encoder(&mut self, option: &str, place: &'a mut PathBuf) -> Result<Role> {
        let roles = autoencoder_roles(self.library, place)?;
        let role = roles.last().copied().unwrap_or(Role::Autoencoder);
        self.needed(option, role, place)?;
        Ok(role)
    }

    fn path(
        &mut self,
        option: &str,
        role: Role,
        value: &Path,
        set: impl FnOnce(PathBuf) + 'a,
    ) -> Result<()> {
        let library = self.library;
        if let Some(text) = value.to_str().filter(|text| Address::is_meant(text)) {
            let file = File::at(role, text.parse()?);
            self.slot(None, &file, set);
            if let Some(config) = config_beside(&file) {
                self.slot(None, &config, |_| {});
            }
            return Ok(());
        }
        let Some(entry) = entry_named(library, value)? else {
            self.local(option, Some(value));
            return Ok(());
        };
        let Some(found) = library.catalogue()?.file(entry, role) else {
            let given = self.given(option, &entry.name);
            let notes = entry.notes.join(" ");
            match entry.files.is_empty() {
                true => bail!("{given}: it cannot be fetched by name. {notes}"),
                false => bail!("{given}: it has no file for this option"),
            }
        };
        self.published_file(found, set);
        Ok(())
    }

    /// An option that takes a path alone, to a file that is read later.
    pub fn local(&mut self, option: &str, path: Option<&Path>) {
        self.local.extend(path.map(|path| (option.to_string(), path.to_path_buf())));
    }

    /// Whether a file is to be fetched.
    pub fn has_missing(&self) -> bool {
        self.slots.iter().any(|slot| self.library.downloader.find(&slot.file).is_none())
    }

    /// A file of an entry; an autoencoder's with the configuration that is read from beside it.
    fn published_file(
        &mut self,
        (of, file): (&'a Entry, &'a File),
        set: impl FnOnce(PathBuf) + 'a,
    ) {
        self.slot(Some(of), file, set);
        if let (Role::Autoencoder, Some(config)) = (file.role, of.file(Role::AutoencoderConfig)) {
            self.slot(Some(of), config, |_| {});
        }
    }

    fn slot(&mut self, entry: Option<&Entry>, file: &File, set: impl FnOnce(PathBuf) + 'a) {
        let (entry, file) = (entry.cloned(), file.clone());
        self.slots.push(Slot { entry, file, set: Box::new(set) });
    }

    /// Puts the files into their options; those that are not on this machine are fetched, once that is agreed to.
    ///
    /// # Errors
    ///
    /// If something is to be fetched and a path leads nowhere, the user does not agree, or a file cannot be fetched.
    pub fn resolve(self, download: DownloadArgs, json: bool) -> Result<Published> {
        let downloader = &self.library.downloader;
        // Before anything is fetched: a branch may move, and leave its files of before without a name.
        let mut paths: Vec<Option<PathBuf>> =
            self.slots.iter().map(|slot| downloader.find(&slot.file)).collect();
        let mut missing: Vec<(Option<&Entry>, &File)> = Vec::new();
        for (Slot { entry, file, .. }, path) in self.slots.iter().zip(&paths) {
            let is_new = missing.iter().all(|(_, other)| other.address != file.address);
            if is_new && path.is_none() {
                missing.push((entry.as_ref(), file));
            }
        }
        if !missing.is_empty() {
            for (option, path) in &self.local {
                let given = self.given(option, path.display());
                ensure!(path.exists(), "{given}: there is no such file");
            }
            // Without a network the message is what is missing, and not a question that leads nowhere.
            if !downloader.environment().offline {
                ask(downloader, &missing, download.yes)?;
            }
            let interruptible = Interruptible::begin("stopping; what has arrived is kept")?;
            let files: Vec<&File> = missing.iter().map(|(_, file)| *file).collect();
            let stop = interruptible.flag();
            let watched = Watched::new(&files, json);
            let results = downloader.complete_all(&files, &watched.watch(), stop);
            watched.finish(&results);
            let told = missing.iter().zip(results).map(|((entry, file), result)| {
                let what = entry.map_or_else(|| file.address.to_string(), |e| e.name.clone());
                (what, downloader.place(file), result)
            });
            let came = all_fetched(told.collect())?;
            for (Slot { file, .. }, path) in self.slots.iter().zip(&mut paths) {
                let place = files.iter().position(|other| other.address == file.address);
                if let Some(fetched) = place.and_then(|place| came.get(place)) {
                    path.get_or_insert_with(|| fetched.path.clone());
                }
            }
        }
        for (Slot { file, set, .. }, path) in self.slots.into_iter().zip(paths) {
            match path {
                Some(path) => set(path),
                None => bail!("{} was removed from the cache meanwhile", file.address),
            }
        }
        Ok(self.published)
    }
}

/// The configuration that diffusers keeps beside an autoencoder in a repository.
fn config_beside(file: &File) -> Option<File> {
    let Address::Hub(hub) = &file.address else { return None };
    let is_diffusers = file.name().starts_with("diffusion_pytorch_model");
    let folder =
        hub.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let address = Address::Hub(Hub { path: format!("{folder}config.json"), ..hub.clone() });
    let is_meant = file.role == Role::Autoencoder && is_diffusers;
    is_meant.then(|| File::at(Role::AutoencoderConfig, address))
}
