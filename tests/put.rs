//! Copying in, and the commands that change contents: what comes back is what went in, only blocks
//! that differ are written, and an operation is there or it is not.

mod common;

use common::soak;
use mallet::btree::Cursor;
use mallet::check;
use mallet::error::{Class, Error, Result};
use mallet::format::record::rt;
use mallet::format::{Key, Tid};
use mallet::fs::change::{self, Owner, Removal};
use mallet::fs::import::{self, Origin, Report, Request};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::newfs::{NewFs, newfs};
use mallet::fs::operation::{self, Done, Operation};
use mallet::fs::{Tree, file, pfs, recover};
use mallet::io::Device;
use mallet::io::sim::{CrashPlan, Event, SimDisk, Survive};
use mallet::mirror::source::{Item, Source};
use mallet::mirror::{Asked, SourcePfs, window};
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Cursor as Bytes;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;
const START: u64 = 1_700_000_000_000_000;
const OWNER: Owner = Owner { uid: 7, gid: 8 };

fn make(devices: &mut [Box<dyn Device>]) {
    let what = NewFs {
        label: b"put".to_vec(),
        version: 7,
        undo_bytes: Some(8 * MIB),
        fsid: [7; 16],
        now: START,
    };
    newfs(devices, &what).expect("a file system");
}

/// A fresh volume in memory.
fn volume() -> SimDisk {
    let disk = SimDisk::new(400 * MIB);
    make(&mut [Box::new(disk.device(1))]);
    disk
}

fn set(disk: &SimDisk) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(2))];
    VolumeSet::open(devices).expect("a volume set")
}

/// A store that makes a checkpoint whenever `dirty` bytes have changed.
fn open_small(disk: &SimDisk, dirty: usize) -> (Store, recover::Report) {
    let options = recover::OpenOptions {
        store: StoreOptions {
            dirty_bytes: dirty,
            ..StoreOptions::default()
        },
        redo: true,
        now: START,
    };
    recover::open(set(disk), &options).expect("a store")
}

fn open(disk: &SimDisk) -> Store {
    open_small(disk, 24 << 20).0
}

fn view(disk: &SimDisk) -> View {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.reader(3))];
    let set = VolumeSet::open(devices).expect("a volume set");
    View::open(set, &ViewOptions::default()).expect("a view")
}

fn check_clean(view: &mut View) {
    let all = check::Options {
        data: true,
        mirror_tid: true,
        per_rule: 10,
    };
    let mut findings = Vec::new();
    let report = check::run(view, &all, &mut |f| findings.push(f), &mut ());
    assert!(report.expect("a check to the end").complete);
    findings.retain(|f| f.severity == check::Severity::Error);
    assert!(findings.is_empty(), "{findings:#?}");
}

fn put(op: &mut Operation<'_>, origin: Origin, path: &[u8], keep_tail: bool) -> Result<Report> {
    let request = Request {
        origin,
        path,
        keep_tail,
        volumes: &[],
        owner: OWNER,
        events: &mut |_, _| {},
        progress: &mut (),
    };
    import::put(op, request)
}

fn stream(bytes: &[u8]) -> Origin {
    Origin::Stream(Box::new(Bytes::new(bytes.to_vec())))
}

/// The file's bytes as of `asof`; `None` if it is not there.
fn contents<F: Fetch>(fetch: &mut F, tree: Tree, path: &[u8]) -> Option<Vec<u8>> {
    let object = resolve(fetch, tree, path, Final::Itself).ok()?;
    let mut bytes = vec![0; object.inode.size() as usize];
    file::read_at(fetch, &object.inode, object.asof, 0, &mut bytes).expect("readable");
    Some(bytes)
}

