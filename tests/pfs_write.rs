//! PFSs made, changed, upgraded, downgraded and destroyed: records as DragonFly's kernel makes
//! them, and what is taken back is exactly what came later, whatever interrupts it.

mod common;

use common::golden;
use common::program::{copy_to, err, events, out, run, status, text};
use common::raw::Raw;
use mallet::btree::{Scan, Step};
use mallet::check::{self, Options, Severity};
use mallet::format::node::LeafElement;
use mallet::format::record::rt;
use mallet::format::{Key, Tid};
use mallet::fs::pfs_ops;
use mallet::fs::recover::{self, OpenOptions};
use mallet::fs::rollback::{Rollback, roll_back};
use mallet::io::sim::{CrashPlan, SimDisk};
use mallet::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Runs a line on `image`; the words are those of [`common::program::words`].
fn go(line: &str, image: &Path, expected: i32) -> String {
    let output = common::program::run_on(line, text(image));
    assert_eq!(
        status(&output),
        expected,
        "{line}: {}{}",
        out(&output),
        err(&output)
    );
    out(&output) + &err(&output)
}

fn whole(image: &Path) {
    let output = run(&["check", "--data", text(image)]);
    assert_eq!(status(&output), 0, "{}", out(&output));
}

/// A writable copy of a golden image.
fn copy(golden: &Path, name: &str, folder: &Path) -> PathBuf {
    copy_to(&golden::file(golden, name), folder, "copy.img", 0)
}

/// `pfs-status` of one PFS as an event.
fn pfs(image: &Path, id: u16) -> Value {
    let output = run(&["pfs-status", "--json", &format!("{}#{id}", text(image))]);
    events(&out(&output), 0).remove(0)
}

/// What a PFS shows, a line an object.
fn listing(spec: &str, asof: Option<&str>) -> Vec<String> {
    let mut words = vec!["ls", "-R", "--sha256", "--json", spec, "/"];
    words.extend(asof.iter().flat_map(|tid| ["--as-of", tid]));
    let output = run(&words);
    let lines = events(&out(&output), 0);
    let entries = lines.iter().filter(|event| event["type"] == "entry");
    entries.map(Value::to_string).collect()
}

/// The records of `raw` that `wanted` chooses: element and data, with what differs from one run to
/// another made the same.
fn shapes(raw: &Raw, wanted: impl Fn(&LeafElement) -> bool) -> Vec<(u16, i64, u8, bool, Vec<u8>)> {
    let records = raw.records();
    let chosen = records.iter().filter(|leaf| wanted(leaf));
    let shape = |leaf: &LeafElement| {
        let mut data = raw.bytes(leaf.data_offset(), leaf.data_len.get() as usize);
        let mut mask = |range: std::ops::Range<usize>| data[range].fill(0);
        match leaf.base.rec_type.get() {
            rt::PFS => {
                mask(16..24);
                mask(40..72);
            }
            rt::INODE => {
                mask(16..24);
                mask(112..128);
            }
            rt::DIRENTRY => mask(0..8),
            _ => {}
        }
        let base = &leaf.base;
        let deleted = !base.delete_tid().is_zero();
        (
            base.rec_type.get(),
            base.key.get(),
            base.obj_type,
            deleted,
            data,
        )
    };
    chosen.map(shape).collect()
}

