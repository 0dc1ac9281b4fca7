//! What a configuration must not say.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::adamw::AdamWConfig;
use super::config::{Activations, Config, Shared};
use super::ema::{EmaConfig, EmaConfigs, FILES};
use super::meanflow::draws::MeanFlowLoss;
use super::schedule::{Schedule, WarmUp};

/// Settings that the recipes of autoencoders do not use: they make no samples.
const OF_SAMPLES: &[&str] =
    &["evaluate", "init.reinit", "preview.count", "preview.steps", "preview.cfg", "preview.vae"];

/// Settings that a recipe does not use, though they have a place in its tables; with what the recipe is in words.
const UNUSED: [(&str, &str, &[&str]); 7] = [
    ("vae", "the vae recipe", OF_SAMPLES),
    ("rae-decoder", "the rae-decoder recipe", OF_SAMPLES),
    ("hdit", "the hdit recipe", &["preview.vae", "evaluate.vae"]),
    ("lightningdit", "the lightningdit recipe", &["data.teacher"]),
    ("meanflow", "iMF", &["data.teacher"]),
    ("pmf", "pMF", &["preview.vae", "evaluate.vae"]),
    ("jit", "the jit recipe", &["preview.vae", "evaluate.vae"]),
];

/// Settings of losses that need one of these files.
const OF_FILES: [(&str, &[&str]); 10] = [
    ("loss.repa_weight", &["data.teacher"]),
    ("loss.vf_weight", &["data.teacher"]),
    ("loss.adaptive_vf", &["data.teacher"]),
    ("loss.distmat_margin", &["data.teacher"]),
    ("loss.cos_margin", &["data.teacher"]),
    ("loss.lpips_weight", &["data.lpips"]),
    ("loss.perceptual_weight", &["data.lpips"]),
    ("loss.convnext_weight", &["data.convnext"]),
    ("loss.perceptual_max_t", &["data.lpips", "data.convnext"]),
    ("loss.perceptual_side", &["data.lpips", "data.convnext"]),
];

/// Settings of a discriminator, which is not there where `loss.disc_weight` is 0.
const OF_DISCRIMINATOR: [&str; 4] =
    ["loss.disc_start", "loss.disc_upd_start", "loss.disc_channels", "loss.diff_augment"];

/// Settings of Hi-DiT's second stage, in which it learns pixels.
const OF_STAGE_2: [&str; 3] = ["loss.pixel_weight", "loss.pixel_loss", "loss.latent_noise"];

/// Refuses settings that the recipe does not use, or not without a file or a network that is not there.
///
/// # Errors
///
/// If there is one.
pub fn refuse_unused(table: &Value) -> Result<()> {
    let is_given =
        |key: &str| key.split('.').try_fold(table, |table, key| table.get(key)).is_some();
    let recipe = table.get("recipe").and_then(Value::as_str);
    for (_, words, keys) in UNUSED.iter().filter(|(name, ..)| recipe == Some(*name)) {
        for &key in *keys {
            ensure!(!is_given(key), "{key} is not used by {words}; remove it");
        }
    }
    for (key, files) in OF_FILES {
        ensure!(
            !is_given(key) || files.iter().any(|&file| is_given(file)),
            "{key} has no effect without {}",
            files.join(" or ")
        );
    }
    let stage = table.get("loss").and_then(|loss| loss.get("stage"));
    if recipe == Some("hidit") && stage.and_then(Value::as_u64).is_none_or(|stage| stage == 1) {
        for key in OF_STAGE_2 {
            ensure!(!is_given(key), "{key} has no effect with loss.stage = 1; remove it");
        }
    }
    let disc_weight = table.get("loss").and_then(|loss| loss.get("disc_weight"));
    if disc_weight.and_then(Value::as_f64) == Some(0.0) {
        for key in OF_DISCRIMINATOR {
            ensure!(!is_given(key), "{key} has no effect with loss.disc_weight = 0; remove it");
        }
    }
    Ok(())
}

