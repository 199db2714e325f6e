//! What happened to several simulated disks, in one order, and every state that a power cut could
//! have left them in.

use mallet::io::sim::{Event, SimDisk, Step};
use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

/// The unit in which a write survives or not, in bytes.
const TEAR: usize = 512;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// An independent copy of `disk` that keeps little in memory: what it holds goes to a file that is
/// gone with the disk.
pub fn settled(disk: &SimDisk) -> SimDisk {
    let mut file: File = tempfile::tempfile().expect("a file");
    let (size, mut at) = (disk.size(), 0);
    while at < size {
        let len = (size - at).min(64 << 10) as usize;
        let bytes = disk.read(at, len).expect("within the disk");
        if bytes.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(at)).expect("a position");
            file.write_all(&bytes).expect("room");
        }
        at += len as u64;
    }
    file.set_len(size).expect("room");
    SimDisk::over(file).expect("a disk")
}

/// Records the order of what is done to disks.
pub struct Recorder {
    disks: Vec<SimDisk>,
    start: Vec<SimDisk>,
    order: Arc<Mutex<Vec<usize>>>,
}

impl Recorder {
    /// From now on, on these disks.
    pub fn new(disks: &[SimDisk]) -> Recorder {
        let order = Arc::new(Mutex::new(Vec::new()));
        for (index, disk) in disks.iter().enumerate() {
            disk.forget_log();
            let order = Arc::clone(&order);
            disk.set_hook(move |step, _| {
                if !matches!(step, Step::Read { .. }) {
                    order.lock().expect("one thread").push(index);
                }
            });
        }
        Recorder {
            disks: disks.to_vec(),
            start: disks.iter().map(SimDisk::snapshot).collect(),
            order,
        }
    }

    /// How many writes and flushes there were so far.
    pub fn now(&self) -> usize {
        self.order.lock().expect("one thread").len()
    }

    /// What happened.
    pub fn finish(self) -> Timeline {
        let mut logs: Vec<_> = self
            .disks
            .iter()
            .map(|disk| {
                disk.clear_hook();
                disk.log().into_iter()
            })
            .collect();
        let order = self.order.lock().expect("one thread");
        let events = order.iter().map(|disk| {
            let event = logs[*disk].next();
            (*disk, event.expect("one event an operation"))
        });
        Timeline {
            events: events.collect(),
            start: self.start,
        }
    }
}

/// What happened to several disks.
pub struct Timeline {
    /// The disks before.
    pub start: Vec<SimDisk>,
    /// On which disk what happened, in order.
    pub events: Vec<(usize, Event)>,
}

/// How many states of each kind to make between two flushes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Most writes that are kept alone, left out alone, torn alone, and the last of a prefix.
    pub singles: usize,
    /// Random subsets.
    pub subsets: usize,
    /// Random subsets of 512-byte sectors.
    pub torn: usize,
    /// Directs the random ones.
    pub seed: u64,
}

/// What of a write survives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Keep {
    None,
    All,
    /// These sectors.
    Sectors(Vec<bool>),
}

/// What of the writes since the last flush survives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Survivors(Vec<Keep>);

impl std::fmt::Display for Survivors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for keep in &self.0 {
            match keep {
                Keep::None => f.write_str("-")?,
                Keep::All => f.write_str("+")?,
                Keep::Sectors(kept) => {
                    let kept: String = kept.iter().map(|k| if *k { '1' } else { '0' }).collect();
                    write!(f, "({kept})")?;
                }
            }
        }
        Ok(())
    }
}

/// The writes that a power cut may take back at one flush.
pub struct Epoch {
    /// Events before the flush.
    pub cut: usize,
    /// The disks as they are for sure.
    pub stable: Vec<SimDisk>,
    /// Writes that may be lost: disk, place, bytes.
    pub pending: Vec<(usize, u64, Arc<[u8]>)>,
}

impl Timeline {
    /// Calls `each` at every flush, and at the end, with what a power cut right before it may leave.
    /// A cut at an earlier write leaves one of the same states.
    pub fn epochs(&self, mut each: impl FnMut(&Epoch)) {
        let mut epoch = Epoch {
            cut: 0,
            stable: self.start.iter().map(SimDisk::snapshot).collect(),
            pending: Vec::new(),
        };
        for (index, (disk, event)) in self.events.iter().enumerate() {
            epoch.cut = index;
            match event {
                Event::Write { at, bytes } => epoch.pending.push((*disk, *at, bytes.clone())),
                Event::Flush => {
                    each(&epoch);
                    let stable = &epoch.stable[*disk];
                    epoch.pending.retain(|(on, at, bytes)| {
                        if on == disk {
                            stable.write(*at, bytes).expect("within the disk");
                        }
                        on != disk
                    });
                    stable.forget_log();
                }
            }
        }
        epoch.cut = self.events.len();
        each(&epoch);
    }
}

