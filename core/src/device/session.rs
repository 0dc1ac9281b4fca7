//! Machines without a desktop session: servers, containers, a shell over SSH.

use std::path::Path;

/// Leaves out Mesa's device-select layer where there is no desktop session.
///
/// The layer asks the Wayland compositor for its GPU each time that Vulkan's GPUs are listed. Without
/// `XDG_RUNTIME_DIR` the Wayland library prints `error: XDG_RUNTIME_DIR is invalid or not set in the
/// environment.` and there is no compositor to ask. A layer that the user configures
/// (`MESA_VK_DEVICE_SELECT`) stays.
///
/// # Safety
///
/// Sets an environment variable: no other thread may run yet. A program calls this first.
pub unsafe fn leave_out_device_selection() {
    let directory = std::env::var_os("XDG_RUNTIME_DIR");
    let session = directory.is_some_and(|directory| Path::new(&directory).is_absolute());
    let is_set = |name| std::env::var_os(name).is_some();
    if !session && !is_set("MESA_VK_DEVICE_SELECT") && !is_set("NODEVICE_SELECT") {
        // SAFETY: the caller says that this is the only thread.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
