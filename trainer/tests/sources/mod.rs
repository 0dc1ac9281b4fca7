//! Data sets as people have them: which files are images, and what their labels are. `cases/` holds inputs that
//! people brought.

mod archives;
#[cfg(target_os = "linux")]
mod big;

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tintype_trainer::data::source::{Options, Source};
use tintype_trainer::data::store::ImageStore;
use tintype_trainer::evaluate::images::Images;
use zip::write::SimpleFileOptions;

use crate::{picture, prepare, text};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

fn open(path: &Path) -> Source {
    Source::open(path, &Options::default()).expect("a source")
}

fn refused(path: &Path) -> String {
    Source::open(path, &Options::default()).expect_err("it is refused").to_string()
}

/// Names and labels of all items.
fn labelled(source: &Source) -> Vec<(&str, Option<usize>)> {
    source.items.iter().map(|item| (item.name.as_str(), item.label)).collect()
}

/// Images of each class.
fn counts(source: &Source) -> Vec<(&str, usize)> {
    let count = |label| source.items.iter().filter(|item| item.label == Some(label)).count();
    source.classes.iter().enumerate().map(|(i, class)| (class.as_str(), count(i))).collect()
}

/// Writes files below a new folder; those called `.png` are images.
fn folder(names: &[&str]) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for name in names {
        write(&folder.path().join(name), name);
    }
    folder
}

fn bytes(name: &str) -> Vec<u8> {
    match name.ends_with(".png") && !name.contains("._") {
        true => picture(name.len() % 5).to_png(&[]).expect("a PNG"),
        false => b"\x00\x05\x16\x07 not an image".to_vec(),
    }
}

fn write(path: &Path, name: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, bytes(name)).expect("it is written");
}

const PETS: [(&str, usize); 3] = [("cat", 3), ("dog", 3), ("fox", 3)];

#[test]
fn hidden_files_are_neither_images_nor_classes() {
    for (name, hidden) in
        [("macosx-zip/pets.zip", 11), ("appledouble-folder/pets", 9), ("ipynb-checkpoints/pets", 1)]
    {
        let source = open(&case(name));
        assert_eq!(counts(&source), PETS, "{name}");
        assert_eq!((source.hidden, source.skipped.len()), (hidden, 0), "{name}");
    }
    // What Windows, a network disk and an editor leave behind.
    let names = [
        "cat/0.png",
        "dog/0.png",
        "dog/Thumbs.db",
        "desktop.ini",
        "@eaDir/cat/0.png",
        "$RECYCLE.BIN/1.png",
        ".thumbnails/0.png",
        "cat/.0.png.swp",
    ];
    let place = folder(&names);
    let source = open(place.path());
    assert_eq!(counts(&source), [("cat", 1), ("dog", 1)]);
    assert_eq!(source.hidden, 6);
    // An AppleDouble file under a name of its own is no image either.
    std::fs::write(place.path().join("cat/1.png"), bytes("._1.png")).expect("it is written");
    let out = place.path().join("store");
    let (ok, said) = prepare(&[text(place.path()), "--out", text(&out), "--size", "8"]);
    assert!(ok && said.contains("2 images of 8 x 8 in 2 classes, 1 skipped, 6 hidden"), "{said}");
    assert!(said.contains("cat/1.png: an AppleDouble file"), "{said}");
}

