//! `docs/compatibility.md` is true and complete: every row names tests that exist and that `make check` runs,
//! and everything that the library exports, speaks, writes or reads from the environment has a row.
//!
//! A reference is `path#name`. In Rust the name is that of a test function; elsewhere it is a word of a line
//! that is no comment: a function, a step of a script, a scenario, the name of a recording.

// A broken document ends the test; that is what a panic is for here.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dqlite::wire::failure;
use dqlite::wire::request::RequestType;
use dqlite::wire::response::ResponseType;

const DOCUMENT: &str = "docs/compatibility.md";
const TEST_COLUMN: &str = "Test";
/// Directories at the root in which nothing is run.
const NOT_SOURCES: [&str; 5] = [".git", "build", "docs", "include", "target"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// A row of a table, with the names of its columns.
struct Row {
    line: usize,
    columns: Vec<String>,
    cells: Vec<String>,
}

impl Row {
    fn cell(&self, column: &str) -> Option<&str> {
        let position = self.columns.iter().position(|name| name == column)?;
        self.cells.get(position).map(String::as_str)
    }
}

fn cells(line: &str) -> Vec<String> {
    let inside = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\0");
    inside.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        if !content.starts_with('|') {
            columns.clear();
        } else if columns.is_empty() {
            columns = cells(content);
        } else if !content.starts_with("|---") && !content.starts_with("| ---") {
            rows.push(Row { line, columns: columns.clone(), cells: cells(content) });
        }
    }
    rows
}

fn document() -> Vec<Row> {
    rows(&read(DOCUMENT))
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Files below a directory of the repository, by their paths in it.
fn files_below(directory: &str, files: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            files_below(&path, files);
        } else {
            files.insert(path);
        }
    }
}

fn is_part_of_word(character: Option<char>) -> bool {
    character.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !is_part_of_word(line[..at].chars().next_back())
            && !is_part_of_word(line[at + word.len()..].chars().next())
    })
}

/// The lines of a file that are no comments.
fn code_of(path: &str) -> String {
    let extension = path.rsplit('.').next().unwrap();
    let comments: &[&str] = match extension {
        "sh" | "py" => &["#"],
        "c" | "h" => &["/*", "*", "//"],
        "rs" => &["//"],
        _ => &[],
    };
    let is_code = |line: &&str| !comments.iter().any(|comment| line.trim_start().starts_with(comment));
    read(path).lines().filter(is_code).fold(String::new(), |code, line| code + line + "\n")
}

/// Whether cargo compiles this file into a test program.
fn is_rust_test(path: &str, files: &BTreeSet<String>) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap();
    if let Some(stem) = name.strip_suffix("_test.rs").filter(|_| path.starts_with("src/")) {
        let declared = format!("#[path = \"{stem}_test.rs\"]");
        return files.iter().any(|file| file.starts_with(directory) && read(file).contains(&declared));
    }
    let is_target = |path: &str| {
        path.starts_with("tests/") && (path.matches('/').count() == 1 || path.ends_with("/main.rs"))
            || read("Cargo.toml").contains(&format!("path = \"{path}\""))
    };
    let declares = |file: &&String| {
        let declared = format!("mod {};", name.strip_suffix(".rs").unwrap());
        file.starts_with(directory) && is_target(file) && read(file).lines().any(|line| line == declared)
    };
    path.starts_with("src/") || is_target(path) || files.iter().any(|file| declares(&file))
}

/// What the code of files that are run names.
struct Named {
    /// Everything that may be the name of a file, without the directories before it.
    words: BTreeSet<String>,
    /// Directories that tests in Rust read whole, those that scripts write as `DIRECTORY/*`, and Go programs.
    directories: BTreeSet<String>,
    code: String,
}

impl Named {
    fn by(paths: &[String]) -> Named {
        let code: String = paths.iter().map(|path| code_of(path)).collect();
        let is_between = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let words = code.split(is_between).map(str::to_owned).collect();
        let rust: String =
            paths.iter().filter(|path| path.ends_with(".rs")).map(|path| code_of(path)).collect();
        let literals = rust.split('"').map(|literal| literal.trim_start_matches('/'));
        let globs = code.split([' ', '"', '\n']).filter_map(|word| Some(word.split_once("/*")?.0));
        let go_programs = code.lines().filter(|line| line.contains("go build")).filter_map(|line| {
            let directory = line.trim_start().strip_prefix("(cd ")?;
            directory.split(' ').next()
        });
        let directories = literals.chain(globs).chain(go_programs).filter(|path| path.contains('/'));
        let directories = directories.map(str::to_owned).collect();
        Named { words, directories, code }
    }

