//! Gives `tintype-desktop.exe` its icon, version and manifest.

#[path = "packaging/windows/resource.rs"]
mod resource;

fn main() {
    resource::attach("tintype-desktop", "Tintype");
}
