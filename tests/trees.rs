//! Trees that no kernel would make: loops, entries to nothing, names that lead elsewhere, absurd
//! sizes. Everything ends, in bounded memory, and says what is wrong.

mod common;

use common::build::files::entry;
use common::build::files::{Content, Files, Object};
use common::build::{Options, seconds};
use common::records::{Records, VERSION, view, walk};
use mallet::error::Class;
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Rule, Tid};
use mallet::fs::dest::Existing;
use mallet::fs::extract;
use mallet::fs::file::{self, Body, HoleBudget, Reader};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::walk::{Found, Scope, Visit, Walk};
use mallet::fs::{self, ObjectId, Tree};
use mallet::progress::Status;
use mallet::store::View;
use proptest::prelude::*;
use std::collections::HashSet;
use std::fs as host;
use std::path::PathBuf;
use zerocopy::little_endian::U64;

fn rule(found: &Found) -> Option<Rule> {
    found.error.as_ref().and_then(|e| e.fault()).map(|f| f.rule)
}

fn told(all: &[Found]) -> Vec<(String, Option<Rule>)> {
    let path = |found: &Found| String::from_utf8_lossy(&found.path).into_owned();
    all.iter().map(|found| (path(found), rule(found))).collect()
}

#[test]
fn a_directory_below_itself() {
    let mut records = Records::new();
    records.inode(10, ObjType::Directory, |_| {});
    records.inode(11, ObjType::Directory, |_| {});
    records.entry(ROOT_OBJ, b"a", 10);
    records.entry(10, b"b", 11);
    records.entry(11, b"again", 10);
    records.entry(11, b"root", ROOT_OBJ);
    let (_dir, mut view) = records.build();
    let all = walk(&mut view, Tree::current(0));
    let expected = [
        ("/", None),
        ("/a", None),
        ("/a/b", None),
        ("/a/b/again", Some(Rule::DirectoryParent)),
        ("/a/b/root", Some(Rule::DirectoryParent)),
    ];
    assert_eq!(told(&all), expected.map(|(p, r)| (p.to_owned(), r)));
}

/// Each of 60 directories holds the next one under two names: 2^60 paths.
#[test]
fn directories_with_two_names_each() {
    let mut records = Records::new();
    records.entry(ROOT_OBJ, b"x", 100);
    for obj in 100..160 {
        records.inode(obj, ObjType::Directory, |_| {});
        records.entry(obj, b"x", obj + 1);
        records.entry(obj, b"y", obj + 1);
    }
    records.inode(160, ObjType::File, |_| {});
    let (_dir, mut view) = records.build();
    let all = walk(&mut view, Tree::current(0));
    assert!(all.len() < 10_000, "{} paths", all.len());
    assert!(all.iter().any(|f| rule(f) == Some(Rule::DirectoryParent)));
}

#[test]
fn more_levels_than_are_entered() {
    let mut records = Records::new();
    records.entry(ROOT_OBJ, b"d", 100);
    for obj in 100..2300 {
        records.inode(obj, ObjType::Directory, |_| {});
        records.entry(obj, b"d", obj + 1);
    }
    records.inode(2300, ObjType::File, |_| {});
    let (_dir, mut view) = records.build();
    let all = walk(&mut view, Tree::current(0));
    let last = all.last().expect("the deepest");
    assert_eq!(all.len(), 2049);
    let error = last.error.as_ref().expect("an objection").to_string();
    assert!(error.contains("levels"), "{error}");
}

