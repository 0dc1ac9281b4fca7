//! A store that is larger than what a process may take.

use std::process::Command;

use tempfile::TempDir;
use tintype::files::Identity;
use tintype_trainer::data::hdf5::{Hdf5Store, Hdf5Writer, Payload};
use tintype_trainer::data::made::Other;

const GROUPS: usize = 4;
const ITEMS: usize = 64;
/// Values of an item: a mebibyte.
const VALUES: usize = 1 << 18;
/// The largest part of memory, in kibibytes, of a process that reads all of it.
const LIMIT: u64 = 128 << 10;
const STORE: &str = "TINTYPE_TEST_BIG_STORE";

fn name(group: usize, item: usize) -> String {
    format!("{group:05}/{item:03}.npy")
}

/// The most memory that this process has had, in kibibytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_store_is_read_without_taking_memory_of_its_size() {
    // The process that reads is this program again: the one that wrote has had all of it in memory.
    if let Some(path) = std::env::var_os(STORE) {
        let store = Hdf5Store::open(path.as_ref()).expect("a store");
        assert_eq!(store.items.len(), GROUPS * ITEMS);
        for (i, item) in store.items.iter().enumerate() {
            let (values, shape) = store.moments(item).expect("moments");
            assert_eq!((shape.as_slice(), values.len()), ([4, 256, 256].as_slice(), VALUES));
            assert_eq!((values[0], store.label(item)), (i as f32, Some(i % 7)));
            assert_eq!(store.bytes(item).expect("bytes").len(), 4 * VALUES);
        }
        assert!(peak() < LIMIT, "{} KiB for a file of 256 MiB", peak());
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("moments.h5");
    let identity = Identity::default().with("test", 1);
    let writer = Hdf5Writer::open(&path, &identity, Other::Refuse).expect("it opens");
    let writer = writer.expect("it is new");
    let mut labels = Vec::new();
    for group in 0..GROUPS {
        let item = |item: usize| {
            let i = group * ITEMS + item;
            (name(group, item), Payload::Floats(vec![i as f32; VALUES], vec![4, 256, 256]))
        };
        writer.append(group, (0..ITEMS).map(item).collect()).expect("it is written");
        labels.extend(
            (0..ITEMS).map(|item| (name(group, item), ((group * ITEMS + item) % 7) as i64)),
        );
        assert_eq!(writer.groups().expect("groups"), group + 1);
    }
    writer.finish(&labels, false).expect("it ends");
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["sources::big::a_store_is_read_without_taking_memory_of_its_size", "--exact"])
        .env(STORE, &path)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_store_that_was_almost_finished_is_finished() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("x.h5");
    let identity = Identity::default().with("store", "a0b1");
    let open = |identity: &Identity, other: Other| Hdf5Writer::open(&path, identity, other);
    let start = || open(&identity, Other::Refuse).expect("it opens").expect("it is not finished");
    let items = vec![(name(0, 0), Payload::Floats(vec![1.0, 2.0], vec![2, 1, 1]))];
    let labels = [(name(0, 0), 5)];
    start().append(0, items).expect("it is written");
    // Its list cannot be written, after the labels were.
    let list = folder.path().join("x_h5.json");
    std::fs::create_dir_all(list.join("in the way")).expect("a folder");
    assert!(start().finish(&labels, false).is_err());
    std::fs::remove_dir_all(&list).expect("it is away");
    // Somebody else's half is not continued.
    let other = Identity::default().with("store", "c2d3");
    let error = open(&other, Other::Refuse).expect_err("another store").to_string();
    assert!(error.contains("store was \"a0b1\", not \"c2d3\""), "{error}");
    assert_eq!(start().groups().expect("groups"), 1);
    start().finish(&labels, false).expect("it ends");
    let store = Hdf5Store::open(&path).expect("a store");
    assert_eq!(store.moments(&store.items[0]).expect("moments"), (vec![1.0, 2.0], vec![2, 1, 1]));
    assert_eq!(store.label(&store.items[0]), Some(5));
    assert!(open(&identity, Other::Refuse).expect("it is the same").is_none());
    assert!(open(&other, Other::Refuse).is_err());
    assert!(open(&other, Other::Remove).expect("it is removed").is_some());
    assert!(!path.exists());
}
