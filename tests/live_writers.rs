//! Views beside our own writers: one after another opens the volume, commits and closes it while a
//! view reads, and some crash. A view shows the state it was taken of, or says that it has expired;
//! writers that only come and go never end it.

mod common;

use common::crash::raw_ops::RawOps;
use common::crash::scenario::{NOW, base, options, volumes};
use common::crash::state::{Digest, digest, short};
use common::crash::timeline::{Random, settled};
use common::golden;
use common::live::{Log, view};
use mallet::format::{NODE_SIZE, Offset};
use mallet::io::sim::{Event, SimDisk, Step};
use mallet::store::{Fetch, Store};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

const MIB: u64 = 1 << 20;
/// How far the numbers of the log jump where a writer begins.
const EPOCH: u32 = 1 << 26;

/// Writers beside one view, so that the log does not come around to its start.
const MOST: u32 = 8;

/// How a writer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It closes the volume.
    Closed,
    /// It is killed: what it sent to the device stays.
    Killed,
    /// The power goes: of what nobody has flushed some sectors are what they were.
    Cut,
}

/// Writers on a volume, one after another, whose operations reach the disk one at a time.
struct Writers {
    disk: SimDisk,
    ops: RawOps,
    random: Random,
    ends: Vec<End>,
    /// How the one at work ends, and what it still does until then.
    end: End,
    to_do: VecDeque<Event>,
    /// Since the last flush: what it wrote, and what was there.
    unflushed: Vec<(u64, Arc<[u8]>, Vec<u8>)>,
    /// Writers that came to their end.
    ended: u32,
    crashed: u32,
}

impl Writers {
    /// Writers on `disk` who end in one of these ways each.
    fn new(disk: &SimDisk, seed: u64, ends: &[End]) -> Writers {
        Writers {
            disk: disk.clone(),
            ops: RawOps::default(),
            random: Random(seed),
            ends: ends.to_vec(),
            end: End::Closed,
            to_do: VecDeque::new(),
            unflushed: Vec::new(),
            ended: 0,
            crashed: 0,
        }
    }

    /// Has the next writer work on a copy, to know what it does.
    fn next(&mut self) {
        let disk = self.disk.snapshot();
        let set = volumes(std::slice::from_ref(&disk), self.random.next() | 1);
        let mut store = Store::open(set.expect("a volume"), &options()).expect("a store");
        for _ in 0..self.random.below(4) {
            self.transaction(&mut store);
        }
        drop(store);
        self.to_do = disk.log().into();
        self.end = self.ends[self.random.below(self.ends.len() as u64) as usize];
        if self.end != End::Closed {
            // Nobody knows which of them are there.
            self.ops.files.clear();
            let all = self.to_do.len() as u64;
            self.to_do.truncate(self.random.below(all + 1) as usize);
        }
    }

    fn transaction(&mut self, store: &mut Store) {
        let (ops, random) = (&mut self.ops, &mut self.random);
        let mut txn = store.begin(NOW).expect("a transaction");
        for _ in 0..=random.below(4) {
            match random.below(4) {
                0 if !ops.files.is_empty() => {
                    let index = random.below(ops.files.len() as u64) as usize;
                    // What a transaction made and deleted never was.
                    if ops.files[index].keys[0].create_tid != txn.tid() {
                        ops.delete(&mut txn, index).expect("deleted");
                    }
                }
                1 => (0..12).for_each(|_| ops.file(&mut txn, random, 0, 0).expect("a file")),
                _ => {
                    let (blocks, tail) = (random.below(3), 1 + random.below(6000));
                    ops.file(&mut txn, random, blocks, tail).expect("a file");
                }
            }
        }
        txn.commit().expect("a commit");
    }

    /// One more operation on the disk.
    fn step(&mut self) {
        match self.to_do.pop_front() {
            Some(Event::Write { at, bytes }) => {
                let old = self.disk.read(at, bytes.len()).expect("within");
                self.disk.write(at, &bytes).expect("within");
                self.unflushed.push((at, bytes, old));
            }
            Some(Event::Flush) => self.flushed(),
            None => {
                self.ended += 1;
                self.crashed += u32::from(self.end != End::Closed);
                if self.end == End::Cut {
                    self.power_cut();
                }
                self.unflushed.clear();
                self.next();
            }
        }
    }

