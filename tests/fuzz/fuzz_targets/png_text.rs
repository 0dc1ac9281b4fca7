//! The settings in a generated picture, for `generate --from`: a PNG, and a text alone, which gets a
//! picture around it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype::generate::Origin;
use tintype::image::{Rgb, png_text};
use tintype::preset;
use tintype_fuzz::with_file;

fn read(png: &[u8]) {
    for key in ["tintype", "Software"] {
        let _ = png_text(png, key);
    }
    let Ok(origin) = Origin::read(png) else { return };
    let stem = origin.file_stem();
    assert!(!stem.is_empty() && stem.len() < 200, "{stem}");
    // What is a name to the program is one to the system.
    with_file(&[], &stem, |path| std::fs::remove_file(path)).expect("it is there");
    for preset in ["hdit-cifar10", "hidit-xl-1-256", "imf-b-2"].into_iter().filter_map(preset::find)
    {
        let _ = origin.settings.validate(&preset.architecture);
    }
    let again = origin.to_png(&Rgb::white(1, 1)).expect("a picture takes it");
    assert_eq!(Origin::read(&again).expect("it is read again"), origin);
}

fuzz_target!(|data: &[u8]| {
    match std::str::from_utf8(data) {
        Ok(text) => {
            if let Ok(png) = Rgb::white(1, 1).to_png(&[("tintype", text)]) {
                read(&png);
            }
        }
        Err(_) => read(data),
    }
});
