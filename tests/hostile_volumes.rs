//! Small volumes damaged at random, by seed, opened for writing and used. Nothing panics or runs for
//! ever, errors are of the classes that damage leads to, and what was whole before and was not touched
//! stays whole, unless what is damaged says with a good checksum that its space is free or another's.
//! `MALLET_SEED=0x…` runs one seed alone.

mod common;
#[allow(dead_code)]
#[path = "common/mutate.rs"]
mod mutate;
#[allow(dead_code)]
#[path = "common/wreck.rs"]
mod wreck;

use common::patch::Image;
use common::victim::{self, NOW, OTHER, PFS, Victim};
use mallet::error::{Class, Error, Result};
use mallet::format::mark::{Cursor, Intent, MARK_SIZE};
use mallet::format::record::{PfsData, rt};
use mallet::format::{Key, Tid};
use mallet::fs::change;
use mallet::fs::list::{self, Detail};
use mallet::fs::namespace::Object;
use mallet::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use mallet::fs::recover::{self, OpenOptions};
use mallet::fs::rollback::{Rollback, roll_back};
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{pfs, root};
use mallet::io::sim::SimDisk;
use mallet::mirror::wire::Sink;
use mallet::mirror::{self, Clock, SourcePfs, Window};
use mallet::progress::Status;
use mallet::store::{Store, StoreOptions, VolumeSet};
use mutate::Random;
use std::collections::BTreeMap;
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wreck::Base;

/// Damaged volumes tried; with `MALLET_SOAK` more.
const CASES: u64 = 500;
/// No single one may take longer; most take a hundredth.
const PATIENCE: Duration = Duration::from_secs(30);
/// Files larger than this are not read: a damaged size is not to keep the test waiting.
const SIZE_MAX: u64 = 8 << 20;
/// Objects looked at of one PFS.
const OBJECTS_MAX: usize = 2000;

/// Files by PFS and path: their size and their contents' sum.
type Files = BTreeMap<(u16, Vec<u8>), String>;

/// What can be read of the volume without an error; `None` if it cannot be opened.
fn files(disk: &SimDisk) -> Option<Files> {
    let mut view = victim::view(disk).ok()?;
    let mut files = Files::new();
    for pfs in pfs::all(&mut view).unwrap_or_default() {
        let tree = pfs.tree(None);
        let Ok(Some(inode)) = root(&mut view, tree) else {
            continue;
        };
        let object = Object {
            inode,
            asof: tree.asof,
        };
        let mut walk = Walk::new(object, b"/", Scope::All);
        let mut status = Status::default();
        for _ in 0..OBJECTS_MAX {
            let found = match walk.next(&mut view) {
                Ok(Some(Visit::Object(found))) => found,
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => break,
            };
            let size = found.inode.as_ref().map_or(0, |inode| inode.size());
            if size > SIZE_MAX || found.inode.as_ref().is_none_or(|i| i.is_directory()) {
                continue;
            }
            let detail = &mut Detail {
                sha256: true,
                ..Detail::default()
            };
            let path = found.path.clone();
            let Ok(entry) = list::entry(&mut view, found, detail, &mut (), &mut status) else {
                continue;
            };
            if entry.error.is_none() {
                let text = format!("{size} {:?}", entry.sha256);
                files.insert((pfs.id, path), text);
            }
        }
    }
    Some(files)
}

/// What a damaged volume may lead to: never an error about a link or the host.
fn expected(error: &Error) {
    let classes = [
        Class::Damage,
        Class::NoSpace,
        Class::Io,
        Class::Incompatible,
        Class::Protocol,
        Class::Usage,
        Class::Other,
        // A damaged FIFO can look like one that its writer goes on with.
        Class::Busy,
    ];
    assert!(
        classes.contains(&error.class()),
        "{:?}: {error}",
        error.class()
    );
    assert!(!error.to_string().is_empty());
}

