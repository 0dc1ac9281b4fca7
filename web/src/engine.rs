//! The session as JavaScript sees it. It lives in a worker; `web/engine/worker.ts` is its only
//! caller.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use js_sys::{Array, Function, Object, Reflect, Uint8Array, Uint8ClampedArray};
use serde::Serialize;
use serde_wasm_bindgen::Serializer;
use tintype::device::browser::{self, BrowserGpu};
use tintype::device::{self, DeviceError, Found};
use tintype::generate::{GenerateError, HalfError, ImageSpec, Origin, Parts, SecondHalf};
use tintype::image::Rgb;
use tintype::noise::Blend;
use tintype::sampler::Stop;
use tintype::weights::Weights;
use wasm_bindgen::prelude::*;
use web_sys::Blob;

use crate::ask::Ask;
use crate::face::sentence;
use crate::file::BrowserFile;
use crate::half::{self, HalfObject};
use crate::room::{self, ROOM};
use crate::session::{Session, SessionError, Update};
use crate::turn::others_first;

#[wasm_bindgen]
extern "C" {
    /// Tells the page, from `web/engine/worker.ts`, of a panic that ends this engine.
    #[wasm_bindgen(js_namespace = globalThis, js_name = tintypeEngineFailed)]
    fn engine_failed(message: &str);

    /// A model's files: `{ model, average, vae, stats, config, vaeConfig, precision }`.
    pub type Files;
    #[wasm_bindgen(method, getter)]
    fn model(this: &Files) -> NamedFile;
    #[wasm_bindgen(method, getter)]
    fn average(this: &Files) -> Option<u32>;
    #[wasm_bindgen(method, getter)]
    fn vae(this: &Files) -> Option<NamedFile>;
    #[wasm_bindgen(method, getter)]
    fn stats(this: &Files) -> Option<NamedFile>;
    #[wasm_bindgen(method, getter)]
    fn config(this: &Files) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = vaeConfig)]
    fn vae_config(this: &Files) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn precision(this: &Files) -> Option<String>;

    /// `{ name, blob }`
    type NamedFile;
    #[wasm_bindgen(method, getter)]
    fn name(this: &NamedFile) -> String;
    #[wasm_bindgen(method, getter)]
    fn blob(this: &NamedFile) -> Blob;
}

#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|panic| engine_failed(&panic.to_string())));
}

/// A device and, once loaded, a model on it.
#[wasm_bindgen]
pub struct Engine {
    found: Found,
    gpu: Option<BrowserGpu>,
    session: RefCell<Option<Session>>,
    cancelled: Cell<bool>,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the GPU, or the processor.
    ///
    /// # Errors
    ///
    /// If the browser offers no usable device.
    pub async fn open(webgpu: bool) -> Result<Engine, JsError> {
        let missing = |e: DeviceError| JsError::new(&sentence(&e));
        let (gpu, found) = if webgpu {
            let gpu = browser::open().await.map_err(missing)?;
            let found = gpu.found.clone();
            (Some(gpu), found)
        } else {
            (None, device::choose("cpu").map_err(missing)?.found)
        };
        Ok(Self { found, gpu, session: RefCell::new(None), cancelled: Cell::new(false) })
    }

