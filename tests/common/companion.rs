//! Real volumes for real processes: a master that a thread of the test writes to in long sessions,
//! a slave, and what must hold of it.

use super::busy::{Busy, Journal, MASTER, quick_digest};
use super::crash::timeline::Random;
use super::crash::trial::checked;
use super::program::{err, run, status, text};
use mallet::format::Tid;
use mallet::fs::pfs;
use mallet::fs::recover;
use mallet::io::lock::{self, Lock, LockGuard};
use mallet::io::{Direct, OpenOptions, open};
use mallet::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long to wait for a lock that a dying process still has.
const PATIENCE: Duration = Duration::from_secs(60);

/// Past the page cache, where the host allows it; it says once where not.
fn options(path: &Path, write: bool) -> OpenOptions {
    let direct = OpenOptions {
        direct: Direct::On,
        write,
        ..OpenOptions::default()
    };
    match open(path, &direct) {
        Ok(_) => direct,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "not past the page cache: {error}");
            OpenOptions {
                write,
                ..OpenOptions::default()
            }
        }
    }
}

/// Makes a file system of version 7 with a log of 8 MiB on `path`, of this size if it is a file.
pub fn format(path: &Path, size: &str) {
    let label = path.file_name().and_then(|name| name.to_str());
    let mut words = vec!["newfs", "-y", "-f", "-V", "7", "-u", "8m", "-L"];
    words.push(label.expect("a name"));
    if !size.is_empty() {
        words.extend(["--size", size]);
    }
    words.push(text(path));
    let output = run(&words);
    assert_eq!(status(&output), 0, "{}", err(&output));
}

/// A master, and all that it ever was.
pub struct Master {
    /// Its volume.
    pub path: PathBuf,
    busy: Busy,
    /// What it was.
    pub journal: Arc<Mutex<Journal>>,
    random: Random,
}

/// Says that it is over, however that comes.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Master {
    /// Makes one on a fresh file system.
    pub fn new(path: &Path, seed: u64) -> Master {
        let (mut store, _locks) = writable(path);
        let mut busy = Busy::begin(&mut store, seed, true).expect("room for a start");
        let journal = Arc::default();
        busy.keep(&mut store, &journal).expect("a sound volume");
        Master {
            path: path.to_owned(),
            busy,
            journal,
            random: Random(seed ^ 0x3A57),
        }
    }

    /// As a SPEC.
    pub fn spec(&self) -> String {
        format!("{}#{MASTER}", text(&self.path))
    }

    /// A session of so many changes.
    pub fn change(&mut self, count: u64) {
        let (mut store, _locks) = writable(&self.path);
        for _ in 0..count {
            self.busy.change(&mut store).expect("a change");
        }
    }

    /// Sessions until `over`, with a commit every few milliseconds.
    pub fn write(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let (mut store, _locks) = writable(&self.path);
            while !over.load(Ordering::Relaxed) {
                match self.random.below(120) {
                    0 => self.busy.storm(&mut store).expect("a full log"),
                    1 => self.busy.purge(&mut store).expect("room for as much"),
                    2 => break,
                    _ => self.busy.change(&mut store).expect("a change"),
                }
                std::thread::sleep(Duration::from_millis(self.random.below(12)));
            }
        }
    }

    /// A directory more, so that whatever is missing travels.
    pub fn mark(&mut self) {
        let (mut store, _locks) = writable(&self.path);
        self.busy.mark(&mut store).expect("room for a directory");
    }
}

fn writable(path: &Path) -> (Store, Vec<LockGuard>) {
    let mut locks = vec![lock::acquire(path, 0, Lock::Write, PATIENCE).expect("the lock")];
    locks.extend(lock::claim(path).expect("nobody else's"));
    let set = VolumeSet::open(vec![open(path, &options(path, true)).expect("a device")]);
    let options = recover::OpenOptions {
        store: StoreOptions {
            cache_bytes: 8 << 20,
            readahead_bytes: 4 << 20,
            dirty_bytes: 512 << 10,
            watch: None,
        },
        redo: true,
        now: 1_700_000_000_000_000,
    };
    let opened = recover::open(set.expect("a volume"), &options);
    (opened.expect("a volume that can be recovered").0, locks)
}

/// A view of what nobody writes to; waits for those who still do.
fn quiet(path: &Path) -> (View, LockGuard) {
    let lock = lock::acquire(path, 0, Lock::Read, PATIENCE).expect("the lock");
    let device = open(path, &options(path, false)).expect("a device");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    let view = View::open(set, &ViewOptions::default()).expect("a view");
    (view, lock)
}

/// The slave on `path` is sound, has at least `floor`, and is as of its TID and as of all of `acks`
/// what the master was. Gives its TID, 0 if there is no slave yet.
pub fn inspect(path: &Path, master: &Master, floor: Tid, acks: &[Tid]) -> Tid {
    let (mut view, _lock) = quiet(path);
    checked(&mut view).expect("a sound slave");
    let Some(found) = pfs::load(&mut view, MASTER).expect("a table") else {
        assert_eq!(floor, Tid::ZERO, "the slave is gone");
        return Tid::ZERO;
    };
    let synced = found.data.sync_end_tid();
    assert!(synced >= floor, "acknowledged {floor}, and it has {synced}");
    let own = (synced > Tid(1)).then_some(synced);
    for tid in acks.iter().copied().chain(own) {
        let ours = quick_digest(&mut view, tid).expect("a readable slave");
        let journal = master.journal.lock().expect("no panic");
        assert!(
            journal.has(tid, &ours),
            "the slave as of {tid} is not what its master ever was"
        );
    }
    synced
}

/// The slave on `path` is what the master is.
pub fn equal(path: &Path, master: &Master) {
    let synced = inspect(path, master, Tid::ZERO, &[]);
    let (mut view, _lock) = quiet(path);
    let (tid, digest) = master.journal.lock().expect("no panic").last();
    assert!(synced >= tid, "as of {synced}, and the master of {tid}");
    assert_eq!(quick_digest(&mut view, synced).expect("readable"), digest);
}

/// The TIDs that the events in `told` acknowledge.
pub fn acknowledged(told: &str) -> Vec<Tid> {
    let mut tids = Vec::new();
    // The last line may be cut.
    let events = told
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    for event in events {
        let event: Value = event;
        let kind = event["type"].as_str().unwrap_or_default();
        let tid = match kind {
            "acknowledged" => event["tid"].as_str().or(event["sync_end_tid"].as_str()),
            "pass" => event["sync_end_tid"].as_str(),
            _ => None,
        };
        let Some(tid) = tid else { continue };
        let tid = u64::from_str_radix(tid.trim_start_matches("0x"), 16);
        tids.push(Tid(tid.expect("a TID in hex")));
    }
    tids
}