/// The same steps as those that made the golden volume leave the same records.
#[test]
fn as_the_kernel_makes_them() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let ours = folder.path().join("v.img");
    go("newfs -L PFS --size 512m IMG", &ours, 0);
    go("pfs-master IMG label=m1 --link /m1", &ours, 0);
    go("pfs-master IMG --link /m2", &ours, 0);
    go("pfs-master IMG --link m3", &ours, 0);
    go("pfs-downgrade IMG#3", &ours, 0);
    go("pfs-destroy IMG#2 --link /m2 -y -F", &ours, 0);
    whole(&ours);
    let (ours, theirs) = (
        Raw::open(&[&ours]),
        Raw::open(&[golden::file(&dir, "mirror/pfs.img")]),
    );

    let first_pfs = |leaf: &LeafElement| {
        leaf.base.rec_type.get() == rt::PFS && (1..=3).contains(&(leaf.base.key.get() >> 16))
    };
    let records = shapes(&ours, first_pfs);
    assert_eq!(records.len(), 5);
    assert_eq!(records, shapes(&theirs, first_pfs));

    let roots = |leaf: &LeafElement| {
        let lo = leaf.base.localization.get();
        matches!(lo, 0x1_0001 | 0x3_0001)
            && leaf.base.rec_type.get() == rt::INODE
            && leaf.base.obj_id.get() == 1
    };
    assert_eq!(shapes(&ours, roots).len(), 2);
    assert_eq!(shapes(&ours, roots), shapes(&theirs, roots));

    // Entries and symlinks; of the golden ones, those that these steps made.
    let names: [&[u8]; 3] = [b"m1", b"m2", b"m3"];
    let links = |raw: &Raw| {
        let entries = raw.records().into_iter().filter(|leaf| {
            leaf.base.localization.get() == 1
                && leaf.base.rec_type.get() == rt::DIRENTRY
                && names
                    .contains(&&raw.bytes(leaf.data_offset(), leaf.data_len.get() as usize)[16..])
        });
        let entries: Vec<LeafElement> = entries.collect();
        let objects: Vec<i64> = entries
            .iter()
            .map(|leaf| {
                let bytes = raw.bytes(leaf.data_offset(), 8);
                i64::from_le_bytes(bytes.try_into().expect("8 bytes"))
            })
            .collect();
        let mut all = shapes(raw, |leaf| {
            leaf.base.localization.get() == 1
                && (objects.contains(&leaf.base.obj_id.get()) || entries.contains(leaf))
        });
        // Object ids are given out otherwise here.
        all.sort();
        all
    };
    assert_eq!(links(&ours).len(), 6);
    assert_eq!(links(&ours), links(&theirs));
}

/// A slave that is ahead of its `sync_end_tid` becomes a master that is exactly as of that TID.
#[test]
fn an_upgrade_takes_back_what_came_later() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let image = copy(&dir, "mirror/slaveA.img", folder.path());
    let early = pfs(&golden::file(&dir, "mirror/master-5.img"), 1);
    let early = early["sync_end_tid"].as_str().expect("a TID").to_owned();
    let spec = format!("{}#1", text(&image));
    let before = listing(&spec, Some(&early));
    assert!(before.len() > 10);
    assert_ne!(before, listing(&spec, None));
    go(
        &format!("pfs-update IMG#1 sync-end-tid={early} label=new"),
        &image,
        0,
    );
    assert_eq!(pfs(&image, 1)["sync_end_tid"], *early);
    let said = go("pfs-upgrade IMG#1", &image, 0);
    assert!(
        said.contains("destroyed") && said.contains("undeleted"),
        "{said}"
    );
    let after = pfs(&image, 1);
    assert_eq!(
        (&after["kind"], &after["label"]),
        (&"master".into(), &"new".into())
    );
    assert_eq!(listing(&spec, None), before);
    whole(&image);
    let end = u64::from_str_radix(&early[2..], 16).expect("a TID");
    for leaf in Raw::open(&[&image]).records() {
        let local = matches!(leaf.base.rec_type.get(), rt::SNAPSHOT | rt::CONFIG);
        if leaf.base.localization.get() >> 16 == 1 && !local {
            assert!(leaf.base.create_tid().0 <= end && leaf.base.delete_tid().0 <= end);
        }
    }
    assert!(go("pfs-upgrade IMG#1", &image, 3).contains("is a master already"));
    // There and back.
    go("pfs-downgrade IMG#1", &image, 0);
    assert_eq!(pfs(&image, 1)["kind"], "slave");
    assert_eq!(listing(&spec, None), before);
}

/// Snapshots stay in an upgrade and go with the PFS; its number is free again.
#[test]
fn snapshots_are_of_this_copy() {
    let Some(dir) = golden::dir() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let image = copy(&dir, "mirror/pfs.img", folder.path());
    let count = |image: &Path| {
        let records = Raw::open(&[image]).records();
        let of_five = records
            .iter()
            .filter(|leaf| leaf.base.localization.get() >> 16 == 5);
        let types: Vec<u16> = of_five.map(|leaf| leaf.base.rec_type.get()).collect();
        let snapshots = types.iter().filter(|t| **t == rt::SNAPSHOT).count();
        (types.len() - snapshots, snapshots)
    };
    assert_eq!(count(&image).1, 1);
    go("pfs-update IMG#5 sync-end-tid=2", &image, 0);
    go("pfs-upgrade IMG#5", &image, 0);
    // Nothing is left but the snapshot and the root directory of a master.
    assert_eq!(count(&image), (1, 1));
    go("pfs-destroy IMG#5 --link /s6 -y -F", &image, 2);
    go("pfs-destroy IMG#5 --link /s5 -y", &image, 2);
    assert_eq!(count(&image), (1, 1), "nothing was changed");
    go("pfs-destroy IMG#5 --link /s5 -y -F", &image, 0);
    assert_eq!(count(&image), (0, 0));
    assert_eq!(pfs(&image, 5)["deleted"], true);
    let root = listing(text(&image), None);
    assert!(
        !root.iter().any(|line| line.contains("\"/s5\"")),
        "{root:?}"
    );
    whole(&image);
    let made = go("pfs-slave IMG label=again --json", &image, 0);
    assert!(made.contains("\"id\":2"), "the first that is free: {made}");
    go("pfs-master IMG#5", &image, 0);
    assert_eq!(pfs(&image, 5)["deleted"], false);
    whole(&image);
}

