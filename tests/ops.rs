//! Changes to files: records as DragonFly makes them, and refusals.

mod common;

use common::fresh::{START, check_clean, contents, new, open, set, volume};
use mallet::btree::Cursor;
use mallet::error::Class;
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::fs::ops::{Attributes, NewObject, Ops, Sweep};
use mallet::fs::{Inode, ObjectId, file, inode};
use mallet::store::{Fetch, Store, StoreOptions, Txn, View};

const ROOT: i64 = ROOT_OBJ;
const NOHISTORY: u32 = 0x40;
const IMMUTABLE: u32 = 0x2;
const APPEND: u32 = 0x4;

/// One committed transaction.
fn commit<T>(
    store: &mut Store,
    now: u64,
    work: impl FnOnce(&mut Ops, &mut Txn<'_>) -> T,
) -> (Tid, T) {
    let mut ops = Ops::new(0);
    let mut txn = store.begin(now).expect("a transaction");
    let tid = txn.tid();
    let result = work(&mut ops, &mut txn);
    txn.commit().expect("a commit");
    (tid, result)
}

/// A record: type, key, creation, deletion, length of data.
type Row = (u16, i64, u64, u64, i32);

/// All records of an object, every version.
fn records<F: Fetch>(fetch: &mut F, obj: i64) -> Vec<Row> {
    let mut rows = Vec::new();
    for class in [Localization::INODE, Localization::MISC] {
        let id = ObjectId { pfs: 0, obj };
        let from = id.key(class, 0, i64::MIN);
        let to = Key {
            rec_type: u16::MAX,
            key: i64::MAX,
            create_tid: Tid::ZERO,
            ..from
        };
        let mut cursor = Cursor::new(from, to);
        while let Some(leaf) = cursor.next(fetch).expect("a readable tree") {
            let key = leaf.base.key();
            rows.push((
                key.rec_type,
                key.key,
                key.create_tid.0,
                leaf.base.delete_tid().0,
                leaf.data_len.get(),
            ));
        }
    }
    rows
}

/// The entries of the root directory, every version: creation and deletion.
fn entries<F: Fetch>(fetch: &mut F) -> Vec<(u64, u64)> {
    let rows = records(fetch, ROOT).into_iter();
    let rows = rows.filter(|row| row.0 == rt::DIRENTRY);
    rows.map(|row| (row.2, row.3)).collect()
}

fn the_inode(view: &mut View, obj: i64) -> Inode {
    let id = ObjectId { pfs: 0, obj };
    let found = inode(view, id, Tid::MAX).expect("a readable inode");
    found.expect("an inode")
}

/// The worked example of the reference on operations.
#[test]
fn a_file_made_grown_and_removed() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let bytes: Vec<u8> = (0..40000u32).map(|n| (n % 251) as u8).collect();
    let (t1, n) = commit(&mut store, START + 1, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        ops.write(txn, n, 0, &bytes[..5000]).expect("a write");
        n
    });
    let t1 = t1.0;
    assert_eq!(
        records(store.view(), n),
        [(rt::INODE, 0, t1, 0, 128), (rt::DATA, 5008, t1, 0, 5008)]
    );
    assert_eq!(entries(store.view()), [(t1, 0)]);
    let made = the_inode(store.view(), n);
    assert_eq!((made.size(), made.data.nlinks.get()), (5000, 1));
    assert_eq!(
        (made.data.uid(), made.data.gid(), made.data.mode()),
        (1001, 1002, 0o644)
    );
    assert_eq!(made.data.parent_obj_id.get(), ROOT);
    assert_eq!(made.leaf.base.obj_type, ObjType::File as u8);

    let (t2, ()) = commit(&mut store, START + 2, |ops, txn| {
        ops.write(txn, n, 5000, &bytes[5000..]).expect("a write");
    });
    let t2 = t2.0;
    assert_eq!(
        records(store.view(), n),
        [
            (rt::INODE, 0, t1, t2, 128),
            (rt::INODE, 0, t2, 0, 128),
            (rt::DATA, 5008, t1, t2, 5008),
            (rt::DATA, 16384, t2, 0, 16384),
            (rt::DATA, 32768, t2, 0, 16384),
            (rt::DATA, 49152, t2, 0, 16384),
        ]
    );
    let grown = the_inode(store.view(), n);
    // A write changes mtime, not ctime.
    assert_eq!(grown.data.ctime, made.data.ctime);
    assert_eq!(grown.data.mtime.get(), START + 2);

    let (t3, ()) = commit(&mut store, START + 3, |ops, txn| {
        ops.remove(txn, ROOT, b"f").expect("a removal");
    });
    let t3 = t3.0;
    assert_eq!(
        records(store.view(), n),
        [
            (rt::INODE, 0, t1, t2, 128),
            (rt::INODE, 0, t2, t3, 128),
            (rt::DATA, 5008, t1, t2, 5008),
            (rt::DATA, 16384, t2, t3, 16384),
            (rt::DATA, 32768, t2, t3, 16384),
            (rt::DATA, 49152, t2, t3, 16384),
        ]
    );
    assert_eq!(entries(store.view()), [(t1, t3)]);
    let id = ObjectId { pfs: 0, obj: n };
    for (asof, len) in [(t1, 5000), (t2 - 1, 5000), (t2, 40000), (t3 - 1, 40000)] {
        let asof = Tid(asof);
        let old = inode(store.view(), id, asof)
            .expect("a tree")
            .expect("an inode");
        assert_eq!(contents(store.view(), &old, asof), &bytes[..len]);
    }
    assert!(inode(store.view(), id, Tid(t3)).expect("a tree").is_none());
    drop(store);
    check_clean(&disk);
}

