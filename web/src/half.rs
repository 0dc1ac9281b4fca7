//! The second half of guidance on its way between two workers: plain objects that JavaScript can send.

use js_sys::{Array, Float32Array, Int32Array, Object, Promise, Reflect, Uint32Array};
use tintype::generate::{Answer, Half, Rows};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// Sends a half to the second worker, from `web/engine/worker.ts`; `None` if none is ready.
    #[wasm_bindgen(js_namespace = globalThis, js_name = tintypeSecondHalf)]
    fn send(half: &JsValue) -> Option<Promise>;

    /// `{ streams, times, labels, gate }`
    pub type HalfObject;
    #[wasm_bindgen(method, getter)]
    fn streams(this: &HalfObject) -> Array;
    #[wasm_bindgen(method, getter)]
    fn times(this: &HalfObject) -> Vec<f32>;
    #[wasm_bindgen(method, getter)]
    fn labels(this: &HalfObject) -> Vec<i32>;
    #[wasm_bindgen(method, getter)]
    fn gate(this: &HalfObject) -> Option<f64>;

    /// `{ shape, values }`
    type RowsObject;
    #[wasm_bindgen(method, getter)]
    fn shape(this: &RowsObject) -> Vec<u32>;
    #[wasm_bindgen(method, getter)]
    fn values(this: &RowsObject) -> Vec<f32>;
}

/// Has the second worker begin with a half, where there is one.
pub fn ask(half: Half) -> Option<Answer> {
    let promise = send(&object(&[
        ("streams", to_array(&half.streams).into()),
        ("times", Float32Array::from(&half.times[..]).into()),
        ("labels", Int32Array::from(&half.labels[..]).into()),
        ("gate", half.gate.into()),
    ]))?;
    Some(Box::pin(async move {
        // Null where the second worker failed.
        let results: Array = JsFuture::from(promise).await.ok()?.dyn_into().ok()?;
        from_array(&results)
    }))
}

/// What the first worker sent; `None` where a tensor is not one of four axes.
pub fn half(object: &HalfObject) -> Option<Half> {
    Some(Half {
        streams: from_array(&object.streams())?,
        times: object.times(),
        labels: object.labels(),
        gate: object.gate(),
    })
}

/// A list of `{ shape, values }`.
pub fn to_array(all: &[Rows]) -> Array {
    let rows = |rows: &Rows| {
        let shape = rows.shape.map(|size| size as u32);
        object(&[
            ("shape", Uint32Array::from(&shape[..]).into()),
            ("values", Float32Array::from(&rows.values[..]).into()),
        ])
    };
    all.iter().map(rows).collect()
}

fn from_array(all: &Array) -> Option<Vec<Rows>> {
    let rows = |object: JsValue| {
        let object: RowsObject = object.unchecked_into();
        let shape: Vec<usize> = object.shape().into_iter().map(|size| size as usize).collect();
        Some(Rows { shape: shape.try_into().ok()?, values: object.values() })
    };
    all.iter().map(rows).collect()
}

fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (key, value) in fields {
        // A new object takes every property.
        let _ = Reflect::set(&object, &(*key).into(), value);
    }
    object.into()
}
