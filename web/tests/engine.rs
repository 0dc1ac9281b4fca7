//! The engine with a tiny model. The same tests run natively (`cargo test`) and in a browser's
//! worker (`wasm-bindgen-test`, see `web/test.mjs`); the last one needs a browser's GPU.

use std::io;
use std::sync::Arc;

use serde_json::json;
use tintype::burn::tensor::Device;
use tintype::catalogue::{Catalogue, Kind};
use tintype::device::{DeviceError, Found};
use tintype::generate::{ImageSpec, LoadError, Origin, Parts, Sampler, Settings};
use tintype::image::Rgb;
use tintype::labels::Labels;
use tintype::model::Architecture;
use tintype::model::ditdh::DitDhConfig;
use tintype::model::hidit::HiDiTConfig;
use tintype::model::jit::JitConfig;
use tintype::model::meanflow::Shape;
use tintype::model::pmf::PmfConfig;
use tintype::model::sit::SiTConfig;
use tintype::noise::Blend;
use tintype::precision::Precision;
use tintype::sampler::Stop;
use tintype::settings::{Problem, Setting};
use tintype::weights::{Source, TensorView, Weights, WeightsError, write_safetensors};
use tintype_test_models::pickles::{checkpoint, section};
use tintype_test_models::{configs, tensors};
use tintype_web::ask::{Ask, Class};
use tintype_web::fields::fields;
use tintype_web::room;
use tintype_web::session::{Preset, Session, Update};
use tintype_web::{Checksum, networks};

#[cfg(target_family = "wasm")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_dedicated_worker);

fn hidit() -> HiDiTConfig {
    let sit = SiTConfig {
        input_size: 4,
        patch_size: 1,
        in_channels: 4,
        hidden_size: 32,
        depth: 2,
        num_heads: 2,
        mlp_ratio: 2.0,
        num_classes: 3,
        class_dropout_prob: 0.1,
        qk_norm: false,
        latent_norm: true,
        learn_sigma: false,
        noise_at_zero: false,
        encoder_depth: 1,
        z_dims: Vec::new(),
        projector_dim: 4,
    };
    HiDiTConfig { sit, image: 32, pixel_patch: 8, tau: 0.5, t_min: 0.05 }
}

fn pmf() -> PmfConfig {
    let shape = Shape {
        depth: 2,
        aux_head_depth: 1,
        num_classes: 3,
        num_class_tokens: 1,
        num_time_tokens: 1,
        num_cfg_tokens: 1,
        ..configs::pmf().shape
    };
    PmfConfig { shape, pca_channels: 4, noise_scale: 1.0 }
}

fn jit() -> JitConfig {
    JitConfig { num_classes: 3, ..configs::jit() }
}

/// Of the latents of [`configs::rae`].
fn ditdh() -> DitDhConfig {
    DitDhConfig { in_channels: 64, input_size: 2, num_classes: 3, ..configs::ditdh() }
}

/// Weights by a formula, as a file.
fn file<M: tintype::burn::module::Module>(network: &M, config: &impl serde::Serialize) -> Vec<u8> {
    let is_norm = |name: &str| name.contains("norm") && name.ends_with("weight");
    let tensors = tensors(network, 0.3, |name| name.ends_with("running_var") || is_norm(name));
    let metadata = [
        ("config".into(), serde_json::to_string(config).expect("it serialises")),
        ("classes".into(), json!(["apple, pome", "pear", "quince"]).to_string()),
    ];
    write_safetensors(&tensors, &metadata.into()).expect("it writes")
}

fn model_file() -> Vec<u8> {
    file(&hidit().init(&Device::flex()).expect("valid"), &hidit())
}

fn vae_file() -> Vec<u8> {
    let vae = configs::f8d4();
    file(&vae.init_decoder(&Device::flex()).expect("valid"), &vae)
}

fn processor() -> Found {
    tintype::device::choose("cpu").expect("it is built in").found
}

