//! The `dqlite` program. It knows its version and its help; the commands themselves belong to later releases
//! and are refused with exit code 2.

use std::process::ExitCode;

use dqlite::config::COMPATIBLE_VERSION;

const HELP: &str = "\
dqlite: SQLite, replicated by Raft

Usage: dqlite --help | --version

This program has no commands yet. Databases are served by the library inside an application (see README.md);
the shell of the go-dqlite package (`dqlite -s ADDRESS DATABASE`) works with its nodes.
";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version" | "-V"] => {
            println!("dqlite {} (compatible with dqlite {COMPATIBLE_VERSION})", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [] => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
        [first, ..] => {
            eprintln!("dqlite: {first}: not available in this release yet. Try: dqlite --help");
            ExitCode::from(2)
        }
    }
}
