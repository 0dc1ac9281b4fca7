//! Tar archives of images, and of archives.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz::container::with_checksums;
use tintype_fuzz::{source, with_file};

fuzz_target!(|data: &[u8]| with_file(&with_checksums(data), "x.tar", source::read));
