//! Scenarios: what is done to volumes, as a script that a seed decides, run the same way every time.

use super::state::{Digest, digest, pfs_digest};
use super::timeline::settled;
use crate::common::build::{self, files::Content, files::Files, files::Object};
use mallet::Result;
use mallet::error::{Class, Error};
use mallet::format::Tid;
use mallet::fs::recover;
use mallet::io::Device;
use mallet::io::sim::SimDisk;
use mallet::store::{Store, StoreOptions, View, VolumeSet};
use std::cell::RefCell;
use std::fs::File;

/// What is known to be durable at some moment.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Writes and flushes before.
    pub at: usize,
    /// The state.
    pub digest: Digest,
    /// Views of a PFS as of a TID, which later states still show.
    pub views: Vec<(u16, Tid, Digest)>,
}

/// What a slave acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Writes and flushes before.
    pub at: usize,
    /// Writes and flushes that were asked for and not done yet.
    pub under_way: usize,
    /// Everything up to here.
    pub tid: Tid,
}

/// That all which was written to any disk was flushed, and nothing but a flush came last, whenever
/// something was `said`. `order` has every write and flush: its disk, and whether it is a flush.
pub fn said_when_stable(order: &[(usize, bool)], said: &[Said]) -> std::result::Result<(), String> {
    for Said { at, under_way, tid } in said {
        let before = &order[..*at];
        let unflushed = |disk: &usize| {
            let last = before.iter().rfind(|(on, _)| on == disk);
            last.is_some_and(|(_, is_flush)| !is_flush)
        };
        let disks = before.iter().map(|(disk, _)| *disk);
        if *under_way > 0
            || disks
                .max()
                .is_some_and(|most| (0..=most).any(|d| unflushed(&d)))
        {
            return Err(format!(
                "{tid} was acknowledged after {at} writes and flushes, of which some were not stable \
                 ({under_way} under way)"
            ));
        }
    }
    Ok(())
}

/// Where a scenario runs.
pub struct Stage<'a> {
    /// The volumes.
    pub disks: Vec<SimDisk>,
    /// Directs what the seed decides.
    pub seed: u64,
    /// Tells the time.
    pub clock: Box<dyn Fn() -> usize + 'a>,
    /// What was acknowledged.
    pub acks: RefCell<Vec<Ack>>,
    /// TIDs that a slave acknowledged.
    pub said: RefCell<Vec<Said>>,
    /// Whether a write or flush has failed.
    pub failed: Box<dyn Fn() -> bool + 'a>,
}

/// How stores are opened in tests: with little memory.
pub fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        readahead_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

/// The volumes, for writing; operations complete in an order that `seed` directs.
pub fn volumes(disks: &[SimDisk], seed: u64) -> Result<VolumeSet> {
    let devices = disks.iter().enumerate();
    let devices = devices.map(|(n, disk)| -> Box<dyn Device> {
        // 0 keeps the order.
        let seed = seed.wrapping_mul(31) + if seed == 0 { 0 } else { n as u64 };
        Box::new(disk.device(seed))
    });
    VolumeSet::open(devices.collect())
}

/// The volumes, for reading.
pub fn readers(disks: &[SimDisk]) -> Result<VolumeSet> {
    let devices = disks.iter();
    let devices = devices.map(|disk| -> Box<dyn Device> { Box::new(disk.reader(0)) });
    VolumeSet::open(devices.collect())
}

/// When everything happens, microseconds since 1970.
pub const NOW: u64 = 1_700_000_000_000_000;

