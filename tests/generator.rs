//! The builder of volumes itself: what it builds is what was asked for, by a reader that shares
//! nothing with it but the types.

mod common;

use common::build::bulk::{Bulk, Changes};
use common::build::files::{Content, Files, Object};
use common::build::pattern::mix;
use common::build::{Built, FIRST_TID, Options};
use common::raw::Raw;
use mallet::check;
use mallet::format::record::{ObjType, data_crc_ok, data_zone, rt};
use mallet::format::{BIGBLOCK, BUFFER, NODE_SIZE, Offset, Tid, Zone, align16};
use mallet::fs::Tree;
use mallet::fs::file::read_at;
use mallet::fs::namespace::{Final, resolve};
use mallet::io;
use mallet::store::{View, ViewOptions, VolumeSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use tempfile::TempDir;

/// A bit of everything, with history.
fn scenario(options: &Options) -> Files {
    let mut files = Files::new(options);
    let root = Object::root(0);
    let dir = files.mkdir(root, b"dir");
    let sub = files.mkdir(dir, b"sub");
    for size in [
        0,
        1,
        15,
        16,
        17,
        8191,
        8192,
        8193,
        16384,
        16385,
        (1 << 20) - 1,
        (1 << 20) + 1,
    ] {
        files.file(
            dir,
            format!("size-{size}").as_bytes(),
            &Content::Pattern(size),
        );
    }
    let blocks = vec![0, 40_000, 3 << 20];
    files.file(
        dir,
        b"sparse",
        &Content::Sparse {
            size: 5 << 20,
            blocks,
        },
    );
    let text = files.file(sub, b"text", &Content::Bytes(b"first\n".to_vec()));
    files.rewrite(text, &Content::Bytes(vec![b'x'; 20_000]), 1);
    files.chmod(text, 0o600);
    files.link(text, root, b"hard");
    files.symlink(root, b"short", b"dir/sub/text");
    files.symlink(root, b"long", &[b'l'; 100]);
    files.special(root, b"fifo", ObjType::Fifo, 0, 0);
    files.special(root, b"null", ObjType::CharDevice, 1, 3);
    if options.version >= 3 {
        files.snapshot(0, "before");
    }
    files.remove(root, b"long");
    files.remove(dir, b"size-8192");
    files.remove(root, b"hard");
    files.pfs_master(1, "one");
    let home = files.mkdir(Object::root(1), b"home");
    for n in 0..200 {
        files.file(
            home,
            format!("file.{n}").as_bytes(),
            &Content::Pattern(n * 50),
        );
    }
    files.pfs_slave(2, 1, "two");
    files
}

/// A folder for images that goes with the test.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for images")
}

fn paths(options: &Options) -> Vec<PathBuf> {
    options
        .volumes
        .iter()
        .map(|(path, _)| path.clone())
        .collect()
}

/// The library's own check has nothing to say, and no data is left out.
fn checked_clean(options: &Options) {
    let devices = options
        .volumes
        .iter()
        .map(|(path, _)| io::open(path, &io::OpenOptions::default()).expect("an image that opens"));
    let set = VolumeSet::open(devices.collect()).expect("a volume set");
    let mut view = View::open(set, &ViewOptions::default()).expect("a view");
    let all = check::Options {
        data: true,
        mirror_tid: true,
        per_rule: 10,
    };
    let mut findings = Vec::new();
    let report = check::run(&mut view, &all, &mut |f| findings.push(f), &mut ());
    let report = report.expect("a check to the end");
    assert!(findings.is_empty(), "{findings:#?}");
    assert!(report.complete);
}