#[test]
fn writes_within_the_length_make_no_inode_version() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let (t1, n) = commit(&mut store, START + 1, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        ops.write(txn, n, 0, &[1; 40000]).expect("a write");
        n
    });
    let (t2, ()) = commit(&mut store, START + 2, |ops, txn| {
        ops.write(txn, n, 20000, &[2; 10]).expect("a write");
    });
    let (t1, t2) = (t1.0, t2.0);
    assert_eq!(
        records(store.view(), n),
        [
            (rt::INODE, 0, t1, 0, 128),
            (rt::DATA, 16384, t1, 0, 16384),
            (rt::DATA, 32768, t1, t2, 16384),
            (rt::DATA, 32768, t2, 0, 16384),
            (rt::DATA, 49152, t1, 0, 16384),
        ]
    );
    assert_eq!(the_inode(store.view(), n).data.mtime.get(), START + 2);
    // Times alone change in place too; all else makes a version.
    let (_, ()) = commit(&mut store, START + 3, |ops, txn| {
        let times = Attributes {
            mtime: Some(5),
            atime: Some(6),
            ..Attributes::default()
        };
        ops.set_attributes(txn, n, &times).expect("times");
    });
    let data = the_inode(store.view(), n).data;
    assert_eq!(
        (data.mtime.get(), data.atime.get(), data.ctime.get()),
        (5, 6, START + 1)
    );
    assert_eq!(records(store.view(), n)[0], (rt::INODE, 0, t1, 0, 128));
    let (t4, ()) = commit(&mut store, START + 4, |ops, txn| {
        let mode = Attributes {
            mode: Some(0o600),
            ..Attributes::default()
        };
        ops.set_attributes(txn, n, &mode).expect("a mode");
    });
    assert_eq!(
        records(store.view(), n)[..2],
        [(rt::INODE, 0, t1, t4.0, 128), (rt::INODE, 0, t4.0, 0, 128)]
    );
    assert_eq!(the_inode(store.view(), n).data.ctime.get(), START + 4);
    drop(store);
    check_clean(&disk);
}

#[test]
fn without_history_nothing_old_stays() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let (_, d) = commit(&mut store, START + 1, |ops, txn| {
        let flagged = NewObject {
            uflags: NOHISTORY,
            ..new(ObjType::Directory)
        };
        ops.create(txn, ROOT, b"d", &flagged).expect("a directory")
    });
    let (_, n) = commit(&mut store, START + 2, |ops, txn| {
        let n = ops
            .create(txn, d, b"f", &new(ObjType::File))
            .expect("a file");
        ops.write(txn, n, 0, &[1; 20000]).expect("a write");
        n
    });
    assert_eq!(the_inode(store.view(), n).data.uflags.get(), NOHISTORY);
    let (t3, ()) = commit(&mut store, START + 3, |ops, txn| {
        ops.truncate(txn, n, 100).expect("a truncation");
        ops.rename(txn, (d, b"f"), (d, b"g")).expect("a rename");
    });
    let t3 = t3.0;
    assert_eq!(
        records(store.view(), n),
        [(rt::INODE, 0, t3, 0, 128), (rt::DATA, 112, t3, 0, 112)]
    );
    let rows = records(store.view(), d);
    assert_eq!(rows.iter().filter(|r| r.0 == rt::DIRENTRY).count(), 1);
    let (_, ()) = commit(&mut store, START + 4, |ops, txn| {
        ops.remove(txn, d, b"g").expect("a removal");
    });
    assert_eq!(records(store.view(), n), []);
    drop(store);
    check_clean(&disk);
}

