//! Scenarios: what is done to volumes, as a script that a seed decides, run the same way every time.

use super::raw_ops::RawOps;
use super::state::{Digest, digest, pfs_digest};
use super::timeline::{Random, settled};
use crate::common::build::{self, files::Content, files::Files, files::Object};
use mallet::Result;
use mallet::format::Tid;
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
}

/// How stores are opened in tests: with little memory.
pub fn options() -> StoreOptions {
    StoreOptions {
        cache_bytes: 1 << 20,
        readahead_bytes: 1 << 20,
        ..StoreOptions::default()
    }
}

/// The volumes, for writing.
pub fn volumes(disks: &[SimDisk], seed: u64) -> Result<VolumeSet> {
    let devices = disks.iter().enumerate();
    let devices = devices.map(|(n, disk)| -> Box<dyn Device> {
        Box::new(disk.device(seed.wrapping_mul(31).wrapping_add(n as u64)))
    });
    VolumeSet::open(devices.collect())
}

/// The volumes, for reading.
pub fn readers(disks: &[SimDisk]) -> Result<VolumeSet> {
    let devices = disks.iter();
    let devices = devices.map(|disk| -> Box<dyn Device> { Box::new(disk.reader(0)) });
    VolumeSet::open(devices.collect())
}

impl Stage<'_> {
    /// Opens the volumes for writing.
    pub fn open(&self) -> Result<Store> {
        Store::open(volumes(&self.disks, self.seed)?, &options())
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
        let digest = digest(view).map_err(mallet::Error::damage)?;
        self.acks.borrow_mut().push(Ack {
            at,
            digest,
            views: noted,
        });
        Ok(())
    }
}

/// Looks at a state that a crash left, once recovered: the volumes, and the view of them.
pub type Inspect = Box<dyn Fn(&[SimDisk], &mut View) -> std::result::Result<(), String>>;

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
    /// Does it.
    pub run: Box<dyn Fn(&Stage<'_>) -> Result<()>>,
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

/// Files made, marked deleted and destroyed, a few a transaction.
pub fn records(version: u32, sizes: &[u64], seed: u64, rounds: u64) -> Scenario {
    let run = move |stage: &Stage<'_>| {
        let mut random = Random(seed);
        let mut ops = RawOps::default();
        let mut dead = Vec::new();
        let mut store = stage.open()?;
        for round in 0..rounds {
            let mut txn = store.begin(1_700_000_000_000_000 + round)?;
            for _ in 0..=random.below(6) {
                match random.below(8) {
                    0..=2 => ops.file(&mut txn, &mut random, 0, 1 + round * 37 % 8000)?,
                    3 => {
                        let blocks = 1 + random.below(4);
                        ops.file(&mut txn, &mut random, blocks, 0)?;
                    }
                    4 => {
                        for _ in 0..20 {
                            ops.file(&mut txn, &mut random, 0, 0)?;
                        }
                    }
                    5 if !ops.files.is_empty() => {
                        let index = random.below(ops.files.len() as u64) as usize;
                        let file = &ops.files[index];
                        // What a transaction made and deleted never was.
                        if file.keys[0].create_tid != txn.tid() {
                            dead.push(ops.delete(&mut txn, index)?);
                        }
                    }
                    6 | 7 if !dead.is_empty() => {
                        let file = dead.swap_remove(random.below(dead.len() as u64) as usize);
                        ops.destroy(&mut txn, &file)?;
                    }
                    _ => {}
                }
            }
            let tid = txn.tid();
            txn.commit()?;
            let _ = tid;
            stage.ack(&mut store, &[])?;
        }
        Ok(())
    };
    Scenario {
        name: "records",
        seed,
        start: base(version, sizes, seed),
        large: false,
        run: Box::new(run),
        inspect: None,
    }
}
