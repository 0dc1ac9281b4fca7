//! What people call classes, files, seeds and guidance: real processes, real files.

#[path = "names/before_downloads.rs"]
mod before_downloads;
mod common;
#[path = "names/published.rs"]
mod published;
#[cfg(target_os = "linux")]
#[path = "names/question.rs"]
mod question;

use std::path::Path;

use common::{Workspace, names};
use tintype::generate::Origin;
use tintype::image::Rgb;
use tintype::weights::{open, write_safetensors};

/// A toy HDiT of ImageNet's classes.
fn imagenet() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/imagenet-crane.safetensors");
    path.display().to_string()
}

/// Generates on the processor in two steps.
fn generate(what: &str) -> String {
    format!("generate {what} --steps 2 --sampler euler --device cpu")
}

/// The toy HDiT with other metadata in its file.
fn with_metadata(workspace: &Workspace, name: &str, key: &str, value: String) {
    let mut weights = open(Path::new(&imagenet())).expect("it opens");
    weights.metadata.insert(key.into(), value);
    let bytes = write_safetensors(&weights.tensors, &weights.metadata).expect("it writes");
    std::fs::write(workspace.path(name), bytes).expect("a file");
}

#[test]
fn two_cranes_are_two_pictures() {
    let workspace = Workspace::new();
    let model = imagenet();
    let error = workspace.refused(&generate(&format!("crane --model {model} --out out")));
    assert!(error.contains("134 crane") && error.contains("517 crane"), "{error}");
    let said =
        workspace.succeeds(&generate(&format!("134 517 --model {model} --seed 7 --out out")));
    assert!(said.contains("class 134: crane\nclass 517: crane\n"), "{said}");
    let folder = workspace.path("out");
    assert_eq!(names(&folder), ["crane-134-7.png", "crane-517-7.png", "grid.png"]);
    let class = |name: &str| {
        let png = std::fs::read(folder.join(name)).expect("a picture");
        Origin::read(&png).expect("its settings").spec.class
    };
    assert_eq!([class("crane-134-7.png"), class("crane-517-7.png")], [Some(134), Some(517)]);
}

#[test]
fn a_first_synonym_is_closer_than_another() {
    let workspace = Workspace::new();
    let model = imagenet();
    for (query, taken) in [
        ("harp", "class 594: harp\n"),
        ("gong", "class 577: gong, tam-tam\n"),
        ("tench", "class 0: tench, Tinca tinca\n"),
    ] {
        let said = workspace.succeeds(&generate(&format!("{query} --model {model} --out out")));
        assert!(said.contains(taken), "{said}");
    }
    let error = workspace.refused(&generate(&format!("maillot --model {model} --out out")));
    assert!(error.contains("638 maillot; 639 maillot, tank suit"), "{error}");
    let error = workspace.refused(&generate(&format!("panda --model {model} --out out")));
    assert!(error.contains("387 lesser panda") && error.contains("388 giant panda"), "{error}");
}

#[test]
fn a_class_that_is_called_by_a_number_is_meant_by_it() {
    let workspace = Workspace::new();
    let mut called: Vec<String> = (0..1000).map(|class| class.to_string()).collect();
    called.sort();
    let classes = serde_json::to_string(&called).expect("JSON");
    with_metadata(&workspace, "texts.safetensors", "classes", classes);
    let said = workspace.succeeds(&generate("10 --model texts.safetensors --out out"));
    assert!(said.contains("class 2: 10\n"), "{said}");
    assert_eq!(names(&workspace.path("out")), ["10-2-0.png"]);
    let error = workspace.refused(&generate("1000 --model texts.safetensors --out out"));
    assert!(error.contains("class 1000 does not exist; they run from 0 to 999"), "{error}");
}