#[test]
fn what_one_transaction_makes_and_removes_leaves_nothing() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let before = records(store.view(), ROOT);
    let (_, n) = commit(&mut store, START + 1, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        ops.write(txn, n, 0, &[1; 3 << 20]).expect("a write");
        ops.link(txn, n, ROOT, b"g").expect("a link");
        ops.write(txn, n, 70_000, &[2; 70_000]).expect("a write");
        ops.remove(txn, ROOT, b"f").expect("a removal");
        ops.rename(txn, (ROOT, b"g"), (ROOT, b"h"))
            .expect("a rename");
        ops.remove(txn, ROOT, b"h").expect("a removal");
        n
    });
    assert_eq!(records(store.view(), n), []);
    assert_eq!(records(store.view(), ROOT), before);
    drop(store);
    check_clean(&disk);
}

#[test]
fn a_name_removed_and_made_again_in_one_transaction_gets_the_next_key() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    commit(&mut store, START + 1, |ops, txn| {
        ops.create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
    });
    commit(&mut store, START + 2, |ops, txn| {
        ops.remove(txn, ROOT, b"f").expect("a removal");
        ops.create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
    });
    let keys = |store: &mut Store| -> Vec<i64> {
        let rows = records(store.view(), ROOT).into_iter();
        rows.filter(|r| r.0 == rt::DIRENTRY).map(|r| r.1).collect()
    };
    let found = keys(&mut store);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1], found[0] + 1);
    // Later the old one is in nobody's way.
    commit(&mut store, START + 3, |ops, txn| {
        ops.remove(txn, ROOT, b"f").expect("a removal");
    });
    commit(&mut store, START + 4, |ops, txn| {
        ops.create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
    });
    assert_eq!(keys(&mut store), [found[0], found[0], found[1]]);
    drop(store);
    check_clean(&disk);
}

