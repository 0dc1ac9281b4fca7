//! Values on their way from a device: asked for at once, waited for when they are needed, so that the device works on
//! meanwhile.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use anyhow::{Result, anyhow};
use tintype::burn::tensor::Tensor;
use tintype::shaders::read_back;

/// A tensor that is being read back.
pub struct Readback(State);

enum State {
    Coming(Pin<Box<dyn Future<Output = Result<Vec<f32>, String>>>>),
    Here(Result<Vec<f32>, String>),
}

impl fmt::Debug for Readback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readback")
    }
}

impl Readback {
    /// Asks the device for a tensor, behind the work that it has already been given.
    ///
    /// # Shapes
    ///
    /// * `tensor`: `[n]`, float32
    pub fn begin(tensor: Tensor<1>) -> Self {
        let mut coming: Pin<Box<dyn Future<Output = _>>> = Box::pin(read_back(tensor));
        // A future does nothing before it is polled: this sends the request.
        match coming.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(values) => Self(State::Here(values)),
            Poll::Pending => Self(State::Coming(coming)),
        }
    }

    /// Waits for the values.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn wait(self) -> Result<Vec<f32>> {
        let values = match self.0 {
            State::Here(values) => values,
            State::Coming(coming) => pollster::block_on(coming),
        };
        values.map_err(|error| anyhow!("the device failed: {error}"))
    }
}
