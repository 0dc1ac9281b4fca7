//! The thread itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use eframe::{egui, egui_wgpu};
use tintype::device::{self, Chosen, Found};
use tintype::generate::{
    Event, Fingerprints, GenerateError, LatentMap, ModelFiles, Origin, Picture, Pipeline, Request,
    Settings,
};
use tintype::memory::give_back_freed_memory;
use tintype::precision::Precision;
use tintype::sampler::Stop;
use tintype_shaders::present::Presenter;

use super::preview::{Frames, colour_image};
use super::saving::save;
use super::stopwatch::Stopwatch;
use super::watch::Watch;
use super::{Choice, DeviceRow, Made, Order, Outcome, Ready, StepUpdate, Update, Work};
use crate::quality::Pace;
use crate::{face, text};

/// Pictures made together on a GPU; a processor is as fast with one, and shows it sooner.
const GPU_BATCH: usize = 4;

/// Sends updates and wakes the window.
pub struct Tell {
    outbox: Sender<Update>,
    ctx: egui::Context,
}

impl Tell {
    pub fn new(outbox: Sender<Update>, ctx: egui::Context) -> Self {
        Self { outbox, ctx }
    }

    fn tell(&self, update: Update) {
        // A closed window receives no updates.
        let _ = self.outbox.send(update);
        self.ctx.request_repaint();
    }
}

/// Works until the window is gone.
pub fn run(
    inbox: Receiver<Order>,
    tell: Tell,
    window: Option<egui_wgpu::RenderState>,
    watch: Arc<Watch>,
    closing: Arc<AtomicBool>,
) {
    step_back();
    let devices = device::list().into_iter().map(|found| DeviceRow {
        memory: found.free_memory(),
        id: found.id,
        description: found.description,
        kind: found.kind,
    });
    tell.tell(Update::Devices(devices.collect()));
    let mut worker = Worker { tell, window, watch, closing, shared: None, loaded: None };
    for order in inbox {
        match order {
            Order::Prepare(choice) => worker.prepare(&choice),
            Order::Work(work) => worker.work(&work),
            Order::End => break,
        }
    }
}

/// Lets the window's thread go first: before this one, and before those that the processor's kernels run
/// on. Where the system refuses, nothing is lost but smoothness.
fn step_back() {
    step_back_here();
    // An error says that the pool is there already.
    let _ = rayon::ThreadPoolBuilder::new().start_handler(|_| step_back_here()).build_global();
}

/// Linux knows threads that run whenever no other wants to; elsewhere a low priority comes close.
fn step_back_here() {
    use thread_priority::ThreadPriority;
    #[cfg(target_os = "linux")]
    let _ = thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        ThreadPriority::Min,
        thread_priority::ThreadSchedulePolicy::Normal(
            thread_priority::NormalThreadSchedulePolicy::Idle,
        ),
    );
    #[cfg(not(target_os = "linux"))]
    if let Ok(value) = 2u8.try_into() {
        let _ = thread_priority::set_current_thread_priority(ThreadPriority::Crossplatform(value));
    }
}

struct Worker {
    tell: Tell,
    /// What draws the window.
    window: Option<egui_wgpu::RenderState>,
    watch: Arc<Watch>,
    /// Set once the window is gone.
    closing: Arc<AtomicBool>,
    /// The same as Burn's device, once it was asked for.
    shared: Option<(Found, Arc<Presenter>)>,
    loaded: Option<Loaded>,
}

/// Networks on a device.
struct Loaded {
    choice: Choice,
    ready: Ready,
    pipeline: Pipeline,
    fingerprints: Fingerprints,
    device: String,
    /// Bytes that it needs there ([`ModelFiles::needed`]).
    memory: u64,
    map: LatentMap,
    presenter: Option<Arc<Presenter>>,
}

impl Worker {
    fn prepare(&mut self, choice: &Choice) {
        if let Err(trouble) = self.load(choice) {
            self.tell.tell(Update::NotReady(trouble));
        }
    }

