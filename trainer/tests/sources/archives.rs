//! Archives as other programs write them, damaged ones, and archives that change while they are read.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;
use tintype_trainer::data::made::{Other, names};
use tintype_trainer::data::prepare::{Plan, Progress, prepare as prepare_store};
use tintype_trainer::data::source::{Options, Source};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::{bytes, counts, open, refused, tar_of};
use crate::{prepare, text};

/// Where the last byte of an archive is that is not part of its end, rounded up to blocks.
fn end_of_members(archive: &[u8]) -> usize {
    let last = archive.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    (last + 1).next_multiple_of(512)
}

/// Adds a file with PAX's records before it; its own header says that it has `size` bytes.
fn add(
    builder: &mut Builder<Vec<u8>>,
    records: &[(&str, &str)],
    (name, size): (&str, usize),
    data: &[u8],
) {
    let records = records.iter().map(|(key, value)| (*key, value.as_bytes()));
    builder.append_pax_extensions(records).expect("they fit");
    let mut header = Header::new_ustar();
    header.set_path(name).expect("it fits");
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, data).expect("it fits");
}

fn written(builder: Builder<Vec<u8>>, path: &Path) {
    std::fs::write(path, builder.into_inner().expect("it ends")).expect("it is written");
}

#[test]
fn names_and_sizes_are_those_of_extended_headers() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let gnu = format!("{}0.png", "gnu/".repeat(40));
    let pax = format!("{}1.png", "pax/".repeat(40));
    let mut builder = Builder::new(Vec::new());
    let data = bytes(&gnu);
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, &gnu, data.as_slice()).expect("it fits");
    let data = bytes(&pax);
    let size = data.len().to_string();
    add(&mut builder, &[("path", pax.as_str()), ("size", size.as_str())], ("short.png", 0), &data);
    let data = bytes("z.png");
    add(&mut builder, &[("mtime", "1.5")], ("z.png", data.len()), &data);
    written(builder, &path);
    let options = Options { unlabelled: true, ..Options::default() };
    let source = Source::open(&path, &options).expect("a source");
    let found: Vec<&str> = source.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(found, [gnu.as_str(), pax.as_str(), "z.png"]);
    for item in &source.items {
        assert!(source.read(item).expect("bytes") == bytes(&item.name), "{}", item.name);
    }
    assert!(source.skipped.is_empty());
}

#[test]
fn files_with_holes_are_left_out_by_their_names() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let mut builder = Builder::new(Vec::new());
    let sparse = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "a/0.png"),
        ("GNU.sparse.realsize", "900000"),
    ];
    // A map of the pieces, and the pieces.
    let data = bytes("0.png");
    let condensed = [b"1\n0\n1000\n".as_slice(), &[0; 503], &data].concat();
    add(&mut builder, &sparse, ("GNUSparseFile.7/0.png", condensed.len()), &condensed);
    // An older kind has no name of its own.
    let older = [("GNU.sparse.size", "900000"), ("GNU.sparse.numblocks", "1")];
    add(&mut builder, &older, ("a/1.png", data.len()), &data);
    add(&mut builder, &[("mtime", "1")], ("a/2.png", data.len()), &data);
    written(builder, &path);
    let source = open(&path);
    assert_eq!(counts(&source), [("a", 1)]);
    assert!(source.read(&source.items[0]).expect("bytes") == data);
    let skipped: Vec<_> = source.skipped.iter().map(|s| (s.name.as_str(), &*s.reason)).collect();
    assert_eq!(skipped, [("a/0.png", "a sparse file"), ("a/1.png", "a sparse file")]);
}