/// The error's text of a request that is refused, in a transaction that it does not change.
fn refusal<T: std::fmt::Debug>(
    store: &mut Store,
    work: impl FnOnce(&mut Ops, &mut Txn<'_>) -> mallet::Result<T>,
) -> String {
    let mut txn = store.begin(START).expect("a transaction");
    let error = work(&mut Ops::new(0), &mut txn).expect_err("a refusal");
    assert_eq!(error.class(), Class::Other, "{error}");
    assert!(!txn.is_dirty(), "{error}");
    error.to_string()
}

#[test]
fn refusals_say_why() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let flags = |uflags| Attributes {
        uflags: Some(uflags),
        ..Attributes::default()
    };
    let (_, (d, f, locked)) = commit(&mut store, START + 1, |ops, txn| {
        let d = ops
            .create(txn, ROOT, b"d", &new(ObjType::Directory))
            .expect("d");
        ops.create(txn, d, b"e", &new(ObjType::Directory))
            .expect("e");
        let f = ops.create(txn, ROOT, b"f", &new(ObjType::File)).expect("f");
        let locked = ops.create(txn, ROOT, b"l", &new(ObjType::File)).expect("l");
        ops.write(txn, locked, 0, b"locked").expect("contents");
        ops.set_attributes(txn, locked, &flags(IMMUTABLE))
            .expect("flags");
        (d, f, locked)
    });
    let s = &mut store;
    let says = |text: String, what: &str| assert!(text.contains(what), "{text}");
    let file = new(ObjType::File);
    says(refusal(s, |o, t| o.create(t, ROOT, b"f", &file)), "exists");
    says(
        refusal(s, |o, t| o.create(t, f, b"x", &file)),
        "not a directory",
    );
    says(
        refusal(s, |o, t| o.create(t, 99, b"x", &file)),
        "does not exist",
    );
    says(
        refusal(s, |o, t| o.create(t, ROOT, b"..", &file)),
        "no name",
    );
    says(
        refusal(s, |o, t| o.create(t, ROOT, &[b'x'; 256], &file)),
        "255",
    );
    says(
        refusal(s, |o, t| o.remove(t, ROOT, b"no")),
        "does not exist",
    );
    says(refusal(s, |o, t| o.remove(t, ROOT, b"d")), "not empty");
    says(refusal(s, |o, t| o.remove(t, ROOT, b"l")), "immutable");
    says(
        refusal(s, |o, t| o.link(t, d, ROOT, b"x")),
        "is a directory",
    );
    says(refusal(s, |o, t| o.link(t, f, ROOT, b"d")), "exists");
    says(
        refusal(s, |o, t| o.rename(t, (ROOT, b"d"), (d, b"x"))),
        "into itself",
    );
    says(
        refusal(s, |o, t| o.rename(t, (ROOT, b"f"), (ROOT, b"d"))),
        "is a directory",
    );
    says(
        refusal(s, |o, t| o.rename(t, (ROOT, b"d"), (ROOT, b"f"))),
        "not a directory",
    );
    says(
        refusal(s, |o, t| o.rename(t, (ROOT, b"f"), (ROOT, b"l"))),
        "immutable",
    );
    says(refusal(s, |o, t| o.write(t, d, 0, b"x")), "is a directory");
    says(refusal(s, |o, t| o.write(t, locked, 0, b"x")), "immutable");
    says(
        refusal(s, |o, t| o.write(t, f, i64::MAX as u64 - 65536, b"xx")),
        "too large",
    );
    says(
        refusal(s, |o, t| o.write(t, f, u64::MAX, b"xx")),
        "too large",
    );
    says(refusal(s, |o, t| o.truncate(t, f, u64::MAX)), "too large");
    says(refusal(s, |o, t| o.truncate(t, locked, 0)), "immutable");
    let mode = Attributes {
        mode: Some(0o600),
        ..Attributes::default()
    };
    says(
        refusal(s, |o, t| o.set_attributes(t, locked, &mode)),
        "immutable",
    );
    // The flags themselves can be changed, and append-only files appended to.
    commit(s, START + 2, |ops, txn| {
        ops.set_attributes(txn, locked, &flags(APPEND))
            .expect("flags");
        ops.write(txn, locked, 6, b" up").expect("an append");
    });
    says(
        refusal(s, |o, t| o.write(t, locked, 0, b"x")),
        "append-only",
    );
    let inode = the_inode(s.view(), locked);
    assert_eq!(contents(s.view(), &inode, Tid::MAX), b"locked up");
    drop(store);
    check_clean(&disk);
}

#[test]
fn the_longest_file_has_its_last_byte() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let last = i64::MAX as u64 - 65536 - 1;
    let (_, n) = commit(&mut store, START, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        ops.write(txn, n, last, b"x").expect("a write");
        n
    });
    let inode = the_inode(store.view(), n);
    assert_eq!(inode.size(), last + 1);
    let mut byte = [0; 2];
    let len = file::read_at(store.view(), &inode, Tid::MAX, last, &mut byte).expect("a byte");
    assert_eq!((len, byte[0]), (1, b'x'));
    drop(store);
    check_clean(&disk);
}

