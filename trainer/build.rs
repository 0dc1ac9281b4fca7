//! Gives `tintype.exe` its icon, version and manifest.

#[path = "../desktop/packaging/windows/resource.rs"]
mod resource;

fn main() {
    resource::attach("tintype", "Tintype command line");
}
