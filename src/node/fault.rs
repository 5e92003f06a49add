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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Set in the environment of a child that runs one test.
    const CHILD: &str = "DQLITE_FAULT_TEST_CHILD";

    #[test]
    fn a_panic_fences_the_node_and_only_the_first_reason_counts() {
        let fence = Fence::default();
        fence.guard("one", || {});
        assert_eq!(fence.reason(), None);
        fence.guard("two", || panic!("broken"));
        fence.guard("three", || panic!("broken, too"));
        fence.raise("later".into());
        assert_eq!(fence.reason().unwrap(), "internal error on thread two: broken");
    }

    #[test]
    fn the_environment_may_ask_for_the_end_of_the_process() {
        if std::env::var_os(CHILD).is_some() {
            Fence::default().raise("broken".into());
            return;
        }
        let test = "node::fault::tests::the_environment_may_ask_for_the_end_of_the_process";
        for (value, signal) in [("1", Some(6)), ("0", None), ("", None)] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", test]).env(CHILD, "1").env("DQLITE_ABORT_ON_PANIC", value);
            let output = child.output().unwrap();
            assert_eq!(output.status.signal(), signal, "DQLITE_ABORT_ON_PANIC={value}");
            assert_eq!(output.status.success(), signal.is_none(), "DQLITE_ABORT_ON_PANIC={value}");
        }
    }
}
