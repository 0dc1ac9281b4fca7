//! The library's errors in the words of this window: buttons instead of options.

use std::any::Any;

use tintype::generate::{LoadError, bytes};

/// What the library's options are called here.
const NAMES: [(&str, &str); 14] = [
    ("`--device auto` takes what there is", "“automatic” takes what there is"),
    ("build it again with", "it is built with"),
    ("pass the configuration with --config", "open its “Configuration…” too"),
    ("pass it with --config", "open it with “Configuration…”"),
    ("pass it with --vae", "open it with “Autoencoder…”"),
    ("pass one with --model", "open one with “Model…”"),
    ("--cfg-interval", "the guidance interval"),
    ("--cfg-channels", "the guided channels"),
    ("--precision ", ""),
    ("--sampler ", ""),
    ("--cfg", "guidance"),
    ("--steps", "steps"),
    ("--shift", "the time shift"),
    ("--tau", "the gate τ"),
];

/// A sentence of the library without command-line options.
pub fn plain(sentence: &str) -> String {
    NAMES.iter().fold(sentence.into(), |text: String, (option, name)| text.replace(option, name))
}

/// Why a model was not loaded, and what to do.
pub fn load_error(error: &LoadError) -> String {
    match error {
        LoadError::NoVae(network) => format!(
            "{network} makes latents and needs the autoencoder that turns them into pictures. \
             Open it with “Autoencoder…” or drop its file on the window."
        ),
        LoadError::NoStats => "LightningDiT needs the statistics of its latents \
             (latents_stats.pt). Open them with “Statistics…” or drop the file on the window."
            .into(),
        LoadError::Memory { needed, free, .. } => format!(
            "This model needs {} of memory and the device has {}. Choose another device, f16, or a \
             smaller model; closing other programs helps, too.",
            bytes(*needed),
            bytes(*free)
        ),
        LoadError::Strangers(what) => {
            format!("These files do not belong together: {what}. Open the model's own.")
        }
        other => plain(&other.to_string()),
    }
}

/// A device that gave up.
pub fn failed_device(reason: &str) -> String {
    format!(
        "The device stopped working ({reason}). Choose another device under “Device”; the processor \
         always works."
    )
}

/// The first line of what a panic says.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
    let text = text.unwrap_or_else(|| "for an unknown reason".into());
    text.lines().next().unwrap_or_default().to_string()
}

/// A class by its first synonym.
pub fn short(class_name: &str) -> &str {
    class_name.split(',').next().unwrap_or_default().trim()
}

/// A duration for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_of_the_command_line_is_left() {
        let errors = [
            LoadError::NoVae("Hi-DiT"),
            LoadError::NoStats,
            LoadError::Memory { file: "x.pt".into(), needed: 3 << 30, free: 1 << 20 },
            LoadError::Strangers("4 channels and 32".into()),
            LoadError::NotEmbedded,
        ];
        for error in &errors {
            let text = load_error(error);
            assert!(!text.contains("--"), "{text}");
        }
        let shown = plain("x.pt: it is an autoencoder; pass it with --vae");
        assert_eq!(shown, "x.pt: it is an autoencoder; open it with “Autoencoder…”");
    }
}
