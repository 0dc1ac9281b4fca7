//! `tintype compare`: several models in one picture.

use std::path::Path;

use serde_json::Value;
use tintype::generate::Origin;
use tintype::image::{Rgb, png_text};
use tintype::weights::{open, write_safetensors};

use crate::common::{Workspace, names};

/// A toy HDiT of ImageNet's classes, for images of 16×16 pixels.
fn imagenet() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/imagenet-crane.safetensors");
    path.display().to_string()
}

/// A working folder with the toy HDiT as `second.safetensors`, which has a class of the emoji model's: 5 is a heart.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let mut weights = open(Path::new(&imagenet())).expect("it opens");
    let mut classes: Vec<String> = (0..1000).map(|class| format!("class {class}")).collect();
    classes[5] = "heart, card suit".into();
    let classes = serde_json::to_string(&classes).expect("JSON");
    weights.metadata.insert("classes".into(), classes);
    let bytes = write_safetensors(&weights.tensors, &weights.metadata).expect("it writes");
    std::fs::write(workspace.path("second.safetensors"), bytes).expect("a file");
    workspace
}

fn read(workspace: &Workspace, name: &str) -> Vec<u8> {
    std::fs::read(workspace.path(name)).expect(name)
}

fn decoded(png: &[u8]) -> Rgb {
    let picture = image::load_from_memory(png).expect("a picture").to_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Rgb { width, height, pixels: picture.into_raw() }
}

/// A part of a picture, row by row.
fn part(picture: &Rgb, [x, y]: [usize; 2], [width, height]: [usize; 2]) -> Vec<u8> {
    let rows = picture.pixels.chunks(picture.width * 3).skip(y).take(height);
    rows.flat_map(|row| row[x * 3..(x + width) * 3].to_vec()).collect()
}