    /// Makes sure that the chosen networks are loaded; the error is a sentence.
    fn load(&mut self, choice: &Choice) -> Result<(), String> {
        if let Some(loaded) = self.loaded.as_ref().filter(|loaded| loaded.choice == *choice) {
            // A failure made the window forget it.
            self.tell.tell(Update::Ready(loaded.ready.clone()));
            return Ok(());
        }
        // Two models at once may not fit. A device that is lost has nothing to free.
        let _ = catch_unwind(AssertUnwindSafe(|| self.unload()));
        let result = catch_unwind(AssertUnwindSafe(|| self.load_anew(choice)));
        result.unwrap_or_else(|panic| Err(face::failed_device(&text::panic_message(&*panic))))
    }

    /// Frees the networks, and what is kept of their memory: the next ones need other sizes.
    fn unload(&mut self) {
        if let Some(Loaded { pipeline, .. }) = self.loaded.take() {
            let device = pipeline.device().clone();
            drop(pipeline);
            device.memory_cleanup();
            give_back_freed_memory();
        }
    }

    fn load_anew(&mut self, choice: &Choice) -> Result<(), String> {
        let Chosen { found, reason } = self.choose(&choice.device)?;
        self.tell.tell(Update::Loading(found.id.clone()));
        let presenter = match &self.shared {
            Some((shared, presenter)) if shared.device == found.device => Some(presenter.clone()),
            _ => None,
        };
        let files = ModelFiles::open(&choice.paths).map_err(|e| face::load_error(&e))?;
        let pipeline = files.load(choice.precision, &found).map_err(|e| face::load_error(&e))?;
        let needed = files.needed(choice.precision, &found.device);
        let memory = needed.map_err(|e| face::load_error(&e))?;
        let precisions = Precision::ALL.into_iter().filter(|p| p.on(&found.device).is_ok());
        let ready = Ready {
            choice: choice.clone(),
            device: found.id.clone(),
            reason,
            shared: presenter.is_some(),
            precisions: precisions.collect(),
        };
        self.tell.tell(Update::Ready(ready.clone()));
        self.loaded = Some(Loaded {
            choice: choice.clone(),
            ready,
            fingerprints: Fingerprints::of(files.parts()),
            device: found.id,
            memory,
            map: LatentMap::new(pipeline.latent_channels().unwrap_or(0)),
            presenter,
            pipeline,
        });
        Ok(())
    }

    /// The device of a name; the one that draws the window where it is the same GPU.
    fn choose(&mut self, name: &str) -> Result<Chosen, String> {
        let name = if name.is_empty() { "auto" } else { name };
        let chosen = device::choose(name).map_err(|e| face::sentence(&e))?;
        if !chosen.found.id.starts_with("wgpu") {
            return Ok(chosen);
        }
        if self.shared.is_none() {
            self.shared = self.window.take().and_then(|window| {
                let presenter = Presenter::new(window.device.clone(), window.queue.clone());
                let found = device::share(
                    window.instance.clone(),
                    window.adapter.clone(),
                    window.device.clone(),
                    window.queue.clone(),
                )?;
                Some((found, Arc::new(presenter)))
            });
        }
        Ok(match &self.shared {
            Some((shared, _)) if shared.id == chosen.found.id => {
                Chosen { found: shared.clone(), reason: chosen.reason }
            }
            _ => chosen,
        })
    }

    fn work(&mut self, work: &Work) {
        let closing = self.closing.load(Ordering::Relaxed);
        let mut seconds = 0.0;
        let outcome = if closing || work.cancelled.load(Ordering::Relaxed) {
            Outcome::Cancelled
        } else {
            match self.load(&work.choice) {
                Err(trouble) => Outcome::Failed(trouble),
                Ok(()) => {
                    let began = Instant::now();
                    let made = catch_unwind(AssertUnwindSafe(|| self.make(work)));
                    seconds = began.elapsed().as_secs_f64();
                    made.unwrap_or_else(|panic| Outcome::DeviceLost(text::panic_message(&*panic)))
                }
            }
        };
        if matches!(outcome, Outcome::DeviceLost(_)) {
            self.loaded = None;
        }
        self.tell.tell(Update::End { job: work.job, outcome, seconds });
    }