    /// Somebody has flushed the disk.
    fn flushed(&mut self) {
        self.unflushed.clear();
    }

    fn power_cut(&mut self) {
        for (at, _, old) in self.unflushed.iter().rev() {
            self.disk.write(*at, old).expect("within");
        }
        let eighths = [1, 4, 7][self.random.below(3) as usize];
        for (at, bytes, _) in &self.unflushed {
            for (n, sector) in bytes.chunks(512).enumerate() {
                if self.random.below(8) < eighths {
                    let at = at + 512 * n as u64;
                    self.disk.write(at, sector).expect("within");
                }
            }
        }
    }

    /// Lets so many writers come and go.
    fn run(&mut self, count: u32) {
        let until = self.ended + count;
        while self.ended < until {
            self.step();
        }
    }
}

/// What a quiet view of the disk shows now.
fn shown(disk: &SimDisk) -> Digest {
    let mut quiet = view(&disk.snapshot(), 0, false).expect("a quiet view");
    digest(&mut quiet).expect("a readable state")
}

/// What became of a view.
#[derive(Debug)]
struct Outcome {
    /// Why it ended, if it did.
    expired: Option<String>,
    /// Writers that came to their end while it was read, and those of them that crashed.
    ended: u32,
    crashed: u32,
    /// How often the numbers jumped within it.
    jumps: u32,
}

/// Takes a view of `start` after some writers, and reads all of it again and again while others come
/// and go at a pace that the seed decides.
fn one_view(start: &SimDisk, seed: u64, ends: &[End]) -> Outcome {
    let disk = start.snapshot();
    let mut random = Random(seed);
    let mut writers = Writers::new(&disk, seed + 1, ends);
    writers.run(random.below(4) as u32);
    (0..random.below(40)).for_each(|_| writers.step());
    let expected = shown(&disk);
    let mut live = view(&disk, seed, true).expect("a live view");
    // It has flushed the disk.
    writers.flushed();
    let (seq, ended, crashed) = (live.next_seq(), writers.ended, writers.crashed);
    let writers = Arc::new(Mutex::new(writers));
    // From a write in many reads to many writes a read.
    let (pause, burst) = (
        1 + random.below(12),
        1 + random.below([1, 8, 90][seed as usize % 3]),
    );
    let (at_work, mut pace) = (Arc::clone(&writers), random.clone());
    disk.set_hook(move |step, _| {
        let mut writers = at_work.lock().expect("one thread");
        if step == Step::Flush {
            return writers.flushed();
        }
        if pace.below(pause) == 0 && writers.ended < ended + MOST {
            (0..=pace.below(burst)).for_each(|_| writers.step());
        }
    });
    let mut expired = None;
    for _ in 0..200 {
        match digest(&mut live) {
            Ok(found) => assert!(
                found == expected,
                "seed {seed}: it showed {}, and shows {}",
                short(&expected),
                short(&found)
            ),
            Err(text) if text.contains("expired") => {
                expired = Some(text);
                break;
            }
            Err(text) => panic!("seed {seed}: {text}"),
        }
        if writers.lock().expect("one thread").ended >= ended + MOST {
            break;
        }
    }
    disk.clear_hook();
    let writers = writers.lock().expect("one thread");
    Outcome {
        expired,
        ended: writers.ended - ended,
        crashed: writers.crashed - crashed,
        jumps: live.next_seq().wrapping_sub(seq) / EPOCH,
    }
}

/// A volume with a tree of some nodes whose log ends `before_end` bytes before its ring does.
fn prepared(before_end: u64) -> SimDisk {
    let disk = base(7, &[104 * MIB], 3).remove(0);
    let mut writers = Writers::new(&disk, 5, &[End::Closed]);
    let set = volumes(std::slice::from_ref(&disk), 0).expect("a volume");
    let mut store = Store::open(set, &options()).expect("a store");
    let ring = store.view().header().undo_bytes();
    loop {
        writers.transaction(&mut store);
        let next = store.view().header().blockmap[3].next_offset.get() % ring;
        if writers.ops.files.len() > 150 && next + before_end >= ring {
            break;
        }
    }
    drop(store);
    settled(&disk)
}

#[derive(Debug, Default)]
struct Tally {
    views: u32,
    expired: u32,
    ended: u32,
    crashed: u32,
    jumps: u32,
}

