//! Cases that write.

use super::build::bulk::PFS;
use super::cases::{Args, print};
use super::measure::{Sample, Watch};
use super::store::{self, NOW, Plain};
use mallet::btree::Editor;
use mallet::btree::put::{self, NewRecord};
use mallet::format::node::Base;
use mallet::format::record::{ObjType, rt};
use mallet::format::{BUFFER, Key, Localization, ROOT_OBJ};
use mallet::fs::ops::{NewObject, Ops};
use mallet::store::{Store, Written};
use zerocopy::little_endian::U64;

/// Runs the case called `name`.
pub fn run(name: &str, args: &Args) {
    match name {
        "transact" => transact(args),
        other => panic!("no case {other}"),
    }
}

/// Bytes that a store has written.
pub fn total(written: &Written) -> u64 {
    written.data + written.undo + written.meta
}

/// Alternates one transaction (path, cache, turns, 0: one record, 1: a new file) with three plain
/// writes and flushes on the same file; a sample of each.
fn transact(args: &Args) {
    let path = args.path(0);
    let mut store = store::open(&path, args.number(1) as usize);
    let mut plain = Plain::open(&path, BUFFER);
    let turns = args.number(2);
    let change: fn(&mut Store, u64) = match args.number(3) {
        0 => one_record,
        _ => one_file,
    };
    // The first ones read what the others find in memory.
    for n in 0..4 {
        change(&mut store, n);
        plain.write();
    }
    for n in 0..turns {
        let (mut ours, mut plainly) = (Sample::default(), Sample::default());
        for turn in 0..2 {
            if (n + turn) % 2 == 0 {
                let before = store.written();
                let watch = Watch::start();
                change(&mut store, 4 + n);
                ours = watch.stop();
                let after = store.written();
                ours.items = after.flushes - before.flushes;
                ours.bytes = after.undo - before.undo;
                ours.written = total(&after) - total(&before);
                ours.flush_ns = after.flush_ns - before.flush_ns;
            } else {
                let watch = Watch::start();
                for _ in 0..3 {
                    plain.write();
                }
                plainly = watch.stop();
                plainly.items = 3;
                plainly.written = 3 * BUFFER as u64;
            }
        }
        print(&ours);
        print(&plainly);
    }
}

/// A record of 64 bytes, in the middle of the tree.
fn one_record(store: &mut Store, n: u64) {
    let mut txn = store.begin(NOW + n).expect("a transaction");
    let key = Key {
        localization: Localization::new(PFS, Localization::MISC),
        obj_id: ROOT_OBJ,
        rec_type: rt::FIX,
        key: txn.tid().0.cast_signed(),
        create_tid: txn.tid(),
    };
    let mut base = Base::from_key(key);
    base.delete_tid = U64::new(0);
    base.obj_type = ObjType::Directory as u8;
    let record = NewRecord {
        base,
        create_ts: txn.now_seconds(),
        delete_ts: 0,
        data: &[0x5A; 64],
        crc: None,
    };
    let made = put::create(&mut Editor::new(), &mut txn, &record).expect("a record");
    assert!(made, "a new key");
    txn.commit().expect("a durable record");
}

/// An empty file with a name of its own: inode and entry made, the directory touched.
fn one_file(store: &mut Store, n: u64) {
    let mut txn = store.begin(NOW + n).expect("a transaction");
    let new = NewObject {
        kind: ObjType::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        uflags: 0,
        rdev: (0, 0),
        target: b"",
        times: None,
    };
    let name = format!("new{}", txn.tid());
    let made = Ops::new(PFS).create(&mut txn, ROOT_OBJ, name.as_bytes(), &new);
    made.expect("a file");
    txn.commit().expect("a durable file");
}
