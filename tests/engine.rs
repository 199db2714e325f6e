//! The view and the B-Tree on volumes made by DragonFly's kernel.

mod common;

use common::golden;
use mallet::btree::record::extent;
use mallet::btree::{AsOf, Cursor, Scan, Step, good_data};
use mallet::error::Class;
use mallet::format::{Key, Offset, Rule, Tid, Zone};
use mallet::io::sim::SimDisk;
use mallet::io::{OpenOptions, open};
use mallet::store::freemap::{BigBlocks, layer2};
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};
use std::fs::File;
use std::path::Path;

fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// Every record of the tree is reached, in order, its data right; a scan from the first TID gives
/// the same records; and both ways as-of views only ever take records away.
#[test]
fn walks_everything() {
    let Some(dir) = golden::dir() else { return };
    for folder in ["small", "crash", "mirror", "maint", "skips", "edge"] {
        for name in golden::names(&dir, folder, ".img") {
            let mut view = view(&golden::file(&dir, &name));
            let (mut cursor, mut records, mut last) = (Cursor::new(Key::MIN, Key::MAX), 0u64, None);
            while let Some(leaf) = cursor.next(&mut view).expect("a readable tree") {
                let key = leaf.base.key();
                assert!(
                    last.is_none_or(|last| last < key),
                    "{name}: {key} out of order"
                );
                last = Some(key);
                good_data(&mut view, &leaf).unwrap_or_else(|e| panic!("{name}: {e}"));
                records += 1;
            }
            let mut scan = Scan::new(Key::MIN, Key::MAX, Tid(1));
            let mut scanned = 0;
            while let Some(step) = scan.next(&mut view).expect("a readable tree") {
                match step {
                    Step::Leaf(leaf) => scanned += leaf.elements().len() as u64,
                    other => panic!("{name}: {other:?}"),
                }
            }
            assert_eq!(records, scanned, "{name}");
            let mut current = AsOf::new(Key::MIN, Key::MAX, Tid::MAX);
            let mut visible = 0;
            while let Some(leaf) = current.next(&mut view).expect("a readable tree") {
                assert!(leaf.visible(Tid::MAX));
                visible += 1;
            }
            assert!(
                visible > 0 && visible <= records,
                "{name}: {visible} of {records}"
            );
            println!(
                "{name}: {records} records, {visible} current, {:?} {:?}",
                view.undone(),
                view.counters()
            );
        }
    }
}

/// The freemap's entries are right, and their free ones are as many as the header says.
#[test]
fn freemap_adds_up() {
    let Some(dir) = golden::dir() else { return };
    for name in golden::names(&dir, "crash", ".img") {
        let mut view = view(&golden::file(&dir, &name));
        let version = view.version();
        let space = view.header().buffer_space();
        let (mut walk, mut free, mut all) = (BigBlocks::new(0, space), 0, 0);
        while let Some(found) = walk.next(&mut view).expect("a readable freemap") {
            found
                .entry
                .check(found.place, version)
                .expect("a right CRC");
            free += i64::from(found.entry.zone == 0);
            all += i64::from(!matches!(found.entry.zone, 3 | 4 | 15));
            let again = layer2(&mut view, found.at).expect("a readable freemap");
            assert_eq!(again.map(|(place, _)| place), Some(found.place));
        }
        let header = view.header();
        assert_eq!(free, header.stat_freebigblocks.get(), "{name}");
        assert_eq!(all, header.stat_bigblocks.get(), "{name}");
    }
}

/// Opening a clean volume costs its header and the FIFO's surroundings, whatever its size.
#[test]
fn a_clean_volume_opens_cheaply() {
    let Some(dir) = golden::dir() else { return };
    for name in [
        "maint/maint-5-pruneall.img",
        "skips/m.img",
        "small/small-v1.img",
    ] {
        let view = view(&golden::file(&dir, name));
        assert_eq!(view.undone().bytes, 0, "{name}");
        let read = view.counters();
        assert!(
            read.reads <= 4 && read.bytes <= 4 * 16384,
            "{name}: {read:?}"
        );
    }
}

