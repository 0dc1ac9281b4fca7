//! A panic is a defect or a lost device; it is reported on one line, and with a backtrace if asked.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;

/// Prints what happened and where, and under `RUST_BACKTRACE` the way there.
pub fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("unknown");
    if message.starts_with("failed printing to stdout") {
        std::process::exit(0); // the pipe was closed, as by `| head`
    }
    let place = info.location().map(|at| (at.file(), at.line()));
    // A panic in here would abort, and standard error may be closed.
    let mut out = std::io::stderr();
    let _ = writeln!(out, "{}", sentence(message, place));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = writeln!(out, "{backtrace}");
    }
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

    #[test]
    fn another_device_is_advised_where_one_failed() {
        let of = |file| sentence("index out of range\nmore", Some((file, 7)));
        for file in [
            "shaders/src/gpu/view.rs",
            "shaders\\src\\lib.rs",
            "/home/a/.cargo/registry/src/index.crates.io-1/cubecl-cuda-0.11.0/src/compute/x.rs",
            "/home/a/.cargo/registry/src/index.crates.io-1/burn-tensor-0.22.0/src/tensor/x.rs",
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
        assert_eq!(sentence("a", None), "error: this is a defect (a); please report it");
    }
}
