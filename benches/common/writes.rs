//! Cases that write.

use super::build::bulk::PFS;
use super::cases::{Args, print};
use super::engine::{Host, view_through};
use super::measure::{Sample, Watch};
use super::plain;
use super::store::{self, NOW, Plain};
use mallet::btree::Editor;
use mallet::btree::put::{self, NewRecord};
use mallet::format::Tid;
use mallet::format::node::Base;
use mallet::format::record::{ObjType, rt};
use mallet::format::{BUFFER, Key, Localization, ROOT_OBJ};
use mallet::fs::change::Owner;
use mallet::fs::import;
use mallet::fs::operation;
use mallet::fs::ops::{NewObject, Ops};
use mallet::fs::pfs;
use mallet::io::Direct;
use mallet::mirror::copy::{self, Edge, Group, Origin, Place};
use mallet::mirror::ready::Identity;
use mallet::mirror::{SourcePfs, Terms};
use mallet::store::{Store, Written};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;
use zerocopy::little_endian::U64;

/// Runs the case called `name`.
pub fn run(name: &str, args: &Args) {
    match name {
        "transact" => transact(args),
        "plain-copy" => print(&plain::copy(&args.path(0), &args.path(1))),
        "copy" => print(&copy(args)),
        "put" => print(&put_file(args)),
        _ => super::links::run(name, args),
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

/// `mirror-copy` (source, target, cache, up to this TID or 0, 1: source in the page cache), all of
/// the source's PFS to PFS 1 of the target. Items are records of the source, bytes are those of data.
fn copy(args: &Args) -> Sample {
    let cache = args.number(2) as usize;
    let direct = match args.number(4) {
        0 => Direct::On,
        _ => {
            warm(&args.path(0));
            Direct::Off
        }
    };
    let watch = Watch::start();
    let mut view = view_through(&args.path(0), cache / 2, direct);
    let mut stores = [store::open(&args.path(1), cache / 2)];
    let before = stores[0].written();
    let found = pfs::load(&mut view, PFS)
        .expect("a readable record")
        .expect("the PFS");
    let mut source = SourcePfs::from(&found);
    if args.number(3) > 0 {
        source.end = Tid(args.number(3));
    }
    let request = copy::Request {
        bytes_total: None,
        source,
        identity: Identity::of(&found),
        split: None,
        terms: Terms::default(),
        bandwidth: None,
        group: Group::default(),
    };
    let mut edge = Edge {
        now: &mut || NOW,
        clock: &mut Host(Instant::now()),
        progress: &mut (),
        events: &mut |_| {},
    };
    let place = Place { store: 0, pfs: PFS };
    let report = copy::copy(
        &mut Origin::Apart(&mut view),
        &mut stores,
        &[place],
        &request,
        &mut edge,
    );
    let report = report.expect("a slave that fits");
    let target = &report.targets[0];
    assert!(report.stopped.is_none() && target.class().is_none());
    assert_eq!(target.tids.1, source.end, "all of it acknowledged");
    let after = stores[0].written();
    Sample {
        items: report.items,
        bytes: report.read_bytes,
        device_bytes: view.counters().bytes,
        written: total(&after) - total(&before),
        flush_ns: after.flush_ns - before.flush_ns,
        ..watch.stop()
    }
}

/// Brings a file into the page cache.
fn warm(path: &Path) {
    let mut file = File::open(path).expect("the source");
    let mut piece = vec![0; 1 << 20];
    while file.read(&mut piece).expect("the source's bytes") > 0 {}
}

/// `put` (volume, cache, host path, path in PFS 0). Items are metadata buffers, bytes those of the
/// blocks written.
fn put_file(args: &Args) -> Sample {
    let watch = Watch::start();
    let mut store = store::open(&args.path(0), args.number(1) as usize);
    let path = args.path(3);
    let (report, done) = operation::run(&mut store, 0, NOW, |op| {
        import::put(
            op,
            import::Request {
                origin: import::Origin::Path(args.path(2)),
                path: path.as_os_str().as_encoded_bytes(),
                keep_tail: false,
                volumes: &[],
                owner: Owner { uid: 0, gid: 0 },
                events: &mut |_, _| {},
                progress: &mut (),
            },
        )
    })
    .expect("all of it copied in");
    let sample = Sample {
        items: done.written.buffers,
        bytes: report.block_bytes,
        written: total(&done.written),
        flush_ns: done.written.flush_ns,
        ..watch.stop()
    };
    eprintln!(
        "   put: {} blocks written, {} the same; {} checkpoints",
        report.blocks_written, report.blocks_same, done.written.checkpoints
    );
    sample
}