/// How many DATA records of PFS 0 were made at `tid`.
fn data_records<F: Fetch>(fetch: &mut F, tid: Tid) -> usize {
    let mut cursor = Cursor::new(Key::pfs_min(0), Key::pfs_max(0));
    let mut count = 0;
    while let Some(leaf) = cursor.next(fetch).expect("a readable tree") {
        count += usize::from(leaf.base.rec_type.get() == rt::DATA && leaf.base.create_tid() == tid);
    }
    count
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

fn operate<T>(
    store: &mut Store,
    body: impl FnOnce(&mut Operation<'_>) -> Result<T>,
) -> Result<(T, Done)> {
    operation::run(store, 0, START + 1_000_000, body)
}

#[test]
fn only_blocks_that_differ_are_written() {
    let disk = volume();
    let mut store = open(&disk);
    let mut bytes = noise(9 * MIB as usize + 12345, 1);
    let blocks = 64 + 8 * 16 + 1;
    let (report, done) =
        operate(&mut store, |op| put(op, stream(&bytes), b"/image", false)).expect("space");
    assert_eq!((report.blocks_written, report.blocks_same), (blocks, 0));
    assert_eq!(data_records(store.view(), done.tid), blocks as usize);
    // The same again: a new version of the inode and nothing else.
    let (report, done) =
        operate(&mut store, |op| put(op, stream(&bytes), b"/image", false)).expect("space");
    assert_eq!((report.blocks_written, report.blocks_same), (0, blocks));
    assert_eq!(data_records(store.view(), done.tid), 0);
    // The inode deleted and made.
    assert_eq!(
        operation::records(store.view(), 0, done.tid).expect("a scan"),
        2
    );
    assert_eq!(done.written.data, 0);
    // Two blocks in front of the megabyte, one behind it, and the last.
    for at in [5, 20_000, 3 * MIB as usize, bytes.len() - 1] {
        bytes[at] ^= 1;
    }
    let (report, done) =
        operate(&mut store, |op| put(op, stream(&bytes), b"/image", false)).expect("space");
    assert_eq!((report.blocks_written, report.blocks_same), (4, blocks - 4));
    assert_eq!(data_records(store.view(), done.tid), 4);
    assert_eq!(done.written.data, 2 * 16384 + 2 * 65536);
    assert!(contents(store.view(), Tree::current(0), b"/image") == Some(bytes.clone()));
    // Shorter: cut, or only its beginning renewed.
    let short = noise(2 * MIB as usize + 5, 9);
    operate(&mut store, |op| put(op, stream(&short), b"/image", true)).expect("space");
    bytes[..short.len()].copy_from_slice(&short);
    assert!(contents(store.view(), Tree::current(0), b"/image") == Some(bytes));
    operate(&mut store, |op| put(op, stream(&short), b"/image", false)).expect("space");
    assert!(contents(store.view(), Tree::current(0), b"/image") == Some(short));
    check_clean(&mut view(&disk));
}

#[test]
fn holes_stay_holes() {
    let disk = volume();
    let mut store = open(&disk);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sparse");
    let file = File::create(&path).expect("a file");
    file.write_all_at(&[7; 70_000], 100 * MIB).expect("space");
    file.write_all_at(&[0; 70_000], 4096).expect("space");
    file.set_len(200 * MIB + 17).expect("it grows");
    let origin = || Origin::Path(path.clone());
    let (report, done) =
        operate(&mut store, |op| put(op, origin(), b"/sparse", false)).expect("space");
    assert_eq!((report.blocks_written, report.bytes), (2, 200 * MIB + 17));
    assert_eq!(data_records(store.view(), done.tid), 2);
    let object = resolve(store.view(), Tree::current(0), b"/sparse", Final::Itself);
    assert_eq!(object.expect("it is there").inode.size(), 200 * MIB + 17);
    // What was there gives way to a hole.
    file.write_all_at(&[0; 70_000], 100 * MIB).expect("space");
    let (report, _) =
        operate(&mut store, |op| put(op, origin(), b"/sparse", false)).expect("space");
    assert_eq!((report.blocks_written, report.blocks_cleared), (0, 2));
    check_clean(&mut view(&disk));
}

#[derive(Clone, Debug)]
enum Step {
    Put {
        len: usize,
        zeros: Vec<(usize, usize)>,
        keep_tail: bool,
        seed: u64,
    },
    Append(usize),
    Truncate(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![
        0usize..20,
        0usize..20_000,
        Just(8192usize),
        Just(16384usize),
        1_000_000usize..1_200_000,
        0usize..5_000_000,
    ];
    let zeros = proptest::collection::vec((0usize..5_000_000, 0usize..200_000), 0..4);
    prop_oneof![
        4 => (len.clone(), zeros, any::<bool>(), 0u64..3).prop_map(|(len, zeros, keep_tail, seed)| {
            Step::Put { len, zeros, keep_tail, seed }
        }),
        1 => len.clone().prop_map(Step::Append),
        1 => len.prop_map(|len| Step::Truncate(len as u64)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(soak(12) as u32))]

    /// Whatever is put over whatever: every version reads as it was put.
    #[test]
    fn files_against_bytes(steps in proptest::collection::vec(step(), 1..6), dirty in 100_000usize..2_000_000) {
        let disk = volume();
        let (mut store, _) = open_small(&disk, dirty);
        let mut model: Vec<u8> = Vec::new();
        let mut versions = Vec::new();
        operate(&mut store, |op| put(op, stream(b""), b"/f", false)).expect("space");
        for step in &steps {
            let (_, done) = operate(&mut store, |op| match step {
                Step::Put { len, zeros, keep_tail, seed } => {
                    let mut bytes = noise(*len, *seed);
                    for (at, zeros) in zeros {
                        let from = (*at).min(*len);
                        bytes[from..(from + zeros).min(*len)].fill(0);
                    }
                    put(op, stream(&bytes), b"/f", *keep_tail)?;
                    match keep_tail {
                        true if model.len() > bytes.len() => model[..bytes.len()].copy_from_slice(&bytes),
                        _ => model = bytes,
                    }
                    Ok(())
                }
                Step::Append(len) => {
                    let bytes = noise(*len, 77);
                    let request = Request {
                        origin: stream(&bytes), path: b"/f", keep_tail: false, volumes: &[], owner: OWNER,
                        events: &mut |_, _| {}, progress: &mut (),
                    };
                    import::append(op, request)?;
                    model.extend(bytes);
                    Ok(())
                }
                Step::Truncate(size) => {
                    change::truncate(op, b"/f", *size)?;
                    model.resize(*size as usize, 0);
                    Ok(())
                }
            }).expect("space");
            versions.push((done.tid, model.clone()));
        }
        let mut view = view(&disk);
        for (tid, bytes) in versions {
            let tree = Tree { pfs: 0, asof: tid };
            prop_assert!(contents(&mut view, tree, b"/f") == Some(bytes), "as of {tid}");
        }
        check_clean(&mut view);
    }
}

/// Everything in PFS 0 as readers see it by default: path to contents, or target, or nothing.
fn picture(view: &mut View) -> BTreeMap<Vec<u8>, Vec<u8>> {
    use mallet::fs::walk::{Scope, Visit, Walk};
    let tree = pfs::find(view, "0").expect("PFS 0").tree(None);
    let root = resolve(view, tree, b"/", Final::Itself).expect("a root");
    let mut walk = Walk::new(root, b"/", Scope::All);
    let mut paths = Vec::new();
    while let Some(visit) = walk.next(view).expect("readable") {
        match visit {
            Visit::Object(found) => paths.push(found.path.to_vec()),
            Visit::Trouble { path, error } => panic!("{path:?}: {error}"),
            Visit::Leave { .. } => {}
        }
    }
    let file = |path: &Vec<u8>| contents(view, tree, path).unwrap_or_default();
    let files: Vec<_> = paths.iter().map(file).collect();
    paths.into_iter().zip(files).collect()
}

/// An operation of several checkpoints: changes, removes and makes.
fn large(op: &mut Operation<'_>) -> Result<()> {
    let how = Removal {
        recursive: true,
        missing_ok: false,
    };
    change::remove(op, b"/old", how, &mut ())?;
    put(op, stream(&noise(6 * MIB as usize, 5)), b"/kept", false)?;
    for number in 0..300 {
        let path = format!("/new{number}");
        put(op, stream(&noise(200, number)), path.as_bytes(), false)?;
    }
    Ok(())
}

/// A volume with something to change, and the picture of it.
fn prepared() -> (SimDisk, BTreeMap<Vec<u8>, Vec<u8>>) {
    let disk = volume();
    let mut store = open(&disk);
    operate(&mut store, |op| {
        change::make_directory(op, b"/old", false, OWNER)?;
        for number in 0..200 {
            let path = format!("/old/{number}");
            put(op, stream(&noise(300, number)), path.as_bytes(), false)?;
        }
        put(op, stream(&noise(7 * MIB as usize, 1)), b"/kept", false)?;
        Ok(())
    })
    .expect("space");
    drop(store);
    let before = picture(&mut view(&disk));
    disk.forget_log();
    (disk, before)
}

/// What a full stream of PFS 0 says, but for SKIPs: keys, creation, deletion.
fn streamed(view: &mut View) -> Vec<(Key, Tid)> {
    let pfs = pfs::find(view, "0").expect("PFS 0");
    let window = window::one_way(&SourcePfs::from(&pfs), Asked::default(), None).expect("a window");
    let mut source = Source::new(0, window, false);
    let mut said = Vec::new();
    while let Some(item) = source.next(view).expect("readable") {
        if let Item::Record { leaf, .. } | Item::Pass(leaf) = item {
            said.push((leaf.base.key(), leaf.base.delete_tid()));
        }
    }
    said
}

#[test]
fn a_crash_leaves_all_or_nothing() {
    let (disk, before) = prepared();
    let said = streamed(&mut view(&disk));
    let (mut store, _) = open_small(&disk, 100_000);
    let (_, done) = operate(&mut store, large).expect("space");
    assert!(done.written.checkpoints > 5, "{:?}", done.written);
    drop(store);
    let after = picture(&mut view(&disk));
    assert_ne!(before, after);
    let log = disk.log();
    let flushes: Vec<usize> = (0..log.len())
        .filter(|at| matches!(log[*at], Event::Flush))
        .collect();
    let step = (flushes.len() as u64 / soak(12)).max(1) as usize;
    let (mut olds, mut news, mut taken_back) = (0, 0, 0);
    for cut in flushes
        .iter()
        .step_by(step)
        .flat_map(|at| [*at, at + 1])
        .chain([log.len()])
    {
        for survive in [Survive::All, Survive::None] {
            let crashed = disk.crash(cut, survive).expect("an image");
            let mut seen = view(&crashed);
            let found = picture(&mut seen);
            let is_old = found == before;
            assert!(is_old || found == after, "cut at {cut}, {survive:?}");
            match is_old {
                true => olds += 1,
                false => news += 1,
            }
            if is_old {
                // Nothing of the operation leaves with a stream.
                assert!(streamed(&mut seen) == said, "cut at {cut}");
                // Half an operation is no damage.
                check_clean(&mut seen);
            }
            drop(seen);
            let (mut store, report) = open_small(&crashed, 100_000);
            taken_back += report.rolled_back;
            operate(&mut store, |op| {
                change::make_directory(op, b"/alive", false, OWNER)
            })
            .expect("space");
            drop(store);
            let mut seen = view(&crashed);
            let mut found = picture(&mut seen);
            assert!(found.remove(&b"/alive"[..]).is_some());
            assert!(
                found
                    == if is_old {
                        before.clone()
                    } else {
                        after.clone()
                    },
                "cut at {cut}"
            );
            check_clean(&mut seen);
        }
    }
    assert!(
        olds > 20 && news > 0 && taken_back > 10,
        "{olds} {news} {taken_back}"
    );
}

/// Taking back can be interrupted too.
#[test]
fn a_crash_while_it_is_taken_back() {
    let (disk, before) = prepared();
    let (mut store, _) = open_small(&disk, 100_000);
    operate(&mut store, large).expect("space");
    drop(store);
    let log = disk.log();
    let flushes: Vec<usize> = (0..log.len())
        .filter(|at| matches!(log[*at], Event::Flush))
        .collect();
    let half = disk
        .crash(flushes[flushes.len() * 3 / 4], Survive::All)
        .expect("an image");
    let crashed = half.snapshot();
    let (store, report) = open_small(&crashed, 100_000);
    assert_eq!(report.rolled_back, 1);
    drop(store);
    let plan = CrashPlan {
        singles: 1,
        subsets: 1,
        torn: 1,
        seed: 1,
    };
    let mut tried = 0;
    for image in crashed.crash_images(plan).step_by(7) {
        let image = image.expect("an image");
        assert!(
            picture(&mut view(&image.disk)) == before,
            "cut at {}",
            image.cut
        );
        drop(open(&image.disk));
        assert!(
            picture(&mut view(&image.disk)) == before,
            "cut at {}",
            image.cut
        );
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn a_failure_changes_nothing() {
    for dirty in [100_000, 24 << 20] {
        let (disk, before) = prepared();
        let (mut store, _) = open_small(&disk, dirty);
        let failed = operate(&mut store, |op| {
            large(op)?;
            Err::<(), _>(Error::new(Class::Other, "no more"))
        });
        let error = failed.expect_err("it failed");
        assert_eq!(
            (error.class(), error.to_string()),
            (Class::Other, "no more".into())
        );
        // The store is good for more.
        operate(&mut store, |op| {
            change::make_directory(op, b"/alive", false, OWNER)
        })
        .expect("space");
        drop(store);
        let mut seen = view(&disk);
        let mut found = picture(&mut seen);
        assert!(found.remove(&b"/alive"[..]).is_some());
        assert!(found == before, "{dirty}");
        check_clean(&mut seen);
    }
}

/// Another system wrote on top of half an operation: what it saw stays.
#[test]
fn what_others_built_on_is_kept() {
    let (disk, before) = prepared();
    let (mut store, _) = open_small(&disk, 100_000);
    operate(&mut store, large).expect("space");
    drop(store);
    let log = disk.log();
    let flushes: Vec<usize> = (0..log.len())
        .filter(|at| matches!(log[*at], Event::Flush))
        .collect();
    let half = disk
        .crash(flushes[flushes.len() / 2], Survive::All)
        .expect("an image");
    assert!(picture(&mut view(&half)) == before);
    // It knows nothing of intents.
    let mut store = Store::open(set(&half), &StoreOptions::default()).expect("a store");
    let mut ops = mallet::fs::ops::Ops::new(0);
    let mut txn = store.begin(START).expect("a transaction");
    let new = OWNER.object(mallet::format::record::ObjType::Directory, 0o755);
    ops.create(&mut txn, 1, b"other", &new).expect("space");
    txn.commit().expect("a commit");
    drop(store);
    let (store, report) = open_small(&half, 24 << 20);
    assert_eq!(report.rolled_back, 0);
    drop(store);
    let found = picture(&mut view(&half));
    assert!(found.contains_key(&b"/other"[..]) && found != before);
}