/// What a bad sector harms is the records that lie on it, whatever was read together with them,
/// in whatever order the device completes; and a cache of any size gives the same bytes.
#[test]
fn a_bad_sector_harms_what_lies_on_it() {
    let Some(dir) = golden::dir() else { return };
    let path = golden::file(&dir, "maint/maint-1-dedup.img");
    let mut all = Vec::new();
    let mut quiet = view(&path);
    let mut cursor = Cursor::new(Key::MIN, Key::MAX);
    while let Some(leaf) = cursor.next(&mut quiet).expect("a readable tree") {
        if let Some((at, len)) = extent(&leaf) {
            all.push((leaf, at, len));
        }
    }
    let base = quiet.header().buf_beg.get().cast_unsigned();
    for seed in 1..8u64 {
        let disk = SimDisk::over(File::open(&path).expect("an image")).expect("a disk");
        let set = VolumeSet::open(vec![Box::new(disk.reader(seed))]).expect("a volume");
        let options = ViewOptions {
            cache_bytes: (seed as usize) << 17,
            readahead_bytes: (seed as usize) << 20,
            ..ViewOptions::default()
        };
        let mut view = View::open(set, &options).expect("a view");
        // Sectors under some of the records.
        let mut bad = Vec::new();
        for (index, (_, at, len)) in all.iter().enumerate() {
            if (index as u64 * 2_654_435_761 + seed).is_multiple_of(17) {
                let sector = (base + at.short() + (*len as u64) / 2) / 512 * 512;
                disk.set_unreadable(sector..sector + 512);
                bad.push(sector);
            }
        }
        for batch in all.chunks(100) {
            let wanted: Vec<_> = batch.iter().map(|(_, at, len)| (*at, *len)).collect();
            view.want(&wanted);
            for (leaf, at, len) in batch {
                // What is cached is read in whole buffers.
                let (from, to) = (base + at.buffer().short(), base + at.short() + *len as u64);
                let to = to.next_multiple_of(16384);
                let harmed = bad.iter().any(|sector| (from..to).contains(sector));
                match good_data(&mut view, leaf) {
                    Ok(bytes) => assert!(!harmed && bytes.len() == *len, "seed {seed}: {at}"),
                    Err(error) => {
                        assert_eq!(error.class(), Class::Io, "seed {seed}: {error}");
                        assert!(harmed, "seed {seed}: {at}: {error}");
                    }
                }
            }
        }
    }
}

/// A damaged leaf costs its own records: the scan names its bounds and goes on, a cursor fails once
/// and goes on.
#[test]
fn a_damaged_leaf_is_passed_over() {
    let Some(dir) = golden::dir() else { return };
    let path = golden::file(&dir, "skips/m.img");
    let mut quiet = view(&path);
    let root = quiet
        .node(Offset(quiet.header().btree_root.get()))
        .expect("a root");
    assert!(!root.is_leaf(), "a tree of some depth");
    let middle = root.children()[root.count() / 2];
    let lost = quiet
        .node(Offset(middle.subtree_offset.get()))
        .expect("a child");
    let lost_count = match lost.is_leaf() {
        true => lost.count(),
        false => lost.children().iter().fold(0, |sum, child| {
            let leaf = quiet
                .node(Offset(child.subtree_offset.get()))
                .expect("a leaf");
            assert!(leaf.is_leaf(), "a tree of depth 3 at most");
            sum + leaf.count()
        }),
    };
    let disk = SimDisk::over(File::open(&path).expect("an image")).expect("a disk");
    let at =
        quiet.header().buf_beg.get().cast_unsigned() + Offset(middle.subtree_offset.get()).short();
    disk.write(at + 100, b"not what was there").expect("a node");
    let open = |seed| {
        let set = VolumeSet::open(vec![Box::new(disk.reader(seed))]).expect("a volume");
        View::open(set, &ViewOptions::default()).expect("a view")
    };
    let mut count = 0;
    let mut whole = Cursor::new(Key::MIN, Key::MAX);
    while whole.next(&mut quiet).expect("a readable tree").is_some() {
        count += 1;
    }
    let (mut view, mut scan) = (open(1), Scan::new(Key::MIN, Key::MAX, Tid(1)));
    let (mut scanned, mut gaps) = (0, Vec::new());
    while let Some(step) = scan.next(&mut view).expect("a readable root") {
        match step {
            Step::Leaf(leaf) => scanned += leaf.elements().len(),
            Step::Unreadable { from, to, error } => {
                assert_eq!(error.fault().map(|f| f.rule), Some(Rule::NodeCrc));
                gaps.push((from.key(), to.key()));
            }
            Step::Skip { .. } => panic!("nothing is older than the first TID"),
        }
    }
    let index = root.count() / 2;
    assert_eq!(gaps, [(middle.base.key(), root.base(index + 1).key())]);
    assert_eq!(scanned + lost_count, count);
    let (mut view, mut cursor) = (open(2), Cursor::new(Key::MIN, Key::MAX));
    let (mut walked, mut errors) = (0, 0);
    loop {
        match cursor.next(&mut view) {
            Ok(Some(_)) => walked += 1,
            Ok(None) => break,
            Err(_) => errors += 1,
        }
    }
    assert_eq!((walked, errors), (scanned, 1));
}

