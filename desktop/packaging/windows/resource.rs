//! What Windows shows of a program (icon, version) and how it runs it (manifest); for the build scripts of both.

use std::env;
use std::path::Path;
use std::process::exit;

use winresource::WindowsResource;

/// Links icon, version and manifest into `{program}.exe`, not into its tests. The task manager and
/// "Open with" call the program by its `description`.
pub fn attach(program: &str, description: &str) {
    // Where a script names no file, Cargo runs it again for every change in the package.
    println!("cargo::rerun-if-changed=build.rs");
    if variable("CARGO_CFG_TARGET_OS") != "windows" {
        return;
    }
    let package = variable("CARGO_MANIFEST_DIR");
    let packaging = Path::new(&package).with_file_name("desktop").join("packaging");
    let file = |path: &str| {
        let path = packaging.join(path).display().to_string();
        println!("cargo::rerun-if-changed={path}");
        path
    };
    let mut resource = WindowsResource::new();
    resource
        .set_icon(&file("icon.ico"))
        .set_manifest_file(&file("windows/app.manifest"))
        .set("ProductName", "Tintype")
        .set("FileDescription", description)
        .set("CompanyName", "Tintype developers")
        .set("LegalCopyright", &variable("CARGO_PKG_LICENSE"))
        .set("InternalName", program)
        .set("OriginalFilename", &format!("{program}.exe"));
    if let Err(error) = resource.compile_for(program) {
        let sentence = format!("icon, version and manifest of {program}.exe are missing: {error}");
        let cross = !variable("HOST").contains("windows");
        if cross && variable("CARGO_CFG_TARGET_ENV") == "msvc" {
            // Without Microsoft's tools this program is checked, but not linked.
            println!("cargo::warning={sentence}");
        } else {
            println!("cargo::error={sentence}");
            exit(1);
        }
    }
}

/// One of Cargo's variables; it sets all that are read here.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