// Where a hole in a file takes no room.
#[cfg(unix)]
#[test]
fn a_member_over_8_gib_is_listed_and_not_read() {
    use std::io::{Seek, SeekFrom};
    const SIZE: u64 = 9 << 30;
    let place = TempDir::new().expect("a folder");
    let (path, out) = (place.path().join("x.tar"), place.path().join("store"));
    let mut header = Header::new_gnu();
    header.set_path("a/0.png").expect("it fits");
    header.set_size(SIZE);
    header.set_mode(0o644);
    header.set_cksum();
    let mut file = File::create(&path).expect("a file");
    file.write_all(header.as_bytes()).expect("it is written");
    file.seek(SeekFrom::Start(512 + SIZE)).expect("it is behind the hole");
    file.write_all(&tar_of(&["a/1.png"], &[])).expect("it is written");
    drop(file);
    let source = open(&path);
    assert_eq!(counts(&source), [("a", 2)]);
    assert!(source.read(&source.items[1]).expect("bytes") == bytes("a/1.png"));
    let error = source.read(&source.items[0]).expect_err("it is too large").to_string();
    assert!(error.contains("9663676416 bytes") && error.contains("at most 2 GiB"), "{error}");
    let (ok, said) = prepare(&[text(&path), "--out", text(&out), "--size", "8"]);
    assert!(ok && said.contains("1 image of 8 x 8 in 1 class, 1 skipped"), "{said}");
}

#[test]
fn archives_inside_may_lack_their_end_and_nothing_else() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let whole = tar_of(&["0.png", "1.png"], &[]);
    let end = end_of_members(&whole);
    assert!(end < whole.len());
    let outer = tar_of(
        &[],
        &[
            ("a.tar", whole[..end].to_vec()),
            ("b.tar", whole[..end - 512].to_vec()),
            ("c.tar", whole.clone()),
        ],
    );
    std::fs::write(&path, &outer).expect("it is written");
    let options = Options { allow_empty: true, ..Options::default() };
    let source = Source::open(&path, &options).expect("a source");
    assert_eq!(counts(&source), [("a", 2), ("b", 0), ("c", 2)]);
    assert!(source.items.iter().all(|item| source.read(item).expect("bytes") == bytes("0.png")));
    assert_eq!((source.skipped.len(), source.skipped[0].name.as_str()), (1, "b.tar"));
    let reason = &source.skipped[0].reason;
    assert!(reason.contains("damaged archive: 1.png ends beyond the archive"), "{reason}");
    // The same of the archive around them.
    std::fs::write(&path, &outer[..end_of_members(&outer)]).expect("it is written");
    let error = refused(&path);
    assert!(error.contains("c.tar ends beyond the archive"), "{error}");
}

#[test]
fn a_cut_in_what_is_no_file_is_noticed() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let mut builder = Builder::new(Vec::new());
    // A part of a file whose other parts are in other archives.
    for (name, kind, data) in [
        ("a/0.png", EntryType::Regular, bytes("a/0.png")),
        ("a/part", EntryType::new(b'M'), vec![7; 2000]),
    ] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data.as_slice()).expect("it fits");
    }
    let whole = builder.into_inner().expect("it ends");
    let end = end_of_members(&whole);
    for len in [whole.len(), end] {
        std::fs::write(&path, &whole[..len]).expect("it is written");
        let source = open(&path);
        assert_eq!((counts(&source), source.skipped.len()), (vec![("a", 1)], 1));
    }
    for len in [end - 1, end - 512, end - 2048] {
        std::fs::write(&path, &whole[..len]).expect("it is written");
        let error = refused(&path);
        assert!(error.contains("a/part ends beyond the archive"), "{error}");
    }
}

#[test]
fn what_follows_the_end_of_an_archive_is_not_lost_silently() {
    let place = TempDir::new().expect("a folder");
    let path = place.path().join("x.tar");
    let [one, two] = ["a/0.png", "a/1.png"].map(|name| tar_of(&[name], &[]));
    // Records of tapes end with zeros.
    for zeros in [0, 512, 1 << 20] {
        std::fs::write(&path, [one.as_slice(), &vec![0u8; zeros]].concat()).expect("it is written");
        assert_eq!(counts(&open(&path)), [("a", 1)]);
    }
    let several = [one.as_slice(), &two].concat();
    let apart = [one.as_slice(), &[0; 100_000], &two].concat();
    let unfinished = [one.as_slice(), &vec![0u8; 5 << 20]].concat();
    for archive in [&several, &apart, &unfinished] {
        std::fs::write(&path, archive).expect("it is written");
        let error = refused(&path);
        assert!(error.contains("it goes on behind its end"), "{error}");
        assert!(error.contains("tar --ignore-zeros"), "{error}");
    }
    std::fs::write(&path, tar_of(&[], &[("n0.tar", one), ("n1.tar", several)])).expect("written");
    let options = Options { unlabelled: true, ..Options::default() };
    let source = Source::open(&path, &options).expect("a source");
    assert_eq!(source.items.len(), 1);
    assert_eq!((source.skipped.len(), source.skipped[0].name.as_str()), (1, "n1.tar"));
    let reason = &source.skipped[0].reason;
    assert!(reason.contains("it goes on behind its end"), "{reason}");
}