/// Writes a mark with a good checksum and absurd values into a PFS's record.
fn absurd_mark(image: &Image, random: &mut Random) {
    let header = image.header();
    let next = header.next_tid.get();
    let values = [
        0,
        1,
        2,
        next - 1,
        next,
        next + 1,
        1 << 62,
        1 << 63,
        u64::MAX,
    ];
    let places = image.records();
    let mut records: Vec<_> = places.iter().collect();
    records.retain(|place| {
        place.leaf.base.rec_type.get() == rt::PFS && place.leaf.base.delete_tid().is_zero()
    });
    if records.is_empty() {
        return;
    }
    let place = records[random.below(records.len())];
    let own_leaf = place.leaf.base.create_tid();
    let mut value = || values[random.below(values.len())];
    let cursor = Cursor {
        key: Key {
            obj_id: value().cast_signed(),
            ..Key::pfs_min(PFS)
        },
        end: Tid(value()),
        source: value(),
        source_leaf: Tid(value()),
        own_leaf,
    };
    let intent = Intent {
        // Below what the record's own version is, or above what was ever given out.
        tid: Tid(value()),
        next_tid: Tid(next),
        own_leaf,
    };
    let ends = [value(), value()];
    let mark = match value() % 2 {
        0 => cursor.to_bytes(),
        _ => intent.to_bytes(),
    };
    let spoil_ends = value() % 3 == 0;
    image.edit_data(place, |data| {
        let at = offset_of!(PfsData, reserved03);
        if data.len() >= at + MARK_SIZE {
            data[at..at + MARK_SIZE].copy_from_slice(&mark);
        }
        if spoil_ends {
            for (at, end) in [
                (offset_of!(PfsData, sync_beg_tid), ends[0]),
                (offset_of!(PfsData, sync_end_tid), ends[1]),
            ] {
                data[at..at + 8].copy_from_slice(&end.to_le_bytes());
            }
        }
    });
}

struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

/// A stream of a PFS of the damaged volume.
fn stream(store: &mut Store, id: u16) -> Result<()> {
    let Some(pfs) = pfs::load(store.view(), id)? else {
        return Ok(());
    };
    let request = mirror::Request {
        pfs: SourcePfs::from(&pfs),
        window: Window {
            begin: Tid(1),
            end: pfs.sync_end,
            resume: None,
        },
        split: None,
        accept_damage: false,
        live: false,
    };
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, None);
    let mut edge = mirror::Edge {
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_| {},
    };
    mirror::run(store.view(), &request, &mut sink, &mut edge).map(|_| ())
}

/// What an operation touches: a PFS, and where in it.
type Touched = Vec<(u16, Vec<u8>)>;

/// Does something to the volume; names what it may have changed.
fn use_it(
    store: &mut Store,
    known: &Files,
    step: usize,
    random: &mut Random,
) -> (Touched, Result<()>) {
    let all: Vec<_> = known.keys().collect();
    let (id, path) = match all.get(random.below(all.len())) {
        Some((id, path)) => (*id, path.clone()),
        None => (0, b"/file".to_vec()),
    };
    let new = format!("/hostile{step}").into_bytes();
    // Hard links: other names of the same file.
    let whole = |id: u16| vec![(id, b"/".to_vec())];
    let size = [10, 9000, 70_000, 3 << 20][random.below(4)];
    let bytes = vec![0xA5; size];
    match random.below(12) {
        0 | 1 => (
            vec![(id, new.clone())],
            victim::change(store, id, |op| victim::put(op, &new, &bytes)),
        ),
        2 => (
            whole(id),
            victim::change(store, id, |op| victim::put(op, &path, &bytes)),
        ),
        3 => (
            whole(id),
            victim::change(store, id, |op| victim::append(op, &path, &bytes)),
        ),
        4 => {
            let end = path[1..]
                .iter()
                .position(|b| *b == b'/')
                .map_or(path.len(), |n| n + 1);
            let top = &path[..end];
            (
                whole(id),
                victim::change(store, id, |op| victim::remove(op, top)),
            )
        }
        5 => (
            vec![(id, path.clone()), (id, new.clone())],
            victim::change(store, id, |op| change::rename(op, &path, &new)),
        ),
        6 => {
            let size = [0, 5, 8193, i64::MAX as u64, u64::MAX][random.below(5)];
            (
                whole(id),
                victim::change(store, id, |op| change::truncate(op, &path, size)),
            )
        }
        7 => {
            let settings = Settings::default();
            let new = NewPfs {
                kind: Kind::Master,
                id: None,
                fresh: [[9; 16], [8; 16]],
                settings: &settings,
                link: None,
            };
            (vec![], pfs_ops::create(store, &new, NOW).map(|_| ()))
        }
        8 => {
            let id = [PFS, OTHER][random.below(2)];
            let done = match random.below(3) {
                0 => pfs_ops::destroy(store, id, None, NOW, &mut ()).map(|_| ()),
                1 => pfs_ops::upgrade(store, id, NOW, &mut ()).map(|_| ()),
                _ => pfs_ops::downgrade(store, id, NOW).map(|_| ()),
            };
            (whole(id), done)
        }
        9 => {
            let to = [1, 0x1_0000_0100, u64::MAX][random.below(3)];
            let what = Rollback {
                pfs: id,
                to: Tid(to),
                spare_local: random.below(2) == 0,
            };
            let mut touched = whole(id);
            if id == 0 {
                // With their records.
                touched.extend(known.keys().map(|(id, _)| (*id, b"/".to_vec())));
            }
            (touched, roll_back(store, &what, NOW, &mut ()).map(|_| ()))
        }
        10 => (vec![], stream(store, id)),
        _ => {
            let made = victim::change(store, id, |op| {
                victim::directory(op, &new)?;
                for n in 0..200 {
                    let path = [&new[..], format!("/{n}").as_bytes()].concat();
                    victim::put(op, &path, &bytes[..10])?;
                }
                Ok(())
            });
            (vec![(id, new.clone())], made)
        }
    }
}