#[test]
fn folders_around_the_classes_and_splits_are_not_classes() {
    let place = folder(&["train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "preview.png"]);
    let source = open(place.path());
    assert_eq!(counts(&source), [("cat", 1), ("dog", 2)]);
    assert!(source.labelled_by.ends_with("the folders of train"), "{}", source.labelled_by);
    let left_out = &source.skipped[0];
    assert_eq!(
        (left_out.name.as_str(), left_out.reason.as_str()),
        ("preview.png", "not in a class folder")
    );

    let place = folder(&[
        "cifar/cifar-train/cat/0.png",
        "cifar/cifar-train/dog/0.png",
        "cifar/cifar-test/cat/0.png",
        "cifar/readme.txt",
    ]);
    let error = refused(place.path());
    assert!(error.contains("cifar/cifar-test (1 images), cifar/cifar-train (2 images)"), "{error}");
    assert!(error.contains("--split"), "{error}");
    for split in ["cifar-train", "cifar/cifar-train/", "CIFAR-Train"] {
        let options = Options { split: Some(split.into()), ..Options::default() };
        let source = Source::open(place.path(), &options).expect("a split");
        assert_eq!(counts(&source), [("cat", 1), ("dog", 1)]);
    }
    let out = place.path().join("store");
    let arguments =
        [text(place.path()), "--out", text(&out), "--size", "32", "--split", "cifar-test"];
    let (ok, said) = prepare(&arguments);
    assert!(
        ok && said.contains("1 of 1 images are smaller than 32 pixels and were enlarged"),
        "{said}"
    );
    let description = ImageStore::open(&out).expect("a store").description;
    assert_eq!((description.classes, description.enlarged), (vec!["cat".to_string()], 1));
    // One that is not finished is no class, either.
    let unfinished = folder(&["cat/0.png", "store/images_00000.safetensors"]);
    assert_eq!(counts(&open(unfinished.path())), [("cat", 1)]);
    // Another split is another store.
    let (ok, said) = prepare(&[&arguments[..5], &["--split", "dog"]].concat());
    assert!(!ok && said.contains("--force replaces it"), "{said}");
    let (ok, said) = prepare(&[&arguments[..5], &["--split", "dog", "--force"]].concat());
    assert!(ok && said.contains("1 image of"), "{said}");
    let (ok, said) = prepare(&[&arguments[..5], &["--split", "cat"]].concat());
    assert!(!ok && said.contains("several folders are called \"cat\""), "{said}");
    // Years with months are classes, where they are said to be.
    let place = folder(&["2020/may/0.png", "2020/june/0.png", "2021/may/0.png", "2021/june/0.png"]);
    assert!(refused(place.path()).contains("--class-depth"));
    let options = Options { class_depth: Some(0), ..Options::default() };
    let source = Source::open(place.path(), &options).expect("classes");
    assert_eq!(counts(&source), [("2020", 2), ("2021", 2)]);
}

#[test]
fn one_class_folder_is_one_class() {
    let source = open(&case("single-class/faces"));
    assert_eq!(counts(&source), [("all", 6)]);
    let place = folder(&["data/cat/0.png", "data/cat/1.png", "notes.txt"]);
    assert_eq!(counts(&open(place.path())), [("cat", 2)]);
    // No folder, no class.
    assert!(open(&place.path().join("data/cat")).classes.is_empty());
}

#[test]
fn an_empty_class_folder_is_an_error_or_keeps_its_label() {
    let error = refused(&case("empty-class/val"));
    assert!(error.contains("n01443537") && error.contains("--allow-empty"), "{error}");
    let options = Options { allow_empty: true, ..Options::default() };
    let source = Source::open(&case("empty-class/val"), &options).expect("a source");
    assert_eq!(counts(&source), [("n01440764", 3), ("n01443537", 0), ("n01484850", 3)]);
    // A folder that an archive lists, and one whose images are of no format that is read.
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    zip.add_directory("b", SimpleFileOptions::default()).expect("it is added");
    for name in ["a/0.png", "c/0.png", "d/0.heic"] {
        zip.start_file(name, SimpleFileOptions::default()).expect("it starts");
        zip.write_all(&bytes(name)).expect("it is written");
    }
    zip.finish().expect("it ends");
    assert!(
        refused(&path).contains("class folders b, d (which holds d/0.heic: HEIC"),
        "{}",
        refused(&path)
    );
}

#[test]
fn class_folders_that_are_numbers_are_in_their_order() {
    let source = open(&case("numeric-folders/imagenetv2"));
    assert_eq!(source.classes.len(), 12);
    for item in &source.items {
        let number = item.name.split('/').next().and_then(|folder| folder.parse().ok());
        assert_eq!(item.label, number, "{}", item.name);
    }
    assert!(source.labelled_by.contains("numbers"), "{}", source.labelled_by);
    let place = folder(&["1/a.png", "2/a.png", "10/a.png"]);
    let source = open(place.path());
    assert_eq!(source.classes, ["1", "2", "10"]);
    assert!(source.labelled_by.ends_with("which are not the labels"), "{}", source.labelled_by);
}

#[test]
fn label_lists_may_be_null_or_floats_and_do_not_matter_to_metrics() {
    let path = case("edm-null-labels/ffhq-like.zip");
    let source = open(&path);
    assert_eq!((source.items.len(), source.classes.len()), (6, 0));
    assert!(source.items.iter().all(|item| item.label.is_none()));
    // The same as images.h5 and back.
    let place = folder(&["x/0.png", "x/1.png"]);
    let (out, again) = (place.path().join("store"), place.path().join("again"));
    let (ok, said) = prepare(&[text(&path), "--out", text(&out), "--size", "8", "--hdf5"]);
    assert!(ok && said.contains("6 images of 8 x 8 in 0 classes"), "{said}");
    let h5 = out.join("images.h5");
    let (ok, said) = prepare(&[text(&h5), "--out", text(&again), "--size", "8"]);
    assert!(ok && said.contains("6 images of 8 x 8 in 0 classes"), "{said}");

    let list = place.path().join("dataset.json");
    std::fs::write(&list, r#"{"labels": [["x/0.png", 1.0], ["x/1.png", 0]]}"#).expect("written");
    let source = open(place.path());
    assert_eq!(labelled(&source), [("x/0.png", Some(1)), ("x/1.png", Some(0))]);
    std::fs::write(&list, r#"{"labels": [["x/0.png", 1.5]]}"#).expect("it is written");
    assert!(refused(place.path()).contains("the label of \"x/0.png\" is 1.5"));
    let images = Images::open(&place.path().join("x"), None).expect("images").expect("images");
    assert_eq!(images.len(), 2);
    let images = Images::open(&path, None).expect("images").expect("images");
    assert_eq!((images.len(), images.left_out()), (6, None));
}

#[test]
fn links_in_archives_are_followed_and_nothing_vanishes() {
    let source = open(&case("tar-hardlinks/pets.tar"));
    assert_eq!(counts(&source), [("cat", 2), ("dog", 2), ("fox", 1)]);
    let linked =
        |name: &str| source.items.iter().find(|item| item.name.ends_with(name)).expect(name);
    assert_eq!(
        source.read(linked("cat/1.png")).expect("bytes"),
        source.read(linked("cat/0.png")).expect("bytes")
    );
    // Links to links, to folders, to nothing and in a circle; a pipe.
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, target: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        match target {
            Some(target) => {
                header.set_size(0);
                builder.append_link(&mut header, name, target).expect("it fits");
            }
            None => {
                let data = if kind.is_file() { bytes(name) } else { Vec::new() };
                header.set_size(data.len() as u64);
                builder.append_data(&mut header, name, data.as_slice()).expect("it fits");
            }
        }
    };
    add("./a/0.png", tar::EntryType::Regular, None);
    add("./a/1.png", tar::EntryType::Symlink, Some("../b/2.png"));
    add("b/2.png", tar::EntryType::Symlink, Some("./../a/0.png"));
    add("c", tar::EntryType::Symlink, Some("a"));
    add("b/gone.png", tar::EntryType::Symlink, Some("/home/someone/gone.png"));
    add("b/round.png", tar::EntryType::Symlink, Some("round.png"));
    add("b/pipe.png", tar::EntryType::Fifo, None);
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.TAR");
    std::fs::write(&path, builder.into_inner().expect("it ends")).expect("it is written");
    let source = open(&path);
    assert_eq!(counts(&source), [("a", 2), ("b", 1), ("c", 2)]);
    let skipped: Vec<&str> = source.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["b/gone.png", "b/pipe.png", "b/round.png"]);
    assert!(source.skipped[0].reason.contains("not in the archive"));
}

#[test]
fn archives_of_windows_have_folders() {
    let source = open(&case("zip-backslash/pets.zip"));
    assert_eq!(source.classes, ["cat", "dog", "fox"]);
    assert_eq!(source.items[0].name, "pets/cat/0.png");
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("PETS.ZIP");
    std::fs::copy(case("zip-backslash/pets.zip"), &path).expect("a copy");
    assert_eq!(open(&path).classes, ["cat", "dog", "fox"]);
}

#[test]
fn formats_that_are_not_read_are_named() {
    let source = open(&case("ppm-images/signs"));
    assert_eq!(counts(&source), [("cat", 1), ("dog", 1), ("fox", 1)]);
    let place = folder(&["cat/0.png", "cat/1.HEIC", "dog/0.png", "dog/list.txt", "dog/2.avif"]);
    let source = open(place.path());
    let skipped: Vec<&str> = source.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    assert_eq!(
        skipped,
        ["HEIC is not an image format that is read", "AVIF is not an image format that is read"]
    );
    let out = place.path().join("store");
    let (ok, said) = prepare(&[text(place.path()), "--out", text(&out), "--size", "8"]);
    assert!(ok && said.contains("2 skipped") && said.contains("cat/1.HEIC"), "{said}");
    let description = ImageStore::open(&out).expect("a store").description;
    assert_eq!((description.skipped, description.skipped_by_reason.len()), (2, 2));
    let images = Images::open(&place.path().join("cat"), None).expect("images").expect("images");
    let left_out = images.left_out().expect("a note");
    assert!(left_out.contains("1.HEIC (HEIC is not an image format that is read)"), "{left_out}");
    let error = refused(folder(&["0.heic"]).path());
    assert!(error.contains("0.heic: HEIC is not"), "{error}");
}

#[test]
fn portable_pixmaps_are_decoded() {
    let out = TempDir::new().expect("a folder");
    let store = out.path().join("store");
    let signs = case("ppm-images/mixed");
    let (ok, said) = prepare(&[text(&signs), "--out", text(&store), "--size", "8"]);
    assert!(ok && said.contains("4 images of 8 x 8 in 2 classes, 0 skipped"), "{said}");
}

#[test]
fn shards_of_web_datasets_have_labels() {
    let shard = |first: usize| {
        let mut builder = tar::Builder::new(Vec::new());
        for i in first..first + 2 {
            for (end, data) in
                [("png", bytes("x.png")), ("cls", format!("{}\n", i * 2).into_bytes())]
            {
                let mut header = tar::Header::new_gnu();
                header.set_size(data.len() as u64);
                header.set_mode(0o644);
                let name = format!("{i:05}.{end}");
                builder.append_data(&mut header, name, data.as_slice()).expect("it fits");
            }
        }
        builder.into_inner().expect("it ends")
    };
    let place = TempDir::new().expect("a folder");
    for number in 0..2 {
        let path = place.path().join(format!("train-{number:04}.tar"));
        std::fs::write(path, shard(2 * number)).expect("it is written");
    }
    let source = open(&place.path().join("train-0001.tar"));
    assert_eq!(labelled(&source), [("00002.png", Some(4)), ("00003.png", Some(6))]);
    let source = open(place.path());
    let labels: Vec<_> = source.items.iter().map(|item| item.label).collect();
    assert_eq!(labels, [Some(0), Some(2), Some(4), Some(6)]);
    assert_eq!(source.classes.len(), 7);
    // Options for folders, and shards of another split.
    let options = Options { allow_empty: true, ..Options::default() };
    let error = Source::open(place.path(), &options).expect_err("no folders").to_string();
    assert!(error.contains("--allow-empty has no effect"), "{error}");
    std::fs::write(place.path().join("val-0000.tar"), shard(0)).expect("it is written");
    let error = refused(place.path());
    assert!(error.contains("such as train-0000 and val-0000; choose"), "{error}");
    // A sample without a label is an error.
    let unlabelled = folder(&["0.png", "1.png"]);
    std::fs::write(unlabelled.path().join("0.cls"), "3").expect("it is written");
    assert!(refused(unlabelled.path()).contains("no label for \"1.png\""));
}

// The file system of macOS has no such names.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf_8_are_opened() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = folder(&["b/0.png"]);
    let class = place.path().join(OsStr::from_bytes(b"caf\xe9"));
    for name in [b"\xff.png".as_slice(), b"\xfe.png"] {
        write(&class.join(OsStr::from_bytes(name)), "0.png");
    }
    let source = open(place.path());
    assert_eq!(counts(&source), [("b", 1), ("caf\\xE9", 2)]);
    assert!(source.items.iter().all(|item| source.read(item).is_ok()));
    let out = place.path().join("store");
    let (ok, said) = prepare(&[text(place.path()), "--out", text(&out), "--size", "8"]);
    assert!(ok && said.contains("3 images of 8 x 8 in 2 classes, 0 skipped"), "{said}");
}

#[test]
fn panoramas_do_not_take_the_memory_of_their_length() {
    let place = TempDir::new().expect("a folder");
    let long = tintype::image::Rgb { width: 1, height: 60_000, pixels: vec![90; 180_000] };
    std::fs::write(place.path().join("0.png"), long.to_png(&[]).expect("a PNG")).expect("written");
    let out = place.path().join("store");
    let (ok, said) = prepare(&[text(place.path()), "--out", text(&out), "--size", "256"]);
    assert!(ok && said.contains("1 image of 256 x 256"), "{said}");
    let store = ImageStore::open(&out).expect("a store");
    assert!(store.image(0).pixels.iter().all(|v| *v == 90));
}

/// A tar archive of these files; what is called `.tar` inside has the given bytes.
fn tar_of(names: &[&str], archives: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let files = names.iter().map(|name| (*name, bytes(name)));
    for (name, data) in files.chain(archives.iter().cloned()) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data.as_slice()).expect("it fits");
    }
    builder.into_inner().expect("it ends")
}