/// Checks the numbers of the tables that recipes share.
///
/// # Errors
///
/// If a number is out of range, or has no effect on the recipe or beside another setting.
pub fn validate(config: &Config) -> Result<()> {
    let Shared { run, optimizer, ema, init, evaluate, preview } = config.shared();
    for (key, value) in [
        ("run.steps", Some(run.steps)),
        ("run.batch", Some(run.batch as u64)),
        ("run.accumulate", Some(run.accumulate as u64)),
        ("run.log_every", Some(run.log_every)),
        ("run.checkpoint_every", Some(run.checkpoint_every)),
        ("optimizer.decay_steps", optimizer.decay_steps),
        ("evaluate.every", evaluate.map(|e| e.every)),
        ("evaluate.batch", evaluate.map(|e| e.batch as u64)),
        ("evaluate.steps", evaluate.and_then(|e| e.steps).map(|steps| steps as u64)),
        ("preview.every", preview.map(|p| p.every)),
        ("preview.count", preview.map(|p| p.count as u64)),
        ("preview.steps", preview.and_then(|p| p.steps).map(|steps| steps as u64)),
    ] {
        ensure!(value != Some(0), "{key} must be at least 1");
    }
    if let Some(samples) = evaluate.map(|e| e.samples) {
        ensure!(samples > 1, "evaluate.samples must be at least 2");
    }
    let lr = optimizer.lr;
    ensure!(lr > 0.0 && lr.is_finite(), "optimizer.lr = {lr} is not a positive number");
    if optimizer.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
        bail!("optimizer.betas = {:?} are not in 0…1", optimizer.betas);
    }
    let warmup = optimizer.warmup;
    ensure!((0.0..1.0).contains(&warmup), "optimizer.warmup = {warmup} is not in 0…1");
    ensure!(optimizer.eps > 0.0, "optimizer.eps = {} is not a positive number", optimizer.eps);
    for (key, value) in [
        ("optimizer.weight_decay", Some(optimizer.weight_decay)),
        ("preview.cfg", preview.and_then(|p| p.cfg)),
        ("evaluate.cfg", evaluate.and_then(|e| e.cfg)),
    ] {
        let value = value.unwrap_or(0.0);
        ensure!(value >= 0.0, "{key} = {value} is negative");
    }
    if let Some(peak) = run.peak_tflops {
        ensure!(peak > 0.0, "run.peak_tflops = {peak} is not a positive number");
    }
    check_losses(config)?;
    check_mean_flow(config)?;
    if let Some(max) = optimizer.max_grad_norm {
        ensure!(max > 0.0, "optimizer.max_grad_norm = {max} is not a positive number");
    }
    if let Some(last) = optimizer.final_lr {
        ensure!(
            last >= 0.0 && last.is_finite(),
            "optimizer.final_lr = {last} is not a learning rate"
        );
    }
    let decays = optimizer.decay_steps.is_some() || optimizer.final_lr.is_some();
    ensure!(
        optimizer.schedule != Schedule::Constant || !decays,
        "optimizer.final_lr and optimizer.decay_steps have no effect with schedule = \"constant\"; set optimizer.schedule to cosine or linear"
    );
    check_warm_up(optimizer)?;
    let end = optimizer.decay_steps.unwrap_or(run.steps);
    ensure!(
        optimizer.schedule == Schedule::Constant || optimizer.warmup_steps < end,
        "optimizer.warmup_steps = {} leaves no steps of the {end} for the schedule",
        optimizer.warmup_steps
    );
    ensure!(
        init.reinit.is_empty() || init.from.is_some(),
        "init.reinit has no effect without init.from"
    );
    ensure!(
        init.names.is_none() || init.from.is_some(),
        "init.names has no effect without init.from"
    );
    let emas = ema.map(EmaConfigs::all).unwrap_or_default();
    for ema in emas {
        if let EmaConfig::Constant { decay: d } | EmaConfig::Inverse { max_value: d, .. } = ema {
            ensure!((0.0..=1.0).contains(d), "the EMA's decay {d} is not in 0…1");
        }
        if let EmaConfig::Inverse { power, .. } = ema {
            ensure!(*power > 0.0, "ema.power = {power} is not a positive number");
        }
        if let EmaConfig::HalfLife { half_life } = ema {
            ensure!(*half_life > 0.0, "ema.half_life = {half_life} is not a positive number");
        }
    }
    ensure!(emas.len() <= FILES.len(), "{} EMAs are more than {}", emas.len(), FILES.len());
    match config {
        Config::Vae(_) if ema.is_some() => {
            bail!("the autoencoder has no EMA; remove the table [ema]")
        }
        Config::Vae(_) => {}
        _ if emas.is_empty() => {
            bail!("the table [ema] is missing: decay = 0.9999, or power and max_value")
        }
        _ => {}
    }
    check_autoencoders(config)
}

