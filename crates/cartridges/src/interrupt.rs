//! Ctrl-C: the first asks the work in progress to stop at its next safe point, the second ends the
//! program at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Ctrl-C stopped the work. What was finished is on disk.
#[derive(Debug, thiserror::Error)]
#[error("{0} was stopped; nothing finished is lost, the same command goes on from here")]
pub struct Interrupted(pub &'static str);

/// The flag that Ctrl-C (or SIGTERM) raises. The handler is set up at the first call.
pub fn stop_flag() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let raised = flag.clone();
        let set = ctrlc::set_handler(move || {
            if raised.swap(true, Ordering::Relaxed) {
                crate::screen::restore();
                std::process::exit(130);
            }
            eprintln!("\nstopping at the next safe point; press Ctrl-C again to quit at once");
        });
        if let Err(error) = set {
            tracing::warn!(%error, "Ctrl-C cannot be caught");
        }
        flag
    })
    .clone()
}
