//! What waits to be made. One job is with the engine, the others can still be moved and removed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tintype::generate::{ImageSpec, Settings};

use crate::engine::{Choice, Work};

/// Pictures that were asked for together.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// What people call it: the classes by name.
    pub name: String,
    /// What makes the pictures.
    pub choice: Choice,
    /// How.
    pub settings: Settings,
    /// Which.
    pub images: Vec<ImageSpec>,
    /// How many of them are finished.
    pub done: usize,
    cancelled: Arc<AtomicBool>,
}

/// Jobs in the order in which they are made.
#[derive(Debug, Default)]
pub struct Queue {
    running: Option<Job>,
    waiting: VecDeque<Job>,
    /// Where pictures are saved.
    folder: Arc<Mutex<PathBuf>>,
    last_id: u64,
}

impl Queue {
    /// Adds a job at the end; returns its number.
    pub fn add(
        &mut self,
        name: String,
        choice: Choice,
        settings: Settings,
        images: Vec<ImageSpec>,
    ) -> u64 {
        let cancelled = Arc::default();
        let id = self.number();
        self.waiting.push_back(Job { id, name, choice, settings, images, done: 0, cancelled });
        id
    }

    /// The number of a new job, also of one that does not wait here.
    pub fn number(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The job that the engine works on.
    pub fn running(&self) -> Option<&Job> {
        self.running.as_ref()
    }

    /// The others, the next one first.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.waiting.iter()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Takes the next job, if none runs. The one that runs goes on in this folder, too.
    pub fn next(&mut self, folder: &Path) -> Option<Work> {
        let mut shared = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if *shared != folder {
            *shared = folder.into();
        }
        drop(shared);
        if self.running.is_some() {
            return None;
        }
        let job = self.waiting.pop_front()?;
        let work = Work {
            job: job.id,
            choice: job.choice.clone(),
            settings: job.settings,
            images: job.images.clone(),
            folder: Some(self.folder.clone()),
            cancelled: job.cancelled.clone(),
        };
        self.running = Some(job);
        Some(work)
    }

    /// Notes that the running job has one more picture.
    pub fn picture(&mut self, id: u64) {
        if let Some(job) = self.running.as_mut().filter(|job| job.id == id) {
            job.done += 1;
        }
    }

    /// Notes that a job came to its end, and returns it.
    pub fn end(&mut self, id: u64) -> Option<Job> {
        self.running.take_if(|job| job.id == id)
    }

    /// Puts what a job did not finish in front of the queue, for another device, unless it was cancelled. Those that
    /// wait for the same device go there, too.
    pub fn again(&mut self, mut job: Job, device: &str) {
        for other in &mut self.waiting {
            if other.choice.device == job.choice.device {
                other.choice.device = device.into();
            }
        }
        job.images.drain(..job.done.min(job.images.len()));
        job.done = 0;
        job.choice.device = device.into();
        if !job.images.is_empty() && !job.cancelled.load(Ordering::Relaxed) {
            self.waiting.push_front(job);
        }
    }

    /// Removes a waiting job, or stops the running one after the step in hand.
    pub fn cancel(&mut self, id: u64) {
        match &self.running {
            Some(job) if job.id == id => job.cancelled.store(true, Ordering::Relaxed),
            _ => self.waiting.retain(|job| job.id != id),
        }
    }

    /// Everything at once.
    pub fn cancel_all(&mut self) {
        self.waiting.clear();
        if let Some(job) = &self.running {
            job.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a job was told to stop.
    pub fn is_cancelled(&self, id: u64) -> bool {
        let running = self.running.as_ref().filter(|job| job.id == id);
        running.is_some_and(|job| job.cancelled.load(Ordering::Relaxed))
    }

    /// Moves a waiting job towards the front (−1) or the end (1).
    pub fn shift(&mut self, id: u64, by: isize) {
        if let Some(at) = self.waiting.iter().position(|job| job.id == id) {
            let to = at.saturating_add_signed(by).min(self.waiting.len() - 1);
            self.waiting.swap(at, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let config = serde_json::json!({
            "sampler": "euler", "steps": 2,
            "guidance": {"scale": 1.0, "low": 0.0, "high": 1.0, "channels": null},
        });
        serde_json::from_value(config).expect("settings")
    }

    fn queue_of(names: &[&str]) -> Queue {
        let mut queue = Queue::default();
        for (seed, name) in names.iter().enumerate() {
            let spec = ImageSpec::new(Some(1), seed as u64, 0);
            queue.add(name.to_string(), Choice::default(), settings(), vec![spec; 2]);
        }
        queue
    }

    fn names(queue: &Queue) -> Vec<&str> {
        queue.waiting().map(|job| job.name.as_str()).collect()
    }

    #[test]
    fn jobs_run_in_order_one_at_a_time() {
        let mut queue = queue_of(&["a", "b"]);
        let work = queue.next(Path::new("out")).expect("work");
        assert!(queue.next(Path::new("other")).is_none(), "one at a time");
        let folder = work.folder.as_ref().expect("it is saved").lock().expect("it is free").clone();
        assert_eq!(folder, Path::new("other"), "it was chosen meanwhile");
        assert_eq!((names(&queue), work.images.len()), (vec!["b"], 2));
        assert!(queue.end(99).is_none());
        assert_eq!(queue.end(work.job).map(|job| job.name), Some("a".into()));
        assert!(queue.next(Path::new("out")).is_some());
        assert!(!queue.is_empty());
    }

    #[test]
    fn waiting_jobs_move_and_go() {
        let mut queue = queue_of(&["a", "b", "c"]);
        let ids: Vec<u64> = queue.waiting().map(|job| job.id).collect();
        queue.shift(ids[2], -1);
        assert_eq!(names(&queue), ["a", "c", "b"]);
        queue.shift(ids[0], -1);
        queue.shift(ids[1], 1);
        assert_eq!(names(&queue), ["a", "c", "b"]);
        queue.cancel(ids[2]);
        assert_eq!(names(&queue), ["a", "b"]);
    }

    #[test]
    fn the_running_job_is_told_to_stop() {
        let mut queue = queue_of(&["a", "b"]);
        let work = queue.next(Path::new("out")).expect("work");
        queue.cancel(work.job);
        assert!(work.cancelled.load(Ordering::Relaxed) && queue.is_cancelled(work.job));
        queue.cancel_all();
        assert!(queue.waiting().next().is_none());
    }

    #[test]
    fn what_a_lost_device_left_is_made_elsewhere() {
        let mut queue = queue_of(&["a", "b"]);
        let other = Choice { device: "wgpu:1".into(), ..Choice::default() };
        let spec = ImageSpec::new(Some(1), 9, 0);
        queue.add("c".into(), other, settings(), vec![spec]);
        let work = queue.next(Path::new("out")).expect("work");
        queue.picture(work.job);
        let job = queue.end(work.job).expect("it ran");
        queue.again(job, "cpu");
        let devices: Vec<&str> = queue.waiting().map(|job| job.choice.device.as_str()).collect();
        assert_eq!(devices, ["cpu", "cpu", "wgpu:1"]);
        let work = queue.next(Path::new("out")).expect("work");
        assert_eq!((work.images.len(), work.choice.device.as_str()), (1, "cpu"));
        // What was cancelled is not begun again.
        queue.cancel(work.job);
        let job = queue.end(work.job).expect("it ran");
        queue.again(job, "cpu");
        assert_eq!(names(&queue), ["b", "c"]);
    }
}
