//! `on-disk-format.md` names the code that implements it; this keeps the names true.

use mallet::format::Rule;
use mallet::format::namehash::NameHash;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document() -> String {
    fs::read_to_string(root().join("on-disk-format.md")).expect("on-disk-format.md")
}

/// The code spans of `text`, fenced blocks left out.
fn code_spans(text: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every path into the sources that the document names, `Rule::X` in full.
fn names(text: &str) -> BTreeSet<String> {
    let spans = code_spans(text).into_iter();
    let paths = spans.filter(|s| s.contains("::") && s.chars().all(|c| is_word(c) || c == ':'));
    paths
        .map(|path| match path.strip_prefix("Rule::") {
            Some(variant) => format!("format::fault::Rule::{variant}"),
            None => path.to_owned(),
        })
        .collect()
}

/// The file of the longest module that `path` starts with, and what is left of the path.
fn module_file(path: &str) -> Option<(PathBuf, Vec<&str>)> {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().find_map(|taken| {
        let stem = root().join("src").join(parts[..taken].join("/"));
        let files = [stem.with_extension("rs"), stem.join("mod.rs")];
        let file = files.into_iter().find(|file| file.is_file())?;
        Some((file, parts[taken..].to_vec()))
    })
}

/// Whether `source` declares `name`: an item, a field or a variant.
fn declares(source: &str, name: &str) -> bool {
    let items = [
        "struct", "enum", "trait", "fn", "const", "static", "type", "mod",
    ];
    source.lines().any(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let mut words = line.split(|c| !is_word(c)).filter(|w| !w.is_empty());
        let is_item = items
            .iter()
            .any(|item| line.starts_with(&format!("{item} ")))
            && words.any(|word| word == name);
        let is_member = line.strip_prefix(name).is_some_and(|rest| {
            let rest = rest.trim_start();
            [",", "(", "{", "=", ":"]
                .iter()
                .any(|end| rest.starts_with(end))
        });
        is_item || is_member
    })
}

fn exists(path: &str) -> bool {
    let Some((file, rest)) = module_file(path) else {
        return false;
    };
    let source = fs::read_to_string(&file).expect("a readable source file");
    rest.iter().all(|name| declares(&source, name))
}

#[test]
fn names_exist() {
    let text = document();
    let names = names(&text);
    assert!(names.len() > 100, "only {} names found", names.len());
    let missing: Vec<&String> = names.iter().filter(|name| !exists(name)).collect();
    assert!(
        missing.is_empty(),
        "named, but not in the sources: {missing:?}"
    );
}

/// Each rule has its row, with the name that output shows.
#[test]
fn rules_are_listed() {
    let text = document();
    for rule in Rule::ALL {
        let row = format!("| `Rule::{rule:?}` | {} |", rule.name());
        assert_eq!(text.matches(&row).count(), 1, "rows like {row}");
    }
}

/// Implementing by the document's vectors gives what this implementation gives.
#[test]
fn hash_vectors_are_right() {
    let text = document();
    let table = text.split("## 27. Test vectors").nth(1).expect("part 27");
    let mut rows = 0;
    for line in table.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, alg0, alg1, _] = cells[..] else {
            continue;
        };
        let (Ok(alg0), Ok(alg1)) = (i64::from_str_radix(alg0, 16), i64::from_str_radix(alg1, 16))
        else {
            continue;
        };
        assert_eq!(NameHash::Alg0.key(name.as_bytes()), alg0, "{name}");
        assert_eq!(NameHash::Alg1.key(name.as_bytes()), alg1, "{name}");
        rows += 1;
    }
    assert_eq!(rows, 9);
}

/// The search below the test is not satisfied by anything.
#[test]
fn declarations_are_told_from_mentions() {
    let source =
        "/// Uses Gone.\npub struct Here;\nenum E {\n    A,\n    B(u8),\n}\n    pub field: u8,\n";
    for name in ["Here", "E", "A", "B", "field"] {
        assert!(declares(source, name), "{name}");
    }
    for name in ["Gone", "Her", "u8", "Uses"] {
        assert!(!declares(source, name), "{name}");
    }
}
