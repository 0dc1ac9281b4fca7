//! Training configurations.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tintype_fuzz as _;
use tintype_trainer::train::config::Config;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(mut config) = Config::parse(text) else { return };
    assert!(config.whole().is_ok() && config.recorded().is_ok());
    assert!(config.is_due(config.run().steps));
    config.evaluates_at(7);
    config.set_steps(1);
});
