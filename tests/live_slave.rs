//! A slave beside the kernel: a volume that DragonFly's kernel changed, its writes replayed while
//! the copy engine follows with a live view (golden `live/`). A pass is discarded, has nothing to do,
//! or leaves the slave as its master was as of the TID that was acknowledged.

mod common;

use common::crash::state::{Digest, pfs_digest};
use common::crash::timeline::Random;
use common::golden;
use common::live::{Event, Log, digest, truth, view};
use common::slave::{self, NOW, SLAVE};
use common::streams::Still;
use mallet::error::{Class, Error, Result};
use mallet::format::Tid;
use mallet::fs::pfs;
use mallet::io::sim::{SimDisk, Step};
use mallet::mirror::copy::{Edge, Group, Origin, Place, Request, copy};
use mallet::mirror::ready::Identity;
use mallet::mirror::{SourcePfs, Terms};
use mallet::store::{Store, View};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The master's number.
const MASTER: u16 = 1;

/// The kernel's work, and what it led to.
struct Kernel {
    start: PathBuf,
    log: Arc<Log>,
    /// The volume at the end.
    last: SimDisk,
    /// PFS 1 as of TIDs, as the volume has it at the end.
    known: Mutex<HashMap<Tid, Digest>>,
}

impl Kernel {
    fn load(dir: &Path) -> Kernel {
        let start = golden::file(dir, "live/start.img");
        let log = Arc::new(Log::read(golden::bytes(dir, "live/writes.log")));
        let last = disk(&start);
        (0..log.events.len()).for_each(|index| log.replay(index, &last));
        last.forget_log();
        Kernel {
            start,
            log,
            last,
            known: Mutex::default(),
        }
    }

    /// What the master is as of `tid`.
    fn as_of(&self, tid: Tid) -> Digest {
        let known = &mut *self.known.lock().expect("no panic before");
        *known.entry(tid).or_insert_with(|| {
            let mut quiet = view(&self.last, 0, false).expect("a quiet view");
            pfs_digest(&mut quiet, MASTER, tid).expect("a readable state")
        })
    }
}

fn disk(start: &Path) -> SimDisk {
    SimDisk::over(File::open(start).expect("the start image")).expect("a disk")
}

/// What became of passes.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    taken: usize,
    idle: usize,
    discarded: usize,
    /// Those of the taken ones that continued a discarded one.
    continued: usize,
    /// During which the kernel went on.
    moved: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.taken += other.taken;
        self.idle += other.idle;
        self.discarded += other.discarded;
        self.continued += other.continued;
        self.moved += other.moved;
    }
}

/// A slave that is kept from pass to pass.
struct Follower {
    disk: SimDisk,
    stores: Vec<Store>,
    tally: Tally,
    /// What it acknowledged last.
    synced: Tid,
}

impl Follower {
    fn new(kernel: &Kernel) -> Follower {
        let mut view = view(&disk(&kernel.start), 0, false).expect("a quiet view");
        let master = pfs::load(&mut view, MASTER).expect("a table");
        let disk = slave::fresh(7, master.expect("the master").data.shared_uuid);
        let stores = vec![slave::store(&disk)];
        Follower {
            disk,
            stores,
            tally: Tally::default(),
            synced: Tid(1),
        }
    }

    /// One pass from `master`, as a stream makes it. Afterwards the slave is what the master was.
    fn pass(&mut self, kernel: &Kernel, master: &SimDisk, seed: u64) -> Result<()> {
        let passed = view(master, seed, true).and_then(|mut view| self.copy(&mut view));
        match passed {
            Ok(None) => self.tally.idle += 1,
            Ok(Some(tid)) => {
                self.tally.taken += 1;
                self.check(kernel, tid)?;
            }
            Err(error) if error.class() == Class::Expired => self.tally.discarded += 1,
            Err(error) => return Err(error),
        }
        self.disk.forget_log();
        Ok(())
    }

