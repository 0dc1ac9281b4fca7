//! The name of this machine.

/// The name of this machine, for messages.
pub fn host_name() -> String {
    found().filter(|name| !name.is_empty()).unwrap_or_else(|| "a machine without a name".into())
}

#[cfg(unix)]
fn found() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the call writes at most so many bytes.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    if failed != 0 {
        return None;
    }
    // A name that is cut off may have no end.
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

#[cfg(not(unix))]
fn found() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}
