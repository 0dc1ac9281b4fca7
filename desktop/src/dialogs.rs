//! The system's file dialogs, in threads of their own.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use eframe::egui;

/// What a file or folder is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Weights of a network.
    Model,
    /// Its autoencoder.
    Autoencoder,
    /// Statistics of its latents.
    Statistics,
    /// Its configuration.
    Configuration,
    /// Weights of the network that guides it.
    Guide,
    /// The folder that pictures are saved in.
    Output,
    /// A picture of the gallery, to be saved under this name.
    SaveAs(u64, String),
    /// The pictures of the comparison in one, to be saved under this name.
    Sheet(String),
}

/// What came of a dialog.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// This was chosen.
    Chosen(PathBuf),
    /// It was closed.
    Closed,
    /// It never opened.
    Unavailable,
}

/// No person closes a dialog faster.
const FASTEST: Duration = Duration::from_millis(400);

/// Dialogs that are open.
#[derive(Debug)]
pub struct Dialogs {
    ctx: egui::Context,
    outbox: Sender<(Purpose, Answer)>,
    inbox: Receiver<(Purpose, Answer)>,
}

impl Dialogs {
    /// None yet.
    pub fn new(ctx: egui::Context) -> Self {
        let (outbox, inbox) = channel();
        Self { ctx, outbox, inbox }
    }

    /// Opens one.
    pub fn ask(&self, purpose: Purpose) {
        let (outbox, ctx) = (self.outbox.clone(), self.ctx.clone());
        std::thread::spawn(move || {
            let opened = Instant::now();
            let chosen = pollster::block_on(open(&purpose));
            let answer = match chosen {
                Some(file) => Answer::Chosen(file.path().into()),
                None if opened.elapsed() < FASTEST => Answer::Unavailable,
                None => Answer::Closed,
            };
            let _ = outbox.send((purpose, answer));
            ctx.request_repaint();
        });
    }

    /// Those that were closed since the last call.
    pub fn answers(&self) -> Vec<(Purpose, Answer)> {
        self.inbox.try_iter().collect()
    }
}

async fn open(purpose: &Purpose) -> Option<rfd::FileHandle> {
    let dialog = rfd::AsyncFileDialog::new();
    let weights = ["safetensors", "pt", "pth", "ckpt", "bin", "json"];
    match purpose {
        Purpose::Model => {
            let dialog = dialog.set_title("Weights of a network").add_filter("Weights", &weights);
            dialog.pick_file().await
        }
        Purpose::Autoencoder => {
            let dialog = dialog.set_title("Its autoencoder").add_filter("Weights", &weights);
            dialog.pick_file().await
        }
        Purpose::Statistics => {
            let dialog = dialog.set_title("Statistics of its latents");
            dialog.add_filter("Statistics", &weights).pick_file().await
        }
        Purpose::Configuration => {
            let dialog = dialog.set_title("Its configuration");
            dialog.add_filter("Configuration", &["json", "yaml", "yml"]).pick_file().await
        }
        Purpose::Guide => {
            let dialog = dialog.set_title("Weights of its guide").add_filter("Weights", &weights);
            dialog.pick_file().await
        }
        Purpose::Output => dialog.set_title("Folder for pictures").pick_folder().await,
        Purpose::SaveAs(_, name) | Purpose::Sheet(name) => {
            let dialog = dialog.set_title("Save the picture").add_filter("PNG", &["png"]);
            dialog.set_file_name(name).save_file().await
        }
    }
}
