//! Ranks that train together make the bits of one process with as many devices.

use crate::common::Workspace;
use crate::compare::{assert_same_bits, assert_same_log, log};
use crate::mpirun::Mpirun;
use crate::runs::{hdit, vae};

/// With everything that is random in it: order, noise, augmentation, dropped labels, dropout.
const RANDOM: &str = "dropout_rate = [0.0, 0.2]\nmapping_dropout_rate = 0.1";

/// Micro-batches add their losses in float32 and ranks in float64, so the logs of both agree to float32's rounding. The
/// gradients of both are added in the same order and type.
const ROUNDING: f64 = 1e-6;

#[test]
fn ranks_make_the_bits_of_devices_and_of_micro_batches() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit(RANDOM, ""));
    for (ranks, devices) in [(2, "cpu,cpu"), (4, "cpu,cpu,cpu,cpu")] {
        let [launched, threads, micro] =
            ["launched", "threads", "micro"].map(|kind| format!("{kind}{ranks}"));
        let line = format!("train run.toml --out {launched} --device cpu --quiet");
        let said = mpirun.succeeds(&workspace, ranks, &line);
        assert_eq!(said.matches("6 steps done").count(), 1, "one of the ranks says so: {said}");
        assert_eq!(log(&workspace, &launched).len(), 6);
        workspace.succeeds(&format!("train run.toml --out {threads} --device {devices} --quiet"));
        assert_same_bits(&workspace, &launched, &threads);
        assert_same_log(&workspace, &launched, &threads, 0.0);
        workspace.write("micro.toml", &hdit(RANDOM, &format!("accumulate = {ranks}")));
        workspace.succeeds(&format!("train micro.toml --out {micro} --device cpu --quiet"));
        assert_same_bits(&workspace, &launched, &micro);
        assert_same_log(&workspace, &launched, &micro, ROUNDING);
    }
}

#[test]
fn ranks_with_micro_batches_make_the_bits_of_devices_with_micro_batches() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit(RANDOM, "accumulate = 2"));
    mpirun.succeeds(&workspace, 2, "train run.toml --out launched --device cpu --quiet");
    workspace.succeeds("train run.toml --out threads --device cpu,cpu --quiet");
    assert_same_bits(&workspace, "launched", "threads");
    assert_same_log(&workspace, "launched", "threads", 0.0);
}

/// Two networks and two optimizers, and batch statistics that are rank 0's own.
#[test]
fn ranks_train_an_autoencoder_with_its_discriminator() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::new();
    workspace.succeeds("prepare images --out store --size 24");
    let loss = "disc_start = 3
disc_channels = 8";
    workspace.write(
        "vae.toml",
        &vae(
            loss,
            "steps = 4
checkpoint_every = 2",
        ),
    );
    mpirun.succeeds(&workspace, 2, "train vae.toml --out launched --device cpu --quiet");
    workspace.succeeds("train vae.toml --out threads --device cpu,cpu --quiet");
    assert_same_bits(&workspace, "launched", "threads");
    assert_same_log(&workspace, "launched", "threads", 0.0);
    let log = log(&workspace, "launched");
    let learns = log.iter().filter(|step| step.contains_key("disc_loss")).count();
    assert!((1..4).contains(&learns), "the discriminator joins later: {log:?}");
}
