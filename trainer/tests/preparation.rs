//! `tintype prepare`: every kind of source, damaged images, resuming.

mod sources;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tintype::image::Rgb;
use tintype_trainer::data::crop::center_crop;
use tintype_trainer::data::decode::decode;
use tintype_trainer::data::hdf5::Hdf5Store;
use tintype_trainer::data::source::{Options, Source};
use tintype_trainer::data::store::ImageStore;

fn picture(i: usize) -> Rgb {
    let (width, height) = (24 + i, 20);
    let pixels = (0..width * height * 3).map(|at| (at * (i + 3) % 251) as u8).collect();
    Rgb { width, height, pixels }
}

/// Names of images in two classes and their bytes.
fn files() -> Vec<(String, Vec<u8>)> {
    let class = |i: usize| ["apple", "pear"][i % 2];
    let one = |i: usize| (format!("{}/{i}.png", class(i)), picture(i).to_png(&[]).expect("a PNG"));
    (0..6).map(one).collect()
}

fn prepare(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tintype"))
        .arg("prepare")
        .args(arguments)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The store holds the crops of all six images, labelled.
fn check(out: &Path) {
    let store = ImageStore::open(out).expect("a store");
    assert_eq!(store.description.classes, ["apple", "pear"]);
    let order = [0, 2, 4, 1, 3, 5]; // apples, then pears
    for (index, i) in order.into_iter().enumerate() {
        assert_eq!(store.label(index), Some(i % 2));
        assert_eq!(store.image(index), center_crop(&picture(i), 8));
    }
    store.verify().expect("its checksums are right");
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).expect("it fits");
    }
    builder.into_inner().expect("it ends")
}

#[test]
fn folders_archives_and_archives_of_archives_give_the_same_store() {
    let place = TempDir::new().expect("a folder");
    let path = |name: &str| place.path().join(name);
    for (name, bytes) in files() {
        let file = path("folder").join(&name);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        std::fs::write(file, bytes).expect("it is written");
    }
    std::fs::write(path("folder/readme.txt"), "not an image").expect("it is written");
    // A folder around everything is not a class.
    let inside = |(name, bytes): (String, Vec<u8>)| (format!("all/{name}"), bytes);
    let nested: Vec<_> = files().into_iter().map(inside).collect();
    std::fs::write(path("plain.tar"), tar_of(&nested)).expect("it is written");
    // ImageNet's training set: an archive a class.
    let class = |class: &str| {
        let of = |(name, bytes): (String, Vec<u8>)| {
            Some((name.strip_prefix(&format!("{class}/"))?.to_string(), bytes))
        };
        (format!("{class}.tar"), tar_of(&files().into_iter().filter_map(of).collect::<Vec<_>>()))
    };
    std::fs::write(path("classes.tar"), tar_of(&[class("apple"), class("pear")]))
        .expect("it is written");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path("x.zip")).expect("a file"));
    for (name, bytes) in files() {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("train/{name}"), options).expect("it starts");
        zip.write_all(&bytes).expect("it is written");
        let other = format!("test/other/{}", name.replace('/', "-"));
        zip.start_file(other, options).expect("it starts");
        zip.write_all(&bytes).expect("it is written");
    }
    zip.finish().expect("it ends");
    for (source, more) in [
        ("folder", vec![]),
        ("plain.tar", vec![]),
        ("classes.tar", vec![]),
        ("x.zip", vec!["--split", "train"]),
    ] {
        let out = path(&format!("store-{source}"));
        let source = path(source);
        let fixed = [text(&source), "--out", text(&out), "--size", "8"];
        let (ok, said) = prepare(&[&fixed[..], &more].concat());
        assert!(ok, "{said}");
        check(&out);
    }
}

