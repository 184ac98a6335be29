//! The most memory that this process had, where the system tells.

use super::super::doctor::kib_line;

/// Begins to count anew, where that is possible (Linux).
pub(super) fn reset() {
    // Without it the figure is that of the whole process; the largest work is then to be measured alone.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most resident bytes since the count began.
pub(super) fn bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kib_line(&status, "VmHWM:")
}