    /// The TID that was acknowledged, if there was anything to do.
    fn copy(&mut self, view: &mut View) -> Result<Option<Tid>> {
        let Some(master) = pfs::load(view, MASTER)? else {
            return Err(Error::new(Class::Other, "the master is gone"));
        };
        let mut source = SourcePfs::from(&master);
        source.beside_a_writer(view, self.synced.next(), &mut ())?;
        let request = Request {
            source,
            identity: Identity::of(&master),
            split: None,
            terms: Terms::default(),
            bandwidth: None,
            group: Group {
                records: 40,
                ..Group::default()
            },
            bytes_total: None,
        };
        let place = Place {
            store: 0,
            pfs: SLAVE,
        };
        let mut edge = Edge {
            now: &mut || NOW,
            clock: &mut Still,
            progress: &mut (),
            events: &mut |_| {},
        };
        let mut origin = Origin::Apart(view);
        let mut report = copy(&mut origin, &mut self.stores, &[place], &request, &mut edge)?;
        let target = report.targets.remove(0);
        if let Some(error) = target.error.or(report.stopped) {
            return Err(error);
        }
        assert!(target.damage.is_empty() && !target.withheld);
        self.tally.continued += usize::from(target.resumed);
        let acknowledged = (target.passes > 0).then_some(target.tids.1);
        if let Some(tid) = acknowledged {
            assert!(tid > self.synced, "{tid} after {}", self.synced);
            self.synced = tid;
        }
        Ok(acknowledged)
    }

    fn check(&self, kernel: &Kernel, tid: Tid) -> Result<()> {
        let mut view = slave::view(&self.disk);
        let slave = pfs::load(&mut view, SLAVE)?.expect("the slave");
        assert_eq!(slave.data.sync_end_tid(), tid);
        match pfs_digest(&mut view, SLAVE, tid)? == kernel.as_of(tid) {
            true => Ok(()),
            false => {
                let text = format!("the slave as of {tid} is not its master");
                Err(Error::new(Class::Other, text))
            }
        }
    }
}

/// Says how much was tried.
fn say(name: &str, tally: Tally, start: Instant) {
    let took = start.elapsed().as_secs_f64();
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(
        std::io::stderr(),
        "live slave, {name}: {tally:?}, {took:.1} s"
    );
}

/// Every how many moments there is a pass; all of them in a soak.
fn stride() -> u64 {
    match common::soak(1) {
        1 => 9,
        _ => 1,
    }
}

/// What slaves are compared with is what the kernel showed after each of its syncs.
#[test]
fn the_truth() {
    let Some(dir) = golden::dir() else { return };
    let kernel = Kernel::load(&dir);
    let mut quiet = view(&kernel.last, 0, false).expect("a quiet view");
    let marks = truth(&kernel.start, &kernel.log);
    assert_eq!(marks.len(), 60);
    for (_, tid, hash) in marks {
        let (later, _) = digest(&mut quiet, tid).expect("a readable state");
        assert_eq!(later, hash, "as of {tid}");
    }
}

/// A pass after every write.
#[test]
fn a_pass_after_every_write() {
    let Some(dir) = golden::dir() else { return };
    let (kernel, start) = (Kernel::load(&dir), Instant::now());
    let master = disk(&kernel.start);
    let mut follower = Follower::new(&kernel);
    let mut passes = 0;
    for (index, event) in kernel.log.events.iter().enumerate() {
        kernel.log.replay(index, &master);
        let is_write = matches!(event, Event::Write { .. });
        if !is_write || !(index as u64).is_multiple_of(stride()) {
            continue;
        }
        master.forget_log();
        let passed = follower.pass(&kernel, &master, 1);
        passed.unwrap_or_else(|error| panic!("after event {index}: {error}"));
        passes += 1;
    }
    let tally = follower.tally;
    say("a pass after every write", tally, start);
    assert_eq!(tally.taken + tally.idle + tally.discarded, passes);
    // Nothing moves during a pass.
    assert!(tally.taken > 20 && tally.discarded == 0, "{tally:?}");
    slave::assert_sound(&follower.disk);
}

