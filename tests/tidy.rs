//! Rules for the source that no compiler checks: layers, sizes, documentation, the homes of `unsafe`, banned
//! words. docs/ARCHITECTURE.md, section 3, has the layers; CONTRIBUTING.md has the rest.

use std::fs;
use std::path::{Path, PathBuf};

const LINE_WIDTH_MAX: usize = 110;
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
/// A safety comment stands at most this many lines above its block, for statements over several lines.
const SAFETY_DISTANCE_MAX: usize = 5;

/// Which modules a module may name, beside itself. `a::b` allows only that part of `a`.
const LAYERS: [(&str, &[&str]); 15] = [
    ("codec", &[]),
    ("error", &[]),
    ("config", &[]),
    ("trace", &["config"]),
    ("raft", &["codec", "config"]),
    ("sqlite", &["error", "config"]),
    ("wire", &["codec", "error", "config", "raft"]),
    ("store", &["codec", "error", "config", "raft"]),
    ("vfs", &["codec", "error", "config", "sqlite"]),
    ("net", &["codec", "error", "config", "raft", "wire"]),
    ("db", &["codec", "error", "config", "vfs", "sqlite", "wire"]),
    ("node", &["codec", "error", "config", "raft", "sqlite", "wire", "store", "vfs", "net", "db"]),
    ("client", &["codec", "error", "config", "wire", "net"]),
    ("server", &["codec", "error", "config", "wire", "net", "node", "client"]),
    ("ffi", &["codec", "error", "config", "trace", "raft", "sqlite", "node", "server"]),
];

/// Of the Raft core, the modules beside it know the plain data only; only `node` drives it.
const ONLY_FOR_NODE: [&str; 5] =
    ["raft::Raft", "raft::Input", "raft::Output", "raft::Outputs", "raft::StepError"];

/// The directories that may say `unsafe`.
const UNSAFE_HOMES: [&str; 3] = ["ffi", "sqlite", "vfs"];

/// What the Raft core must not touch: it has no clock, no I/O and no threads.
const NOT_IN_RAFT: [&str; 6] = ["std::time", "std::fs", "std::net", "std::thread", "tokio::", "rustix::"];

/// Words that say nothing or that stand for work not done. Split, so that this file does not find itself.
const BANNED: [&str; 9] = [
    concat!("ut", "il"),
    concat!("ut", "ils"),
    concat!("hel", "per"),
    concat!("hel", "pers"),
    concat!("m", "gr"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("HA", "CK"),
    concat!("X", "XX"),
];

struct Source {
    /// From the root of the repository, as in "src/raft/mod.rs".
    path: PathBuf,
    text: String,
}

impl Source {
    /// "raft" for src/raft.rs and everything in src/raft/; empty for src/lib.rs and for what is not in src.
    fn module(&self) -> &str {
        let Ok(inside) = self.path.strip_prefix("src") else { return "" };
        let first = inside.components().next().and_then(|part| part.as_os_str().to_str()).unwrap_or("");
        if first == "lib.rs" { "" } else { first.strip_suffix(".rs").unwrap_or(first) }
    }

    fn is_test(&self) -> bool {
        !self.path.starts_with("src") || self.path.to_string_lossy().ends_with("_test.rs")
    }

    /// The lines with their numbers, without the tests at the end of the file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests = self.text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(usize::MAX);
        let count = if self.is_test() { 0 } else { tests };
        (1..).zip(self.text.lines()).take(count)
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for directory in ["src", "tests", "benches"] {
        collect(root, &root.join(directory), &mut sources);
    }
    sources.push(read(root, &root.join("build.rs")));
    assert!(sources.len() > 10, "the source tree was not found");
    sources
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(read(root, &path));
        }
    }
}

fn read(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source file is readable UTF-8");
    Source { path: path.strip_prefix(root).expect("found below the root").to_owned(), text }
}

/// Without its comment. A `//` inside a text also ends it, which loses nothing that is looked for here.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Whether `word` stands in `line` by itself or between underscores.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric();
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_part) && !line[start + word.len()..].starts_with(is_part)
    })
}

fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "\n{rule}:\n  {}\n", findings.join("\n  "));
}

/// The paths of a use tree, two names deep: `raft::{types::Term, message}` gives raft::types and
/// raft::message.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        return members(group).into_iter().flat_map(expand).collect();
    }
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tree.len());
    let (first, rest) = tree.split_at(end);
    match rest.strip_prefix("::") {
        None => vec![first.to_owned()],
        Some(rest) if rest.trim_start().starts_with('{') => {
            let group = rest.trim_start().strip_prefix('{').unwrap_or(rest);
            members(group).into_iter().map(|member| format!("{first}::{}", name(member))).collect()
        }
        Some(rest) => vec![format!("{first}::{}", name(rest))],
    }
}

fn name(tree: &str) -> &str {
    let tree = tree.trim_start();
    &tree[..tree.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tree.len())]
}

/// The members of a group whose opening brace was read already.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut members) = (0, 0, Vec::new());
    for (position, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                members.push(&group[start..position]);
                start = position + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    members.into_iter().filter(|member| !member.trim().is_empty()).collect()
}

