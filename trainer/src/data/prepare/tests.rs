use tempfile::TempDir;
use tintype::image::Rgb;
use tintype::weights::{Dtype, TensorView, write_safetensors};

use super::*;
use crate::data::crop::center_crop;
use crate::data::decode::decode;
use crate::data::made::{IDENTITY, names};
use crate::data::source::Options;
use crate::data::store::ImageStore;

const SIDE: usize = 8;
const COUNT: usize = 7;
const PER_SHARD: usize = 3;
/// An image in a shard with others, and all of a shard.
const DAMAGED: [usize; 2] = [1, 6];
/// Half a file.
const HALF: &[u8] = b"P6";

fn picture(i: usize) -> Rgb {
    let (width, height) = (5 + 2 * i, 12);
    let pixels = (0..width * height * 3).map(|at| (at * (i + 3) % 251) as u8).collect();
    Rgb { width, height, pixels }
}

fn name(i: usize) -> String {
    format!("{}/{i}.ppm", ["a", "b"][i / 4])
}

/// Images in two classes, and an empty folder for a store.
fn sources() -> (TempDir, Source, Plan) {
    let place = TempDir::new().expect("a folder");
    for i in 0..COUNT {
        let Rgb { width, height, pixels } = picture(i);
        let header = format!("P6 {width} {height} 255\n");
        let whole = [header.as_bytes(), &pixels].concat();
        let file = place.path().join("images").join(name(i));
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("a folder");
        let bytes = if DAMAGED.contains(&i) { HALF } else { &whole };
        std::fs::write(file, bytes).expect("it is written");
    }
    let images = place.path().join("images");
    let source = Source::open(&images, &Options::default()).expect("a source");
    let out = place.path().join("store");
    let plan = Plan { side: SIDE, out, rank: 0, world: 1, other: Other::Refuse };
    (place, source, plan)
}

fn run(source: &Source, plan: &Plan) -> anyhow::Result<Outcome> {
    prepare_shards(source, plan, PER_SHARD, &Progress::default())
}

fn contents(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let one = |name: String| {
        let bytes = std::fs::read(out.join(&name)).expect("it is there");
        (name, bytes)
    };
    names(out).expect("a folder").into_iter().map(one).collect()
}

fn files(numbers: &[usize]) -> BTreeSet<String> {
    numbers.iter().map(|number| shard_name(*number)).collect()
}

/// The bytes of a shard, made image by image.
fn shard(source: &Source, number: usize) -> Vec<u8> {
    let items = number * PER_SHARD..COUNT.min((number + 1) * PER_SHARD);
    let (bad, good): (Vec<usize>, Vec<usize>) = items.partition(|i| DAMAGED.contains(i));
    let pixels = good.iter().flat_map(|i| center_crop(&picture(*i), SIDE).pixels).collect();
    let labels = good.iter().flat_map(|i| ((i / 4) as i64).to_le_bytes()).collect();
    let reason = decode(HALF).expect_err("half a file");
    let skipped = |i: &usize| Skipped { name: name(*i), reason: reason.clone() };
    let skipped: Vec<Skipped> = bad.iter().map(skipped).collect();
    let enlarged = good.iter().filter(|i| picture(**i).width < SIDE).count();
    let identity = Identity::default()
        .with("source", source.fingerprint().to_string())
        .with("images", COUNT)
        .with("side", SIDE)
        .with("images_per_shard", PER_SHARD);
    let (n, view) = (good.len(), TensorView::from_bytes);
    let images = view(Dtype::U8, vec![n, SIDE, SIDE, 3], pixels).expect("as many bytes");
    let labels = view(Dtype::I64, vec![n], labels).expect("as many bytes");
    let tensors = [("images".to_string(), images), ("labels".to_string(), labels)];
    let metadata = [
        (IDENTITY.to_string(), identity.text()),
        ("skipped".to_string(), serde_json::to_string(&skipped).expect("JSON")),
        ("enlarged".to_string(), enlarged.to_string()),
    ];
    write_safetensors(&tensors.into(), &metadata.into()).expect("it fits")
}

#[test]
fn shards_hold_what_can_be_read_and_are_read_again_once() {
    let (_place, source, plan) = sources();
    let first = run(&source, &plan).expect("it is prepared");
    assert!(first.complete && first.read.is_empty());
    let counts = (first.images, first.skipped.len(), first.enlarged, first.resumed);
    assert_eq!(counts, (5, 2, 1, 0));
    let whole = contents(&plan.out);
    let there: Vec<&str> = whole.keys().map(String::as_str).collect();
    let shards = [0, 1, 2].map(shard_name);
    assert_eq!(there[..3], shards);
    assert_eq!(there[3..], [SKIPPED_FILE, STORE_FILE]);
    for (number, file) in shards.iter().enumerate() {
        assert!(whole[file] == shard(&source, number), "{file}");
    }
    let store = ImageStore::open(&plan.out).expect("a store");
    assert_eq!(store.labels(), [0usize, 0, 0, 1, 1].map(Some));
    for (index, i) in [0, 2, 3, 4, 5].into_iter().enumerate() {
        assert_eq!(store.image(index), center_crop(&picture(i), SIDE));
    }
    store.verify().expect("what was written has the checksums of what was to be written");
    drop(store);

    // What is done is compared with its checksums.
    let again = run(&source, &plan).expect("it is done");
    assert_eq!((again.resumed, again.as_found, again.read), (3, 0, files(&[0, 1, 2])));
    assert!(again.complete && contents(&plan.out) == whole);
    // A killed process left no checksums, and half of its work.
    std::fs::remove_file(plan.out.join(STORE_FILE)).expect("it was there");
    std::fs::remove_file(plan.out.join(shard_name(1))).expect("it was there");
    let resumed = run(&source, &plan).expect("it is prepared");
    assert_eq!((resumed.resumed, resumed.as_found, resumed.read), (2, 2, files(&[0, 2])));
    assert!(resumed.complete && contents(&plan.out) == whole);
    // A damaged shard is made again.
    let mut damaged = whole[&shard_name(0)].clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(plan.out.join(shard_name(0)), damaged).expect("it is written");
    let repaired = run(&source, &plan).expect("it is prepared");
    assert_eq!((repaired.resumed, repaired.as_found, repaired.read), (2, 0, files(&[1, 2])));
    assert!(repaired.complete && contents(&plan.out) == whole);
}