#[test]
fn what_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("v.img");
    go("newfs -L x --size 64m IMG", &image, 0);
    go("pfs-master IMG label=home", &image, 0);
    for (line, code, hint) in [
        ("pfs-upgrade IMG#home", 3, "is a master already"),
        ("pfs-upgrade IMG", 3, "file system's own"),
        ("pfs-downgrade IMG#0", 3, "file system's own"),
        ("pfs-destroy IMG#0 -y -F", 3, "file system's own"),
        ("pfs-destroy IMG#1", 2, "-y -F"),
        ("pfs-destroy IMG#1 -y", 2, "-y -F"),
        ("pfs-destroy IMG#7 -y -F", 2, "there is no PFS"),
        ("pfs-master IMG#1", 2, "exists"),
        ("pfs-master IMG#0", 3, "file system's own"),
        ("pfs-master IMG#new", 2, "label=NAME"),
        ("pfs-master IMG --link /a/b", 1, "/a"),
        ("pfs-master IMG --link /", 2, "names no symlink"),
        ("pfs-update IMG#1 colour=red", 2, "no such setting"),
        ("pfs-update IMG#1 --live label=x", 2, "--live"),
    ] {
        let said = go(line, &image, code);
        assert!(said.contains(hint), "{line}: {said}");
    }
    let long = format!("pfs-update IMG#1 label={}", "x".repeat(64));
    assert!(go(&long, &image, 2).contains("63 bytes"));
    let before = std::fs::read(&image).expect("the image");
    for line in [
        "pfs-master IMG -n",
        "pfs-update IMG#1 label=x -n",
        "pfs-downgrade IMG#1 -n",
        "pfs-destroy IMG#1 -n -y -F",
    ] {
        assert!(go(line, &image, 0).contains("nothing was written"));
    }
    assert!(std::fs::read(&image).expect("the image") == before);
}

fn set(disk: &SimDisk) -> VolumeSet {
    VolumeSet::open(vec![Box::new(disk.device(3))]).expect("a volume set")
}

fn open(disk: &SimDisk) -> Store {
    let options = OpenOptions {
        store: StoreOptions {
            // Many checkpoints.
            dirty_bytes: 16 << 10,
            ..StoreOptions::default()
        },
        redo: true,
        now: 1_700_000_000_000_000,
    };
    recover::open(set(disk), &options).expect("a store").0
}

/// The records of PFS 1.
fn records(view: &mut View) -> Vec<LeafElement> {
    let mut scan = Scan::new(Key::pfs_min(1), Key::pfs_max(1), Tid::ZERO);
    let mut all = Vec::new();
    while let Some(step) = scan.next(view).expect("a tree") {
        let Step::Leaf(leaf) = step else {
            panic!("{step:?}");
        };
        all.extend_from_slice(leaf.elements());
    }
    all
}

