//! The table of the README.

use tintype::catalogue::{Catalogue, Entry, Kind};

/// Parameters in millions; a round number as the authors round it.
pub fn millions(parameters: usize) -> String {
    match parameters % 1_000_000 {
        0 => format!("{} M", parameters / 1_000_000),
        _ => format!("{:.1} M", parameters as f64 / 1e6),
    }
}

/// Networks as a Markdown table.
pub fn markdown(catalogue: &Catalogue, entries: &[&Entry]) -> String {
    let mut text = String::from(
        "| `--model` | images | parameters | download | published FID: guided, without | licence |\n\
         |---|---|---|---|---|---|\n",
    );
    let is_there = |entry: &&&Entry| entry.kind == Kind::Network && entry.is_supported();
    for entry in entries.iter().filter(is_there) {
        let classes = if entry.classes == Some(1000) { "ImageNet, " } else { "" };
        let images = entry.image_size.map_or("?".into(), |side| format!("{classes}{side}²"));
        let parameters = entry.parameters().map_or("?".into(), millions);
        let fid = |guided| entry.result(guided).map_or("-".into(), |r| r.fid.to_string());
        let fids = match (fid(true), fid(false)) {
            (guided, plain) if guided == "-" && plain == "-" => "-".into(),
            (guided, plain) => format!("{guided}, {plain}"),
        };
        let download = if entry.files.is_empty() {
            "by hand".into()
        } else {
            catalogue.size(entry).to_string()
        };
        text.push_str(&format!(
            "| `{}` | {images} | {parameters} | {download} | {fids} | {} |\n",
            entry.name,
            entry.licence.summary()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_table() {
        let catalogue = Catalogue::built_in();
        let entries: Vec<&Entry> = catalogue.entries().iter().collect();
        let table = markdown(catalogue, &entries);
        let readme = include_str!("../../../../README.md").replace("\r\n", "\n");
        assert!(readme.contains(&table), "put this into README.md:\n{table}");
        let weights = include_str!("../../../../docs/weights.md");
        let evaluation = include_str!("../../../../docs/evaluation.md");
        for text in [&readme, weights, evaluation] {
            for wrong in ["e2e-vavae.pt", "vavae-imagenet256-f16d32.pt"] {
                assert!(!text.contains(wrong), "{wrong}");
            }
        }
    }
}
