//! `tintype-desktop`: will be the app in which a person picks a class and watches the image
//! develop. Not built yet; this program says so.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!(
        "error: the desktop app does not exist yet; `cargo run --release -- generate fruit` makes pictures"
    );
    ExitCode::FAILURE
}