/// A zip archive of two images that are stored as they are, with so many bytes behind each.
fn zip_of_two(path: &Path, behind: usize) {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = zip::ZipWriter::new(File::create(path).expect("a file"));
    for name in ["a/0.png", "a/10.png"] {
        zip.start_file(name, options).expect("it starts");
        zip.write_all(&[bytes(name), vec![0; behind]].concat()).expect("it is written");
    }
    zip.finish().expect("it ends");
}

#[test]
fn an_archive_that_is_cut_after_it_was_listed_ends_the_work() {
    let place = TempDir::new().expect("a folder");
    let [tar, zip] = ["x.tar", "x.zip"].map(|name| place.path().join(name));
    std::fs::write(&tar, tar_of(&["a/0.png", "a/10.png"], &[])).expect("it is written");
    // So much is not read together with the list of files.
    zip_of_two(&zip, 64 << 10);
    for path in [tar, zip] {
        let source = open(&path);
        assert_eq!(source.items.len(), 2);
        let file = File::options().write(true).open(&path).expect("it opens");
        file.set_len(20).expect("it is cut");
        let out = path.with_extension("store");
        let plan = Plan { side: 8, out, rank: 0, world: 1, other: Other::Refuse };
        let error = prepare_store(&source, &plan, &Progress::default()).expect_err("it is cut");
        let error = format!("{error:#}");
        assert!(error.contains("png cannot be read") && error.contains("shorter"), "{error}");
        assert!(error.contains(text(&path)), "{error}");
        assert!(names(&plan.out).expect("a folder").is_empty(), "no shard without its images");
    }
}

#[test]
fn a_member_of_a_zip_archive_that_is_damaged_is_left_out() {
    let place = TempDir::new().expect("a folder");
    let (path, out) = (place.path().join("x.zip"), place.path().join("store"));
    zip_of_two(&path, 0);
    let mut archive = std::fs::read(&path).expect("it was written");
    let image = bytes("a/0.png");
    let at = archive.windows(image.len()).position(|part| part == image).expect("it is stored");
    archive[at + image.len() / 2] ^= 1;
    std::fs::write(&path, archive).expect("it is written");
    let (ok, said) = prepare(&[text(&path), "--out", text(&out), "--size", "8"]);
    assert!(ok && said.contains("1 image of 8 x 8 in 1 class, 1 skipped"), "{said}");
    assert!(said.contains("skipped a/0.png: Invalid checksum"), "{said}");
}

/// Two links in each of forty folders to the next one: two to the 40 names of one image.
#[test]
fn links_that_multiply_files_are_refused() {
    let place = TempDir::new().expect("a folder");
    let links = || {
        let of = |folder: usize| ["a", "b"].map(|link| (format!("{}/{link}", folder - 1), folder));
        (1..41).flat_map(of).map(|(link, folder)| (link, format!("../{folder}")))
    };
    let (tar, zip) = (place.path().join("x.tar"), place.path().join("x.zip"));
    let mut builder = Builder::new(Vec::new());
    for (link, target) in links() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, link, target).expect("it fits");
    }
    add(&mut builder, &[("mtime", "1")], ("40/0.png", 3), b"png");
    // In an archive inside the archive, too.
    let inner = builder.into_inner().expect("it ends");
    std::fs::write(&tar, tar_of(&[], &[("inner.tar", inner)])).expect("it is written");
    let mut writer = zip::ZipWriter::new(File::create(&zip).expect("a file"));
    for (link, target) in links() {
        writer.add_symlink(link, target, SimpleFileOptions::default()).expect("it is added");
    }
    writer.start_file("40/0.png", SimpleFileOptions::default()).expect("it starts");
    writer.write_all(b"png").expect("it is written");
    writer.finish().expect("it ends");
    for path in [tar, zip] {
        let error = refused(&path);
        assert!(error.contains("its links lead from folder to folder"), "{error}");
        assert!(error.starts_with(text(&path)) && !error.contains("damaged"), "{error}");
    }
}