    fn make(&mut self, work: &Work) -> Outcome {
        let Some(loaded) = &mut self.loaded else {
            return Outcome::Failed("no model is loaded".into());
        };
        let batch = if loaded.device == "cpu" { 1 } else { GPU_BATCH };
        for (number, images) in work.images.chunks(batch).enumerate() {
            let request = Request { settings: work.settings, images: images.to_vec() };
            let first = number * batch;
            match loaded.batch(work, first, &request, &self.tell, &self.watch, &self.closing) {
                Ok(()) => {}
                Err(GenerateError::Stopped(Stop::Cancelled)) => return Outcome::Cancelled,
                Err(GenerateError::Stopped(Stop::Device(e))) => return Outcome::DeviceLost(e),
                Err(error) => return Outcome::Failed(face::sentence(&error)),
            }
        }
        Outcome::Done
    }
}

impl Loaded {
    /// Makes pictures together.
    fn batch(
        &mut self,
        work: &Work,
        first: usize,
        request: &Request,
        tell: &Tell,
        watch: &Watch,
        closing: &AtomicBool,
    ) -> Result<(), GenerateError> {
        let Self { choice, pipeline, fingerprints, device, memory, map, presenter, .. } = self;
        let memory = *memory;
        let mut frames = Frames::new(pipeline, presenter.as_deref(), map);
        let mut stopwatch = Some(Stopwatch::start());
        let shared = presenter.is_some();
        // At scale 1 a guide does nothing.
        let is_guided = work.settings.guidance.scale != 1.0;
        let guide = fingerprints.guide.clone().filter(|_| is_guided);
        let weights = Fingerprints { guide, ..fingerprints.clone() };
        let origin = |spec: tintype::generate::ImageSpec| Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            weights: weights.clone(),
            class_name: spec.class.map_or("none".into(), |class| pipeline.labels().name(class)),
            spec,
            settings: Settings { keep_latent: false, ..work.settings },
            precision: choice.precision,
            device: device.clone(),
        };
        pollster::block_on(pipeline.generate(request, &mut async |event: Event<'_>| {
            // Also before a picture is kept: the last steps may not have been waited for when they were told of.
            if shared && let Some(failure) = watch.failure() {
                return Err(Stop::Device(failure));
            }
            match event {
                Event::Step { index, total, time, preview } => {
                    if closing.load(Ordering::Relaxed) || work.cancelled.load(Ordering::Relaxed) {
                        return Err(Stop::Cancelled);
                    }
                    if let Some(stopwatch) = &mut stopwatch {
                        stopwatch.step();
                    }
                    if shared {
                        watch.give_way();
                    }
                    tell.tell(Update::Step(StepUpdate {
                        job: work.job,
                        first,
                        images: request.images.clone(),
                        index,
                        total,
                        time,
                        pixels: preview.pixels.is_some(),
                        frames: match &work.folder {
                            Some(_) => frames.of(preview).await?,
                            None => None,
                        },
                    }));
                }
                Event::Image(picture) => {
                    let origin = origin(picture.spec);
                    let pace = stopwatch.take().and_then(|stopwatch| {
                        let process = pipeline.architecture().process();
                        stopwatch.pace(&work.settings, process, request.images.len())
                    });
                    let made = finished(work, picture, origin, pace, memory)?;
                    tell.tell(Update::Picture(Box::new(made)));
                }
            }
            Ok(())
        }))
    }
}

fn finished(
    work: &Work,
    picture: Picture,
    origin: Origin,
    pace: Option<Pace>,
    memory: u64,
) -> Result<Made, Stop> {
    // 8-bit pictures always encode; should one not, the run ends with the reason.
    let png = origin.to_png(&picture.image).map_err(|e| Stop::Device(e.to_string()))?;
    let saved = work.folder.as_ref().map(|folder| {
        let folder = folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        save(&folder, &origin.file_stem(), &png)
    });
    Ok(Made {
        job: work.job,
        image: Arc::new(colour_image(&picture.image)),
        latent: picture.latent.as_ref().map(|latent| Arc::new(colour_image(latent))),
        origin,
        png: Arc::new(png),
        saved,
        pace,
        evaluations: picture.evaluations,
        memory,
    })
}
