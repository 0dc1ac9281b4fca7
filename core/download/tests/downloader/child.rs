//! This program once more, as a process of its own: it can be killed, and has an environment of its own.

use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicBool;

use tintype_download::{Downloader, Environment};

use crate::support::{Scene, file};

/// Names what the process is to fetch.
const FETCH: &str = "TINTYPE_TEST_FETCH";
/// Variables of the outer environment that would change what it does.
const OUTER: [&str; 14] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "no_proxy",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_SYMLINKS",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
];

/// What the process does; nothing in a run of the tests.
#[test]
fn fetches_what_the_environment_names() {
    let Ok(address) = std::env::var(FETCH) else { return };
    let downloader = Downloader::new(Environment::of_process());
    match downloader.fetch(&file(&address), &|_| {}, &AtomicBool::new(false)) {
        Ok(fetched) => println!("fetched {}", fetched.path.display()),
        Err(error) => {
            println!("failed: {error}\n{error:?}\n{downloader:?}");
            std::process::exit(1);
        }
    }
}

/// A process that fetches a file into the caches of a scene.
pub fn command(scene: &Scene, address: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "child::fetches_what_the_environment_names", "--nocapture"]);
    for name in OUTER {
        command.env_remove(name);
    }
    command.envs(scene.variables()).env("NO_PROXY", "127.0.0.1").env(FETCH, address);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a process that fetches a file.
pub fn start(scene: &Scene, address: &str) -> Child {
    command(scene, address).spawn().expect("it starts")
}

/// Waits for the end of a process; returns whether it fetched its file, and what it said.
pub fn ended(child: Child) -> (bool, String) {
    told(&child.wait_with_output().expect("it ends"))
}

/// Whether a process fetched its file, and what it said.
pub fn told(output: &Output) -> (bool, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success() && said.contains("fetched "), said)
}
