//! The store that writes, alone: transactions that change one inode in place and take and give back
//! space, cut off by power cuts and faults at every point. What recovery brings back is a state that
//! was committed, the acknowledged one at least, down to the last byte of accounted space.

mod common;

use common::build::files::{Content, Files, Object};
use common::build::{self};
use mallet::btree::lookup;
use mallet::check;
use mallet::error::Class;
use mallet::format::record::{InodeData, rt};
use mallet::format::{Key, Localization, Offset, ROOT_OBJ, Tid, Zone};
use mallet::io::Device;
use mallet::io::sim::{CrashPlan, Event, Fault, On, SimDisk};
use mallet::store::usage::usage;
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::collections::BTreeMap;
use std::fs::File;

/// Space that is in use: address, length, the byte that fills it.
type Live = BTreeMap<u64, (usize, u8)>;

/// A state that was, or was about to be, committed.
#[derive(Clone, Debug, PartialEq)]
struct State {
    number: u64,
    live: Live,
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn base(version: u32, size: u64) -> SimDisk {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("v.img");
    let options = build::Options::new(&path, version, size);
    let mut files = Files::new(&options);
    files.file(
        Object::root(0),
        b"file",
        &Content::Bytes(b"contents".to_vec()),
    );
    files.build(&options);
    SimDisk::over(File::open(&path).expect("an image")).expect("a disk")
}

fn set(disk: &SimDisk, seed: u64) -> VolumeSet {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.device(seed))];
    VolumeSet::open(devices).expect("a volume set")
}

fn root_inode<F: Fetch>(fetch: &mut F) -> (Offset, InodeData) {
    let key = Key::first_version(Localization::new(0, 1), ROOT_OBJ, rt::INODE, 0);
    let leaf = lookup(fetch, key, Tid::MAX)
        .expect("a tree")
        .expect("a root");
    let bytes = fetch.bytes(leaf.data_offset(), 128).expect("an inode");
    (
        leaf.data_offset(),
        InodeData::from_bytes(&bytes).expect("128 bytes"),
    )
}

/// Bytes in use by zone, beyond what `at first` was.
fn used(view: &mut View) -> [i64; 4] {
    let usage = usage(view).expect("a freemap");
    assert_eq!(usage.damaged, 0);
    [8, 9, 10, 11].map(|zone| usage.zone(Zone(zone)).bytes_used())
}

/// Whether what is on the medium is `state`: its number, all its bytes, and all its space.
fn shows(view: &mut View, state: &State, first: &[i64; 4]) -> bool {
    let (_, inode) = root_inode(view);
    if inode.mtime.get() != state.number {
        return false;
    }
    let mut expected = *first;
    for (at, (len, byte)) in &state.live {
        let at = Offset(*at);
        let bytes = view.bytes(at, *len).expect("live bytes");
        assert!(
            bytes.iter().all(|b| b == byte),
            "{at} in state {}",
            state.number
        );
        let size = match at.zone() {
            Zone::LARGE_DATA => len.next_multiple_of(16384),
            _ => len.next_multiple_of(16),
        };
        expected[usize::from(at.zone().0) - 8] += size as i64;
    }
    assert_eq!(used(view), expected, "space in state {}", state.number);
    true
}

/// One transaction: `steps` allocations or frees, and the number of the state.
fn transact(
    store: &mut Store,
    state: &State,
    random: &mut Random,
    steps: u64,
) -> mallet::Result<State> {
    let mut next = state.clone();
    next.number += 1;
    let mut txn = store.begin(next.number)?;
    for _ in 0..steps {
        if random.below(3) == 0 && !next.live.is_empty() {
            let pick = random.below(next.live.len() as u64) as usize;
            let at = *next.live.keys().nth(pick).expect("one of them");
            let (len, _) = next.live.remove(&at).expect("it is there");
            let whole = match Offset(at).zone() {
                Zone::LARGE_DATA => len.next_multiple_of(16384),
                _ => len,
            };
            txn.free(Offset(at), whole)?;
            continue;
        }
        let zone = Zone(9 + random.below(3) as u8);
        let len = match zone {
            Zone::LARGE_DATA => 16384 << (2 * random.below(2)),
            _ => 1 + random.below(3000) as usize,
        };
        let byte = random.below(255) as u8 + 1;
        let at = txn.allocate(zone, len)?;
        txn.fill(at, &vec![byte; len])?;
        next.live.insert(at.0, (len, byte));
    }
    let (at, mut inode) = root_inode(&mut txn);
    inode.mtime.set(next.number);
    let bytes = zerocopy::IntoBytes::as_bytes(&inode).to_vec();
    txn.modify(at, bytes.len())?.copy_from_slice(&bytes);
    let tid = txn.tid();
    let durable = txn.commit()?;
    assert_eq!(durable.tid(), tid);
    Ok(next)
}

fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        readahead_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

fn view(disk: &SimDisk) -> View {
    let devices: Vec<Box<dyn Device>> = vec![Box::new(disk.reader(0))];
    let set = VolumeSet::open(devices).expect("a volume set");
    let options = ViewOptions {
        cache_bytes: 1 << 20,
        ..ViewOptions::default()
    };
    View::open(set, &options).expect("a view")
}

fn start(disk: &SimDisk) -> (State, [i64; 4]) {
    let mut view = view(disk);
    let number = root_inode(&mut view).1.mtime.get();
    let live = Live::new();
    (State { number, live }, used(&mut view))
}

#[test]
fn committed_states_survive_power_cuts() {
    let mut tried = 0;
    for seed in 1..=common::soak(6) {
        let version = [3, 4, 6, 7][seed as usize % 4];
        let disk = base(version, 104 << 20);
        let (mut state, first) = start(&disk);
        let mut random = Random(seed * 0x9E37_79B9);
        let mut store = Store::open(set(&disk, seed), &options()).expect("a store");
        disk.forget_log();
        // What was acknowledged after so many events.
        let mut acked = vec![(0, state.clone())];
        for _ in 0..5 {
            let steps = random.below(40);
            state = transact(&mut store, &state, &mut random, steps).expect("a transaction");
            acked.push((disk.now(), state.clone()));
        }
        drop(store);
        let plan = CrashPlan {
            seed,
            singles: 6,
            subsets: 3,
            torn: 3,
        };
        for image in disk.crash_images(plan) {
            let image = image.expect("an image");
            let at_least = acked
                .iter()
                .rposition(|(at, _)| *at <= image.cut)
                .expect("the first");
            let label = format!("seed {seed}, cut {}, {:?}", image.cut, image.survive);
            // As readers see it, and as a writer leaves it.
            let mut before = view(&image.disk);
            let seen = acked
                .iter()
                .position(|(_, s)| shows(&mut before, s, &first));
            assert!(
                seen.is_some_and(|n| n >= at_least),
                "{label}: {seen:?} < {at_least}"
            );
            drop(before);
            let store = Store::open(set(&image.disk, seed), &options()).expect(&label);
            drop(store);
            let mut after = view(&image.disk);
            assert!(after.undone().records == 0, "{label}");
            assert!(
                shows(&mut after, &acked[seen.expect("seen")].1, &first),
                "{label}"
            );
            // It goes on from there.
            let mut store = Store::open(set(&image.disk, seed), &options()).expect(&label);
            let now = acked[seen.expect("seen")].1.clone();
            let next = transact(&mut store, &now, &mut random, 5).expect(&label);
            drop(store);
            assert!(shows(&mut view(&image.disk), &next, &first), "{label}");
            tried += 1;
        }
    }
    println!("{tried} states");
    assert!(tried > 100);
}

