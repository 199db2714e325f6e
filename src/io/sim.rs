//! A simulated disk, for tests and fuzzing: the engine above runs on it as on a real one.
//!
//! A [`SimDisk`] holds its contents in memory, over a file that it only reads or over zeros. Any
//! number of [`SimDevice`]s work on one disk, so that a reader and a writer can meet in one
//! process. Operations complete out of order, directed by a seed: the same seed and the same calls
//! give the same run. The disk counts and logs what it does, fails or lies on demand
//! ([`SimDisk::inject`]), lets a test step in before each operation ([`SimDisk::set_hook`]), and
//! rebuilds every image that a power cut could have left ([`SimDisk::crash_images`]).

mod contents;
mod crash;
mod device;

pub use crash::{CrashImage, CrashPlan, Survive};
pub use device::SimDevice;

use super::Op;
use contents::Contents;
use nix::libc;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An operation, as the counters, the faults and the hook see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A read of `len` bytes at `at`.
    Read {
        /// Byte offset.
        at: u64,
        /// Bytes.
        len: usize,
    },
    /// A write of `len` bytes at `at`.
    Write {
        /// Byte offset.
        at: u64,
        /// Bytes.
        len: usize,
    },
    /// A flush.
    Flush,
}

impl Step {
    fn of(op: &Op) -> Step {
        match op {
            Op::Read { at, buf } => Step::Read {
                at: *at,
                len: buf.len(),
            },
            Op::Write { at, buf } => Step::Write {
                at: *at,
                len: buf.len(),
            },
            Op::Flush => Step::Flush,
        }
    }
}

/// What happened to the medium, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These bytes were written; they may be lost until the next flush.
    Write {
        /// Byte offset.
        at: u64,
        /// What was written.
        bytes: Arc<[u8]>,
    },
    /// Everything before is stable.
    Flush,
}

/// How many operations devices have submitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Bytes of all reads.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes of all writes.
    pub written_bytes: u64,
    /// Flushes.
    pub flushes: u64,
}

/// Which operations a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// All.
    Any,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
}

/// What goes wrong with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; it fails with this error number (`EIO`, `ENOSPC`).
    Fail(i32),
    /// Only the first bytes are transferred (for writes: in whole 512-byte sectors), then it fails
    /// with `EIO`.
    Short(usize),
    /// One bit is flipped on the way, and it succeeds.
    Corrupt,
    /// It happens this many bytes further on (or back) and succeeds; beyond either end of the
    /// disk it fails.
    Misdirect(i64),
    /// A write or flush that succeeds and was never done.
    Lose,
    /// It completes only after this many others, or when there are no others.
    Delay(u32),
}

impl Fault {
    /// An input/output error.
    pub const EIO: Fault = Fault::Fail(libc::EIO);
    /// No space left on the host.
    pub const ENOSPC: Fault = Fault::Fail(libc::ENOSPC);
}

#[derive(Debug)]
struct Rule {
    on: On,
    /// Matching operations still to pass.
    left: u64,
    forever: bool,
    fault: Fault,
}

/// Called before an operation is performed, with the disk, which is not locked meanwhile.
pub type Hook = Box<dyn FnMut(Step, &SimDisk) + Send>;

struct Disk {
    contents: Contents,
    /// What the log started from.
    initial: Contents,
    log: Vec<Event>,
    counts: Counts,
    rules: Vec<Rule>,
    unreadable: Vec<Range<u64>>,
    hook: Option<Hook>,
    /// Counts changes of the hook, so that one that is running does not come back after its end.
    hooks: u64,
    sector: usize,
    flips: Random,
}

/// A simulated disk; copies are handles to the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Disk>>);

impl SimDisk {
    /// A disk of `size` zero bytes with 512-byte sectors.
    pub fn new(size: u64) -> SimDisk {
        SimDisk::with(Contents::new(size, None), 512)
    }