#[test]
fn damaged_images_are_skipped_and_listed_unless_all_are() {
    let place = TempDir::new().expect("a folder");
    let folder = place.path().join("images");
    std::fs::create_dir_all(folder.join("a")).expect("a folder");
    std::fs::write(folder.join("a/bad.png"), b"\x89PNG\r\n\x1a\nno").expect("it is written");
    let out = place.path().join("store");
    let arguments = [text(&folder), "--out", text(&out), "--size", "8"];
    let (ok, said) = prepare(&arguments);
    assert!(!ok && said.contains("none of the 1 images") && said.contains("bad.png"), "{said}");
    let png = picture(0).to_png(&[]).expect("a PNG");
    std::fs::write(folder.join("a/good.png"), &png).expect("it is written");
    std::fs::write(folder.join("a/short.png"), &png[..png.len() / 2]).expect("it is written");
    let (ok, said) = prepare(&arguments);
    assert!(ok && said.contains("2 skipped") && said.contains("skipped a/bad.png"), "{said}");
    let list = std::fs::read_to_string(out.join("skipped.txt")).expect("a list");
    assert_eq!(list.lines().count(), 2);
    let (ok, said) = prepare(&[text(place.path()), "--out", "x", "--split", "nothing"]);
    assert!(!ok && said.contains("no folder \"nothing\""), "{said}");
}