/// The folders of ImageNetV2 are called by their labels; as texts, 10 comes before 2.
#[test]
fn folders_that_are_called_by_numbers_keep_them() {
    let workspace = Workspace::new();
    for class in 0..12u8 {
        let folder = workspace.path("imagenetv2").join(class.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        let pixels = [class * 20, 100, 200].repeat(64);
        let png = Rgb { width: 8, height: 8, pixels }.to_png(&[]).expect("a PNG");
        std::fs::write(folder.join("a.png"), png).expect("a file");
    }
    workspace.succeeds("prepare imagenetv2 --out store --size 8");
    let store = tintype_trainer::data::store::ImageStore::open(&workspace.path("store"));
    let store = store.expect("a store");
    let numbers: Vec<String> = (0..12).map(|class| class.to_string()).collect();
    assert_eq!(store.description.classes, numbers);
    for index in 0..12 {
        let colour = usize::from(store.image(index).pixels[0]);
        assert_eq!(Some(colour / 20), store.label(index));
    }
}

#[test]
fn files_stay_and_names_are_those_of_every_system() {
    let workspace = Workspace::new();
    let mut called: Vec<String> = (0..1000).map(|class| format!("class {class}")).collect();
    called[0] = "aux.h: what?, x".into();
    called[1] = "y".repeat(300);
    let classes = serde_json::to_string(&called).expect("JSON");
    with_metadata(&workspace, "odd.safetensors", "classes", classes);
    workspace.succeeds(&generate("0 1 --model odd.safetensors --grid 0 --out out"));
    let made = names(&workspace.path("out"));
    assert_eq!(made[0], "aux-h-what-0-0.png");
    assert!(made[1].ends_with("y-1-0.png") && made[1].len() == 104, "{made:?}");

    // An image of other settings stays, in a folder and under a name of one's own.
    let again = "0 --model odd.safetensors --cfg 2";
    let said = workspace.succeeds(&generate(&format!("{again} --out out")));
    assert!(said.contains("aux-h-what-0-0 (2).png") && said.contains("--overwrite"), "{said}");
    workspace.write("x.png", "the only copy of a thesis");
    let said = workspace.succeeds(&generate(&format!("{again} --out x.png")));
    assert!(said.contains("x (2).png (x.png is another image; --overwrite replaces it)"), "{said}");
    let read = |name: &str| std::fs::read(workspace.path(name)).expect("a file");
    assert_eq!(read("x.png"), b"the only copy of a thesis");
    // The same image once more is no other one.
    let said = workspace.succeeds(&generate(&format!("{again} --out out")));
    assert!(said.contains("aux-h-what-0-0 (2).png"), "{said}");
    assert_eq!(names(&workspace.path("out")).len(), 3);
    let said = workspace.succeeds(&generate(&format!("{again} --out x.png --overwrite")));
    assert!(!said.contains("another image"), "{said}");
    assert_eq!(read("x.png"), read("x (2).png"));
}

#[test]
fn a_picture_that_another_tool_rewrote_is_made_again() {
    let workspace = Workspace::new();
    let model = imagenet();
    workspace.succeeds(&generate(&format!("tench --model {model} --seed 3 --out made.png")));
    let made = std::fs::read(workspace.path("made.png")).expect("a picture");
    let text = tintype::image::png_text(&made, "tintype").expect("a PNG").expect("settings");
    let decoded = image::load_from_memory(&made).expect("a picture").to_rgb8();
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let bare = Rgb { width, height, pixels: decoded.into_raw() }.to_png(&[]).expect("a PNG");
    // A tEXt chunk behind the header, which is 8 + 25 bytes long.
    let mut rewritten = bare[..33].to_vec();
    let content = [&b"tEXttintype\0"[..], text.as_bytes()].concat();
    rewritten.extend(((content.len() - 4) as u32).to_be_bytes());
    rewritten.extend(&content);
    rewritten.extend(crc(&content).to_be_bytes());
    rewritten.extend(&bare[33..]);
    std::fs::write(workspace.path("rewritten.png"), rewritten).expect("a file");
    let again = format!("generate --from rewritten.png --model {model} --device cpu --out c.png");
    workspace.succeeds(&again);
    assert_eq!(std::fs::read(workspace.path("c.png")).expect("a picture"), made);
    std::fs::write(workspace.path("bare.png"), bare).expect("a file");
    let error = workspace.refused(&format!("generate --from bare.png --model {model}"));
    assert!(error.contains("carries no settings"), "{error}");
}

/// The checksum of a PNG's chunk.
fn crc(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), bit)
    };
    !bytes.iter().fold(!0, byte)
}

#[test]
fn a_row_from_seed_to_seed_has_their_pictures_at_its_ends() {
    let workspace = Workspace::new();
    let cranes = |what: &str| generate(&format!("134 517 --model {} {what}", imagenet()));
    let said = workspace.succeeds(&cranes("--seed 3 --to-seed 7 --count 3 --out row --json"));
    for blend in [r#""blend":null"#, r#""blend":{"seed":7,"amount":0.5}"#] {
        assert!(said.contains(blend), "{said}");
    }
    for seed in [3, 7] {
        workspace.succeeds(&cranes(&format!("--seed {seed} --grid 0 --out ends")));
    }
    let [ends, mut row] = ["ends", "row"].map(|folder| names(&workspace.path(folder)));
    row.retain(|name| !ends.contains(name));
    assert_eq!(ends.len(), 4, "{ends:?}");
    assert_eq!(row, ["crane-134-3-to-7-0.5.png", "crane-517-3-to-7-0.5.png", "grid.png"]);
    let read = |name: &str| std::fs::read(workspace.path(name)).expect("a picture");
    for end in &ends {
        assert_eq!(read(&format!("row/{end}")), read(&format!("ends/{end}")), "{end}");
    }
    let pixels = |name: &str| {
        let picture = image::load_from_memory(&read(&format!("row/{name}"))).expect("a picture");
        picture.to_rgb8().into_raw()
    };
    let middle = pixels(&row[0]);
    assert!(middle != pixels("crane-134-3.png") && middle != pixels("crane-134-7.png"));
    // What lies between is made again, too.
    let between = format!("row/{}", row[0]);
    let again = format!("generate --from {between} --model {} --device cpu", imagenet());
    workspace.succeeds(&format!("{again} --out again.png"));
    assert_eq!(read("again.png"), read(&between));
    for (options, words) in [
        ("--to-seed 7", "needs --count 2 or more"),
        ("--to-seed 7 --count 1", "needs --count 2 or more"),
        ("--seed 7 --to-seed 7 --count 3", "needs two seeds"),
        ("--to-seed -1 --count 3", "seed -1 is not a whole number from 0"),
    ] {
        let error = workspace.refused(&cranes(options));
        assert!(error.contains(words), "{error}");
    }
    let error = workspace.refused(&format!("{again} --to-seed 7"));
    assert!(error.contains("--from"), "{error}");
}