    /// A disk that holds `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> SimDisk {
        let disk = SimDisk::new(bytes.len() as u64);
        let filled = disk.lock().fill(bytes);
        // Memory over zeros, of exactly this length: nothing there can fail.
        filled.expect("bytes fit a disk of their length");
        disk
    }

    /// A disk that holds what `file` holds; changes stay in memory. The file is read as needed.
    pub fn over(file: File) -> io::Result<SimDisk> {
        let size = file.metadata()?.len();
        Ok(SimDisk::with(Contents::new(size, Some(file)), 512))
    }

    fn with(contents: Contents, sector: usize) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(Disk {
            initial: contents.clone(),
            contents,
            log: Vec::new(),
            counts: Counts::default(),
            rules: Vec::new(),
            unreadable: Vec::new(),
            hook: None,
            hooks: 0,
            sector,
            flips: Random(1),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same disk with this sector size (a power of two, 512 to 4096), for devices made from
    /// now on.
    pub fn sector(self, bytes: usize) -> SimDisk {
        let bytes = bytes.clamp(512, super::buf::ALIGN).next_power_of_two();
        self.lock().sector = bytes;
        self
    }

    /// A device on this disk for reading and writing. `seed` directs the order of completion; 0
    /// completes in order of submission.
    pub fn device(&self, seed: u64) -> SimDevice {
        SimDevice::new(self.clone(), seed, true)
    }

    /// Like [`SimDisk::device`], for reading only.
    pub fn reader(&self, seed: u64) -> SimDevice {
        SimDevice::new(self.clone(), seed, false)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.lock().contents.size()
    }

    /// Reads the contents, past devices, counters and faults.
    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.lock().contents.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Changes the contents, past devices, counters and faults; logged.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.lock().write(at, bytes)
    }

    /// Makes everything written so far stable; logged.
    pub fn flush(&self) {
        self.lock().log.push(Event::Flush);
    }

    /// An independent disk with the same contents and an empty log.
    pub fn snapshot(&self) -> SimDisk {
        let disk = self.lock();
        SimDisk::with(disk.contents.clone(), disk.sector)
    }

    /// What devices have submitted so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// What happened to the medium so far.
    pub fn log(&self) -> Vec<Event> {
        self.lock().log.clone()
    }

    /// Length of the log: a point in time for [`SimDisk::crash`].
    pub fn now(&self) -> usize {
        self.lock().log.len()
    }

    /// Empties the log; what stands becomes stable.
    pub fn forget_log(&self) {
        let disk = &mut *self.lock();
        disk.log.clear();
        disk.initial = disk.contents.clone();
    }

    /// Lets the `nth` operation of the kind `on` that is submitted from now on (0: the next) have
    /// `fault`.
    pub fn inject(&self, on: On, nth: u64, fault: Fault) {
        self.add_rule(on, nth, fault, false);
    }

    /// Like [`SimDisk::inject`], for that operation and all later ones of the kind.
    pub fn inject_from(&self, on: On, nth: u64, fault: Fault) {
        self.add_rule(on, nth, fault, true);
    }

    fn add_rule(&self, on: On, left: u64, fault: Fault, forever: bool) {
        self.lock().rules.push(Rule {
            on,
            left,
            forever,
            fault,
        });
    }

    /// Lets every read that touches `range` fail with `EIO`.
    pub fn set_unreadable(&self, range: Range<u64>) {
        self.lock().unreadable.push(range);
    }

    /// Ends all faults and unreadable ranges.
    pub fn heal(&self) {
        let disk = &mut *self.lock();
        disk.rules.clear();
        disk.unreadable.clear();
    }

    /// Calls `hook` before each operation of a device is performed (at the device's
    /// [`reap`](super::Device::reap)), so that a test can let another writer work between two
    /// reads. The hook is not called for operations that it causes itself.
    pub fn set_hook(&self, hook: impl FnMut(Step, &SimDisk) + Send + 'static) {
        self.change_hook(Some(Box::new(hook)));
    }

    /// Removes the hook.
    pub fn clear_hook(&self) {
        self.change_hook(None);
    }

    fn change_hook(&self, hook: Option<Hook>) {
        let disk = &mut *self.lock();
        disk.hook = hook;
        disk.hooks += 1;
    }

    /// Calls the hook, which is away meanwhile.
    fn call_hook(&self, step: Step) {
        let (hook, hooks) = {
            let disk = &mut *self.lock();
            (disk.hook.take(), disk.hooks)
        };
        let Some(mut hook) = hook else {
            return;
        };
        hook(step, self);
        let disk = &mut *self.lock();
        if disk.hooks == hooks {
            disk.hook = Some(hook);
        }
    }

    /// Counts an operation and finds the fault it shall have.
    fn admit(&self, step: Step) -> Option<Fault> {
        let disk = &mut *self.lock();
        let on = match step {
            Step::Read { len, .. } => {
                disk.counts.reads += 1;
                disk.counts.read_bytes += len as u64;
                On::Read
            }
            Step::Write { len, .. } => {
                disk.counts.writes += 1;
                disk.counts.written_bytes += len as u64;
                On::Write
            }
            Step::Flush => {
                disk.counts.flushes += 1;
                On::Flush
            }
        };
        let mut fault = None;
        disk.rules.retain_mut(|rule| {
            if rule.on != On::Any && rule.on != on {
                return true;
            }
            if rule.left > 0 {
                rule.left -= 1;
                return true;
            }
            fault = fault.or(Some(rule.fault));
            rule.forever
        });
        fault
    }

    /// Performs an operation.
    fn perform(&self, op: &mut Op, fault: Option<Fault>) -> io::Result<()> {
        self.call_hook(Step::of(op));
        let disk = &mut *self.lock();
        if let Some(Fault::Fail(code)) = fault {
            return Err(io::Error::from_raw_os_error(code));
        }
        match op {
            Op::Read { at, buf } => disk.perform_read(*at, buf, fault),
            Op::Write { at, buf } => disk.perform_write(*at, buf, fault),
            Op::Flush => {
                if fault != Some(Fault::Lose) {
                    disk.log.push(Event::Flush);
                }
                Ok(())
            }
        }
    }
}

