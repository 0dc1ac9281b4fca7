//! The model that made a picture, where it is on this machine.

use tintype::burn::tensor::Device;
use tintype::catalogue::Kind;
use tintype::generate::{ModelFiles, ModelPaths, Origin};
use tintype_download::Presence;

use crate::average::{Average, averages, with_average};
use crate::browser::Library;

/// The files of the model that made a picture: the open one, the one inside the program, or a published one.
pub fn maker(origin: &Origin, open: &ModelPaths, library: &Library) -> Option<ModelPaths> {
    let Library { catalogue, downloader } = library;
    let networks = library.entries().filter(|entry| entry.kind == Kind::Network);
    let here = networks.filter(|entry| downloader.presence(catalogue, entry) == Presence::Here);
    let published = here.map(|entry| downloader.paths(catalogue, entry));
    let mut known = [open.clone(), ModelPaths::default()].into_iter().chain(published);
    let network = origin.weights.model.as_str();
    known.find_map(|paths| with_network(&paths, network))
}

/// A model that makes pictures, with the average of its file that has a fingerprint.
fn with_network(paths: &ModelPaths, fingerprint: &str) -> Option<ModelPaths> {
    // What does not open cannot have made it.
    let mut files = ModelFiles::open(paths).ok()?;
    let mut paths = paths.clone();
    if files.model.fingerprint() != fingerprint {
        let is_it = |average: &Average| average.fingerprint.as_deref() == Some(fingerprint);
        let place = averages(&paths, &files).iter().position(is_it)?;
        paths = with_average(&paths, place + 1);
        files = ModelFiles::open(&paths).ok()?;
    }
    // Without its autoencoder a network opens, too.
    files.inspect(&Device::flex()).is_ok().then_some(paths)
}