/// Cut off anywhere and repeated, a rollback ends as one that nothing interrupted.
#[test]
fn rollbacks_go_on_after_a_power_cut() {
    let Some(dir) = golden::dir() else { return };
    let early = pfs(&golden::file(&dir, "mirror/master-5.img"), 1);
    let early = early["sync_end_tid"].as_str().expect("a TID");
    let what = Rollback {
        pfs: 1,
        to: Tid(u64::from_str_radix(&early[2..], 16).expect("a TID")),
        spare_local: true,
    };
    let image = File::open(golden::file(&dir, "mirror/slaveA.img")).expect("an image");
    let disk = SimDisk::over(image).expect("a disk");
    let mut store = open(&disk);
    let before = records(store.view());
    let done = roll_back(&mut store, &what, 1, &mut ()).expect("a rollback");
    assert!(done.destroyed > 100 && done.undeleted > 10, "{done:?}");
    let checkpoints = store.written().checkpoints;
    assert!(checkpoints > 3, "{checkpoints} for {done:?}");
    let expected = records(store.view());
    let local = |leaf: &LeafElement| matches!(leaf.base.rec_type.get(), rt::SNAPSHOT | rt::CONFIG);
    let stays = |leaf: &&LeafElement| local(leaf) || leaf.base.create_tid() <= what.to;
    let mut kept: Vec<LeafElement> = before.iter().filter(stays).copied().collect();
    for leaf in kept.iter_mut() {
        if !local(leaf) && leaf.base.delete_tid() > what.to {
            leaf.base.delete_tid.set(0);
            leaf.delete_ts.set(0);
        }
    }
    let differs = expected
        .iter()
        .zip(&kept)
        .find(|(found, kept)| found != kept);
    assert_eq!((differs, expected.len()), (None, kept.len()));
    let again = roll_back(&mut store, &what, 1, &mut ()).expect("nothing to do");
    assert_eq!((again.destroyed, again.undeleted), (0, 0));
    drop(store);

    let plan = CrashPlan {
        seed: 11,
        singles: 1,
        subsets: 1,
        torn: 1,
    };
    let (mut tried, mut partly) = (0, 0);
    for image in disk.crash_images(plan).step_by(67) {
        let image = image.expect("an image");
        let mut store = open(&image.disk);
        let found = records(store.view());
        partly += u32::from(found != before && found != expected);
        roll_back(&mut store, &what, 1, &mut ()).expect("a rollback");
        assert!(records(store.view()) == expected, "cut {}", image.cut);
        tried += 1;
    }
    assert!(
        tried > 5 && partly > 0,
        "{tried} images, {partly} in between"
    );
    let mut view = View::open(set(&disk), &ViewOptions::default()).expect("a view");
    let mut errors = Vec::new();
    let mut note = |finding: check::Finding| {
        if finding.severity == Severity::Error {
            errors.push(finding);
        }
    };
    check::run(&mut view, &Options::default(), &mut note, &mut ()).expect("a check");
    assert!(errors.is_empty(), "{errors:?}");
}

/// Cut off anywhere, a PFS that is being destroyed is whole, or shows nothing and claims nothing.
#[test]
fn half_a_pfs_is_never_seen() {
    let Some(dir) = golden::dir() else { return };
    let image = File::open(golden::file(&dir, "mirror/slaveA.img")).expect("an image");
    let disk = SimDisk::over(image).expect("a disk");
    let mut store = open(&disk);
    let before = records(store.view()).len();
    disk.forget_log();
    pfs_ops::destroy(&mut store, 1, None, 1, &mut ()).expect("a PFS to destroy");
    assert!(store.written().checkpoints > 3 && records(store.view()).is_empty());
    drop(store);
    let plan = CrashPlan {
        seed: 5,
        singles: 1,
        subsets: 1,
        torn: 1,
    };
    let mut tried = [0; 3];
    let images = disk.crash_images(plan).enumerate();
    // Of the first transaction all, of the others some.
    for (_, image) in images.filter(|(at, _)| *at < 12 || at % 41 == 0) {
        let image = image.expect("an image");
        let mut store = open(&image.disk);
        let view = store.view();
        let kind = match mallet::fs::pfs::load(view, 1).expect("a record") {
            None => 0,
            Some(pfs) if pfs.sync_end == Tid::ZERO => 1,
            Some(_) => 2,
        };
        tried[kind] += 1;
        let spared =
            |leaf: &LeafElement| matches!(leaf.base.rec_type.get(), rt::SNAPSHOT | rt::CONFIG);
        let left = records(view);
        match kind {
            2 => assert_eq!(left.len(), before, "cut {}", image.cut),
            _ => assert!(left.iter().all(spared), "cut {}", image.cut),
        }
        if kind == 1 {
            pfs_ops::destroy(&mut store, 1, None, 1, &mut ()).expect("the rest");
            assert!(
                mallet::fs::pfs::load(store.view(), 1)
                    .expect("a record")
                    .is_none()
            );
        }
    }
    assert!(tried[1] > 0 && tried[2] > 0, "{tried:?}");
}
