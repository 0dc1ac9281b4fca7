//! The most memory that this process has had in use, where the system tells it: Linux does.

use std::fs::File;
use std::io::Write;

/// Forgets the peak of before; whether the system did.
pub fn forget() -> bool {
    let clear = File::options().write(true).open("/proc/self/clear_refs");
    clear.and_then(|mut file| file.write_all(b"5")).is_ok()
}

/// The peak in bytes.
pub fn read() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The peak of the resident set in what Linux says of a process.
fn peak_in(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_found_among_the_lines() {
        let status = "Name:\ttintype\nVmPeak:\t 9999 kB\nVmHWM:\t  1234 kB\nVmRSS:\t  1000 kB\n";
        assert_eq!(peak_in(status), Some(1234 << 10));
        assert_eq!(peak_in("VmHWM:\t much\n"), None);
        assert_eq!(peak_in(""), None);
    }
}