#[test]
fn images_of_several_models_are_those_of_generate() {
    let workspace = workspace();
    // Where a file lies is in no picture.
    let second = workspace.path("second.safetensors").display().to_string();
    let said = workspace.succeeds(&format!(
        "compare emoji,steps=3,label=three emoji,steps=2,cfg=1,sampler=euler {second},steps=2,sampler=euler \
         --class heart --seed 7 --device cpu --out made --json",
    ));
    let made = names(&workspace.path("made"));
    let expected = ["1-heart-21-7.png", "2-heart-21-7.png", "3-heart-5-7.png", "compare.png"];
    assert_eq!(made, expected);
    workspace.succeeds("generate heart --seed 7 --steps 3 --device cpu --out one.png");
    let one = read(&workspace, "one.png");
    assert_eq!(read(&workspace, "made/1-heart-21-7.png"), one);

    // The sheet ends in cells of 128 pixels, eight pixels from its edge.
    let png = read(&workspace, "made/compare.png");
    let sheet = decoded(&png);
    let [x, first] = [sheet.width - 8 - 128, sheet.height - 3 * (128 + 8)];
    let cell = |row: usize| part(&sheet, [x, first + row * (128 + 8)], [128, 128]);
    assert_eq!(cell(0), decoded(&one).pixels);
    let small = decoded(&read(&workspace, "made/3-heart-5-7.png"));
    assert_eq!([small.width, small.height], [16, 16]);
    let enlarged =
        |at: usize| small.pixels[(at / 3 / 128 / 8 * 16 + at / 3 % 128 / 8) * 3 + at % 3];
    assert_eq!(cell(2), (0..128 * 128 * 3).map(enlarged).collect::<Vec<u8>>());
    let caption = part(&sheet, [0, first], [x, 128]);
    assert!(caption.contains(&0), "text in black");

    // What it carries is what was printed.
    let text = png_text(&png, "tintype-compare").expect("a PNG").expect("its rows");
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let printed: Vec<Value> = said
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .filter(|event: &Value| event["event"] == "row")
        .collect();
    assert_eq!(rows.len(), 3);
    for (row, printed) in rows.iter().zip(&printed) {
        assert_eq!((&row["name"], &row["origin"]), (&printed["name"], &printed["origin"]));
        for key in ["seconds", "load_seconds", "memory"] {
            assert!(row[key].as_f64().is_some_and(|number| number > 0.0), "{key}: {row}");
        }
    }
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["three", "emoji", "second.safetensors"]);
    let files: Vec<&Value> = rows.iter().map(|row| &row["model"]).collect();
    assert_eq!(files, ["emoji", "emoji", "second.safetensors"]);
    let origin: Origin = serde_json::from_value(rows[0]["origin"].clone()).expect("an origin");
    assert_eq!(origin, Origin::read(&one).expect("its settings"));
    // Guided at each step, and where the gate opens.
    assert_eq!(rows[0]["images"][0]["evaluations"], 8);
    assert!(said.contains(r#""event":"done","rows":3"#), "{said}");
}

#[test]
fn a_table_says_what_each_model_took() {
    let workspace = workspace();
    let said = workspace.succeeds(&format!(
        "compare second.safetensors,label=first second.safetensors,steps=3,cfg=1,s-churn=2 {} --class 5 --class 7 --count 2 \
         --steps 2 --sampler euler --device cpu",
        imagenet()
    ));
    let row = |name: &str| -> Vec<&str> {
        let line = said.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {said}")).split_whitespace().collect()
    };
    let head = row("model ");
    assert_eq!(head[..6], ["model", "parameters", "image", "sampler", "steps", "cfg"]);
    let has = |name: &str, words: &[&str]| {
        assert!(row(name).windows(words.len()).any(|found| found == words), "{name}: {said}");
    };
    // Two evaluations of a guided step, and one of the other's.
    has("first ", &["16x16", "euler", "2", "1.3", "4"]);
    has("second.safetensors ", &["16x16", "euler", "3", "1", "3"]);
    has("second.safetensors ", &["s-churn", "2"]);
    assert!(said.contains("batch size 1: compare.png"), "{said}");
    // A number may be another class elsewhere.
    let note =
        "note: --class 5: heart in first, heart in second.safetensors, electric ray in imagenet";
    assert!(said.contains(note), "{said}");
    // Four columns of 16 pixels, and gaps.
    let sheet = decoded(&read(&workspace, "compare.png"));
    assert!(sheet.width > 4 * (16 + 8) && sheet.height > 3 * (16 + 8), "{}", sheet.width);
    // Another picture stays.
    let again = "compare second.safetensors --class 5 --steps 2 --sampler euler --device cpu";
    let said = workspace.succeeds(again);
    assert!(said.contains("compare (2).png (compare.png is another image"), "{said}");
}

#[test]
fn what_a_model_cannot_do_is_refused_before_any_image() {
    let workspace = workspace();
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/emoji/hidit.safetensors");
    let network = network.display();
    for (what, reason) in [
        (
            "emoji second.safetensors --class fruit",
            "second.safetensors: there is no class \"fruit\"",
        ),
        ("emoji second.safetensors", "emoji: its images are of classes; name one with --class"),
        ("emoji emoji,steps=0 --class heart", "emoji: steps 0 is not between 1 and 10000"),
        (
            "emoji second.safetensors --class heart --sampler unipc",
            "second.safetensors: sampler unipc does not fit HDiT",
        ),
        ("emoji emoji,stepz=3 --class heart", "there is no key stepz; the keys are model, config"),
        ("emoji emoji,steps=few --class heart", "steps=few is not a whole number"),
        ("emoji no.pt,label=mine --class heart", "mine: no.pt"),
        ("emoji emoji,ema=2 --class heart", "it holds no averages to choose from"),
        ("emoji imf-b-2,cfg=0.5 --class 3", "imf-b-2: cfg 0.5 is not 1 or more"),
        ("emoji --class heart --count 100000", "128 million are the most"),
        ("emoji --class heart --out x.jpg", "only .png files are written"),
    ] {
        let error = workspace.refused(&format!("compare {what} --device cpu"));
        assert!(error.contains(reason), "{what}: {error}");
    }
    let error = workspace.refused(&format!("compare emoji {network} --class heart --device cpu"));
    assert!(error.contains("hidit.safetensors: Hi-DiT works on latents"), "{error}");
    assert!(error.ends_with("pass it with vae=FILE"), "{error}");
    let left: Vec<String> = names(&workspace.path("."));
    assert!(left.iter().all(|name| !name.ends_with(".png")), "{left:?}");
}

#[cfg(unix)]
#[test]
fn sigint_stops_after_the_step_and_leaves_no_picture() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let workspace = workspace();
    let line = "compare second.safetensors,steps=2,sampler=euler emoji,steps=1000 --class heart --device cpu --json";
    let mut command = workspace.command(line);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let (mut rows, mut last, mut is_sent) = (0, String::new(), false);
    for line in lines {
        last = line.expect("text");
        rows += usize::from(last.contains(r#""event":"row""#));
        if rows == 1 && last.contains(r#""event":"step""#) && !is_sent {
            let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            is_sent = sent.expect("kill runs").success();
        }
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(last.contains(r#""event":"done","rows":1"#), "{last}");
    assert!(last.contains(r#""interrupted":true,"path":null"#), "{last}");
    assert!(!workspace.path("compare.png").exists());
}