#[test]
fn large_removals_and_cuts_go_in_steps() {
    let disk = volume(7, 192);
    let options = StoreOptions {
        // Room for few changed buffers: a checkpoint is due all the time.
        dirty_bytes: 32 << 10,
        ..StoreOptions::default()
    };
    let mut store = Store::open(set(&disk), &options).expect("a store");
    let size: u64 = 40 << 20;
    let (t1, n) = commit(&mut store, START + 1, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        for at in (0..size).step_by(1 << 20) {
            ops.write(txn, n, at, &[at as u8 | 1; 1 << 20])
                .expect("a write");
            if txn.is_full() {
                txn.checkpoint().expect("a checkpoint");
            }
        }
        n
    });
    let steps = |sweep: Option<Sweep>, ops: &mut Ops, txn: &mut Txn<'_>| -> u32 {
        let mut sweep = sweep.expect("records to remove");
        let mut count = 1;
        while !sweep.step(ops, txn).expect("a step") {
            txn.checkpoint().expect("a checkpoint");
            if count % 100 == 1 {
                check_clean(&disk);
            }
            count += 1;
        }
        count
    };
    let (t2, count) = commit(&mut store, START + 2, |ops, txn| {
        let sweep = ops.begin_truncate(txn, n, 20_000_000).expect("a beginning");
        steps(sweep, ops, txn)
    });
    assert!(count > 1, "{count} steps");
    check_clean(&disk);
    let cut = the_inode(store.view(), n);
    assert_eq!((cut.size(), cut.tid()), (20_000_000, t2));
    let (t3, count) = commit(&mut store, START + 3, |ops, txn| {
        let sweep = ops.begin_remove(txn, ROOT, b"f").expect("a beginning");
        let orphan = ops.inode(txn, n).expect("a tree").expect("an orphan");
        assert_eq!(orphan.data.nlinks.get(), 0);
        steps(sweep, ops, txn)
    });
    assert!(count > 1, "{count} steps");
    let rows = records(store.view(), n);
    assert!(rows.iter().all(|row| row.3 != 0), "{rows:?}");
    let versions = rows.iter().filter(|row| row.0 == rt::INODE);
    let versions: Vec<_> = versions.map(|row| (row.2, row.3)).collect();
    assert_eq!(versions.last(), Some(&(t2.0, t3.0)));
    // All of its history is there.
    let id = ObjectId { pfs: 0, obj: n };
    let old = inode(store.view(), id, t1)
        .expect("a tree")
        .expect("an inode");
    let bytes = contents(store.view(), &old, t1);
    assert!(bytes.chunks(1 << 20).enumerate().all(|(i, piece)| {
        let byte = ((i as u64) << 20) as u8 | 1;
        piece.iter().all(|b| *b == byte)
    }));
    drop(store);
    check_clean(&disk);
}

#[test]
fn files_put_in_blocks_with_holes() {
    let disk = volume(7, 96);
    let mut store = open(&disk);
    let size: u64 = (1 << 20) + 100_000;
    let block = |base: u64| -> usize {
        let full = if base < 1 << 20 { 16384 } else { 65536 };
        full.min(size - base) as usize
    };
    let put = |ops: &mut Ops, txn: &mut Txn<'_>, n: i64, hole: u64| {
        let inode = ops.inode(txn, n).expect("a tree").expect("an inode");
        let mut base = 0;
        while base < size {
            let bytes = vec![base as u8 | 1; block(base)];
            let is_hole = base / 16384 % 3 == hole;
            let bytes = (!is_hole).then_some(&bytes[..]);
            ops.put_block(txn, &inode, base, bytes, size)
                .expect("a block");
            base += if base < 1 << 20 { 16384 } else { 65536 };
        }
        ops.finish_file(txn, n, size, START + 77).expect("an end");
    };
    let (_, n) = commit(&mut store, START + 1, |ops, txn| {
        let n = ops
            .create(txn, ROOT, b"f", &new(ObjType::File))
            .expect("a file");
        put(ops, txn, n, 1);
        n
    });
    commit(&mut store, START + 2, |ops, txn| put(ops, txn, n, 2));
    check_clean(&disk);
    let inode = the_inode(store.view(), n);
    assert_eq!((inode.size(), inode.data.mtime.get()), (size, START + 77));
    let bytes = contents(store.view(), &inode, Tid::MAX);
    for (base, piece) in bytes.chunks(16384).enumerate().take(64) {
        let byte = if base % 3 == 2 { 0 } else { 1 };
        assert!(piece.iter().all(|b| *b == byte), "block {base}");
    }
    // A file put anew that is short now: blocks behind its end are gone, the first is short.
    commit(&mut store, START + 3, |ops, txn| {
        let inode = ops.inode(txn, n).expect("a tree").expect("an inode");
        ops.put_block(txn, &inode, 0, Some(b"short"), 5)
            .expect("a block");
        ops.finish_file(txn, n, 5, START).expect("an end");
    });
    check_clean(&disk);
    let inode = the_inode(store.view(), n);
    assert_eq!(contents(store.view(), &inode, Tid::MAX), b"short");
    let mut txn = store.begin(START).expect("a transaction");
    for (base, len, size) in [(0, 4, 5), (16384, 1, 5), (1, 5, 6), (0, 16385, 16385)] {
        let block = vec![1; len];
        let error = Ops::new(0)
            .put_block(&mut txn, &inode, base, Some(&block), size)
            .expect_err("no block");
        assert_eq!(error.class(), Class::Usage);
    }
}
