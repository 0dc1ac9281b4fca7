//! Every golden file, on the CPU and, where there is an adapter, through wgpu: there without those that no
//! device takes part in, which would only repeat the CPU's run.
//!
//! `tests/goldens` in the repository and every folder of `TINTYPE_GOLDENS` (separated as in `PATH`).
#![recursion_limit = "256"]

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tintype::burn::tensor::Device;
use tintype_tests::check::Check;
use tintype_tests::{Kind, entries, run};

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let more = std::env::var_os("TINTYPE_GOLDENS").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|folder| !folder.as_os_str().is_empty());
    // The same folder twice would only cost time.
    let mut folders = vec![own];
    for folder in more {
        assert!(folder.is_dir(), "TINTYPE_GOLDENS names {}, which is no folder", folder.display());
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("without words")
}

fn check_all(name: &str, device: &Device, with_host: bool) {
    let mut failures = Vec::new();
    let mut table = format!(
        "golden on {name}\n{:<44} {:>10} {:>11} {:>13} {:>8}\n",
        "file", "quantities", "rel. error", "of tolerance", "seconds"
    );
    let mut row = |line: std::fmt::Arguments<'_>| writeln!(table, "{line}").expect("a string");
    let (mut files, mut quantities) = (0, 0);
    let mut seen = BTreeMap::new();
    for folder in folders() {
        for (path, kind) in entries(&folder).expect("a folder that can be listed") {
            let label = path.file_name().map(|n| n.to_string_lossy().into_owned());
            let label = label.unwrap_or_default();
            let Some(kind) = kind else {
                failures.push(format!("{label}: it is of no known family"));
                continue;
            };
            match kind {
                Kind::Aside => continue,
                Kind::OnHost(_) if !with_host => continue,
                Kind::OnHost(_) | Kind::OnDevice(_) => {}
            }
            // The repository's subset is also in the full set.
            if let Ok(bytes) = std::fs::read(&path)
                && seen.insert(label.clone(), bytes.clone()) == Some(bytes)
            {
                continue;
            }
            let started = std::time::Instant::now();
            // A file that panics must not hide the others.
            let checks = match catch_unwind(AssertUnwindSafe(|| run(&path, kind, device))) {
                Ok(Ok(checks)) => checks,
                Ok(Err(error)) => {
                    failures.push(format!("{label}: {error:#}"));
                    continue;
                }
                Err(panic) => {
                    failures.push(format!("{label}: it panicked: {}", words(&*panic)));
                    continue;
                }
            };
            let worst = |f: fn(&Check) -> f64| checks.done().iter().map(f).fold(0.0, f64::max);
            files += 1;
            quantities += checks.done().len();
            row(format_args!(
                "{label:<44} {:>10} {:>11.1e} {:>12.1}% {:>8.1}",
                checks.done().len(),
                worst(|c| c.relative),
                100.0 * worst(|c| c.ratio),
                started.elapsed().as_secs_f64(),
            ));
            failures.extend(checks.failed().map(|check| {
                format!(
                    "{label}: {} is {:.3e} off, {:.2} times the tolerance",
                    check.name, check.relative, check.ratio
                )
            }));
        }
    }
    row(format_args!("{files} files, {quantities} quantities\n"));
    // Past the test harness's capture: the figures are the point.
    std::io::stderr().write_all(table.as_bytes()).expect("standard error");
    assert!(files > 0, "no golden was found");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn goldens_on_cpu() {
    check_all("cpu", &Device::flex(), true);
}

#[test]
fn goldens_on_wgpu() {
    match tintype::device::choose("wgpu") {
        Ok(chosen) => check_all(&chosen.found.description, &chosen.found.device, false),
        Err(error) => println!("no wgpu adapter, only the CPU was checked: {error}"),
    }
}
