//! Operations of several checkpoints: what has no history stays whole until they are there, a
//! failure that cannot be taken back stops the store, and space that they free is used again.

mod common;

use common::fresh::{START, check_clean, set, volume};
use common::soak;
use mallet::btree::Cursor;
use mallet::error::{Class, Error, Result};
use mallet::format::node::Base;
use mallet::format::record::rt;
use mallet::format::{Key, Tid};
use mallet::fs::change::{self, Owner, Removal};
use mallet::fs::import::{self, Origin, Report, Request};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::operation::{self, Done, Operation};
use mallet::fs::ops::Attributes;
use mallet::fs::{Tree, file, pfs, recover};
use mallet::io::sim::{Event, Fault, On, SimDisk, Survive};
use mallet::mirror::source::{Item, Source};
use mallet::mirror::{Asked, SourcePfs, window};
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::collections::BTreeMap;
use std::io::Cursor as Bytes;

const NOHISTORY: u32 = 0x40;
const MIB: usize = 1 << 20;
const OWNER: Owner = Owner { uid: 7, gid: 8 };
/// A transaction with so little memory makes a checkpoint all the time.
const SMALL: usize = 100_000;
const LARGE: usize = 24 << 20;

fn open(disk: &SimDisk, dirty_bytes: usize) -> (Store, recover::Report) {
    let options = recover::OpenOptions {
        store: StoreOptions {
            dirty_bytes,
            // Not even the tree stays in memory.
            cache_bytes: 64 << 10,
            ..StoreOptions::default()
        },
        redo: true,
        now: START,
    };
    recover::open(set(disk), &options).expect("a store")
}

fn view(disk: &SimDisk) -> View {
    let set = VolumeSet::open(vec![Box::new(disk.reader(3))]).expect("a volume set");
    View::open(set, &ViewOptions::default()).expect("a view")
}

fn operate<T>(
    store: &mut Store,
    body: impl FnOnce(&mut Operation<'_>) -> Result<T>,
) -> Result<(T, Done)> {
    operation::run(store, 0, START + 1_000_000, body)
}

fn put(op: &mut Operation<'_>, bytes: &[u8], path: &[u8]) -> Result<Report> {
    let request = Request {
        origin: Origin::Stream(Box::new(Bytes::new(bytes.to_vec()))),
        path,
        keep_tail: false,
        volumes: &[],
        owner: OWNER,
        events: &mut |_, _| {},
        progress: &mut (),
    };
    import::put(op, request)
}

/// Bytes that differ from place to place.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn contents(view: &mut View, path: &[u8]) -> Option<Vec<u8>> {
    // As readers see it, half-done operations left out.
    let tree: Tree = pfs::find(view, "0").expect("PFS 0").tree(None);
    let object = resolve(view, tree, path, Final::Itself).ok()?;
    let mut bytes = vec![0; object.inode.size() as usize];
    file::read_at(view, &object.inode, object.asof, 0, &mut bytes).expect("readable");
    Some(bytes)
}

/// All records of PFS 0 but those of its table: key and deletion.
fn records<F: Fetch>(fetch: &mut F) -> Vec<(Key, Tid)> {
    let mut cursor = Cursor::new(Key::pfs_min(0), Key::pfs_max(0));
    let mut rows = Vec::new();
    while let Some(leaf) = cursor.next(fetch).expect("a readable tree") {
        if leaf.base.rec_type.get() != rt::PFS {
            rows.push((leaf.base.key(), leaf.base.delete_tid()));
        }
    }
    rows
}

/// Old versions of other things than the root directory, which has history.
fn old<F: Fetch>(fetch: &mut F) -> Vec<(Key, Tid)> {
    let mut rows = records(fetch);
    rows.retain(|(key, deleted)| !deleted.is_zero() && key.obj_id != 1);
    rows
}

/// A volume with a directory without history, a large file and small ones in it.
fn prepared() -> SimDisk {
    let disk = volume(7, 192);
    let (mut store, _) = open(&disk, LARGE);
    operate(&mut store, |op| {
        change::make_directory(op, b"/d", false, OWNER)?;
        let dir = resolve(op.txn(), Tree::current(0), b"/d", Final::Itself)?;
        let flags = Attributes {
            uflags: Some(NOHISTORY),
            ..Attributes::default()
        };
        op.step(|txn, ops| ops.set_attributes(txn, dir.inode.id.obj, &flags))?;
        put(op, &noise(7 * MIB, 1), b"/d/large")?;
        change::make_directory(op, b"/d/sub", false, OWNER)?;
        for number in 0..200 {
            let path = format!("/d/sub/{number}");
            put(op, &noise(300, number), path.as_bytes())?;
        }
        Ok(())
    })
    .expect("space");
    drop(store);
    disk.forget_log();
    disk
}

/// Changes the large file, and removes the small ones.
fn change_all(op: &mut Operation<'_>) -> Result<()> {
    let how = Removal {
        recursive: true,
        missing_ok: false,
    };
    put(op, &noise(6 * MIB, 5), b"/d/large")?;
    change::remove(op, b"/d/sub", how, &mut ())?;
    Ok(())
}

