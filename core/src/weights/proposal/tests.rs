use burn::tensor::Device;

use super::*;
use crate::model::hidit::{HiDiT, HiDiTConfig};
use crate::model::sit::SiTConfig;
use crate::weights::{Rename, TensorView, compare, layout_in_order, snapshot};

/// A Hi-DiT of eleven blocks, so that the names of some are sorted otherwise than their numbers.
fn tiny() -> HiDiT {
    let sit = SiTConfig {
        input_size: 2,
        in_channels: 4,
        hidden_size: 32,
        depth: 11,
        num_heads: 2,
        num_classes: 3,
        ..SiTConfig::variant("S", 1).expect("a variant")
    };
    let config = HiDiTConfig { sit, image: 16, pixel_patch: 8, tau: 0.3, t_min: 0.05 };
    config.init(&Device::flex()).expect("it is valid")
}

/// The network's tensors under other names.
fn foreign(network: &HiDiT, name: impl Fn(&str) -> String) -> Weights {
    let tensors = snapshot(network).into_iter().map(|(old, view)| (name(&old), view)).collect();
    Weights { file: "x".into(), tensors, ..Weights::default() }
}

/// What a network needs that has these names in a checkpoint.
fn proposal(network: &HiDiT, weights: &Weights) -> Proposal {
    propose(&layout_in_order(network), weights)
}

/// Checks that a table makes the network's own tensors of a checkpoint.
fn restores(table: &str, weights: Weights, network: &HiDiT) {
    let mut table = Rename::parse(table, "t").expect("a table");
    let renamed = table.apply(weights).expect("every tensor has a name of its own");
    assert_eq!(table.note(), None);
    let report = compare(network, &renamed);
    assert!(report.fits() && report.unexpected.is_empty(), "{report}");
    for (name, view) in snapshot(network) {
        assert_eq!(renamed.tensors[&name].to_bytes(), view.to_bytes(), "{name}");
    }
}

#[test]
fn another_pixel_branch_gets_its_names() {
    let network = tiny();
    let weights = foreign(&network, |name| {
        name.replace("pixel_embedder.proj.", "pixel_branch.embed.")
            .replace("pixel_predictor.0.", "pixel_branch.head.conv1.")
            .replace("pixel_predictor.1.", "pixel_branch.head.conv2.")
    });
    let table = proposal(&network, &weights).to_string();
    let wanted = "pixel_branch.embed.* -> pixel_embedder.proj.*\n\
                  pixel_branch.head.conv1.* -> pixel_predictor.0.*\n\
                  pixel_branch.head.conv2.* -> pixel_predictor.1.*\n";
    assert_eq!(table, wanted);
    restores(&table, weights, &network);
}

