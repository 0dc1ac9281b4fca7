//! Tables that no checkpoint holds, computed on the host once for each device: an upload at every step would be one
//! more thing to wait for, and none can be recorded.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

/// Tables by their devices and by what they are of.
pub(crate) type Kept<K, T> = Mutex<Vec<(Device, K, T)>>;

/// The table of a key on a device. A tensor that gradients are tracked through belongs to one way of tracking, so for
/// training it is made anew.
pub(crate) fn kept<K: PartialEq, T: Clone>(
    tables: &Kept<K, T>,
    device: &Device,
    key: K,
    make: impl FnOnce() -> T,
) -> T {
    if device.is_autodiff() {
        return make();
    }
    let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., table)) = tables.iter().find(|(on, of, _)| on == device && *of == key) {
        return table.clone();
    }
    let table = make();
    tables.push((device.clone(), key, table.clone()));
    table
}
