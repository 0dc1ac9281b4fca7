//! From a request to its images.

use super::hybrid::Made;
use super::observer::{Local, Observer};
use super::pipeline::Pipeline;
use super::request::Request;
use super::{Event, GenerateError, Picture, hybrid, mean_flow, run};
use crate::sampler::Stop;

impl Pipeline {
    /// Generates the images of a request and reports events; `on_event` may cancel.
    ///
    /// The images of a request are one batch; split a large one to reduce memory. An image does not
    /// depend on the others of its batch: adaptive samplers
    /// ([`Sampler::is_adaptive`](crate::settings::Sampler::is_adaptive)), which choose steps by the error of an
    /// image, make them one after the other. Outside a browser, reading the device blocks the thread that
    /// awaits this.
    ///
    /// # Errors
    ///
    /// * [`GenerateError::Request`] where a setting is out of range or does not apply to the
    ///   network, a class does not exist, or no picture is asked for
    /// * [`GenerateError::NotFinite`] where the network computes NaN or an infinite value
    /// * [`GenerateError::Stopped`] where `on_event` stops it or the device fails
    pub async fn generate(
        &self,
        request: &Request,
        on_event: &mut impl AsyncFnMut(Event<'_>) -> Result<(), Stop>,
    ) -> Result<(), GenerateError> {
        self.observed(request, on_event).await
    }

    /// A run as one boxed future, so that it is compiled in this crate.
    fn observed<'a>(
        &'a self,
        request: &'a Request,
        observer: &'a mut dyn Observer,
    ) -> Local<'a, Result<(), GenerateError>> {
        Box::pin(self.run(request, observer))
    }

    async fn run(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        match self.make(request, observer).await {
            Err(GenerateError::Stopped(Stop::NotFinite)) => Err(self.not_finite()),
            result => result,
        }
    }

    async fn make(
        &self,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        request.validate_with(&self.architecture, self.guide())?;
        let Made { image, latent, evaluations } = match self.network.hybrid() {
            Some(network) => hybrid::generate(self, network, request, observer).await?,
            None => {
                let (state, evaluations) = match self.network.mean_flow() {
                    Some(network) => {
                        let state = mean_flow::generate(self, network, request, observer).await?;
                        (state, vec![request.settings.steps; request.images.len()])
                    }
                    None => run::generate(self, request, observer).await?,
                };
                let image = match self.latent_channels() {
                    Some(_) => self.decode(state),
                    None => state,
                };
                Made { image, latent: None, evaluations }
            }
        };
        let images = self.pictures(image).await?;
        let mut latents = match latent {
            Some(latent) => self.pictures(latent).await?.into_iter().map(Some).collect(),
            None => vec![None; images.len()],
        };
        for (index, image) in images.into_iter().enumerate() {
            let latent = latents[index].take();
            let (spec, evaluations) = (request.images[index], evaluations[index]);
            let picture = Picture { index, spec, image, latent, evaluations };
            observer.tell(Event::Image(picture)).await?;
        }
        Ok(())
    }
}
