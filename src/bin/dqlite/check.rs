//! `dqlite check`: what is in a data directory, whether it is sound, what a start would do. Changes nothing.

use std::path::Path;

use dqlite::raft::{Configuration, Index, Role};
use dqlite::store::{Contents, Error, FileKind, Inspection, Mending, Step};

use crate::Outcome;
use crate::json::Json;

/// Prints what was found.
pub fn run(directory: &Path, json: bool) -> Outcome {
    let found = match Inspection::of(directory) {
        Ok(found) => found,
        Err(error) => return unreadable(directory, &error, json),
    };
    if json {
        println!("{}", as_json(directory, &found));
    } else {
        print(directory, &found);
    }
    outcome(&found)
}

/// Whether a start would refuse or lose anything.
pub fn outcome(found: &Inspection) -> Outcome {
    match &found.contents {
        Ok(contents) if !contents.is_lossy() => Outcome::Good,
        Ok(_) | Err(_) => Outcome::Bad,
    }
}

/// A directory that cannot be looked at at all.
pub fn unreadable(directory: &Path, error: &Error, json: bool) -> Outcome {
    let text = match error {
        Error::Locked => "a running node uses it: stop the node first".into(),
        other => reason(other),
    };
    let directory = directory.display().to_string();
    if json {
        let object =
            vec![("directory", directory.into()), ("result", "unreadable".into()), ("error", text.into())];
        println!("{}", Json::Object(object));
    } else {
        eprintln!("dqlite: {directory}: {text}");
    }
    Outcome::Unusable
}

/// Without the name of the C function under which the library reports it.
pub fn reason(error: &Error) -> String {
    let text = error.to_string();
    let text = text.split_once("(): ").map_or(text.as_str(), |(_, text)| text);
    text.strip_prefix("io: ").unwrap_or(text).to_owned()
}

fn print(directory: &Path, found: &Inspection) {
    println!("{}", directory.display());
    match &found.metadata {
        Ok(metadata) if metadata.is_absent() => println!("  term      none yet"),
        Ok(metadata) => {
            let vote = metadata.voted_for.map_or("no vote".into(), |id| format!("vote for server {id}"));
            println!("  term      {}, {vote}", metadata.term);
        }
        Err(error) => println!("  term      unknown: {}", reason(error)),
    }
    if let Ok(contents) = &found.contents {
        print_contents(contents);
    }
    println!("  files");
    for file in &found.files {
        println!("    {:>10} bytes  {:<45}{}", file.size, file.name, kind_text(file.kind));
    }
    if !found.has_lock_file {
        println!(
            "  There is no dqlite-lock. A node of C dqlite before 1.16.5 takes no lock: make sure that\n  \
             none runs here."
        );
    }
    println!();
    print_verdict(directory, found);
}

/// Snapshot, log and configuration.
fn print_contents(contents: &Contents) {
    match &contents.snapshot {
        Some((point, size)) => {
            println!("  snapshot  up to index {}, term {}, {size} bytes of content", point.index, point.term);
        }
        None => println!("  snapshot  none"),
    }
    if contents.first_index > contents.last_index {
        println!("  log       empty, goes on at index {}", contents.first_index);
    } else {
        let Contents { first_index, last_index, last_term, .. } = contents;
        println!("  log       indexes {first_index} to {last_index}, the last in term {last_term}");
    }
    match &contents.configuration {
        None => println!("  servers   none known"),
        Some((index, configuration)) => {
            println!("  servers   as of index {index}");
            print_servers(configuration);
        }
    }
}

/// One server a line.
pub fn print_servers(configuration: &Configuration) {
    for server in &configuration.servers {
        println!("    {}@{}  {}", server.id, server.address, server.role.name());
    }
}

fn kind_text(kind: FileKind) -> String {
    match kind {
        FileKind::Metadata => "term and vote".into(),
        FileKind::Lock => "lock".into(),
        FileKind::Snapshot => "snapshot".into(),
        FileKind::SnapshotMeta => "configuration of a snapshot".into(),
        FileKind::ClosedSegment => "log".into(),
        FileKind::OpenSegment { entries: Some(0), is_torn: false } => "log, prepared, not used".into(),
        FileKind::OpenSegment { entries: Some(count), is_torn: false } => {
            format!("log, open, {count} entries")
        }
        FileKind::OpenSegment { entries: Some(count), is_torn: true } => {
            format!("log, open, {count} entries, then bytes that are none")
        }
        FileKind::OpenSegment { entries: None, .. } => "log, open, not readable".into(),
        FileKind::Unfinished => "unfinished, removed by the next start".into(),
        FileKind::SetAside => "damaged, set aside by an earlier start".into(),
        FileKind::Foreign => "not of dqlite, left alone".into(),
    }
}

fn print_verdict(directory: &Path, found: &Inspection) {
    match &found.contents {
        Ok(_) if found.is_new() => {
            println!("Sound: nothing in it yet. A node with id 1 would begin a new cluster.")
        }
        Ok(contents) if !contents.is_lossy() => {
            for note in &contents.notes {
                println!("A start would tidy up, without loss: {note}");
            }
            println!("Sound. A start takes over everything up to index {}.", contents.last_index);
        }
        Ok(contents) => print_loss(directory, contents),
        Err(error) => {
            println!("DAMAGED. A start would refuse: {}", reason(error));
            print_repair(directory);
        }
    }
}