/// Walks all that was built and recomputes what it must say.
fn verify(options: &Options, built: &Built) {
    let raw = Raw::open(&paths(options));
    let header = *raw.header();
    assert_eq!(
        header.check_root(Offset::NULL).err().map(|f| f.to_string()),
        None
    );
    for (number, header) in raw.volumes() {
        let size = options.volumes[usize::from(number)].1;
        assert!(header.check(Offset::NULL, size).is_ok());
        assert!(header.stale_sums(Offset::NULL).is_empty());
    }
    assert_eq!(built.root.0, header.btree_root.get());
    let mut used: BTreeMap<Offset, i64> = BTreeMap::new();
    verify_tree(&raw, built, &mut used);
    let mut inodes = 0;
    let mut seen = BTreeSet::new();
    let records = raw.records();
    assert!(
        records
            .windows(2)
            .all(|w| w[0].base.key() < w[1].base.key())
    );
    assert_eq!(records.len() as u64, built.elements);
    for leaf in &records {
        let (rec_type, len) = (leaf.base.rec_type.get(), leaf.data_len.get());
        inodes += i64::from(rec_type == rt::INODE && leaf.base.delete_tid().is_zero());
        for tid in [leaf.base.create_tid(), leaf.base.delete_tid()] {
            assert!(tid <= header.next_tid() || tid == FIRST_TID, "{tid}");
        }
        let at = leaf.data_offset();
        if len == 0 {
            assert_eq!(at, Offset::NULL);
            continue;
        }
        assert_eq!(Some(at.zone()), data_zone(rec_type, len as u32));
        let unit = if len as usize <= BUFFER {
            BUFFER as u64
        } else {
            BIGBLOCK
        };
        assert_eq!(
            at.0 / unit,
            (at.0 + len as u64 - 1) / unit,
            "{at} crosses a boundary"
        );
        assert!(at.zone() != Zone::LARGE_DATA || at.in_buffer() == 0);
        let data = raw.bytes(at, len as usize);
        assert!(
            data_crc_ok(leaf, &data, options.version),
            "{}",
            leaf.base.key()
        );
        *used.entry(at.bigblock()).or_default() += align16(len as u64) as i64;
        seen.insert((at, len));
    }
    assert_eq!(header.stat_inodes.get(), inodes);
    verify_space(&raw, options, &used);
    checked_clean(options);
}

/// Shape, bounds and TIDs of the tree; counts its nodes in `used`.
fn verify_tree(raw: &Raw, built: &Built, used: &mut BTreeMap<Offset, i64>) {
    let version = raw.header().version.get();
    let (mut leaves, mut internals) = (0, 0);
    let mut expected = BTreeMap::from([(built.root, (Offset::NULL, None, None))]);
    raw.walk(Tid::ZERO, &mut |at, node| {
        assert!(node.check_crc(at, version).is_ok() && node.check_shape(at).is_ok());
        let (parent, bounds, mirror_tid) = expected.remove(&at).expect("a child of its parent");
        assert_eq!(node.parent.get(), parent.0);
        *used.entry(at.bigblock()).or_default() += NODE_SIZE as i64;
        let mut tids = 0;
        for child in node.leaves() {
            tids = tids
                .max(child.base.create_tid.get())
                .max(child.base.delete_tid.get());
        }
        for (n, child) in node.children().iter().enumerate() {
            tids = tids.max(child.mirror_tid.get());
            let bounds = (child.base.key(), node.base(n + 1).key());
            let below = (at, Some(bounds), Some(child.mirror_tid.get()));
            expected.insert(Offset(child.subtree_offset.get()), below);
        }
        assert_eq!(node.mirror_tid.get(), tids);
        assert!(mirror_tid.is_none_or(|m| m == tids));
        if let Some((low, high)) = bounds {
            let last = node.base(node.count() - 1).key();
            assert!(low <= node.base(0).key() && last < high);
        }
        *(if node.is_leaf() {
            &mut leaves
        } else {
            &mut internals
        }) += 1;
    });
    assert!(expected.is_empty());
    assert_eq!((leaves, internals), (built.leaves, built.internals));
}

/// The freemap says what is `used`, and nothing more.
fn verify_space(raw: &Raw, options: &Options, used: &BTreeMap<Offset, i64>) {
    let used: BTreeMap<u64, (Zone, i64)> = used
        .iter()
        .map(|(at, n)| (at.long(), (at.zone(), *n)))
        .collect();
    let (mut free, mut usable) = (0, 0);
    for (number, header) in raw.volumes() {
        let blocks = header.buffer_space() / BIGBLOCK;
        let at = |block: u64| Offset::new(Zone::RAW_BUFFER, number, block * BIGBLOCK);
        let mut free_here = 0;
        for block in 0..blocks + 3 {
            let entry = raw.layer2(at(block));
            assert!(entry.check(at(block), options.version).is_ok());
            if block >= blocks {
                assert_eq!(entry.owner(), Zone::UNAVAILABLE);
                continue;
            }
            free_here += u64::from(entry.owner() == Zone::FREE);
            usable += i64::from(!matches!(entry.owner(), Zone::UNDO | Zone::FREEMAP));
            match used.get(&at(block).long()) {
                Some((zone, bytes)) => {
                    assert_eq!(entry.owner(), *zone);
                    assert_eq!(BIGBLOCK as i64 - i64::from(entry.bytes_free.get()), *bytes);
                }
                None => assert!(matches!(entry.owner().0, 0 | 3 | 4 | 9)),
            }
        }
        let layer1 = raw.layer1(at(0));
        assert!(layer1.check(at(0), options.version).is_ok());
        assert_eq!(layer1.blocks_free.get(), free_here);
        free += free_here as i64;
    }
    assert_eq!(raw.header().stat_freebigblocks.get(), free);
    assert_eq!(raw.header().stat_bigblocks.get(), usable);
}