/// Checks what the recipes of autoencoders do not have.
fn check_autoencoders(config: &Config) -> Result<()> {
    let run = match config {
        Config::Vae(recipe) => &recipe.run,
        Config::RaeDecoder(recipe) => {
            let (first, then) = (recipe.loss.disc_upd_start, recipe.loss.disc_start);
            ensure!(
                first <= then,
                "loss.disc_upd_start = {first} is behind loss.disc_start = {then}: the decoder would learn from a discriminator that has learned nothing"
            );
            &recipe.run
        }
        _ => return Ok(()),
    };
    ensure!(
        run.precision == Activations::F32,
        "the autoencoder trains in float32; remove run.precision"
    );
    ensure!(
        !run.recompute && run.accumulate == 1,
        "the autoencoder supports neither activation recomputation nor gradient accumulation; remove run.recompute and run.accumulate"
    );
    Ok(())
}

/// Refuses a beginning of the warm-up that has no effect.
fn check_warm_up(optimizer: &AdamWConfig) -> Result<()> {
    let from = optimizer.warmup_from;
    ensure!(
        from == WarmUp::Step || optimizer.warmup_steps > 0,
        "optimizer.warmup_from has no effect without optimizer.warmup_steps"
    );
    ensure!(
        from != WarmUp::Full || optimizer.schedule != Schedule::Constant,
        "optimizer.warmup_from = \"full\" has no effect with schedule = \"constant\"; set optimizer.schedule to cosine or linear"
    );
    Ok(())
}

/// Checks what the recipe of mean flows alone has, and what it alone has not.
fn check_mean_flow(config: &Config) -> Result<()> {
    let Shared { run, optimizer, evaluate, preview, .. } = config.shared();
    let loss = match config {
        Config::MeanFlow(recipe) => {
            ensure!(
                recipe.data.stats.is_none() || recipe.model.statistics().is_none(),
                "data.stats has no effect: an iMF on latents of 4 channels has statistics of its own; remove it"
            );
            &recipe.loss
        }
        Config::Pmf(recipe) => &recipe.loss.draws,
        _ => {
            let muon = optimizer.muon;
            ensure!(!muon, "optimizer.muon is only used by the meanflow recipe; remove it");
            return Ok(());
        }
    };
    ensure!(loss.p_std >= 0.0, "loss.p_std = {} is negative", loss.p_std);
    ensure!(loss.omega_max >= 1.0, "loss.omega_max = {} is below 1", loss.omega_max);
    ensure!(
        !run.recompute,
        "the meanflow recipe does not support activation recomputation; remove run.recompute"
    );
    for (key, cfg) in [
        ("preview.cfg", preview.and_then(|p| p.cfg)),
        ("evaluate.cfg", evaluate.and_then(|e| e.cfg)),
    ] {
        let cfg = cfg.unwrap_or(1.0);
        ensure!(cfg >= 1.0, "{key} = {cfg} is below 1, which is no guidance");
    }
    Ok(())
}

