//! `check` on volumes made by DragonFly's kernel: no errors, and warnings only where a rule is
//! advisory.

mod common;

use common::golden;
use common::program::{self, copy_to, events, out, run_on, status, text};
use mallet::check::{self, Finding, Options, Report, Severity};
use mallet::format::Rule;
use mallet::io::sim::SimDisk;
use mallet::io::{OpenOptions, open};
use mallet::store::{View, ViewOptions, VolumeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn run(paths: &[PathBuf], options: &Options) -> (Report, Vec<Finding>) {
    let device = |path: &PathBuf| open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(paths.iter().map(device).collect()).expect("a volume set");
    let mut view = View::open(set, &ViewOptions::default()).expect("a view");
    let mut findings = Vec::new();
    let report = check::run(&mut view, options, &mut |f| findings.push(f), &mut ())
        .expect("a check that ends");
    (report, findings)
}

/// All golden images, one set of paths each.
fn images(dir: &Path) -> Vec<(String, Vec<PathBuf>)> {
    let mut sets = Vec::new();
    for folder in ["small", "crash", "mirror", "maint", "skips", "edge", "live"] {
        for name in golden::names(dir, folder, ".img") {
            let path = golden::file(dir, &name);
            sets.push((name, vec![path]));
        }
    }
    let volumes = golden::names(dir, "multivol", ".img");
    let paths = volumes.iter().map(|name| golden::file(dir, name)).collect();
    sets.push(("multivol".to_owned(), paths));
    sets
}

/// Rules that healthy volumes can violate (format.md §21, *warn*).
const ADVISORY: [Rule; 7] = [
    Rule::VolumeCrc,
    Rule::BlockmapCrc,
    Rule::MirrorTid,
    Rule::FileShape,
    Rule::SymlinkTarget,
    Rule::DirectoryParent,
    Rule::LeafVersions,
];

#[test]
fn golden_images_are_whole() {
    let Some(dir) = golden::dir() else { return };
    let jobs = Mutex::new(images(&dir));
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((name, paths)) = jobs.lock().expect("jobs").pop() else {
                break;
            };
            let options = Options {
                data: true,
                ..Options::default()
            };
            let (report, findings) = run(&paths, &options);
            println!("{name}: {report:?}");
            for finding in findings {
                let advisory = ADVISORY.contains(&finding.fault.rule);
                if finding.severity == Severity::Error || !advisory {
                    failures.lock().expect("failures").push(format!(
                        "{name}: {:?} {} ({})",
                        finding.severity, finding.fault, finding.detail
                    ));
                } else {
                    println!("{name}: warn {} ({})", finding.fault, finding.detail);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failures = failures.into_inner().expect("failures");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A write to the device, or a flush of it.
enum Step {
    Write(u64, Vec<u8>),
    Flush,
}

/// The device writes of `live/writes.log`, in order.
fn steps(log: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = log;
    while let Some((head, tail)) = rest.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let at = u64::from_le_bytes(head[8..].try_into().expect("8 bytes"));
        let (payload, tail) = tail.split_at(word(4) as usize);
        match word(0) {
            1 => steps.push(Step::Write(at, payload.to_vec())),
            2 => steps.push(Step::Flush),
            _ => {}
        }
        rest = tail;
    }
    steps
}

/// Wherever the kernel's writes to a busy volume are cut off, what is on the medium is whole, seen
/// through its FIFO: at every sixtieth write and at the last one before each of some flushes.
#[test]
fn every_moment_of_a_busy_volume_is_whole() {
    let Some(dir) = golden::dir() else { return };
    let image = File::open(golden::file(&dir, "live/start.img")).expect("an image");
    let disk = SimDisk::over(image).expect("a disk over it");
    let steps = steps(&golden::bytes(&dir, "live/writes.log"));
    let (mut checked, mut flushes) = (0, 0);
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Write(at, bytes) => disk.write(*at, bytes).expect("a write"),
            Step::Flush => flushes += 1,
        }
        let before_flush = matches!(steps.get(index + 1), Some(Step::Flush)) && flushes % 8 == 0;
        if index % 60 != 0 && !before_flush {
            continue;
        }
        let set = VolumeSet::open(vec![Box::new(disk.reader(0))]).expect("a volume set");
        let mut view = View::open(set, &ViewOptions::default()).expect("a view");
        let mut findings = Vec::new();
        let options = Options::default();
        check::run(&mut view, &options, &mut |f| findings.push(f), &mut ())
            .expect("a check that ends");
        findings.retain(|f| f.severity == Severity::Error || !ADVISORY.contains(&f.fault.rule));
        assert!(findings.is_empty(), "after step {index}: {findings:#?}");
        checked += 1;
    }
    println!("{checked} of {} moments, {flushes} flushes", steps.len());
    assert!(checked > 20);
}

#[test]
fn a_whole_volume_on_the_command_line() {
    let image = golden::testdata("mirror/pfs.img");
    let output = run_on("check IMG --data --mirror-tid", text(&image));
    assert_eq!(status(&output), 0, "{}", program::err(&output));
    assert!(
        out(&output).ends_with("0 errors, 0 warnings\n"),
        "{}",
        out(&output)
    );
    let quiet = run_on("-q check IMG", text(&image));
    assert_eq!((status(&quiet), out(&quiet)), (0, String::new()));
    let output = run_on("--json check IMG", text(&image));
    let told = events(&out(&output), 0);
    let summary = told.last().expect("a summary");
    assert_eq!(summary["errors"], 0);
    assert_eq!(summary["complete"], true);
    // Not a part of a volume: all of it.
    assert_eq!(status(&run_on("check IMG#1", text(&image))), 0);
}

#[test]
fn damage_on_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = golden::testdata("mirror/pfs.img");
    // A bit of a node in the middle of the tree.
    let damaged = copy_to(&image, folder.path(), "node", 0);
    let base = common::patch::Image::over(&damaged);
    let node = base.children()[1];
    let at = base.byte(node) + 100;
    let byte = base.disk.read(at, 1).expect("a byte")[0];
    program::patch(&damaged, at, &[byte ^ 4]);
    let output = run_on("check IMG", text(&damaged));
    assert_eq!(status(&output), 6, "{}", program::err(&output));
    let line = format!("error: node-crc at {node}: expected 0x");
    assert!(out(&output).starts_with(&line), "{}", out(&output));
    let output = run_on("--json check IMG", text(&damaged));
    let told = events(&out(&output), 6);
    let first = &told[0];
    assert_eq!(first["type"], "finding");
    assert_eq!(first["severity"], "error");
    assert_eq!(first["rule"], "node-crc");
    assert_eq!(first["at"], node.to_string());
    for field in ["expected", "found", "detail"] {
        assert!(first[field].is_string(), "{first}");
    }
    let summary = told.last().expect("a summary");
    assert_eq!(summary["errors"], 1);
    assert_eq!(summary["complete"], false);
    // What cannot even be opened is a finding as well.
    let unsigned = copy_to(&image, folder.path(), "signature", 0);
    program::patch(&unsigned, 0, &[0]);
    let output = run_on("--json check IMG", text(&unsigned));
    let told = events(&out(&output), 6);
    assert_eq!(told[0]["rule"], "volume-signature");
    // A flood is cut, and counted.
    let flooded = copy_to(&image, folder.path(), "flood", 0);
    base.edit_header(|header| header.next_tid.set(0x1_0000_0010));
    program::patch(&flooded, 0, &base.disk.read(0, 2048).expect("a header"));
    let output = run_on("check IMG", text(&flooded));
    assert_eq!(status(&output), 6);
    let shown = out(&output).matches("error: next-tid at").count();
    assert_eq!(shown, 100);
    assert!(
        out(&output).contains("error: next-tid: "),
        "{}",
        out(&output)
    );
    let all = run_on("-v check IMG", text(&flooded));
    assert!(out(&all).matches("error: next-tid at").count() > shown);
}
