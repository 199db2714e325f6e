//! `testdata/README.md` says of every file what it is and what its checksum is.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Every file below `folder` with its checksum, named from `testdata/`.
fn files(folder: &Path, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of test data") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            files(&path, out);
            continue;
        }
        let name = path
            .strip_prefix(root())
            .expect("a path below")
            .display()
            .to_string();
        let sum = Sha256::digest(fs::read(&path).expect("a readable file"));
        out.insert(name, sum.iter().map(|byte| format!("{byte:02x}")).collect());
    }
}

#[test]
fn every_file_is_noted() {
    let mut found = BTreeMap::new();
    files(&root(), &mut found);
    found.remove("README.md");
    let readme = fs::read_to_string(root().join("README.md")).expect("testdata/README.md");
    let mut noted = BTreeMap::new();
    for line in readme.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, name, what, sum, _] = cells[..]
            && let Some(name) = name.strip_prefix('`').and_then(|n| n.strip_suffix('`'))
        {
            assert!(!what.is_empty(), "{name} has no note of what it is");
            noted.insert(name.to_owned(), sum.to_owned());
        }
    }
    assert_eq!(found, noted);
}

/// The packed files together stay small enough for a source tree.
#[test]
fn it_is_small() {
    let mut found = BTreeMap::new();
    files(&root(), &mut found);
    let size = |name| fs::metadata(root().join(name)).expect("its size").len();
    let sum: u64 = found.keys().map(size).sum();
    assert!(sum < 3 << 20, "{sum} bytes of test data");
}
