//! Listings of volumes made by DragonFly's kernel against the kernel's own listings, line for line:
//! every PFS, current and as of every listed TID; crashed volumes as their read-only mount shows
//! them, and as its read-write mount shows them once they were opened for writing. And no file is
//! changed by being read.

mod common;

use common::listing::{Mask, compare, compare_asof, compare_current, listing, read_listing, view};
use common::{golden, oracle};
use mallet::check;
use mallet::format::volume::VolumeHeader;
use mallet::format::{Offset, Tid};
use mallet::fs::{pfs, recover};
use mallet::io::Device;
use mallet::io::sim::{CrashPlan, SimDisk};
use mallet::store::{StoreOptions, View, ViewOptions, VolumeSet};
use nix::unistd::Whence;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The volumes of an image's file system and what is listed of them.
fn compare_volume(golden: &Path, paths: &[PathBuf], stem: &str) {
    let mut view = view(paths);
    compare_current(&mut view, golden, &format!("{stem}.lst"));
    let (folder, _) = stem.split_once('/').expect("a folder");
    for name in golden::names(golden, folder, ".lst") {
        let asof = name
            .strip_prefix(stem)
            .and_then(|n| n.strip_prefix(".asof-0x"));
        let Some(tid) = asof.and_then(|n| n.strip_suffix(".lst")) else {
            continue;
        };
        let asof = Tid(u64::from_str_radix(tid, 16).expect("a TID"));
        compare_asof(&mut view, golden, &name, 0, asof, Mask::Nothing);
    }
}

/// Runs `work` on every item, on as many threads as there are processors.
fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let queue = std::sync::Mutex::new(items);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let item = queue.lock().expect("no panic while held").pop();
                    match item {
                        Some(item) => work(item),
                        None => break,
                    }
                }
            });
        }
    });
}

#[test]
fn small_volumes_of_all_versions() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "small", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

#[test]
fn several_volumes_in_any_order() {
    let Some(golden) = golden::dir() else { return };
    let path = |n: u32| golden::file(&golden, &format!("multivol/vol{n}.img"));
    compare_volume(&golden, &[path(2), path(0), path(1)], "multivol/multivol");
}

#[test]
fn extreme_names_and_sizes() {
    let Some(golden) = golden::dir() else { return };
    compare_volume(
        &golden,
        &[golden::file(&golden, "edge/edge.img")],
        "edge/edge",
    );
}

#[test]
fn deduplicated_and_pruned_volumes() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "maint", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

#[test]
fn masters_slaves_and_other_pseudo_file_systems() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "mirror", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

/// The committed TIDs of the mirror master after so many rounds.
const ROUNDS: [(u32, u64); 3] = [(5, 0x1_0002_8320), (10, 0x1_0005_8630), (20, 0x1_000a_0cd0)];

#[test]
fn masters_as_of_their_rounds() {
    let Some(golden) = golden::dir() else { return };
    for (stage, _) in ROUNDS {
        let image = golden::file(&golden, &format!("mirror/master-{stage}.img"));
        let mut view = view(&[image]);
        for (round, tid) in ROUNDS.into_iter().filter(|(round, _)| *round <= stage) {
            let name = format!("mirror/master-asof-{round}.lst");
            // Each was listed at its own stage.
            let mask = match stage == round {
                true => Mask::Nothing,
                false => Mask::Mtime,
            };
            compare_asof(&mut view, &golden, &name, 1, Tid(tid), mask);
        }
    }
}

#[test]
fn slaves_as_of_what_was_mirrored() {
    let Some(golden) = golden::dir() else { return };
    for (image, names) in [
        (
            "A",
            ["slaveA-full-5", "slaveA-inc-5-10", "slaveA-inc-10-20"].as_slice(),
        ),
        ("B", &["slaveB-full-20"]),
    ] {
        let mut view = view(&[golden::file(&golden, &format!("mirror/slave{image}.img"))]);
        for name in names {
            let round = name.rsplit('-').next().and_then(|n| n.parse().ok());
            let (round, tid) = *ROUNDS
                .iter()
                .find(|(r, _)| Some(*r) == round)
                .expect("a round");
            let name = format!("mirror/{name}.lst");
            compare_asof(&mut view, &golden, &name, 1, Tid(tid), Mask::Mtime);
            let masters = format!("mirror/master-asof-{round}.lst");
            compare_asof(&mut view, &golden, &masters, 1, Tid(tid), Mask::MtimeAndPfs);
        }
    }
}

