//! Where compiled kernels and the results of tuning are kept between runs.

/// Keeps what GPUs' drivers compiled, and which variants of Burn's kernels were found to be the
/// fastest, in the user's cache folder, so that a second run starts at full speed. To be called
/// before the first device is used; a `cubecl.toml` in the working directory or above it that names
/// another place is followed. On the web and without GPUs there is nothing to keep.
pub fn keep_compiled_kernels() {
    #[cfg(all(feature = "gpu", not(target_family = "wasm")))]
    {
        use cubecl::config::cache::CacheConfig;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache = true;
        // CubeCL's own default is the `target` folder of a Rust project around the working directory.
        if let CacheConfig::Target = config.environment.path {
            config.environment.path = CacheConfig::Global;
        }
        CubeClRuntimeConfig::try_set(config);
    }
}