impl<'a> Stage<'a> {
    /// A stage on `disks` whose time is told by `clock`.
    pub fn new(
        disks: Vec<SimDisk>,
        seed: u64,
        clock: impl Fn() -> usize + 'a,
        failed: impl Fn() -> bool + 'a,
    ) -> Stage<'a> {
        Stage {
            disks,
            seed,
            clock: Box::new(clock),
            acks: RefCell::default(),
            said: RefCell::default(),
            failed: Box::new(failed),
        }
    }

    /// Opens the volumes for writing.
    pub fn open(&self) -> Result<Store> {
        self.open_with(options())
    }

    /// Opens the volumes for writing.
    pub fn open_with(&self, store: StoreOptions) -> Result<Store> {
        let set = volumes(&self.disks, self.seed)?;
        let options = recover::OpenOptions {
            store,
            redo: true,
            now: NOW,
        };
        recover::open(set, &options).map(|(store, _)| store)
    }

    /// Does something with a store, which does nothing more after a write or flush has failed.
    pub fn with(
        &self,
        mut store: Store,
        work: impl FnOnce(&mut Store) -> Result<()>,
    ) -> Result<()> {
        let result = work(&mut store);
        if result.is_err() && (self.failed)() {
            assert!(store.durable().is_err(), "proof after a failed write");
            assert!(
                store.begin(NOW).is_err(),
                "a transaction after a failed write"
            );
        }
        result
    }

    /// Notes that a slave acknowledges `tid` now.
    pub fn ack_tid(&self, tid: Tid) {
        let (at, under_way) = self.moment();
        self.said.borrow_mut().push(Said { at, under_way, tid });
    }

    /// Writes and flushes so far, and those that were asked for and not done yet.
    pub fn moment(&self) -> (usize, usize) {
        let counts = self.disks.iter().map(SimDisk::counts);
        let asked: u64 = counts.map(|counts| counts.writes + counts.flushes).sum();
        let done = (self.clock)();
        (done, usize::try_from(asked).expect("few") - done)
    }

    /// Notes that what `store` shows is durable; with `views` of these PFSs as of these TIDs.
    pub fn ack(&self, store: &mut Store, views: &[(u16, Tid)]) -> Result<()> {
        store.durable()?;
        let at = (self.clock)();
        let view = store.view();
        let mut noted = Vec::new();
        for (pfs, tid) in views {
            noted.push((*pfs, *tid, pfs_digest(view, *pfs, *tid)?));
        }
        // Nothing but a read that a fault was planted on can fail here.
        let digest = digest(view).map_err(|text| Error::new(Class::Io, text))?;
        self.acks.borrow_mut().push(Ack {
            at,
            digest,
            views: noted,
        });
        Ok(())
    }
}

/// Does something to volumes.
pub type Script = Box<dyn Fn(&Stage<'_>) -> Result<()>>;

/// Looks at a committed state; the slave has acknowledged the TID.
pub type Inspect = Box<dyn Fn(&mut View, Tid) -> std::result::Result<(), String>>;

/// What is done to volumes.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What decides it.
    pub seed: u64,
    /// The volumes before.
    pub start: Vec<SimDisk>,
    /// Whether one operation may take several checkpoints.
    pub large: bool,
    /// Whether there is a REDO log, which recovery keeps until it is replayed.
    pub redo: bool,
    /// Does it.
    pub run: Script,
    /// What else must hold of every state.
    pub inspect: Option<Inspect>,
}

/// A fresh volume set with a small file or two.
pub fn base(version: u32, sizes: &[u64], seed: u64) -> Vec<SimDisk> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |n: usize| dir.path().join(format!("v{n}.img"));
    let mut options = build::Options::new(path(0), version, sizes[0]);
    for (n, size) in sizes.iter().enumerate().skip(1) {
        options = options.volume(path(n), *size);
    }
    options.seed = seed + 1;
    options.scatter = sizes.len() > 1;
    let mut files = Files::new(&options);
    for (name, size) in [("one", 100), ("two", 40_000)] {
        files.file(Object::root(0), name.as_bytes(), &Content::Pattern(size));
    }
    files.build(&options);
    let disks = (0..sizes.len()).map(|n| {
        let file = File::open(path(n)).expect("an image");
        settled(&SimDisk::over(file).expect("a disk"))
    });
    disks.collect()
}
