//! Who is told what happens, as one type: a run, its samplers and its networks are compiled once, here, and
//! not again for every closure that a program passes in.

use std::pin::Pin;

use super::Event;
use crate::sampler::Stop;

/// A future of this thread.
pub(super) type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Every async closure that takes events.
pub(super) trait Observer {
    fn tell<'a>(&'a mut self, event: Event<'a>) -> Local<'a, Result<(), Stop>>;
}

impl<F: AsyncFnMut(Event<'_>) -> Result<(), Stop>> Observer for F {
    fn tell<'a>(&'a mut self, event: Event<'a>) -> Local<'a, Result<(), Stop>> {
        Box::pin(self(event))
    }
}
