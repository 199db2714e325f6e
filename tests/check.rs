//! `check` on volumes made by DragonFly's kernel: no errors, and warnings only where a rule is
//! advisory.

mod common;

use common::golden;
use mallet::check::{self, Finding, Options, Report, Severity};
use mallet::format::Rule;
use mallet::io::{OpenOptions, open};
use mallet::store::{View, ViewOptions, VolumeSet};
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
const ADVISORY: [Rule; 8] = [
    Rule::VolumeCrc,
    Rule::BlockmapCrc,
    Rule::MirrorTid,
    Rule::FileShape,
    Rule::SymlinkTarget,
    Rule::DirectoryParent,
    Rule::LeafVersions,
    Rule::NextTid,
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
