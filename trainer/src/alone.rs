//! Tests of what only a whole process has: standard error, the panic hook, its memory, and locks, which a child of
//! another test would hold for a moment.

use std::process::Command;

/// Set where a test runs in a process of its own.
const ALONE: &str = "TINTYPE_TEST_ALONE";

/// Runs a test of this program once more, in a process of its own, and returns what that printed on standard error;
/// `None` in that process, which has to do the work.
///
/// * `test`: its name with its modules
/// * `environment`: variables of that process
pub fn said(test: &str, environment: &[(&str, &str)]) -> Option<String> {
    if std::env::var_os(ALONE).is_some() {
        return None;
    }
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .envs(environment.iter().copied())
        .output()
        .expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{test}: {out}{errors}");
    Some(errors)
}