    fn has(&self, path: &str) -> bool {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let stem = name.split('.').next().unwrap();
        let is_scenario = |line: &str| {
            line.trim_start().starts_with("scenario ") && line.split(' ').any(|word| word == stem)
        };
        let imports = [format!("\nfrom {stem} import "), format!("\nimport {stem}\n")];
        let is_started =
            || imports.iter().any(|import| self.code.contains(import)) || self.code.lines().any(is_scenario);
        let mut parents = directory.match_indices('/').map(|(end, _)| &directory[..end]).chain([directory]);
        self.words.contains(name)
            || name.ends_with(".py") && is_started()
            || parents.any(|parent| self.directories.contains(parent))
    }
}

/// Files that `make check` runs, or that what it runs reads.
fn run_files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !NOT_SOURCES.contains(&name.as_str()) {
            files_below(&name, &mut files);
        }
    }
    let (rust, others): (BTreeSet<_>, BTreeSet<_>) =
        files.into_iter().partition(|path| path.ends_with(".rs"));
    let mut run: BTreeSet<String> = rust.iter().filter(|path| is_rust_test(path, &rust)).cloned().collect();
    run.insert("tests/check.sh".into());
    // Programs that were found last. This one names others only as examples.
    let is_program = |path: &&String| !path.starts_with("src/") && *path != "tests/compatibility.rs";
    let mut found: Vec<String> = run.iter().filter(is_program).cloned().collect();
    while !found.is_empty() {
        let named = Named::by(&found);
        found = others.iter().filter(|path| !run.contains(*path) && named.has(path)).cloned().collect();
        run.extend(found.iter().cloned());
        // Recordings and the like name nothing.
        found.retain(|path| [".sh", ".py", ".c", ".rs"].iter().any(|end| path.ends_with(end)));
    }
    run
}

/// Why a reference proves nothing.
fn problem(reference: &str, run: &BTreeSet<String>) -> Option<String> {
    let Some((path, name)) = reference.split_once('#') else {
        return Some("is no reference of the form path#name".into());
    };
    let text = read(path);
    if text.is_empty() {
        return Some("there is no such file".into());
    }
    if !run.contains(path) {
        return Some(format!("{path} is not run by make check"));
    }
    let lines: Vec<&str> = text.lines().collect();
    if path.ends_with(".rs") {
        let is_test = |at: usize| {
            let above = &lines[at.saturating_sub(4)..at];
            above.iter().any(|line| line.contains("test]") || line.contains("::test("))
                && !above.iter().any(|line| line.contains("#[ignore"))
        };
        let declared = format!("fn {name}(");
        let found = (0..lines.len()).any(|at| lines[at].contains(&declared) && is_test(at));
        return (!found).then(|| format!("{path} has no test {name}"));
    }
    let code = code_of(path);
    // A function of a C program has to be called, too.
    let least = 1 + usize::from(code.contains(&format!("static void {name}(void)")));
    let count = code.lines().filter(|line| has_word(line, name)).count();
    (count < least).then(|| format!("{name} occurs {count} times in {path}"))
}

