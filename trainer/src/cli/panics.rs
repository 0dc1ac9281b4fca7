//! A panic is a defect or a lost device; it is reported on one line, and with a backtrace if asked.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Prints what happened and where, and under `RUST_BACKTRACE` the way there.
pub fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("unknown");
    if let Some(reason) = message.strip_prefix("failed printing to stdout: ") {
        if is_closed_pipe(reason) {
            std::process::exit(0); // as by `| head`
        }
        eprintln!("error: standard output cannot be written: {reason}");
        std::process::exit(1);
    }
    let place = info.location().map(|at| (at.file(), at.line()));
    // A panic in here would abort; these macros have none where standard error is closed.
    eprintln!("{}", sentence(message, place));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        eprintln!("{backtrace}");
    }
}

/// Whether the text of an I/O error is that of a pipe whose reader is gone.
fn is_closed_pipe(reason: &str) -> bool {
    let codes: &[u32] = if cfg!(windows) { &[109, 232] } else { &[32] };
    codes.iter().any(|code| reason.ends_with(&format!("(os error {code})")))
}

fn sentence(message: &str, place: Option<(&str, u32)>) -> String {
    let message = message.lines().next().unwrap_or_default();
    let at = place.map_or(String::new(), |(file, line)| format!(" at {file}:{line}"));
    match place.is_some_and(|(file, _)| computes(file)) {
        true => format!(
            "error: the computation failed ({message}{at}); try --device cpu, and report it if that works"
        ),
        false => format!("error: this is a defect ({message}{at}); please report it"),
    }
}

/// Whether a source file is one of those that compute on a device.
fn computes(file: &str) -> bool {
    const CRATES: [&str; 5] = ["burn-", "cubecl", "cubek", "wgpu", "cudarc"];
    let mut folders = file.split(['/', '\\']);
    folders.any(|folder| folder == "shaders" || CRATES.iter().any(|c| folder.starts_with(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone;

    #[test]
    fn the_place_of_a_panic_is_told_and_the_way_there_if_asked() {
        let name = "cli::panics::tests::the_place_of_a_panic_is_told_and_the_way_there_if_asked";
        let broken: fn() = || panic!("broken\nmore");
        let line = line!() - 1;
        for (asked, frames) in [("0", false), ("1", true)] {
            let environment = [("RUST_BACKTRACE", asked), ("RUST_LIB_BACKTRACE", asked)];
            let Some(said) = alone::said(name, &environment) else {
                // From here on panics are the program's.
                let _ = crate::cli::run(["tintype", "info", "/no/such/model"].map(Into::into));
                assert!(std::panic::catch_unwind(broken).is_err());
                return;
            };
            let place = format!("(broken at {}:{line}); please report it\n", file!());
            assert!(said.contains(&format!("error: this is a defect {place}")), "{said}");
            let is_frame = |text: &str| text.trim_start().starts_with("0: ");
            assert_eq!(said.lines().any(is_frame), frames, "{said}");
        }
    }

    #[test]
    fn another_device_is_advised_where_one_failed() {
        let of = |file| sentence("index out of range\nmore", Some((file, 7)));
        for file in [
            "shaders/src/gpu/view.rs",
            "shaders\\src\\lib.rs",
            "/home/a/.cargo/registry/src/index/cubecl-cuda-0.11.0/src/compute/x.rs",
            "/home/a/.cargo/registry/src/index/burn-tensor-0.22.0/src/tensor/x.rs",
        ] {
            let said = of(file);
            assert!(
                said.contains("try --device cpu") && said.contains(&format!("{file}:7")),
                "{said}"
            );
        }
        assert_eq!(
            of("trainer/src/cli/numbers.rs"),
            "error: this is a defect (index out of range at trainer/src/cli/numbers.rs:7); please report it"
        );
        let code = if cfg!(windows) { 232 } else { 32 };
        assert!(is_closed_pipe(&format!("Broken pipe (os error {code})")));
        assert!(!is_closed_pipe("No space left on device (os error 28)"));
        assert_eq!(sentence("a", None), "error: this is a defect (a); please report it");
    }
}