#[test]
fn a_label_list_may_lie_in_a_folder_around_everything() {
    let place = folder(&["w/00000/a.png", "w/00000/b.png", "w/.old/dataset.json"]);
    let list = "\u{feff}{\"labels\": [[\"./00000/a.png\", 4], [\"00000\\\\b.png\", 2]]}";
    std::fs::write(place.path().join("w/dataset.json"), list).expect("it is written");
    let source = open(place.path());
    assert_eq!(labelled(&source), [("w/00000/a.png", Some(4)), ("w/00000/b.png", Some(2))]);

    let place = folder(&["train/0.png", "val/0.png", "val/1.png"]);
    let list = r#"{"labels": [["train/0.png", 9], ["val/0.png", 1], ["val/1.png", 0]]}"#;
    std::fs::write(place.path().join("dataset.json"), list).expect("it is written");
    for split in ["val", "./val", "VAL\\"] {
        let options = Options { split: Some(split.into()), ..Options::default() };
        let source = Source::open(place.path(), &options).expect("a split");
        assert_eq!(labelled(&source), [("0.png", Some(1)), ("1.png", Some(0))]);
    }
    let options = Options { split: Some("/".into()), ..Options::default() };
    let error = Source::open(place.path(), &options).expect_err("no name").to_string();
    assert!(error.contains("not the name of a folder"), "{error}");
}