/// The kernel goes on between the reads of a pass, at a pace that a seed decides.
fn beside(kernel: &Kernel, seed: u64) -> Result<Tally> {
    let mut random = Random(seed);
    let master = disk(&kernel.start);
    let mut follower = Follower::new(kernel);
    let position = Arc::new(Mutex::new(0));
    let all = kernel.log.events.len();
    while *position.lock().expect("one thread") < all {
        // From a write in many reads to many writes a read.
        let burst = [2, 8, 60, 400][seed as usize % 4];
        let (pause, burst) = (1 + random.below(30), 1 + random.below(burst));
        let before = *position.lock().expect("one thread");
        let (log, at) = (Arc::clone(&kernel.log), Arc::clone(&position));
        let mut pace = random.clone();
        master.set_hook(move |step, disk| {
            if step == Step::Flush || pace.below(pause) != 0 {
                return;
            }
            let mut at = at.lock().expect("one thread");
            for _ in 0..=pace.below(burst) {
                if *at < log.events.len() {
                    log.replay(*at, disk);
                    *at += 1;
                }
            }
        });
        let passed = follower.pass(kernel, &master, seed);
        master.clear_hook();
        let mut at = position.lock().expect("one thread");
        let text = format_args!("seed {seed}, from event {before} to {at}");
        passed.map_err(|error| error.context(text))?;
        follower.tally.moved += usize::from(*at > before);
        for _ in 0..=random.below(20) {
            if *at < all {
                kernel.log.replay(*at, &master);
                *at += 1;
            }
        }
        random.next();
        master.forget_log();
    }
    Ok(follower.tally)
}

#[test]
fn passes_beside_the_kernel() {
    let Some(dir) = golden::dir() else { return };
    let (kernel, start) = (Kernel::load(&dir), Instant::now());
    let mut tally = Tally::default();
    for seed in 0..common::soak(8) {
        tally += beside(&kernel, seed).unwrap_or_else(|error| panic!("{error}"));
    }
    say("the kernel goes on during passes", tally, start);
    assert!(
        tally.taken > 20 && tally.moved > tally.idle / 2,
        "{tally:?}"
    );
}

/// The events in an order in which a device may have done them: any between two flushes, except
/// where two write to the same place.
fn any_order(log: &Log, random: &mut Random) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    let mut group: Vec<usize> = Vec::new();
    let overlap = |a: usize, b: usize| match (&log.events[a], &log.events[b]) {
        (Event::Write { at: a, len: l, .. }, Event::Write { at: b, len: m, .. }) => {
            a < &(b + *m as u64) && b < &(a + *l as u64)
        }
        _ => false,
    };
    for (index, event) in log.events.iter().enumerate() {
        match event {
            Event::Write { .. } => group.push(index),
            _ => {
                while !group.is_empty() {
                    let free = |at: &usize| !group[..*at].iter().any(|b| overlap(*b, group[*at]));
                    let free: Vec<usize> = (0..group.len()).filter(free).collect();
                    order.push(group.remove(free[random.below(free.len() as u64) as usize]));
                }
                order.push(index);
            }
        }
    }
    order.extend(group);
    order
}

/// Between two flushes the writes come in another order than the kernel's: after each there is some
/// subset of them.
fn reordered(kernel: &Kernel, seed: u64, stride: u64) -> Result<Tally> {
    let mut random = Random(seed);
    let order = any_order(&kernel.log, &mut random);
    let master = disk(&kernel.start);
    let mut follower = Follower::new(kernel);
    for (count, index) in order.into_iter().enumerate() {
        kernel.log.replay(index, &master);
        let is_write = matches!(kernel.log.events[index], Event::Write { .. });
        if !is_write || random.below(stride) != 0 {
            continue;
        }
        master.forget_log();
        let passed = follower.pass(kernel, &master, seed);
        let text = format_args!("seed {seed}, after {} events", count + 1);
        passed.map_err(|error| error.context(text))?;
    }
    Ok(follower.tally)
}

#[test]
fn passes_in_any_order_of_writes() {
    let Some(dir) = golden::dir() else { return };
    let (kernel, start) = (Kernel::load(&dir), Instant::now());
    let mut tally = Tally::default();
    let (seeds, stride) = match common::soak(1) {
        1 => (4, 12),
        times => ((2 * times).max(100), 4),
    };
    for seed in 0..seeds {
        tally += reordered(&kernel, seed, stride).unwrap_or_else(|error| panic!("{error}"));
    }
    say("writes in any order", tally, start);
    assert!(tally.taken > 20 && tally.discarded == 0, "{tally:?}");
}
