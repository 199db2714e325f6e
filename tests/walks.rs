//! Trees larger than what is held of them, and devices and hosts that refuse half-way.

mod common;

use common::records::{Records, walk};
use mallet::format::record::{ObjType, SnapshotData, rt};
use mallet::format::volume::VolumeHeader;
use mallet::format::{Localization, Offset, ROOT_OBJ, Tid};
use mallet::fs::dest::Existing;
use mallet::fs::file::HoleBudget;
use mallet::fs::list::{self, Detail};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{self, ObjectId, Tree, extract, snapshot};
use mallet::io::Bytes;
use mallet::progress::Status;
use mallet::store::{Fetch, NodeRef, View};
use std::fs as host;
use std::path::PathBuf;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

/// Holes are paid for out of one budget, and the files that need none go on being hashed.
#[test]
fn holes_of_many_files() {
    let mut records = Records::new();
    for obj in 10..20 {
        records.inode(obj, ObjType::File, |data| data.size = U64::new(100_000));
        records.entry(ROOT_OBJ, format!("f{obj}").as_bytes(), obj);
    }
    records.inode(20, ObjType::File, |data| data.size = U64::new(16));
    records.entry(ROOT_OBJ, b"small", 20);
    records.block(20, 16, &[1; 16]);
    let (_dir, mut view) = records.build();
    let mut detail = Detail {
        sha256: true,
        holes: HoleBudget::new(350_000),
    };
    let mut status = Status::default();
    let mut hashed = Vec::new();
    for found in walk(&mut view, Tree::current(0)) {
        let entry = list::entry(&mut view, found, &mut detail, &mut (), &mut status);
        let entry = entry.expect("an entry");
        let is_file = entry.path.len() > 1;
        assert_eq!(is_file, entry.sha256.is_some() || entry.error.is_some());
        hashed.extend(entry.sha256.map(|_| entry.path));
    }
    assert_eq!(hashed, [&b"/f10"[..], b"/f11", b"/f12", b"/small"]);
}

/// A view that loses an extent once it has been read, and notes what is announced and read.
struct Watched {
    view: View,
    lost: Option<Offset>,
    read: Vec<Offset>,
    wanted: Vec<Offset>,
    unannounced: Vec<Offset>,
}

impl Watched {
    fn new(view: View, lost: Option<Offset>) -> Watched {
        Watched {
            view,
            lost,
            read: Vec::new(),
            wanted: Vec::new(),
            unannounced: Vec::new(),
        }
    }
}

impl Fetch for Watched {
    fn header(&self) -> &VolumeHeader {
        self.view.header()
    }
    fn bytes(&mut self, at: Offset, len: usize) -> mallet::Result<Bytes> {
        if self.lost == Some(at) && self.read.contains(&at) {
            return Err(mallet::Error::damage("lost by now"));
        }
        if !self.wanted.contains(&at) {
            self.unannounced.push(at);
        }
        self.read.push(at);
        self.view.bytes(at, len)
    }
    fn node(&mut self, at: Offset) -> mallet::Result<NodeRef> {
        self.view.node(at)
    }
    fn want(&mut self, extents: &[(Offset, usize)]) {
        self.wanted.extend(extents.iter().map(|(at, _)| *at));
        self.view.want(extents);
    }
    fn readahead(&self) -> usize {
        self.view.readahead()
    }
    fn forget(&mut self, at: Offset, len: usize) {
        self.view.forget(at, len);
    }
}

/// A directory whose inode is lost between its entry and its contents is a trouble of its own.
#[test]
fn a_directory_that_is_lost_on_the_way() {
    let mut records = Records::new();
    for (obj, name) in [(10, "a"), (11, "b")] {
        records.inode(obj, ObjType::Directory, |_| {});
        records.inode(obj + 10, ObjType::File, |_| {});
        records.entry(ROOT_OBJ, name.as_bytes(), obj);
        records.entry(obj, b"x", obj + 10);
    }
    let (_dir, mut view) = records.build();
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let id = ObjectId { pfs: 0, obj: 10 };
    let lost = fs::inode(&mut view, id, Tid::MAX).expect("readable");
    let lost = lost.expect("it is there").leaf.data_offset();
    let mut view = Watched::new(view, Some(lost));
    let mut walk = Walk::new(object, b"/", Scope::All);
    let mut told = Vec::new();
    while let Some(visit) = walk.next(&mut view).expect("a walk that goes on") {
        told.push(match visit {
            Visit::Object(found) => String::from_utf8_lossy(&found.path).into_owned(),
            Visit::Trouble { path, .. } => format!("trouble {}", String::from_utf8_lossy(&path)),
            Visit::Leave { path, .. } => format!("leave {}", String::from_utf8_lossy(&path)),
        });
    }
    let expected = ["/", "/a", "trouble /a", "/b", "/b/x", "leave /b", "leave /"];
    assert_eq!(told, expected);
}

