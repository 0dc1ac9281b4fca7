//! Published models by name: the program against a Hub on this machine, with small checkpoints in each author's
//! nesting.

use std::collections::BTreeMap;
#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tintype::burn::tensor::Device;
use tintype::generate::{Origin, Sampler};
use tintype::model::sit::SiTConfig;
use tintype::model::vavae::VaeConfig;
use tintype::weights::{snapshot, write_safetensors};
use tintype_test_hub::{Fault, TestHub, sha256};
#[cfg(unix)]
use tintype_test_hub::{Gate, wait_until};
use tintype_test_models::configs::{autoencoder, f8d4, lightningdit, sit};
use tintype_test_models::pickles::{checkpoint, saved, section, tensor};

use crate::common::{Workspace, names, program};

/// A secret that no output may show.
const TOKEN: &str = "hf_secret";

/// A Hub with small models, a catalogue of them, and empty caches.
pub struct Scene {
    pub hub: TestHub,
    pub workspace: Workspace,
}

fn sit_section(config: &SiTConfig) -> Vec<u8> {
    section(&config.init(&Device::flex()).expect("valid"))
}

fn autoencoder_section() -> Vec<u8> {
    section(&autoencoder().init_decoder(&Device::flex()).expect("valid"))
}

impl Scene {
    pub fn new() -> Self {
        let hub = TestHub::start();
        let sampling = |sampler: &str, steps: usize, high: f64| json!({"sampler": sampler, "steps": steps, "guidance": {"scale": 1.5, "low": 0.0, "high": high}});
        // REPA-E: everything of a joint training in one file.
        let joint = checkpoint(&[
            ("model", sit_section(&sit())),
            ("ema", sit_section(&sit())),
            ("vae", autoencoder_section()),
        ]);
        hub.put_large("REPA-E/joint", "checkpoints/0400000.pt", &joint);
        // LightningDiT: averaged weights, a configuration beside them, an autoencoder with statistics.
        let network = lightningdit().init(&Device::flex()).expect("valid");
        let dit = checkpoint(&[("ema", section(&network))]);
        hub.put_large("hustvl/dit", "dit-800ep.pt", &dit);
        hub.put("hustvl/dit", "config.json", json!(lightningdit()).to_string().as_bytes());
        let vae = checkpoint(&[("state_dict", autoencoder_section())]);
        hub.put_large("hustvl/vae", "vae.pt", &vae);
        let of_channels = || tensor("FloatStorage", &[1, 4, 1, 1], &[4, 1, 1, 1]);
        let stats = checkpoint(&[("mean", of_channels()), ("std", of_channels())]);
        hub.put("hustvl/vae", "latents_stats.pt", &stats);
        // SiT's authors: a bare state dict, on Stable Diffusion's latents.
        let config = SiTConfig { latent_norm: false, learn_sigma: true, ..sit() };
        hub.put_large("authors/sit", "SiT-S-2-64.pt", &saved(&sit_section(&config)));
        let decoder = f8d4().init_decoder(&Device::flex()).expect("valid");
        let metadata = [("config".to_string(), json!(f8d4()).to_string())].into();
        let decoder = write_safetensors(&snapshot(&decoder), &metadata).expect("it writes");
        hub.put_large("stability/vae", "vae.safetensors", &decoder);
        // An HDiT at a plain address.
        let crane = std::fs::read(crate::imagenet()).expect("a case");
        let url = hub.put_url("/files/hdit.safetensors", &crane, &[("ETag", "\"1\"")]);
        let entry =
            |name: &str, architecture: &str, files: Value, needs: Value, sampling: Value| {
                json!({"name": name, "title": name, "kind": "network", "architecture": architecture,
                   "licence": {"id": "MIT", "commercial": true}, "files": files, "needs": needs,
                   "sampling": sampling})
            };
        let file = |role: &str, address: &str| json!({"role": role, "address": address});
        let joint = "hub:REPA-E/joint/checkpoints/0400000.pt";
        let models = json!({"models": [
            entry("tiny-joint", "SiT", json!([file("network", joint), file("autoencoder", joint)]), json!([]),
                  sampling("euler-maruyama", 3, 0.65)),
            entry("tiny-dit", "LightningDiT",
                  json!([file("network", "hub:hustvl/dit/dit-800ep.pt"), file("config", "hub:hustvl/dit/config.json")]),
                  json!(["tiny-vae"]), sampling("euler", 2, 0.875)),
            {"name": "tiny-vae", "title": "A VAE", "kind": "autoencoder",
             "licence": {"id": "CC-BY-NC-4.0", "commercial": false},
             "files": [file("autoencoder", "hub:hustvl/vae/vae.pt"), file("statistics", "hub:hustvl/vae/latents_stats.pt")]},
            entry("tiny-sit", "SiT", json!([file("network", "hub:authors/sit/SiT-S-2-64.pt")]), json!(["tiny-f8d4"]),
                  sampling("euler-maruyama", 2, 1.0)),
            {"name": "tiny-f8d4", "title": "Another", "kind": "autoencoder", "licence": {"id": "MIT", "commercial": true},
             "files": [file("autoencoder", "hub:stability/vae/vae.safetensors")]},
            entry("tiny-hdit", "HDiT",
                  json!([{"role": "network", "address": url, "bytes": crane.len(), "sha256": sha256(&crane)}]), json!([]),
                  json!({"sampler": "euler", "steps": 2, "guidance": {"scale": 1.0, "low": 0.0, "high": 1e9}})),
            entry("of-tomorrow", "NextDiT", json!([file("network", "hub:nobody/next/model.pt")]), json!([]), Value::Null),
        ]});
        let workspace = Workspace::new();
        workspace.write("models.json", &models.to_string());
        Self { hub, workspace }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = program();
        for variable in
            ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH", "HTTPS_PROXY", "ALL_PROXY"]
        {
            command.env_remove(variable);
        }
        command
            .args(line.split(' '))
            .current_dir(self.workspace.path(""))
            .stdin(Stdio::null())
            .env("HF_ENDPOINT", self.hub.endpoint())
            .env("HF_HOME", self.workspace.path("hf"))
            .env("HF_TOKEN", TOKEN)
            .env("TINTYPE_CACHE", self.workspace.path("cache"))
            .env("TINTYPE_CATALOGUE", self.workspace.path("models.json"))
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    fn run(&self, line: &str) -> Output {
        let output = self.command(line).output().expect("the program starts");
        assert!(!said(&output).contains(TOKEN), "{line}: the token is told");
        output
    }

    pub fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", said(&output));
        said(&output)
    }