#[test]
fn archives_of_a_folder_are_classes_or_shards() {
    let place = folder(&["._cat.tar", "__MACOSX/._dog.tar"]);
    let add = |name: &str, data: Vec<u8>| {
        let path = place.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, data).expect("it is written");
    };
    add("cat.tar", tar_of(&["0.png", "1.png"], &[]));
    let source = open(place.path());
    assert_eq!((counts(&source), source.hidden), (vec![("cat", 2)], 2));
    // A stray image does not hide the archives.
    add("dog.TAR", tar_of(&["0.png", "1.png"], &[]));
    add("preview.png", bytes("preview.png"));
    let source = open(place.path());
    assert_eq!(counts(&source), [("cat", 2), ("dog", 2)]);
    assert_eq!(source.skipped[0].name, "preview.png");
    // A copy of a folder does not count twice.
    let copied = folder(&["cat/0.png", "dog/0.png"]);
    let copy = tar_of(&["cat/0.png", "dog/0.png"], &[]);
    std::fs::write(copied.path().join("all.tar"), copy).expect("it is written");
    let source = open(copied.path());
    assert_eq!(counts(&source), [("cat", 1), ("dog", 1)]);
    assert_eq!(source.skipped[0].reason, "an archive among images");
    // Archives of one name in two folders are two.
    let place = folder(&["readme.txt"]);
    for split in ["train", "val"] {
        let path = place.path().join(split);
        std::fs::create_dir(&path).expect("a folder");
        std::fs::write(path.join("000.tar"), tar_of(&["0.png"], &[])).expect("it is written");
    }
    let error = refused(place.path());
    assert!(error.contains("train (1 images), val (1 images)"), "{error}");
    // Shards with captions and no labels.
    let place = folder(&["readme.txt"]);
    for shard in ["0.tar", "1.tar"] {
        let data = tar_of(&["0.png", "0.txt", "1.png", "1.txt"], &[]);
        std::fs::write(place.path().join(shard), data).expect("it is written");
    }
    let source = open(place.path());
    assert_eq!((source.items.len(), source.classes.len()), (4, 0));
    assert!(source.labelled_by.contains("without .cls"), "{}", source.labelled_by);
}