/// Opens the volume for writing as programs do.
fn open(disk: &SimDisk) -> Result<Store> {
    let set = VolumeSet::open(vec![Box::new(disk.device(1))])?;
    let options = OpenOptions {
        store: StoreOptions {
            cache_bytes: 4 << 20,
            readahead_bytes: 1 << 20,
            dirty_bytes: 256 << 10,
            ..StoreOptions::default()
        },
        redo: true,
        now: NOW,
    };
    recover::open(set, &options).map(|(store, _)| store)
}

fn run(bases: &[Base], streams: &[Vec<u8>], seed: u64) {
    let mut random = Random::new(seed);
    let base = &bases[random.below(bases.len())];
    let image = base.image();
    let openly = random.below(2) == 0;
    if !openly && random.below(3) == 0 {
        absurd_mark(&image, &mut random);
    }
    for _ in 0..1 + random.below(4) {
        match openly {
            true => base.damage_openly(&image, &mut random),
            false => base.damage(&image, &mut random),
        }
    }
    let disk = &image.disk;
    let before = files(disk);
    let mut touched = Touched::new();
    match open(disk) {
        Ok(mut store) => {
            let known = before.clone().unwrap_or_default();
            for step in 0..1 + random.below(4) {
                let (what, ended) = use_it(&mut store, &known, step, &mut random);
                touched.extend(what);
                if let Err(error) = ended {
                    expected(&error);
                }
            }
        }
        Err(error) => expected(&error),
    }
    if random.below(4) == 0 {
        let stream = &streams[random.below(streams.len())];
        touched.push((PFS, b"/".to_vec()));
        if let Err(error) = victim::apply(disk, stream, random.below(2) == 0).1 {
            expected(&error);
        }
    }
    disk.forget_log();
    let after = files(disk);
    if !openly {
        return;
    }
    let Some(before) = before else { return };
    if let Err(error) = victim::view(disk) {
        panic!("a volume that could be opened cannot be: {error}");
    }
    let after = after.unwrap_or_default();
    for ((id, path), text) in before {
        let changed = |(other, at): &(u16, Vec<u8>)| *other == id && path.starts_with(at);
        if !touched.iter().any(changed) {
            let found = after.get(&(id, path.clone()));
            let name = String::from_utf8_lossy(&path);
            assert_eq!(found, Some(&text), "PFS {id}, {name}");
        }
    }
}

/// Ends the process if a seed runs for ever: a test that hangs says nothing.
fn watch(running: &Mutex<BTreeMap<u64, Instant>>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let running = running.lock().expect("a list");
        if let Some((seed, _)) = running
            .iter()
            .find(|(_, from)| from.elapsed() > 4 * PATIENCE)
        {
            eprintln!("failed: MALLET_SEED=0x{seed:x} does not end");
            std::process::abort();
        }
    }
}

#[test]
fn damaged_volumes_can_be_written_to() {
    let victims = [Victim::new(7), Victim::new(5)];
    let mut bases: Vec<Base> = victims
        .iter()
        .map(|victim| Base::of(&victim.disk))
        .collect();
    for name in [
        "mirror/pfs.img",
        "crash/crash-v4-n053.img",
        "crash/crash-v3-n180.img",
    ] {
        bases.push(Base::testdata(name));
    }
    let streams: Vec<Vec<u8>> = victims.iter().map(|victim| victim.full.clone()).collect();
    if let Ok(text) = std::env::var("MALLET_SEED") {
        let digits = text.trim_start_matches("0x");
        let seed = u64::from_str_radix(digits, 16).expect("a seed in hex");
        return run(&bases, &streams, seed);
    }
    let cases = common::soak(CASES);
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (running, over) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&running, &over));
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= cases {
                    return;
                }
                let start = Instant::now();
                running.lock().expect("a list").insert(seed, start);
                let result = catch_unwind(AssertUnwindSafe(|| run(&bases, &streams, seed)));
                running.lock().expect("a list").remove(&seed);
                let took = start.elapsed();
                if result.is_err() || took > PATIENCE {
                    eprintln!("failed: MALLET_SEED=0x{seed:x} after {took:?}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let threads = [scope.spawn(work), scope.spawn(work)];
        for thread in threads {
            thread.join().expect("a thread that ends");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.into_inner(), 0, "seeds above");
}