#[test]
fn versions() {
    let folder = folder();
    for version in [1, 4, 7] {
        let path = folder.path().join(format!("v{version}.img"));
        let mut options = Options::new(path, version, 128 << 20);
        options.fill = if version == 4 { 0.2 } else { 0.7 };
        let built = scenario(&options).build(&options);
        verify(&options, &built);
        assert!(version != 4 || built.depth >= 3, "a deep tree");
    }
}

#[test]
fn several_volumes() {
    let folder = folder();
    let mut options = Options::new(folder.path().join("0"), 7, 100 << 20)
        .volume(folder.path().join("1"), (64 << 20) + 12_345)
        .volume(folder.path().join("2"), 80 << 20);
    options.scatter = true;
    let built = scenario(&options).build(&options);
    verify(&options, &built);
    let volumes: BTreeSet<u8> = Raw::open(&paths(&options))
        .records()
        .iter()
        .map(|r| r.data_offset().volume())
        .collect();
    assert_eq!(volumes.len(), 3);
}

#[test]
fn same_seed_same_bytes() {
    let folder = folder();
    let build = |name: &str, seed: u64| {
        let mut options = Options::new(folder.path().join(name), 7, 96 << 20);
        options.seed = seed;
        let bulk = Bulk {
            files: 100,
            files_per_dir: 30,
            sizes: 0..=5000,
            changes: Changes::Spread(3),
            scattered: false,
        };
        bulk.build(&options);
        std::fs::read(&options.volumes[0].0).expect("an image")
    };
    let first = build("a", 1);
    assert!(first == build("b", 1));
    assert!(first != build("c", 2));
}

#[test]
fn bulk_changes_as_many_leaves_as_asked() {
    let folder = folder();
    for (version, changes, leaves) in [
        (7, Changes::None, 0),
        (7, Changes::Spread(1), 1),
        (4, Changes::Spread(40), 40),
        (7, Changes::Together(20), 20),
        (1, Changes::Together(20), 20),
    ] {
        let path = folder.path().join(format!("{version}-{changes:?}"));
        let mut options = Options::new(path, version, 0);
        let bulk = Bulk {
            files: 3000,
            files_per_dir: 500,
            sizes: 0..=20_000,
            changes,
            scattered: version == 4,
        };
        let (elements, size) = bulk.needs(&options);
        options.volumes[0].1 = size;
        let made = bulk.build(&options);
        verify(&options, &made.built);
        assert!(made.built.elements.abs_diff(elements) <= leaves + 1);
        assert_eq!(made.changed_leaves, leaves);
        let mut changed = 0;
        Raw::open(&paths(&options)).walk(made.changed_at.max(Tid(1)), &mut |_, node| {
            let new = |tid: Tid| !made.changed_at.is_zero() && tid >= made.changed_at;
            changed += u64::from(node.leaves().iter().any(|e| new(e.base.create_tid())));
        });
        assert_eq!(changed, leaves);
    }
}

#[test]
fn full_images_have_no_holes() {
    let folder = folder();
    use std::os::unix::fs::MetadataExt;
    let mut options = Options::new(folder.path().join("image"), 7, (72 << 20) + 5000);
    options.full = true;
    let built = scenario(&options).build(&options);
    verify(&options, &built);
    let metadata = std::fs::metadata(&options.volumes[0].0).expect("an image");
    assert!(metadata.blocks() * 512 >= metadata.len());
}

