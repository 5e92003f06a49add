//! The fence: a node that met a fault of its own, or of its disk, stops taking part and says why. The host
//! process goes on. See docs/ARCHITECTURE.md, section 7.

use parking_lot::Mutex;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Set once, by the first fault.
#[derive(Default)]
pub struct Fence {
    reason: Mutex<Option<String>>,
}

impl Fence {
    /// Records a fault. Only the first counts. With `DQLITE_ABORT_ON_PANIC=1` the process ends instead.
    pub fn raise(&self, reason: String) {
        tracing::error!(%reason, "node fenced");
        if std::env::var_os("DQLITE_ABORT_ON_PANIC").is_some_and(|v| v == "1") {
            std::process::abort();
        }
        self.reason.lock().get_or_insert(reason);
    }

    /// The first fault, if there was one.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    /// Runs the body of a thread; a panic raises the fence instead of ending the process.
    pub fn guard(&self, thread: &str, body: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            self.raise(format!("internal error on thread {thread}: {}", panic_text(&*panic)));
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "panic without a text",
    }
}
