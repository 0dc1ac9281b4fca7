//! A working folder in which tests run the program.
#![allow(dead_code)] // each test file uses a part of it

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tintype::image::Rgb;
use tintype::model::dinov2::DinoConfig;
use tintype::weights::{Weights, open};

/// The program.
pub const TINTYPE: &str = env!("CARGO_BIN_EXE_tintype");

/// The variable with the words that start the program, where an emulator has to.
const RUNNER: &str = "TINTYPE_TEST_RUNNER";

/// The program as a server runs it: without a desktop session.
pub fn program() -> Command {
    let runner = std::env::var(RUNNER).unwrap_or_default();
    let mut words = runner.split_whitespace().chain([TINTYPE]);
    let mut command = Command::new(words.next().unwrap_or(TINTYPE));
    command.args(words);
    for session in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"] {
        command.env_remove(session);
    }
    command
}

/// A working folder with a dataset, and commands run in it.
pub struct Workspace(TempDir);

impl Workspace {
    /// 24 images of 20×16 pixels in three classes, plain colours with a bright bar.
    pub fn new() -> Self {
        let workspace = Self(TempDir::new().expect("a folder"));
        for i in 0..24usize {
            let folder = workspace.path("images").join(["ash", "birch", "cedar"][i % 3]);
            std::fs::create_dir_all(&folder).expect("a folder");
            let (width, height) = (20, 16);
            let pixel = |x: usize, y: usize| {
                let bar = if (x + y) / 4 % 3 == i % 3 { 200 } else { 40 };
                [bar, (i * 10) as u8, (x * 12) as u8]
            };
            let pixels = (0..width * height).flat_map(|at| pixel(at % width, at / width)).collect();
            let png = Rgb { width, height, pixels }.to_png(&[]).expect("it encodes");
            std::fs::write(folder.join(format!("{i:02}.png")), png).expect("it is written");
        }
        workspace
    }

    /// The same, prepared.
    pub fn prepared() -> Self {
        let workspace = Self::new();
        workspace.succeeds("prepare images --out store --size 16");
        workspace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = program();
        command.args(line.split(' ')).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("the program starts")
    }

    pub fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &errors
    }

    /// The one-line error of a command that must fail.
    pub fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{line} succeeded");
        let sentences: Vec<_> = errors.lines().filter(|l| l.starts_with("error: ")).collect();
        assert_eq!(sentences.len(), 1, "{line}: {errors}");
        sentences[0].to_string()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("it is written");
    }

    /// All tensors of a file in a run's latest checkpoint.
    pub fn latest(&self, run: &str, file: &str) -> Weights {
        let folder = self.path(run).join("checkpoints");
        let steps = names(&folder);
        open(&folder.join(steps.last().expect("a checkpoint")).join(file)).expect(file)
    }
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The smallest DINOv2, for images of this side.
pub fn tiny_dino(img_size: usize) -> DinoConfig {
    DinoConfig {
        embed_dim: 64,
        depth: 1,
        num_heads: 1,
        patch_size: 14,
        mlp_ratio: 4,
        img_size,
        registers: 0,
        swiglu: false,
    }
}