#[test]
fn shared_data_counts_for_each_reference() {
    let folder = folder();
    let mut options = Options::new(folder.path().join("image"), 7, 64 << 20);
    options.dedup = true;
    let mut files = Files::new(&options);
    for n in 0..600 {
        let same = Content::Bytes(vec![7; 16384]);
        files.file(Object::root(0), format!("copy-{n}").as_bytes(), &same);
    }
    let built = files.build(&options);
    verify(&options, &built);
    let raw = Raw::open(&paths(&options));
    let places: BTreeSet<Offset> = raw
        .records()
        .iter()
        .map(|r| r.data_offset())
        .filter(|a| a.zone() == Zone::LARGE_DATA)
        .collect();
    assert_eq!(places.len(), 1);
    let entry = raw.layer2(*places.first().expect("one place"));
    assert_eq!(entry.bytes_free.get(), 8_388_608 - 600 * 16384);
    assert_eq!(entry.append_off.get(), 16384);
}

/// The library's listing of a volume is what the operations made, now and then.
#[test]
fn files_are_what_was_asked_for() {
    let folder = folder();
    let options = Options::new(folder.path().join("image"), 6, 64 << 20);
    let mut files = Files::new(&options);
    let root = Object::root(0);
    let dir = files.mkdir(root, b"dir");
    let content = Content::Pattern(100_000);
    let file = files.file(dir, b"file", &content);
    let before = files.tid();
    files.rewrite(file, &Content::Bytes(b"short".to_vec()), 1);
    files.link(file, root, b"other");
    files.remove(dir, b"file");
    files.build(&options);
    let device = io::open(&options.volumes[0].0, &io::OpenOptions::default()).expect("an image");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    let mut view = View::open(set, &ViewOptions::default()).expect("a view");
    let mut read = |path: &[u8], asof| {
        let tree = Tree { pfs: 0, asof };
        let found = resolve(&mut view, tree, path, Final::Itself).expect("a path that exists");
        let mut bytes = vec![0; found.inode.size() as usize];
        read_at(&mut view, &found.inode, asof, 0, &mut bytes).expect("a readable file");
        bytes
    };
    assert_eq!(read(b"/other", Tid::MAX), b"short");
    assert!(read(b"/dir/file", before) == content.bytes(options.seed, file.id));
}

/// A number below `below` out of a sequence.
fn below(state: &mut u64, below: usize) -> usize {
    *state = mix(*state);
    (*state >> 11) as usize % below
}

/// Random operations on files, names, links and contents.
fn random_history(options: &Options, mut seed: u64) -> Files {
    let mut files = Files::new(options);
    let state = &mut seed;
    let mut dirs = vec![Object::root(0)];
    // Names with the object they lead to.
    let mut names: Vec<(Object, Vec<u8>, Object)> = Vec::new();
    let sizes = [0, 1, 100, 8192, 8193, 20_000, 70_000, 1_200_000];
    for n in 0..300 {
        let dir = dirs[below(state, dirs.len())];
        // Few stems, so that hashes come close to each other.
        let name = format!("n{}.{n}", below(state, 4)).into_bytes();
        let content = Content::Pattern(sizes[below(state, sizes.len())]);
        let known = (!names.is_empty()).then(|| below(state, names.len().max(1)));
        match (below(state, 8), known) {
            (0, _) => dirs.push(files.mkdir(dir, &name)),
            (1..=3, _) | (_, None) => {
                let file = files.file(dir, &name, &content);
                names.push((dir, name, file));
            }
            (4, Some(at)) => files.rewrite(names[at].2, &content, *state),
            (5, Some(at)) => {
                let object = names[at].2;
                files.link(object, dir, &name);
                names.push((dir, name, object));
            }
            (6, Some(at)) => files.chmod(names[at].2, 0o640),
            (_, Some(at)) => {
                let (dir, name, _) = names.swap_remove(at);
                files.remove(dir, &name);
            }
        }
    }
    files
}

#[test]
fn random_histories_are_whole() {
    let folder = folder();
    for seed in 0..6 {
        println!("seed {seed}");
        let mut state = seed;
        let version = 1 + below(&mut state, 7) as u32;
        let path = folder.path().join(seed.to_string());
        let mut options = Options::new(path, version, 512 << 20);
        options.seed = seed;
        options.fill = [0.1, 0.5, 0.7, 1.0][below(&mut state, 4)];
        options.dedup = version >= 5 && below(&mut state, 2) == 0;
        let built = random_history(&options, state).build(&options);
        verify(&options, &built);
    }
}