#[test]
fn every_row_names_tests_that_exist_and_are_run() {
    let run = run_files();
    let mut problems = String::new();
    let mut count = 0;
    for row in document() {
        let line = row.line;
        if row.cells.len() != row.columns.len() {
            problems += &format!("{DOCUMENT}:{line}: {} cells of {}\n", row.cells.len(), row.columns.len());
        }
        if !row.columns.iter().any(|column| column == TEST_COLUMN) {
            continue;
        }
        let references: Vec<&str> = quoted(row.cell(TEST_COLUMN).unwrap_or_default()).collect();
        if references.is_empty() {
            problems += &format!("{DOCUMENT}:{line}: this row names no test\n");
        }
        for reference in references {
            count += 1;
            if let Some(problem) = problem(reference, &run) {
                problems += &format!("{DOCUMENT}:{line}: `{reference}`: {problem}\n");
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
    assert!(count > 300, "only {count} references");
}

#[test]
fn what_make_check_leaves_out_is_no_proof() {
    let run = run_files();
    for path in ["tests/dropin/failover.py", "tests/dropin/stalled.py", "c-tests/compare/latency.c"] {
        assert!(!read(path).is_empty(), "{path}");
        assert!(!run.contains(path), "{path}");
    }
    for (reference, expected) in [
        ("tests/dropin/failover.py#main", "is not run"),
        ("tests/dropin/nosuch.py#main", "no such file"),
        ("tests/dropin/mixed.py#nosuch", "occurs 0 times"),
        ("tests/compatibility.rs#run_files", "has no test"),
        ("c-tests/lifecycle.c", "no reference"),
    ] {
        let problem = problem(reference, &run).unwrap();
        assert!(problem.contains(expected), "{reference}: {problem}");
    }
}

/// The rows of the table with these columns, by its first cell.
fn table(columns: &[&str]) -> BTreeMap<String, Row> {
    let is_it = |row: &Row| row.columns.iter().zip(columns).filter(|(is, should)| is == should).count();
    let rows: BTreeMap<_, _> = document()
        .into_iter()
        .filter(|row| is_it(row) == columns.len())
        .map(|row| (row.cells[0].clone(), row))
        .collect();
    assert!(!rows.is_empty(), "{DOCUMENT} has no table {columns:?}");
    rows
}

#[test]
fn every_exported_symbol_is_in_the_matrix() {
    let rows = table(&["Symbol", "C"]);
    for line in read("c-tests/symbols.txt").lines().filter(|line| !line.starts_with('#')) {
        let symbol = line.split_whitespace().nth(1).unwrap();
        assert!(rows.contains_key(&format!("`{symbol}`")), "{DOCUMENT}: no row for {symbol}");
    }
}

/// "ExecSql" as "EXEC_SQL".
fn in_capitals(name: &str) -> String {
    let mut capitals = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !capitals.is_empty() {
            capitals.push('_');
        }
        capitals.push(character.to_ascii_uppercase());
    }
    capitals
}

fn expect_names(columns: &[&str; 2], known: impl Iterator<Item = (u64, String)>) {
    let rows = table(columns);
    for (number, name) in known {
        let row = rows.get(&number.to_string());
        let is_named = row.is_some_and(|row| row.cells[1].split(", ").any(|cell| cell == name));
        assert!(is_named, "{DOCUMENT}: {} {number} {name} has no row", columns[1]);
    }
}

#[test]
fn every_request_and_response_is_in_the_matrix() {
    let requests = (0..=u8::MAX).filter_map(|number| {
        Some((number.into(), in_capitals(&format!("{:?}", RequestType::from_u8(number)?))))
    });
    expect_names(&["#", "Request"], requests);
    let responses = (0..=u8::MAX).filter_map(|number| {
        Some((number.into(), in_capitals(&format!("{:?}", ResponseType::from_u8(number)?))))
    });
    expect_names(&["#", "Response"], responses);
}

/// The lines of an enum, without comments and attributes.
fn variants(path: &str, declaration: &str) -> Vec<String> {
    let code = code_of(path);
    let (_, body) = code.split_once(declaration).unwrap_or_else(|| panic!("{path} has no {declaration}"));
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().map(|line| line.trim().trim_end_matches(','));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn every_raft_message_is_in_the_matrix() {
    let types = variants("src/wire/raft.rs", "pub enum MessageType {");
    assert_eq!(types.len(), 6, "{types:?}");
    let numbered = types.iter().map(|line| {
        let (name, number) = line.split_once(" = ").unwrap();
        (number.parse().unwrap(), name.to_owned())
    });
    expect_names(&["#", "Message"], numbered);
}

#[test]
fn every_kind_of_file_is_in_the_matrix() {
    let kinds: BTreeSet<String> = document()
        .iter()
        .filter_map(|row| Some(row.cell("Kind")?.to_owned()).filter(|_| row.cell("File").is_some()))
        .collect();
    for variant in variants("src/store/list.rs", "pub(super) enum Name {") {
        let name = variant.split('(').next().unwrap();
        let kind = in_capitals(name).to_lowercase().replace('_', " ");
        assert!(kinds.contains(&kind), "{DOCUMENT}: no row of kind {kind:?}, only {kinds:?}");
    }
}

/// Failures by the names of their constants: code and text.
fn failures() -> Vec<(String, Option<u64>, &'static str)> {
    let code = code_of("src/wire/failure.rs");
    let (_, list) = code.split_once("\nfailures! {").unwrap();
    let (list, _) = list.split_once("\n}").unwrap();
    let names = list.lines().filter_map(|line| line.trim().split_once(" = ").map(|(name, _)| name));
    let mut failures: Vec<_> = names
        .zip(failure::ALL)
        .map(|(name, failure)| (name.to_owned(), Some(failure.code), failure.text))
        .collect();
    assert_eq!(failures.len(), failure::ALL.len());
    failures.push(("TEXT_DUMP_OPEN".into(), None, failure::TEXT_DUMP_OPEN));
    failures.push(("TEXT_DUMP_DATABASE".into(), None, failure::TEXT_DUMP_DATABASE));
    failures.push(("TEXT_DUMP_WAL".into(), None, failure::TEXT_DUMP_WAL));
    failures
}

/// The rows of the failure with this code and text, of which two requests may have one each.
fn rows_of_failure(code: Option<u64>, text: &str) -> Vec<Row> {
    let is_it = |row: &Row| {
        let told = row.cell("Code").zip(row.cell("Text"));
        told.is_some_and(|(is, texts)| {
            quoted(texts).any(|told| told == text) && code.is_none_or(|code| code.to_string() == is)
        })
    };
    document().into_iter().filter(is_it).collect()
}

#[test]
fn failures_are_in_the_matrix_with_code_and_text() {
    for (name, code, text) in failures() {
        assert!(!rows_of_failure(code, text).is_empty(), "{DOCUMENT}: no row for {name}: {code:?} {text:?}");
    }
}

/// What the library itself says, without its tests.
fn source_without_tests() -> BTreeMap<String, String> {
    let mut files = BTreeSet::new();
    files_below("src", &mut files);
    let is_source = |path: &String| path.ends_with(".rs") && !path.ends_with("_test.rs");
    let without_tests = |path: &str| code_of(path).split("\n#[cfg(test)]").next().unwrap().to_owned();
    files.into_iter().filter(is_source).map(|path| (path.clone(), without_tests(&path))).collect()
}

#[test]
fn failures_that_are_never_sent_are_used_nowhere() {
    let sources = source_without_tests();
    for (name, code, text) in failures() {
        let mut users = sources.iter().filter(|(path, _)| *path != "src/wire/failure.rs");
        let is_used = users.any(|(_, code)| code.lines().any(|line| has_word(line, &name)));
        for row in rows_of_failure(code, text) {
            let is_sent = !row.cell("When").unwrap().starts_with("never sent");
            assert_eq!(is_sent, is_used, "{DOCUMENT}:{}: {name} is used: {is_used}", row.line);
        }
    }
}

#[test]
fn every_environment_variable_is_in_the_matrix() {
    let mut read_variables = BTreeSet::new();
    for (path, code) in source_without_tests() {
        for (at, call) in code.match_indices("env::var").filter(|(at, _)| code[*at..].contains('(')) {
            let argument = code[at + call.len()..].split(['(', ')']).nth(1).unwrap();
            let name = argument.trim_matches('"');
            let constant = format!("const {name}: &str = \"");
            let value = code.split_once(&constant).map(|(_, rest)| rest.split('"').next().unwrap());
            assert!(argument.starts_with('"') || value.is_some(), "{path}: which variable is {argument}?");
            read_variables.insert(value.unwrap_or(name).to_owned());
        }
    }
    let rows = table(&["Variable", "Here"]);
    let documented: BTreeSet<String> = rows
        .values()
        .filter(|row| !row.cells[1].starts_with("not read"))
        .flat_map(|row| quoted(&row.cells[0]).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(read_variables, documented);
}
