//! The view and the B-Tree on volumes made by DragonFly's kernel.

mod common;

use common::golden;
use mallet::btree::{AsOf, Cursor, Scan, Step, good_data};
use mallet::format::{Key, Tid};
use mallet::io::{OpenOptions, open};
use mallet::store::freemap::{BigBlocks, layer2};
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};
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
