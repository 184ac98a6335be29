//! The most memory that this process had, where the system tells.

/// Begins to count anew, where that is possible (Linux).
pub(super) fn reset() {
    // Without it the figure is that of the whole process; the largest work is then to be measured alone.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most resident bytes since the count began.
pub(super) fn bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kib(&status, "VmHWM:").map(|kib| kib << 10)
}

/// The number of a line such as `VmHWM:  2048 kB`.
fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::kib;

    #[test]
    fn lines_of_the_status_are_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS: many kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(2048));
        assert_eq!(kib(status, "VmRSS:"), None);
        assert_eq!(kib(status, "VmSwap:"), None);
    }
}
