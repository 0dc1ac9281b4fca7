//! Every golden file, on the CPU and, where there is an adapter, through wgpu.
//!
//! `tests/goldens` in the repository and every folder of `TINTYPE_GOLDENS` (colon-separated).
#![recursion_limit = "256"]

use std::path::{Path, PathBuf};

use tintype::burn::tensor::Device;
use tintype_tests::{Kind, entries, run};

fn folders() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens");
    let more = std::env::var("TINTYPE_GOLDENS").unwrap_or_default();
    let more = more.split(':').filter(|f| !f.is_empty()).map(PathBuf::from);
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

fn check_all(name: &str, device: &Device) {
    let mut failures = Vec::new();
    let (mut files, mut quantities, mut waiting) = (0, 0, 0);
    println!("{:<44} {:>10} {:>12} {:>12}", format!("golden on {name}"), "quantities", "rel. error", "of tolerance");
    for folder in folders() {
        for (path, kind) in entries(&folder).expect("every file is of a known family") {
            let label = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            match kind {
                Kind::Aside => {}
                Kind::NotYet => {
                    waiting += 1;
                    println!("{label:<44} {:>10}", "not yet");
                }
                Kind::Family(family) => {
                    let started = std::time::Instant::now();
                    match run(&path, family, device) {
                        Ok(checks) => {
                            let worst = |f: fn(&tintype_tests::check::Check) -> f64| {
                                checks.done().iter().map(f).fold(0.0, f64::max)
                            };
                            files += 1;
                            quantities += checks.done().len();
                            println!(
                                "{label:<44} {:>10} {:>12.1e} {:>11.1}% {:>6.1}s",
                                checks.done().len(),
                                worst(|c| c.relative),
                                100.0 * worst(|c| c.ratio),
                                started.elapsed().as_secs_f64(),
                            );
                            for check in checks.failed() {
                                failures.push(format!(
                                    "{label}: {} is {:.3e} off, {:.2} times the tolerance",
                                    check.name, check.relative, check.ratio
                                ));
                            }
                        }
                        Err(error) => {
                            println!("{label:<44} {error:#}");
                            failures.push(format!("{label}: {error:#}"));
                        }
                    }
                }
            }
        }
    }
    println!("{files} files, {quantities} quantities, {waiting} files not yet\n");
    assert!(files > 0, "no golden was found");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn goldens_on_cpu() {
    check_all("cpu", &Device::flex());
}

#[test]
fn goldens_on_wgpu() {
    match tintype::device::choose("wgpu") {
        Ok(chosen) => check_all(&chosen.found.description, &chosen.found.device),
        Err(error) => println!("no wgpu adapter, only the CPU was checked: {error}"),
    }
}