    pub fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", said(&output));
        let said = said(&output);
        said.lines().find(|l| l.starts_with("error: ")).expect("a sentence").to_string()
    }

    fn png(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.workspace.path(name)).expect("an image")
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn a_name_is_enough_for_every_authors_checkpoint() {
    let mut scene = Scene::new();
    let line =
        |name: &str, out: &str| format!("generate 3 --device cpu --model {name} --out {out}.png");
    for (name, sampler, steps, high) in [
        ("tiny-joint", Sampler::EulerMaruyama, 3, 0.65),
        ("tiny-dit", Sampler::Euler, 2, 0.875),
        ("tiny-sit", Sampler::EulerMaruyama, 2, 1.0),
        ("tiny-hdit", Sampler::Euler, 2, 1e9),
    ] {
        scene.hub.behave();
        let before = scene.hub.requests().len();
        let error = scene.refused(&line(name, name));
        assert!(error.contains("127.0.0.1") && error.contains("--yes downloads them"), "{error}");
        assert_eq!(scene.hub.requests().len(), before, "nothing is fetched unasked");
        scene.succeeds(&format!("{} --yes", line(name, name)));
        let origin = Origin::read(&scene.png(&format!("{name}.png"))).expect("its settings");
        let guidance = origin.settings.guidance;
        assert_eq!((origin.settings.sampler, origin.settings.steps), (sampler, steps), "{name}");
        assert_eq!(guidance.high, high, "{name}: the authors' settings");
    }
    let said = scene
        .succeeds("generate 3 --device cpu --model tiny-joint --steps 4 --cfg 1 --out own.png");
    assert!(!said.contains("downloading"), "{said}");
    let own = Origin::read(&scene.png("own.png")).expect("its settings").settings;
    assert_eq!((own.steps, own.guidance.scale), (4, 1.0), "the command line comes first");
    // What has been fetched needs no network.
    scene.hub.stop();
    for name in ["tiny-joint", "tiny-dit", "tiny-sit", "tiny-hdit"] {
        scene.succeeds(&format!("{} --overwrite", line(name, "again")));
        assert!(scene.png("again.png") == scene.png(&format!("{name}.png")), "{name}");
    }
}

