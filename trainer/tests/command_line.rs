//! The `tintype` program end to end: real processes, real files.

mod common;
#[path = "command_line/compare.rs"]
mod compare;
#[path = "command_line/shells.rs"]
mod shells;
#[path = "command_line/terminal.rs"]
mod terminal;
mod toy;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use common::{names, program};

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must fail with a one-line error that contains the words.
fn refused(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let errors = text(&output.stderr);
    let sentences: Vec<_> = errors.lines().filter(|l| l.starts_with("error: ")).collect();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    assert_eq!(sentences.len(), 1, "{arguments:?}: {errors}");
    for word in words {
        assert!(sentences[0].contains(word), "{arguments:?}: {:?} lacks {word:?}", sentences[0]);
    }
}

#[test]
fn images_grids_and_comparisons_are_written_and_reproduced() {
    let folder = TempDir::new().expect("a folder");
    let out = |name: &str| folder.path().join(name).display().to_string();
    let base = ["generate", "fruit", "smil", "21", "--steps", "4", "--device", "cpu"];
    let with = |more: &[&str]| run(&[&base[..], more].concat());
    let first = with(&["--out", &out("a"), "--compare", "--seed", "7"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let expected = [
        "fruit-17-7.compare.png",
        "fruit-17-7.png",
        "grid.png",
        "heart-21-7.compare.png",
        "heart-21-7.png",
        "smiley-36-7.compare.png",
        "smiley-36-7.png",
    ];
    assert_eq!(names(&folder.path().join("a")), expected);
    // The same command gives the same bytes, also in another batch.
    let again = with(&["--out", &out("b"), "--compare", "--seed", "7", "--batch", "3"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    for name in expected {
        let read = |folder: &str| std::fs::read(Path::new(folder).join(name)).expect(name);
        assert_eq!(read(&out("a")), read(&out("b")), "{name}");
    }
    // An image can be reproduced from its metadata alone.
    let picture = format!("{}/smiley-36-7.png", out("a"));
    let remade = run(&["generate", "--from", &picture, "--device", "cpu", "--out", &out("c.png")]);
    assert!(remade.status.success(), "{}", text(&remade.stderr));
    let read = |path: &str| std::fs::read(path).expect("a picture");
    assert_eq!(read(&picture), read(&out("c.png")));
    let decoded = image::load_from_memory(&read(&picture)).expect("a readable PNG");
    assert_eq!((decoded.width(), decoded.height()), (128, 128));
}

#[test]
fn events_are_json_lines() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("x.png").display().to_string();
    let output =
        run(&["generate", "heart", "--steps", "3", "--device", "cpu", "--out", &out, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events: Vec<serde_json::Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    let names: Vec<_> = events.iter().map(|e| e["event"].as_str().unwrap_or("?")).collect();
    assert_eq!(names, ["loading", "step", "step", "step", "image", "done"]);
    assert_eq!(events[4]["seed"], 0);
    // Guided at each step, and where the gate opens.
    assert_eq!(events[4]["evaluations"], 8);
    assert_eq!(events[5]["pictures"], 1);
}

#[test]
fn a_quality_is_overridden_by_its_parts() {
    let folder = TempDir::new().expect("a folder");
    let settings = |name: &str, more: &[&str]| {
        let out = folder.path().join(name).display().to_string();
        let base = ["generate", "heart", "--device", "cpu", "--quality", "draft", "--out", &out];
        let output = run(&[&base[..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let png = std::fs::read(&out).expect("a picture");
        let settings = tintype::generate::Origin::read(&png).expect("its settings").settings;
        (settings.sampler.name(), settings.steps)
    };
    assert_eq!(settings("draft.png", &[]), ("unipc", 8));
    // A grid of one image has no settings, and is not written over it.
    let fewer = ["--steps", "3", "--grid", "1", "--overwrite"];
    assert_eq!(settings("fewer.png", &fewer), ("unipc", 3));
    let other = ["--steps", "2", "--sampler", "unipc", "--times", "karras", "--rho", "3"];
    assert_eq!(settings("other.png", &other), ("unipc", 2));
}

#[cfg(unix)]
#[test]
fn sigint_stops_after_the_step_and_keeps_finished_images() {
    use std::io::{BufRead, BufReader};
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("out");
    let mut child = program()
        .args(["generate", "heart", "--count", "50", "--steps", "4", "--device", "cpu", "--json"])
        .arg("--out")
        .arg(&out)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut images = 0;
    let mut last = String::new();
    for line in lines {
        last = line.expect("text");
        if last.contains("\"image\"") && images == 0 {
            let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            assert!(killed.expect("kill runs").success());
        }
        images += usize::from(last.contains("\"event\":\"image\""));
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(last.contains("\"interrupted\":true"), "{last}");
    let names = names(&out);
    assert!(names.iter().all(|n| n.ends_with(".png")), "{names:?}");
    let pictures = names.iter().filter(|n| *n != "grid.png").count();
    assert!((1..50).contains(&pictures) && pictures == images, "{pictures} of {images}");
}

#[test]
fn classes_and_info_describe_the_model() {
    let all = run(&["classes"]);
    assert_eq!(text(&all.stdout).lines().count(), 41);
    let some = run(&["classes", "creature", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&some.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    let info = run(&["info", "--json"]);
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("JSON");
    assert_eq!(info["network"], "Hi-DiT");
    assert_eq!(info["fit"], "all 120 tensors fit");
    assert!(info["devices"].as_array().is_some_and(|d| !d.is_empty()));
}

/// Graphics drivers look for a desktop session; a server has none, and standard error is ours alone.
#[test]
fn nothing_but_its_own_words_is_printed_without_a_session() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("heart.png").display().to_string();
    let generate = ["generate", "heart", "--steps", "2", "--out", &out, "--device"];
    let with = |device| [&generate[..], &[device]].concat();
    for arguments in [vec!["info"], with("auto"), with("cpu"), with("wgpu")] {
        let output = run(&arguments);
        let errors = text(&output.stderr);
        if errors.starts_with("error: no wgpu device was found") {
            continue; // this machine has no adapter
        }
        assert!(output.status.success(), "{arguments:?}: {errors}");
        // Progress is told in lines, where it takes ten seconds.
        let is_ours = |line: &str| line.starts_with("1 image in ") || line.starts_with("heart: ");
        let foreign: Vec<_> = errors.lines().filter(|line| !is_ours(line)).collect();
        assert!(foreign.is_empty(), "{arguments:?} printed {foreign:?}");
    }
}

#[test]
fn checkpoints_convert_to_safetensors() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("x.safetensors").display().to_string();
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/pt/lightningdit_train.pt");
    let source = source.display().to_string();
    let converted = run(&["convert", &source, &out, "--dtype", "f16"]);
    assert!(converted.status.success(), "{}", text(&converted.stderr));
    let weights = tintype::weights::open(Path::new(&out)).expect("it opens");
    assert_eq!(weights.metadata["section"], "ema");
    assert!(weights.tensors.contains_key("blocks.0.attn.qkv.weight"));
    refused(&["convert", &source, &out], &["exists", "--force"]);
}

#[test]
fn benchmarks_run_and_compare_with_and_without_kernels() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("before.json");
    let out = out.to_str().expect("a name");
    let bench = ["bench", "forward", "--device", "cpu", "--batch", "1", "--rounds", "1"];
    let plain = run(&[&bench[..], &["--plain", "--warm-up", "1", "--out", out]].concat());
    assert!(plain.status.success(), "{}", text(&plain.stderr));
    let before: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out).expect("it was written")).expect("JSON");
    assert_eq!(before["plain"], true);
    assert_eq!(before["network"], "emoji");
    assert_eq!(before["results"][0]["name"], "forward 1");
    assert!(before["results"][0]["rate"].as_f64().is_some_and(|rate| rate > 0.0));
    let after = run(&[&bench[..], &["--warm-up", "1", "--compare", out]].concat());
    assert!(text(&after.stdout).contains(" x Tintype"), "{}", text(&after.stdout));
    let measured = |more: &[&str]| -> Vec<String> {
        let quick =
            ["--device", "cpu", "--batch", "1", "--rounds", "1", "--warm-up", "1", "--json"];
        let output = run(&[&["bench"][..], more, &quick[..]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let results = report["results"].as_array().expect("a list");
        results.iter().map(|result| result["name"].as_str().expect("a name").into()).collect()
    };
    let only = ["--only", "pool", "--only", "ema"];
    let all = ["encode", "decode", "inception", "convolutions", "optimizer"];
    let networks = measured(&[&all[..], &only[..]].concat());
    let expected =
        ["encode 1", "decode 1", "inception 1", "max pool 1", "average pool 1", "adamw and ema"];
    assert_eq!(networks, expected);
    let operations = measured(&["operations", "--network", "hdit-mnist"]);
    for name in ["attention, prepared 1", "softmax 1", "rope 1", "gelu mlp 1", "geglu mlp 1"] {
        assert!(operations.iter().any(|found| found == name), "{name}: {operations:?}");
    }
    refused(&["bench", "encode", "--device", "cpu", "--network", "hdit-mnist"], &["autoencoder"]);
    refused(&["bench", "--network", "sit-xxl"], &["sit-xxl", "hidit-xl-1-256"]);
    refused(&["bench", "scaling", "--device", "cpu", "--network", "emoji"], &["HDiT"]);
    let nothing = ["bench", "convolutions", "--device", "cpu", "--only", "smily"];
    refused(&[&nothing[..], &["--rounds", "1", "--warm-up", "1"]].concat(), &["smily"]);
    refused(&["bench", "--compare", "no.json"], &["no.json"]);
}

#[test]
fn invalid_input_is_a_one_line_error() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let out = path("out.png");
    let generate = |more: &[&str], words: &[&str]| {
        let base = ["generate", "--device", "cpu", "--out", &out];
        refused(&[&base[..], more].concat(), words);
        assert!(!Path::new(&out).exists(), "{more:?} wrote an image");
    };
    generate(&["smily"], &["smily", "did you mean smiley"]);
    generate(&["creature"], &["creature-face", "sea-creature"]);
    generate(&["99"], &["99", "0 to 40"]);
    generate(&[], &["class"]);
    generate(&["fruit", "--steps", "0"], &["--steps 0"]);
    generate(&["fruit", "--steps", "1"], &["--steps 1", "euler"]);
    generate(&["fruit", "--cfg", "NaN"], &["--cfg NaN"]);
    generate(&["fruit", "--cfg-interval", "0.9", "0.1"], &["--cfg-interval"]);
    generate(&["fruit", "--tau", "1.5"], &["--tau 1.5", "between 0 and 1"]);
    generate(&["fruit", "--count", "0"], &["--count 0"]);
    generate(&["fruit", "--sampler", "magic"], &["--sampler \"magic\"", "euler-maruyama"]);
    generate(&["fruit", "--sampler", "lms"], &["lms", "Hi-DiT"]);
    generate(&["fruit", "--times", "even"], &["--times \"even\"", "logit-normal"]);
    generate(&["fruit", "--times", "karras"], &["--times", "euler-maruyama"]);
    generate(&["fruit", "--cfg-adaptive", "2"], &["--cfg-adaptive 2", "between 0 and 1"]);
    generate(&["fruit", "--eta", "0.5"], &["--eta", "Hi-DiT"]);
    generate(&["fruit", "--shift", "0.3"], &["--shift", "euler-maruyama"]);
    generate(&["fruit", "--rho", "3", "--sampler", "euler"], &["--rho", "uniform times"]);
    generate(&["fruit", "--quality", "perfect"], &["perfect", "--quality"]);
    generate(&["fruit", "--model", "/nowhere.safetensors"], &["/nowhere.safetensors"]);
    refused(&["generate", "fruit", "--device", "tpu", "--out", &out], &["tpu", "auto"]);
    refused(&["generate", "fruit", "--device", "cpu:7", "--out", &out], &["cpu:7"]);
    // No system creates a folder below a file.
    std::fs::write(path("file"), "x").expect("a file");
    let below = path("file/no");
    let words = format!("--out {below} cannot be written");
    refused(&["generate", "fruit", "--device", "cpu", "--out", &below], &[&words]);
    refused(&["generate", "fruit", "--out", &path("x.jpg")], &["x.jpg", ".png"]);
    // Damaged weights of every kind.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji/hidit.safetensors");
    let bytes = std::fs::read(&model).expect("the shipped model");
    let damaged = |name: &str, content: &[u8]| {
        std::fs::write(path(name), content).expect("a file");
        path(name)
    };
    let truncated = damaged("cut.safetensors", &bytes[..bytes.len() / 2]);
    generate(&["fruit", "--model", &truncated], &["cut.safetensors"]);
    generate(&["fruit", "--model", &damaged("empty.pt", b"")], &["empty.pt", "empty"]);
    generate(&["fruit", "--model", &damaged("text.pt", b"hello, world")], &["text.pt"]);
    let zip = damaged("cut.pt", b"PK\x03\x04 and then nothing");
    generate(&["fruit", "--model", &zip], &["cut.pt", "damaged"]);
    let vae = model.with_file_name("vae-decoder.safetensors").display().to_string();
    generate(&["fruit", "--model", &vae], &["autoencoder", "--vae"]);
    generate(&["fruit", "--model", &model.display().to_string()], &["--vae"]);
    let sick = damaged("nan.safetensors", &with_nan(&bytes));
    generate(&["fruit", "--model", &sick, "--vae", &vae], &["nan.safetensors", "not finite"]);
    let short = damaged("short.safetensors", &without_a_tensor(&bytes));
    let words = ["short.safetensors", "1 missing: blocks.9.mlp.fc2.weight"];
    generate(&["fruit", "--model", &short, "--vae", &vae], &words);
    // An image without metadata.
    let plain = damaged("plain.png", &tintype::image::Rgb::white(2, 2).to_png(&[]).expect("PNG"));
    generate(&["--from", &plain], &["plain.png", "carries no settings"]);
    generate(&["--from", &damaged("torn.png", b"\x89PNG")], &["torn.png"]);
}

/// The model with one weight that is not a number.
fn with_nan(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let last = bytes.len() - 2;
    bytes[last..].copy_from_slice(&[0x00, 0x7e]); // float16 NaN
    bytes
}

/// The model without one tensor.
fn without_a_tensor(bytes: &[u8]) -> Vec<u8> {
    let mut weights =
        tintype::weights::Weights::from_bytes(bytes.to_vec(), "the model").expect("it is whole");
    weights.tensors.remove("blocks.9.mlp.fc2.weight");
    tintype::weights::write_safetensors(&weights.tensors, &weights.metadata).expect("it writes")
}

/// `tintype classes | head -1` is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    for line in ["classes", "info", "completions bash"] {
        let mut command = program();
        command.args(line.split(' '));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let errors = text(&output.stderr);
        assert!(output.status.success() && !errors.contains("error"), "{line}: {errors}");
    }
}

/// Arguments, one a line, that make this test program the `tintype` program with the toy network.
const TOY: &str = "TINTYPE_TOY";

/// Run by the test below in processes of their own: a program that embeds the library and adds a network.
#[test]
fn program_with_a_network_of_its_own() {
    let Ok(arguments) = std::env::var(TOY) else { return };
    tintype::model::register(&toy::FAMILY);
    let arguments = ["tintype"].into_iter().chain(arguments.lines()).map(Into::into);
    let failed = format!("{:?}", tintype_trainer::cli::run(arguments));
    assert_eq!(failed, format!("{:?}", std::process::ExitCode::SUCCESS));
}

#[test]
fn a_registered_network_works_in_every_command() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let colors = [-1.0, -1.0, -1.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0];
    let view = tintype::weights::TensorView::from_f32(vec![3, 3], &colors).expect("nine values");
    let classes = [("classes".to_string(), r#"["night", "orange"]"#.to_string())].into();
    let weights = [("colors".to_string(), view)].into();
    let file = tintype::weights::write_safetensors(&weights, &classes).expect("it writes");
    let model = path("toy.safetensors");
    std::fs::write(&model, file).expect("a file");

    let started = |arguments: &[&str]| {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "program_with_a_network_of_its_own", "--nocapture"])
            .env(TOY, arguments.join("\n"))
            .output()
            .expect("it starts")
    };
    let tintype = |arguments: &[&str]| {
        let output = started(arguments);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let info = tintype(&["info", &model]);
    assert!(info.contains(r#"Toy: {"rows":3}"#) && info.contains("1 tensors fit"), "{info}");
    let picture = path("orange.png");
    tintype(&["generate", "orange", "--model", &model, "--device", "cpu", "--out", &picture]);
    let decoded = image::open(&picture).expect("a picture").to_rgb8();
    assert_eq!(decoded.dimensions(), (16, 8));
    let orange = |p: &image::Rgb<u8>| p.0.iter().zip([255, 127, 0]).all(|(a, b)| a.abs_diff(b) < 2);
    assert!(decoded.pixels().all(orange), "{:?}", decoded.get_pixel(0, 0));
    let samples = path("samples");
    tintype(&["sample", "--count", "4", "--model", &model, "--device", "cpu", "--out", &samples]);
    let folders = std::fs::read_dir(&samples).expect("a folder");
    let set = folders.flatten().next().expect("a folder named by its settings").path();
    let images = names(&set).into_iter().filter(|name| name.ends_with(".png"));
    assert_eq!(images.collect::<Vec<_>>(), [0, 1, 2, 3].map(|i| format!("{i:06}.png")));
    guide_of_a_registered_network(&folder, &model, &started);
    // Without the registration, this program does not know it.
    refused(&["generate", "orange", "--model", &model], &["toy.safetensors", "no network known"]);
}

/// `--guide`, of the toy network: its pictures, and making them again.
fn guide_of_a_registered_network(
    folder: &TempDir,
    model: &str,
    started: &dyn Fn(&[&str]) -> Output,
) {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, orange: [f32; 3]| {
        let colors = [[0.0; 3], orange, [0.0; 3]].concat();
        let view = tintype::weights::TensorView::from_f32(vec![3, 3], &colors).expect("nine");
        let weights = [("colors".to_string(), view)].into();
        let file = tintype::weights::write_safetensors(&weights, &Default::default());
        std::fs::write(path(name), file.expect("it writes")).expect("a file");
        path(name)
    };
    let guide = write("guide.safetensors", [0.5, -0.5, -0.5]);
    let other = write("other.safetensors", [0.5, 0.5, -0.5]);
    let tintype = |arguments: &[&str], out: &str| {
        let common = ["--model", model, "--device", "cpu", "--out", out];
        let output = started(&[&["generate"][..], arguments, &common[..]].concat());
        (output.status.success(), text(&output.stderr))
    };
    let (first, again) = (path("guided.png"), path("again.png"));
    let (done, errors) = tintype(&["orange", "--guide", &guide, "--cfg", "2"], &first);
    assert!(done, "{errors}");
    // Twice as far from the guide's colour as the network's is, and not from no class's.
    let decoded = image::open(&first).expect("a picture").to_rgb8();
    let close = |p: &image::Rgb<u8>| p.0.iter().zip([255, 191, 0]).all(|(a, b)| a.abs_diff(b) < 2);
    assert!(decoded.pixels().all(close), "{:?}", decoded.get_pixel(0, 0));
    let (done, errors) = tintype(&["--from", &first, "--guide", &guide], &again);
    assert!(done, "{errors}");
    assert_eq!(std::fs::read(&first).expect("it"), std::fs::read(&again).expect("its copy"));
    for (arguments, words) in [
        (vec!["--from", &first], "was made with a guide; pass it with --guide"),
        (vec!["--from", &first, "--guide", &other], "was made with another guide"),
        (vec!["--from", &path("orange.png"), "--guide", &guide], "leave --guide out"),
    ] {
        let (done, errors) = tintype(&arguments, &again);
        assert!(!done && errors.contains(words), "{errors}");
    }
    // Without guidance there is none, and the picture does not ask for it.
    let (done, errors) = tintype(&["orange", "--guide", &guide], &path("off.png"));
    assert!(done && errors.contains("note: --guide is not used"), "{errors}");
    let (done, errors) = tintype(&["--from", &path("off.png")], &path("off-again.png"));
    assert!(done, "{errors}");
}
