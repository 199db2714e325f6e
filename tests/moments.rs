//! Trees made by operations with history, against a model of every moment; histories, times,
//! slaves.

mod common;

use common::build::files::{Content, Files, Object};
use common::build::{Options, seconds};
use mallet::error::Class;
use mallet::format::Tid;
use mallet::format::record::ObjType;
use mallet::fs::asof::{self, Moment};
use mallet::fs::diff::{Aspects, Diff};
use mallet::fs::history::{self, Event, Version, Versions};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::walk::{Found, Scope, Visit, Walk};
use mallet::fs::{self, ObjectId, Tree, file, pfs};
use mallet::io::{OpenOptions, open};
use mallet::progress::Status;
use mallet::store::{View, ViewOptions, VolumeSet};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const VERSION: u32 = 7;

fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// Everything that a walk from the root meets.
fn walk(view: &mut View, tree: Tree) -> Vec<Found> {
    let object = resolve(view, tree, b"/", Final::Itself).expect("a root");
    let mut walk = Walk::new(object, b"/", Scope::All);
    let mut all = Vec::new();
    while let Some(visit) = walk.next(view).expect("a view that holds") {
        match visit {
            Visit::Object(found) => all.push(found),
            Visit::Leave { .. } => {}
            Visit::Trouble { error, .. } => panic!("{error}"),
        }
    }
    all
}

