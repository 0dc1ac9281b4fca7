//! Zip archives of images.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz::{source, with_file};

fuzz_target!(|data: &[u8]| with_file(data, "x.zip", source::read));
