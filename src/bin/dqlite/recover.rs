//! `dqlite recover`: of the data directories that are left, chooses the one that knows most and gives it a
//! new list of servers. For a cluster that lost too many servers to elect a leader.

use std::fs;
use std::path::{Path, PathBuf};

use dqlite::raft::{Configuration, Index, Role, Server, ServerId, Term};
use dqlite::store::{AutoRecovery, Contents, Directory, Inspection, Recovered, give_to_owner};

use crate::check::{print_servers, reason, servers_json, unreadable};
use crate::json::Json;
use crate::{Options, Outcome, consent};

/// A directory that could be kept.
struct Candidate {
    directory: PathBuf,
    contents: Contents,
}

impl Candidate {
    /// Raft's order: term first, then index. The highest term instead of the last, because the C library
    /// forces configurations upon a log in term 1.
    fn rank(&self) -> (Term, Index) {
        (self.contents.highest_term, self.contents.last_index)
    }

    fn shown(&self) -> String {
        let Contents { highest_term, last_index, .. } = &self.contents;
        format!("{}: term {highest_term}, last index {last_index}", self.directory.display())
    }
}

/// Checks everything before the question, so that what was agreed to is what is done.
pub fn run(options: &Options) -> Result<Outcome, lexopt::Error> {
    if options.from.is_empty() {
        return Err("which directories are left? --from DIR for each".into());
    }
    let configuration = configuration(&options.servers)?;
    let candidates = match candidates(options) {
        Ok(candidates) => candidates,
        Err(outcome) => return Ok(outcome),
    };
    let Some(best) = candidates.iter().max_by_key(|candidate| candidate.rank()) else {
        return Ok(refuse(options, "none of the directories holds any data"));
    };
    let kept = match &options.keep {
        None => best,
        Some(wanted) => match candidates.iter().find(|candidate| same(&candidate.directory, wanted)) {
            None => return Ok(refuse(options, "the directory of --keep is not one of those after --from")),
            Some(found) if found.rank() < best.rank() => {
                let text = format!(
                    "{} is behind {}: what only the latter has would be lost. Leave --keep out",
                    found.shown(),
                    best.shown()
                );
                return Ok(refuse(options, &text));
            }
            Some(found) => found,
        },
    };
    if !options.json {
        print_plan(&candidates, kept, &configuration);
    }
    if !consent::is_given(options, "Write this list of servers?") {
        say(options, "planned", (&candidates, kept), &configuration, None);
        return Ok(Outcome::Bad);
    }
    let done = Directory::open(&kept.directory)
        .and_then(|directory| directory.lock())
        .and_then(|mut directory| directory.recover(&configuration, AutoRecovery::Off));
    match done {
        Ok(recovered) => {
            say(options, "recovered", (&candidates, kept), &configuration, Some(recovered));
            if let Err(error) = give_to_owner(&kept.directory) {
                eprintln!("dqlite: the new files could not be given to the owner of the directory: {error}");
            }
            if !options.json {
                print_done(kept, recovered, &configuration);
            }
            Ok(Outcome::Good)
        }
        Err(error) => Ok(refuse(options, &format!("{}: {}", kept.directory.display(), reason(&error)))),
    }
}

fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

fn refuse(options: &Options, text: &str) -> Outcome {
    if options.json {
        println!("{}", Json::Object(vec![("result", "refused".into()), ("error", text.into())]));
    }
    eprintln!("dqlite: {text}");
    Outcome::Bad
}

/// The list of servers, checked: a cluster with a wrong one never elects a leader.
fn configuration(servers: &[String]) -> Result<Configuration, lexopt::Error> {
    let mut configuration = Configuration::default();
    for text in servers {
        let server = server(text).ok_or_else(|| format!("{text} is no ID@ADDRESS or ID@ADDRESS:ROLE"))?;
        if configuration.contains(server.id) {
            return Err(format!("two servers have the id {}", server.id).into());
        }
        if configuration.by_address(&server.address).is_some() {
            return Err(format!("two servers have the address {}", server.address).into());
        }
        configuration.servers.push(server);
    }
    if servers.is_empty() {
        return Err("which servers shall the cluster have? --server for each".into());
    }
    if configuration.voters().next().is_none() {
        return Err("without a voter nobody could lead: at least one --server must be a voter".into());
    }
    Ok(configuration)
}

