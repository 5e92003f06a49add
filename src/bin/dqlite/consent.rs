//! The question before anything is changed.

use std::io::{IsTerminal, Write, stdin, stdout};

use crate::Options;

/// Whether the operator agrees: by --yes, or by typing yes on a terminal.
pub fn is_given(options: &Options, question: &str) -> bool {
    if options.yes {
        return true;
    }
    if options.json || !stdin().is_terminal() {
        eprintln!("dqlite: nothing was changed. To do it: the same command with --yes");
        return false;
    }
    print!("{question} Type yes: ");
    let mut answer = String::new();
    let read = stdout().flush().and_then(|()| stdin().read_line(&mut answer));
    let agrees = read.is_ok() && answer.trim() == "yes";
    if !agrees {
        println!("Nothing was changed.");
    }
    agrees
}