#[test]
fn licences_are_told_before_and_parts_of_ones_own_are_taken() {
    let scene = Scene::new();
    let error = scene.refused("generate 3 --device cpu --model tiny-dit");
    assert!(error.contains("tiny-vae: licence CC-BY-NC-4.0: no commercial use"), "{error}");
    let said = scene.succeeds("download tiny-dit --yes");
    assert!(said.contains("licence CC-BY-NC-4.0: no commercial use"), "{said}");
    assert!(said.contains("hub:hustvl/vae/vae.pt: ") && said.contains("SHA-256 "), "{said}");
    // An autoencoder of one's own comes before the published one.
    let vae = scene.succeeds("download tiny-vae").lines().next().expect("a path").to_string();
    std::fs::copy(&vae, scene.workspace.path("mine.pt")).expect("a copy");
    scene.succeeds("generate 3 --device cpu --model tiny-dit --vae mine.pt --out a.png");
    scene.succeeds("generate 3 --device cpu --model tiny-dit --out b.png");
    assert!(scene.png("a.png") == scene.png("b.png"));
    // Names and addresses where other options take files.
    let info = scene.succeeds("info tiny-vae --json");
    let info: Value = serde_json::from_str(info.lines().next().expect("a line")).expect("JSON");
    assert_eq!(info["network"], "VA-VAE");
    scene.succeeds("convert hub:hustvl/dit/dit-800ep.pt@main dit.safetensors");
    assert!(scene.workspace.path("dit.safetensors").is_file());
    let classes = scene.succeeds("classes retriever --model lightningdit-xl-1-800ep");
    assert!(classes.contains("207  golden retriever"), "{classes}");
    assert!(
        scene.refused("generate 3 --model tiny-vae").contains("it is not a network (autoencoder)")
    );
    assert!(scene.refused("generate 3 --model tiny-jint").contains("did you mean tiny-joint"));
    let later = scene.refused("generate 3 --model of-tomorrow");
    assert!(later.contains("this version does not have NextDiT yet"), "{later}");
    let by_hand = scene.refused("generate 3 --model jit-b-16");
    assert!(by_hand.contains("it cannot be fetched by name"), "{by_hand}");
}

#[test]
fn models_tell_what_is_here_and_are_removed() {
    let scene = Scene::new();
    let here = |name: &str| {
        let text = scene.succeeds("models --json");
        let list: Vec<Value> = serde_json::from_str(text.trim()).expect("a list");
        list.into_iter().find(|entry| entry["name"] == name).expect("it is listed")["here"].clone()
    };
    assert_eq!(here("tiny-dit"), false);
    scene.succeeds("download tiny-dit tiny-hdit --yes");
    assert_eq!(
        (here("tiny-dit"), here("tiny-hdit"), here("tiny-sit")),
        (true.into(), true.into(), false.into())
    );
    let asked = scene.hub.requests().len();
    let listing = scene.succeeds("models tiny");
    assert!(
        listing.lines().any(|line| line.starts_with("tiny-dit ") && line.contains(" yes ")),
        "{listing}"
    );
    let details = scene.succeeds("models tiny-hdit");
    assert!(details.contains("verified: nothing") && details.contains("SHA-256 "), "{details}");
    let error = scene.refused("models --remove tiny-dit tiny-hdit");
    assert!(error.contains("dit-800ep.pt") && error.ends_with("--yes does it"), "{error}");
    scene.succeeds("models --remove tiny-dit tiny-hdit --yes");
    assert_eq!(
        (here("tiny-dit"), here("tiny-vae"), here("tiny-hdit")),
        (false.into(), true.into(), false.into())
    );
    assert_eq!(names(&scene.workspace.path("cache/downloads")), Vec::<String>::new());
    assert_eq!(scene.hub.requests().len(), asked, "a listing makes no request");
}

#[test]
fn what_cannot_be_fetched_is_told_and_what_can_is_there() {
    let scene = Scene::new();
    scene.hub.on("GET", "hdit.safetensors", [Fault::WrongBytes]);
    let error = scene.refused("download tiny-hdit tiny-sit --yes");
    assert!(error.contains("SHA-256 begins with"), "{error}");
    scene.succeeds("generate 3 --device cpu --model tiny-sit --out a.png");
    let gated = [("X-Error-Code", "GatedRepo")];
    scene.hub.on("HEAD", "0400000.pt", [Fault::status(401, &gated)]);
    let error = scene.refused("generate 3 --model tiny-joint --yes");
    let page = format!("{}/REPA-E/joint", scene.hub.endpoint());
    assert!(
        error.contains("is gated") && error.contains(&page) && error.contains("HF_TOKEN"),
        "{error}"
    );
    let asked = scene.hub.requests().len();
    let mut offline = scene.command("generate 3 --device cpu --model tiny-joint");
    let output = offline.env("HF_HUB_OFFLINE", "1").output().expect("the program starts");
    let told = said(&output);
    assert!(told.contains("`tintype download tiny-joint` fetches it"), "{told}");
    assert!(told.contains("models--REPA-E--joint") && told.contains("0400000.pt"), "{told}");
    assert_eq!((output.status.code(), scene.hub.requests().len()), (Some(1), asked));
}

