//! Passes beside a writer, many of them: the engine copies a master from a live view while the master
//! is changed at random between the reader's own reads, a write at a time and in the orders that a
//! device may choose between two flushes. The volume is small, so that big-blocks are freed and used
//! again, its log is written around, files without history vanish, history is pruned, the writer
//! crashes. Whatever a slave acknowledges must be the master as of that TID, and must stay so.

mod common;

use common::busy::{Busy, MASTER};
use common::crash::state::{Digest, pfs_digest, short};
use common::crash::timeline::Random;
use common::crash::trial::checked;
use common::tally::{Acks, Still, Tally, Told};
use common::{fresh, oracle};
use mallet::error::{Class, Error, Result};
use mallet::format::volume::VolumeHeader;
use mallet::format::{Tid, Zone};
use mallet::fs::pfs;
use mallet::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use mallet::fs::recover;
use mallet::io::Device;
use mallet::io::sim::{Event as Done, SimDisk, Survive};
use mallet::mirror::copy::{self, Edge, Group, Origin, Place, Request};
use mallet::mirror::ready::Identity;
use mallet::mirror::{SourcePfs, Terms};
use mallet::progress::{Progress, Status};
use mallet::store::{Fetch, Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Passes with one master.
const PASSES: u64 = 40;
/// Number of the slaves' PFS.
const SLAVE: u16 = 3;
/// Writes that a device holds back, and may do in another order, at most.
const HELD: usize = 8;

/// Ends a pass at a call.
struct After(u64);

impl Progress for After {
    fn at(&mut self, _: &Status) -> Result<()> {
        self.0 = match self.0 {
            0 => return Err(Error::new(Class::Interrupted, "enough")),
            left => left - 1,
        };
        Ok(())
    }
}

fn volumes(disk: &SimDisk, seed: u64) -> VolumeSet {
    let device: Box<dyn Device> = Box::new(disk.device(seed));
    VolumeSet::open(vec![device]).expect("a volume")
}

/// Opens a volume for writing, with little memory, so that many operations take several checkpoints.
fn open(disk: &SimDisk, seed: u64) -> Store {
    let options = recover::OpenOptions {
        store: StoreOptions {
            cache_bytes: 4 << 20,
            readahead_bytes: 4 << 20,
            dirty_bytes: 384 << 10,
            watch: None,
        },
        redo: true,
        now: fresh::START,
    };
    let opened = recover::open(volumes(disk, seed), &options);
    opened.expect("a volume that can be recovered").0
}

fn quiet(disk: &SimDisk) -> View {
    let set = VolumeSet::open(vec![Box::new(disk.reader(0))]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// What happens while a view is read, now and then.
#[derive(Clone, Copy, Debug)]
enum Unusual {
    /// The log is written around.
    Storm,
    /// Everything is removed and pruned, and something else made.
    Purge,
    /// The writer is killed.
    Crash,
}

/// The master: the disk that the writer works on, and the one that readers see, which lags behind it
/// by what the device has not done yet.
struct Master {
    written: SimDisk,
    seen: SimDisk,
    store: Option<Store>,
    busy: Busy,
    /// What the device is still to do.
    due: VecDeque<Done>,
    random: Random,
    /// One in so many reads lets the device do something: so many things at most.
    pace: (u64, u64),
    /// Reads that little happens between: a view is to be taken.
    calm: u64,
    /// Something unusual, and how many reads before it.
    event: Option<(u64, Unusual)>,
    tally: Tally,
}

impl Master {
    fn new(seed: u64, version: u32, mib: u64) -> Master {
        let written = fresh::volume(version, mib);
        let mut store = open(&written, seed);
        let busy = Busy::begin(&mut store, seed, true).expect("room for a start");
        let mut master = Master {
            seen: written.snapshot(),
            written,
            store: Some(store),
            busy,
            due: VecDeque::new(),
            random: Random(seed ^ 0xD15C),
            pace: (1, 1),
            calm: 0,
            event: None,
            tally: Tally::default(),
        };
        master.written.forget_log();
        for _ in 0..30 {
            master.change();
        }
        master.catch_up();
        master
    }

    /// Lets the writer make a change, which the device has still to do.
    fn change(&mut self) {
        let store = self.store.as_mut().expect("a writer");
        let before = store.written().checkpoints;
        self.busy.change(store).expect("a change");
        self.tally.commits += store.written().checkpoints - before;
        self.take();
    }

    fn take(&mut self) {
        self.due.extend(self.written.log());
        self.written.forget_log();
    }

    /// The device does one thing.
    fn step(&mut self) {
        while self.due.is_empty() {
            self.change();
        }
        let flush = self.due.iter().take(HELD);
        let free = flush.take_while(|event| **event != Done::Flush).count();
        let chosen = match free {
            0 => 0,
            free => self.random.below(free as u64) as usize,
        };
        // What overlaps an earlier write comes behind it.
        let first = (0..chosen).find(|at| overlap(&self.due[*at], &self.due[chosen]));
        match self.due.remove(first.unwrap_or(chosen)) {
            Some(Done::Write { at, bytes }) => {
                self.seen.write(at, &bytes).expect("within the disk");
            }
            Some(Done::Flush) => self.seen.flush(),
            None => {}
        }
    }

    fn catch_up(&mut self) {
        while !self.due.is_empty() {
            self.step();
        }
    }

    /// Before a read.
    fn meanwhile(&mut self) {
        match &mut self.event {
            Some((0, event)) => {
                let event = *event;
                self.event = None;
                self.happen(event);
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if self.calm > 0 {
            self.calm -= 1;
            if self.random.below(4) == 0 {
                self.step();
            }
        } else if self.random.below(self.pace.0) == 0 {
            for _ in 0..=self.random.below(self.pace.1) {
                self.step();
            }
        }
    }

    fn happen(&mut self, event: Unusual) {
        let store = self.store.as_mut().expect("a writer");
        let before = store.written().checkpoints;
        match event {
            Unusual::Storm => {
                self.busy.storm(store).expect("a full log");
                self.tally.storms += 1;
            }
            Unusual::Purge => {
                self.busy.purge(store).expect("room for as much");
                self.tally.purges += 1;
            }
            Unusual::Crash => return self.killed(),
        }
        self.tally.commits += store.written().checkpoints - before;
        self.take();
        // All of it, or less.
        let due = self.due.len() as u64;
        let some = due / 2 + self.random.below(due + 1);
        (0..some.min(due)).for_each(|_| self.step());
    }

    /// The writer is killed, and another one takes over: what the device has got stays.
    fn killed(&mut self) {
        self.tally.crashes += 1;
        self.over(self.seen.snapshot());
    }

    /// The writer's machine loses power: what was not flushed is lost, or is not.
    fn power_cut(&mut self) {
        self.tally.power_cuts += 1;
        let survive = Survive::Torn(self.random.next());
        let left = self.seen.crash(self.seen.now(), survive);
        let left = left.expect("a state that a power cut leaves");
        self.seen = left.snapshot();
        self.over(left);
    }

    fn over(&mut self, left: SimDisk) {
        self.due.clear();
        self.store = None;
        self.written = left;
        let mut store = open(&self.written, self.random.next());
        self.busy
            .look_around(&mut store)
            .expect("a sound volume after a crash");
        self.store = Some(store);
        self.take();
    }
}

fn overlap(a: &Done, b: &Done) -> bool {
    let range = |event: &Done| match event {
        Done::Write { at, bytes } => *at..*at + bytes.len() as u64,
        Done::Flush => 0..0,
    };
    let (a, b) = (range(a), range(b));
    a.start < b.end && b.start < a.end
}

/// A slave, and what it has acknowledged.
struct Slave {
    disk: SimDisk,
    acks: Vec<(Tid, Digest)>,
}

impl Slave {
    fn new(version: u32, master: &mut Store, seed: u64) -> Slave {
        let disk = fresh::volume(version, 2048);
        let found = pfs::load(master.view(), MASTER).expect("a table");
        let settings = Settings {
            shared_uuid: Some(found.expect("the master").data.shared_uuid),
            ..Settings::default()
        };
        let new = NewPfs {
            kind: Kind::Slave,
            id: Some(SLAVE),
            fresh: [[seed as u8; 16], [0xAB; 16]],
            settings: &settings,
            link: None,
        };
        pfs_ops::create(&mut open(&disk, 1), &new, fresh::START).expect("a slave");
        disk.forget_log();
        Slave {
            disk,
            acks: Vec::new(),
        }
    }

    fn synced(&self) -> Tid {
        let found = pfs::load(&mut quiet(&self.disk), SLAVE).expect("a table");
        found.expect("the slave").data.sync_end_tid()
    }
}

struct Scenario {
    seed: u64,
    random: Random,
    master: Arc<Mutex<Master>>,
    slaves: Vec<Slave>,
    tally: Tally,
}

impl Scenario {
    fn new(seed: u64) -> Scenario {
        let mut random = Random(seed.wrapping_mul(0x5851_F42D));
        let mut version = || 4 + random.below(4) as u32;
        // Few of the big-blocks are free: what is freed is soon used again.
        let sizes = [72, 80, 96];
        let mut master = Master::new(seed, version(), sizes[seed as usize % 3]);
        let store = master.store.as_mut().expect("a writer");
        let slaves = vec![
            Slave::new(version(), store, seed),
            Slave::new(version(), store, seed),
        ];
        Scenario {
            seed,
            random,
            master: Arc::new(Mutex::new(master)),
            slaves,
            tally: Tally::default(),
        }
    }

    fn master(&self) -> MutexGuard<'_, Master> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass while the master is changed.
    fn pass(&mut self, number: u64) {
        let seen = self.unrest();
        let meanwhile = Arc::clone(&self.master);
        seen.set_hook(move |_, _| {
            let mut master = meanwhile.lock().unwrap_or_else(PoisonError::into_inner);
            master.meanwhile();
        });
        // Sometimes one of the slaves, more often both.
        let chosen: Vec<usize> = match self.random.below(5) {
            0 => vec![0],
            1 => vec![1],
            _ => vec![0, 1],
        };
        let stop = match self.random.below(8) {
            0 => self.random.below(12),
            _ => u64::MAX,
        };
        let (ended, mut acks) = (self.copy(&seen, &chosen, stop), Acks::new());
        seen.clear_hook();
        self.tally.passes += 1;
        match ended {
            Ok((truth, told)) => {
                acks.extend(&told.acks);
                self.tally.resumed += told.resumed;
                self.tally.taken_back += told.taken_back;
                self.tally.acks += acks.len() as u64;
                match &told.error {
                    Some(error) if error.class() == Class::Expired => self.tally.expired(error),
                    Some(error) if error.class() == Class::Interrupted => self.tally.stopped += 1,
                    Some(error) => panic!("seed {}, pass {number}: {error}", self.seed),
                    None if acks.is_empty() => self.tally.idle += 1,
                    None => self.tally.acknowledged += 1,
                }
                self.judge(number, truth, &acks);
            }
            Err(error) if error.class() == Class::Expired => self.tally.expired(&error),
            Err(error) => panic!("seed {}, pass {number}: {error}", self.seed),
        }
        self.accidents(&chosen);
    }

    /// Decides how the master behaves in a pass; the disk to read.
    fn unrest(&mut self) -> SimDisk {
        let random = &mut self.random;
        // From a write in many reads to a few hundred writes a read.
        let pauses = [1, 3, 10, 40, 200][random.below(5) as usize];
        let burst = [1, 2, 8, 40][random.below(4) as usize];
        // Beside a writer that never rests hardly a view is ever taken.
        let calm = if random.below(8) == 0 { 0 } else { 16 };
        let event = match random.below(40) {
            0 => Some(Unusual::Storm),
            1..=4 => Some(Unusual::Purge),
            5..=6 => Some(Unusual::Crash),
            _ => None,
        };
        let event = event.map(|event| (calm / 2 + random.below(30), event));
        let changes = match random.below(8) {
            0 => 20,
            _ => random.below(4),
        };
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        (master.pace, master.event) = ((pauses, burst), event);
        master.calm = calm;
        for _ in 0..changes {
            master.change();
        }
        // Somewhere in the middle of it.
        let due = master.due.len() as u64 + 1;
        for _ in 0..master.random.below(due) {
            master.step();
        }
        master.seen.forget_log();
        master.seen.clone()
    }

    /// Copies what a live view of `seen` shows, as `mirror-stream` does; what that view must show, as
    /// the tests' own recovery has it.
    fn copy(&mut self, seen: &SimDisk, chosen: &[usize], stop: u64) -> Result<(SimDisk, Told)> {
        let seed = self.random.next();
        let mut stores: Vec<Store> = chosen
            .iter()
            .map(|at| open(&self.slaves[*at].disk, seed))
            .collect();
        let set = VolumeSet::open(vec![Box::new(seen.reader(seed))])?;
        let options = ViewOptions {
            // Small enough that most buffers are read more than once.
            cache_bytes: 256 << 10,
            readahead_bytes: 1 << 20,
            live: true,
            ..ViewOptions::default()
        };
        let mut view = View::open(set, &options)?;
        // The header on the disk is still the one that the view is of.
        let truth = seen.snapshot();
        let (first, now) = (view.undone().first, first_offset(&truth));
        assert_eq!(
            first, now,
            "seed {}: the view is of another state",
            self.seed
        );
        let found = pfs::load(&mut view, MASTER)?.expect("the master");
        let mut source = SourcePfs::from(&found);
        let synced = chosen.iter().map(|at| self.slaves[*at].synced());
        let synced: Vec<Tid> = synced.collect();
        live_end(&mut view, &mut source, &synced)?;
        let request = Request {
            source,
            identity: Identity::of(&found),
            split: (self.random.below(4) == 0).then(|| 20_000 + self.random.below(400_000)),
            terms: Terms::default(),
            bandwidth: None,
            group: Group {
                records: [7, 60, 1 << 20][self.random.below(3) as usize],
                ..Group::default()
            },
            bytes_total: None,
        };
        let places: Vec<Place> = (0..chosen.len())
            .map(|store| Place { store, pfs: SLAVE })
            .collect();
        let mut told = Told::default();
        let mut edge = Edge {
            now: &mut || fresh::START,
            clock: &mut Still,
            progress: &mut After(stop),
            events: &mut |event| told.hear(event, chosen),
        };
        let mut origin = Origin::Apart(&mut view);
        let report = copy::copy(&mut origin, &mut stores, &places, &request, &mut edge)?;
        for target in report.targets {
            told.error = told.error.or(target.error);
        }
        told.error = report.stopped.or(told.error);
        Ok((truth, told))
    }

    /// What was acknowledged is what the master was.
    fn judge(&mut self, number: u64, truth: SimDisk, acks: &Acks) {
        if acks.is_empty() {
            return;
        }
        let mut images = [truth];
        let undone = oracle::recover(&mut images);
        undone.unwrap_or_else(|e| panic!("seed {}, pass {number}: {e}", self.seed));
        let mut master = quiet(&images[0]);
        for (at, tid) in acks {
            let slave = &mut self.slaves[*at];
            let theirs = pfs_digest(&mut master, MASTER, *tid).expect("a sound master");
            let ours = pfs_digest(&mut quiet(&slave.disk), SLAVE, *tid);
            let ours = ours.unwrap_or_else(|e| panic!("seed {}, pass {number}: {e}", self.seed));
            assert_eq!(
                short(&ours),
                short(&theirs),
                "seed {}, pass {number}: slave {at} as of {tid} is not its master",
                self.seed
            );
            if let Some((last, digest)) = slave.acks.last() {
                assert!(tid >= last, "seed {}: {tid} after {last}", self.seed);
                // Of one TID there may be several states: a removal that leaves none.
                if tid == last && *digest != ours {
                    slave.acks.pop();
                }
            }
            slave.acks.push((*tid, ours));
        }
    }

    /// Sometimes a slave loses power, or the master does: nobody lost what was acknowledged.
    fn accidents(&mut self, chosen: &[usize]) {
        for at in chosen {
            let slave = &mut self.slaves[*at];
            if self.random.below(6) == 0 {
                let survive = Survive::Torn(self.random.next());
                let left = slave.disk.crash(slave.disk.now(), survive);
                slave.disk = left.expect("a state that a power cut leaves");
            }
            slave.disk.forget_log();
            let last = slave.acks.last().map_or(Tid(1), |(tid, _)| *tid);
            let synced = slave.synced();
            assert_eq!(synced, last, "seed {}: acknowledged {last}", self.seed);
        }
        if self.random.below(12) != 0 {
            return;
        }
        let mut master = self.master();
        master.power_cut();
        let store = master.store.as_mut().expect("a writer");
        let committed = store.view().header().next_tid();
        for slave in &self.slaves {
            if let Some((tid, _)) = slave.acks.last() {
                let text = "the master has lost what a slave acknowledged";
                assert!(*tid <= committed, "seed {}: {text}: {tid}", self.seed);
            }
        }
    }

    /// The writer stops: one more pass makes everything equal, and nothing that was acknowledged has
    /// changed.
    fn finish(&mut self) {
        let seed = self.seed;
        {
            let mut master = self.master();
            master.event = None;
            // A change with a TID: what was removed without one travels with it.
            let store = master.store.take();
            let mut store = store.expect("a writer");
            master.busy.mark(&mut store).expect("room for a directory");
            master.store = Some(store);
            master.take();
            master.catch_up();
        }
        let seen = self.master().seen.clone();
        let (truth, told) = self.copy(&seen, &[0, 1], u64::MAX).expect("a quiet master");
        assert!(told.error.is_none(), "seed {seed}: {:?}", told.error);
        self.judge(PASSES, truth, &told.acks);
        let mut master = quiet(&seen);
        checked(&mut master).unwrap_or_else(|e| panic!("seed {seed}: the master: {e}"));
        let newest = common::busy::newest(&mut master).expect("a sound master");
        for (at, slave) in self.slaves.iter().enumerate() {
            let mut view = quiet(&slave.disk);
            checked(&mut view).unwrap_or_else(|e| panic!("seed {seed}: slave {at}: {e}"));
            assert_eq!(slave.synced(), newest, "seed {seed}: slave {at}");
            for (tid, digest) in &slave.acks {
                let now = pfs_digest(&mut view, SLAVE, *tid).expect("a sound slave");
                assert_eq!(
                    short(&now),
                    short(digest),
                    "seed {seed}: slave {at} as of {tid} is not what it was"
                );
            }
        }
        let master = self.master();
        let mut tally = master.tally;
        tally.prunings = master.busy.done.prunings;
        tally.full = master.busy.done.full;
        tally.half_done = master.busy.done.failed;
        drop(master);
        self.tally += tally;
    }
}

/// As `mirror-stream` has it: up to the newest TID that the view shows.
fn live_end(view: &mut View, source: &mut SourcePfs, synced: &[Tid]) -> Result<()> {
    let least = synced.iter().min().map_or(Tid::ZERO, |tid| tid.next());
    let floor = Tid(source.data.sync_beg_tid.get());
    source.beside_a_writer(view, least.max(floor), &mut ())
}

fn first_offset(disk: &SimDisk) -> u64 {
    let bytes = disk.read(0, 16384).expect("a header");
    let header = VolumeHeader::from_prefix(&bytes).expect("a header");
    let first = header.zone(Zone::UNDO).first_offset.get();
    mallet::format::Offset(first).long()
}

fn scenario(seed: u64) -> Tally {
    let mut scenario = Scenario::new(seed);
    for number in 0..PASSES {
        scenario.pass(number);
    }
    scenario.finish();
    scenario.tally
}

#[test]
fn passes_beside_a_writer() {
    let seeds = match std::env::var("MALLET_LIVE_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..common::soak(6),
    };
    let mut tally = Tally::default();
    for seed in seeds.clone() {
        tally += scenario(seed);
    }
    let share = tally.discarded as f64 * 100.0 / tally.passes as f64;
    let text = format!(
        "live, simulated: seeds {seeds:?}, {} passes: {} acknowledged, {} idle, {} stopped, {} \
         discarded ({share:.1} %: {} freed, {} written around, {} cut off, {} taken back, {} restless); 0 differences \
         in {} acknowledgements",
        tally.passes,
        tally.acknowledged,
        tally.idle,
        tally.stopped,
        tally.discarded,
        tally.freed,
        tally.overwritten,
        tally.cut_off,
        tally.undone,
        tally.restless,
        tally.acks,
    );
    // Not by a macro that the test runner captures: how much was tried is to be seen.
    let _ = writeln!(std::io::stderr(), "{text}");
    let _ = writeln!(std::io::stderr(), "live, simulated: {tally:?}");
    assert!(
        tally.acknowledged > tally.passes / 4,
        "few passes were ever tested: {tally:?}"
    );
}

/// A file without history is made, half a pass is copied, the file is removed, which leaves no TID, and
/// the pass goes on to the same end: both halves have it or neither.
#[test]
fn what_vanishes_between_two_halves_of_a_pass() {
    let mut met = 0;
    for stop in 1..12 {
        let disk = fresh::volume(7, 128);
        let mut store = open(&disk, 0);
        let mut busy = Busy::begin(&mut store, 1, false).expect("room for a start");
        busy.pass_by(&mut store, true).expect("room for files");
        let mut slave = Slave::new(7, &mut store, 1);
        let mut halves = Vec::new();
        for stop in [stop, u64::MAX] {
            let mut view = quiet(&disk);
            let found = pfs::load(&mut view, MASTER).expect("a table");
            let found = found.expect("the master");
            let mut source = SourcePfs::from(&found);
            let synced = slave.synced();
            live_end(&mut view, &mut source, &[synced]).expect("a sound master");
            let request = Request {
                source,
                identity: Identity::of(&found),
                split: None,
                terms: Terms::default(),
                bandwidth: None,
                group: Group {
                    records: 5,
                    ..Group::default()
                },
                bytes_total: None,
            };
            let mut told = Told::default();
            let mut edge = Edge {
                now: &mut || fresh::START,
                clock: &mut Still,
                progress: &mut After(stop),
                events: &mut |event| told.hear(event, &[0]),
            };
            let mut stores = [open(&slave.disk, 0)];
            let place = Place {
                store: 0,
                pfs: SLAVE,
            };
            let mut origin = Origin::Apart(&mut view);
            let report = copy::copy(&mut origin, &mut stores, &[place], &request, &mut edge);
            report.expect("a slave that fits");
            halves.push(told);
            if halves.len() == 1 {
                busy.pass_by(&mut store, false).expect("files that exist");
            }
        }
        let [first, second] = &halves[..] else { return };
        let [(_, tid)] = second.acks[..] else {
            continue;
        };
        assert!(first.acks.is_empty());
        met += second.resumed;
        let theirs = pfs_digest(&mut quiet(&disk), MASTER, tid).expect("a sound master");
        let ours = pfs_digest(&mut quiet(&slave.disk), SLAVE, tid).expect("a sound slave");
        assert_eq!(short(&ours), short(&theirs), "stopped at {stop}");
        slave.acks.push((tid, ours));
    }
    assert!(met > 3, "only {met} passes were resumed");
}