#[test]
fn entries_that_are_wrong() {
    let mut records = Records::new();
    records.inode(10, ObjType::File, |_| {});
    records.inode(11, ObjType::Directory, |_| {});
    records.entry(ROOT_OBJ, b"missing", 99);
    records.entry(ROOT_OBJ, b"twice", 10);
    records.entry(ROOT_OBJ, b"twice", 11);
    records.entry(ROOT_OBJ, b"..", 11);
    records.entry(ROOT_OBJ, b"in/side", 10);
    records.entry(ROOT_OBJ, b"nul\0", 10);
    records.entry(ROOT_OBJ, b"fine", 10);
    records.put(
        Localization::INODE,
        12,
        rt::INODE,
        0,
        ObjType::File,
        b"no inode",
    );
    records.entry(ROOT_OBJ, b"short inode", 12);
    records.inode(13, ObjType::File, |data| data.obj_type = 77);
    records.entry(ROOT_OBJ, b"strange", 13);
    let (_dir, mut view) = records.build();
    let all = walk(&mut view, Tree::current(0));
    let expected = [
        ("/", None),
        ("/..", Some(Rule::EntryName)),
        ("/fine", None),
        ("/in/side", Some(Rule::EntryName)),
        ("/missing", Some(Rule::EntryTarget)),
        ("/nul\0", Some(Rule::EntryName)),
        ("/short inode", Some(Rule::DataCrc)),
        ("/strange", None),
        ("/twice", None),
        ("/twice", Some(Rule::EntryDuplicate)),
    ];
    assert_eq!(told(&all), expected.map(|(p, r)| (p.to_owned(), r)));
    // Each at its own place, and what the entry says of an object that is not there.
    let places = all
        .iter()
        .filter_map(|found| Some(found.error.as_ref()?.fault()?.at));
    let bad_names: HashSet<_> = places.collect();
    assert_eq!(bad_names.len(), 6, "{bad_names:?}");
    let missing = all.iter().find(|found| found.path == b"/missing");
    assert_eq!(missing.and_then(|found| found.kind), Some(ObjType::File));
    let missing = resolve(&mut view, Tree::current(0), b"/missing", Final::Itself);
    assert_eq!(missing.expect_err("no inode").class(), Class::Damage);
    let fine = resolve(&mut view, Tree::current(0), b"/fine", Final::Itself);
    assert_eq!(fine.expect("an object").inode.id.obj, 10);
}

/// An entry whose data is no entry is reported beside the others.
#[test]
fn entries_that_are_none() {
    let mut records = Records::new();
    records.inode(10, ObjType::File, |_| {});
    records.entry(ROOT_OBJ, b"fine", 10);
    records.entry(ROOT_OBJ, b"", 10);
    records.entry(ROOT_OBJ, &[b'n'; 256], 10);
    records.put(
        Localization::INODE,
        ROOT_OBJ,
        rt::DIRENTRY,
        77,
        ObjType::File,
        b"short",
    );
    let (_dir, mut view) = records.build();
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let mut walk = Walk::new(object, b"/", Scope::All);
    let (mut found, mut troubles) = (0, 0);
    while let Some(visit) = walk.next(&mut view).expect("a view that holds") {
        match visit {
            Visit::Object(_) => found += 1,
            Visit::Trouble { error, .. } => {
                assert_eq!(error.fault().map(|f| f.rule), Some(Rule::EntryName));
                troubles += 1;
            }
            Visit::Leave { .. } => {}
        }
    }
    assert_eq!((found, troubles), (2, 3));
}

/// More entries than are held in memory at a time come in order, and all of them.
#[test]
fn a_directory_larger_than_a_batch() {
    const COUNT: i64 = 140_000;
    let mut records = Records::new();
    records.inode(10, ObjType::File, |_| {});
    for n in 0..COUNT {
        let name = format!("{:x}", n * 7919 % COUNT);
        let data = entry(Object { pfs: 0, id: 10 }, name.as_bytes());
        let class = Localization::INODE;
        records.put(
            class,
            ROOT_OBJ,
            rt::DIRENTRY,
            (1 << 32) + n,
            ObjType::File,
            &data,
        );
    }
    let (_dir, mut view) = records.build();
    let all = walk(&mut view, Tree::current(0));
    assert_eq!(all.len() as i64, COUNT + 1);
    assert!(all.windows(2).all(|pair| pair[0].path < pair[1].path));
}

