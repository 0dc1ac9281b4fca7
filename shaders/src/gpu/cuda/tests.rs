//! The kernels' texts in emulation, with definitions as the launches make them.

use std::path::Path;
use std::process::Command;

use super::attention::Head;
use super::product::{Finish, Images, Inner, Plan, Sizes};

/// Compiles a harness of `emulation/` for the processor and runs it; what it printed is the error of
/// a failure.
fn emulate(harness: &str, name: &str, definitions: &[(&str, usize)]) {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gpu/cuda");
    let folder = tempfile::tempdir().expect("a folder for what is compiled");
    let program = folder.path().join(name);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let compiled = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-w", "-o"])
        .arg(&program)
        .args(definitions.iter().map(|(name, value)| format!("-D{name}={value}")))
        .arg("-I")
        .arg(&texts)
        .arg(texts.join("emulation").join(harness))
        .output()
        .unwrap_or_else(|error| panic!("{compiler} compiles the emulation: {error}"));
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&program).output().expect("what was compiled runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{harness} {definitions:?}: {said}");
}

fn product(sizes: Sizes, inner: Inner, finish: Finish, plan: Plan) {
    let source = plan.source(sizes, inner, finish);
    let mut definitions = source.definitions;
    definitions.push(("SHARED_BYTES", source.shared_memory));
    definitions.push(("THREADS", source.threads as usize));
    // Fewer than pieces of work, so that blocks go on to a second one.
    definitions.push(("BLOCKS", plan.pieces(sizes).div_ceil(2)));
    emulate("product.cpp", "product", &definitions);
}

const FORWARD: Inner = Inner { a: true, b: true };
const INPUT: Inner = Inner { a: true, b: false };
const WEIGHT: Inner = Inner { a: false, b: false };

#[test]
fn products_of_rows_are_right_in_emulation() {
    let finish = Finish { bias: true, residual: true, gelu: true, bf16: true };
    let sizes = Sizes::new(300, 200, 136);
    product(sizes, FORWARD, finish, Plan { groups: 2, columns: 192, splits: 1 });
    let finish = Finish { bias: false, residual: false, gelu: false, bf16: false };
    let sizes = Sizes::new(3, 72, 8);
    product(sizes, FORWARD, finish, Plan { groups: 1, columns: 64, splits: 1 });
}

#[test]
fn products_for_gradients_are_right_in_emulation() {
    let finish = Finish { bias: false, residual: false, gelu: false, bf16: true };
    let sizes = Sizes::new(140, 264, 600);
    product(sizes, INPUT, finish, Plan { groups: 1, columns: 192, splits: 1 });
    let sizes = Sizes::new(264, 136, 333);
    product(sizes, WEIGHT, finish, Plan { groups: 2, columns: 128, splits: 3 });
}

#[test]
fn convolutions_are_right_in_emulation() {
    let convolution = |images: Images, m, n, residual, plan| {
        let k = images.window * images.window * images.channels;
        let finish = Finish { bias: true, residual, gelu: false, bf16: true };
        product(Sizes { m, n, k, images: Some(images) }, FORWARD, finish, plan);
    };
    let images = Images { window: 3, height: 17, width: 22, channels: 72 };
    let plan = Plan { groups: 2, columns: 128, splits: 1 };
    convolution(images, 2 * 17 * 22, 136, true, plan);
    let images = Images { window: 1, height: 8, width: 8, channels: 32 };
    convolution(images, 64, 8, false, Plan { groups: 1, columns: 64, splits: 1 });
}

fn attention(head: Head, [queries, keys]: [usize; 2]) {
    let (forward, backward) = (head.forward_tiles(), head.backward_tiles());
    let definitions = [
        ("QUERIES", queries),
        ("KEYS", keys),
        ("D", head.d),
        ("E", head.e),
        ("BF16", head.bf16.into()),
        ("FORWARD_TILES", forward.count),
        ("FORWARD_STEP", forward.step),
        ("FORWARD_BYTES", head.forward().shared_memory),
        ("KEYS_PASS_TILES", backward.count),
        ("KEYS_PASS_STEP", backward.step),
        ("KEYS_PASS_BYTES", head.backward(true).shared_memory),
        ("QUERIES_PASS_TILES", backward.count),
        ("QUERIES_PASS_STEP", backward.step),
        ("QUERIES_PASS_BYTES", head.backward(false).shared_memory),
    ];
    emulate("attention.cpp", "attention", &definitions);
}

#[test]
fn attention_and_its_gradients_are_right_in_emulation() {
    attention(Head { d: 72, e: 72, bf16: true }, [150, 150]);
    attention(Head { d: 64, e: 40, bf16: false }, [70, 201]);
    attention(Head { d: 128, e: 128, bf16: true }, [1, 5]);
}

#[test]
fn texts_have_what_they_need() {
    let finish = Finish { bias: true, residual: false, gelu: true, bf16: true };
    let plan = Plan { groups: 2, columns: 192, splits: 1 };
    let head = Head { d: 72, e: 64, bf16: true };
    let product = plan.source(Sizes::new(300, 200, 136), INPUT, finish);
    assert!(product.text().contains("m64n192k16.f32.bf16.bf16"));
    assert!(product.text().contains("p, 1, 1, 0, 1;"), "A along, B across the inner axis");
    for source in [product, head.forward(), head.backward(true), head.backward(false)] {
        let text = source.text();
        assert!(text.contains(&format!("{}(", source.entry)), "{}", source.entry);
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{}", source.entry);
        for (name, _) in &source.definitions {
            assert!(text.matches(name).count() > 1, "{name} is defined for nothing");
        }
    }
}

#[test]
fn a_plan_fills_the_processors() {
    let plan = |m, n, k| Plan::of(Sizes::new(m, n, k), 132);
    // SiT-XL/1, batch 64: queries, keys and values of a block.
    assert_eq!(plan(16384, 3456, 1152), Plan { groups: 2, columns: 192, splits: 1 });
    // A gradient of weights has few tiles and a long inner axis.
    let sizes = Sizes::new(1152, 1152, 16384);
    let of_weights = Plan::of(sizes, 132);
    assert!(of_weights.splits > 1 && of_weights.pieces(sizes) > 100, "{of_weights:?}");
    // An inner axis of one step cannot be split.
    assert_eq!(plan(64, 1152, 32).splits, 1);
}
