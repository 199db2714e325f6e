//! Changes to the tree in real transactions: random records made, deleted, destroyed and
//! overwritten, in several PFSs, with many versions of one key; commits, checkpoints and abandoned
//! transactions in between. After each of them the medium holds what a sorted map holds, and a
//! check finds nothing wrong with tree, freemap and data.

mod common;

use common::build;
use common::build::files::Files;
use common::golden;
use mallet::btree::put::{self, NewRecord};
use mallet::btree::{Cursor, Editor, good_data};
use mallet::check::{self, Options};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{InodeData, rt};
use mallet::format::{Key, Localization, Rule, Tid};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::store::{Fetch, Store, StoreOptions, Txn, View, ViewOptions, VolumeSet};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;

/// What these records, which belong to no files, cannot keep to.
const CONTENTS: &[Rule] = &[
    Rule::FileOverlap,
    Rule::FileShape,
    Rule::FileEnd,
    Rule::FileTail,
    Rule::FileOwner,
    Rule::Inode,
    Rule::Nlinks,
    Rule::EntryTarget,
    Rule::EntryType,
    Rule::EntryLocalization,
    Rule::EntryKey,
    Rule::EntryName,
    Rule::EntryDuplicate,
    Rule::DirectoryParent,
    Rule::SymlinkTarget,
    Rule::PfsRecord,
];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// What the medium should hold: every record with its `delete_tid` and its data.
type Model = BTreeMap<Key, (Tid, Vec<u8>)>;

fn disk(version: u32) -> SimDisk {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.img");
    let options = build::Options::new(&path, version, 1 << 30);
    Files::new(&options).build(&options);
    SimDisk::over(File::open(&path).expect("an image")).expect("a disk")
}

fn view(disk: &SimDisk) -> View {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.reader(0))];
    let set = VolumeSet::open(devices).expect("a volume set");
    View::open(set, &ViewOptions::default()).expect("a view")
}

fn contents<F: Fetch>(fetch: &mut F) -> Model {
    let mut cursor = Cursor::new(Key::MIN, Key::MAX);
    let mut model = Model::new();
    while let Some(element) = cursor.next(fetch).expect("a whole tree") {
        let data = good_data(fetch, &element).expect("its data");
        model.insert(
            element.base.key(),
            (element.base.delete_tid(), data.to_vec()),
        );
    }
    model
}

fn check(disk: &SimDisk, expected: &Model) {
    let mut view = view(disk);
    assert!(contents(&mut view) == *expected, "the records differ");
    let options = Options {
        data: true,
        mirror_tid: true,
        ..Options::default()
    };
    let mut findings = Vec::new();
    check::run(&mut view, &options, &mut |f| findings.push(f), &mut ()).expect("a check");
    findings.retain(|f| !CONTENTS.contains(&f.fault.rule));
    assert!(findings.is_empty(), "{findings:#?}");
}

/// A record somewhere in a small space of keys.
fn some_record(random: &mut Random) -> Key {
    let pfs = [0, 1, 7][random.below(3) as usize];
    let (class, rec_type) = match random.below(6) {
        0 => (Localization::INODE, rt::INODE),
        1 => (Localization::INODE, rt::DIRENTRY),
        _ => (Localization::MISC, rt::DATA),
    };
    Key {
        localization: Localization::new(pfs, class),
        obj_id: 100 + random.below(6) as i64,
        rec_type,
        key: match rec_type {
            rt::INODE => 0,
            _ => 1 + random.below(60) as i64,
        },
        create_tid: Tid::ZERO,
    }
}

fn is_ours(key: Key) -> bool {
    (100..106).contains(&key.obj_id)
}

fn some_data(random: &mut Random, rec_type: u16) -> Vec<u8> {
    let len = match rec_type {
        rt::INODE => size_of::<InodeData>(),
        rt::DIRENTRY => 17 + random.below(100) as usize,
        _ => match random.below(60) {
            0 => 16384 << random.below(3),
            _ => 1 + random.below(300) as usize,
        },
    };
    random.bytes(len)
}

fn live(model: &Model, record: Key) -> Option<Key> {
    let first = Key {
        create_tid: Tid(1),
        ..record
    };
    let last = Key {
        create_tid: Tid::ZERO,
        ..record
    };
    let mut versions = model.range(first..last);
    versions
        .find(|(_, (delete, _))| delete.is_zero())
        .map(|(key, _)| *key)
}

fn create(editor: &mut Editor, txn: &mut Txn<'_>, model: &mut Model, key: Key, data: Vec<u8>) {
    let record = NewRecord {
        base: Base::from_key(key),
        create_ts: txn.now_seconds(),
        delete_ts: 0,
        data: &data,
        crc: None,
    };
    assert!(put::create(editor, txn, &record).expect("room"));
    assert!(!put::create(editor, txn, &record).expect("a tree"), "twice");
    model.insert(key, (Tid::ZERO, data));
}

fn retire(editor: &mut Editor, txn: &mut Txn<'_>, model: &mut Model, key: Key, keep: bool) {
    let element = find(editor, txn, key);
    put::retire(editor, txn, &element, keep).expect("it is there");
    match model.get_mut(&key) {
        Some(record) if keep && key.create_tid != txn.tid() => record.0 = txn.tid(),
        _ => drop(model.remove(&key)),
    }
}

fn find(editor: &mut Editor, txn: &mut Txn<'_>, key: Key) -> LeafElement {
    editor
        .find(txn, key)
        .expect("a tree")
        .expect("a record of the model")
}