#[test]
fn a_network_that_is_named_otherwise_throughout_gets_a_few_rules() {
    let network = tiny();
    let weights = foreign(&network, |name| {
        let name = name.replace("blocks.", "layers.").replace("mlp.fc1.", "ffn.up.");
        format!("net.{}", name.replace("mlp.fc2.", "ffn.down."))
    });
    let proposal = proposal(&network, &weights);
    assert!(proposal.ambiguous.is_empty() && proposal.absent.is_empty(), "{proposal}");
    let table = proposal.to_string();
    assert!(table.ends_with("net.layers.** -> blocks.**\nnet.** -> **\n"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    restores(&table, weights, &network);
}

/// Two biases that nothing but their order tells apart.
fn ambiguous(network: &HiDiT) -> Weights {
    foreign(network, |name| match name {
        "pixel_embedder.proj.bias" => "one".into(),
        "pixel_predictor.0.bias" => "two".into(),
        other => other.into(),
    })
}

#[test]
fn what_several_tensors_could_be_is_for_a_person_to_choose() {
    let network = tiny();
    let weights = ambiguous(&network);
    let proposal = proposal(&network, &weights);
    assert!(proposal.rules.is_empty() && !proposal.is_empty());
    let named: Vec<_> = proposal.ambiguous.iter().map(|a| (a.tensor.as_str(), a.more)).collect();
    assert_eq!(named, [("pixel_embedder.proj.bias", 0), ("pixel_predictor.0.bias", 0)]);
    for ambiguous in &proposal.ambiguous {
        assert_eq!((ambiguous.shape.as_slice(), ambiguous.candidates.len()), (&[32][..], 2));
    }
    let table = proposal.to_string();
    assert!(Rename::parse(&table, "t").expect("comments").is_empty(), "{table}");
    let chosen = table
        .replace("# one -> pixel_embedder", "one -> pixel_embedder")
        .replace("# two -> pixel_predictor", "two -> pixel_predictor");
    restores(&chosen, weights, &network);
}

#[test]
fn the_order_of_a_file_breaks_ties() {
    let network = tiny();
    for (places, [first, second]) in [([0, 1], ["one", "two"]), ([1, 0], ["two", "one"])] {
        let mut weights = ambiguous(&network);
        for (name, place) in ["one", "two"].into_iter().zip(places) {
            let view = weights.tensors[name].clone().at_place(place);
            weights.tensors.insert(name.into(), view);
        }
        let table = proposal(&network, &weights).to_string();
        let wanted = format!(
            "{first} -> pixel_embedder.proj.bias  # by order\n\
             {second} -> pixel_predictor.0.bias  # by order\n"
        );
        assert_eq!(table, wanted);
    }
}

/// A tensor keeps the name that nothing takes away, whatever its shape.
#[test]
fn a_tensor_of_another_shape_gives_its_name_up() {
    let network = tiny();
    let mut weights = foreign(&network, |name| match name {
        "pixel_embedder.proj.weight" => "pixels.weight".into(),
        other => other.into(),
    });
    let view = TensorView::from_f32(vec![7], &[0.0; 7]).expect("as many");
    weights.tensors.insert("pixel_embedder.proj.weight".into(), view);
    let table = proposal(&network, &weights).to_string();
    let wanted = "pixels.weight -> pixel_embedder.proj.weight\n\
                  pixel_embedder.proj.weight ->  # another one gets its name\n";
    assert_eq!(table, wanted);
    restores(&table, weights, &network);
}

#[test]
fn blocks_that_are_ambiguous_are_told_once() {
    let tensor = |name: &str, size: usize| (name.to_string(), vec![size]);
    let network = [tensor("blocks.2.a", 8), tensor("blocks.10.a", 8), tensor("head", 3)];
    let names = ["layers.2.x", "layers.10.x", "layers.2.y", "layers.10.y"];
    let view = TensorView::from_f32(vec![8], &[0.0; 8]).expect("as many");
    let tensors = names.iter().map(|name| (name.to_string(), view.clone())).collect();
    let weights = Weights { file: "x".into(), tensors, ..Weights::default() };
    let wanted = "# blocks.*.a [8] could be any of these; take the # from the right one\n\
                  # layers.*.x -> blocks.*.a\n\
                  # layers.*.y -> blocks.*.a\n\
                  # head [3] is not there\n";
    assert_eq!(propose(&network, &weights).to_string(), wanted);
}

#[test]
fn what_is_not_there_is_told() {
    let network = tiny();
    let mut weights = foreign(&network, |name| name.to_string());
    assert_eq!(proposal(&network, &weights), Proposal::default());
    weights.tensors.retain(|name, _| !name.ends_with("attn.qkv.bias") && name != "pos_embed");
    let proposal = proposal(&network, &weights);
    assert!(proposal.is_empty());
    let told: Vec<String> = proposal.absent.iter().map(Absent::to_string).collect();
    let wanted = [
        "pos_embed [1, 4, 32] is not there",
        "blocks.*.attn.qkv.bias [96] is not there, 11 tensors",
    ];
    assert_eq!(told, wanted);
}

#[test]
fn networks_are_told_apart_by_their_shapes() {
    let network = tiny();
    let weights = foreign(&network, |name| format!("net.{name}"));
    let layout = layout_in_order(&network);
    assert_eq!(shared_shapes(&layout, &weights), 1.0);
    let own = shared_shapes(&layout_in_order(&network.sit), &weights);
    assert!((0.9..1.0).contains(&own), "{own}");
    assert_eq!(shared_shapes(&layout, &Weights::default()), 0.0);
    assert_eq!(shared_shapes(&[], &Weights::default()), 0.0);
}
