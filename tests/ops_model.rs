//! Random sequences of changes to files against a model with its whole history: every view of it
//! compared, and the medium checked after every commit.

mod common;

use common::fresh::{START, check_clean, contents, new, open, volume};
use common::soak;
use mallet::format::record::{InodeData, ObjType};
use mallet::format::{ROOT_OBJ, Tid};
use mallet::fs::ops::{Attributes, NewObject, Ops};
use mallet::fs::{ObjectId, dir, inode, stored_target};
use mallet::store::{Txn, View};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ROOT: i64 = ROOT_OBJ;

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Dir(BTreeMap<Vec<u8>, i64>),
    File(Vec<u8>),
    Link(Vec<u8>),
    Other,
}

#[derive(Clone, Debug, PartialEq)]
struct Object {
    body: Body,
    links: u64,
    parent: i64,
    mode: u16,
    mtime: u64,
    ctime: u64,
}

type Model = BTreeMap<i64, Object>;

/// A random operation; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Op {
    Create(usize, usize, u8),
    Link(usize, usize, usize),
    Remove(usize, usize),
    Rename((usize, usize), (usize, usize)),
    Write(usize, u64, usize, u8),
    Truncate(usize, u64),
    Mode(usize, u16),
    Commit,
}

const NAMES: [&[u8]; 7] = [b"a", b"b", b"c.d", b"d.c", b"e-f_g~h", b"hash", b"x"];

fn offsets() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0u64..20_000,
        1 => prop_oneof![Just(0), Just(15), Just(16), Just(8191), Just(8192), Just(8193)],
        1 => prop_oneof![Just(16383u64), Just(16384), Just(16385), Just(32768)],
        1 => (1u64 << 20) - 40_000..(1 << 20) + 140_000,
        1 => prop_oneof![Just((1u64 << 20) - 1), Just(1 << 20), Just((1 << 20) + 1)],
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let dir = 0..4usize;
    let name = 0..NAMES.len();
    let any = 0..8usize;
    prop_oneof![
        4 => (dir.clone(), name.clone(), 0..5u8).prop_map(|(d, n, k)| Op::Create(d, n, k)),
        1 => (any.clone(), dir.clone(), name.clone()).prop_map(|(o, d, n)| Op::Link(o, d, n)),
        2 => (dir.clone(), name.clone()).prop_map(|(d, n)| Op::Remove(d, n)),
        2 => ((dir.clone(), name.clone()), (dir, name)).prop_map(|(a, b)| Op::Rename(a, b)),
        5 => (any.clone(), offsets(), 1..40_000usize, 1u8..).prop_map(|(o, at, len, b)| Op::Write(o, at, len, b)),
        3 => (any.clone(), offsets()).prop_map(|(o, size)| Op::Truncate(o, size)),
        1 => (any, 0u16..0o1000).prop_map(|(o, mode)| Op::Mode(o, mode)),
        3 => Just(Op::Commit),
    ]
}

/// The `n`-th of the objects that fit, counted round.
fn pick(model: &Model, n: usize, fits: impl Fn(&Body) -> bool) -> Option<i64> {
    let ids: Vec<i64> = model
        .iter()
        .filter(|(_, o)| fits(&o.body))
        .map(|(id, _)| *id)
        .collect();
    (!ids.is_empty()).then(|| ids[n % ids.len()])
}

fn is_dir(body: &Body) -> bool {
    matches!(body, Body::Dir(_))
}

fn dir_of(model: &mut Model, id: i64) -> &mut BTreeMap<Vec<u8>, i64> {
    match &mut model.get_mut(&id).expect("a directory").body {
        Body::Dir(entries) => entries,
        other => panic!("{other:?} is no directory"),
    }
}

/// One entry less of object `id` in the model.
fn drop_link(model: &mut Model, id: i64, now: u64) {
    let object = model.get_mut(&id).expect("an object");
    object.links -= 1;
    object.ctime = now;
    if object.links == 0 {
        model.remove(&id);
    }
}

fn lies_below(model: &Model, mut dir: i64, above: i64) -> bool {
    loop {
        if dir == above {
            return true;
        }
        if dir == ROOT {
            return false;
        }
        dir = model[&dir].parent;
    }
}

