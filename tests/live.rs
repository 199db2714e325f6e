//! Views beside a writer: a volume that DragonFly's kernel changed, its writes replayed while a
//! view reads (golden `live/`). A view shows the state it was taken of, or says that it has expired.

mod common;

use common::golden;
use common::live::{Event, Log, digest, truth, view};
use mallet::error::Class;
use mallet::format::volume::VolumeHeader;
use mallet::format::{Offset, Tid};
use mallet::fs::Tree;
use mallet::fs::list::{self, Detail};
use mallet::fs::namespace::{Final, resolve};
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::io::sim::SimDisk;
use mallet::progress::Status;
use mallet::store::freemap::layer2;
use mallet::store::{Fetch, View};
use mallet::{Error, Result};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;

#[derive(Debug, Default)]
struct Tally {
    held: usize,
    moved: usize,
    expired: usize,
}

#[test]
fn views_beside_the_kernel() {
    let Some(dir) = golden::dir() else { return };
    let start = golden::file(&dir, "live/start.img");
    let log = Arc::new(Log::read(golden::bytes(&dir, "live/writes.log")));
    let truth = truth(&start, &log);
    let rounds = common::soak(60);
    let mut tally = Tally::default();
    for seed in 0..rounds {
        let outcome = one_view(&start, &log, &truth, seed);
        match outcome {
            Ok(moved) => {
                tally.held += 1;
                tally.moved += usize::from(moved);
            }
            Err(error) if error.class() == Class::Expired => tally.expired += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!("{tally:?}");
    assert!(
        tally.moved > rounds as usize / 4,
        "few views were ever tested: {tally:?}"
    );
}

/// Takes a view at a random moment and reads all of PFS 1 while the writer goes on at a random
/// pace. Says whether the writer committed anything meanwhile.
fn one_view(
    start: &Path,
    log: &Arc<Log>,
    truth: &[(usize, Tid, String)],
    seed: u64,
) -> Result<bool> {
    let mut seeded = [0; 32];
    seeded[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seeded);
    let mut below = move |n: u64| random.next_u64() % n.max(1);
    let disk = SimDisk::over(File::open(start).expect("the start image")).expect("a disk");
    let first = truth[0].0 as u64;
    let moment = (first + below(log.events.len() as u64 - first)) as usize;
    (0..moment).for_each(|index| log.replay(index, &disk));
    disk.forget_log();
    let (_, tid, hash) = truth
        .iter()
        .rev()
        .find(|mark| mark.0 < moment)
        .unwrap_or(&truth[0]);
    // From a write in many reads to many writes a read.
    let (pause, burst) = (1 + below(40), 1 + below([1, 4, 40][seed as usize % 3]));
    let position = Arc::new(Mutex::new(moment));
    let (writer, at) = (Arc::clone(log), Arc::clone(&position));
    disk.set_hook(move |_, disk| {
        if below(pause) != 0 {
            return;
        }
        let mut at = at.lock().expect("one thread");
        for _ in 0..=below(burst) {
            if *at < writer.events.len() {
                writer.replay(*at, disk);
                *at += 1;
            }
        }
    });
    let mut live = view(&disk, seed, true)?;
    let (shown, _) = digest(&mut live, *tid)?;
    let reached = *position.lock().expect("one thread");
    if shown != *hash {
        let text = format!("as of {tid}, taken at event {moment}, read until {reached}: wrong");
        return Err(Error::new(Class::Other, text));
    }
    let marks = log.events[moment..reached].iter();
    Ok(marks.filter(|e| matches!(e, Event::Mark(_))).count() > 0)
}

/// The start image, and a live view of it that has read nothing yet but what it needs to be one.
fn fresh_view(dir: &Path) -> (SimDisk, View) {
    let start = golden::file(dir, "live/start.img");
    let disk = SimDisk::over(File::open(start).expect("the start image")).expect("a disk");
    let view = view(&disk, 0, true).expect("a live view of a quiet volume");
    (disk, view)
}

/// Where `at` (zone 2) lies on the device.
fn device_offset(view: &View, at: Offset) -> u64 {
    view.header().buf_beg.get().cast_unsigned() + at.short()
}

fn expect_expired(view: &mut View, why: &str) {
    let error = digest(view, Tid::MAX)
        .map(drop)
        .expect_err("a view that has expired");
    assert_eq!(error.class(), Class::Expired, "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

/// Changes the root header on the disk.
fn change_header(disk: &SimDisk, change: impl Fn(&mut VolumeHeader)) {
    let bytes = disk.read(0, 16384).expect("a header");
    let mut header = VolumeHeader::from_prefix(&bytes).expect("a header");
    change(&mut header);
    disk.write(0, header.as_bytes()).expect("a header");
}

#[test]
fn a_view_ends_when_its_space_is_freed() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    let root = Offset(view.header().btree_root.get());
    let (place, mut entry) = layer2(&mut view, root)
        .expect("a freemap")
        .expect("an entry");
    entry.zone = 0;
    disk.write(device_offset(&view, place), entry.as_bytes())
        .expect("an entry");
    expect_expired(&mut view, "is free");
}

#[test]
fn a_view_ends_when_the_log_is_written_around() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    let first = view.undone().first;
    let ring = Offset(view.header().undo_array[0].get());
    // The sector before the range holds its last record; the writer has come around to it.
    let sector = device_offset(&view, ring) + (first - 1) / 512 * 512;
    let mut bytes = disk.read(sector, 512).expect("a sector");
    bytes[8] ^= 0x40;
    disk.write(sector, &bytes).expect("a sector");
    expect_expired(&mut view, "written around");
}

#[test]
fn a_view_ends_when_records_are_missing() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    change_header(&disk, |header| {
        let undo = &mut header.blockmap[3];
        undo.next_offset.set(undo.next_offset.get() + 4096);
    });
    expect_expired(&mut view, "log ends before");
}

#[test]
fn a_view_ends_when_the_file_system_is_converted() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    change_header(&disk, |header| header.vol_count.set(2));
    expect_expired(&mut view, "volume set");
}

