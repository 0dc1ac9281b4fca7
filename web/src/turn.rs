//! Letting the worker hear its messages while it computes.

use js_sys::{Function, Promise};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(then: &Function, milliseconds: i32) -> i32;
}

/// Comes back after the events that are waiting. What the processor computes is ready at once, so
/// without this a run would be one long task that no message, not even "cancel", could reach.
pub async fn others_first() {
    let promise = Promise::new(&mut |resolve: Function, _| {
        set_timeout(&resolve, 0);
    });
    // A timer cannot fail.
    let _ = JsFuture::from(promise).await;
}