#[test]
fn numbers_that_are_none_are_told() {
    let workspace = Workspace::new();
    let seeds = "seeds are whole numbers from 0 to 18446744073709551615; leave it out for 0";
    for command in ["generate heart", "sample --out out", "encode store --vae x --out y"] {
        for seed in ["-1", "18446744073709551616", "-99999999999999999999", "1.5"] {
            let error = workspace.refused(&format!("{command} --seed {seed}"));
            assert!(error.ends_with(seeds), "{error}");
            let error = workspace.refused(&format!("{command} --seed={seed}"));
            assert!(error.ends_with(seeds), "{error}");
        }
    }
    for (options, words) in [
        ("--steps -1", "whole number between 1 and 10000"),
        ("--count -4", "whole number between 1 and 1000000"),
        ("--steps 2.5", "whole number between 1 and 10000"),
        ("--batch -1", "whole number, 1 or more"),
        ("--cfg -1", "--cfg -1 is not 0 or more"),
        ("--tau -0.5", "--tau -0.5 is not between 0 and 1"),
    ] {
        let error = workspace.refused(&format!("generate heart --device cpu {options}"));
        assert!(error.contains(words), "{error}");
    }
    let largest = generate("heart --seed 18446744073709551615 --out x.png");
    workspace.succeeds(&largest);
}

#[test]
fn guidance_below_one_weakens_the_class() {
    let workspace = Workspace::new();
    let model = imagenet();
    let picture = |what: &str| {
        let file = "x.png --overwrite";
        workspace.succeeds(&generate(&format!("{what} --model {model} --seed 1 --out {file}")));
        let png = std::fs::read(workspace.path("x.png")).expect("a picture");
        image::load_from_memory(&png).expect("a picture").to_rgb8().into_raw()
    };
    let all = "--cfg-interval 0 1000";
    let none = picture(&format!("0 --cfg 1 {all}"));
    assert_eq!(picture("0 --cfg 1 --cfg-interval 0 0"), none, "1 is off");
    // Without the class, all classes are one.
    let [first, second] = ["0", "500"].map(|class| picture(&format!("{class} --cfg 0 {all}")));
    assert_eq!(first, second);
    assert_ne!(first, none);
    let half = picture(&format!("0 --cfg 0.5 {all}"));
    assert!(half != first && half != none, "it lies between");

    // A network without classes has nothing to guide by.
    let mut weights = open(Path::new(&model)).expect("it opens");
    weights.tensors.remove("class_emb.weight");
    let config =
        weights.metadata["config"].replace(r#""num_classes": 1000"#, r#""num_classes": 0"#);
    weights.metadata.insert("config".into(), config);
    let bytes = write_safetensors(&weights.tensors, &weights.metadata).expect("it writes");
    std::fs::write(workspace.path("bare.safetensors"), bytes).expect("a file");
    let bare = generate("--model bare.safetensors --out bare.png");
    workspace.succeeds(&bare);
    workspace.succeeds(&format!("{bare} --cfg 1"));
    for scale in ["2", "0", "0.5"] {
        let error = workspace.refused(&format!("{bare} --cfg {scale}"));
        let sentence = format!("--cfg {scale} needs classes, which this HDiT does not have");
        assert!(error.contains(&sentence), "{error}");
    }
}

#[test]
fn what_cannot_be_written_or_is_no_class_is_refused_first() {
    let workspace = Workspace::new();
    let model = imagenet();
    for (what, reason) in [
        ("134 517 --out x.png --grid 0", "a folder or a grid"),
        ("-1", "class -1 does not exist; they run from 0 to 999"),
        ("134 --seed 18446744073709551615 --count 2", "the last seed is beyond"),
    ] {
        let error = workspace.refused(&generate(&format!("{what} --model {model}")));
        assert!(error.contains(reason), "{error}");
    }
    workspace.write("garbage.json", "<html>: no");
    let error = workspace.refused(&format!("convert {model} x.safetensors --config garbage.json"));
    assert!(error.contains("neither a JSON object nor a YAML mapping"), "{error}");
}