fn print_loss(directory: &Path, contents: &Contents) {
    println!(
        "DAMAGED. A start would go on without a part of the log and keep it up to index {}:",
        contents.last_index
    );
    for (file, entries) in &contents.set_aside {
        let lost = entries.map_or("an unknown number of entries".into(), |count| format!("{count} entries"));
        println!("  {file}, {lost}, would be renamed to corrupt-...");
    }
    for note in &contents.notes {
        println!("  {note}");
    }
    if contents.set_aside.is_empty() {
        println!(
            "After a crash or a power cut this is what remains of a write that nobody was told had worked:\n\
             then just start the node. Otherwise the file was damaged later, and its last write is lost."
        );
    } else {
        print_repair(directory);
    }
}

fn print_repair(directory: &Path) {
    println!("What to do, the first that is possible:");
    println!(
        "  1. Other servers of the cluster have a leader: remove this server from the cluster, empty the"
    );
    println!("     directory, and let it join again. It gets everything from the leader.");
    println!("  2. There is a backup of the damaged file: restore it.");
    match Mending::plan(directory) {
        Ok(mending) => {
            println!("  3. {} repair {}", crate::program_name(), directory.display());
            println!("     It would keep everything up to index {}:", mending.last_index);
            for step in &mending.steps {
                println!("     {}", step_text(step));
            }
        }
        Err(error) => println!("  3. No repair is possible: {}", reason(&error)),
    }
}

/// One change of a repair.
pub fn step_text(step: &Step) -> String {
    match step {
        Step::Move { file, reason } => format!("move {file} away: {reason}"),
        Step::Cut { file, kept, reason, .. } if file == kept => {
            format!("cut {file} before its damage: {reason}")
        }
        Step::Cut { file, kept, reason, .. } => format!("cut {file} to {kept} before its damage: {reason}"),
        Step::NewTerm { term, reason } => format!("begin term {term} without a vote: {reason}"),
    }
}

/// Servers as other programs want them.
pub fn servers_json(configuration: &Configuration) -> Json {
    let role = |role| match role {
        Role::Voter => "voter",
        Role::Standby => "stand-by",
        Role::Spare => "spare",
    };
    let servers = configuration.servers.iter().map(|server| {
        Json::Object(vec![
            ("id", server.id.0.into()),
            ("address", server.address.clone().into()),
            ("role", role(server.role).into()),
        ])
    });
    Json::List(servers.collect())
}

/// Changes of a repair.
pub fn steps_json(mending: &Mending) -> Json {
    mending.steps.iter().map(step_text).collect::<Vec<_>>().into()
}

fn as_json(directory: &Path, found: &Inspection) -> Json {
    let result = match &found.contents {
        Err(_) => "refused",
        Ok(contents) if contents.is_lossy() => "lossy",
        Ok(_) if found.is_new() => "new",
        Ok(_) => "sound",
    };
    let mut object = vec![
        ("directory", directory.display().to_string().into()),
        ("result", result.into()),
        ("error", found.contents.as_ref().err().map(reason).into()),
        ("has_lock_file", found.has_lock_file.into()),
    ];
    let metadata = found.metadata.as_ref().ok();
    object.push(("term", metadata.map(|metadata| metadata.term.0).into()));
    let voted_for = metadata.and_then(|metadata| metadata.voted_for);
    object.push(("voted_for", voted_for.map(|id| id.0).into()));
    if let Ok(contents) = &found.contents {
        object.extend(contents_json(contents));
    }
    let files = found.files.iter().map(|file| {
        Json::Object(vec![
            ("name", file.name.clone().into()),
            ("size", file.size.into()),
            ("kind", kind_text(file.kind).into()),
        ])
    });
    object.push(("files", Json::List(files.collect())));
    if outcome(found) == Outcome::Bad {
        let mending = Mending::plan(directory).ok();
        object.push(("repair_keeps_up_to", mending.as_ref().map(|mending| mending.last_index.0).into()));
        object.push(("repair_steps", mending.as_ref().map_or(Json::Null, steps_json)));
    }
    Json::Object(object)
}

fn contents_json(contents: &Contents) -> Vec<(&'static str, Json)> {
    let snapshot = contents.snapshot.as_ref().map(|(point, size)| {
        Json::Object(vec![
            ("index", point.index.0.into()),
            ("term", point.term.0.into()),
            ("content_size", (*size).into()),
        ])
    });
    let set_aside = contents.set_aside.iter().map(|(file, entries)| {
        Json::Object(vec![("file", file.clone().into()), ("entries", (*entries).into())])
    });
    let configuration = contents.configuration.as_ref();
    let index = |index: Index| Json::Number(index.0);
    vec![
        ("snapshot", snapshot.into()),
        ("first_index", index(contents.first_index)),
        ("last_index", index(contents.last_index)),
        ("last_term", contents.last_term.0.into()),
        ("configuration_index", configuration.map(|(index, _)| index.0).into()),
        ("servers", configuration.map(|(_, configuration)| servers_json(configuration)).into()),
        ("notes", contents.notes.clone().into()),
        ("set_aside", Json::List(set_aside.collect())),
        ("torn", contents.torn.clone().into()),
    ]
}
