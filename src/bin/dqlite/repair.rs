//! `dqlite repair`: keeps what is sound of a damaged directory. What is in the way moves into a folder.

use std::path::Path;

use dqlite::store::{Error, Inspection, Mending, give_to_owner};

use crate::check::{self, reason, step_text, steps_json, unreadable};
use crate::json::Json;
use crate::{Options, Outcome, consent};

const WARNING: &str = "\
Only if no other server has the data: a server that lost entries may help to elect a leader that lacks
them, too. If other servers have a leader, empty this directory and let the server join again instead.";

/// Shows what is to be done, asks, does it, and checks again.
pub fn run(directory: &Path, options: &Options) -> Outcome {
    let mending = match Mending::plan(directory) {
        Ok(mending) => mending,
        Err(error @ Error::Load(_)) => {
            say(options, directory, "refused", vec![("error", reason(&error).into())]);
            eprintln!("dqlite: {}: {}", directory.display(), reason(&error));
            eprintln!("Restore a backup, or empty the directory and let the server join a cluster again.");
            return Outcome::Bad;
        }
        Err(error) => return unreadable(directory, &error, options.json),
    };
    if mending.steps.is_empty() {
        say(options, directory, "sound", Vec::new());
        if !options.json {
            println!("{}: sound, nothing to do.", directory.display());
        }
        return Outcome::Good;
    }
    let steps = steps_json(&mending);
    let last_index = mending.last_index.0;
    if !options.json {
        println!("{}: this keeps everything up to index {last_index}:", directory.display());
        for step in &mending.steps {
            println!("  {}", step_text(step));
        }
        println!("Nothing is deleted: what moves away goes to {}/removed-N.", directory.display());
        println!("{WARNING}");
    }
    if !consent::is_given(options, "Do this?") {
        say(options, directory, "planned", vec![("steps", steps), ("last_index", last_index.into())]);
        return Outcome::Bad;
    }
    match mending.run() {
        Ok(aside) => {
            let owned = give_to_owner(directory);
            let aside = aside.map(|aside| aside.display().to_string());
            let is_sound =
                Inspection::of(directory).is_ok_and(|found| check::outcome(&found) == Outcome::Good);
            let done = vec![
                ("steps", steps),
                ("last_index", last_index.into()),
                ("removed_to", aside.clone().into()),
            ];
            say(options, directory, if is_sound { "repaired" } else { "still damaged" }, done);
            if let Err(error) = owned {
                eprintln!("dqlite: the new files could not be given to the owner of the directory: {error}");
            }
            if options.json {
                return if is_sound { Outcome::Good } else { Outcome::Bad };
            }
            println!("Done. {}", aside.map_or(String::new(), |aside| format!("Moved away: {aside}")));
            println!();
            check::run(directory, false)
        }
        Err(error) => {
            say(options, directory, "failed", vec![("error", reason(&error).into())]);
            eprintln!("dqlite: {}: {}", directory.display(), reason(&error));
            eprintln!(
                "What was moved is in {}/removed-N. The command can be given again.",
                directory.display()
            );
            Outcome::Bad
        }
    }
}

fn say(options: &Options, directory: &Path, result: &str, more: Vec<(&'static str, Json)>) {
    if options.json {
        let directory = directory.display().to_string();
        let mut object: Vec<(&'static str, Json)> =
            vec![("directory", directory.into()), ("result", result.into())];
        object.extend(more);
        println!("{}", Json::Object(object));
    }
}