#[test]
fn names_in_archives_are_no_commands_to_a_terminal() {
    let place = TempDir::new().expect("a folder");
    let mut all = files();
    all.push(("apple/\u{1b}]0;title\u{7}\u{9b}2J.png".into(), b"no image".to_vec()));
    std::fs::write(place.path().join("x.tar"), tar_of(&all)).expect("it is written");
    let (tar, out) = (place.path().join("x.tar"), place.path().join("store"));
    let (ok, said) = prepare(&[text(&tar), "--out", text(&out), "--size", "8"]);
    let shown = "skipped apple/\\u{1b}]0;title\\u{7}\\u{9b}2J.png: ";
    assert!(ok && said.contains(shown), "{said:?}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}

#[test]
fn images_in_hdf5_are_those_of_the_store() {
    let place = TempDir::new().expect("a folder");
    std::fs::write(place.path().join("x.tar"), tar_of(&files())).expect("it is written");
    let (tar, out) = (place.path().join("x.tar"), place.path().join("store"));
    let (ok, said) = prepare(&[text(&tar), "--out", text(&out), "--size", "8", "--hdf5"]);
    assert!(ok, "{said}");
    let (images, store) = (
        Hdf5Store::open(&out.join("images.h5")).expect("HDF5"),
        ImageStore::open(&out).expect("it"),
    );
    assert_eq!(images.items.len(), 6);
    // And back again, with names for the classes.
    let (h5, again) = (out.join("images.h5"), place.path().join("again"));
    let names = place.path().join("names.txt");
    std::fs::write(&names, "0 apple, fruit\n1 pear\n").expect("it is written");
    let (ok, said) =
        prepare(&[text(&h5), "--out", text(&again), "--size", "8", "--names", text(&names)]);
    assert!(ok, "{said}");
    let again = ImageStore::open(&again).expect("a store");
    assert_eq!(again.description.classes, ["apple, fruit", "pear"]);
    assert!((0..6).all(|i| again.pixels(i) == store.pixels(i)));
    assert_eq!(again.labels(), store.labels());
    for (index, item) in images.items.iter().enumerate() {
        let png = images.bytes(item).expect("bytes");
        let decoded = image::load_from_memory(&png).expect("a PNG").to_rgb8();
        assert_eq!(decoded.into_raw(), store.pixels(index));
        assert_eq!(images.label(item), store.label(index));
    }
}

#[test]
fn only_the_images_h5_of_a_store_is_removed_with_it() {
    let place = TempDir::new().expect("a folder");
    std::fs::write(place.path().join("x.tar"), tar_of(&files())).expect("it is written");
    let (tar, out) = (place.path().join("x.tar"), place.path().join("store"));
    let arguments = [text(&tar), "--out", text(&out), "--force", "--hdf5"];
    let (ok, said) = prepare(&[&arguments[..], &["--size", "8"]].concat());
    assert!(ok, "{said}");
    let own = [out.join("images.h5"), out.join("images_h5.json")];
    let read = || own.each_ref().map(|file| std::fs::read(file).ok());
    let first = read();
    // Its labels stay where only the classes are called otherwise.
    let names = place.path().join("names.txt");
    std::fs::write(&names, "apple fruit\npear pear\n").expect("it is written");
    let (ok, said) =
        prepare(&[&arguments[..4], &["--size", "8", "--names", text(&names)]].concat());
    assert!(ok && first == read(), "{said}");
    let (ok, said) = prepare(&[&arguments[..4], &["--size", "9"]].concat());
    assert!(ok && read() == [None, None], "{said}");
    // One of another tool, and one that is the source.
    for file in &own {
        std::fs::write(file, "mine").expect("it is written");
    }
    let (ok, said) = prepare(&[&arguments[..4], &["--size", "8"]].concat());
    assert!(ok && own.iter().all(|file| file.exists()), "{said}");
    let [h5, list] = first.map(|bytes| bytes.expect("it was there"));
    std::fs::write(&own[0], h5).expect("it is written");
    std::fs::write(&own[1], list).expect("it is written");
    let arguments = [text(&own[0]), "--out", text(&out), "--size", "9", "--force"];
    let (ok, said) = prepare(&arguments);
    assert!(ok && own.iter().all(|file| file.exists()), "{said}");
    let (ok, said) = prepare(&[&arguments[..], &["--hdf5"]].concat());
    assert!(!ok && said.contains("would replace the source"), "{said}");
}

#[test]
fn label_lists_decide_and_must_be_complete() {
    let place = TempDir::new().expect("a folder");
    let mut all = files();
    let labels: Vec<_> = all.iter().map(|(name, _)| (name.clone(), 2)).collect();
    let json =
        |labels: &[(String, i32)]| serde_json::json!({ "labels": labels }).to_string().into_bytes();
    all.push(("dataset.json".into(), json(&labels)));
    let path = place.path().join("x.tar");
    std::fs::write(&path, tar_of(&all)).expect("it is written");
    let source = Source::open(&path, &Options::default()).expect("a source");
    assert!(source.items.iter().all(|item| item.label == Some(2)));
    assert_eq!(source.classes.len(), 3);
    all.pop();
    all.push(("dataset.json".into(), json(&labels[1..])));
    std::fs::write(&path, tar_of(&all)).expect("it is written");
    let error =
        Source::open(&path, &Options::default()).expect_err("a label is missing").to_string();
    assert!(error.contains("apple/0.png"), "{error}");
}

/// `jpeg/*.rgb` are the pixels that Pillow 13 gives for `jpeg/*.jpg`.
#[test]
fn jpegs_are_decoded_as_pillow_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jpeg");
    for name in ["colour", "progressive", "grey", "inks"] {
        let file = std::fs::read(folder.join(format!("{name}.jpg"))).expect("an image");
        let expected = std::fs::read(folder.join(format!("{name}.rgb"))).expect("its pixels");
        let image = decode(&file).expect(name);
        assert_eq!((image.width, image.height), (25, 18), "{name}");
        assert!(image.pixels == expected, "{name}");
        // Half a file is an error, not half an image.
        assert!(decode(&file[..file.len() / 2]).is_err(), "{name}");
        let mut damaged = file.clone();
        damaged[3..].fill(7);
        assert!(decode(&damaged).is_err(), "{name}");
    }
}

/// Where segments with a length begin, in the header and between scans, and their markers.
fn segments(file: &[u8]) -> Vec<(usize, u8)> {
    let mut found = Vec::new();
    let mut at = 2;
    while at + 3 < file.len() {
        match [file[at], file[at + 1]] {
            [0xFF, 0xD9] => break,
            [0xFF, 0x00 | 0xD0..=0xD7 | 0xFF] | [0..=0xFE, _] => at += 1,
            [0xFF, marker] => {
                found.push((at, marker));
                at += 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            }
        }
    }
    found
}

fn inserted(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    [&file[..at], bytes, &file[at..]].concat()
}

const START_OF_SCAN: u8 = 0xDA;

#[test]
fn stray_bytes_between_the_segments_of_a_jpeg_are_skipped() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jpeg");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("an image");
    // Files of others: the bytes are between the header's segments, so the pixels are the plain file's.
    let plain = decode(&read("junk/plain.jpg")).expect("an image");
    assert_eq!((plain.width, plain.height), (48, 48));
    for name in ["ff00-before-dqt", "junk-before-sos", "rst-before-dqt", "zero2-before-dqt"] {
        let file = read(&format!("junk/{name}.jpg"));
        assert!(decode(&file).expect(name) == plain, "{name}");
        assert!(decode(&file[..file.len() - 2]).is_err(), "{name}");
    }
    let junk: [&[u8]; 5] = [&[0x12, 0x34, 0x56], &[0, 0], &[0xFF, 0], &[0xFF, 0xD3], &[0xFF]];
    for name in ["colour", "progressive", "grey", "inks"] {
        let (file, pixels) = (read(&format!("{name}.jpg")), read(&format!("{name}.rgb")));
        let segments = segments(&file);
        let scan = segments.iter().position(|(_, marker)| *marker == START_OF_SCAN);
        let scan = scan.expect("a scan");
        // A JPEG is known by the marker at its beginning, so nothing goes before that.
        for &(at, marker) in &segments[1..=scan] {
            for junk in junk {
                let file = inserted(&file, at, junk);
                let image = decode(&file).unwrap_or_else(|e| panic!("{name}, {marker:x}: {e}"));
                assert!(image.pixels == pixels, "{name}, before {marker:x}: {junk:x?}");
                assert!(decode(&file[..file.len() - 2]).is_err(), "{name}, before {marker:x}");
            }
        }
    }
}