fn names(all: &[Found]) -> Vec<String> {
    let path = |found: &Found| String::from_utf8_lossy(&found.path).into_owned();
    all.iter().map(path).collect()
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
enum Thing {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
}

type Model = BTreeMap<Vec<u8>, (Object, u16, Thing)>;

/// The model's tree as the library shows it.
fn shown(view: &mut View, tree: Tree) -> Model {
    let mut model = Model::new();
    for found in walk(view, tree) {
        assert!(found.error.is_none());
        let inode = found.inode.expect("an inode");
        let thing = match inode.kind() {
            Some(ObjType::Directory) => Thing::Dir,
            Some(ObjType::Symlink) => {
                let target = fs::symlink_target(view, &inode, tree.asof);
                Thing::Link(target.expect("a target"))
            }
            _ => {
                let mut bytes = vec![0; inode.size() as usize];
                file::read_at(view, &inode, tree.asof, 0, &mut bytes).expect("readable");
                Thing::File(bytes)
            }
        };
        let object = Object {
            pfs: found.id.pfs,
            id: found.id.obj,
        };
        model.insert(found.path, (object, inode.data.mode(), thing));
    }
    model
}

/// One random operation on the volume and the model.
fn operate(files: &mut Files, model: &mut Model, seed: u64, pick: u64, what: u8, size: u64) {
    let dirs: Vec<_> = model.iter().filter(|(_, v)| v.2 == Thing::Dir).collect();
    let (dir_path, (dir, ..)) = dirs[pick as usize % dirs.len()];
    let (dir_path, dir) = (dir_path.clone(), *dir);
    let name = format!("n{}", pick % 7).into_bytes();
    let prefix = if dir_path == b"/" {
        Vec::new()
    } else {
        dir_path
    };
    let path = [prefix.as_slice(), b"/", &name].concat();
    let content = Content::Pattern(size);
    let existing = model.get(&path).cloned();
    match (what, existing) {
        (0 | 1, None) => {
            let file = files.file(dir, &name, &content);
            let bytes = content.bytes(seed, file.id);
            model.insert(path, (file, 0o644, Thing::File(bytes)));
        }
        (2, None) => {
            let made = files.mkdir(dir, &name);
            model.insert(path, (made, 0o755, Thing::Dir));
        }
        (3, None) => {
            let target = vec![b't'; size as usize % 60 + 1];
            let link = files.symlink(dir, &name, &target);
            model.insert(path, (link, 0o644, Thing::Link(target)));
        }
        (4, Some((object, _, Thing::File(_)))) => {
            files.rewrite(object, &content, pick);
            let bytes = content.bytes(pick, object.id);
            for (other, _, thing) in model.values_mut() {
                if *other == object {
                    *thing = Thing::File(bytes.clone());
                }
            }
        }
        (5, Some((object, ..))) => {
            let mode = (pick % 512) as u16;
            files.chmod(object, mode);
            for (other, its, _) in model.values_mut() {
                if *other == object {
                    *its = mode;
                }
            }
        }
        (6, None) => {
            let file = model.values().find(|v| matches!(v.2, Thing::File(_)));
            if let Some(file) = file.cloned() {
                files.link(file.0, dir, &name);
                model.insert(path, file);
            }
        }
        (7, Some((_, _, thing))) => {
            let below = [path.as_slice(), b"/"].concat();
            let empty = !model.keys().any(|p| p.starts_with(&below));
            if thing != Thing::Dir || empty {
                files.remove(dir, &name);
                model.remove(&path);
            }
        }
        _ => {}
    }
}

/// The differences between two models, by path.
fn differences(from: &Model, to: &Model) -> BTreeMap<Vec<u8>, bool> {
    let mut differences = BTreeMap::new();
    for path in from.keys().chain(to.keys()) {
        if from.get(path) != to.get(path) {
            differences.insert(path.clone(), true);
        }
    }
    differences
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Every moment of a history of operations is seen as it was: by TID and by time, and what
    /// differs between two moments is what was changed.
    #[test]
    fn every_moment_as_it_was(
        steps in proptest::collection::vec((any::<u64>(), 0u8..8, 0u64..100_000), 1..60),
        version in 1u32..8,
        pick: (usize, usize),
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let options = Options::new(dir.path().join("volume"), version, 512 << 20);
        let mut files = Files::new(&options);
        let mut model = Model::new();
        model.insert(b"/".to_vec(), (Object::root(0), 0o755, Thing::Dir));
        let mut moments = vec![(Tid(0x1_0000_0001), model.clone())];
        for (pick, what, size) in steps {
            let before = files.tid();
            operate(&mut files, &mut model, options.seed, pick, what, size);
            if files.tid() != before {
                moments.push((files.tid(), model.clone()));
            }
        }
        files.build(&options);
        let mut view = view(&options.volumes[0].0);
        for (tid, model) in &moments {
            let seen = shown(&mut view, Tree { pfs: 0, asof: *tid });
            prop_assert_eq!(&seen, model, "as of {}", tid);
        }
        prop_assert_eq!(&shown(&mut view, Tree::current(0)), &model);
        let (a, b) = (pick.0 % moments.len(), pick.1 % moments.len());
        let ((old, from), (new, to)) = (&moments[a.min(b)], &moments[a.max(b)]);
        let mut at = |tid: &Tid| {
            let tree = Tree { pfs: 0, asof: *tid };
            resolve(&mut view, tree, b"/", Final::Itself).expect("a root")
        };
        let (old, new) = (at(old), at(new));
        let mut diff = Diff::new(b"/", Some(old), Some(new));
        let mut seen = BTreeMap::new();
        let only_inode = Aspects::INODE | Aspects::LINKS | Aspects::SIZE | Aspects::CONTENT;
        while let Some(difference) = diff.next(&mut view, &mut Status::default()).expect("a diff") {
            prop_assert!(difference.error.is_none());
            // A version of the inode, or records of the same bytes, that the model does not know.
            let unknown = only_inode.contains(difference.aspects);
            if !unknown || from.get(&difference.path) != to.get(&difference.path) {
                seen.insert(difference.path, true);
            }
        }
        prop_assert_eq!(seen, differences(from, to));
    }
}

fn versions_of(view: &mut View, mut versions: Versions) -> Vec<Version> {
    let mut all = Vec::new();
    while let Some(version) = versions.next(view).expect("a history") {
        all.push(version);
    }
    all
}

#[test]
fn histories_and_times() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new(dir.path().join("volume"), VERSION, 512 << 20);
    let mut files = Files::new(&options);
    let root = Object::root(0);
    let file = files.file(root, b"f", &Content::Pattern(20_000));
    let made = files.tid();
    files.rewrite(file, &Content::Pattern(100), 5);
    let changed = files.tid();
    let label = files.snapshot(0, "before");
    files.snapshot(0, "twice");
    files.snapshot(0, "twice");
    files.remove(root, b"f");
    let removed = files.tid();
    files.build(&options);
    let mut view = view(&options.volumes[0].0);
    let id = ObjectId {
        pfs: 0,
        obj: file.id,
    };
    let versions = history::inode(id, Tid::MAX);
    let versions = versions_of(&mut view, versions);
    let sizes: Vec<_> = versions
        .iter()
        .map(|v| match &v.event {
            Event::Changed(a) => (v.tid, v.seconds, Some(a.size)),
            Event::Deleted => (v.tid, v.seconds, None),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(made, Some(20_000)), (changed, Some(100)), (removed, None)];
    assert_eq!(sizes, expected.map(|(tid, size)| (tid, seconds(tid), size)));
    let old = fs::inode(&mut view, id, made)
        .expect("readable")
        .expect("it was there");
    let blocks = history::block(&old, 10, Tid::MAX).expect("a history");
    let blocks = versions_of(&mut view, blocks);
    let tids: Vec<_> = blocks.iter().map(|v| v.tid).collect();
    assert_eq!(tids, [made, changed, removed]);
    let blocks = history::block(&old, 17_000, Tid::MAX).expect("a history");
    let blocks = versions_of(&mut view, blocks);
    let tids: Vec<_> = blocks.iter().map(|v| v.tid).collect();
    assert_eq!(tids, [made, changed]);
    let pfs = pfs::find(&mut view, "built").expect("the label of PFS 0");
    let mut at = |moment: Moment| asof::resolve(&mut view, &pfs, &moment, &mut ());
    let first = i64::from(seconds(Tid(0x1_0000_0001)));
    assert_eq!(
        at(Moment::Time(i64::from(seconds(made)))).expect("a TID"),
        made
    );
    assert_eq!(
        at(Moment::Time(first - 1)).expect_err("before").class(),
        Class::Usage
    );
    assert_eq!(at(Moment::Label("before".into())).expect("a TID"), label);
    assert!(at(Moment::Label("twice".into())).is_err());
    assert!(at(Moment::Label("none".into())).is_err());
    assert_eq!(at(Moment::Tid(Tid(7))).expect("itself"), Tid(7));
    let gone = resolve(&mut view, Tree::current(0), b"/f", Final::Itself);
    assert_eq!(gone.expect_err("removed").class(), Class::Other);
    let path = format!("/f@@{made}");
    let then = resolve(&mut view, Tree::current(0), path.as_bytes(), Final::Itself);
    assert_eq!(then.expect("history in a path").inode.size(), 20_000);
}

/// A slave is seen as of its last complete pass; one that is empty is no damage; links lead over.
#[test]
fn slaves_and_links_to_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new(dir.path().join("volume"), VERSION, 512 << 20);
    let mut files = Files::new(&options);
    let root = Object::root(0);
    files.pfs_master(1, "master");
    files.file(Object::root(1), b"a", &Content::Pattern(10));
    files.pfs_slave(2, 1, "slave");
    files.file(Object::root(1), b"b", &Content::Pattern(10));
    files.symlink(root, b"m", b"@@PFS00001");
    files.symlink(root, b"s", b"@@PFS00002");
    files.symlink(root, b"n", b"@@PFS00009");
    files.build(&options);
    let mut view = view(&options.volumes[0].0);
    let slave = pfs::find(&mut view, "slave").expect("a slave");
    assert!(slave.is_slave() && slave.id == 2);
    assert_eq!(names(&walk(&mut view, slave.tree(None))), ["/", "/a"]);
    assert_eq!(names(&walk(&mut view, Tree::current(1))), ["/", "/a", "/b"]);
    let mut at = |path: &str| {
        let object = resolve(&mut view, Tree::current(0), path.as_bytes(), Final::Follow);
        object.map(|o| (o.inode.id.pfs, o.asof))
    };
    assert_eq!(at("/m/a").expect("over a link"), (1, Tid::MAX));
    assert_eq!(at("/s/a").expect("over a link"), (2, slave.sync_end));
    assert_eq!(at("/s/..").expect("and back"), (0, Tid::MAX));
    assert!(at("/s/b").is_err() && at("/n").is_err());
    assert_eq!(at("/@@-1:00002/a").expect("by number"), (2, Tid::MAX));
    let early = Tree {
        pfs: 1,
        asof: Tid(0x1_0000_0001),
    };
    assert!(fs::root(&mut view, early).expect("readable").is_none());
    assert!(resolve(&mut view, early, b"/", Final::Itself).is_err());
}
