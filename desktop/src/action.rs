//! What can be asked of the app. Views push these; `app` alone acts on them.

use std::path::PathBuf;

use tintype::generate::ModelPaths;
use tintype::precision::Precision;

use crate::browser::Question;
use crate::dialogs::Purpose;
use crate::preferences::Theme;
use crate::sketch::Layout;

/// What fills the middle of the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// The pictures in the making, or the latest finished one.
    #[default]
    Develop,
    /// All pictures.
    Gallery,
    /// One picture of the gallery.
    Picture(u64),
    /// Two of them.
    Compare(u64, u64),
    /// Published models.
    Models,
    /// One class and seed from several models.
    CompareModels,
}

/// A wish.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each says what it wants
// Few are sent at a time, and only Windows' paths make one large.
#[allow(clippy::large_enum_variant)]
pub enum Action {
    Generate,
    Surprise,
    Cancel(u64),
    CancelAll,
    /// Moves a waiting job towards the front (−1) or the end (1).
    Shift(u64, isize),
    Choose {
        class: usize,
        add: bool,
    },
    Favourite(usize),
    NewSeed,
    /// A second seed that pictures go over to, or none.
    SecondSeed(bool),
    NewSecondSeed,
    /// Makes pictures from the first seed to the second.
    Interpolate,
    /// Makes pictures as settings change, or only when asked for.
    Live(bool),
    /// Saves the live picture.
    Keep,
    /// Makes those of the strip to be saved.
    KeepStrip,
    /// One live picture, or several.
    Layout(Layout),
    /// Guidance of a picture of the sheet, and seeds that are so far ahead, become the current ones.
    Take {
        ahead: u64,
        scale: f64,
    },
    /// The picture so far on the way to the second seed becomes the current one.
    Blend(f64),
    Defaults,
    Ask(Purpose),
    EmbeddedModel,
    /// Asks in a model's card before it is done; `None` takes the question back.
    AskModel(Option<Question>),
    /// Downloads a published model, or goes on with it.
    FetchModel(String),
    PauseModel(String),
    /// Opens a published model that is on this machine.
    UseModel(String),
    RemoveModel(String),
    /// Looks for models on this machine.
    LookForModels,
    /// Adds a model to the comparison.
    AddToComparison {
        name: String,
        paths: ModelPaths,
    },
    /// Takes a row out of it.
    RemoveFromComparison(u64),
    /// Makes the pictures of its models.
    StartComparison,
    StopComparison,
    NewComparisonSeed,
    /// Opens one of the averages that the model's file holds, counted from 1.
    Average(usize),
    /// Guides the model by the network in this file, or by its own prediction without a class.
    Guide(Option<PathBuf>),
    OpenPage(String),
    Device(String),
    Precision(Precision),
    DefaultFolder,
    Drop(Vec<PathBuf>),
    Show(View),
    /// Settings, seed and class of a picture become the current ones.
    UseSettings(u64),
    UseSeed(u64),
    /// Another seed, everything else as in the picture, at once.
    OtherSeed(u64),
    /// Keeps seed and settings of the picture and lets people pick a class.
    OtherClass(u64),
    Copy(u64),
    Delete(u64),
    Undo,
    Dismiss(u64),
    Theme(Theme),
}
