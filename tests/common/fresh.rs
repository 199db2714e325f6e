//! Fresh volumes on simulated disks, and what tests of changes to files share.

use mallet::check;
use mallet::format::Tid;
use mallet::format::record::ObjType;
use mallet::fs::newfs::{NewFs, newfs};
use mallet::fs::ops::NewObject;
use mallet::fs::{Inode, file};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};

/// Microseconds; when volumes are made.
pub const START: u64 = 1_700_000_000_000_000;

/// A fresh volume.
pub fn volume(version: u32, mib: u64) -> SimDisk {
    let disk = SimDisk::new(mib << 20);
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    let what = NewFs {
        label: b"ops".to_vec(),
        version,
        undo_bytes: Some(8 << 20),
        fsid: [7; 16],
        now: START,
    };
    newfs(&mut devices, &what).expect("a file system");
    disk
}

/// Its volumes.
pub fn set(disk: &SimDisk) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(2))];
    VolumeSet::open(devices).expect("a volume set")
}

/// Its store.
pub fn open(disk: &SimDisk) -> Store {
    Store::open(set(disk), &StoreOptions::default()).expect("a store")
}

/// Checks everything on the medium, data too.
pub fn check_clean(disk: &SimDisk) {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.reader(3))];
    let set = VolumeSet::open(devices).expect("a volume set");
    let mut view = View::open(set, &ViewOptions::default()).expect("a view");
    let all = check::Options {
        data: true,
        mirror_tid: true,
        per_rule: 10,
    };
    let mut findings = Vec::new();
    let report = check::run(&mut view, &all, &mut |f| findings.push(f), &mut ());
    assert!(report.expect("a check to the end").complete);
    assert!(findings.is_empty(), "{findings:#?}");
}

/// What most tests make.
pub fn new(kind: ObjType) -> NewObject<'static> {
    NewObject {
        kind,
        mode: 0o644,
        uid: 1001,
        gid: 1002,
        uflags: 0,
        rdev: (0, 0),
        target: b"",
        times: None,
    }
}

/// All bytes of a file.
pub fn contents(view: &mut View, inode: &Inode, asof: Tid) -> Vec<u8> {
    let mut bytes = vec![0xAA; inode.size() as usize];
    let len = file::read_at(view, inode, asof, 0, &mut bytes).expect("contents");
    assert_eq!(len, bytes.len());
    bytes
}