#[test]
fn thousands_of_files_as_of_the_last_mirroring() {
    let Some(golden) = golden::dir() else { return };
    let mut view = view(&[golden::file(&golden, "skips/m.img")]);
    let asof = Tid(0x1_000b_83a0);
    compare_asof(
        &mut view,
        &golden,
        "skips/m-asof.lst",
        1,
        asof,
        Mask::Nothing,
    );
}

/// What must not change of a file by reading it: its length, its times of change, and every byte.
fn fingerprint(path: &Path) -> (u64, i64, i64, Vec<u8>) {
    let file = File::open(path).expect("an image");
    let meta = file.metadata().expect("its metadata");
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    // Holes are skipped: they read as zeros, and a write into one makes it data.
    while let Ok(data) = nix::unistd::lseek(&file, at, Whence::SeekData) {
        let hole = nix::unistd::lseek(&file, data, Whence::SeekHole).expect("the end at last");
        hash.update(data.to_le_bytes());
        let mut pos = data as u64;
        while pos < hole as u64 {
            let len = (hole as u64 - pos).min(buf.len() as u64) as usize;
            file.read_exact_at(&mut buf[..len], pos).expect("its bytes");
            hash.update(&buf[..len]);
            pos += len as u64;
        }
        at = hole;
    }
    (
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        hash.finalize().to_vec(),
    )
}

#[test]
fn crashed_volumes_read_as_by_the_kernel_and_stay_as_they_are() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let path = golden::file(&golden, &name);
        let before = fingerprint(&path);
        let mut view = view(std::slice::from_ref(&path));
        compare_current(&mut view, &golden, &format!("{stem}.ro.lst"));
        drop(view);
        assert!(before == fingerprint(&path), "{name} was changed");
    });
}

/// The tests' own recovery leads to what the kernel's does, on clean volumes too; and it refuses
/// what the kernel would.
#[test]
fn crashed_volumes_undone_by_the_oracle() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let mut disks = [SimDisk::over(file).expect("a disk")];
        let undone = oracle::recover(&mut disks).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Now there is nothing left to undo, for the oracle and for the library.
        let again = oracle::recover(&mut disks).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (again.records, again.next_seq),
            (0, undone.next_seq),
            "{name}"
        );
        let set = VolumeSet::open(vec![Box::new(disks[0].reader(1))]).expect("a volume");
        let mut view = View::open(set, &ViewOptions::default()).expect("a view");
        assert_eq!(view.undone().bytes, 0, "{name}");
        compare_current(&mut view, &golden, &format!("{stem}.ro.lst"));
    });
}

#[test]
fn the_oracle_refuses_what_the_kernel_refuses() {
    let Some(golden) = golden::dir() else { return };
    let open = |path: &Path| SimDisk::over(File::open(path).expect("an image")).expect("a disk");
    let names = golden::names(&golden, "crash", ".img").into_iter();
    let found = names.filter(|name| name.contains("v7")).find_map(|name| {
        let path = golden::file(&golden, &name);
        let undone = oracle::recover(&mut [open(&path)]).expect("a crashed volume");
        (undone.undos > 0).then_some((path, undone))
    });
    let (path, undone) = found.expect("one with old bytes");
    let disk = || open(&path);
    let header = disk().read(0, 2048).expect("bytes");
    let header = VolumeHeader::from_prefix(&header).expect("a header");
    let ring = header.buf_beg.get().cast_unsigned() + Offset(header.undo_array[0].get()).short();
    // Any byte of a record in the range, of the one before it, and of the one that ends the scan.
    let (first, end) = undone.range;
    for at in [
        first - 1,
        first,
        first + 8,
        end - 1,
        end.next_multiple_of(512),
    ] {
        let disk = disk();
        let byte = disk.read(ring + at, 1).expect("a byte")[0];
        disk.write(ring + at, &[!byte]).expect("a byte");
        let result = oracle::recover(&mut [disk]);
        result.expect_err(&format!("a bad record at {at}"));
    }
}
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
    let redone = std::sync::atomic::AtomicU64::new(0);
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let disk = SimDisk::over(file).expect("a disk");
        let report = recovered(&disk, true);
        redone.fetch_add(report.redone, std::sync::atomic::Ordering::Relaxed);
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
    });
    let redone = redone.into_inner();
    assert!(redone > 0, "no volume had anything to be redone");
}

#[test]
fn without_redo_crashed_volumes_are_as_before_it() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let disk = SimDisk::over(file).expect("a disk");
        assert_eq!(recovered(&disk, false).redone, 0);
        compare_recovered(&disk, &golden, &format!("{stem}.ro.lst"));
        check_whole(&disk, &name);
        assert_eq!(recovered(&disk, true).redone, 0, "{name}: redone after all");
    });
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
