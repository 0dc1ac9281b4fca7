//! Where compiled kernels and the results of tuning are kept between runs, and who says so.

/// Keeps what GPUs' drivers compiled, and which variants of Burn's kernels were found to be the
/// fastest, in the user's cache folder, so that a second run starts at full speed. To be called
/// before the first device is used.
///
/// What else Burn and CubeCL let one configure is left to their environment variables. By themselves
/// they would also obey a `burn.toml` or `cubecl.toml` in the working directory or above it, which may
/// be a stranger's: it can have logs written over any file. On the web there is nothing to keep.
pub fn keep_compiled_kernels() {
    #[cfg(all(feature = "gpu", not(target_family = "wasm")))]
    {
        use cubecl::config::cache::CacheConfig;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        let mut config = CubeClRuntimeConfig::default().override_from_env();
        config.compilation.cache = true;
        // CubeCL's own default is the `target` folder of a Rust project around the working directory.
        config.environment.path = CacheConfig::Global;
        CubeClRuntimeConfig::try_set(config);
    }
    // Gradients and fusion write logs, and on the processor alone, too.
    #[cfg(all(any(feature = "autodiff", feature = "fusion"), not(target_family = "wasm")))]
    {
        use burn_std::config::{BurnConfig, RuntimeConfig};

        BurnConfig::try_set(BurnConfig::default().override_from_env());
    }
}