fn session(found: &Found) -> Session {
    let model = Weights::from_bytes(model_file(), "model").expect("it reads");
    let vae = Weights::from_bytes(vae_file(), "vae").expect("it reads");
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    Session::load(parts, None, found).expect("it loads")
}

fn ask() -> Ask {
    Ask {
        class: Some(Class::Name("pome".into())),
        seed: 7,
        count: 2,
        steps: Some(6),
        compare: true,
        ..Ask::default()
    }
}

fn difference(a: &Rgb, b: &Rgb) -> f64 {
    let each = a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b) as f64);
    each.sum::<f64>() / a.pixels.len() as f64
}

/// Everything a session tells; on the processor futures are ready at once.
fn run(session: &mut Session, ask: &Ask, stop_at: Option<usize>) -> (Vec<Update>, bool) {
    let mut all = Vec::new();
    let mut tell = async |update: Update| {
        let stop = matches!(update, Update::Step { index, .. } if Some(index) == stop_at);
        all.push(update);
        if stop { Err(Stop::Cancelled) } else { Ok(()) }
    };
    let done = pollster::block_on(session.generate(ask, &mut tell)).is_ok();
    (all, done)
}

fn pictures(updates: Vec<Update>) -> Vec<(Origin, Rgb, Option<Rgb>, Vec<u8>)> {
    let finished = updates.into_iter().filter_map(|update| match update {
        Update::Picture { origin, image, latent, png, .. } => Some((*origin, image, latent, png)),
        Update::Step { .. } => None,
    });
    finished.collect()
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_request_is_that_of_the_command_line() {
    let architecture = Architecture::from(hidit());
    let labels = Labels::new(["apple, pome", "pear"].map(String::from).to_vec());
    let ask = |value| serde_json::from_value::<Ask>(value);
    let given = json!({"class": "pear", "seed": 7, "count": 2, "steps": 9, "cfg": 3.0, "tau": 0.4});
    let request = ask(given).expect("it reads").request(&architecture, &labels).expect("valid");
    let seeds: Vec<_> = request.images.iter().map(|i| (i.class, i.seed, i.index)).collect();
    assert_eq!(seeds, [(Some(1), 7, 0), (Some(1), 8, 0)]);
    let Settings { sampler, steps, guidance, tau, .. } = request.settings;
    assert_eq!((sampler, steps, guidance.scale, tau), (Sampler::EulerMaruyama, 9, 3.0, Some(0.4)));

    let called = Labels::new(["0", "10", "2"].map(String::from).to_vec());
    for (given, class) in [(json!("10"), 1), (json!(1), 1), (json!("2"), 2), (json!(2), 2)] {
        let ask = ask(json!({"class": given})).expect("it reads");
        let request = ask.request(&architecture, &called).expect("valid");
        assert_eq!(request.images[0].class, Some(class));
    }
    let cranes = Labels::new(["crane", "crane", "pear"].map(String::from).to_vec());
    let crane = ask(json!({"class": "crane"})).expect("it reads");
    let error = crane.request(&architecture, &cranes).expect_err("two are called so");
    let sentence = tintype_web::face::sentence(error.cause());
    assert!(sentence.ends_with("choose by number: 0 crane; 1 crane"), "{sentence}");
    for seed in [json!(-1), json!(1e30), json!(0.5)] {
        let error = ask(json!({"seed": seed})).expect_err("no seed").to_string();
        assert!(error.contains("whole number from 0 to 18446744073709551615"), "{error}");
    }

    for (given, trouble) in [
        (json!({"class": "grape"}), "there is no class \"grape\""),
        (json!({"class": 2}), "from 0 to 1"),
        (json!({"steps": 0}), "steps 0 is not between"),
        (json!({"sampler": "lms"}), "use euler, heun, euler-maruyama"),
        (json!({"sampler": "magic"}), "\"magic\" is unknown"),
        (json!({"count": 0}), "count 0 is not between 1 and 10000"),
        (json!({"tau": 2.0}), "tau 2 is not between 0 and 1"),
        (json!({"blend": {"seed": 9, "amount": 1.5}}), "blend 1.5 is not between 0 and 1"),
        (json!({"toSeed": 9}), "count 1 is not between 2 and 10000"),
        (
            json!({"toSeed": 9, "count": 3, "blend": {"seed": 9, "amount": 0.5}}),
            "`blend` of one of them; give only one",
        ),
    ] {
        let ask = ask(given).expect("it reads");
        let error = ask.request(&architecture, &labels).expect_err(trouble);
        let sentence = tintype_web::face::sentence(error.cause());
        assert!(sentence.contains(trouble), "{sentence}");
    }
    assert!(ask(json!({"sead": 7})).expect_err("a typing error").to_string().contains("sead"));
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn pictures_are_of_consecutive_seeds_or_between_two() {
    let architecture = Architecture::from(hidit());
    let labels = Labels::new(["apple, pome", "pear"].map(String::from).to_vec());
    let images = |given| {
        let ask = serde_json::from_value::<Ask>(given).expect("it reads");
        ask.request(&architecture, &labels).expect("valid").images
    };
    let own = |seed| ImageSpec::new(Some(1), seed, 5);
    let between = |seed, amount| {
        let blend = Some(Blend { seed, amount });
        move |own: ImageSpec| ImageSpec { blend, ..own }
    };
    let blend = json!({"seed": 4, "amount": 0.25});
    let blended = json!({"class": 1, "seed": 7, "index": 5, "count": 2, "blend": blend});
    assert_eq!(images(blended), [own(7), own(8)].map(between(4, 0.25)));
    let way = json!({"class": 1, "seed": 7, "index": 5, "count": 3, "toSeed": u64::MAX});
    assert_eq!(images(way), [own(7), between(u64::MAX, 0.5)(own(7)), own(u64::MAX)]);
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_network_has_fields_for_what_acts_on_its_samplers() {
    let preset = |name| tintype::preset::find(name).expect("a preset").architecture;
    let [hdit, sit] = ["hdit-imagenet-256", "sit-s-1"].map(preset);
    let without_classes = preset("hdit-ffhq-1024");
    let (hidit, pmf) = (Architecture::from(hidit()), Architecture::from(pmf()));
    let (jit, ditdh) = (Architecture::from(jit()), Architecture::from(ditdh()));
    for (architecture, sampler, times, expected) in [
        (
            &hdit,
            "heun",
            "uniform",
            "cfgInterval cfgAdaptive s_noise s_churn s_tmin s_tmax rho sigma_min sigma_max",
        ),
        (
            &hdit,
            "dpmpp-3m-sde",
            "uniform",
            "cfgInterval cfgAdaptive eta s_noise rho sigma_min sigma_max",
        ),
        (
            &hdit,
            "dpm-adaptive",
            "uniform",
            "cfgInterval cfgAdaptive eta s_noise sigma_min sigma_max",
        ),
        (&without_classes, "dpmpp-2m", "uniform", "rho sigma_min sigma_max"),
        (&sit, "euler", "uniform", "cfgInterval shift times cfgAdaptive"),
        (&sit, "euler", "karras", "cfgInterval shift times cfgAdaptive rho sigma_min sigma_max"),
        (&sit, "euler-maruyama", "uniform", "cfgInterval cfgAdaptive"),
        (&hidit, "dpmpp-2m", "logit-normal", "cfgInterval shift times cfgAdaptive"),
        (&hidit, "euler-maruyama", "uniform", "cfgInterval cfgAdaptive"),
        (&pmf, "mean-flow", "uniform", "cfgInterval"),
        (&jit, "heun", "uniform", "cfgInterval shift times cfgAdaptive"),
        (&ditdh, "euler", "uniform", "cfgInterval shift times cfgAdaptive"),
    ] {
        let fields = fields(architecture);
        let acts = |grids: &Vec<&str>| grids.contains(&times);
        let acting = fields.iter().filter(|field| field.applies.get(sampler).is_some_and(acts));
        let names: Vec<&str> = acting.map(|field| field.name).collect();
        assert_eq!(names.join(" "), expected, "{sampler} with {times} times");
    }

    let of = |name| fields(&hdit).into_iter().find(|field| field.name == name).expect("a field");
    let (eta, lowest, interval) = (of("eta"), of("sigma_min"), of("cfgInterval"));
    assert_eq!((eta.label, eta.range, eta.default), ("η", Some([0.0, 1.0]), vec![None]));
    assert_eq!(lowest.range, Some([0.0001, f64::INFINITY]));
    assert_eq!(
        (lowest.default, interval.default),
        (vec![Some(0.01)], vec![Some(0.0), Some(f64::MAX)])
    );
    assert_eq!(interval.range, Some([0.0, f64::INFINITY]), "noise levels");
    let of_jit = |name| fields(&jit).into_iter().find(|field| field.name == name);
    let interval = of_jit("cfgInterval").expect("a field");
    // Its authors guide from 0.1 on, where 0 is noise.
    assert_eq!((interval.range, interval.default), (Some([0.0, 1.0]), vec![Some(0.0), Some(0.9)]));
    assert_eq!(of_jit("s_noise"), None, "its noise is the network's");
    let times = fields(&sit).into_iter().find(|field| field.name == "times").expect("a field");
    assert_eq!((times.choices[0], times.choices.len(), times.range), ("uniform", 3, None));

    let given = json!({"sampler": "dpmpp-2m-sde", "karras": {"eta": 2.0}});
    let ask = serde_json::from_value::<Ask>(given).expect("it reads");
    let error = ask.request(&hdit, &Labels::numbered(1000)).expect_err("out of range");
    let sentence = tintype_web::face::sentence(error.cause());
    assert_eq!(sentence, "eta 2 is not between 0 and 1");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn errors_name_fields_of_a_request() {
    let file = || "x.pt".to_string();
    let errors: [(&(dyn std::error::Error + 'static), &str); 9] = [
        (
            &LoadError::NoVae("Hi-DiT"),
            "Hi-DiT works on latents and needs an autoencoder; give its file as `vae`",
        ),
        (
            &LoadError::NoStats("LightningDiT"),
            "LightningDiT needs the statistics of its latents, such as latents_stats.pt or stat.pt; give its file as `stats`",
        ),
        (
            &LoadError::Weights(WeightsError::Autoencoder { file: file() }),
            "x.pt: it is an autoencoder; give its file as `vae`",
        ),
        (
            &WeightsError::NeedsConfiguration { file: file(), reason: "an HDiT".into() },
            "x.pt: an HDiT; give its file as `config`",
        ),
        (&DeviceError::Missing("WebGPU".into(), Vec::new()), "no WebGPU device was found"),
        (&Setting::GuidanceScale.check(-1.0).unwrap_err(), "cfg -1 is not 0 or more"),
        (&Setting::GateTime.check(1.5).unwrap_err(), "tau 1.5 is not between 0 and 1"),
        (
            &Setting::Precision.invalid(Problem::Unsupported { dtype: "f16" }),
            "precision f16 is not supported by this device; use f32",
        ),
        (&Labels::numbered(3).find("zebra").unwrap_err(), "there is no class \"zebra\""),
    ];
    for (error, sentence) in errors {
        assert_eq!(tintype_web::face::sentence(error), sentence);
    }
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn pictures_develop_and_carry_their_settings() {
    let mut session = session(&processor());
    let info = session.info();
    assert_eq!((info.architecture, info.image_size, info.gate), ("Hi-DiT", [32, 32], Some(0.5)));
    assert_eq!((info.classes[0].as_str(), info.classes.len()), ("apple, pome", 3));
    let (updates, done) = run(&mut session, &ask(), None);
    assert!(done);
    let mut steps = Vec::new();
    for update in &updates {
        if let Update::Step { index, pixels, first, previews, .. } = update {
            steps.push((*first, *index, *pixels));
            assert_eq!((previews.len(), previews[0].width), (1, 32));
        }
    }
    let open = |index: usize| (index >= 3, index);
    let expected = (0..2)
        .flat_map(|first| (0..6).map(open).map(move |(pixels, index)| (first, index, pixels)));
    assert_eq!(steps, expected.collect::<Vec<_>>());
    let pictures = pictures(updates);
    assert_eq!(pictures.iter().map(|(o, ..)| o.spec.seed).collect::<Vec<_>>(), [7, 8]);
    for (origin, image, latent, png) in &pictures {
        assert_eq!(Origin::read(png).expect("it carries them"), *origin);
        assert_eq!(origin.class_name, "apple, pome");
        let latent = latent.as_ref().expect("it was asked for");
        assert!(difference(image, latent) > 0.5, "two streams are two pictures");
    }
    assert!(difference(&pictures[0].1, &pictures[1].1) > 1.0, "two seeds are two pictures");
}

/// The picture of a native build on x86-64: the mean of each of 16 tiles, all colours together.
#[rustfmt::skip]
const TILES: [f64; 16] = [
    139.8, 132.9, 137.8, 128.3,
    130.7, 125.1, 126.1, 129.9,
    123.6, 120.5, 126.9, 125.7,
    128.6, 129.4, 133.9, 132.7,
];

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_browser_makes_the_pictures_of_a_native_program() {
    let (updates, _) = run(&mut session(&processor()), &ask(), None);
    let image = &pictures(updates)[0].1;
    let mean = |tile: usize| {
        let (x, y) = (tile % 4 * 8, tile / 4 * 8);
        let row = |y: usize| &image.pixels[(y * 32 + x) * 3..(y * 32 + x + 8) * 3];
        let sum: u32 = (y..y + 8).flat_map(row).map(|v| *v as u32).sum();
        sum as f64 / 192.0
    };
    let means: Vec<f64> = (0..16).map(mean).collect();
    let close = means.iter().zip(TILES).all(|(mean, expected)| (mean - expected).abs() < 0.1);
    assert!(close, "{means:.1?}");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_model_has_the_same_fingerprint_everywhere() {
    assert_eq!(session(&processor()).info().fingerprint, "a8454562b8209a49");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_run_stops_after_its_step_and_another_can_follow() {
    let mut session = session(&processor());
    let (updates, done) = run(&mut session, &ask(), Some(2));
    assert!(!done);
    assert!(matches!(updates.last(), Some(Update::Step { index: 2, .. })));
    assert_eq!(updates.len(), 3);
    let quick = Ask { preview: false, count: 1, ..ask() };
    let (updates, done) = run(&mut session, &quick, None);
    assert!(done);
    assert!(matches!(&updates[0], Update::Step { previews, .. } if previews.is_empty()));
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_quality_is_steps_and_sampler_of_the_model() {
    let info = session(&processor()).info();
    let preset = |name, sampler, steps| Preset { name, sampler, steps };
    let expected = [
        preset("draft", "unipc", 8),
        preset("good", "unipc", 16),
        preset("best", "euler-maruyama", 50),
    ];
    assert_eq!(info.qualities, expected);
    assert!(!info.one_step);
    let of = |sampler: &str| info.evaluations[sampler];
    assert_eq!((of("unipc"), of("heun"), of("dpmpp-2s")), (Some(1), Some(2), Some(2)));
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn one_step_models_can_follow_changes() {
    let bytes = file(&pmf().init(&Device::flex()).expect("valid"), &pmf());
    let model = Weights::from_bytes(bytes, "model").expect("it reads");
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    let mut session = Session::load(parts, None, &processor()).expect("it loads");
    let info = session.info();
    assert!(info.one_step && info.guided);
    assert_eq!(info.ranges["blend"], [0.0, 1.0]);
    assert_eq!(info.evaluations["mean-flow"], Some(1));
    assert!(info.qualities.iter().all(|q| (q.sampler, q.steps) == ("mean-flow", 1)));

    // The first is stopped before its step; the next one is what was asked for last.
    let ask = |seed| Ask { class: Some(Class::Number(1)), seed, preview: false, ..Ask::default() };
    let (updates, done) = run(&mut session, &ask(1), Some(0));
    assert!(!done && updates.len() == 1);
    let mut picture = |ask: &Ask| {
        let (updates, done) = run(&mut session, ask, None);
        assert!(done && updates.len() == 2, "a step and a picture");
        pictures(updates).remove(0)
    };
    let second = picture(&ask(2));
    assert_eq!((second.0.spec.seed, second.0.settings.steps), (2, 1));
    assert!(difference(&second.1, &picture(&ask(3)).1) > 1.0);
    let guided = Ask { cfg: Some(4.0), ..ask(2) };
    assert_ne!(picture(&guided).1, second.1);

    // A second seed leads from its picture to that of the other one.
    let blended = |amount| {
        let blend = Blend { seed: 3, amount };
        let (origin, image, _, png) = picture(&Ask { blend: Some(blend), ..ask(2) });
        assert_eq!((origin.spec.seed, origin.spec.blend), (2, Some(blend)));
        assert_eq!(Origin::read(&png).expect("it carries them"), origin);
        image
    };
    let [start, middle, end] = [0.0, 0.5, 1.0].map(blended);
    assert_eq!(start, second.1);
    assert_eq!(end, picture(&ask(3)).1);
    assert!(difference(&middle, &start) > 1.0 && difference(&middle, &end) > 1.0);
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_jit_is_guided_within_its_authors_times() {
    let bytes = file(&jit().init(&Device::flex()).expect("valid"), &jit());
    let model = Weights::from_bytes(bytes, "model").expect("it reads");
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    let mut session = Session::load(parts, None, &processor()).expect("it loads");
    let info = session.info();
    assert_eq!((info.architecture, info.image_size, info.gate), ("JiT", [16, 16], None));
    let defaults = info.defaults;
    assert_eq!((defaults.sampler.as_str(), defaults.steps), ("heun", 50));
    assert_eq!(defaults.cfg_interval, [0.0, 0.9]);
    assert!(info.guided && !info.one_step && info.averages.is_empty());

    let ask = |cfg| {
        let class = Some(Class::Number(2));
        Ask { class, seed: 5, steps: Some(4), cfg: Some(cfg), ..Ask::default() }
    };
    let mut picture = |ask: &Ask| {
        let (updates, done) = run(&mut session, ask, None);
        assert!(done);
        pictures(updates).remove(0)
    };
    let (plain, guided) = (picture(&ask(1.0)), picture(&ask(4.0)));
    assert_eq!(guided.0.settings.guidance.high, 0.9);
    assert_ne!(plain.1, guided.1);
    // None of the four steps asks between these times.
    let never = Ask { cfg_interval: Some([0.8, 0.9]), ..ask(4.0) };
    assert_eq!(picture(&never).1, plain.1);
}

/// Statistics of the latents of [`configs::rae`] at each position, with variances from `low` on.
fn statistics_file(low: f32) -> Vec<u8> {
    let of = |low: f32| {
        let values: Vec<f32> =
            (0..64 * 2 * 2).map(|i| low + (i * 37 % 101) as f32 / 100.0).collect();
        TensorView::from_f32(vec![64, 2, 2], &values).expect("as many as the shape")
    };
    let tensors = [("mean".to_string(), of(0.0)), ("var".to_string(), of(low))];
    write_safetensors(&tensors.into(), &Default::default()).expect("it writes")
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_dit_dh_makes_pictures_with_the_decoder_and_the_statistics_of_a_rae() {
    let device = Device::flex();
    let open = |bytes: Vec<u8>, name: &str| Weights::from_bytes(bytes, name).expect("it reads");
    let model = open(file(&ditdh().init(&device).expect("valid"), &ditdh()), "model");
    let rae = configs::rae();
    let vae = open(file(&rae.init(&device).expect("valid"), &rae), "vae");
    let stats = [0.5, 4.0].map(|low| open(statistics_file(low), "stats"));
    let parts = |number: usize| Parts {
        model: &model,
        vae: Some(&vae),
        stats: Some(&stats[number]),
        guide: None,
    };
    let load = |parts: Parts<'_>| Session::load(parts, None, &processor());
    let mut session = load(parts(0)).expect("it loads");
    let info = session.info();
    assert_eq!((info.architecture, info.image_size), ("DiT-DH", [32, 32]));
    let defaults = info.defaults;
    assert_eq!((defaults.sampler.as_str(), defaults.steps, defaults.cfg), ("euler", 49, 1.0));
    assert!(info.guided && info.unused.is_empty(), "{:?}", info.unused);

    let picture = |session: &mut Session, seed: u64| {
        let ask = Ask { class: Some(Class::Number(1)), seed, steps: Some(3), ..Ask::default() };
        let (updates, done) = run(session, &ask, None);
        assert!(done);
        for update in &updates {
            if let Update::Step { previews, .. } = update {
                assert_eq!((previews.len(), previews[0].width), (1, 32));
            }
        }
        pictures(updates).remove(0)
    };
    let (origin, image, _, png) = picture(&mut session, 1);
    assert_eq!(Origin::read(&png).expect("it carries them"), origin);
    assert!(origin.weights.statistics.is_some());
    assert!(difference(&image, &picture(&mut session, 2).1) > 1.0, "two seeds are two pictures");
    let mut other = load(parts(1)).expect("it loads");
    assert_ne!(picture(&mut other, 1).1, image, "statistics are of the latents");

    let refused = |parts| tintype_web::face::sentence(&load(parts).expect_err("a file is missing"));
    let without = refused(Parts { stats: None, ..parts(0) });
    assert!(without.ends_with("give its file as `stats`"), "{without}");
    let without = refused(Parts { vae: None, ..parts(0) });
    assert!(without.ends_with("give its file as `vae`"), "{without}");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_model_that_has_no_room_is_refused() {
    let model = Weights::from_bytes(model_file(), "model").expect("it reads");
    let vae = Weights::from_bytes(vae_file(), "vae").expect("it reads");
    let half = |view: &TensorView| view.converted(tintype::weights::Dtype::F16).expect("small");
    let tensors = vae.tensors.iter().map(|(name, view)| (name.clone(), half(view))).collect();
    let halved = Weights { tensors, ..vae.clone() };
    let parts = |vae| Parts { model: &model, vae: Some(vae), stats: None, guide: None };
    let needed = |vae| parts(vae).needed(Precision::F32, &Device::flex()).expect("it is known");
    assert_eq!(needed(&halved), needed(&vae), "autoencoders compute in float32");

    let on_processor = processor();
    let check = |held, found: &Found, room| room::check(parts(&halved), held, found, room);
    let room = needed(&vae) + 100;
    assert!(check(100, &on_processor, room).is_ok());
    let error = check(101, &on_processor, room).expect_err("a byte too many");
    let sentence = tintype_web::face::sentence(&error);
    assert!(sentence.contains("of memory, and a page has room for"), "{sentence}");
    // A GPU has a memory of its own, and files that are read at once lie in the engine's.
    let on_gpu = Found { kind: tintype::device::Kind::Discrete, ..processor() };
    assert!(check(100, &on_gpu, 100).is_ok());
    assert!(check(101, &on_gpu, 100).is_err());
}

/// A file that is read piece by piece, and that can vanish.
struct Pieces(Vec<u8>, usize);

impl Source for Pieces {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn read(&self, start: usize, into: &mut [u8]) -> io::Result<()> {
        if start > self.1 {
            return Err(io::Error::other("it is gone"));
        }
        into.copy_from_slice(&self.0[start..start + into.len()]);
        Ok(())
    }
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn weights_load_piece_by_piece() {
    let load = |bytes: Vec<u8>, readable: usize| {
        let model = Weights::from_source(Arc::new(Pieces(bytes, readable)), "model.safetensors")?;
        let vae = Weights::from_bytes(vae_file(), "vae")?;
        let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
        Session::load(parts, None, &processor())
    };
    let (whole, _) = run(&mut session(&processor()), &ask(), None);
    let mut loaded = load(model_file(), usize::MAX).expect("it loads");
    let (pieces, _) = run(&mut loaded, &ask(), None);
    assert_eq!(pictures(whole)[0].1, pictures(pieces)[0].1);

    let trouble = |bytes, readable| match load(bytes, readable) {
        Ok(_) => panic!("it cannot load"),
        Err(error) => error.to_string(),
    };
    assert!(trouble(model_file(), 20_000).contains("model.safetensors: it is gone"));
    let cut = model_file()[..30_000].to_vec();
    assert!(trouble(cut, usize::MAX).contains("size does not match its header"));
    assert!(trouble(b"<!doctype html><p>404".to_vec(), usize::MAX).contains("an HTML page"));
    assert!(trouble(Vec::new(), usize::MAX).contains("empty"));
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn averages_of_a_checkpoint_are_told_and_chosen_by_number() {
    let network = section(&jit().init(&Device::flex()).expect("valid"));
    let names = ["model", "model_ema1", "model_ema2"];
    let bytes = checkpoint(&names.map(|name| (name, network.clone())));
    let open = |number| {
        let source = Arc::new(Pieces(bytes.clone(), usize::MAX));
        Weights::average_from_source(source, "checkpoint-last.pth", number)
    };
    let model = open(2).expect("it reads");
    assert_eq!(model.metadata["section"], "model_ema2");
    let parts = Parts { model: &model, vae: None, stats: None, guide: None };
    let session = Session::load(parts, None, &processor()).expect("it loads");
    assert_eq!(session.info().averages, ["model_ema1", "model_ema2"]);
    let error = open(3).expect_err("there are two").to_string();
    assert!(error.contains("it holds no average 3"), "{error}");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn sixteen_bits_are_for_gpus() {
    let model = Weights::from_bytes(model_file(), "model").expect("it reads");
    let vae = Weights::from_bytes(vae_file(), "vae").expect("it reads");
    let half = |view: &TensorView| view.converted(tintype::weights::Dtype::F16).expect("small");
    let tensors = model.tensors.iter().map(|(name, view)| (name.clone(), half(view))).collect();
    let model = Weights { tensors, ..model };
    let parts = Parts { model: &model, vae: Some(&vae), stats: None, guide: None };
    let session = Session::load(parts, None, &processor()).expect("it loads");
    assert_eq!(session.info().precision, Precision::F32);
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn a_checksum_is_sha_256() {
    let mut sum = Checksum::new();
    sum.update(b"a");
    sum.update(b"bc");
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sum.hex(), abc);
    assert_eq!(sum.hex(), abc, "asking does not end it");
}

#[cfg_attr(target_family = "wasm", wasm_bindgen_test::wasm_bindgen_test)]
#[cfg_attr(not(target_family = "wasm"), test)]
fn networks_have_the_names_of_the_catalogue() {
    let networks = networks();
    let entries = Catalogue::built_in().entries().iter();
    let mut supported = 0;
    for entry in entries.filter(|entry| entry.kind == Kind::Network) {
        let known = entry.architecture.as_ref().is_some_and(|name| networks.contains(name));
        assert_eq!(known, entry.is_supported(), "{}", entry.name);
        supported += usize::from(known);
    }
    assert!(supported > 8, "{supported}");
}

#[cfg(target_family = "wasm")]
#[wasm_bindgen_test::wasm_bindgen_test]
async fn a_gpu_makes_the_pictures_of_the_processor() {
    let gpu = tintype::device::browser::open().await.expect("the test browser has one");
    let mut on_gpu = session(&gpu.found);
    assert_eq!(on_gpu.info().device, "webgpu");
    let mut all = Vec::new();
    let mut tell = async |update: Update| {
        all.push(update);
        Ok(())
    };
    on_gpu.generate(&ask(), &mut tell).await.expect("it computes");
    assert_eq!(gpu.failure(), None);
    let (expected, _) = run(&mut session(&processor()), &ask(), None);
    for (gpu, cpu) in pictures(all).iter().zip(&pictures(expected)) {
        assert!(difference(&gpu.1, &cpu.1) < 0.5, "{}", difference(&gpu.1, &cpu.1));
    }
}