/// Whoever reads the files met on a walk has small ones announced, with their inodes.
#[test]
fn small_files_are_announced() {
    let mut records = Records::new();
    for obj in 10..200 {
        records.inode(obj, ObjType::File, |data| data.size = U64::new(100));
        records.entry(ROOT_OBJ, format!("f{obj}").as_bytes(), obj);
        records.block(obj, 112, &[obj as u8; 112]);
    }
    let (_dir, mut view) = records.build();
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let mut view = Watched::new(view, None);
    let mut walk = Walk::new(object, b"/", Scope::All).with_contents();
    let mut detail = Detail {
        sha256: true,
        ..Detail::default()
    };
    let mut status = Status::default();
    while let Some(visit) = walk.next(&mut view).expect("readable") {
        if let Visit::Object(found) = visit {
            let entry = list::entry(&mut view, found, &mut detail, &mut (), &mut status);
            assert_eq!(entry.expect("an entry").error, None);
        }
    }
    assert!(view.read.len() >= 3 * 190);
    assert_eq!(view.unannounced, []);
}

/// However little memory there is for names, nested large directories come in order.
#[test]
fn large_directories_in_little_memory() {
    let mut records = Records::new();
    let mut next = 10;
    let mut paths = vec![b"/".to_vec()];
    let mut fill = |records: &mut Records, dir: i64, path: &[u8]| {
        let mut directories = Vec::new();
        for i in 0..400 {
            let obj = next;
            next += 1;
            let is_dir = i % 150 == 20;
            let name = format!("{:03}{}", i * 7 % 400, "n".repeat(i % 40));
            let kind = [ObjType::File, ObjType::Directory][usize::from(is_dir)];
            records.inode(obj, kind, |_| {});
            records.entry(dir, name.as_bytes(), obj);
            let path = [path, b"/", name.as_bytes()].concat();
            paths.push(path.clone());
            if is_dir {
                directories.push((obj, path));
            }
        }
        directories
    };
    for (dir, path) in fill(&mut records, ROOT_OBJ, b"") {
        for (dir, path) in fill(&mut records, dir, &path) {
            fill(&mut records, dir, &path);
        }
    }
    paths.sort();
    let (_dir, mut view) = records.build();
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    for memory in [0, 20_000, 40_000, 1 << 20] {
        let mut walk = Walk::new(object, b"/", Scope::All).with_memory(memory);
        let mut met = Vec::new();
        while let Some(visit) = walk.next(&mut view).expect("readable") {
            if let Visit::Object(found) = visit {
                met.push(found.path);
            }
        }
        assert!(met == paths, "with {memory} bytes");
    }
}

/// Puts a directory in the place of the first name once the second is about to be linked: the host
/// links no directories.
struct Meddler(PathBuf);

impl mallet::progress::Progress for Meddler {
    fn at(&mut self, status: &Status) -> mallet::Result<()> {
        if status.items == 3 && !self.0.is_dir() {
            host::remove_file(&self.0).expect("it was copied");
            host::create_dir(&self.0).expect("a directory");
        }
        Ok(())
    }
}

#[test]
fn a_hard_link_that_the_host_refuses() {
    let mut records = Records::new();
    records.inode(10, ObjType::File, |data| {
        data.size = U64::new(16);
        data.nlinks = U64::new(3);
    });
    records.block(10, 16, &[7; 16]);
    for name in [b"a", b"b", b"c"] {
        records.entry(ROOT_OBJ, name, 10);
    }
    let (dir, mut view) = records.build();
    let object = resolve(&mut view, Tree::current(0), b"/", Final::Itself).expect("a root");
    let out = dir.path().join("out");
    let mut meddler = Meddler(out.join("a"));
    let mut problem = |path: &[u8], error: &mallet::Error| panic!("{path:?}: {error}");
    let keep = Existing::Keep;
    let report = extract::get(
        &mut view,
        object,
        b"/",
        &out,
        keep,
        &mut meddler,
        &mut problem,
    );
    let report = report.expect("a copy");
    let counts = (report.files, report.hard_links, report.links_lost);
    assert_eq!(counts, (2, 1, 1));
    use std::os::unix::fs::MetadataExt;
    let ino = |name: &str| host::metadata(out.join(name)).expect("it is there").ino();
    assert_eq!(
        ino("b"),
        ino("c"),
        "further names are those of the new copy"
    );
    assert_eq!(host::read(out.join("b")).expect("readable"), [7; 16]);
}

/// Snapshots come by TID, whose upper half is negative as a key, and are found by their labels.
#[test]
fn snapshots_by_tid() {
    let mut records = Records::new();
    for (key, label) in [(-3, "late"), (5, "twice"), (i64::MAX, "twice"), (9, "")] {
        let mut data = SnapshotData::new_zeroed();
        data.ts = U64::new(7);
        data.label[..label.len()].copy_from_slice(label.as_bytes());
        records.put(
            Localization::INODE,
            ROOT_OBJ,
            rt::SNAPSHOT,
            key,
            ObjType::File,
            data.as_bytes(),
        );
    }
    let (_dir, mut view) = records.build();
    let all = snapshot::all(&mut view, 0).expect("readable");
    let tids: Vec<_> = all.iter().map(|s| s.tid.0).collect();
    assert_eq!(tids, [5, 9, i64::MAX as u64, -3i64 as u64]);
    assert_eq!(all[0].time_us, 7);
    assert!(all[1].label.is_empty());
    assert_eq!(snapshot::count(&mut view, 0).expect("readable"), 4);
    let late = snapshot::find(&mut view, 0, "late").expect("one of the label");
    assert_eq!(late.tid, Tid(-3i64 as u64));
    let twice = snapshot::find(&mut view, 0, "twice").expect_err("two of the label");
    assert!(twice.to_string().contains("0x7fffffffffffffff"), "{twice}");
}
