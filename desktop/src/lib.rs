//! Tintype's desktop app: pick a class and watch the picture develop.
//!
//! * [`app`] — the app's state and the one place that changes it; [`action`] — what can be asked of it
//! * [`engine`] — the thread that loads networks and computes, and the only one that does
//! * [`model`] — what is in the files that people bring; [`queue`] — what waits to be made
//! * [`average`] — averages (EMA) of the weights, where a file holds several
//! * [`browser`] — published models: which are here, and which are being downloaded
//! * [`compare`] — one class and seed from several models
//! * [`gallery`] — finished pictures, in memory and on disk
//! * [`face`] — the library's errors and settings in the words of the window
//! * [`quality`] — draft, good and best, and how long they take; [`options`] — what some samplers have
//! * [`stage`] — pictures in the making; [`search`] — what is typed to find a class
//! * [`sketch`] — live: the picture of the current settings, made as they change
//! * [`preferences`] — what is remembered; [`salvage`] — read part by part, and `damage` — what of it could not be
//!   read; [`settings_file`] — by one window at a time
//! * [`maker`] — the model that made a picture, where it is on this machine
//! * [`ui`] — what is seen, a file a panel, and each frame
//! * [`window`] — how all of it starts; [`place`] — on which screen; [`console`] — what is said without a window
//!
//! Views read the state, push [`action::Action`]s and change nothing but the fields that people type
//! into. The window's thread never waits: for the device, for files or for dialogs.
#![recursion_limit = "256"]

pub mod action;
pub mod app;
pub mod average;
pub mod browser;
pub mod compare;
pub mod console;
mod damage;
pub mod dialogs;
pub mod engine;
pub mod face;
pub mod form;
pub mod frame_times;
pub mod gallery;
pub mod icon;
pub mod live;
pub mod maker;
pub mod model;
pub mod notices;
pub mod options;
pub mod page;
pub mod place;
pub mod preferences;
pub mod quality;
pub mod queue;
pub mod restart;
pub mod salvage;
pub mod search;
pub mod settings_file;
pub mod sketch;
pub mod stage;
pub mod start;
pub mod style;
pub mod text;
pub mod ui;
pub mod window;