/// Carries out an operation on both sides; both refuse, or both do it.
fn apply(model: &mut Model, ops: &mut Ops, txn: &mut Txn<'_>, op: &Op) {
    let now = txn.now();
    let dir = |model: &Model, n| pick(model, n, is_dir).expect("the root at least");
    match *op {
        Op::Create(d, n, kind) => {
            let (d, name) = (dir(model, d), NAMES[n]);
            let long = [b't'; 30];
            let (kind, body, target): (_, _, &[u8]) = match kind {
                0 => (ObjType::Directory, Body::Dir(BTreeMap::new()), b""),
                1 => (ObjType::Symlink, Body::Link(b"to".to_vec()), b"to"),
                2 => (ObjType::Symlink, Body::Link(long.to_vec()), &long),
                3 => (ObjType::Fifo, Body::Other, b""),
                _ => (ObjType::File, Body::File(Vec::new()), b""),
            };
            let what = NewObject {
                target,
                ..new(kind)
            };
            let result = ops.create(txn, d, name, &what);
            let taken = dir_of(model, d).contains_key(name);
            assert_eq!(result.is_err(), taken, "{result:?}");
            let Ok(id) = result else { return };
            dir_of(model, d).insert(name.to_vec(), id);
            model.get_mut(&d).expect("it").mtime = now;
            let object = Object {
                body,
                links: 1,
                parent: d,
                mode: 0o644,
                mtime: now,
                ctime: now,
            };
            model.insert(id, object);
        }
        Op::Link(o, d, n) => {
            let (d, name) = (dir(model, d), NAMES[n]);
            let Some(id) = pick(model, o, |b| !is_dir(b)) else {
                return;
            };
            let result = ops.link(txn, id, d, name);
            assert_eq!(result.is_err(), dir_of(model, d).contains_key(name));
            if result.is_err() {
                return;
            }
            dir_of(model, d).insert(name.to_vec(), id);
            model.get_mut(&d).expect("it").mtime = now;
            let object = model.get_mut(&id).expect("it");
            object.links += 1;
            object.ctime = now;
        }
        Op::Remove(d, n) => {
            let (d, name) = (dir(model, d), NAMES[n]);
            let result = ops.remove(txn, d, name);
            let target = dir_of(model, d).get(name).copied();
            let full =
                target.is_some_and(|t| matches!(&model[&t].body, Body::Dir(e) if !e.is_empty()));
            assert_eq!(result.is_err(), target.is_none() || full, "{result:?}");
            if let (Ok(()), Some(target)) = (result, target) {
                dir_of(model, d).remove(name);
                model.get_mut(&d).expect("it").mtime = now;
                drop_link(model, target, now);
            }
        }
        Op::Rename((d1, n1), (d2, n2)) => {
            let (d1, d2) = (dir(model, d1), dir(model, d2));
            let (from, to) = (NAMES[n1], NAMES[n2]);
            let result = ops.rename(txn, (d1, from), (d2, to));
            rename(model, (d1, from), (d2, to), result, now);
        }
        Op::Write(o, at, len, byte) => {
            let Some(id) = pick(model, o, |b| matches!(b, Body::File(_))) else {
                return;
            };
            let bytes: Vec<u8> = (0..len)
                .map(|i| byte.wrapping_add((i / 64) as u8))
                .collect();
            ops.write(txn, id, at, &bytes).expect("a write");
            let object = model.get_mut(&id).expect("it");
            object.mtime = now;
            let Body::File(contents) = &mut object.body else {
                return;
            };
            let end = at as usize + len;
            contents.resize(contents.len().max(end), 0);
            contents[at as usize..end].copy_from_slice(&bytes);
        }
        Op::Truncate(o, size) => {
            let Some(id) = pick(model, o, |b| matches!(b, Body::File(_))) else {
                return;
            };
            ops.truncate(txn, id, size).expect("a truncation");
            let object = model.get_mut(&id).expect("it");
            let Body::File(contents) = &mut object.body else {
                return;
            };
            if contents.len() as u64 != size {
                contents.resize(size as usize, 0);
                object.mtime = now;
            }
        }
        Op::Mode(o, mode) => {
            let Some(id) = pick(model, o, |_| true) else {
                return;
            };
            let what = Attributes {
                mode: Some(mode),
                ..Attributes::default()
            };
            ops.set_attributes(txn, id, &what).expect("a mode");
            let object = model.get_mut(&id).expect("it");
            if object.mode != mode {
                (object.mode, object.ctime) = (mode, now);
            }
        }
        Op::Commit => {}
    }
}