fn flushes(disk: &SimDisk) -> Vec<usize> {
    let log = disk.log();
    let is_flush = |at: &usize| matches!(log[*at], Event::Flush);
    (0..log.len()).filter(is_flush).collect()
}

#[test]
fn what_has_no_history_is_whole_until_the_operation_is_there() {
    let disk = prepared();
    let (before, after) = (noise(7 * MIB, 1), noise(6 * MIB, 5));
    let (mut store, _) = open(&disk, SMALL);
    let (_, done) = operate(&mut store, change_all).expect("space");
    assert!(done.written.checkpoints > 5, "{:?}", done.written);
    assert!(!done.left_over);
    assert_eq!(old(store.view()), []);
    drop(store);
    check_clean(&disk);
    let end = disk.log().len();
    let flushes = flushes(&disk);
    let step = (flushes.len() as u64 / soak(25)).max(1) as usize;
    let (mut olds, mut halves, mut news) = (0, 0, 0);
    let cuts = flushes.iter().step_by(step).flat_map(|at| [*at, at + 1]);
    // The last ones are those of what is done behind the operation.
    for cut in cuts
        .chain(flushes.iter().rev().take(9).copied())
        .chain([end])
    {
        for survive in [Survive::All, Survive::None] {
            let crashed = disk.crash(cut, survive).expect("an image");
            let found = contents(&mut view(&crashed), b"/d/large").expect("it is there");
            let is_old = found == before;
            assert!(is_old || found == after, "cut at {cut}, {survive:?}");
            let (mut store, _) = open(&crashed, SMALL);
            if is_old {
                assert_eq!(old(store.view()), []);
            }
            let left = old(store.view()).len();
            match (is_old, left) {
                (true, _) => olds += 1,
                (false, 0) => news += 1,
                // History, until somebody prunes it.
                (false, _) => halves += 1,
            }
            operate(&mut store, |op| {
                change::make_directory(op, b"/alive", false, OWNER)
            })
            .expect("space");
            drop(store);
            let mut seen = view(&crashed);
            let again = contents(&mut seen, b"/d/large").expect("it is there");
            assert!(again == found, "cut at {cut}");
            let small = contents(&mut seen, b"/d/sub/7");
            assert!(small == is_old.then(|| noise(300, 7)), "cut at {cut}");
            check_clean(&crashed);
        }
    }
    assert!(
        olds > 20 && halves > 1 && news > 1,
        "{olds} {halves} {news}"
    );
}

#[test]
fn a_failure_keeps_what_has_no_history() {
    for dirty in [SMALL, LARGE] {
        let disk = prepared();
        let (mut store, _) = open(&disk, dirty);
        let rows = records(store.view());
        let failed = operate(&mut store, |op| {
            change_all(op)?;
            Err::<(), _>(Error::new(Class::Other, "no more"))
        });
        assert_eq!(failed.expect_err("it failed").to_string(), "no more");
        assert_eq!(records(store.view()), rows);
        drop(store);
        let found = contents(&mut view(&disk), b"/d/large");
        assert!(found == Some(noise(7 * MIB, 1)), "{dirty}");
        check_clean(&disk);
    }
}

/// What fits one checkpoint costs no second one.
#[test]
fn one_checkpoint_will_do() {
    let disk = prepared();
    let (mut store, _) = open(&disk, LARGE);
    let (_, done) = operate(&mut store, change_all).expect("space");
    assert_eq!(done.written.checkpoints, 1);
    assert_eq!(old(store.view()), []);
    drop(store);
    check_clean(&disk);
}

/// Once the operation is there, a failure of what comes behind it is none of its own.
#[test]
fn what_is_left_over_is_told() {
    let disk = prepared();
    let whole = disk.snapshot();
    let flushes = {
        let (mut store, _) = open(&whole, SMALL);
        let before = whole.counts().flushes;
        operate(&mut store, change_all).expect("space");
        whole.counts().flushes - before
    };
    let (mut store, _) = open(&disk, SMALL);
    // The last checkpoint, before it changes anything.
    disk.inject_from(On::Flush, flushes - 3, Fault::Fail(5));
    let (_, done) = operate(&mut store, change_all).expect("it is there");
    assert!(done.changed && done.left_over);
    assert!(store.begin(START).is_err());
    disk.heal();
    drop(store);
    let (mut store, report) = open(&disk, SMALL);
    assert_eq!(report.rolled_back, 0);
    assert!(!old(store.view()).is_empty());
    drop(store);
    assert!(contents(&mut view(&disk), b"/d/large") == Some(noise(6 * MIB, 5)));
    check_clean(&disk);
}

/// A change that makes its own checkpoints has no place in an operation.
#[test]
fn no_checkpoint_without_an_intent() {
    let disk = prepared();
    let (mut store, _) = open(&disk, 16 << 10);
    let rows = records(store.view());
    let failed = operate(&mut store, |op| {
        let dir = resolve(op.txn(), Tree::current(0), b"/d", Final::Itself)?;
        op.step(|txn, ops| ops.remove(txn, dir.inode.id.obj, b"large"))
    });
    let text = failed.expect_err("a refusal").to_string();
    assert!(text.contains("in steps"), "{text}");
    assert_eq!(records(store.view()), rows);
}

