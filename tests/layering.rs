//! The sources keep their own rules: rooms import only from rooms below, `unsafe` has its two
//! places, only the command line prints or knows its crates, files hold one idea.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and what they stand on. Rooms of one level do not know each other.
const ROOMS: [(&str, u8); 10] = [
    ("format", 0),
    ("error", 1),
    ("progress", 2),
    ("io", 3),
    ("store", 4),
    ("btree", 5),
    ("fs", 6),
    ("mirror", 7),
    ("check", 7),
    ("cli", 8),
];
/// Pairs that the levels would allow and the design does not.
const STRANGERS: [(&str, &str); 1] = [("io", "format")];
/// The only files that may say `unsafe`.
const UNSAFE: [&str; 2] = ["src/io/uring.rs", "src/io/sys.rs"];
/// What only the command line may use.
const CLI_ONLY: [&str; 10] = [
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "stdout()",
    "stderr()",
    "clap::",
    "indicatif::",
    "anyhow::",
];
/// Lines in a file, at most.
const LINES_MAX: usize = 700;

/// A source file: its path from the root of the project, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let name = rest.split('/').next()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        ROOMS.iter().any(|(room, _)| *room == name).then_some(name)
    }

    /// The text without comments; `tests` says whether to keep what only tests see.
    fn code(&self, tests: bool) -> String {
        let mut code = String::new();
        for line in self.text.lines() {
            if !tests && line.trim() == "#[cfg(test)]" {
                break;
            }
            let line = if line.trim_start().starts_with("//") {
                ""
            } else {
                line
            };
            code.push_str(line.split(" // ").next().unwrap_or_default());
            code.push('\n');
        }
        code
    }
}

fn level(room: &str) -> Option<u8> {
    ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, level)| *level)
}

/// Names that follow `crate::` (one, or a group in braces) or `super::super::`.
fn imports(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for start in ["crate::", "super::super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + start.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(group_names(group)),
                None => names.extend(word(rest)),
            }
        }
    }
    names
}

/// The first word of every entry of a group whose opening brace has been read.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && c.is_alphabetic() => {
                names.extend(word(&group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

fn has_word(code: &str, wanted: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(wanted)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + wanted.len()..].starts_with(part))
}

/// Everything that is wrong with one file.
fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    let path = &source.path;
    if let Some(room) = source.room() {
        let own = level(room).expect("a room");
        for name in imports(&source.code(true)) {
            let Some(other) = level(&name) else { continue };
            let stranger = STRANGERS.contains(&(room, name.as_str()));
            if name != room && (other >= own || stranger) {
                faults.push(format!(
                    "{path}: {room} imports {name}, which is not below it"
                ));
            }
        }
    }
    if !UNSAFE.contains(&path.as_str()) && has_word(&source.code(true), "unsafe") {
        faults.push(format!("{path}: unsafe"));
    }
    if path.starts_with("src/") && source.room() != Some("cli") {
        let code = source.code(false);
        for wanted in CLI_ONLY {
            let found = code
                .match_indices(wanted)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if found {
                faults.push(format!("{path}: {wanted} outside the command line"));
            }
        }
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{path}: {lines} lines, more than {LINES_MAX}"));
    }
    faults
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let folders = ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"];
    let mut todo: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = todo.pop() {
        // Not every folder need be there.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(root).expect("below the root");
                found.push(Source {
                    path: path.display().to_string(),
                    text,
                });
            }
        }
    }
    found
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources();
    assert!(sources.len() > 20, "only {} sources found", sources.len());
    // This file talks about what it forbids.
    let faults: Vec<String> = sources
        .iter()
        .filter(|source| source.path != "tests/layering.rs")
        .flat_map(faults)
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_room_is_known() {
    let rooms: Vec<String> = sources()
        .into_iter()
        .filter_map(|source| {
            let rest = source.path.strip_prefix("src/")?;
            let name = rest.split('/').next()?;
            Some(name.strip_suffix(".rs").unwrap_or(name).to_owned())
        })
        .filter(|name| !["lib", "main"].contains(&name.as_str()))
        .collect();
    for room in &rooms {
        assert!(
            level(room).is_some(),
            "src/{room} has no level in this test"
        );
    }
}

#[test]
fn violations_are_seen() {
    let check = |path: &str, text: &str| {
        faults(&Source {
            path: path.into(),
            text: text.into(),
        })
        .len()
    };
    for (path, text, count) in [
        ("src/store/view.rs", "use crate::btree::Scan;", 1),
        ("src/store/view.rs", "use crate::format::Tid;", 0),
        (
            "src/store/view.rs",
            "use crate::{format::{Tid, Zone}, fs::Inode, io};",
            1,
        ),
        ("src/store/view.rs", "fn f() { crate::cli::main() }", 1),
        ("src/store/view.rs", "use super::super::fs;", 1),
        (
            "src/store/view.rs",
            "// use crate::cli;\n/// `crate::cli`\n",
            0,
        ),
        (
            "src/store/view.rs",
            "#[cfg(test)]\nmod tests { use crate::btree::x; }",
            1,
        ),
        ("src/io/mod.rs", "use crate::format::Tid;", 1),
        ("src/format/mod.rs", "use crate::error::Error;", 1),
        ("src/error.rs", "use crate::format::Fault;", 0),
        ("src/error.rs", "use crate::io::Device;", 1),
        ("src/mirror/mod.rs", "use crate::check::tree;", 1),
        ("src/cli/mod.rs", "use crate::mirror::wire;", 0),
        ("src/io/mod.rs", "unsafe { f() }", 1),
        ("src/io/sys.rs", "unsafe { f() }", 0),
        ("src/lib.rs", "#![deny(unsafe_code)]", 0),
        ("src/fs/mod.rs", "fn f() { println!(); }", 1),
        ("src/fs/mod.rs", "#[cfg(test)]\nfn f() { println!(); }", 0),
        ("src/cli/mod.rs", "fn f() { println!(); }", 0),
        ("src/fs/mod.rs", "use anyhow::Result;", 1),
        ("tests/x.rs", "fn f() { println!(); }", 0),
        ("tests/x.rs", &"\n".repeat(701), 1),
    ] {
        assert_eq!(check(path, text), count, "{path}: {text:.60}");
    }
}
