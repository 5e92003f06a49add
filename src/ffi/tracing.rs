//! Tracing exports of the C library that a debugger or a test program may look for. They are not in the
//! header.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::guarded;
use crate::trace;

/// Whether log lines are written; a debugger may set it while `LIBDQLITE_TRACE` is in force.
/// cbindgen:ignore
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static _dqliteTracingEnabled: AtomicBool = AtomicBool::new(false);

/// Writes log lines from here on if the environment asks for them.
pub(super) fn enable_if_asked() {
    trace::install_from_environment(&_dqliteTracingEnabled);
}

/// Turns log lines on (if `LIBDQLITE_TRACE` is set) or off.
/// cbindgen:ignore
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn dqliteTracingMaybeEnable(enabled: bool) {
    guarded(|| {
        let asked = trace::install_from_environment(&_dqliteTracingEnabled);
        _dqliteTracingEnabled.store(enabled && asked, Ordering::Relaxed);
        Ok(())
    })
}

/// Says on `fd` that there is no crash trace: this library keeps none. Safe in a signal handler.
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_print_crash_trace(fd: c_int) {
    if fd < 0 {
        return;
    }
    // SAFETY: the caller keeps the descriptor open during the call; -1 was excluded.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // There is nobody to tell if the descriptor cannot be written.
    let _ = rustix::io::write(fd, b"dqlite: no crash trace is kept; set LIBDQLITE_TRACE=1 for log lines\n");
}

/// Prints the calling thread's stack on standard error; `skip`, a count of frames, is not needed and ignored.
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_print_trace(_skip: c_int) {
    guarded(|| {
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        Ok(())
    })
}