#[test]
fn archives_of_archives_without_images_are_named() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let inner = [
        ("n00.tar", tar_of(&["0.png"], &[])),
        ("n01.TAR", tar_of(&["0.png"], &[])),
        ("n02.tar", Vec::new()),
        ("n03.tar.gz", vec![1, 2, 3]),
        ("._n00.tar", b"no archive".to_vec()),
        ("__MACOSX/._n01.tar", b"no archive".to_vec()),
    ];
    std::fs::write(&path, tar_of(&[], &inner)).expect("it is written");
    let error = refused(&path);
    assert!(error.contains("class folders n02;"), "{error}");
    let options = Options { allow_empty: true, ..Options::default() };
    let source = Source::open(&path, &options).expect("a source");
    assert_eq!(counts(&source), [("n00", 1), ("n01", 1), ("n02", 0)]);
    assert_eq!((source.hidden, source.skipped.len()), (2, 1));
    assert_eq!(source.skipped[0].name, "n03.tar.gz");
}

#[test]
fn symbolic_links_in_zip_archives_are_followed() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    for name in ["./a/0.png", "b//0.png"] {
        zip.start_file(name, SimpleFileOptions::default()).expect("it starts");
        zip.write_all(&bytes(name)).expect("it is written");
    }
    for (name, target) in [("b/1.png", "../a/0.png"), ("b/2.png", "/gone.png")] {
        zip.add_symlink(name, target, SimpleFileOptions::default()).expect("it is added");
    }
    zip.finish().expect("it ends");
    let source = open(&path);
    assert_eq!(counts(&source), [("a", 1), ("b", 2)]);
    let read = |at: usize| source.read(&source.items[at]).expect("bytes");
    assert_eq!(read(0), read(2));
    assert_eq!(source.skipped[0].name, "b/2.png");
}