fn server(text: &str) -> Option<Server> {
    let (id, rest) = text.split_once('@')?;
    let id = ServerId(id.parse().ok().filter(|id| *id != 0)?);
    let (address, role) = match rest.rsplit_once(':') {
        Some((address, "voter")) => (address, Role::Voter),
        Some((address, "stand-by" | "standby")) => (address, Role::Standby),
        Some((address, "spare")) => (address, Role::Spare),
        _ => (rest, Role::Voter),
    };
    let is_address = !address.is_empty() && !address.contains(char::is_whitespace);
    is_address.then(|| Server { id, address: address.to_owned(), role })
}

/// Looks at every directory. All must be sound: a damaged one may be the one that knows most.
fn candidates(options: &Options) -> Result<Vec<Candidate>, Outcome> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for directory in &options.from {
        if candidates.iter().any(|candidate| same(&candidate.directory, directory)) {
            return Err(refuse(options, &format!("{} is given twice", directory.display())));
        }
        let found = match Inspection::of(directory) {
            Ok(found) => found,
            Err(error) => return Err(unreadable(directory, &error, options.json)),
        };
        let shown = directory.display();
        let damage = match found.contents {
            Ok(contents) if contents.set_aside.is_empty() => {
                if contents.last_index > Index(0) {
                    candidates.push(Candidate { directory: directory.clone(), contents });
                }
                continue;
            }
            Ok(contents) => contents.notes.join("; "),
            Err(error) => reason(&error),
        };
        let program = crate::program_name();
        let text = format!("{shown} is damaged: {damage}. First: {program} check {shown}");
        return Err(refuse(options, &text));
    }
    Ok(candidates)
}

fn print_plan(candidates: &[Candidate], kept: &Candidate, configuration: &Configuration) {
    println!("The directory to keep, because no other one knows more:");
    println!("  {}", kept.shown());
    for other in candidates.iter().filter(|other| other.directory != kept.directory) {
        println!("Behind it, or equal:");
        println!("  {}", other.shown());
        if other.contents.last_index > kept.contents.last_index {
            println!(
                "    Its entries after index {} were never committed, or were",
                kept.contents.last_index
            );
            println!("    replaced by those of the later term. They are given up.");
        }
    }
    for note in &kept.contents.notes {
        println!("  {note}");
    }
    if let Some((index, old)) = &kept.contents.configuration {
        println!("Servers until now, as of index {index}:");
        print_servers(old);
        // That many voters meet every majority.
        let (voters, enough) = (old.voters().count(), old.voters().count().div_ceil(2));
        if candidates.len() >= enough {
            println!(
                "With {} of {voters} voters no acknowledged transaction is lost, if the directories",
                candidates.len()
            );
            println!("are those of different voters and as they were when these stopped.");
        } else {
            println!(
                "LOSS IS POSSIBLE: {} of {voters} voters are given, {enough} are needed to be sure of every",
                candidates.len()
            );
            println!("acknowledged transaction. Find more directories if there are any.");
        }
    }
    println!("Servers from now on:");
    print_servers(configuration);
}

fn print_done(kept: &Candidate, recovered: Recovered, configuration: &Configuration) {
    let directory = kept.directory.display();
    println!();
    println!("Done: the list of servers is entry {} of term {}.", recovered.index, recovered.term);
    println!("Now:");
    if configuration.servers.len() > 1 {
        println!("  1. Give each server of the list a copy of {directory} in place of its old one.");
        println!("  2. Start them.");
    } else {
        println!("  1. Put {directory} in its place, if it is a copy.");
        println!("  2. Start the server, with the id and the address of the list.");
    }
    println!("  3. Servers that are not in the list: empty their directories; then they can join again.");
    println!("Never start a server with its old directory: it could bring back what was given up.");
}

fn say(
    options: &Options,
    result: &str,
    (candidates, kept): (&[Candidate], &Candidate),
    configuration: &Configuration,
    recovered: Option<Recovered>,
) {
    if !options.json {
        return;
    }
    let directories = candidates.iter().map(|candidate| {
        Json::Object(vec![
            ("directory", candidate.directory.display().to_string().into()),
            ("last_index", candidate.contents.last_index.0.into()),
            ("term", candidate.contents.highest_term.0.into()),
        ])
    });
    let object = vec![
        ("result", result.into()),
        ("keep", kept.directory.display().to_string().into()),
        ("directories", Json::List(directories.collect())),
        ("servers", servers_json(configuration)),
        ("index", recovered.map(|recovered| recovered.index.0).into()),
        ("term", recovered.map(|recovered| recovered.term.0).into()),
    ];
    println!("{}", Json::Object(object));
}