#[test]
fn a_jpeg_ends_behind_its_last_scan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jpeg");
    let file = std::fs::read(folder.join("progressive.jpg")).expect("an image");
    let pixels = std::fs::read(folder.join("progressive.rgb")).expect("its pixels");
    let segments = segments(&file);
    let scans: Vec<usize> = segments.iter().filter(|s| s.1 == START_OF_SCAN).map(|s| s.0).collect();
    assert!(scans.len() > 1, "{segments:x?}");
    // A picture within an application's segment has an end of its own.
    let thumbnail: [u8; 10] = [0xFF, 0xE1, 0, 8, 0xFF, 0xD8, 0xFF, 0xD9, 0, 0];
    for at in [segments[1].0, scans[1]] {
        let whole = inserted(&file, at, &thumbnail);
        assert!(decode(&whole).expect("an image").pixels == pixels);
        assert!(decode(&whole[..whole.len() - 2]).is_err());
        assert!(decode(&whole[..at + thumbnail.len()]).is_err());
    }
    for cut in scans {
        assert!(decode(&file[..cut]).is_err(), "cut at {cut}");
        assert!(decode(&file[..cut + 12]).is_err(), "cut behind {cut}");
    }
    // What follows the end is not looked at.
    let longer = [file.as_slice(), b"more \xFF\xDA\xFF\xE1"].concat();
    assert!(decode(&longer).expect("an image").pixels == pixels);
}

#[test]
fn sixteen_bits_are_scaled_to_eight_and_rounded() {
    use image::{DynamicImage, ImageBuffer, ImageFormat};
    let values: [u16; 6] = [0, 200, 4848, 32896, 65000, 65535];
    // Pillow has the high bytes of coloured pictures: 0, 0, 18, 128, 253, 255.
    let expected: [u8; 6] = [0, 1, 19, 128, 253, 255];
    let png = |image: DynamicImage| {
        let mut file = std::io::Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).expect("it encodes");
        decode(&file.into_inner()).expect("it decodes")
    };
    let colour = ImageBuffer::from_raw(2, 1, values.to_vec()).expect("two pixels");
    let image = png(DynamicImage::ImageRgb16(colour));
    assert_eq!((image.width, image.height, image.pixels.as_slice()), (2, 1, expected.as_slice()));
    let grey = ImageBuffer::from_raw(6, 1, values.to_vec()).expect("six pixels");
    let tripled: Vec<u8> = expected.iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(png(DynamicImage::ImageLuma16(grey)).pixels, tripled);
}

#[test]
fn anymaps_are_read_binary_and_as_text() {
    let grey = |values: [u8; 4]| values.iter().flat_map(|&v| [v; 3]).collect::<Vec<u8>>();
    let colours: Vec<u8> = vec![0, 51, 102, 153, 204, 255, 1, 2, 3, 4, 5, 6];
    let binary = |header: &str, values: &[u8]| [header.as_bytes(), values].concat();
    let files: [(&str, Vec<u8>, Vec<u8>); 8] = [
        ("P6", binary("P6\n# a comment\n2 2\n255\n", &colours), colours.clone()),
        ("P3", b"P3 2 2 255\n0 51 102 153 204 255\n1 2 3 4 5 6\n".to_vec(), colours.clone()),
        ("P5", binary("P5 2 2 255\n", &[0, 7, 128, 255]), grey([0, 7, 128, 255])),
        ("P2", b"P2\n2 2\n5\n0 1\n2 5\n".to_vec(), grey([0, 51, 102, 255])),
        // 0, 200, 32896 and 65535, the high byte first
        (
            "16 bits",
            binary("P5 2 2 65535\n", &[0, 0, 0, 200, 128, 128, 255, 255]),
            grey([0, 1, 128, 255]),
        ),
        ("P2, 16 bits", b"P2 2 2 65535 0 200 32896 65535".to_vec(), grey([0, 1, 128, 255])),
        // A bit that is set is black.
        ("P4", binary("P4\n2 2\n", &[0b0100_0000, 0b1000_0000]), grey([255, 0, 0, 255])),
        ("P1", b"P1\n2 2\n0 1\n1 0\n".to_vec(), grey([255, 0, 0, 255])),
    ];
    for (name, file, pixels) in files {
        assert_eq!(decode(&file), Ok(Rgb { width: 2, height: 2, pixels }), "{name}");
    }
    assert!(decode(b"P6 2 2 255\nshort").is_err());
}

