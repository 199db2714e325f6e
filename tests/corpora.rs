//! Every corpus file of the fuzz targets, and seeded mutations of each, through the same functions
//! that the fuzz targets call: deterministic, bounded, on any compiler.

mod common;
#[path = "common/mutate.rs"]
mod mutate;
#[path = "common/seeds/mod.rs"]
mod seeds;
#[path = "common/targets/mod.rs"]
mod targets;

use common::{unpack, victim};
use mallet::check::{self, Finding, Severity};
use mallet::store::{View, ViewOptions, VolumeSet};
use mutate::{Random, mutated};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Mutations of each file, where a target says nothing else.
const MUTATIONS: u64 = 3000;
/// No input may take longer: the longest measured is a hundredth of this.
const PATIENCE: Duration = Duration::from_secs(10);

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// The corpus of `target`, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| {
            let entry = entry.expect("a directory entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("a corpus file"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    files
}

/// A seed from a name: FNV-1a.
fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Runs one input; says which one it was if that fails.
fn run_one(body: fn(&[u8]), input: &[u8], which: &str) {
    let start = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failing-input");
        let kept = fs::write(&path, input).map(|()| path.display().to_string());
        eprintln!("failed: {which}; the input is in {kept:?}");
        resume_unwind(panic);
    }
    assert!(
        start.elapsed() < PATIENCE,
        "{which} took {:?}",
        start.elapsed()
    );
}

/// Runs the corpus of target `name` and `mutations` of each of its files.
fn run(name: &str, mutations: u64) {
    let (_, body) = targets::ALL
        .iter()
        .find(|(target, _)| *target == name)
        .expect("a target of this name");
    let files = corpus(name);
    for (index, (file, bytes)) in files.iter().enumerate() {
        run_one(*body, bytes, &format!("{name}/{file}"));
        let other = &files[(index + 1) % files.len()].1;
        let seed = seed_of(&format!("{name}/{file}"));
        for count in 0..common::soak(mutations) {
            let seed = seed.wrapping_add(count);
            let input = mutated(bytes, other, &mut Random::new(seed));
            run_one(
                *body,
                &input,
                &format!("{name}/{file}, mutation seed 0x{seed:016x}"),
            );
        }
    }
}

#[test]
fn volume_header() {
    run("volume_header", MUTATIONS);
}

#[test]
fn node() {
    run("node", MUTATIONS);
}

#[test]
fn fifo_record() {
    run("fifo_record", MUTATIONS);
}

#[test]
fn leaf_data() {
    run("leaf_data", MUTATIONS);
}

#[test]
fn stream() {
    run("stream", MUTATIONS);
}

#[test]
fn image() {
    run("image", 12);
}

#[test]
fn apply() {
    run("apply", 30);
}

#[test]
fn probe() {
    run("probe", MUTATIONS);
}

#[test]
fn questions() {
    run("questions", MUTATIONS);
}

/// Every target has a corpus, a test above and a file for libFuzzer; there are no others.
#[test]
fn targets_are_complete() {
    let names = |path: &str, strip: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let entries = fs::read_dir(path).expect("a folder of the fuzz targets");
        let mut names: Vec<String> = entries
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .replace(strip, "")
            })
            .collect();
        names.sort();
        names
    };
    let mut expected: Vec<&str> = targets::ALL.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names("fuzz/corpus", ""), expected);
    assert_eq!(names("fuzz/fuzz_targets", ".rs"), expected);
    let manifest = include_str!("../fuzz/Cargo.toml");
    let this = include_str!("corpora.rs");
    for name in expected {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} in Cargo.toml"
        );
        assert!(
            this.contains(&format!("run(\"{name}\"")),
            "{name} in a test"
        );
    }
}

/// The seeds that the corpora start from are valid: parsers take them as they are.
#[test]
fn seeds_are_whole() {
    for (name, bytes) in corpus("node") {
        let node = mallet::format::node::Node::from_bytes(&bytes).expect("a node");
        let at = mallet::format::Offset::NULL;
        node.check_crc(at, 7)
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        node.check_shape(at)
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    for (name, bytes) in corpus("fifo_record") {
        let record = mallet::format::fifo::Record::at(&bytes, 0, mallet::format::Offset::NULL, 7);
        record.unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

/// What the image target damages is whole: without patches, a check of it finds nothing.
#[test]
fn images_are_whole() {
    for choice in 0..3 {
        let disk = targets::base::image(choice).patched(&[]);
        let set = VolumeSet::open(vec![Box::new(disk.reader(1))]).expect("a volume");
        let mut view = View::open(set, &ViewOptions::default()).expect("a view");
        let mut errors = Vec::new();
        let keep = &mut |finding: Finding| match finding.severity {
            Severity::Error => errors.push(finding.fault.to_string()),
            Severity::Warn => {}
        };
        let report = check::run(&mut view, &check::Options::default(), keep, &mut ());
        assert!(report.expect("a check").complete);
        assert_eq!(errors, Vec::<String>::new(), "image {choice}");
    }
}

/// Writes the corpora anew from the golden volumes.
#[test]
#[ignore = "writes into the source tree; run it by name to make the corpora anew"]
fn make_seeds() {
    let golden = common::golden::dir().expect("golden data");
    for (target, file, bytes) in seeds::from_golden(&golden) {
        fs::create_dir_all(folder(target)).expect("a folder");
        fs::write(folder(target).join(file), bytes).expect("a corpus file");
    }
}