/// What has history keeps it, beside what has none.
#[test]
fn history_is_kept_where_it_is_wanted() {
    for dirty in [SMALL, LARGE] {
        let disk = prepared();
        let (mut store, _) = open(&disk, dirty);
        operate(&mut store, |op| put(op, &noise(3 * MIB, 3), b"/kept")).expect("space");
        let (_, done) = operate(&mut store, |op| {
            put(op, &noise(3 * MIB, 4), b"/kept")?;
            change_all(op)
        })
        .expect("space");
        let rows = old(store.view());
        let kept = resolve(store.view(), Tree::current(0), b"/kept", Final::Itself);
        let kept = kept.expect("it is there").inode.id.obj;
        // The inode, and all blocks.
        assert_eq!(rows.len(), 1 + 64 + 2 * 16);
        let is_kept = |row: &(Key, Tid)| row.0.obj_id == kept && row.1 == done.tid;
        assert!(rows.iter().all(is_kept), "{rows:?}");
        drop(store);
        check_clean(&disk);
    }
}

/// What a stream from `begin` on says: records and ranges left out.
fn stream(view: &mut View, begin: Option<Tid>) -> (BTreeMap<Key, Tid>, Vec<(Base, Base)>) {
    let pfs = pfs::find(view, "0").expect("PFS 0");
    let asked = Asked {
        begin,
        ..Asked::default()
    };
    let window = window::one_way(&SourcePfs::from(&pfs), asked, None).expect("a window");
    let mut source = Source::new(0, window, false);
    let (mut said, mut skipped) = (BTreeMap::new(), Vec::new());
    while let Some(item) = source.next(view).expect("readable") {
        match item {
            Item::Record { leaf, .. } | Item::Pass(leaf) => {
                said.insert(leaf.base.key(), leaf.base.delete_tid());
            }
            Item::Skip { from, to, .. } => skipped.push((from, to)),
            Item::Quiet { .. } => panic!("there is one target"),
        }
    }
    (said, skipped)
}

#[test]
fn slaves_notice() {
    let disk = prepared();
    let (mut slave, _) = stream(&mut view(&disk), None);
    let (mut store, _) = open(&disk, SMALL);
    let (_, done) = operate(&mut store, change_all).expect("space");
    drop(store);
    let (said, skipped) = stream(&mut view(&disk), Some(done.tid));
    // What is passed over in silence is gone (the rules of a target).
    let stays = |key: &Key| {
        let skips = |(from, to): &(Base, Base)| from.key() <= *key && *key < to.key();
        said.contains_key(key) || skipped.iter().any(skips)
    };
    let many = slave.len();
    slave.retain(|key, _| stays(key));
    assert!(slave.len() + 150 < many, "{many}, {}", slave.len());
    slave.extend(said);
    let (whole, _) = stream(&mut view(&disk), None);
    assert_eq!(slave, whole);
}

#[test]
fn what_cannot_be_taken_back_stops_the_store() {
    let disk = prepared();
    let before = noise(7 * MIB, 1);
    let (mut store, _) = open(&disk, SMALL);
    let reads_fail = || disk.inject_from(On::Read, 0, Fault::Fail(5));
    let failed = operate(&mut store, |op| {
        change_all(op)?;
        reads_fail();
        Err::<(), _>(Error::new(Class::Other, "no more"))
    });
    let text = failed.expect_err("it failed").to_string();
    assert!(text.contains("could not be taken back"), "{text}");
    assert!(text.contains("no more"), "{text}");
    disk.heal();
    let text = store.begin(START).err().expect("a latch").to_string();
    assert!(text.contains("could not be taken back"), "{text}");
    assert!(text.contains("opened again"), "{text}");
    let next = operate(&mut store, |op| {
        change::make_directory(op, b"/more", false, OWNER)
    });
    assert!(next.is_err() && store.durable().is_err());
    assert!(contents(&mut view(&disk), b"/d/large").as_ref() == Some(&before));
    drop(store);
    let (store, report) = open(&disk, SMALL);
    assert_eq!(report.rolled_back, 1);
    drop(store);
    assert!(contents(&mut view(&disk), b"/d/large") == Some(before));
    check_clean(&disk);
}

/// Big-blocks that the operation itself frees carry it further than the free space would.
#[test]
fn its_own_space_is_used_again() {
    let disk = volume(7, 128);
    let (mut store, _) = open(&disk, LARGE);
    let rounds = 12;
    let size = 16 * MIB;
    let (_, done) = operate(&mut store, |op| {
        for round in 0..rounds {
            put(op, &noise(size, round), b"/f")?;
        }
        Ok(())
    })
    .expect("space");
    // Far fewer than there were steps.
    let checkpoints = done.written.checkpoints;
    assert!((2..40).contains(&checkpoints), "{checkpoints}");
    assert!(contents(&mut view(&disk), b"/f") == Some(noise(size, rounds - 1)));
    drop(store);
    check_clean(&disk);
}
