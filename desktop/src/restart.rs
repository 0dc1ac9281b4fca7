//! Starting again, on the processor: a graphics device that stops working takes the window with it.

use std::path::Path;
use std::process::Command;

use crate::console;
use crate::start::Start;

/// What the app says after the start; `trouble` is what happened.
pub fn notice(trouble: &str) -> String {
    format!(
        "{trouble}, and the app was started again on the processor. Finished pictures are in the \
         gallery, unfinished jobs are lost; try the device again under “Device”."
    )
}

/// How the app is started again with the same settings, model and folder.
pub fn command(program: &Path, start: &Start, notice: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--device", "cpu", "--notice", notice]);
    // It is empty where there is no home for settings.
    if !start.preferences.as_os_str().is_empty() {
        command.arg("--settings").arg(&start.preferences);
    }
    // The settings do not have it where another window saves them. The options that people type have not all of it.
    if let Some(paths) = start.last_open().and_then(|paths| serde_json::to_string(&paths).ok()) {
        command.arg("--paths").arg(paths);
    }
    if let Some(folder) = start.last_folder() {
        command.arg("--out").arg(folder);
    }
    command
}

/// Starts the app again and ends this process. The new one takes the settings, which must be free.
pub fn again(start: &Start, notice: &str) -> ! {
    let started =
        std::env::current_exe().and_then(|program| command(&program, start, notice).spawn());
    match started {
        Ok(_) => std::process::exit(0),
        Err(e) => {
            console::fail(&format!("{notice} It could not be started again: {e}"));
            std::process::exit(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use tintype::generate::ModelPaths;

    use super::*;

    fn args(start: &Start, notice: &str) -> Vec<String> {
        let command = command("app".as_ref(), start, notice);
        command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn it_starts_on_the_processor_and_says_why() {
        let notice = notice("The GPU went away");
        let start =
            Start { preferences: "s.json".into(), output: Some("out".into()), ..Start::default() };
        let wanted =
            ["--device", "cpu", "--notice", &notice, "--settings", "s.json", "--out", "out"];
        assert_eq!(args(&start, &notice), wanted);
        start.note_folder("other".as_ref());
        assert_eq!(args(&start, &notice)[7..], ["other"], "it was chosen in the window");
        assert_eq!(args(&Start::default(), &notice), wanted[..4], "there is no home for settings");
    }

    #[test]
    fn the_model_that_was_open_is_opened_again() {
        let start = Start::default();
        let open = ModelPaths {
            model: Some("a \"run\"".into()),
            average: Some(2),
            guide: Some("guide.pt".into()),
            ..ModelPaths::default()
        };
        for paths in [open, ModelPaths::default()] {
            start.clone().note_open(&paths);
            let args = args(&start, "");
            assert_eq!(args[4], "--paths");
            assert_eq!(serde_json::from_str::<ModelPaths>(&args[5]).expect("JSON"), paths);
        }
    }
}
