//! The `dqlite` program: looks at data directories, mends them, and recovers clusters from them. It works on
//! files only; the nodes must not run. This file reads the first argument; each command is a file of its own.
//!
//! Exit codes of all commands: 0 all is well, 1 damaged, refused or failed, 2 wrong usage or not readable.

mod check;
mod consent;
mod json;
mod recover;
mod repair;

use std::process::ExitCode;

use dqlite::config::COMPATIBLE_VERSION;
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;

const HELP: &str = "\
PROGRAM: SQLite, replicated by Raft

Commands for data directories of nodes that do not run:

  PROGRAM check DIR [--json]
      Tells what is in a data directory, whether it is sound, and what a start would do. Changes nothing.

  PROGRAM repair DIR [--yes] [--json]
      Keeps what is sound of a damaged directory. What is in the way moves into DIR/removed-N.

  PROGRAM recover --from DIR [--from DIR ...] --server ID@ADDRESS[:ROLE] [--server ...]
                  [--keep DIR] [--yes] [--json]
      For a cluster that lost too many servers to elect a leader. Takes the directories that are left,
      chooses the one that knows most, and writes the new list of servers into it. ROLE is voter (the
      default), stand-by or spare. --keep insists on a directory, which must be the one that knows most.

  PROGRAM --help | --version

repair and recover show what they would do and ask; --yes answers. With --json they need --yes and print one
JSON object; without --yes they print what they would do and end with 1.

Exit codes: 0 sound, or done; 1 damaged, refused or failed; 2 wrong usage, or the directory cannot be read,
for instance because a running node uses it.

The node does not start? Copy its data directory away first, then: PROGRAM check DIR
SQL: the shell of the go-dqlite package, `dqlite -s ADDRESS DATABASE`, works with these nodes.
";

/// How a command ended; the numbers are the exit codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Sound, or done.
    Good = 0,
    /// Damaged, refused, or failed.
    Bad = 1,
    /// Wrong usage, or the directory cannot be read.
    Unusable = 2,
}

/// What was typed behind the command.
#[derive(Default)]
pub struct Options {
    json: bool,
    yes: bool,
    keep: Option<std::path::PathBuf>,
    from: Vec<std::path::PathBuf>,
    servers: Vec<String>,
    directories: Vec<std::path::PathBuf>,
}

impl Options {
    fn read(command: &str, parser: &mut lexopt::Parser) -> Result<Options, lexopt::Error> {
        let mut options = Options::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("json") => options.json = true,
                Long("yes") if command != "check" => options.yes = true,
                Long("from") if command == "recover" => options.from.push(parser.value()?.into()),
                Long("keep") if command == "recover" => options.keep = Some(parser.value()?.into()),
                Long("server") if command == "recover" => options.servers.push(parser.value()?.string()?),
                Value(directory) if command != "recover" => options.directories.push(directory.into()),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }

    fn directory(&self) -> Result<&std::path::Path, lexopt::Error> {
        match &self.directories[..] {
            [one] => Ok(one),
            [] => Err("which directory?".into()),
            _ => Err("one directory at a time".into()),
        }
    }
}

/// What was typed to call the program. Packages install it as `dqlite-dir`, because `/usr/bin/dqlite` belongs
/// to another one, and advice must name the right one.
pub fn program_name() -> String {
    let typed = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = typed.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    name.unwrap_or("dqlite").into()
}

fn help() -> String {
    HELP.replace("PROGRAM", &program_name())
}

fn main() -> ExitCode {
    match run() {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(error) => {
            let program = program_name();
            eprintln!("{program}: {error}. Try: {program} --help");
            ExitCode::from(Outcome::Unusable as u8)
        }
    }
}

fn run() -> Result<Outcome, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    match parser.next()? {
        Some(Long("version") | Short('V')) => {
            end(&mut parser)?;
            println!(
                "{} {} (compatible with dqlite {COMPATIBLE_VERSION})",
                program_name(),
                env!("CARGO_PKG_VERSION")
            );
            Ok(Outcome::Good)
        }
        Some(Long("help") | Short('h')) => {
            print!("{}", help());
            Ok(Outcome::Good)
        }
        Some(Value(command)) => {
            let command = command.string()?;
            match command.as_str() {
                "check" | "repair" | "recover" => {}
                other => return Err(format!("there is no command {other}").into()),
            }
            let options = Options::read(&command, &mut parser)?;
            match command.as_str() {
                "check" => Ok(check::run(options.directory()?, options.json)),
                "repair" => Ok(repair::run(options.directory()?, &options)),
                _ => recover::run(&options),
            }
        }
        Some(other) => Err(other.unexpected()),
        None => {
            eprint!("{}", help());
            Ok(Outcome::Unusable)
        }
    }
}

fn end(parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
    parser.next()?.map_or(Ok(()), |argument| Err(argument.unexpected()))
}
