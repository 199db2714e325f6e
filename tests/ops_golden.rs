//! Changes to volumes that DragonFly's kernel made, of all versions; and blocks as it shapes them.

mod common;

use common::golden;
use common::listing::{Mask, listing, masked};
use mallet::btree::AsOf;
use mallet::check;
use mallet::format::record::{ObjType, rt};
use mallet::format::{Localization, ROOT_OBJ, Tid, block_size};
use mallet::fs::ops::{NewObject, Ops};
use mallet::fs::{Inode, ObjectId, Tree, dir, file, inode, root};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::fs::File;

const NOW: u64 = 1_700_000_000_000_000;
const PFS0: Tree = Tree::current(0);

fn disk_of(golden: &std::path::Path, name: &str) -> SimDisk {
    let file = File::open(golden::file(golden, name)).expect("an image");
    SimDisk::over(file).expect("a disk")
}

fn set(disk: &SimDisk) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    VolumeSet::open(devices).expect("a volume set")
}

fn new(kind: ObjType) -> NewObject<'static> {
    NewObject {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        uflags: 0,
        rdev: (0, 0),
        target: b"",
        times: None,
    }
}

/// The object that `name` in the root directory names.
fn object<F: Fetch>(fetch: &mut F, name: &str) -> Inode {
    let top = root(fetch, PFS0).expect("a tree").expect("a root");
    let entry = dir::lookup(fetch, &top, name.as_bytes(), Tid::MAX).expect("a directory");
    let target = entry.unwrap_or_else(|| panic!("no {name}")).target;
    let found = inode(fetch, target, Tid::MAX).expect("a tree");
    found.expect("an inode")
}

fn assert_no_errors(disk: &SimDisk, name: &str) {
    let mut view = View::open(set(disk), &ViewOptions::default()).expect("a view");
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

#[test]
fn volumes_of_all_versions_change_and_keep_their_history() {
    let Some(golden) = golden::dir() else { return };
    for name in golden::names(&golden, "small", ".img") {
        let disk = disk_of(&golden, &name);
        let mut store = Store::open(set(&disk), &StoreOptions::default()).expect("a store");
        let before = listing(store.view(), PFS0);
        let asof = store.durable().expect("a state").tid();
        let mut ops = Ops::new(0);
        let mut txn = store.begin(NOW).expect("a transaction");
        let dir1 = object(&mut txn, "dir1").id.obj;
        let top = ROOT_OBJ;
        for n in 0..200 {
            let name = format!("new.{n}");
            let obj = ops.create(&mut txn, dir1, name.as_bytes(), &new(ObjType::File));
            let obj = obj.expect("a file");
            ops.write(&mut txn, obj, 0, &vec![n as u8; n * 100 + 1])
                .expect("a write");
        }
        let made = ops.create(&mut txn, top, b"newdir", &new(ObjType::Directory));
        let made = made.expect("a directory");
        ops.rename(&mut txn, (dir1, b"new.7"), (made, b"seven"))
            .expect("a rename");
        ops.rename(&mut txn, (top, b"dir1"), (made, b"dir1"))
            .expect("a rename");
        for (name, at, len) in [
            ("multi5M", 1_000_000, 300_000),
            ("tiny15", 15, 9000),
            ("small8192", 8192, 1),
            ("sparse", 1_500_000, 10),
            ("m1048576", 1_048_570, 70_000),
        ] {
            let obj = object(&mut txn, name).id.obj;
            ops.write(&mut txn, obj, at, &vec![9; len])
                .expect("a write");
        }
        for (name, size) in [("multi2Mrand", 1_048_577), ("b65536", 8192), ("b16385", 0)] {
            let obj = object(&mut txn, name).id.obj;
            ops.truncate(&mut txn, obj, size).expect("a truncation");
        }
        for name in ["sparse2", "ln-1000", "fifo", "b16384"] {
            ops.remove(&mut txn, top, name.as_bytes())
                .expect("a removal");
        }
        txn.commit().expect("a commit");
        let old = listing(store.view(), Tree { pfs: 0, asof });
        // The directories' times changed in place.
        let timeless = |lines: &[Vec<u8>]| -> Vec<Vec<u8>> {
            lines.iter().map(|line| masked(line, Mask::Mtime)).collect()
        };
        assert!(timeless(&old) == timeless(&before), "{name}: as of {asof}");
        drop(store);
        assert_no_errors(&disk, &name);
    }
}

/// Key and length of every block of a file.
fn blocks<F: Fetch>(fetch: &mut F, id: ObjectId) -> Vec<(i64, i32, u8)> {
    let key = |key| id.key(Localization::MISC, rt::DATA, key);
    let mut cursor = AsOf::new(key(0), key(i64::MAX), Tid::MAX);
    let mut rows = Vec::new();
    while let Some(leaf) = cursor.next(fetch).expect("a tree") {
        rows.push((leaf.base.key.get(), leaf.data_len.get(), leaf.base.obj_type));
    }
    rows
}

#[test]
fn blocks_put_have_the_shapes_of_the_kernels() {
    let Some(golden) = golden::dir() else { return };
    let source = disk_of(&golden, "small/small-v7.img");
    let mut view = View::open(set(&source), &ViewOptions::default()).expect("a view");
    let target = disk_of(&golden, "small/small-v7.img");
    let mut store = Store::open(set(&target), &StoreOptions::default()).expect("a store");
    let top = root(&mut view, PFS0).expect("a tree").expect("a root");
    let mut entries = dir::Entries::new(&top, Tid::MAX);
    let (mut ops, mut count) = (Ops::new(0), 0);
    while let Some(entry) = entries.next(&mut view).expect("an entry") {
        let Some(theirs) = inode(&mut view, entry.target, Tid::MAX).expect("an inode") else {
            continue;
        };
        if theirs.kind() != Some(ObjType::File) {
            continue;
        }
        let rows = blocks(&mut view, theirs.id);
        let size = theirs.size();
        let mut txn = store.begin(NOW).expect("a transaction");
        let name = format!("put-{count}");
        let obj = ops.create(&mut txn, ROOT_OBJ, name.as_bytes(), &new(ObjType::File));
        let obj = obj.expect("a file");
        let ours = ops.inode(&mut txn, obj).expect("a tree").expect("an inode");
        let mut base = 0;
        while base < size {
            let full = block_size(base);
            let mut block = vec![0; full.min(size - base) as usize];
            file::read_at(&mut view, &theirs, Tid::MAX, base, &mut block).expect("contents");
            let base_of = |row: &(i64, i32, u8)| row.0 as u64 - row.1 as u64;
            let is_there = rows.iter().any(|row| base_of(row) == base);
            let block = is_there.then_some(&block[..]);
            ops.put_block(&mut txn, &ours, base, block, size)
                .expect("a block");
            base += full;
        }
        ops.finish_file(&mut txn, obj, size, NOW).expect("an end");
        txn.commit().expect("a commit");
        let made = ObjectId { pfs: 0, obj };
        assert_eq!(blocks(store.view(), made), rows, "{size} bytes");
        count += 1;
    }
    assert!(count > 20, "{count} files");
    drop(store);
    assert_no_errors(&target, "put");
}
