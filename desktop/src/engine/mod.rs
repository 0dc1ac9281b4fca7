//! The thread that loads networks and computes. GPU work stays on one thread, and the window's never
//! waits for it: orders go in by one channel, updates come out by another.

mod preview;
mod saving;
mod stopwatch;
mod watch;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eframe::{egui, egui_wgpu};
use serde::{Deserialize, Serialize};
use tintype::device::Kind;
use tintype::generate::{ImageSpec, ModelPaths, Origin, Settings};
use tintype::precision::Precision;

pub use preview::{Frame, colour_image};
pub use saving::save;

use crate::quality::Pace;

/// Which networks, where and in which precision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// The files.
    pub paths: ModelPaths,
    /// As on the command line: `auto`, `cpu`, `wgpu:1`, …; empty for `auto`.
    pub device: String,
    /// Dtype of the network.
    pub precision: Precision,
}

/// Pictures to make.
#[derive(Clone, Debug)]
pub struct Work {
    /// Whose they are.
    pub job: u64,
    /// What makes them.
    pub choice: Choice,
    /// How.
    pub settings: Settings,
    /// Which.
    pub images: Vec<ImageSpec>,
    /// Where they are saved; `None` for pictures that are only shown, without their steps.
    pub folder: Option<Arc<Mutex<PathBuf>>>,
    /// Set to stop after the step in hand.
    pub cancelled: Arc<AtomicBool>,
}

/// What the engine is asked for.
#[derive(Debug)]
enum Order {
    /// Load this, so that the first picture need not wait for it.
    Prepare(Box<Choice>),
    /// Make these.
    Work(Box<Work>),
    /// The window is gone.
    End,
}

/// What the engine tells.
#[derive(Debug)]
// Few are sent at a time, and only Windows' paths make one large.
#[allow(clippy::large_enum_variant)]
pub enum Update {
    /// The devices of this machine, the best first.
    Devices(Vec<DeviceRow>),
    /// Networks are being loaded.
    Loading(String),
    /// They are ready.
    Ready(Ready),
    /// They could not be loaded.
    NotReady(String),
    /// A step was taken.
    Step(StepUpdate),
    /// A picture is finished.
    Picture(Box<Made>),
    /// A job came to its end.
    End {
        /// Whose.
        job: u64,
        /// Which.
        outcome: Outcome,
        /// Seconds that it computed, without the loading of the networks.
        seconds: f64,
    },
}

/// A device of this machine.
#[derive(Clone, Debug)]
pub struct DeviceRow {
    /// How to ask for it.
    pub id: String,
    /// What it calls itself.
    pub description: String,
    /// What it is made of.
    pub kind: Kind,
    /// Bytes of memory a network may take there, where that is known.
    pub memory: Option<u64>,
}

/// Where the networks run.
#[derive(Clone, Debug)]
pub struct Ready {
    /// What was asked for.
    pub choice: Choice,
    /// The device.
    pub device: String,
    /// Why this one.
    pub reason: String,
    /// Whether it also draws the window.
    pub shared: bool,
    /// Dtypes that it computes in.
    pub precisions: Vec<Precision>,
}

/// A step of the pictures in hand.
#[derive(Debug)]
pub struct StepUpdate {
    /// Whose.
    pub job: u64,
    /// How many pictures of the job came before these.
    pub first: usize,
    /// The pictures.
    pub images: Vec<ImageSpec>,
    /// The step, counted from 0.
    pub index: usize,
    /// How many there are; unknown to adaptive samplers.
    pub total: Option<usize>,
    /// Time of a flow (1 is noise), noise level of a denoiser.
    pub time: f64,
    /// Whether Hi-DiT's pixel stream is at work.
    pub pixels: bool,
    /// What can be seen, a frame a picture; `None` where the last ones are still fresh.
    pub frames: Option<Vec<Frame>>,
}

/// A finished picture.
#[derive(Clone, Debug)]
pub struct Made {
    /// Whose.
    pub job: u64,
    /// How it was made.
    pub origin: Origin,
    /// The picture.
    pub image: Arc<egui::ColorImage>,
    /// What the latent of a Hi-DiT decodes to.
    pub latent: Option<Arc<egui::ColorImage>>,
    /// The file's content.
    pub png: Arc<Vec<u8>>,
    /// Where it was saved, or why it was not; `None` where nobody asked for it.
    pub saved: Option<Result<PathBuf, String>>,
    /// How long it took; `None` of all but the first of a batch.
    pub pace: Option<Pace>,
    /// Evaluations of the network; a guided one is two.
    pub evaluations: usize,
    /// Bytes of the weights on the device and of what decoding one picture takes, not measured.
    pub memory: u64,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All pictures are made.
    Done,
    /// It was cancelled.
    Cancelled,
    /// It cannot be done.
    Failed(String),
    /// The device gave up.
    DeviceLost(String),
}

/// The window's end of the channels.
#[derive(Debug)]
pub struct Engine {
    orders: Sender<Order>,
    updates: Receiver<Update>,
    /// Set to stop after the step in hand, whatever it is.
    closing: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// How long a step in hand may keep a program whose window is gone.
const PATIENCE: Duration = Duration::from_secs(20);

impl Engine {
    /// Starts the thread. `window` is what draws the window, to be shared.
    pub fn start(ctx: egui::Context, window: Option<egui_wgpu::RenderState>) -> Self {
        let watch = Arc::new(watch::Watch::default());
        if let Some(window) = &window {
            watch.listen(&window.device, ctx.clone());
        }
        let (orders, inbox) = channel();
        let (outbox, updates) = channel();
        let tell = worker::Tell::new(outbox, ctx);
        let closing = Arc::new(AtomicBool::new(false));
        let closed = closing.clone();
        let thread = std::thread::spawn(move || worker::run(inbox, tell, window, watch, closed));
        Self { orders, updates, closing, thread }
    }

    /// Loads networks ahead of the first picture.
    pub fn prepare(&self, choice: Choice) {
        let _ = self.orders.send(Order::Prepare(Box::new(choice)));
    }

    /// Makes pictures.
    pub fn work(&self, work: Work) {
        let _ = self.orders.send(Order::Work(Box::new(work)));
    }

    /// Updates since the last call.
    pub fn updates(&self) -> Vec<Update> {
        self.updates.try_iter().collect()
    }
}

/// Graphics drivers take themselves down when the program ends; a thread that still computes with one
/// would crash then.
impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let _ = self.orders.send(Order::End);
        let until = Instant::now() + PATIENCE;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