/// A first_offset that moves on does not end a view, and bytes that the log covers are the old ones.
#[test]
fn a_view_outlives_a_checkpoint() {
    let Some(dir) = golden::dir() else { return };
    let log = Log::read(golden::bytes(&dir, "live/writes.log"));
    let (disk, mut view) = fresh_view(&dir);
    let first = view.undone().first;
    let before = digest(&mut view, Tid::MAX).expect("a quiet volume");
    // Another view, which has read nothing yet.
    let mut view = self::view(&disk, 0, true).expect("a live view");
    let mut index = 0;
    let moved = |disk: &SimDisk| {
        let bytes = disk.read(0, 16384).expect("a header");
        let header = VolumeHeader::from_prefix(&bytes).expect("a header");
        Offset(header.blockmap[3].first_offset.get()).short() != first
    };
    while !moved(&disk) {
        log.replay(index, &disk);
        index += 1;
    }
    assert_eq!(
        digest(&mut view, Tid::MAX).expect("a view that holds"),
        before
    );
}

/// A record in the middle of being written is read again; one that stays broken is damage.
#[test]
fn a_torn_record_is_waited_for() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    let end = view.undone().end;
    let ring = Offset(view.header().undo_array[0].get());
    let sector = device_offset(&view, ring) + end.next_multiple_of(512);
    let whole = disk.read(sector, 512).expect("a sector");
    disk.write(sector, &[0xAA; 512]).expect("a sector");
    let mut reads = 0;
    disk.set_hook(move |_, disk| {
        reads += 1;
        if reads == 12 {
            disk.write(sector, &whole).expect("a sector");
        }
    });
    digest(&mut view, Tid::MAX).expect("a view that waits");
    disk.clear_hook();
    disk.write(sector, &[0xAA; 512]).expect("a sector");
    let error = self::view(&disk, 0, true)
        .map(drop)
        .expect_err("a broken log");
    assert_eq!(error.class(), Class::Damage, "{error}");
}

/// Where the log stays broken nothing is proved any more: that is no damage of what was to be read, and
/// a scan does not pass over it.
#[test]
fn a_broken_log_is_no_damage_of_records() {
    let Some(dir) = golden::dir() else { return };
    let (disk, mut view) = fresh_view(&dir);
    let end = view.undone().end;
    let ring = Offset(view.header().undo_array[0].get());
    let sector = device_offset(&view, ring) + end.next_multiple_of(512);
    let whole = disk.read(sector, 512).expect("a sector");
    disk.write(sector, &[0xAA; 512]).expect("a sector");
    for _ in 0..2 {
        let error = digest(&mut view, Tid::MAX).expect_err("a broken log");
        assert_eq!(error.class(), Class::Damage, "{error}");
        assert!(!error.is_media(), "{error}");
        // Too late.
        disk.write(sector, &whole).expect("a sector");
    }
}

/// A symlink whose target had not been flushed with its inode is what the kernel leaves: listed with
/// an error, as the kernel's own listing has it, and no damage.
#[test]
fn a_link_without_its_target_is_no_damage() {
    let Some(dir) = golden::dir() else { return };
    let listings = golden::bytes(&dir, "live/asof.lst");
    let listings = String::from_utf8(listings).expect("names in UTF-8");
    let log = Log::read(golden::bytes(&dir, "live/writes.log"));
    let (disk, _) = fresh_view(&dir);
    (0..log.events.len()).for_each(|index| log.replay(index, &disk));
    let mut view = view(&disk, 0, false).expect("a quiet view");
    let mut seen = 0;
    for section in listings
        .split("== TID ")
        .skip(1)
        .filter(|s| s.contains("READ-ERROR"))
    {
        let tid = section.split_whitespace().next().expect("a TID");
        let tid = u64::from_str_radix(tid.trim_start_matches("0x"), 16).expect("a TID");
        let tree = Tree {
            pfs: 1,
            asof: Tid(tid),
        };
        let root = resolve(&mut view, tree, b"/", Final::Itself).expect("a root");
        let (mut walk, mut detail) = (Walk::new(root, b"/", Scope::All), Detail::default());
        while let Some(visit) = walk.next(&mut view).expect("a readable view") {
            let Visit::Object(found) = visit else {
                continue;
            };
            let mut status = Status::default();
            let entry = list::entry(&mut view, found, &mut detail, &mut (), &mut status);
            let entry = entry.expect("an entry");
            assert!(!entry.damaged, "{entry:?}");
            seen += usize::from(entry.error.is_some());
        }
    }
    assert_eq!(seen, listings.matches("READ-ERROR").count());
}
