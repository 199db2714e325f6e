//! Crashed volumes made by DragonFly's kernel, opened for writing: what its own read-write mount
//! listed is there afterwards, all is whole, and neither opening once more nor a power cut in
//! between changes that.

mod common;

use common::golden;
use common::listing::{Mask, compare, listing, read_listing};
use mallet::check;
use mallet::fs::{pfs, recover};
use mallet::io::Device;
use mallet::io::sim::{CrashPlan, SimDisk};
use mallet::store::{StoreOptions, View, ViewOptions, VolumeSet};
use std::fs::File;
use std::path::Path;

/// When crashed volumes are opened for writing, microseconds; no file of theirs has this time.
const NOW: u64 = 1_800_000_000_000_000;

fn simulated(disk: &SimDisk) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    VolumeSet::open(devices).expect("a volume set")
}

/// Opens a volume for writing, and closes it again.
fn recovered(disk: &SimDisk, redo: bool) -> recover::Report {
    let options = recover::OpenOptions {
        store: StoreOptions::default(),
        redo,
        now: NOW,
    };
    let (_, report) = recover::open(simulated(disk), &options).expect("a recovery");
    report
}

/// Checks a volume that has nothing to be undone, data too.
fn check_whole(disk: &SimDisk, name: &str) {
    let mut view = View::open(simulated(disk), &ViewOptions::default()).expect("a view");
    assert_eq!(view.undone().records, 0, "{name}: the log leads back");
    let options = check::Options {
        data: true,
        ..check::Options::default()
    };
    let mut findings = Vec::new();
    let mut keep = |f: check::Finding| {
        if f.severity == check::Severity::Error {
            findings.push(f);
        }
    };
    let report = check::run(&mut view, &options, &mut keep, &mut ());
    assert!(report.expect("a check to the end").complete, "{name}");
    assert!(findings.is_empty(), "{name}: {findings:#?}");
}

/// Compares all of a volume with the kernel's listing of it after its own recovery. Files that the
/// replay wrote to have the time of the replay.
fn compare_recovered(disk: &SimDisk, golden: &Path, name: &str) {
    let mut view = View::open(simulated(disk), &ViewOptions::default()).expect("a view");
    let kernels = read_listing(golden, name, 0);
    let replayed = format!(" mtime={}.000000 ", NOW / 1_000_000);
    for pfs in pfs::all(&mut view).expect("a readable PFS table") {
        let ours = listing(&mut view, pfs.tree(None));
        let kernels = &kernels.sections[&pfs.id];
        assert_eq!(ours.len(), kernels.len(), "{name}: objects");
        for (ours, kernels) in ours.iter().zip(kernels) {
            let is_replayed = String::from_utf8_lossy(ours).contains(&replayed);
            let mask = match is_replayed {
                true => Mask::Mtime,
                false => Mask::Nothing,
            };
            compare(
                name,
                std::slice::from_ref(ours),
                std::slice::from_ref(kernels),
                mask,
            );
        }
    }
}

#[test]
fn crashed_volumes_recover_as_by_the_kernel() {
    let Some(golden) = golden::dir() else { return };
    let mut redone = 0;
    for name in golden::names(&golden, "crash", ".img") {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let disk = SimDisk::over(file).expect("a disk");
        let report = recovered(&disk, true);
        redone += report.redone;
        let kernels = match golden.join(format!("{stem}.rw.lst")).exists() {
            true => format!("{stem}.rw.lst"),
            // Listed before its recovery only.
            false => format!("{stem}.ro.lst"),
        };
        compare_recovered(&disk, &golden, &kernels);
        check_whole(&disk, &name);
        let before = disk.counts().writes;
        let again = recovered(&disk, true);
        assert_eq!((again.undone, again.redone), (0, 0), "{name}");
        // Opening a clean volume writes nothing.
        assert_eq!(disk.counts().writes, before, "{name}");
    }
    assert!(redone > 0, "no volume had anything to be redone");
}

#[test]
fn without_redo_crashed_volumes_are_as_before_it() {
    let Some(golden) = golden::dir() else { return };
    for name in golden::names(&golden, "crash", ".img") {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let disk = SimDisk::over(file).expect("a disk");
        assert_eq!(recovered(&disk, false).redone, 0);
        compare_recovered(&disk, &golden, &format!("{stem}.ro.lst"));
        check_whole(&disk, &name);
        assert_eq!(recovered(&disk, true).redone, 0, "{name}: redone after all");
    }
}

#[test]
fn a_power_cut_during_recovery_changes_nothing() {
    let Some(golden) = golden::dir() else { return };
    for name in ["crash/crash-v7-n162", "crash/crash-v4-n192"] {
        let file = File::open(golden::file(&golden, &format!("{name}.img"))).expect("an image");
        let disk = SimDisk::over(file).expect("a disk");
        let whole = recovered(&disk, true).redone;
        assert!(whole > 0, "{name}");
        let plan = CrashPlan {
            singles: 2,
            subsets: 1,
            torn: 2,
            seed: 1,
        };
        let mut images = 0;
        for image in disk.crash_images(plan) {
            let image = image.expect("an image");
            recovered(&image.disk, true);
            compare_recovered(&image.disk, &golden, &format!("{name}.rw.lst"));
            check_whole(&image.disk, name);
            images += 1;
        }
        assert!(images > 10, "{images} images");
    }
}