impl Disk {
    /// Puts `bytes` there as what the log starts from.
    fn fill(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.contents.write(0, bytes)?;
        self.initial = self.contents.clone();
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.contents.write(at, bytes)?;
        let bytes = Arc::from(bytes);
        self.log.push(Event::Write { at, bytes });
        Ok(())
    }

    fn perform_read(&mut self, at: u64, buf: &mut [u8], fault: Option<Fault>) -> io::Result<()> {
        let at = redirect(at, fault)?;
        let end = at.saturating_add(buf.len() as u64);
        if self.unreadable.iter().any(|r| r.start < end && at < r.end) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if let Some(Fault::Short(count)) = fault {
            let count = count.min(buf.len());
            self.contents.read(at, &mut buf[..count])?;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.contents.read(at, buf)?;
        if fault == Some(Fault::Corrupt) {
            self.flips.flip(buf);
        }
        Ok(())
    }

    fn perform_write(&mut self, at: u64, buf: &[u8], fault: Option<Fault>) -> io::Result<()> {
        let at = redirect(at, fault)?;
        match fault {
            Some(Fault::Lose) => Ok(()),
            Some(Fault::Short(count)) => {
                let count = count.min(buf.len()) / crash::TEAR * crash::TEAR;
                self.write(at, &buf[..count])?;
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            Some(Fault::Corrupt) => {
                let mut bytes = buf.to_vec();
                self.flips.flip(&mut bytes);
                self.write(at, &bytes)
            }
            _ => self.write(at, buf),
        }
    }
}

/// Where an operation at `at` really goes.
fn redirect(at: u64, fault: Option<Fault>) -> io::Result<u64> {
    let Some(Fault::Misdirect(by)) = fault else {
        return Ok(at);
    };
    at.checked_add_signed(by)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))
}

/// A small, reproducible source of numbers (splitmix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    fn below(&mut self, limit: usize) -> usize {
        self.next().checked_rem(limit as u64).unwrap_or(0) as usize
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        let bit = self.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }
}