#[test]
fn images_by_their_contents_and_copies_are_counted() {
    let place = folder(&["cat/0.png", "cat/1.png.bak", "dog/0.png", "notes"]);
    std::fs::write(place.path().join("dog/1"), bytes("1.png")).expect("it is written");
    let source = open(place.path());
    let skipped: Vec<&str> = source.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
    assert_eq!(skipped, ["cat/1.png.bak", "dog/1"]);
    let options = Options { class_depth: Some(3), ..Options::default() };
    let error = Source::open(place.path(), &options).expect_err("too deep").to_string();
    assert!(error.contains("--class-depth 0 is the deepest"), "{error}");
}

#[cfg(unix)]
#[test]
fn folders_that_link_to_each_other_end() {
    let place = folder(&["a/0.png", "b/0.png"]);
    for (link, target) in [("a/b", "../b"), ("b/a", "../a")] {
        std::os::unix::fs::symlink(target, place.path().join(link)).expect("a link");
    }
    let source = open(place.path());
    assert_eq!(counts(&source), [("a", 2), ("b", 2)]);
    assert_eq!(source.skipped.len(), 2);

    // One of two levels up, in a data set that is a link itself.
    let place = folder(&["train/cat/0.png", "train/dog/0.png"]);
    let data = TempDir::new().expect("a folder");
    let root = data.path().join("root");
    for (link, target) in [
        (place.path().join("train/cat/up"), Path::new("../../train")),
        (root.clone(), place.path()),
    ] {
        std::os::unix::fs::symlink(target, link).expect("a link");
    }
    let source = open(&root);
    assert_eq!(counts(&source), [("cat", 1), ("dog", 1)]);
    assert_eq!(source.skipped.len(), 1);
}
