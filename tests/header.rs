//! `include/dqlite.h` is what cbindgen makes of `src/ffi`.
//!
//! `UPDATE_HEADER=1 cargo test --test header` rewrites it.

use std::path::{Path, PathBuf};

/// In the order in which their functions appear in the header.
const SOURCES: [&str; 5] = ["node_info.rs", "version.rs", "node.rs", "server.rs", "vfs_compat.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml is valid");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join("src/ffi").join(source));
    }
    let mut text = Vec::new();
    builder.generate().expect("src/ffi can be parsed").write(&mut text);
    let text = String::from_utf8(text).expect("cbindgen writes UTF-8");
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn committed_header_is_what_the_sources_say() {
    let path: PathBuf = root().join("include/dqlite.h");
    let expected = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &expected).expect("include/dqlite.h is writable");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, should)) in (1..).zip(committed.lines().zip(expected.lines())) {
        assert_eq!(is, should, "include/dqlite.h:{number} (left) is not what src/ffi says. Run: make fix");
    }
    assert_eq!(
        committed.lines().count(),
        expected.lines().count(),
        "include/dqlite.h ends elsewhere. Run: make fix"
    );
}

#[test]
fn every_export_of_the_library_is_in_the_header_or_known_not_to_be() {
    let header = generated();
    let not_declared = [
        "_dqliteTracingEnabled",
        "dqliteTracingMaybeEnable",
        "dqlite_print_crash_trace",
        "dqlite_print_trace",
    ];
    let symbols = std::fs::read_to_string(root().join("c-tests/symbols.txt")).expect("the list of exports");
    for symbol in symbols.lines().filter(|line| !line.starts_with('#')) {
        let name = symbol.split_whitespace().nth(1).expect("a kind and a name");
        let declared = header.contains(&format!("{name}(")) || header.contains(&format!("*{name};"));
        assert_eq!(declared, !not_declared.contains(&name), "{name}");
    }
}
