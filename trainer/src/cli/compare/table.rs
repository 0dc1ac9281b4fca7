//! What was measured, in words: a table, the captions of a picture, and JSON.

use serde_json::{Value, json};
use tintype::generate::bytes;
use tintype::labels::printable;

use super::candidate::Asked;
use super::measure::Measured;

/// Lines of a caption at most.
pub const LINES: usize = 9;

/// Columns of the table; those of words are left-aligned, those of numbers right-aligned.
const COLUMNS: [(&str, bool); 12] = [
    ("model", true),
    ("parameters", false),
    ("image", false),
    ("sampler", true),
    ("steps", false),
    ("cfg", true),
    ("NFE", false),
    ("s/image", false),
    ("load s", false),
    ("memory", false),
    ("peak RAM", false),
    ("other settings", true),
];

impl Measured {
    /// Evaluations of an image; of several that differ, the least and the most.
    fn evaluations(&self) -> String {
        let of_images = || self.pictures.iter().map(|picture| picture.evaluations);
        match (of_images().min(), of_images().max()) {
            (Some(least), Some(most)) if least < most => format!("{least}-{most}"),
            (least, _) => least.unwrap_or(0).to_string(),
        }
    }

    /// Seconds of an image, where a batch shares them.
    fn seconds_per_image(&self) -> f64 {
        self.seconds / self.pictures.len().max(1) as f64
    }

    fn peak(&self) -> String {
        self.peak.map_or("-".into(), bytes)
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let model = &self.model;
        [
            printable(&model.name),
            model.parameters(),
            model.size(),
            model.settings.sampler.name().into(),
            model.steps(),
            model.guidance(),
            self.evaluations(),
            seconds(self.seconds_per_image()),
            seconds(self.load_seconds),
            model.memory(),
            self.peak(),
            model.others(),
        ]
    }

    /// What stands beside its pictures.
    pub fn caption(&self) -> Vec<String> {
        let model = &self.model;
        let steps = model.steps();
        let unit = if steps == "1" { "step" } else { "steps" };
        let lines: [String; LINES] = [
            model.name.clone(),
            format!("{}, {} parameters", model.architecture.name(), model.parameters()),
            format!("{} pixels", model.size()),
            format!("{}, {steps} {unit}", model.settings.sampler.name()),
            format!("cfg {}", model.guidance()),
            model.others(),
            format!("NFE {}", self.evaluations()),
            format!("{} s/image", seconds(self.seconds_per_image())),
            format!("{} of memory", model.memory()),
        ];
        lines.into_iter().filter(|line| !line.is_empty()).collect()
    }

    /// All of it for programs. `origin` is what `generate` would write into the first picture; the others differ from
    /// it by what `images` says.
    pub fn json(&self, asked: &Asked<'_>) -> Value {
        let model = &self.model;
        let images: Vec<Value> = self
            .pictures
            .iter()
            .map(|picture| {
                let spec = picture.spec;
                json!({"class": spec.class, "seed": spec.seed, "evaluations": picture.evaluations})
            })
            .collect();
        let origin = self.pictures.first().map(|picture| model.origin(picture.spec, asked));
        json!({
            "name": model.name,
            "model": model.file,
            "network": model.architecture.name(),
            "parameters": model.parameters,
            "image_size": model.image_size,
            "seconds": self.seconds,
            "seconds_per_image": self.seconds_per_image(),
            "load_seconds": self.load_seconds,
            "memory": model.memory,
            "peak_memory": self.peak,
            "origin": origin,
            "images": images,
        })
    }
}

/// Seconds with three digits or so.
fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.3}"),
        s if s < 10.0 => format!("{s:.2}"),
        s => format!("{s:.1}"),
    }
}

/// The lines of the table, with its head.
pub fn table(rows: &[Measured]) -> Vec<String> {
    let head = COLUMNS.map(|(name, _)| name.to_string());
    aligned(&std::iter::once(head).chain(rows.iter().map(Measured::cells)).collect::<Vec<_>>())
}

fn aligned(rows: &[[String; COLUMNS.len()]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let line = |row: &[String; COLUMNS.len()]| {
        let cells = row.iter().zip(&widths).zip(COLUMNS).map(|((cell, &width), (_, is_left))| {
            if is_left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut cells: [String; COLUMNS.len()] = Default::default();
        cells[0] = "lightningdit".into();
        cells[2] = "16x16".into();
        cells[6] = "1234".into();
        cells[9] = "3.0 GiB".into();
        let head = COLUMNS.map(|(name, _)| name.to_string());
        let lines = aligned(&[head, cells]);
        assert_eq!(
            lines,
            [
                "model         parameters  image  sampler  steps  cfg   NFE  s/image  load s   memory  peak RAM  other settings",
                "lightningdit              16x16                       1234                   3.0 GiB",
            ]
        );
    }

    #[test]
    fn seconds_have_three_digits() {
        let of = [0.04567, 1.0, 9.876, 12.345, 250.0].map(seconds);
        assert_eq!(of, ["0.046", "1.00", "9.88", "12.3", "250.0"]);
    }
}
