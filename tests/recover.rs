//! Opening for writing where something is half done: it is taken back, whenever the power goes, and
//! only where nobody has written since.

mod common;

use mallet::btree::Editor;
use mallet::btree::put::{self, NewRecord};
use mallet::check;
use mallet::format::mark::{Cursor, Intent, MARK_SIZE};
use mallet::format::node::Base;
use mallet::format::record::{ObjType, PfsData, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::fs::newfs::{NewFs, newfs};
use mallet::fs::ops::{NewObject, Ops};
use mallet::fs::recover::{self, OpenOptions, Report};
use mallet::fs::{ObjectId, Tree, dir, pfs, pfs_edit, root};
use mallet::io::Device;
use mallet::io::sim::{CrashPlan, SimDisk};
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use zerocopy::IntoBytes;

const NOW: u64 = 1_700_000_000_000_000;

fn set(disk: &SimDisk) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    VolumeSet::open(devices).expect("a volume set")
}

fn open(disk: &SimDisk) -> (Store, Report) {
    let options = OpenOptions {
        store: StoreOptions::default(),
        redo: true,
        now: NOW,
    };
    recover::open(set(disk), &options).expect("a recovery")
}

fn volume() -> SimDisk {
    let disk = SimDisk::new(96 << 20);
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(1))];
    let what = NewFs {
        label: b"recover".to_vec(),
        version: 7,
        undo_bytes: Some(8 << 20),
        fsid: [7; 16],
        now: NOW,
    };
    newfs(&mut devices, &what).expect("a file system");
    disk
}

fn file() -> NewObject<'static> {
    NewObject {
        kind: ObjType::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        uflags: 0,
        rdev: (0, 0),
        target: b"",
        times: None,
    }
}

/// Names in PFS 0's root directory, sorted, and its mark, after a check of everything.
fn state(disk: &SimDisk) -> (Vec<String>, [u8; MARK_SIZE]) {
    state_of(disk, 0)
}

/// The same of any PFS.
fn state_of(disk: &SimDisk, id: u16) -> (Vec<String>, [u8; MARK_SIZE]) {
    let mut view = View::open(set(disk), &ViewOptions::default()).expect("a view");
    let options = check::Options {
        data: true,
        ..check::Options::default()
    };
    let mut findings = Vec::new();
    let report = check::run(&mut view, &options, &mut |f| findings.push(f), &mut ());
    assert!(report.expect("a check to the end").complete);
    assert!(findings.is_empty(), "{findings:#?}");
    let inode = root(&mut view, Tree::current(id)).expect("a tree");
    let mut entries = dir::Entries::new(&inode.expect("a root"), Tid::MAX);
    let mut names = Vec::new();
    while let Some(entry) = entries.next(&mut view).expect("an entry") {
        names.push(String::from_utf8(entry.name).expect("a name"));
    }
    names.sort();
    let pfs = pfs::load(&mut view, id).expect("a table").expect("a PFS");
    (names, pfs.data.reserved03)
}

fn own_leaf(store: &mut Store) -> Tid {
    let table = pfs::all(store.view()).expect("a table");
    table[0].leaf.expect("a record").base.create_tid()
}

/// An operation that makes, changes and removes files, and ends at its first checkpoint.
fn half_an_operation(disk: &SimDisk) -> Tid {
    let (mut store, _) = open(disk);
    let own_leaf = own_leaf(&mut store);
    let mut txn = store.begin(NOW + 5).expect("a transaction");
    let mut ops = Ops::new(0);
    for n in 0..100 {
        let name = format!("new{n}");
        let obj = ops.create(&mut txn, ROOT_OBJ, name.as_bytes(), &file());
        let obj = obj.expect("a file");
        ops.write(&mut txn, obj, 0, name.as_bytes())
            .expect("contents");
    }
    ops.remove(&mut txn, ROOT_OBJ, b"old1").expect("a removal");
    ops.rename(&mut txn, (ROOT_OBJ, b"old2"), (ROOT_OBJ, b"moved"))
        .expect("a rename");
    let intent = Intent {
        tid: txn.tid(),
        next_tid: txn.header().next_tid(),
        own_leaf,
    };
    pfs_edit::set_mark(&mut Editor::new(), &mut txn, 0, &intent.to_bytes()).expect("a mark");
    txn.checkpoint().expect("a checkpoint");
    intent.tid
}

fn with_old_files() -> SimDisk {
    let disk = volume();
    let (mut store, _) = open(&disk);
    let mut txn = store.begin(NOW + 1).expect("a transaction");
    for name in [b"old1", b"old2", b"old3"] {
        Ops::new(0)
            .create(&mut txn, ROOT_OBJ, name, &file())
            .expect("a file");
    }
    txn.commit().expect("a commit");
    disk
}

