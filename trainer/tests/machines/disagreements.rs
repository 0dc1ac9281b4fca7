//! Ranks that were not started for the same training.

use crate::common::{Workspace, names};
use crate::mpirun::{Ended, Mpirun};
use crate::runs::hdit;

/// The ranks were refused with a sentence about `field` that names both, and trained nothing.
fn assert_refused(workspace: &Workspace, ended: &Ended, field: &str) {
    let said = &ended.said;
    assert_ne!(ended.code, Some(0), "{said}");
    let is_reason = |line: &str| {
        let words = ["error: ", "rank 1 has ", field, "rank 0 has "];
        words.iter().all(|word| line.contains(word))
    };
    assert!(said.lines().any(is_reason), "no line says that {field} differs: {said}");
    assert!(!workspace.path("run/checkpoints").exists(), "nothing was trained");
}

#[test]
fn ranks_with_other_settings_are_refused() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    workspace.write("run.toml", &hdit("", ""));
    workspace.write("other.toml", &hdit("", "").replace("lr = 5e-3", "lr = 4e-3"));
    let line = |config: &str| format!("train {config} --out run --device cpu --quiet");
    let ranks = [("", line("run.toml")), ("", line("other.toml"))];
    let ended =
        mpirun.run_each(&workspace, &ranks.each_ref().map(|(at, line)| (*at, line.as_str())));
    assert_refused(&workspace, &ended, "optimizer.lr");
}

/// The other machine has images of its own under the same path: as many, of the same sizes and classes.
#[test]
fn ranks_with_other_images_are_refused() {
    let Some(mpirun) = Mpirun::find() else { return };
    let workspace = Workspace::prepared();
    let classes = names(&workspace.path("images"));
    for class in &classes {
        let [here, there] = ["images", "elsewhere/images"].map(|at| workspace.path(at).join(class));
        std::fs::create_dir_all(&there).expect("a folder");
        let pictures = names(&here);
        // Each has the next one's name.
        for (name, next) in pictures.iter().zip(pictures.iter().cycle().skip(1)) {
            std::fs::copy(here.join(name), there.join(next)).expect("a copy");
        }
    }
    workspace.succeeds("prepare elsewhere/images --out elsewhere/store --size 16");
    for config in ["run.toml", "elsewhere/run.toml"] {
        workspace.write(config, &hdit("", ""));
    }
    let out = workspace.path("run").display().to_string();
    let line = format!("train run.toml --out {out} --device cpu --quiet");
    let ended = mpirun.run_each(&workspace, &[("", &line), ("elsewhere", &line)]);
    assert_refused(&workspace, &ended, "data");
}
