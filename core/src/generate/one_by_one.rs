//! Adaptive samplers choose their steps by the error of the state that they are given. They are given one image
//! at a time, so that none depends on the others of its batch.

use burn::tensor::Tensor;

use super::observer::{Local, Observer};
use super::{Event, Preview};
use crate::sampler::{State, Stop};

/// Shows the whole batch while its images are made one after the other.
pub(super) struct OneByOne<'a> {
    observer: &'a mut dyn Observer,
    /// Images of the batch.
    count: usize,
    /// Those that are made, `[1, C, H, W]` each.
    made: Vec<State>,
    /// Steps that were told of.
    steps: usize,
}

impl<'a> OneByOne<'a> {
    pub(super) fn new(observer: &'a mut dyn Observer, count: usize) -> Self {
        Self { observer, count, made: Vec::with_capacity(count), steps: 0 }
    }

    /// An image is made, `[1, C, H, W]`.
    pub(super) fn add(&mut self, image: State) {
        self.made.push(image);
    }

    /// All that are made, `[B, C, H, W]`.
    pub(super) fn all(self) -> State {
        Tensor::cat(self.made, 0)
    }

    /// The batch with a clean estimate of the image in hand; those to come are 0, the mean of all images.
    ///
    /// `[1, C, H, W]` → `[B, C, H, W]`
    fn whole(&self, clean: &State) -> State {
        let to_come = self.count.saturating_sub(self.made.len() + 1);
        let mut images = self.made.clone();
        images.push(clean.clone());
        images.extend((0..to_come).map(|_| clean.zeros_like()));
        Tensor::cat(images, 0)
    }
}

impl Observer for OneByOne<'_> {
    fn tell<'a>(&'a mut self, event: Event<'a>) -> Local<'a, Result<(), Stop>> {
        Box::pin(async move {
            match event {
                Event::Step { time, preview, .. } => {
                    let (index, clean) = (self.steps, self.whole(preview.clean));
                    self.steps += 1;
                    let preview = Preview { clean: &clean, pixels: None };
                    self.observer.tell(Event::Step { index, total: None, time, preview }).await
                }
                other => self.observer.tell(other).await,
            }
        })
    }
}