    /// Loads a model in place of the one before; `progress` is told the bytes of each file's name
    /// that went to the device.
    ///
    /// # Errors
    ///
    /// If a picture is being made, a file cannot be read, the parts do not fit each other or the memory, or the
    /// GPU fails.
    pub fn load(&self, files: &Files, progress: &Function) -> Result<JsValue, JsError> {
        let busy = || JsError::new("a picture is in the making; stop it first");
        let mut session = self.session.try_borrow_mut().map_err(|_| busy())?;
        // Two models at once may not fit.
        *session = None;
        let failed = |e: &(dyn std::error::Error + 'static)| JsError::new(&sentence(e));
        // Of files that lie in the engine's memory as a whole.
        let held = Cell::new(0u64);
        let open = |file: NamedFile, average: Option<u32>| {
            let (name, progress) = (JsValue::from(file.name()), progress.clone());
            let told = move |bytes: f64| {
                // Progress is only told; a page that is gone needs none.
                let _ = progress.call2(&JsValue::NULL, &name, &bytes.into());
            };
            let unreadable = |reason: String| JsError::new(&format!("{}: {reason}", file.name()));
            let source = Arc::new(BrowserFile::new(file.blob(), told).map_err(unreadable)?);
            let opened = match average {
                Some(number) => {
                    Weights::average_from_source(source.clone(), &file.name(), number as usize)
                }
                None => Weights::from_source(source.clone(), &file.name()),
            };
            held.set(held.get() + source.largest() as u64);
            opened.map_err(|e| failed(&e))
        };
        let mut model = open(files.model(), files.average())?;
        if let Some(config) = files.config() {
            model.metadata.insert("config".into(), config);
        }
        let other = |file: Option<NamedFile>| file.map(|file| open(file, None)).transpose();
        let (mut vae, stats) = (other(files.vae())?, other(files.stats())?);
        if let (Some(vae), Some(config)) = (&mut vae, files.vae_config()) {
            vae.set_config(&config);
        }
        let wish = files.precision().map(|name| name.parse()).transpose();
        let parts = Parts { model: &model, vae: vae.as_ref(), stats: stats.as_ref(), guide: None };
        room::check(parts, held.get(), &self.found, ROOM).map_err(|e| failed(&e))?;
        let loaded = Session::load(parts, wish.map_err(|e| failed(&e))?, &self.found);
        let loaded = session.insert(loaded.map_err(|e| failed(&e))?);
        // A GPU is faster than two processors.
        if self.gpu.is_none() {
            loaded.share(SecondHalf::new(half::ask));
        }
        self.check_gpu().map_err(|reason| JsError::new(&reason))?;
        Ok(plain_object(&loaded.info()))
    }

    /// Makes pictures; `tell` is called with each event. Comes back with whether all were made, and
    /// false where [`Self::cancel`] stopped it.
    ///
    /// # Errors
    ///
    /// If no model is loaded or a picture is being made, if the request is invalid, or if the
    /// device fails.
    // The borrow lasts for the whole run on purpose: by it a second call learns that it must wait.
    #[allow(clippy::await_holding_refcell_ref)]
    pub async fn generate(&self, request: JsValue, tell: &Function) -> Result<bool, JsError> {
        let ask: Ask = serde_wasm_bindgen::from_value(request)
            .map_err(|e| JsError::new(&format!("the request makes no sense: {e}")))?;
        let busy = || JsError::new("a picture is in the making; wait for it or stop it");
        let mut session = self.session.try_borrow_mut().map_err(|_| busy())?;
        let session = session.as_mut().ok_or_else(|| JsError::new("no model is loaded"))?;
        self.cancelled.set(false);
        let mut tell = async |update: Update| {
            self.check_gpu().map_err(Stop::Device)?;
            let (event, transfer) = event(update);
            // A page that is gone hears nothing, and its worker ends with it.
            let _ = tell.call2(&JsValue::NULL, &event, &transfer);
            others_first().await;
            if self.cancelled.get() { Err(Stop::Cancelled) } else { Ok(()) }
        };
        match session.generate(&ask, &mut tell).await {
            Ok(()) => Ok(true),
            Err(SessionError::Generate(GenerateError::Stopped(Stop::Cancelled))) => Ok(false),
            Err(e) => Err(JsError::new(&sentence(e.cause()))),
        }
    }

    /// The second half of guidance for an engine with the same model: `[{ shape, values }]` of
    /// `{ streams, times, labels, gate }`.
    ///
    /// # Errors
    ///
    /// If no model is loaded or another one, or if the device fails.
    // The borrow lasts for as long as the model is in use.
    #[allow(clippy::await_holding_refcell_ref)]
    pub async fn evaluate(&self, half: HalfObject) -> Result<Array, JsError> {
        let busy = || JsError::new("a picture is in the making; wait for it or stop it");
        let session = self.session.try_borrow().map_err(|_| busy())?;
        let session = session.as_ref().ok_or_else(|| JsError::new("no model is loaded"))?;
        let failed = |e: HalfError| JsError::new(&sentence(&e));
        let half = half::half(&half).ok_or_else(|| failed(HalfError::Unfit))?;
        Ok(half::to_array(&session.second_half(half).await.map_err(failed)?))
    }

    /// Ends the run in hand after its step.
    pub fn cancel(&self) {
        self.cancelled.set(true);
    }

    fn check_gpu(&self) -> Result<(), String> {
        self.gpu.as_ref().and_then(BrowserGpu::failure).map_or(Ok(()), Err)
    }
}

/// An event as a plain object, and the buffers in it that can change threads without a copy.
fn event(update: Update) -> (Object, Array) {
    let (event, transfer) = (Object::new(), Array::new());
    let set = |key: &str, value: JsValue| {
        // A new object takes every property.
        let _ = Reflect::set(&event, &key.into(), &value);
    };
    let picture = |rgb: &Rgb| {
        let pixels = rgba(rgb);
        transfer.push(&pixels.buffer());
        let object = Object::new();
        for (key, value) in [
            ("width", rgb.width.into()),
            ("height", rgb.height.into()),
            ("pixels", JsValue::from(pixels)),
        ] {
            let _ = Reflect::set(&object, &key.into(), &value);
        }
        JsValue::from(object)
    };
    match update {
        Update::Step { index, total, time, pixels, first, previews } => {
            set("type", "step".into());
            set("step", index.into());
            set("steps", total.map_or(JsValue::NULL, JsValue::from));
            set("time", time.into());
            set("pixelsAtWork", pixels.into());
            set("first", first.into());
            set("previews", previews.iter().map(picture).collect::<Array>().into());
        }
        Update::Picture { index, origin, image, latent, png } => {
            set("type", "picture".into());
            set("index", index.into());
            set("origin", origin_object(&origin));
            set("name", format!("{}.png", origin.file_stem()).into());
            set("image", picture(&image));
            set("latent", latent.as_ref().map_or(JsValue::NULL, picture));
            let png = Uint8Array::from(png.as_slice());
            transfer.push(&png.buffer());
            set("png", png.into());
        }
    }
    (event, transfer)
}

fn rgba(rgb: &Rgb) -> Uint8ClampedArray {
    let pixels: Vec<u8> =
        rgb.pixels.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
    Uint8ClampedArray::from(pixels.as_slice())
}

/// Maps become objects, absent values null.
fn plain_object(value: &impl Serialize) -> JsValue {
    // What is serialised here holds strings and small numbers, which cannot fail.
    value.serialize(&Serializer::json_compatible()).unwrap_or(JsValue::NULL)
}

/// With seeds of 64 bits.
fn origin_object(origin: &Origin) -> JsValue {
    let ImageSpec { seed, index, blend, .. } = origin.spec;
    let small = ImageSpec { seed: 0, index: 0, blend: None, ..origin.spec };
    let object = plain_object(&Origin { spec: small, ..origin.clone() });
    let set = |object: &JsValue, key: &str, value: JsValue| {
        // A plain object takes every property.
        let _ = Reflect::set(object, &key.into(), &value);
    };
    set(&object, "seed", whole_number(seed));
    set(&object, "index", whole_number(index));
    if let Some(Blend { seed, amount }) = blend {
        let other = JsValue::from(Object::new());
        set(&other, "seed", whole_number(seed));
        set(&other, "amount", amount.into());
        set(&object, "blend", other);
    }
    object
}

/// A number, or a BigInt where a number would not be exact.
fn whole_number(value: u64) -> JsValue {
    const LARGEST_NUMBER: u64 = (1 << 53) - 1;
    match value {
        0..=LARGEST_NUMBER => (value as f64).into(),
        _ => value.into(),
    }
}