/// The N-th write or flush fails: the transaction fails, nothing more is written, and the volume is
/// in a committed state.
#[test]
fn a_failed_write_is_the_last() {
    for seed in 1..=common::soak(2) {
        let disk = base(7, 104 << 20);
        let (origin, first) = start(&disk);
        for (on, fault) in [
            (On::Write, Fault::EIO),
            (On::Write, Fault::ENOSPC),
            (On::Write, Fault::Short(512)),
            (On::Flush, Fault::EIO),
        ] {
            for nth in 0.. {
                let disk = disk.snapshot();
                let mut random = Random(seed * 77 + 5);
                let mut store = Store::open(set(&disk, seed), &options()).expect("a store");
                disk.forget_log();
                disk.inject(on, nth, fault);
                let mut acked = origin.clone();
                let mut all = vec![acked.clone()];
                let mut failed = None;
                for _ in 0..3 {
                    // What the transaction would have become is known only if it succeeds.
                    match transact(&mut store, &acked, &mut random, 12) {
                        Ok(next) => {
                            all.push(next.clone());
                            acked = next;
                        }
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                let Some(error) = failed else { break };
                let class = match fault {
                    Fault::ENOSPC => Class::NoSpace,
                    _ => Class::Io,
                };
                assert_eq!(error.class(), class, "{on:?} {nth}: {error}");
                let events = disk.log().len();
                assert!(store.begin(1).is_err() && store.durable().is_err());
                drop(store);
                assert_eq!(
                    disk.log().len(),
                    events,
                    "{on:?} {nth}: written after a failure"
                );
                disk.heal();
                let mut store = Store::open(set(&disk, 0), &options()).expect("a store again");
                let number = root_inode(store.view()).1.mtime.get();
                assert!(
                    number >= acked.number,
                    "{on:?} {nth}: lost {}",
                    acked.number
                );
                drop(store);
                if number == acked.number {
                    assert!(shows(&mut view(&disk), &acked, &first), "{on:?} {nth}");
                }
            }
        }
    }
}

/// A dropped transaction leaves no trace, in memory or on the device.
#[test]
fn a_dropped_transaction_never_was() {
    let disk = base(7, 104 << 20);
    let (origin, first) = start(&disk);
    let mut random = Random(99);
    let mut store = Store::open(set(&disk, 3), &options()).expect("a store");
    let state = transact(&mut store, &origin, &mut random, 30).expect("a transaction");
    let mut txn = store.begin(5).expect("a transaction");
    for _ in 0..300 {
        let at = txn.allocate(Zone::LARGE_DATA, 65536).expect("space");
        txn.fill(at, &[9; 65536]).expect("data");
    }
    let (at, _) = root_inode(&mut txn);
    txn.modify(at, 128).expect("an inode").fill(0xEE);
    txn.count_inodes(5);
    drop(txn);
    assert!(shows(store.view(), &state, &first));
    let next = transact(&mut store, &state, &mut random, 30).expect("a transaction");
    assert!(shows(store.view(), &next, &first));
    drop(store);
    let mut view = view(&disk);
    assert!(shows(&mut view, &next, &first));
}

/// Out of space is an error of the one transaction. What was freed comes back, and not too soon.
#[test]
fn full_and_usable_again() {
    let disk = base(7, 104 << 20);
    let (origin, first) = start(&disk);
    let mut store = Store::open(set(&disk, 3), &options()).expect("a store");
    let mut live = Vec::new();
    let mut txn = store.begin(1_000_000).expect("a transaction");
    let error = loop {
        match txn.allocate(Zone::LARGE_DATA, 65536) {
            Ok(at) => live.push(at),
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), Class::NoSpace);
    drop(txn);
    assert!(shows(store.view(), &origin, &first));
    // The same again, committed; then given back.
    let mut txn = store.begin(2_000_000).expect("a transaction");
    let taken: Vec<Offset> = (0..live.len())
        .map(|_| txn.allocate(Zone::LARGE_DATA, 65536).expect("space"))
        .collect();
    for at in &taken {
        txn.fill(*at, &[1; 65536]).expect("data");
    }
    txn.commit().expect("a commit");
    let mut txn = store.begin(3_000_000).expect("a transaction");
    for at in &taken {
        txn.free(*at, 65536).expect("freed");
    }
    // Freed just now: a crash would bring it back.
    assert!(txn.allocate(Zone::LARGE_DATA, 65536).is_err());
    txn.commit().expect("a commit");
    // Metadata still finds space, and data does again now that the commit is beyond recall.
    let mut txn = store.begin(4_000_000).expect("a transaction");
    let at = txn
        .allocate(Zone::LARGE_DATA, 65536)
        .expect("space that was freed");
    txn.free(at, 65536).expect("freed");
    txn.commit().expect("a commit");
    drop(store);
    let mut after = view(&disk);
    assert_eq!(used(&mut after), first);
    let report = check::run(&mut after, &check::Options::default(), &mut |_| {}, &mut ());
    assert_eq!(report.expect("a check").errors(), 0);
}

/// No block that holds committed records of the log is written again, whatever the sector size.
#[test]
fn the_log_never_rewrites_a_block() {
    let disk = base(7, 104 << 20);
    let (mut state, _) = start(&disk);
    let mut random = Random(4);
    let mut store = Store::open(set(&disk, 3), &options()).expect("a store");
    let ring = store.view().ring().bytes();
    let undo = store.view().header().undo_array[0].get();
    let start = store.view().header().buf_beg.get() as u64 + Offset(undo).short();
    disk.forget_log();
    for _ in 0..40 {
        state = transact(&mut store, &state, &mut random, 3).expect("a transaction");
    }
    let mut end = 0;
    for event in disk.log() {
        let Event::Write { at, bytes } = event else {
            continue;
        };
        if (start..start + ring).contains(&at) {
            assert!(at.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
            assert!(at >= end, "{at} was written before {end}");
            // The tail of a buffer is formatted ahead: only its first block surely has records.
            end = at + 4096;
        }
    }
    assert!(end > 0);
}