#[test]
fn half_an_operation_is_taken_back_whenever_the_power_goes() {
    let disk = with_old_files();
    half_an_operation(&disk);
    let before = (
        vec!["old1".into(), "old2".into(), "old3".into()],
        [0; MARK_SIZE],
    );
    assert_ne!(state(&disk), before);
    disk.forget_log();
    let (store, report) = open(&disk);
    drop(store);
    assert_eq!(report.rolled_back, 1);
    assert_eq!(state(&disk), before);
    let plan = CrashPlan {
        singles: 3,
        subsets: 2,
        torn: 2,
        seed: 5,
    };
    let mut images = 0;
    for image in disk.crash_images(plan) {
        let image = image.expect("an image");
        drop(open(&image.disk));
        let text = format!("cut before {}, {:?}", image.cut, image.survive);
        assert_eq!(state(&image.disk), before, "{text}");
        images += 1;
    }
    assert!(images > 10, "{images} images");
    assert_eq!(open(&disk).1.rolled_back, 0);
}

#[test]
fn what_others_have_built_on_stays() {
    let disk = with_old_files();
    half_an_operation(&disk);
    // Another system that knows no marks writes.
    let mut store = Store::open(set(&disk), &StoreOptions::default()).expect("a store");
    let mut txn = store.begin(NOW + 9).expect("a transaction");
    Ops::new(0)
        .create(&mut txn, ROOT_OBJ, b"other", &file())
        .expect("a file");
    txn.commit().expect("a commit");
    drop(store);
    let found = state(&disk);
    let (store, report) = open(&disk);
    drop(store);
    assert_eq!(report.rolled_back, 0);
    assert_eq!(state(&disk), found);
}

#[test]
fn a_slave_with_a_wrong_pass_is_taken_back_to_what_it_acknowledged() {
    let disk = volume();
    let (mut store, _) = open(&disk);
    let mut txn = store.begin(NOW + 1).expect("a transaction");
    let sync_end = txn.tid();
    let mut data = PfsData::default_for([9; 16]);
    data.mirror_flags.set(PfsData::SLAVE);
    data.sync_beg_tid.set(1);
    data.sync_end_tid.set(sync_end.0);
    let mut editor = Editor::new();
    pfs_edit::store_record(&mut editor, &mut txn, 1, &data).expect("a record");
    let model = root(&mut txn, Tree::current(0))
        .expect("a tree")
        .expect("a root");
    let key = ObjectId::root(1).key(Localization::INODE, rt::INODE, 0);
    let mut base = Base::from_key(Key {
        create_tid: sync_end,
        ..key
    });
    base.obj_type = ObjType::Directory as u8;
    let record = NewRecord {
        base,
        create_ts: 0,
        delete_ts: 0,
        data: model.data.as_bytes(),
        crc: None,
    };
    assert!(put::create(&mut editor, &mut txn, &record).expect("a root"));
    let mut ops = Ops::new(1);
    for name in [b"old1", b"old2"] {
        ops.create(&mut txn, ROOT_OBJ, name, &file())
            .expect("a file");
    }
    txn.commit().expect("a commit");
    let mut txn = store.begin(NOW + 3).expect("a transaction");
    ops.remove(&mut txn, ROOT_OBJ, b"old1").expect("a removal");
    ops.create(&mut txn, ROOT_OBJ, b"wrong", &file())
        .expect("a file");
    let cursor = Cursor {
        key: Key::pfs_min(1),
        end: Tid::MAX,
        source: 0,
        source_leaf: Tid::ZERO,
        own_leaf: sync_end,
    };
    pfs_edit::set_mark(&mut editor, &mut txn, 1, &cursor.to_bytes()).expect("a mark");
    txn.commit().expect("a commit");
    drop(store);
    assert_eq!(state_of(&disk, 1).0, ["old2", "wrong"]);
    let (store, report) = open(&disk);
    drop(store);
    assert_eq!(report.rolled_back, 1);
    let expected = (vec!["old1".into(), "old2".into()], [0; MARK_SIZE]);
    assert_eq!(state_of(&disk, 1), expected);
}

#[test]
fn tids_go_on_above_those_of_pfs_records() {
    let disk = volume();
    let (mut store, _) = open(&disk);
    let mut data: PfsData = pfs::all(store.view()).expect("a table")[0].data;
    data.sync_end_tid.set(0x7_0000_0000);
    let mut txn = store.begin(NOW).expect("a transaction");
    pfs_edit::store_record(&mut Editor::new(), &mut txn, 0, &data).expect("a record");
    txn.commit().expect("a commit");
    drop(store);
    let (mut store, _) = open(&disk);
    let txn = store.begin(NOW).expect("a transaction");
    assert!(txn.tid() > Tid(0x7_0000_0000), "{}", txn.tid());
}