fn rename(
    model: &mut Model,
    (d1, from): (i64, &[u8]),
    (d2, to): (i64, &[u8]),
    result: mallet::Result<()>,
    now: u64,
) {
    let source = dir_of(model, d1).get(from).copied();
    let target = dir_of(model, d2).get(to).copied();
    let Some(moved) = source else {
        assert!(result.is_err());
        return;
    };
    if target == Some(moved) {
        result.expect("nothing to do");
        return;
    }
    let is = |id: i64| is_dir(&model[&id].body);
    let into_itself = is(moved) && lies_below(model, d2, moved);
    let unfit = target.is_some_and(|t| {
        let full = matches!(&model[&t].body, Body::Dir(e) if !e.is_empty());
        is(moved) != is(t) || full
    });
    assert_eq!(result.is_err(), into_itself || unfit, "{result:?}");
    if result.is_err() {
        return;
    }
    if let Some(target) = target {
        drop_link(model, target, now);
    }
    dir_of(model, d1).remove(from);
    dir_of(model, d2).insert(to.to_vec(), moved);
    for d in [d1, d2] {
        model.get_mut(&d).expect("it").mtime = now;
    }
    let object = model.get_mut(&moved).expect("it");
    (object.parent, object.ctime) = (d2, now);
}

/// What a volume shows as of `asof`, in the model's form.
fn read_model(view: &mut View, asof: Tid) -> Model {
    let mut model = Model::new();
    let mut todo = vec![ROOT];
    while let Some(obj) = todo.pop() {
        let id = ObjectId { pfs: 0, obj };
        let Some(inode) = inode(view, id, asof).expect("a tree") else {
            panic!("{id} does not exist as of {asof}");
        };
        let data: InodeData = inode.data;
        let body = match inode.kind().expect("a type") {
            ObjType::Directory => {
                let mut entries = dir::Entries::new(&inode, asof);
                let mut names = BTreeMap::new();
                while let Some(entry) = entries.next(view).expect("an entry") {
                    if !model.contains_key(&entry.target.obj) {
                        todo.push(entry.target.obj);
                    }
                    let same = names.insert(entry.name, entry.target.obj);
                    assert_eq!(same, None);
                }
                Body::Dir(names)
            }
            ObjType::File => Body::File(contents(view, &inode, asof)),
            ObjType::Symlink => Body::Link(stored_target(view, &inode, asof).expect("a target")),
            _ => Body::Other,
        };
        let object = Object {
            body,
            links: data.nlinks.get(),
            parent: data.parent_obj_id.get(),
            mode: data.mode(),
            mtime: data.mtime.get(),
            ctime: data.ctime.get(),
        };
        model.insert(obj, object);
    }
    model
}

/// A model without what history does not keep: times that change in place.
fn timeless(model: &Model) -> Model {
    let mut model = model.clone();
    for object in model.values_mut() {
        object.mtime = 0;
    }
    model
}

fn assert_same(found: &Model, expected: &Model, what: &str) {
    let ids: Vec<_> = found.keys().collect();
    assert_eq!(ids, expected.keys().collect::<Vec<_>>(), "{what}: objects");
    for (id, object) in expected {
        let found = &found[id];
        let shown = |o: &Object| {
            let mut o = o.clone();
            if let Body::File(bytes) = &mut o.body {
                bytes.truncate(0);
            }
            o
        };
        assert_eq!(shown(found), shown(object), "{what}: object {id:x}");
        if let (Body::File(a), Body::File(b)) = (&found.body, &object.body) {
            let differs = a.iter().zip(b).position(|(a, b)| a != b);
            assert_eq!(
                (a.len(), differs),
                (b.len(), None),
                "{what}: contents of {id:x}"
            );
        }
    }
}

fn run(version: u32, operations: &[Op]) {
    let disk = volume(version, 160);
    let mut store = open(&disk);
    let mut model = read_model(store.view(), Tid::MAX);
    let mut history: Vec<(Tid, Model)> = Vec::new();
    let mut ops = Ops::new(0);
    let mut now = START;
    let groups = operations.split(|op| matches!(op, Op::Commit));
    for group in groups.filter(|group| !group.is_empty()) {
        now += 1_000_003;
        let mut txn = store.begin(now).expect("a transaction");
        for op in group {
            apply(&mut model, &mut ops, &mut txn, op);
        }
        let tid = txn.tid();
        txn.commit().expect("a commit");
        assert_same(&read_model(store.view(), Tid::MAX), &model, "now");
        check_clean(&disk);
        history.push((tid, model.clone()));
    }
    for (tid, model) in &history {
        let found = read_model(store.view(), *tid);
        assert_same(&timeless(&found), &timeless(model), &format!("as of {tid}"));
    }
    // What was dropped was never there.
    let mut txn = store.begin(now).expect("a transaction");
    let _ = ops.create(&mut txn, ROOT, b"dropped", &new(ObjType::File));
    drop(txn);
    drop(store);
    let mut store = open(&disk);
    assert_same(&read_model(store.view(), Tid::MAX), &model, "again");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: soak(24) as u32, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_a_model_does(
        version in 4u32..=7,
        operations in prop::collection::vec(op(), 1..60),
    ) {
        run(version, &operations);
    }
}