/// Views of `start` for some seeds; says how it went.
fn views(name: &str, start: &SimDisk, seeds: u64, ends: &[End]) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..common::soak(seeds) {
        let one = one_view(start, seed, ends);
        tally.views += 1;
        tally.expired += u32::from(one.expired.is_some());
        tally.ended += one.ended;
        tally.crashed += one.crashed;
        tally.jumps += one.jumps;
        let may_end = ends.contains(&End::Cut);
        assert!(
            may_end || one.expired.is_none(),
            "{name}, seed {seed}: {one:?}"
        );
    }
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(std::io::stderr(), "live views, {name}: {tally:?}");
    tally
}

#[test]
fn writers_that_come_and_go_end_no_view() {
    let start = prepared(7 * MIB);
    let tally = views("writers that come and go", &start, 40, &[End::Closed]);
    assert!(tally.jumps > tally.views * 3, "{tally:?}");
}

/// The log comes to the end of its ring and goes on at the start.
#[test]
fn nor_where_the_ring_ends() {
    let start = prepared(300 << 10);
    let tally = views("at the end of the ring", &start, 20, &[End::Closed]);
    assert!(tally.jumps > tally.views * 3, "{tally:?}");
}

/// The kernel's log ends in the middle of a sector.
#[test]
fn nor_behind_the_kernel() {
    let Some(dir) = golden::dir() else { return };
    let file = File::open(golden::file(&dir, "live/start.img")).expect("the start image");
    let start = SimDisk::over(file).expect("a disk");
    let tally = views("behind the kernel", &start, 10, &[End::Closed]);
    assert!(tally.jumps > tally.views * 2, "{tally:?}");
}

/// What a killed writer left is taken back: the view knows it all.
#[test]
fn nor_do_writers_that_are_killed() {
    let start = prepared(7 * MIB);
    let ends = [End::Closed, End::Killed, End::Killed];
    let tally = views("killed writers", &start, 60, &ends);
    assert!(
        tally.jumps > tally.views * 3 && tally.crashed > tally.views,
        "{tally:?}"
    );
}

/// What was read may be gone after a power cut.
#[test]
fn a_power_cut_ends_views_or_changes_nothing() {
    let start = prepared(7 * MIB);
    let ends = [End::Closed, End::Cut, End::Killed, End::Cut];
    let tally = views("power cuts", &start, 60, &ends);
    // In this one a new log takes the place of some of what the view has read, and ends within it.
    let one = one_view(&start, 336, &ends);
    assert!(one.expired.is_some_and(|why| why.contains("taken back")));
    assert!(tally.crashed > tally.views, "{tally:?}");
    assert!(
        tally.expired > 0 && tally.expired < tally.views,
        "{tally:?}"
    );
}

/// A writer crashed behind the block with which it began, and before the header said so. DragonFly's
/// kernel, which does not know of such blocks, goes on where the log ended.
#[test]
fn the_block_alone_is_not_believed() {
    let Some(dir) = golden::dir() else { return };
    let file = File::open(golden::file(&dir, "live/start.img")).expect("the start image");
    let disk = SimDisk::over(file).expect("a disk");
    let log = Log::read(golden::bytes(&dir, "live/writes.log"));
    let expected = shown(&disk);
    let mut live = view(&disk, 0, true).expect("a live view");
    let root = Offset(live.header().btree_root.get());
    let seq = live.next_seq();
    let mut writers = Writers::new(&disk, 1, &[End::Killed]);
    while writers.to_do.is_empty() {
        writers.next();
    }
    // Up to its first flush: the block alone.
    while writers.to_do.front() != Some(&Event::Flush) {
        writers.step();
    }
    live.forget(root, NODE_SIZE);
    assert_eq!(digest(&mut live), Ok(expected));
    let mut ended = None;
    for index in 0..log.events.len() {
        log.replay(index, &disk);
        // What was read before needs no proof.
        live.forget(root, NODE_SIZE);
        match digest(&mut live) {
            Ok(found) => assert!(found == expected, "event {index}"),
            Err(text) => {
                assert!(text.contains("expired"), "{text}");
                ended = Some((index, text));
                break;
            }
        }
        assert!(live.next_seq().wrapping_sub(seq) < EPOCH);
    }
    assert_ne!(live.next_seq(), seq, "{ended:?}");
}