impl Epoch {
    /// The disks after a cut that leaves these writes.
    pub fn image(&self, survivors: &Survivors) -> Vec<SimDisk> {
        let disks: Vec<SimDisk> = self.stable.iter().map(SimDisk::snapshot).collect();
        for ((disk, at, bytes), keep) in self.pending.iter().zip(&survivors.0) {
            let write = |at: u64, bytes: &[u8]| disks[*disk].write(at, bytes).expect("within");
            match keep {
                Keep::None => {}
                Keep::All => write(*at, bytes),
                Keep::Sectors(kept) => {
                    let sectors = bytes.chunks(TEAR).enumerate();
                    for (n, sector) in sectors.filter(|(n, _)| kept[*n]) {
                        write(at + (n * TEAR) as u64, sector);
                    }
                }
            }
        }
        for disk in &disks {
            disk.forget_log();
        }
        disks
    }

    /// Nothing survives.
    pub fn none(&self) -> Survivors {
        Survivors(vec![Keep::None; self.pending.len()])
    }

    /// Everything survives.
    pub fn all(&self) -> Survivors {
        Survivors(vec![Keep::All; self.pending.len()])
    }

    /// Only this write survives, and of that all but the first `sectors`; `None` if that is nothing.
    pub fn beheaded(&self, index: usize, sectors: usize) -> Option<Survivors> {
        let count = self.pending.get(index)?.2.len().div_ceil(TEAR);
        let mut all = self.none();
        all.0[index] = Keep::Sectors((0..count).map(|n| n >= sectors).collect());
        (count > sectors).then_some(all)
    }

    /// What `plan` asks for, none and all first; each once.
    pub fn survivors(&self, plan: Plan) -> Vec<Survivors> {
        let count = self.pending.len();
        let mut random = Random(plan.seed ^ (self.cut as u64) << 20);
        let mut all = vec![self.none(), self.all()];
        let chosen: Vec<usize> = match count > plan.singles {
            true => (0..plan.singles)
                .map(|_| random.below(count as u64) as usize)
                .collect(),
            false => (0..count).collect(),
        };
        for one in chosen {
            let with = |here: &dyn Fn(usize) -> Keep| Survivors((0..count).map(here).collect());
            let torn = |random: &mut Random, index: usize| self.torn(index, random);
            all.push(with(&|n| if n == one { Keep::All } else { Keep::None }));
            all.push(with(&|n| if n == one { Keep::None } else { Keep::All }));
            all.push(with(&|n| if n <= one { Keep::All } else { Keep::None }));
            // In the middle of the write, alone and after those before it.
            let piece = torn(&mut random, one);
            all.push(with(&|n| match n.cmp(&one) {
                std::cmp::Ordering::Less => Keep::All,
                std::cmp::Ordering::Equal => piece.clone(),
                std::cmp::Ordering::Greater => Keep::None,
            }));
            let piece = torn(&mut random, one);
            all.push(with(&|n| if n == one { piece.clone() } else { Keep::All }));
        }
        for _ in 0..if count > 2 { plan.subsets } else { 0 } {
            let eighths = [1, 4, 7][random.below(3) as usize];
            let keep = (0..count).map(|_| match random.below(8) < eighths {
                true => Keep::All,
                false => Keep::None,
            });
            all.push(Survivors(keep.collect()));
        }
        for _ in 0..if count > 0 { plan.torn } else { 0 } {
            let keep = (0..count).map(|n| self.torn(n, &mut random)).collect();
            all.push(Survivors(keep));
        }
        let mut seen = HashSet::new();
        all.retain(|survivors| {
            let mut hash = DefaultHasher::new();
            survivors.hash(&mut hash);
            seen.insert(hash.finish())
        });
        all
    }

    /// Some sectors of a write: the first ones, or any.
    fn torn(&self, index: usize, random: &mut Random) -> Keep {
        let sectors = self.pending[index].2.len().div_ceil(TEAR);
        let eighths = [1, 4, 7][random.below(3) as usize];
        let upto = random.below(sectors as u64 + 1) as usize;
        let prefix = random.below(2) == 0;
        let kept: Vec<bool> = (0..sectors)
            .map(|n| match prefix {
                true => n < upto,
                false => random.below(8) < eighths,
            })
            .collect();
        match (kept.iter().all(|k| *k), kept.iter().any(|k| *k)) {
            (true, _) => Keep::All,
            (_, false) => Keep::None,
            _ => Keep::Sectors(kept),
        }
    }
}