#[test]
fn order_of_siblings_that_extend_a_name() {
    let mut records = Records::new();
    for (obj, name) in [(10, "a"), (11, "a b"), (12, "a!"), (13, "a0")] {
        records.inode(obj, ObjType::Directory, |_| {});
        records.entry(ROOT_OBJ, name.as_bytes(), obj);
        records.inode(obj + 10, ObjType::File, |_| {});
        records.entry(obj, b"x", obj + 10);
    }
    let (_dir, mut view) = records.build();
    let paths: Vec<_> = walk(&mut view, Tree::current(0))
        .into_iter()
        .map(|found| found.path)
        .collect();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(paths, sorted);
    assert_eq!(paths.len(), 9);
}

/// The bytes of a file as the kernel reads them: each from the first record whose key lies behind.
fn model_of(records: &Records, obj: i64, size: usize) -> Vec<u8> {
    let of_file = |key: &Key| key.obj_id == obj && key.rec_type == rt::DATA;
    let blocks: Vec<_> = records.records.iter().filter(|(k, _)| of_file(k)).collect();
    let byte = |x: usize| {
        let (key, (_, data)) = blocks.iter().find(|(key, _)| key.key > x as i64)?;
        let base = key.key - data.len() as i64;
        let index = usize::try_from(x as i64 - base).ok()?;
        data.get(index).copied()
    };
    (0..size).map(|x| byte(x).unwrap_or(0)).collect()
}