/// Numbers by the names of their settings.
type Named = Vec<(&'static str, f64)>;

/// The probabilities of a mean flow's draws.
fn of_draws(loss: &MeanFlowLoss) -> Named {
    vec![
        ("loss.label_dropout", loss.label_dropout),
        ("loss.flow_matching", loss.flow_matching),
        ("loss.uniform_times", loss.uniform_times),
    ]
}

/// Checks probabilities and weights of a recipe's losses and network.
fn check_losses(config: &Config) -> Result<()> {
    let (probabilities, weights): (Named, Named) = match config {
        Config::HiDiT(r) => (
            vec![
                ("loss.label_dropout", r.loss.label_dropout),
                ("model.class_dropout_prob", r.model.sit.class_dropout_prob),
            ],
            vec![
                ("loss.pixel_weight", r.loss.pixel_weight),
                ("loss.repa_weight", r.loss.repa_weight),
                ("loss.latent_noise", r.loss.latent_noise),
            ],
        ),
        Config::LightningDiT(r) => {
            (vec![("model.class_dropout_prob", r.model.class_dropout_prob)], Vec::new())
        }
        Config::HDiT(r) => (
            vec![
                ("loss.augment_prob", r.loss.augment_prob),
                ("loss.cond_dropout_rate", r.loss.cond_dropout_rate),
            ],
            Vec::new(),
        ),
        Config::MeanFlow(r) => (of_draws(&r.loss), Vec::new()),
        Config::Pmf(r) => (
            [of_draws(&r.loss.draws), vec![("loss.perceptual_max_t", r.loss.perceptual_max_t)]]
                .concat(),
            vec![
                ("loss.lpips_weight", r.loss.lpips_weight),
                ("loss.convnext_weight", r.loss.convnext_weight),
            ],
        ),
        Config::Jit(r) => (
            vec![
                ("loss.label_drop_prob", r.loss.label_drop_prob),
                ("loss.proj_dropout", r.loss.proj_dropout),
            ],
            vec![("loss.p_std", r.loss.p_std)],
        ),
        Config::DitDh(r) => {
            (vec![("model.class_dropout_prob", r.model.class_dropout_prob)], Vec::new())
        }
        Config::Vae(r) => (
            Vec::new(),
            vec![
                ("loss.disc_weight", r.loss.disc_weight),
                ("loss.kl_weight", r.loss.kl_weight),
                ("loss.perceptual_weight", r.loss.perceptual_weight),
                ("loss.vf_weight", r.loss.vf_weight),
            ],
        ),
        Config::RaeDecoder(r) => (
            Vec::new(),
            vec![
                ("loss.noise_tau", r.loss.noise_tau),
                ("loss.perceptual_weight", r.loss.perceptual_weight),
                ("loss.disc_weight", r.loss.disc_weight),
            ],
        ),
    };
    for (key, value) in probabilities {
        ensure!((0.0..=1.0).contains(&value), "{key} = {value} is not in 0…1");
    }
    for (key, value) in weights {
        ensure!(value >= 0.0, "{key} = {value} is negative");
    }
    if let Config::Jit(r) = config {
        let (rate, depth) = (r.loss.proj_dropout, r.model.depth);
        ensure!(rate < 1.0, "loss.proj_dropout = 1 leaves nothing to train");
        ensure!(
            rate == 0.0 || depth >= 4,
            "loss.proj_dropout has no effect with model.depth = {depth}: from 4 blocks on, those in the middle drop"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_used_are_refused_by_name() {
        let vae = "recipe = \"vae\"\n[model]\npreset = \"f16d32\"\n[data]\nimages = \"x\"\n[run]\nsteps = 9\nbatch = 1\n[optimizer]\nlr = 1e-4\nbetas = [0.5, 0.9]\n";
        let refused =
            |more: &str| Config::parse(&format!("{vae}{more}")).expect_err(more).to_string();
        assert!(Config::parse(vae).is_ok());
        assert!(Config::parse(&format!("{vae}max_grad_norm = 1.0\n")).is_ok());
        assert!(refused("[preview]\nevery = 1\ncount = 4\n").contains("preview.count"));
        assert!(refused("[loss]\nvf_weight = 0.1\n").contains("without data.teacher"));
        assert!(refused("[loss]\ncos_margin = 0.5\n").contains("without data.teacher"));
        assert!(refused("[init]\nfrom = \"x\"\nreinit = [\"a\"]\n").contains("init.reinit"));
        assert!(refused("[ema]\ndecay = 0.9\n").contains("no EMA"));
        assert!(refused("[init]\nreinit = [\"a\"]\n").contains("init.reinit"));
        assert!(refused("final_lr = 1e-5\n").contains("optimizer.final_lr"));
        for (line, key) in [
            ("warmup = 1.0\n", "optimizer.warmup"),
            ("eps = 0.0\n", "optimizer.eps"),
            ("weight_decay = -0.1\n", "optimizer.weight_decay"),
            ("max_grad_norm = nan\n", "optimizer.max_grad_norm"),
            ("weight_decay = inf\n", "optimizer.weight_decay"),
            ("[preview]\nevery = 0\n", "preview.every"),
            ("[loss]\nkl_weight = -1.0\n", "loss.kl_weight"),
            ("[loss]\nkl_weight = -inf\n", "loss.kl_weight"),
        ] {
            let said = refused(line);
            assert!(said.contains(key), "{line}: {said}");
        }
        let late = "schedule = \"linear\"\nwarmup_steps = 9\n";
        assert!(refused(late).contains("warmup_steps = 9"));
        assert!(refused("schedule = \"step\"\n").contains("step"));
    }

    #[test]
    fn rae_decoders_have_averages_and_a_discriminator_that_learns_first() {
        let text = "recipe = \"rae-decoder\"\n[model]\npreset = \"vitxl-256\"\n[data]\nimages = \"x\"\nencoder = \"y\"\n[run]\nsteps = 9\nbatch = 1\n[optimizer]\nlr = 1e-4\nbetas = [0.9, 0.95]\n[ema]\ndecay = 0.9978\n";
        let Config::RaeDecoder(recipe) = Config::parse(text).expect("it is read") else {
            panic!("RAE's decoder")
        };
        let model = &recipe.model;
        assert_eq!((model.grid, model.decoder_hidden_size, model.patch_size), (16, 1152, 16));
        assert_eq!((recipe.loss.disc_upd_start, recipe.loss.disc_start), (15_012, 20_016));
        let refused = |from: &str, to: &str| {
            Config::parse(&text.replace(from, to)).expect_err(to).to_string()
        };
        for (from, to, key) in [
            ("[ema]\ndecay = 0.9978", "", "[ema] is missing"),
            ("vitxl-256", "vitxl-250", "vitxl-250"),
            ("vitxl-256", "f16d32", "f16d32"),
            ("encoder = \"y\"\n", "", "encoder"),
            ("batch = 1", "batch = 1\nprecision = \"bf16\"", "run.precision"),
            ("batch = 1", "batch = 2\naccumulate = 2", "run.accumulate"),
            ("[run]", "[preview]\nevery = 1\ncount = 4\n[run]", "preview.count"),
            (
                "[run]",
                "[loss]\ndisc_start = 5\ndisc_upd_start = 6\n[run]",
                "loss.disc_upd_start = 6",
            ),
            ("[run]", "[loss]\nnoise_tau = -0.1\n[run]", "loss.noise_tau"),
            ("[run]", "[loss]\nnoise_tua = 0.1\n[run]", "did you mean noise_tau"),
            ("[run]", "[loss]\nperceptual_weight = 0.5\n[run]", "loss.perceptual_weight"),
            (
                "[run]",
                "[loss]\ndisc_weight = 0\ndisc_start = 20_000\n[run]",
                "loss.disc_start has no effect",
            ),
        ] {
            let said = refused(from, to);
            assert!(said.contains(key), "{to}: {said}");
        }
    }
}
