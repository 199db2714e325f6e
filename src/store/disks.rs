//! The devices of a set as one place to read from and write to: many requests under way, reads
//! completed by ticket, writes by barrier.
//!
//! After a failed write or flush the devices are latched: nothing more is written, and every later
//! write and flush says why (principles, rule 4).

use crate::error::{Class, Error, Result};
use crate::io::{Buf, Device, Done, Op};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::io;

/// Bytes from which on a write is worth starting by itself.
const LONG: usize = 128 << 10;

/// What was asked of the devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read operations issued.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Names a read under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(u64);

/// Devices with a queue of reads each.
pub(super) struct Disks {
    disks: Vec<Disk>,
    /// Completed reads that nobody has asked for yet.
    done: FxHashMap<u64, io::Result<Buf>>,
    /// Reads under way whose result nobody wants any more.
    cancelled: FxHashSet<u64>,
    next_tag: u64,
    counters: Counters,
    /// What made a write or flush fail.
    latched: Option<(Class, String)>,
}

struct Disk {
    device: Box<dyn Device>,
    queue: VecDeque<(u64, u64, usize)>,
    /// Writes that are not complete.
    writing: usize,
    /// Whether anything was written since the last flush.
    unflushed: bool,
}

impl Disks {
    pub fn new(devices: Vec<Box<dyn Device>>) -> Disks {
        let disks = devices.into_iter().map(|device| Disk {
            device,
            queue: VecDeque::new(),
            writing: 0,
            unflushed: false,
        });
        Disks {
            disks: disks.collect(),
            done: FxHashMap::default(),
            cancelled: FxHashSet::default(),
            next_tag: 0,
            counters: Counters::default(),
            latched: None,
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.disks.len()
    }

    pub fn size(&self, disk: usize) -> u64 {
        self.disks[disk].device.size()
    }

    pub fn name(&self, disk: usize) -> &str {
        self.disks[disk].device.name()
    }

    pub fn device(&mut self, disk: usize) -> &mut dyn Device {
        &mut *self.disks[disk].device
    }

    /// Queues a read of `len` bytes at `at` (aligned for the device), before all others if `urgent`.
    pub fn start(&mut self, disk: usize, at: u64, len: usize, urgent: bool) -> Ticket {
        let tag = self.next_tag;
        self.next_tag += 1;
        let queue = &mut self.disks[disk].queue;
        if urgent {
            queue.push_front((tag, at, len));
        } else {
            queue.push_back((tag, at, len));
        }
        Ticket(tag)
    }

    /// Gives the devices what they can take and collects what they have done; does not wait.
    pub fn poll(&mut self) -> Result<()> {
        (0..self.disks.len()).try_for_each(|disk| self.turn(disk, 0))
    }

    /// Waits for a read that was started on `disk`.
    pub fn wait(&mut self, disk: usize, ticket: Ticket) -> Result<io::Result<Buf>> {
        loop {
            if let Some(result) = self.done.remove(&ticket.0) {
                return Ok(result);
            }
            self.turn(disk, 0)?;
            if self.done.contains_key(&ticket.0) {
                continue;
            }
            // What is queued still has its turn: the device may have been full a moment ago.
            let Disk { device, queue, .. } = &self.disks[disk];
            if device.in_flight() == 0 && queue.is_empty() {
                let text = format!("{}: a read got lost", self.name(disk));
                return Err(Error::new(crate::error::Class::Io, text));
            }
            self.turn(disk, 1)?;
        }
    }

    /// What a read gave, if it is complete and went well. A failure stays for [`Disks::wait`].
    pub fn take_good(&mut self, ticket: Ticket) -> Option<Buf> {
        match self.done.remove(&ticket.0)? {
            Ok(buf) => Some(buf),
            Err(error) => {
                self.done.insert(ticket.0, Err(error));
                None
            }
        }
    }

    /// Waits until nothing is under way on `disk`; results stay for whoever asks.
    pub fn drain(&mut self, disk: usize) -> Result<()> {
        while !self.disks[disk].queue.is_empty() || self.disks[disk].device.in_flight() > 0 {
            self.turn(disk, 1)?;
        }
        Ok(())
    }

    /// Forgets a read: its result will be dropped.
    pub fn cancel(&mut self, disk: usize, ticket: Ticket) {
        let queue = &mut self.disks[disk].queue;
        let queued = queue.len();
        queue.retain(|(tag, ..)| *tag != ticket.0);
        if queue.len() == queued && self.done.remove(&ticket.0).is_none() {
            self.cancelled.insert(ticket.0);
        }
    }

    /// Reads `len` bytes at `at` and waits for them.
    pub fn read(&mut self, disk: usize, at: u64, len: usize) -> Result<Buf> {
        let ticket = self.start(disk, at, len, true);
        self.wait(disk, ticket)?.map_err(|e| {
            let what = format!("{}: reading {len} bytes at {at}", self.name(disk));
            Error::io(what, e)
        })
    }

    /// A buffer for a write to `disk`, contents unspecified.
    pub fn buffer(&mut self, disk: usize, len: usize) -> Buf {
        self.disks[disk].device.buffer(len)
    }

    /// Starts writing `buf` at `at` of `disk`. That it went well shows at the next barrier; that an
    /// earlier one did not may show here, once all that was under way has ended.
    pub fn write(&mut self, disk: usize, at: u64, buf: Buf) -> Result<()> {
        let long = buf.len() >= LONG;
        let (tag, mut op) = (self.next_tag, Op::Write { at, buf });
        self.next_tag += 1;
        self.disks[disk].unflushed = true;
        while self.latched.is_none() {
            match self.disks[disk].device.submit(tag, op) {
                Ok(()) => {
                    self.disks[disk].writing += 1;
                    if long {
                        // Starts it. Short ones start together, with the next barrier at the latest.
                        self.collect(disk, 0)?;
                    }
                    break;
                }
                Err(_) if self.disks[disk].device.in_flight() == 0 => {
                    let text = format!("{}: the device takes no write", self.name(disk));
                    return Err(self.latch(Class::Io, text));
                }
                Err(back) => op = back,
            }
            self.collect(disk, 1)?;
        }
        match self.latched {
            Some(_) => self.finish_writes(),
            None => Ok(()),
        }
    }

    /// Waits until every write is complete.
    pub fn finish_writes(&mut self) -> Result<()> {
        for disk in 0..self.disks.len() {
            while self.disks[disk].writing > 0 {
                // All at once: whoever waits for each wakes up for each.
                self.collect(disk, self.disks[disk].writing)?;
            }
        }
        self.check_latch()
    }

    /// Waits until every write is complete, then makes them stable: a barrier. Gives the number of
    /// flushes.
    pub fn barrier(&mut self) -> Result<u64> {
        self.finish_writes()?;
        let mut flushed = 0;
        for disk in 0..self.disks.len() {
            if !self.disks[disk].unflushed {
                continue;
            }
            // A flush may be submitted only with nothing in flight: queued reads wait.
            while self.disks[disk].device.in_flight() > 0 {
                self.collect(disk, 1)?;
            }
            let tag = self.next_tag;
            self.next_tag += 1;
            if self.disks[disk].device.submit(tag, Op::Flush).is_err() {
                let text = format!("{}: the device takes no flush", self.name(disk));
                return Err(self.latch(Class::Io, text));
            }
            self.disks[disk].unflushed = false;
            flushed += 1;
        }
        for disk in 0..self.disks.len() {
            while self.disks[disk].device.in_flight() > 0 {
                self.collect(disk, 1)?;
            }
        }
        self.check_latch()?;
        Ok(flushed)
    }

    /// An error if a write or flush has failed.
    pub fn check_latch(&self) -> Result<()> {
        match &self.latched {
            None => Ok(()),
            Some((class, text)) => Err(Error::new(
                *class,
                format!(
                    "{text}; nothing more is written until the volume is opened again, which \
                     recovers it"
                ),
            )),
        }
    }

    /// Lets nothing be written any more, for this reason; gives the error that says so.
    pub fn latch(&mut self, class: Class, text: String) -> Error {
        self.latched.get_or_insert((class, text.clone()));
        Error::new(class, text)
    }

    fn turn(&mut self, disk: usize, min: usize) -> Result<()> {
        let Disk { device, queue, .. } = &mut self.disks[disk];
        // Buffers come from a pool: take none for a read that has no place yet.
        while device.in_flight() < device.depth() {
            let Some((tag, at, len)) = queue.pop_front() else {
                break;
            };
            let buf = device.buffer(len);
            if device.submit(tag, Op::Read { at, buf }).is_err() {
                queue.push_front((tag, at, len));
                break;
            }
            self.counters.reads += 1;
            self.counters.bytes += len as u64;
        }
        self.collect(disk, min)
    }

    /// Takes over what the device has completed, `min` operations at least.
    fn collect(&mut self, disk: usize, min: usize) -> Result<()> {
        let Disk {
            device, unflushed, ..
        } = &mut self.disks[disk];
        let mut completed = Vec::new();
        if let Err(error) = device.reap(min, &mut completed) {
            let error = Error::io(format!("{}: waiting for the device", device.name()), error);
            if *unflushed {
                // Nobody knows what became of the writes.
                self.latch(error.class(), error.to_string());
            }
            return Err(error);
        }
        for Done { tag, op, result } in completed {
            let what = match op {
                Op::Read { buf, .. } => {
                    if !self.cancelled.remove(&tag) {
                        self.done.insert(tag, result.map(|()| buf));
                    }
                    continue;
                }
                Op::Write { at, buf } => {
                    self.disks[disk].writing -= 1;
                    format!("writing {} bytes at {at}", buf.len())
                }
                Op::Flush => "flushing".to_owned(),
            };
            if let Err(error) = result {
                let error = Error::io(format!("{}: {what}", self.name(disk)), error);
                self.latch(error.class(), error.to_string());
            }
        }
        Ok(())
    }
}