#[test]
fn use_trees_are_expanded_two_names_deep() {
    assert_eq!(expand("raft::types::Term;"), ["raft::types"]);
    assert_eq!(expand("codec;"), ["codec"]);
    assert_eq!(
        expand("{codec::Reader, raft::{types::{Term, Index}, message}, config};"),
        ["codec::Reader", "raft::types", "raft::message", "config"]
    );
}

#[test]
fn modules_use_only_the_layers_below_them() {
    let mut findings = Vec::new();
    for source in sources() {
        let module = source.module();
        if module.is_empty() || module == "bin" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            findings.push(format!("{}: module {module} is not in the table", source.path.display()));
            continue;
        };
        let code: String = source.code().map(|(_, line)| without_comment(line).to_owned() + "\n").collect();
        for (start, found) in code.match_indices("crate::") {
            let line = code[..start].lines().count().max(1);
            for path in expand(&code[start + found.len()..]) {
                let target = name(&path);
                let is_allowed = allowed.iter().any(|entry| *entry == target || *entry == path)
                    && (module == "node" || !ONLY_FOR_NODE.contains(&path.as_str()));
                if target != module && !is_allowed {
                    findings.push(format!("{}:{line}: {module} must not use {path}", source.path.display()));
                }
            }
        }
    }
    report("Layers (docs/ARCHITECTURE.md, section 3)", &findings);
}

#[test]
fn the_raft_core_has_no_clock_no_files_and_no_threads() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| source.module() == "raft") {
        for (number, line) in source.code() {
            for path in NOT_IN_RAFT.iter().filter(|path| without_comment(line).contains(*path)) {
                findings.push(format!("{}:{number}: {path}", source.path.display()));
            }
        }
    }
    report("The Raft core is deterministic: what happens outside comes in as Input", &findings);
}

#[test]
fn files_functions_and_lines_are_not_too_long() {
    let mut findings = Vec::new();
    for source in sources() {
        let path = source.path.display();
        for (number, line) in (1..).zip(source.text.lines()) {
            let width = line.chars().count();
            if width > LINE_WIDTH_MAX {
                findings.push(format!("{path}:{number}: {width} columns, at most {LINE_WIDTH_MAX}"));
            }
        }
        let lines = source.code().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{path}: {lines} lines without tests, at most {FILE_LINES_MAX}"));
        }
        for (number, name, lines) in functions(&source) {
            if lines > FUNCTION_LINES_MAX {
                findings
                    .push(format!("{path}:{number}: {name}: {lines} lines, at most {FUNCTION_LINES_MAX}"));
            }
        }
    }
    report("Too long", &findings);
}

/// First line, name and number of lines of each function, found by rustfmt's indentation.
fn functions(source: &Source) -> Vec<(usize, String, usize)> {
    let lines: Vec<(usize, &str)> = source.code().collect();
    let mut functions = Vec::new();
    for (position, (number, line)) in lines.iter().enumerate() {
        let code = without_comment(line);
        let Some(start) = code.find("fn ").filter(|start| *start == 0 || code[..*start].ends_with(' '))
        else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let Some(length) = lines[position..].iter().position(|(_, line)| *line == end) else { continue };
        functions.push((*number, name(&code[start + 3..]).to_owned(), length + 1));
    }
    functions
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let findings: Vec<String> = sources()
        .iter()
        .filter(|source| !source.path.to_string_lossy().ends_with("_test.rs"))
        .filter(|source| !source.text.starts_with("//!") || source.text.starts_with("//! Skeleton"))
        .map(|source| source.path.display().to_string())
        .collect();
    report("Files without a module comment (//!)", &findings);
}

#[test]
fn unsafe_stays_in_its_homes_and_says_why() {
    let mut findings = Vec::new();
    for source in sources() {
        let module = source.module().to_owned();
        let lines: Vec<(usize, &str)> = source.code().collect();
        for (position, (number, line)) in lines.iter().enumerate() {
            let code = without_comment(line);
            if !has_word(code, "unsafe") || code.trim_start().starts_with("#!") {
                continue;
            }
            let place = format!("{}:{number}", source.path.display());
            if !module.is_empty() && !UNSAFE_HOMES.contains(&module.as_str()) {
                findings.push(format!("{place}: unsafe outside {}", UNSAFE_HOMES.join(", ")));
            }
            let needs_reason = code.contains("unsafe {") || code.contains("unsafe impl");
            let above = &lines[position.saturating_sub(SAFETY_DISTANCE_MAX)..=position];
            if needs_reason && !above.iter().any(|(_, line)| line.contains("SAFETY:")) {
                findings.push(format!("{place}: no `// SAFETY:` line above"));
            }
        }
    }
    report("unsafe", &findings);
}

#[test]
fn no_word_stands_for_nothing_or_for_work_not_done() {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in (1..).zip(source.text.lines()) {
            for word in BANNED.iter().filter(|word| has_word(line, word)) {
                findings.push(format!("{}:{number}: {word}", source.path.display()));
            }
        }
        let stem = source.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if stem.is_some_and(|stem| stem == "common" || BANNED.contains(&stem.as_str())) {
            findings.push(format!("{}: a file name that says nothing", source.path.display()));
        }
    }
    report("Banned words", &findings);
}
