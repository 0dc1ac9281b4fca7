//! From a TOML file to a configuration: presets, unknown keys, checks.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tintype::files::read_text;
use tintype::model::rae::RaeDecoderConfig;
use tintype::model::vavae::VaeConfig;

use super::config::Config;
use super::recipe::Trained;
use super::schedule::Schedule;
use super::toml_text;
use super::unknown_keys::parse_table;
use super::validation::{refuse_unused, validate};

/// The recipes, for a sentence.
const RECIPES: &str = "hidit, lightningdit, hdit, meanflow, jit, ditdh, vae or rae-decoder";

impl Config {
    /// Reads a file; paths in it are relative to the current folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = read_text(path).with_context(|| format!("{name} cannot be read"))?;
        Self::parse(&text).with_context(|| name.to_string())
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// * The text is not TOML, or its recipe or preset is unknown.
    /// * A key is missing, of another type, or read by nothing.
    /// * A number is out of range, or the recipe does not use a setting.
    pub fn parse(text: &str) -> Result<Self> {
        let mut value: Value = serde_json::to_value(toml_text::parse(text)?)?;
        let Some(recipe) = value.get("recipe").and_then(Value::as_str).map(String::from) else {
            bail!("the key \"recipe\" is missing; it is {RECIPES}");
        };
        match recipe.as_str() {
            "hidit" | "lightningdit" | "hdit" | "meanflow" | "jit" | "ditdh" | "vae"
            | "rae-decoder" => {}
            other => bail!("recipe = {other:?} is unknown; it is {RECIPES}"),
        }
        if value.get("loss").is_none() {
            value["loss"] = Value::Object(Default::default());
        }
        expand_preset(&mut value, &recipe)?;
        // The bottleneck of its patch embedding tells a pMF from an iMF.
        if recipe == "meanflow" && value["model"].get("pca_channels").is_some() {
            value["recipe"] = "pmf".into();
        }
        let mut config: Self = parse_table(&value)?;
        refuse_unused(&value)?;
        validate(&config)?;
        let (run, optimizer) = config.shared_mut();
        if optimizer.schedule != Schedule::Constant {
            optimizer.decay_steps.get_or_insert(run.steps);
        }
        Ok(config)
    }
}

/// Expands `model.preset`; keys of the file override the preset's.
fn expand_preset(value: &mut Value, recipe: &str) -> Result<()> {
    let Some(model) = value.get_mut("model").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    let Some(name) = model.remove("preset") else { return Ok(()) };
    let name = name.as_str().context("model.preset is not a name")?.to_string();
    let preset = match (recipe, name.as_str()) {
        ("vae", "f16d32") => serde_json::to_value(VaeConfig::f16d32())?,
        ("vae", "f8d4") => serde_json::to_value(VaeConfig::f8d4())?,
        ("rae-decoder", size) => {
            let unknown =
                || format!("model.preset = {size:?} is unknown; it is one such as vitxl-256");
            serde_json::to_value(rae_decoder(size).with_context(unknown)?)?
        }
        _ => {
            let preset = tintype::preset::find(&name);
            let preset = preset.with_context(|| format!("model.preset = {name:?} is unknown"))?;
            match (recipe, Trained::of(&preset.architecture)) {
                ("hidit", Some(Trained::HiDiT(_)))
                | ("lightningdit", Some(Trained::LightningDiT(_)))
                | ("hdit", Some(Trained::HDiT(_)))
                | ("meanflow", Some(Trained::Imf(_) | Trained::Pmf(_)))
                | ("jit", Some(Trained::Jit(_)))
                | ("ditdh", Some(Trained::DitDh(_))) => preset.architecture.config(),
                _ => bail!("model.preset = {name:?} is not a {recipe} network"),
            }
        }
    };
    let Value::Object(mut merged) = preset else { bail!("a preset is a table") };
    merged.append(model);
    *model = merged;
    Ok(())
}