#[test]
fn processes_share_the_shards() {
    let (_place, source, plan) = sources();
    run(&source, &plan).expect("it is prepared");
    let whole = contents(&plan.out);
    std::fs::remove_dir_all(&plan.out).expect("it was there");
    let [first, second] = [0, 1].map(|rank| Plan { rank, world: 2, ..plan.clone() });
    let outcome = run(&source, &first).expect("its shards are written");
    assert!(!outcome.complete && outcome.read.is_empty());
    let there: BTreeSet<String> = names(&plan.out).expect("a folder").into_iter().collect();
    assert_eq!(there, files(&[0, 2]));
    let outcome = run(&source, &second).expect("it is prepared");
    assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 2, 2));
    assert_eq!(outcome.read, files(&[0, 2]));
    assert!(contents(&plan.out) == whole);
}

#[test]
fn damage_in_a_shard_of_another_process_is_not_recorded() {
    let (_place, source, plan) = sources();
    run(&source, &plan).expect("it is prepared");
    let whole = contents(&plan.out);
    let mut damaged = whole[&shard_name(1)].clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(plan.out.join(shard_name(1)), damaged).expect("it is written");
    let [first, second] = [0, 1].map(|rank| Plan { rank, world: 2, ..plan.clone() });
    let outcome = run(&source, &first).expect("its own shards are there");
    assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 3, 0));
    assert_eq!(outcome.read, files(&[0, 2]));
    let store = ImageStore::open(&plan.out).expect("a store");
    let error = store.verify_except(&outcome.read).expect_err("a wrong checksum").to_string();
    assert!(error.contains(&shard_name(1)), "{error}");
    assert!(error.contains("its checksum is wrong"), "{error}");
    drop(store);
    // The one whose shard it is makes it again.
    let outcome = run(&source, &second).expect("it is prepared");
    assert_eq!((outcome.complete, outcome.resumed, outcome.as_found), (true, 2, 0));
    assert!(outcome.read.is_empty() && contents(&plan.out) == whole);
    let store = ImageStore::open(&plan.out).expect("a store");
    store.verify_except(&outcome.read).expect("it is whole again");
}

#[test]
fn an_image_that_cannot_be_read_ends_the_work() {
    let (place, source, plan) = sources();
    let file = place.path().join("images").join(name(4));
    let away = place.path().join("away");
    std::fs::rename(&file, &away).expect("it was there");
    let error = format!("{:#}", run(&source, &plan).expect_err("it was listed"));
    assert!(error.contains("the image b/4.ppm cannot be read"), "{error}");
    let there = names(&plan.out).expect("a folder");
    assert_eq!(there, [shard_name(0)], "the shard before is kept");
    // It is back, unlike the fingerprint that the shard has.
    std::fs::rename(&away, &file).expect("it is away");
    let plan = Plan { other: Other::Remove, ..plan };
    let outcome = run(&source, &plan).expect("it is prepared");
    let counts = (outcome.images, outcome.skipped.len(), outcome.resumed);
    assert_eq!(counts, (COUNT - DAMAGED.len(), DAMAGED.len(), 0));
}
#[test]
fn a_shard_that_cannot_be_written_ends_the_work_and_what_is_done_stays() {
    let (_place, source, plan) = sources();
    let taken = plan.out.join(shard_name(1));
    std::fs::create_dir_all(taken.join("in the way")).expect("a folder");
    let error = run(&source, &plan).expect_err("a folder is there").to_string();
    assert!(error.contains("images_00001.safetensors cannot be written"), "{error}");
    std::fs::remove_dir_all(&taken).expect("it was there");
    let done = BTreeMap::from([(shard_name(0), shard(&source, 0))]);
    assert!(contents(&plan.out) == done);
    let outcome = run(&source, &plan).expect("it is prepared");
    assert_eq!((outcome.resumed, outcome.read), (1, files(&[0])));
}

#[test]
fn what_is_cancelled_writes_nothing_more() {
    let (_place, source, plan) = sources();
    let progress = Progress::default();
    progress.stop.store(true, Ordering::Relaxed);
    let outcome = prepare_shards(&source, &plan, PER_SHARD, &progress).expect("it stops");
    assert!(!outcome.complete && contents(&plan.out).is_empty());
}

#[test]
fn other_names_of_the_classes_do_not_bless_damage() {
    let (_place, mut source, plan) = sources();
    run(&source, &plan).expect("it is prepared");
    let name = shard_name(0);
    let whole = contents(&plan.out).remove(&name).expect("it is there");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(plan.out.join(&name), damaged).expect("it is written");
    source.classes[0] = "another name".into();
    let plan = Plan { other: Other::Remove, ..plan };
    let outcome = run(&source, &plan).expect("it is prepared");
    assert_eq!((outcome.resumed, outcome.as_found), (2, 0));
    assert!(contents(&plan.out)[&name] == whole);
}
