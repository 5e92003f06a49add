//! Refuses a SQLite that is too old before anything is compiled, and gives the shared library its name.
//! docs/ARCHITECTURE.md, sections 9 and 10, says why each link argument is there.

use std::env;
use std::process::exit;

/// `sqlite3_txn_state` appeared in this release.
const SQLITE_VERSION_MIN: &str = "3.34";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_BUNDLED_SQLITE").is_none() {
        require_system_sqlite();
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        for argument in ["-soname,libdqlite.so.0", "-z,defs", "-z,nodelete"] {
            println!("cargo:rustc-cdylib-link-arg=-Wl,{argument}");
        }
    }
}

/// Only asks; `libsqlite3-sys` emits the link lines.
fn require_system_sqlite() {
    let probe = pkg_config::Config::new()
        .atleast_version(SQLITE_VERSION_MIN)
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("sqlite3");
    if let Err(error) = probe {
        eprintln!(
            "dqlite needs SQLite {SQLITE_VERSION_MIN} or newer with its header, found by pkg-config.\n\
             On Debian or Ubuntu: apt-get install libsqlite3-dev pkg-config (or run `make deps`).\n\
             For a private copy of SQLite instead: --features bundled-sqlite.\n\
             pkg-config said: {error}"
        );
        exit(1);
    }
}