/// A size of RAE's decoder by the name of its folder and the side of its images: `vitxl-256`.
fn rae_decoder(name: &str) -> Option<RaeDecoderConfig> {
    let (size, side) = name.strip_prefix("vit")?.split_once('-')?;
    RaeDecoderConfig::variant(&size.to_uppercase(), side.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::DitDhData;
    use crate::train::ditdh::{DitDhLoss, TimeDistribution};
    use crate::train::jit::JitLoss;
    use crate::train::meanflow::draws::MeanFlowLoss;
    use crate::train::meanflow::pmf::PmfLoss;

    const SMALL: &str = r#"
recipe = "hidit"
[model]
preset = "hidit-xl-1-256"
depth = 2
[data]
latents = "latents"
[run]
steps = 10
batch = 4
[optimizer]
lr = 1e-4
betas = [0.9, 0.999]
[ema]
decay = 0.9999
"#;

    #[test]
    fn every_shipped_configuration_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            Config::read(&path).unwrap_or_else(|e| panic!("{e:#}"));
            count += 1;
        }
        assert!(count >= 33, "{count}");
    }

    #[test]
    fn a_preset_takes_other_numbers() {
        let Config::HiDiT(recipe) = Config::parse(SMALL).unwrap() else { panic!("hidit") };
        assert_eq!((recipe.model.sit.depth, recipe.model.sit.hidden_size), (2, 1152));
        assert_eq!(recipe.loss.stage, 1);
        assert_eq!(recipe.optimizer.eps, 1e-8);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let message = |from: &str, to: &str| {
            Config::parse(&SMALL.replace(from, to)).expect_err(to).to_string()
        };
        let m = message("batch = 4", "batch = 4\nbatch_sise = 8");
        assert!(m.contains("run.batch_sise"), "{m}");
        assert!(message("lr = 1e-4", "lr = 1e-4\nmax_grad_nrom = 1").contains("max_grad_norm"));
        assert!(message("depth = 2", "depth = 2\nwidht = 3").contains("model.widht"));
        assert!(message("[ema]", "[emma]").contains("emma"));
        assert!(message("decay = 0.9999", "decay = 0.9\npower = 2").contains("ema.power"));
        assert!(message("\"hidit\"", "\"dit\"").contains("hidit, lightningdit"));
        assert!(message("hidit-xl-1-256", "lightningdit-xl-1").contains("not a hidit"));
        assert!(message("steps = 10", "steps = 0").contains("run.steps"));
        assert!(message("latents = \"latents\"", "").contains("latents"));
        assert!(message("lr = 1e-4", "lr = -1.0").contains("optimizer.lr"));
    }

    #[test]
    fn unknown_keys_in_arrays_are_errors_and_other_names_are_not() {
        let attention = |keys: &str| {
            let text = SMALL
                .replace("\"hidit\"", "\"hdit\"")
                .replace("preset = \"hidit-xl-1-256\"\ndepth = 2", "preset = \"hdit-cifar10\"")
                .replace("latents = \"latents\"", "images = \"images\"")
                .replace("[data]", &format!("self_attns = [{{ type = \"neighborhood\", {keys} }}, {{ type = \"global\" }}]\n[data]"));
            Config::parse(&text).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(attention("kernel_size = 7"), Ok(()));
        let error = attention("kernel_sise = 7").expect_err("a typo");
        assert!(error.contains("model.self_attns[0].kernel_sise"), "{error}");
        assert!(error.contains("did you mean kernel_size?"), "{error}");
        // Hi-DiT's short names.
        let short = SMALL.replace(
            "preset = \"hidit-xl-1-256\"\ndepth = 2",
            "latent_size = 8\npatch = 1\nlatent_channels = 16\nhidden = 32\ndepth = 2\nheads = 2\nnum_classes = 3\nimage = 64\npixel_patch = 8",
        );
        let Config::HiDiT(recipe) = Config::parse(&short).expect("other names") else {
            panic!("hidit")
        };
        assert_eq!(recipe.model.sit.hidden_size, 32);
    }

    #[test]
    fn schedules_end_with_the_configured_steps_and_are_recorded() {
        let with = |line: &str| {
            let text = SMALL.replace("lr = 1e-4", &format!("lr = 1e-4\n{line}"));
            Config::parse(&text).unwrap_or_else(|e| panic!("{e:#}"))
        };
        let mut cosine = with("schedule = \"cosine\"");
        cosine.set_steps(3);
        assert_eq!(cosine.shared().optimizer.decay_steps, Some(10));
        let constant = with("");
        assert_eq!(constant.shared().optimizer.decay_steps, None);
        assert_ne!(constant.recorded().expect("values"), cosine.recorded().expect("values"));
        let mut longer = with("");
        longer.set_steps(100);
        assert_eq!(constant.recorded().expect("values"), longer.recorded().expect("values"));
    }

    #[test]
    fn mean_flows_take_presets_muon_and_no_recomputation() {
        let text = SMALL
            .replace("\"hidit\"", "\"meanflow\"")
            .replace("hidit-xl-1-256\"\ndepth = 2", "imf-b-2\"\nnum_classes = 10");
        let Config::MeanFlow(recipe) = Config::parse(&text).unwrap() else { panic!("meanflow") };
        let shape = &recipe.model.shape;
        assert_eq!((shape.depth, shape.hidden_size, shape.num_classes), (12, 768, 10));
        assert!(!recipe.optimizer.muon);
        let muon = text.replace("lr = 1e-4", "lr = 1e-3\nmuon = true");
        let Config::MeanFlow(recipe) = Config::parse(&muon).unwrap() else { panic!("meanflow") };
        assert!(recipe.optimizer.muon);
        let refused = |from: &str, to: &str| {
            Config::parse(&text.replace(from, to)).expect_err(to).to_string()
        };
        let m = refused("batch = 4", "batch = 4\nrecompute = true");
        assert!(m.contains("run.recompute"), "{m}");
        let m = refused("[run]", "[loss]\nomega_max = 0.5\n[run]");
        assert!(m.contains("loss.omega_max"), "{m}");
        let m = refused("[run]", "[loss]\nflow_matching = 1.5\n[run]");
        assert!(m.contains("loss.flow_matching"), "{m}");
        let m = refused("[run]", "[loss]\nomega_mx = 2.0\n[run]");
        assert!(m.contains("loss.omega_mx"), "{m}");
        let m = refused("[data]", "[preview]\nevery = 1\ncfg = 0.5\n[data]");
        assert!(m.contains("preview.cfg"), "{m}");
        let m = refused("latents = \"latents\"", "latents = \"latents\"\nstats = \"stats.pt\"");
        assert!(m.contains("data.stats has no effect"), "{m}");
        let others = text
            .replace("num_classes = 10", "num_classes = 10\nin_channels = 16")
            .replace("latents = \"latents\"", "latents = \"latents\"\nstats = \"stats.pt\"");
        assert!(Config::parse(&others).is_ok(), "latents of other autoencoders need statistics");
        let m = refused("imf-b-2", "hdit-cifar10");
        assert!(m.contains("not a meanflow network"), "{m}");
        let m = Config::parse(&SMALL.replace("lr = 1e-4", "lr = 1e-4\nmuon = true"));
        let m = m.expect_err("no matrices are named").to_string();
        assert!(m.contains("optimizer.muon"), "{m}");
    }

    #[test]
    fn mean_flows_of_pixels_are_told_by_their_network() {
        let text = SMALL
            .replace("\"hidit\"", "\"meanflow\"")
            .replace("hidit-xl-1-256\"\ndepth = 2", "pmf-b-32\"\nnum_classes = 10")
            .replace("latents = \"latents\"", "images = \"store\"")
            .replace("decay = 0.9999", "half_life = 500_000");
        let Config::Pmf(recipe) = Config::parse(&text).unwrap() else { panic!("pMF") };
        assert_eq!((recipe.model.noise_scale, recipe.model.shape.num_classes), (2.0, 10));
        assert_eq!(recipe.loss, PmfLoss::default());
        let explicit = text.replace("[run]", "[loss]\np_mean = 0.8\nuniform_times = 0.1\n[run]");
        let Config::Pmf(recipe) = Config::parse(&explicit).unwrap() else { panic!("pMF") };
        let MeanFlowLoss { p_mean, p_std, uniform_times, .. } = recipe.loss.draws;
        assert_eq!((p_mean, p_std, uniform_times), (0.8, 1.0, 0.1));
        let refused = |from: &str, to: &str| {
            Config::parse(&text.replace(from, to)).expect_err(to).to_string()
        };
        for (key, from, to) in [
            ("loss.lpips_weight", "[run]", "[loss]\nlpips_weight = 0.4\n[run]"),
            ("loss.perceptual_sid", "[run]", "[loss]\nperceptual_sid = 64\n[run]"),
            ("loss.uniform_times", "[run]", "[loss]\nuniform_times = 1.5\n[run]"),
            ("preview.vae", "[run]", "[preview]\nevery = 1\nvae = \"vae\"\n[run]"),
            ("data.latents", "[run]", "latents = \"x\"\n[run]"),
            ("images", "images = \"store\"", ""),
            ("run.recompute", "batch = 4", "batch = 4\nrecompute = true"),
            ("ema.half_life", "half_life = 500_000", "half_life = 0"),
        ] {
            let said = refused(from, to);
            assert!(said.contains(key), "{to}: {said}");
        }
        let seen = "images = \"store\"\nlpips = \"vgg.pth\"\n[loss]\nlpips_weight = -1.0";
        assert!(refused("images = \"store\"", seen).contains("loss.lpips_weight = -1 is negative"));
    }

    /// A small network of a recipe, in place of Hi-DiT's.
    fn small(recipe: &str, model: &str) -> String {
        SMALL.replace("\"hidit\"", &format!("\"{recipe}\"")).replace(
            "preset = \"hidit-xl-1-256\"\ndepth = 2",
            &format!("in_channels = 3\ninput_size = 16\nnum_classes = 3\n{model}"),
        )
    }

    #[test]
    fn jit_has_its_authors_settings() {
        let shape = "patch_size = 4\nhidden_size = 32\ndepth = 4\nnum_heads = 2\nmlp_ratio = 4.0";
        let rest = "bottleneck_dim = 8\nin_context_len = 2\nin_context_start = 1\nnoise_scale = 1.0\nt_eps = 0.05";
        let text = small("jit", &format!("{shape}\n{rest}"))
            .replace("latents = \"latents\"", "images = \"store\"");
        let read = |from: &str, to: &str| match Config::parse(&text.replace(from, to)) {
            Ok(Config::Jit(recipe)) => recipe,
            other => panic!("{other:?}"),
        };
        let recipe = read("", "");
        assert_eq!((recipe.loss, recipe.model.in_context_len), (JitLoss::default(), 2));
        let recipe = read("lr = 1e-4", "lr = 1e-4\nwarmup_steps = 4\nwarmup_from = \"zero\"");
        assert_eq!([0, 1, 4].map(|step| recipe.optimizer.lr_at(step)), [0.0, 0.25e-4, 1e-4]);
        for (key, from, to) in [
            ("loss.label_drop_prob", "[run]", "[loss]\nlabel_drop_prob = 1.5\n[run]"),
            ("loss.p_std", "[run]", "[loss]\np_std = -0.1\n[run]"),
            ("loss.proj_dropout", "[run]", "[loss]\nproj_dropout = 1.0\n[run]"),
            ("loss.attn_dropout", "[run]", "[loss]\nattn_dropout = 0.1\n[run]"),
            ("preview.vae", "[run]", "[preview]\nevery = 1\nvae = \"vae\"\n[run]"),
            ("optimizer.warmup_from", "lr = 1e-4", "lr = 1e-4\nwarmup_from = \"zero\""),
            ("optimizer.muon", "lr = 1e-4", "lr = 1e-4\nmuon = true"),
            ("images", "images = \"store\"", ""),
        ] {
            let said = Config::parse(&text.replace(from, to)).expect_err(to).to_string();
            assert!(said.contains(key), "{to}: {said}");
        }
        // A middle half of three blocks is none.
        let dropping = text.replace("[run]", "[loss]\nproj_dropout = 0.2\n[run]");
        assert!(Config::parse(&dropping).is_ok());
        let shallow = dropping.replace("depth = 4", "depth = 3");
        let said = Config::parse(&shallow).expect_err("no block drops").to_string();
        assert!(said.contains("loss.proj_dropout has no effect"), "{said}");
    }

    #[test]
    fn ditdh_has_its_authors_settings() {
        let text = small("ditdh", "hidden_size = [32, 48]\ndepth = [2, 1]\nnum_heads = [2, 2]");
        let read = |from: &str, to: &str| match Config::parse(&text.replace(from, to)) {
            Ok(Config::DitDh(recipe)) => recipe,
            other => panic!("{other:?}"),
        };
        let recipe = read("", "");
        assert_eq!((recipe.loss, recipe.model.depth), (DitDhLoss::default(), [2, 1]));
        let recipe = read("[run]", "[loss]\ntime_dist_type = \"uniform\"\n[run]");
        assert_eq!(recipe.loss.time_dist_type, TimeDistribution::Uniform);
        let full = "lr = 1e-4\nwarmup_steps = 4\nwarmup_from = \"full\"";
        let recipe = read("lr = 1e-4", &format!("{full}\nschedule = \"linear\""));
        assert_eq!([0, 4, 7].map(|step| recipe.optimizer.lr_at(step)), [1e-4, 1e-4, 0.5e-4]);
        for (key, from, to) in [
            ("loss.time_dist_type", "[run]", "[loss]\ntime_dist_type = \"lognorm\"\n[run]"),
            ("loss.freeze_embedding", "[run]", "[loss]\nfreeze_embedding = true\n[run]"),
            ("data.teacher", "[run]", "teacher = \"x\"\n[run]"),
            ("optimizer.warmup_from", "lr = 1e-4", full),
        ] {
            let said = Config::parse(&text.replace(from, to)).expect_err(to).to_string();
            assert!(said.contains(key), "{to}: {said}");
        }
    }

    #[test]
    fn ditdh_takes_cached_latents_or_images_and_their_encoder() {
        let text = small("ditdh", "hidden_size = [32, 48]\ndepth = [2, 1]\nnum_heads = [2, 2]");
        let read = |lines: &str| Config::parse(&text.replace("latents = \"latents\"", lines));
        let images = "images = \"store\"\nencoder = \"dino.pth\"\nencoder_input_size = 42";
        let config = read(&format!("{images}\nstats = \"stat.pt\"")).expect("it is read");
        assert_eq!(config.recorded().expect("values")["data"]["encoder_input_size"], 42);
        let Config::DitDh(recipe) = config else { panic!("ditdh") };
        assert_eq!(recipe.data.stats(), Some(Path::new("stat.pt")));
        let DitDhData::Encoded(data) = recipe.data else { panic!("images") };
        assert_eq!((data.images, data.encoder_input_size), ("store".into(), Some(42)));
        let cached = read("latents = \"latents\"\nimages = \"store\"").expect("it is read");
        let Config::DitDh(recipe) = cached else { panic!("ditdh") };
        assert_eq!(recipe.data.stats(), None);
        let DitDhData::Cached(data) = recipe.data else { panic!("latents") };
        assert_eq!((data.latents, data.images), ("latents".into(), Some("store".into())));
        for (lines, words) in [
            ("images = \"store\"", "neither data.latents nor data.encoder"),
            ("encoder = \"x\"\nstats = \"x\"", "set data.images"),
            (images, "set data.stats"),
            ("latents = \"x\"\nencoder = \"x\"", "data.encoder has no effect"),
            ("latents = \"x\"\nencoder_input_size = 42", "data.encoder_input_size has no effect"),
            ("latents = \"x\"\nencoder_size = 42", "data.encoder_size"),
        ] {
            let said = read(lines).expect_err(lines).to_string();
            assert!(said.contains(words), "{lines}: {said}");
        }
    }

    #[test]
    fn several_averages_are_a_list() {
        for list in [
            "ema = [{ decay = 0.9 }, { power = 0.7, max_value = 0.99 }]",
            "[[ema]]\ndecay = 0.9\n[[ema]]\npower = 0.7\nmax_value = 0.99",
        ] {
            let text = SMALL.replace("[ema]\ndecay = 0.9999\n", "");
            let text = match list.starts_with('[') {
                true => format!("{text}{list}\n"),
                false => format!("{list}\n{text}"),
            };
            let config = Config::parse(&text).unwrap_or_else(|e| panic!("{e:#}"));
            assert_eq!(config.shared().ema.map(|ema| ema.all().len()), Some(2));
        }
        let typo = SMALL.replace("[ema]\ndecay", "[[ema]]\ndecai = 1\ndecay");
        let error = Config::parse(&typo).expect_err("a typo").to_string();
        assert!(error.contains("ema[0].decai"), "{error}");
        let none = format!("ema = []\n{}", SMALL.replace("[ema]\ndecay = 0.9999\n", ""));
        let error = Config::parse(&none).expect_err("no average").to_string();
        assert!(error.contains("[ema] is missing"), "{error}");
    }
}