#[test]
fn a_store_that_is_done_is_verified_and_repaired() {
    let place = TempDir::new().expect("a folder");
    let (tar, out) = (place.path().join("x.tar"), place.path().join("store"));
    std::fs::write(&tar, tar_of(&files())).expect("it is written");
    let arguments = [text(&tar), "--out", text(&out), "--size", "8", "--json"];
    let shard = out.join("images_00000.safetensors");
    let mut resumed = Vec::new();
    let mut bytes = Vec::new();
    for damage in [false, false, true] {
        if damage {
            let mut damaged = bytes.clone();
            *damaged.last_mut().expect("it has pixels") ^= 1;
            std::fs::write(&shard, &damaged).expect("it is written");
            let error = ImageStore::open_verified(&out).expect_err("a wrong checksum").to_string();
            assert!(error.contains("its checksum is wrong"), "{error}");
        }
        let (ok, said) = prepare(&arguments);
        assert!(ok, "{said}");
        let done = said.lines().find(|line| line.contains(r#""event":"done""#)).expect("an event");
        let done: serde_json::Value = serde_json::from_str(done).expect("JSON");
        resumed.push(done["resumed_shards"].as_u64());
        check(&out);
        let written = std::fs::read(&shard).expect("a shard");
        assert!(bytes.is_empty() || written == bytes, "the same images are other bytes");
        bytes = written;
    }
    assert_eq!(resumed, [Some(0), Some(1), Some(0)]);
}

#[test]
fn more_archives_than_are_held_open_are_read() {
    let place = TempDir::new().expect("a folder");
    let png = |i: usize| {
        let number = i.to_string();
        picture(i % 6).to_png(&[("number", number.as_str())]).expect("a PNG")
    };
    for i in 0..70 {
        let archive = place.path().join(format!("n{i:02}.tar"));
        let images = [("0.png".to_string(), png(i)), ("1.png".to_string(), png(i + 1))];
        std::fs::write(archive, tar_of(&images)).expect("it is written");
    }
    let source = Source::open(place.path(), &Options::default()).expect("a source");
    assert_eq!((source.items.len(), source.classes.len()), (140, 70));
    for (at, item) in source.items.iter().enumerate() {
        assert_eq!(item.label, Some(at / 2));
        assert!(source.read(item).expect("bytes") == png(at / 2 + at % 2), "{}", item.name);
    }
}

#[test]
fn archives_that_are_cut_are_refused() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    // Padding and the blocks at the end, which are filled up.
    let large = vec![7u8; 30_000];
    let mut all = files();
    all.push(("pear/notes.txt".into(), large));
    let whole = tar_of(&all);
    let last = whole.iter().rposition(|byte| *byte != 0).expect("it is not empty") + 1;
    let open = |len: usize| {
        std::fs::write(&path, &whole[..len]).expect("it is written");
        Source::open(&path, &Options::default()).map(|source| source.items.len())
    };
    assert_eq!(open(whole.len()).expect("a source"), 6);
    // Without its end it is whole, and without a part of the last file it is not.
    assert_eq!(open(last.next_multiple_of(512)).expect("a source"), 6);
    for len in [last, last - 1, last - 20_000] {
        let error = open(len).expect_err("it is cut").to_string();
        assert!(error.contains("pear/notes.txt ends beyond the archive"), "{error}");
    }
    let error = open(last - 30_000 - 100).expect_err("it is cut").to_string();
    assert!(error.contains("damaged archive"), "{error}");
}