#[test]
fn training_takes_names_too() {
    let scene = Scene::new();
    scene.succeeds("prepare images --out store --size 32");
    let model = json!({"models": [
        {"name": "tiny-store-vae", "title": "A VAE", "kind": "autoencoder", "licence": {"id": "MIT", "commercial": true},
         "files": [{"role": "autoencoder", "address": "hub:me/vae/whole.safetensors"}]}]});
    let config = VaeConfig { ch: 8, num_groups: 4, ..autoencoder() };
    let (device, mut tensors) = (Device::flex(), BTreeMap::new());
    tensors.extend(snapshot(&config.init_encoder(&device).expect("valid")));
    tensors.extend(snapshot(&config.init_decoder(&device).expect("valid")));
    let metadata = [("config".to_string(), json!(config).to_string())].into();
    let whole = write_safetensors(&tensors, &metadata).expect("it writes");
    scene.hub.put_large("me/vae", "whole.safetensors", &whole);
    scene.workspace.write("models.json", &model.to_string());
    scene.succeeds("encode store --vae tiny-store-vae --out latents --device cpu --yes");
    assert!(scene.workspace.path("latents").is_dir());
    scene.workspace.write(
        "vae.toml",
        &format!(
            "recipe = \"vae\"\n[model]\n{}\n[data]\nimages = \"store\"\n[run]\nsteps = 1\nbatch = 2\n\
             [optimizer]\nlr = 1e-4\nbetas = [0.5, 0.9]\n[init]\nfrom = \"tiny-store-vae\"\n[loss]\ndisc_weight = 0.0\n",
            toml(&config)
        ),
    );
    let said = scene.succeeds("train vae.toml --out run --device cpu --quiet");
    assert!(said.contains("1 step done"), "{said}");
}

/// A configuration of an autoencoder as lines of TOML.
pub fn toml(config: &VaeConfig) -> String {
    let Value::Object(fields) = json!(config) else { panic!("a table") };
    let lines = fields.iter().filter(|(_, value)| !value.is_null());
    lines.map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// File systems of Linux have names of any bytes.
#[cfg(target_os = "linux")]
#[test]
fn caches_may_have_any_name() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    let odd = scene.workspace.path("").join(OsStr::from_bytes(b"odd-\xff"));
    let run = |line: &str| {
        let mut command = scene.command(line);
        command.env("HF_HOME", odd.join("hf")).env("TINTYPE_CACHE", odd.join("cache"));
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{line}: {}", said(&output));
    };
    run("download tiny-hdit tiny-sit --yes --json");
    run("models --json");
    run("generate 3 --device cpu --model tiny-hdit --out a.png --json");
    assert!(odd.join("hf/hub/models--authors--sit").is_dir());
    assert_eq!(names(&odd.join("cache/downloads")).len(), 1);
    for usual in ["hf", "cache"] {
        assert!(!scene.workspace.path(usual).exists(), "{usual} is not where it was asked for");
    }
}

/// A download that is stopped says so by its exit code and goes on where it was.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let scene = Scene::new();
    let gate = Gate::new();
    scene.hub.on("GET", "0400000.pt", [Fault::Hold(100_000, gate.clone())]);
    let mut command = scene.command("download tiny-joint --yes");
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let blobs = scene.workspace.path("hf/hub/models--REPA-E--joint/blobs");
    // The server has sent it before the program has written it.
    let is_begun = |name: &String| {
        let part = std::fs::metadata(blobs.join(name));
        name.ends_with(".incomplete") && part.is_ok_and(|part| part.len() > 0)
    };
    wait_until("a part has arrived", || blobs.is_dir() && names(&blobs).iter().any(is_begun));
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signal.expect("it is sent").success());
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    assert!(
        lines.any(|line| line.expect("text").starts_with("stopping; what has arrived is kept"))
    );
    gate.open();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(names(&blobs)[0].ends_with(".tintype.incomplete"), "{:?}", names(&blobs));
    scene.succeeds("download tiny-joint --yes");
    let resumed = scene.hub.requests().into_iter().any(|request| request.header("Range").is_some());
    assert!(resumed, "it went on");
}
