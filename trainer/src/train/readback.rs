//! Values on their way from a device: asked for at once, waited for when they are needed, so that the device works on
//! meanwhile.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tintype::burn::tensor::{Tensor, TensorData};

/// A tensor that is being read back.
pub struct Readback(State);

enum State {
    Coming(Pin<Box<dyn Future<Output = TensorData>>>),
    Here(TensorData),
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
    /// * `tensor`: `[n]`
    ///
    /// # Panics
    ///
    /// If the device fails.
    pub fn begin(tensor: Tensor<1>) -> Self {
        let mut coming: Pin<Box<dyn Future<Output = TensorData>>> =
            Box::pin(async move { tensor.into_data_async().await.expect("the device works") });
        // A future does nothing before it is polled: this sends the request.
        match coming.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Self(State::Here(data)),
            Poll::Pending => Self(State::Coming(coming)),
        }
    }

    /// Waits for the values.
    ///
    /// # Panics
    ///
    /// If the device fails.
    pub fn wait(self) -> Vec<f32> {
        let data = match self.0 {
            State::Here(data) => data,
            State::Coming(coming) => pollster::block_on(coming),
        };
        data.convert::<f32>().iter::<f32>().collect()
    }
}
