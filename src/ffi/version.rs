//! Version symbols. Programs decide by them which functions they may call, so they name the C release whose
//! API this library has; the package's own version follows the `@`.

use std::ffi::{c_char, c_int};

use crate::config::COMPATIBLE_VERSION_NUMBER;

/// The version of the C API that this library has, in the form of DQLITE_VERSION_NUMBER: 11806 for 1.18.6.
///
/// Compare it with DQLITE_VERSION_NUMBER to find a library that is older than the header. Any thread may call
/// it, without a node. Since 1.8.0.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_version_number() -> c_int {
    COMPATIBLE_VERSION_NUMBER
}

/// A pointer to a text that lives as long as the process.
#[repr(transparent)]
pub struct StaticText(*const c_char);

// SAFETY: the text is a constant; nobody writes through the pointer.
unsafe impl Sync for StaticText {}

// A data symbol of eight bytes, not a function: programs may hold a copy of it (copy relocation).
/// cbindgen:ignore
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static dqlite_version_string: StaticText =
    StaticText(concat!("1.18.6@rust-", env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::COMPATIBLE_VERSION;
    use std::ffi::CStr;

    #[test]
    fn version_string_names_the_compatible_release_and_the_package() {
        // SAFETY: a constant that ends with a NUL.
        let text = unsafe { CStr::from_ptr(dqlite_version_string.0) }.to_str().unwrap();
        assert_eq!(text, format!("{COMPATIBLE_VERSION}@rust-{}", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn version_number_is_built_from_the_compatible_version() {
        let parts: Vec<c_int> = COMPATIBLE_VERSION.split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(dqlite_version_number(), parts[0] * 10_000 + parts[1] * 100 + parts[2]);
    }
}
