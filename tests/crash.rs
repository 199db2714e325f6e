//! Power cuts at every write and flush of a set of scenarios: whatever part of the writes since the
//! last flush survives, the volumes are in the state before or after the operation, by the kernel's
//! rules of recovery (the oracle) and by the library's, and nothing acknowledged is lost.

mod common;

use common::crash::raw_ops::RawOps;
use common::crash::scenario::{self, Said, Scenario, said_when_stable};
use common::crash::scenarios::{self, Mirroring};
use common::crash::state::digest;
use common::crash::timeline::{Plan, Random, Recorder};
use common::crash::trial::{self, Effort, Tally, crash};
use common::golden;
use mallet::btree::Editor;
use mallet::btree::put;
use mallet::format::{Key, Tid};
use mallet::fs::{self, newfs::NewFs};
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::store::{Fetch, Store, View, ViewOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn effort(seed: u64) -> Effort {
    let plan = Plan {
        singles: 8,
        subsets: 16,
        torn: 110,
        seed,
    };
    let again = Plan {
        singles: 2,
        subsets: 1,
        torn: 2,
        seed,
    };
    Effort {
        plan,
        again,
        nested: 150,
    }
}

/// Tries a scenario for some seeds, and says how much that was.
fn try_all(name: &str, seeds: u64, make: impl Fn(u64) -> Scenario) {
    try_some(name, seeds, make, effort);
}

/// As [`try_all`], with as much effort as said.
fn try_some(
    name: &str,
    seeds: u64,
    make: impl Fn(u64) -> Scenario,
    effort: impl Fn(u64) -> Effort,
) {
    let mut tally = Tally::default();
    let count = common::soak(seeds);
    let start = Instant::now();
    for seed in 1..=count {
        tally += crash(&make(seed), effort(seed));
    }
    say(name, &tally, Some(start.elapsed()));
    assert!(tally.states > 0);
}

/// Says how much was tried.
fn say(name: &str, tally: &Tally, took: Option<Duration>) {
    let text = format!(
        "crash, {name}: {} states before {} flushes, {} within recovery, {} committed in full, {} \
         acknowledgements, {:.1} s",
        tally.states,
        tally.flushes,
        tally.nested,
        tally.committed,
        tally.said,
        took.unwrap_or_default().as_secs_f64(),
    );
    // Not by a macro that the test runner captures: this is to be seen.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn records() {
    try_all("records", 5, |seed| {
        let version = [7, 4, 6, 3][seed as usize % 4];
        scenarios::records(version, &[104 * MIB], seed, 12)
    });
}

#[test]
fn records_on_several_volumes() {
    try_all("records on several volumes", 2, |seed| {
        scenarios::records(7, &[72 * MIB, 48 * MIB, 40 * MIB], seed, 12)
    });
}

/// Sectors of 4096 bytes, and drives that tear in the middle of them.
#[test]
fn large_sectors() {
    try_all("large sectors", 2, |seed| {
        let mut scenario = scenarios::records(7, &[104 * MIB], seed, 10);
        let disks = scenario.start.drain(..);
        scenario.start = disks.map(|disk| disk.sector(4096)).collect();
        scenario
    });
}

#[test]
fn file_operations() {
    try_all("file operations", 4, |seed| {
        let version = [7, 5, 6, 4][seed as usize % 4];
        scenarios::file_operations(version, &[104 * MIB], seed, 14)
    });
}

#[test]
fn file_operations_on_several_volumes() {
    try_all("file operations on several volumes", 1, |seed| {
        scenarios::file_operations(7, &[72 * MIB, 48 * MIB], seed, 14)
    });
}

/// After one crash, the next: what the first one left ahead in the log must not come back.
#[test]
fn one_crash_after_another() {
    try_all("one crash after another", 3, |seed| {
        let first = scenarios::file_operations(7, &[104 * MIB], seed, 4);
        let mut disks = Vec::new();
        let recorded = trial::record(&first);
        let mut random = Random(seed);
        recorded.timeline.epochs(|epoch| {
            let all = epoch.survivors(effort(seed).plan);
            // Any of the states, later ones rather.
            if disks.is_empty() || random.below(3) == 0 {
                disks = epoch.image(&all[random.below(all.len() as u64) as usize]);
            }
        });
        let mut second = scenarios::records(7, &[104 * MIB], seed + 100, 6);
        second.start = disks;
        second
    });
}

/// A crash loses the block of the log that a transaction began with, and keeps those behind it in
/// the next buffer. What the next session logs may end right before them, with the number before
/// theirs: they must not pass for a part of it (durability.md §9.4).
#[test]
fn records_that_a_crash_left_ahead_never_follow() {
    let mut tried = 0;
    for seed in 1..=common::soak(6) {
        let disks = scenario::base(7, &[104 * MIB], seed);
        let mut random = Random(seed);
        let mut ops = RawOps::default();
        let open = |disks: &[SimDisk]| {
            let set = scenario::volumes(disks, seed).expect("a volume");
            Store::open(set, &scenario::options()).expect("a store")
        };
        let small = |store: &mut Store, ops: &mut RawOps, random: &mut Random, files: u64| {
            let mut txn = store.begin(scenario::NOW).expect("a transaction");
            for _ in 0..files {
                ops.file(&mut txn, random, 0, 0).expect("a file");
            }
            txn.commit().expect("a commit");
        };
        let mut store = open(&disks);
        for _ in 0..80 {
            small(&mut store, &mut ops, &mut random, 1);
        }
        // Until one block of the buffer is left.
        let place = |store: &mut Store| store.view().header().blockmap[3].next_offset.get() % 16384;
        while place(&mut store) != 12288 {
            small(&mut store, &mut ops, &mut random, 1);
        }
        drop(store);
        let recorder = Recorder::new(&disks);
        let keys: Vec<Key> = ops.files.iter().flat_map(|f| f.keys.clone()).collect();
        let mut store = open(&disks);
        let mut txn = store.begin(scenario::NOW).expect("a transaction");
        for file in 0..60 {
            ops.delete(&mut txn, file % 20).expect("deleted");
        }
        txn.commit().expect("a commit");
        drop(store);
        recorder.finish().epochs(|epoch| {
            for write in 0..epoch.pending.len() {
                let Some(survivors) = epoch.beheaded(write, 8) else {
                    continue;
                };
                for count in 0..60 {
                    let disks = epoch.image(&survivors);
                    let mut store = open(&disks);
                    let mut txn = store.begin(scenario::NOW).expect("a transaction");
                    for key in keys.iter().step_by(2).take(count) {
                        let (tid, editor) = (txn.tid(), &mut Editor::new());
                        put::mark_deleted(editor, &mut txn, *key, tid, 1).expect("deleted");
                    }
                    txn.commit().expect("a commit");
                    let expected = digest(store.view()).expect("a state");
                    drop(store);
                    let found = trial::committed(&disks);
                    assert_eq!(found, Ok(expected), "seed {seed}, {survivors}, {count}");
                    tried += 1;
                }
            }
        });
    }
    assert!(tried > 0);
}

#[test]
fn mirrors() {
    try_all("mirrors", 3, |seed| {
        let how = Mirroring {
            steps: 3,
            split: [None, Some(64 << 10)][seed as usize % 2],
            dirty_bytes: 24 << 20,
            interrupt: false,
            take_back: false,
        };
        scenarios::mirror([7, 6, 4][seed as usize % 3], seed, how)
    });
}

/// The rule that acknowledgements are held to notices what it is about.
#[test]
fn what_is_said_too_early_is_noticed() {
    let (write, flush) = (|disk| (disk, false), |disk| (disk, true));
    let order = [write(0), write(1), flush(0), flush(1), write(0), flush(0)];
    let said = |at, under_way| {
        let tid = Tid(16);
        said_when_stable(&order, &[Said { at, under_way, tid }]).is_ok()
    };
    let stable: Vec<usize> = (0..=order.len()).filter(|at| said(*at, 0)).collect();
    assert_eq!(stable, [0, 4, 6]);
    assert!(!said(4, 1));
}

/// Passes of several checkpoints, which end early and go on, or are taken back.
#[test]
fn interrupted_mirrors() {
    try_all("interrupted mirrors", 4, |seed| {
        let how = Mirroring {
            steps: 2,
            split: [None, Some(64 << 10)][seed as usize % 2],
            dirty_bytes: 128 << 10,
            interrupt: true,
            take_back: seed.is_multiple_of(3),
        };
        scenarios::mirror(7, seed, how)
    });
}

/// Copies in one process, interrupted and continued at the record.
#[test]
fn copies() {
    try_all("copies", 4, |seed| {
        // A checkpoint before every record.
        let each = seed == 4;
        let how = Mirroring {
            steps: if each { 1 } else { 2 },
            split: [None, Some(64 << 10)][seed as usize % 2],
            dirty_bytes: if each { 0 } else { 128 << 10 },
            interrupt: seed > 1,
            take_back: false,
        };
        scenarios::copies([7, 7, 6][seed as usize % 3], seed, how)
    });
}

#[test]
fn out_of_space() {
    // Full volumes take long to compare.
    let less = |seed| {
        let mut less = effort(seed);
        (less.plan.torn, less.plan.subsets) = (4, 2);
        less
    };
    let make = |seed| scenarios::out_of_space(7, seed);
    try_some("out of space", 1, make, less);
}

/// Volumes that the kernel left crashed, opened for writing and crashed again meanwhile.
#[test]
fn redo() {
    let Some(golden) = golden::dir() else { return };
    let names = golden::names(&golden, "crash", ".img");
    let names: Vec<String> = names.into_iter().step_by(3).collect();
    let less = |seed| {
        let mut less = effort(seed);
        less.plan.torn = 12;
        less
    };
    let make = |seed| {
        let name = &names[seed as usize % names.len()];
        scenarios::redo(&golden::file(&golden, name), seed)
    };
    try_some("redo", names.len() as u64, make, less);
}

/// A file system in the making is none, or all there.
#[test]
fn newfs() {
    let mut tally = Tally::default();
    for seed in 1..=common::soak(3) {
        let sizes = [&[72 * MIB][..], &[72 * MIB, 40 * MIB]][seed as usize % 2];
        // On what was a file system before.
        let old = scenario::base(7, sizes, seed);
        let recorder = Recorder::new(&old);
        let mut devices: Vec<Box<dyn Device>> = Vec::new();
        for disk in &old {
            devices.push(Box::new(disk.device(seed)));
        }
        let what = NewFs {
            label: b"new".to_vec(),
            version: [4, 7, 6][seed as usize % 3],
            undo_bytes: Some(8 * MIB),
            fsid: [seed as u8; 16],
            now: scenario::NOW,
        };
        fs::newfs::newfs(&mut devices, &what).expect("a file system");
        drop(devices);
        let fresh = trial::committed(&old).expect("a file system");
        let timeline = recorder.finish();
        let (mut whole, mut looked_at) = (0, 0);
        timeline.epochs(|epoch| {
            tally.flushes += 1;
            for survivors in epoch.survivors(effort(seed).plan) {
                tally.states += 1;
                let disks = epoch.image(&survivors);
                let context = format!("seed {seed}, before {}, {survivors}", epoch.cut);
                // Before its first flush the old one may still be there.
                let set = scenario::readers(&disks);
                let Ok(mut view) = set.and_then(|set| View::open(set, &ViewOptions::default()))
                else {
                    continue;
                };
                if view.header().fsid != what.fsid {
                    continue;
                }
                let found = trial::committed(&disks).expect(&context);
                assert_eq!(found, fresh, "{context}");
                whole += 1;
                if looked_at < 3 {
                    looked_at += 1;
                    trial::checked(&mut view).expect(&context);
                }
            }
        });
        assert!(whole > 0, "seed {seed}: it never was there");
    }
    say("newfs", &tally, None);
}