/// What was announced and never asked for makes room for what is announced later.
#[test]
fn abandoned_readahead_makes_room() {
    let Some(dir) = golden::dir() else { return };
    let path = golden::file(&dir, "maint/maint-0-before.img");
    let mut quiet = view(&path);
    let mut extents = Vec::new();
    let mut cursor = Cursor::new(Key::MIN, Key::MAX);
    while let Some(leaf) = cursor.next(&mut quiet).expect("a readable tree") {
        extents.extend(extent(&leaf).filter(|(at, _)| at.zone() == Zone::LARGE_DATA));
    }
    extents.sort_unstable();
    extents.dedup();
    let set = quiet.into_volumes();
    let options = ViewOptions {
        readahead_bytes: 2 << 20,
        ..ViewOptions::default()
    };
    let mut view = View::open(set, &options).expect("a view");
    let (abandoned, used) = extents.split_at(extents.len() / 2);
    for batch in abandoned.chunks(30) {
        view.want(batch);
    }
    let before = view.counters().reads;
    for batch in used.chunks(30) {
        view.want(batch);
        for (at, len) in batch {
            view.bytes(*at, *len).expect("readable data");
        }
    }
    let reads = view.counters().reads - before;
    assert!(
        reads < used.len() as u64 / 2,
        "{reads} reads of {} extents",
        used.len()
    );
}

/// A failing read in the middle of a joined one harms its own extent in a live view too, where
/// everything that has been read is settled together.
#[test]
fn a_live_view_isolates_bad_sectors() {
    let Some(dir) = golden::dir() else { return };
    let path = golden::file(&dir, "maint/maint-0-before.img");
    let mut quiet = view(&path);
    let (mut leaves, mut cursor) = (Vec::new(), Cursor::new(Key::MIN, Key::MAX));
    while let Some(leaf) = cursor.next(&mut quiet).expect("a readable tree") {
        if extent(&leaf).is_some_and(|(at, _)| at.zone() == Zone::LARGE_DATA) {
            leaves.push(leaf);
        }
    }
    let base = quiet.header().buf_beg.get().cast_unsigned();
    let disk = SimDisk::over(File::open(&path).expect("an image")).expect("a disk");
    let bad: Vec<u64> = leaves
        .iter()
        .step_by(9)
        .map(|leaf| base + leaf.data_offset().short())
        .collect();
    for sector in &bad {
        disk.set_unreadable(*sector..*sector + 512);
    }
    let set = VolumeSet::open(vec![Box::new(disk.reader(3))]).expect("a volume");
    let options = ViewOptions {
        live: true,
        ..ViewOptions::default()
    };
    let mut view = View::open(set, &options).expect("a view");
    for batch in leaves.chunks(60) {
        let wanted: Vec<_> = batch.iter().filter_map(extent).collect();
        view.want(&wanted);
        for leaf in batch {
            let (at, len) = extent(leaf).expect("a place");
            let from = base + at.short();
            let harmed = bad.iter().any(|s| (from..from + len as u64).contains(s));
            match good_data(&mut view, leaf) {
                Ok(_) => assert!(!harmed, "{at}"),
                Err(error) => assert!(harmed && error.class() == Class::Io, "{at}: {error}"),
            }
        }
    }
}

/// The FIFO is read in large pieces; a bad sector that no record lies on does no harm.
#[test]
fn a_bad_sector_behind_the_log_does_no_harm() {
    let Some(dir) = golden::dir() else { return };
    let path = golden::file(&dir, "crash/crash-v7-n057.img");
    let quiet = view(&path);
    let ring = Offset(quiet.header().undo_array[0].get()).short();
    let ring = quiet.header().buf_beg.get().cast_unsigned() + ring;
    let behind = ring + quiet.undone().end.next_multiple_of(16384) + 16384;
    let disk = SimDisk::over(File::open(&path).expect("an image")).expect("a disk");
    disk.set_unreadable(behind..behind + 512);
    let open = |despite| {
        let set = VolumeSet::open(vec![Box::new(disk.reader(1))]).expect("a volume");
        let options = ViewOptions {
            despite_fifo_faults: despite,
            ..ViewOptions::default()
        };
        View::open(set, &options)
    };
    assert_eq!(open(false).expect("a view").undone(), quiet.undone());
    // One within the log does, but for those who only report it.
    let within = ring + quiet.undone().first + 1024;
    disk.set_unreadable(within..within + 512);
    let error = open(false).map(drop).expect_err("an unreadable log");
    assert_eq!(error.class(), Class::Io);
    let rule = open(true)
        .expect("a view")
        .fifo_fault()
        .map(|fault| fault.rule);
    assert_eq!(rule, Some(Rule::Fifo));
}
