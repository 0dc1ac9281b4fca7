//! The `tintype` program; see [`tintype_trainer::cli`].
#![recursion_limit = "256"]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(all(feature = "wgpu", target_os = "linux"))]
    // SAFETY: nothing has started a thread yet.
    unsafe {
        tintype::device::session::leave_out_device_selection();
    }
    tintype_trainer::cli::main()
}