fn read_all(view: &mut View, inode: &fs::Inode) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = Reader::new(inode, Tid::MAX);
    while let Some(piece) = reader.next(view).expect("readable") {
        assert_eq!(piece.at as usize, bytes.len());
        match piece.body {
            Body::Data(data) => bytes.extend_from_slice(&data),
            Body::Hole => bytes.resize(bytes.len() + piece.len as usize, 0),
            Body::Bad(error) => panic!("{error}"),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Blocks of any shape, overlapping or not, read as the kernel reads them.
    #[test]
    fn blocks_of_any_shape(
        blocks in proptest::collection::vec((-100i64..200_000, 1usize..65_537, any::<u8>()), 0..12),
        size in 0u64..150_000,
        at in 0u64..160_000,
        len in 0usize..70_000,
    ) {
        let mut records = Records::new();
        records.inode(10, ObjType::File, |data| data.size = U64::new(size));
        records.entry(ROOT_OBJ, b"f", 10);
        for (end, len, fill) in &blocks {
            let data: Vec<u8> = (0..*len).map(|n| fill.wrapping_add((n / 16) as u8)).collect();
            records.block(10, *end, &data);
        }
        let (_dir, mut view) = records.build();
        let object = resolve(&mut view, Tree::current(0), b"f", Final::Itself).expect("a file");
        let model = model_of(&records, 10, size as usize);
        prop_assert!(read_all(&mut view, &object.inode) == model);
        let mut buf = vec![0xEE; len];
        let read = file::read_at(&mut view, &object.inode, Tid::MAX, at, &mut buf).expect("readable");
        let start = model.len().min(at as usize);
        let end = model.len().min(at as usize + len);
        prop_assert!(buf[..read] == model[start..end]);
    }
}

#[test]
fn a_file_of_all_the_bytes_there_can_be() {
    let mut records = Records::new();
    for (obj, size) in [(10, u64::MAX), (11, 1 << 63), (12, (1 << 63) - 1)] {
        records.inode(obj, ObjType::File, |data| data.size = U64::new(size));
        records.entry(ROOT_OBJ, format!("f{obj}").as_bytes(), obj);
        records.block(obj, 16384, &[1; 16384]);
        records.block(obj, i64::MAX, &[2; 65536]);
    }
    let (_dir, mut view) = records.build();
    for name in ["f10", "f11", "f12"] {
        let tree = Tree::current(0);
        let object = resolve(&mut view, tree, name.as_bytes(), Final::Itself).expect("a file");
        let mut reader = Reader::new(&object.inode, Tid::MAX);
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next(&mut view).expect("readable") {
            pieces.push((piece.at, piece.len));
        }
        let end = i64::MAX as u64;
        let expected = [
            (0, 16384),
            (16384, end - 16384 - 65536),
            (end - 65536, 65536),
        ];
        assert_eq!(pieces, expected);
        let mut buf = [0; 100];
        let read = file::read_at(&mut view, &object.inode, Tid::MAX, end - 10, &mut buf);
        assert_eq!((read.expect("readable"), buf[9], buf[10]), (10, 2, 0));
        let mut status = Status::default();
        let mut holes = HoleBudget::default();
        let sum = file::sha256(
            &mut view,
            &object.inode,
            Tid::MAX,
            &mut holes,
            &mut (),
            &mut status,
        );
        assert_eq!(sum.expect_err("too many zeros").class(), Class::Damage);
    }
}

#[test]
fn symlinks_that_lead_nowhere() {
    let mut records = Records::new();
    let mut link = |name: &[u8], target: &[u8]| {
        let obj = 100 + records.entries;
        records.inode(obj, ObjType::Symlink, |data| {
            data.size = U64::new(target.len() as u64);
            if target.len() <= 24 {
                data.symlink[..target.len()].copy_from_slice(target);
            }
        });
        if target.len() > 24 {
            let class = Localization::MISC;
            records.put(class, obj, rt::FIX, 1, ObjType::Symlink, target);
        }
        records.entry(ROOT_OBJ, name, obj);
    };
    link(b"self", b"self");
    link(b"ping", b"pong");
    link(b"pong", b"/ping");
    link(b"up", b"../../..");
    link(b"empty", b"");
    link(b"long", &[b'x'; 3000]);
    link(b"through", b"up/./self/../up");
    records.inode(10, ObjType::Symlink, |data| data.size = U64::new(200));
    records.entry(ROOT_OBJ, b"lost", 10);
    let (_dir, mut view) = records.build();
    let mut follow = |path: &[u8]| resolve(&mut view, Tree::current(0), path, Final::Follow);
    for path in [
        "/self", "/ping", "/empty", "/long", "/self/x", "/lost", "/through",
    ] {
        assert!(follow(path.as_bytes()).is_err(), "{path}");
    }
    for path in ["/up", "/up/up/../up/.", "/..", "/../.."] {
        let object = follow(path.as_bytes()).expect(path);
        assert_eq!(object.inode.id, ObjectId::root(0), "{path}");
    }
    let lost = resolve(&mut view, Tree::current(0), b"/lost", Final::Itself).expect("the link");
    let target = fs::symlink_target(&mut view, &lost.inode, lost.asof);
    let error = target.expect_err("no target record");
    assert_eq!(error.fault().map(|f| f.rule), Some(Rule::SymlinkTarget));
}

/// Names made to lead out of the folder are refused and told; the rest is copied.
#[test]
fn copying_out_is_confined() {
    let mut records = Records::new();
    records.inode(10, ObjType::File, |data| data.size = U64::new(4));
    records.block(10, 16, b"evil\0\0\0\0\0\0\0\0\0\0\0\0");
    records.inode(11, ObjType::Directory, |_| {});
    for (obj, target) in [(12, &b"../outside"[..]), (13, b"/")] {
        records.inode(obj, ObjType::Symlink, |data| {
            data.size = U64::new(target.len() as u64);
            data.symlink[..target.len()].copy_from_slice(target);
        });
    }
    for name in [
        "../outside/a",
        "..",
        ".",
        "/etc",
        "x/../../outside/a",
        "fine",
    ] {
        records.entry(ROOT_OBJ, name.as_bytes(), 10);
    }
    // A symlink, and a directory of the same name with a file in it.
    records.entry(ROOT_OBJ, b"link", 12);
    records.entry(ROOT_OBJ, b"link", 11);
    records.entry(ROOT_OBJ, b"root", 13);
    records.entry(ROOT_OBJ, b"sub", 11);
    records.entry(11, b"a", 10);
    let (dir, mut view) = records.build();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    for folder in [&inside, &outside] {
        host::create_dir(folder).expect("a folder");
    }
    host::write(outside.join("a"), "precious").expect("a file");
    // What is there already leads out as well.
    std::os::unix::fs::symlink("../outside", inside.join("sub")).expect("a link");
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let mut problems = Vec::new();
    let mut problem = |path: &[u8], _: &mallet::Error| {
        problems.push(String::from_utf8_lossy(path).into_owned());
    };
    let keep = Existing::Keep;
    let report = extract::get(
        &mut view,
        object,
        b"/",
        &inside,
        keep,
        &mut (),
        &mut problem,
    );
    let report = report.expect("a copy");
    assert_eq!(
        host::read(outside.join("a")).expect("untouched"),
        b"precious"
    );
    assert_eq!(host::read_dir(&outside).expect("readable").count(), 1);
    assert_eq!(host::read(inside.join("fine")).expect("copied"), b"evil");
    assert_eq!(report.problems as usize, problems.len());
    let expected = [
        ".",
        "..",
        "../outside/a",
        "/etc",
        "link",
        "sub",
        "x/../../outside/a",
    ];
    assert_eq!(problems, expected);
    assert_eq!((report.files, report.symlinks), (1, 2));
}

#[test]
fn a_tree_and_its_copy() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new(dir.path().join("volume"), VERSION, 512 << 20);
    let mut files = Files::new(&options);
    let root = Object::root(0);
    let sub = files.mkdir(root, b"sub");
    let blocks = vec![0, 3 << 20];
    let sparse = Content::Sparse {
        size: 5 << 20,
        blocks,
    };
    let sparse_file = files.file(sub, b"sparse", &sparse);
    let text = files.file(sub, b"text", &Content::Bytes(b"text".to_vec()));
    files.link(text, root, b"other name");
    files.chmod(text, 0o640);
    files.symlink(root, b"link", b"sub/text");
    files.special(root, b"fifo", ObjType::Fifo, 0, 0);
    files.special(root, b"device", ObjType::CharDevice, 1, 3);
    files.chmod(sub, 0o500);
    files.build(&options);
    let mut view = view(&options.volumes[0].0);
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let out = dir.path().join("out");
    let mut problem = |path: &[u8], error: &mallet::Error| panic!("{path:?}: {error}");
    let keep = Existing::Keep;
    let report = extract::get(&mut view, object, b"/", &out, keep, &mut (), &mut problem);
    let report = report.expect("a copy");
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = |name: &str| host::symlink_metadata(out.join(name)).expect("it is there");
    let bytes = |name: &str| host::read(out.join(name)).expect("readable");
    assert_eq!(
        bytes("sub/sparse"),
        sparse.bytes(options.seed, sparse_file.id)
    );
    assert!(
        meta("sub/sparse").blocks() * 512 < 1 << 20,
        "holes stay holes"
    );
    assert_eq!(meta("sub/text").ino(), meta("other name").ino());
    assert_eq!(meta("sub/text").mode() & 0o7777, 0o640);
    assert_eq!(meta("sub").mode() & 0o7777, 0o500);
    assert_eq!(
        meta("sub/text").mtime(),
        i64::from(seconds(Tid(0x1_0000_0030)))
    );
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(
        host::read_link(out.join("link")).expect("a link"),
        PathBuf::from("sub/text")
    );
    assert_eq!(report.nodes + report.nodes_left_out, 2);
    assert_eq!(
        (report.files, report.hard_links, report.symlinks),
        (2, 1, 1)
    );
    // One file, under its own name and under another.
    let one = resolve(&mut view, Tree::current(0), b"/sub/text", Final::Itself).expect("a file");
    for dest in [out.clone(), out.join("third")] {
        let copied = extract::get(
            &mut view,
            one,
            b"/sub/text",
            &dest,
            keep,
            &mut (),
            &mut problem,
        );
        assert_eq!(copied.expect("a copy").files, 1);
    }
    assert_eq!(
        (bytes("text"), bytes("third")),
        (b"text".to_vec(), b"text".to_vec())
    );
}