/// A record that a step is about: a new one, or often one that is there.
fn record_for_step(model: &Model, random: &mut Random) -> Key {
    let record = some_record(random);
    if random.below(3) > 0 || model.is_empty() {
        return record;
    }
    let known = *model
        .keys()
        .nth(random.below(model.len() as u64) as usize)
        .expect("one of them");
    match known.rec_type {
        rt::INODE | rt::DIRENTRY | rt::DATA => Key {
            create_tid: Tid::ZERO,
            ..known
        },
        _ => record,
    }
}

fn step(editor: &mut Editor, txn: &mut Txn<'_>, model: &mut Model, random: &mut Random) {
    let record = record_for_step(model, random);
    let key = Key {
        create_tid: txn.tid(),
        ..record
    };
    match (random.below(20), live(model, record)) {
        (0..12, old) => {
            let keep = random.below(4) > 0;
            if let Some(old) = old {
                retire(editor, txn, model, old, keep);
            }
            let data = some_data(random, record.rec_type);
            create(editor, txn, model, key, data);
        }
        (12..14, Some(old)) => retire(editor, txn, model, old, random.below(2) == 0),
        // Data of others may be shared.
        (14, Some(old)) if is_ours(old) => {
            let data = random.bytes(model[&old].1.len());
            if data.len() < 16384 {
                let element = find(editor, txn, old);
                put::overwrite(editor, txn, &element, &data).expect("its place");
                model.insert(old, (Tid::ZERO, data));
            }
        }
        (15, _) => {
            // History goes, oldest first, perhaps whole nodes of it.
            let from = Key {
                create_tid: Tid(1),
                ..record
            };
            let dead = |r: &(&Key, &(Tid, Vec<u8>))| !r.1.0.is_zero();
            let count = random.below(200) as usize;
            let keys: Vec<_> = model
                .range(from..)
                .filter(dead)
                .take(count)
                .map(|r| *r.0)
                .collect();
            for key in keys {
                put::destroy(editor, txn, key, Tid::ZERO).expect("it is there");
                model.remove(&key);
            }
        }
        (16, None) => {
            // The last version comes back, if this transaction deleted it.
            let last = model.range(
                Key {
                    create_tid: Tid(1),
                    ..record
                }..Key { ..record },
            );
            if let Some((last, _)) = last
                .last()
                .map(|(k, v)| (*k, v.0))
                .filter(|l| l.1 == txn.tid())
            {
                put::mark_deleted(editor, txn, last, Tid::ZERO, 0).expect("it is there");
                model.get_mut(&last).expect("a record").0 = Tid::ZERO;
            }
        }
        (17, _) => {
            let start = 1000 + 1000 * random.below(50) as i64;
            for i in 0..random.below(200) as i64 {
                let key = Key {
                    key: start + i,
                    rec_type: rt::DATA,
                    localization: Localization::new(1, 2),
                    ..key
                };
                if live(model, key).is_none() {
                    create(editor, txn, model, key, vec![i as u8]);
                }
            }
        }
        _ => {
            let found = editor.at_or_after(txn, key).expect("a tree");
            let expected = model.range(key..).next().map(|r| *r.0);
            assert_eq!(found.map(|e| e.base.key()), expected);
        }
    }
}

fn run(seed: u64, disk: &SimDisk) {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(seed))];
    let set = VolumeSet::open(devices).expect("a volume set");
    let mut store = Store::open(set, &StoreOptions::default()).expect("a store");
    let (mut random, mut editor) = (Random(seed), Editor::new());
    let mut committed = contents(&mut view(disk));
    for number in 0..24u64 {
        let mut txn = store.begin(1_000_000 * number).expect("a transaction");
        let mut model = committed.clone();
        for _ in 0..random.below(150) {
            step(&mut editor, &mut txn, &mut model, &mut random);
            if random.below(100) == 0 || txn.is_full() {
                txn.checkpoint().expect("a checkpoint");
                committed = model.clone();
            }
        }
        assert!(contents(&mut txn) == model);
        if random.below(4) > 0 {
            txn.commit().expect("a commit");
            committed = model;
        } else {
            drop(txn);
        }
        if number % 4 == 0 {
            check(disk, &committed);
        }
    }
    check(disk, &committed);
    // Everything goes but for what the file system was born with.
    let mut txn = store.begin(1 << 40).expect("a transaction");
    for key in committed.keys() {
        put::destroy(&mut editor, &mut txn, *key, Tid::ZERO).expect("it is there");
        if txn.is_full() {
            txn.checkpoint().expect("a checkpoint");
        }
    }
    txn.commit().expect("a commit");
    let mut view = view(disk);
    assert!(contents(&mut view).is_empty());
    let root = view
        .node(mallet::format::Offset(view.header().btree_root.get()))
        .expect("a root");
    assert!(root.is_leaf() && root.count() == 0);
    assert_eq!(view.header().stat_inodes.get(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: common::soak(12) as u32,
        ..ProptestConfig::default()
    })]

    #[test]
    fn transactions_keep_a_sorted_map(seed: u64, version in 4u32..=7) {
        run(seed, &disk(version));
    }
}

/// Trees that DragonFly's kernel grew, pruned, rebalanced and mirrored into.
#[test]
fn trees_of_the_original_stay_whole() {
    let mut images = vec![golden::testdata("mirror/pfs.img")];
    if let Some(dir) = golden::dir() {
        let names = [
            "small/small-v4.img",
            "small/small-v7.img",
            "maint/maint-1-dedup.img",
            "maint/maint-5-pruneall.img",
            "mirror/slaveA.img",
            "skips/m.img",
        ];
        images.extend(names.map(|name| golden::file(&dir, name)));
    }
    for image in images {
        println!("{}", image.display());
        let disk = SimDisk::over(File::open(&image).expect("an image")).expect("a disk");
        run(1, &disk);
    }
}
