//! The library's errors in a page's words: fields of a request instead of command-line options.

const NAMES: [(&str, &str); 13] = [
    ("pass the configuration with --config", "give its configuration as `config`"),
    ("pass it with --config", "give it as `config`"),
    ("pass it with --vae", "give it as `vae`"),
    ("pass its file with --vae", "give its file as `vae`"),
    ("pass latents_stats.pt with --stats", "give latents_stats.pt as `stats`"),
    ("; `tintype classes` lists them", ""),
    ("--cfg-interval", "cfgInterval"),
    ("--cfg-channels", "cfgChannels"),
    ("--precision", "precision"),
    ("--sampler", "sampler"),
    ("--count", "count"),
    ("--cfg", "cfg"),
    ("--", ""),
];

/// A sentence of the library without command-line options.
pub fn plain(sentence: &str) -> String {
    NAMES.iter().fold(sentence.into(), |text: String, (option, name)| text.replace(option, name))
}
