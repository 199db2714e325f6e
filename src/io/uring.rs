//! The device over io_uring: many operations under way in one thread, from and to buffers that
//! are registered with the kernel where it allows that.
//!
//! One ring per device, without a polling thread of the kernel's. Ordering is never left to the
//! kernel (linking or draining its queue is no barrier against the device): a flush is accepted
//! only when nothing else is under way.
#![allow(unsafe_code)]

use super::buf::{Buf, Pool};
use super::medium::{Latch, Medium};
use super::{Device, Done, Op};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use nix::libc;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// How often an operation is begun anew without having moved a byte, before it counts as failed.
const RETRIES_MAX: u32 = 1000;
/// With no more writes under way than this, the kernel has each as soon as it is submitted: a device
/// that would otherwise stand idle begins while the next one is made. Beyond, they go in batches.
const EAGER: usize = 8;
/// How long to wait for memory to become free before entering the kernel again.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// An operation that the kernel has, or will have at the next entry.
struct Flight {
    tag: u64,
    op: Op,
    /// Bytes already transferred.
    done: usize,
    retries: u32,
}

/// A file or block device behind a ring of its own.
///
/// Invariant: the buffer of every operation that the kernel may still touch is owned by `flights`
/// (or leaked), and the registered memory by `pool` and the [`Buf`]s taken from it.
pub(super) struct Uring {
    ring: IoUring,
    medium: Medium,
    depth: usize,
    latch: Latch,
    flights: Vec<Option<Flight>>,
    /// Free positions in `flights`.
    free: Vec<usize>,
    /// Completed without the kernel.
    ready: Vec<Done>,
    /// A write that the queue does not have yet: nothing else is under way. Whoever waits for it at
    /// once has it done sooner without the ring.
    lone: Option<usize>,
    /// Whether the one operation in flight must have the device to itself.
    alone: bool,
    pool: Arc<Pool>,
    /// Address of each registered slot.
    registered: Vec<usize>,
}

/// A ring for `depth` operations that is known to work, or why this host has none: too old, not
/// allowed to this process, out of descriptors or memory.
pub(super) fn ring(depth: usize) -> io::Result<IoUring> {
    let mut ring = IoUring::builder().dontfork().build(depth as u32)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Nop::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
    ];
    if !needed.into_iter().all(|code| probe.is_supported(code)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // A filter may allow the setup and refuse the use.
    // SAFETY: the operation refers to no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(io::Error::other)?;
    while ring.completion().next().is_none() {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(ring)
}

impl Uring {
    /// A device of `medium` on `ring`, with up to `depth` operations in flight (at most what the
    /// ring was made for). Registers as much of `pool`, of which nothing may be taken yet, as the
    /// host allows.
    pub fn new(ring: IoUring, medium: Medium, depth: usize, pool: Arc<Pool>) -> Uring {
        let registered = register(&ring, &pool);
        Uring {
            ring,
            medium,
            depth,
            latch: Latch::default(),
            flights: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            ready: Vec::new(),
            lone: None,
            alone: false,
            pool,
            registered,
        }
    }

    /// Operations that the kernel has or will have.
    fn under_way(&self) -> usize {
        self.depth - self.free.len()
    }

    /// Puts the rest of the operation at `index` into the submission queue.
    fn push(&mut self, index: usize) {
        let Some(flight) = self.flights.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let entry = entry(&self.medium, &self.registered, flight).user_data(index as u64);
        // SAFETY: the entry points into the buffer of `flight`, whose memory stays where it is
        // while the flight is moved; the flight leaves `flights` only after its completion, and
        // `drop` waits for that or leaks it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // The queue has a place for each of the `depth` flights, and each is in it at most once.
        pushed.expect("room for every flight");
    }

    /// Puts the write that was held back into the submission queue: others are to go with it.
    fn push_lone(&mut self) {
        if let Some(index) = self.lone.take() {
            self.push(index);
        }
    }

    /// Carries out the write that was held back.
    fn write_lone(&mut self) {
        let Some(index) = self.lone.take() else {
            return;
        };
        let Some(Flight {
            op: Op::Write { at, buf },
            ..
        }) = &self.flights[index]
        else {
            return;
        };
        let file = self.medium.route(*at, buf.len(), true);
        let result = file.write_all_at(buf, self.medium.base + at);
        self.land(index, result);
    }

    /// Enters the kernel: gives it what is queued and waits for `want` completions, then takes
    /// them. Fails only if the kernel keeps refusing.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..RETRIES_MAX {
            let result = self.ring.submit_and_wait(want);
            self.collect();
            let Err(error) = result else {
                return Ok(());
            };
            match error.raw_os_error() {
                // A signal, or completions had to be taken first.
                Some(libc::EINTR | libc::EBUSY) => return Ok(()),
                // No memory at the moment.
                Some(libc::EAGAIN | libc::ENOMEM) => std::thread::sleep(RETRY_PAUSE),
                _ => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Takes what the kernel has completed; begins anew what was cut short.
    fn collect(&mut self) {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            let index = entry.user_data() as usize;
            let Some(flight) = self.flights.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            match flight.advance(entry.result()) {
                None => self.push(index),
                Some(result) => self.land(index, result),
            }
        }
    }

    fn land(&mut self, index: usize, result: io::Result<()>) {
        let Some(Flight { tag, op, .. }) = self.flights[index].take() else {
            return;
        };
        self.free.push(index);
        let result = self.medium.settle(&mut self.latch, &op, result);
        self.ready.push(Done { tag, op, result });
    }
}

/// Registers the slots of `pool` (half as many, and again half, while the host refuses) and
/// returns their addresses.
fn register(ring: &IoUring, pool: &Arc<Pool>) -> Vec<usize> {
    let mut slots = pool.addresses();
    slots.sort_unstable_by_key(|(slot, ..)| *slot);
    let mut vectors: Vec<libc::iovec> = slots
        .iter()
        .map(|(_, address, len)| libc::iovec {
            iov_base: address.cast_mut().cast(),
            iov_len: *len,
        })
        .collect();
    while !vectors.is_empty() {
        // SAFETY: each vector is memory of a pool slot, which is neither moved nor freed while the
        // pool lives; the device keeps the pool as long as the ring.
        match unsafe { ring.submitter().register_buffers(&vectors) } {
            Ok(()) => break,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => vectors.truncate(vectors.len() / 2),
        }
    }
    vectors.iter().map(|v| v.iov_base as usize).collect()
}

/// What asks the kernel for the rest of `flight`.
fn entry(medium: &Medium, registered: &[usize], flight: &mut Flight) -> squeue::Entry {
    let done = flight.done;
    let (at, buf, write) = match &mut flight.op {
        Op::Read { at, buf } => (*at, buf, false),
        Op::Write { at, buf } => (*at, buf, true),
        // Carried out when it is submitted.
        Op::Flush => return opcode::Nop::new().build(),
    };
    // A buffer of another device's pool has a slot number too, but another address.
    let slot = buf
        .slot()
        .filter(|slot| registered.get(usize::from(*slot)).copied() == Some(buf.as_ptr() as usize));
    let place = at + done as u64;
    let file = medium.route(place, buf.len() - done, write);
    let fd = types::Fd(file.as_raw_fd());
    let place = medium.base + place;
    let rest = &mut buf[done..];
    let len = rest.len() as u32;
    let start = rest.as_mut_ptr();
    match (write, slot) {
        (false, Some(slot)) => opcode::ReadFixed::new(fd, start, len, slot)
            .offset(place)
            .build(),
        (false, None) => opcode::Read::new(fd, start, len).offset(place).build(),
        (true, Some(slot)) => opcode::WriteFixed::new(fd, start, len, slot)
            .offset(place)
            .build(),
        (true, None) => opcode::Write::new(fd, start, len).offset(place).build(),
    }
}

impl Flight {
    /// Takes a completion (a count or a negative error number) into account. `None`: not done yet.
    fn advance(&mut self, result: i32) -> Option<io::Result<()>> {
        if result < 0 {
            // Cancelled: the thread that had submitted it has ended.
            let again = matches!(-result, libc::EINTR | libc::EAGAIN | libc::ECANCELED);
            if again && self.retries < RETRIES_MAX {
                self.retries += 1;
                return None;
            }
            return Some(Err(io::Error::from_raw_os_error(-result)));
        }
        let (len, stopped) = match &self.op {
            Op::Read { buf, .. } => (buf.len(), io::ErrorKind::UnexpectedEof),
            Op::Write { buf, .. } => (buf.len(), io::ErrorKind::WriteZero),
            Op::Flush => return Some(Ok(())),
        };
        // Never more than was asked for.
        self.done += (result as usize).min(len - self.done);
        self.retries = 0;
        match result {
            _ if self.done == len => Some(Ok(())),
            0 => Some(Err(stopped.into())),
            _ => None,
        }
    }
}

impl Device for Uring {
    fn size(&self) -> u64 {
        self.medium.size
    }

    fn align(&self) -> usize {
        self.medium.align
    }

    fn name(&self) -> &str {
        &self.medium.name
    }

    fn name_at(&self, offset: u64) -> String {
        self.medium.name_at(offset)
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn engine(&self) -> String {
        let how = self.medium.how();
        format!("io_uring, {how}, {} MiB registered", self.registered.len())
    }

    fn buffer(&mut self, len: usize) -> Buf {
        super::medium::buffer(&self.pool, len)
    }

    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op> {
        let alone = self.medium.alone(&op);
        let crowded = (alone || self.alone) && self.in_flight() > 0;
        if self.in_flight() >= self.depth || crowded {
            return Err(op);
        }
        self.alone = alone;
        let valid = self.latch.check().and_then(|()| {
            let checked = self.medium.check(&op);
            checked.inspect_err(|error| self.latch.note(&op, error))
        });
        if let Err(error) = valid {
            let result = Err(error);
            self.ready.push(Done { tag, op, result });
            return Ok(());
        }
        if matches!(op, Op::Flush) {
            // There is nothing to wait for beside it, and the ring would only hand it to a thread.
            let result = self.medium.plain.sync_data();
            let result = self.medium.settle(&mut self.latch, &op, result);
            self.ready.push(Done { tag, op, result });
            return Ok(());
        }
        let Some(index) = self.free.pop() else {
            return Err(op);
        };
        self.flights[index] = Some(Flight {
            tag,
            op,
            done: 0,
            retries: 0,
        });
        let is_write = matches!(
            &self.flights[index],
            Some(Flight {
                op: Op::Write { .. },
                ..
            })
        );
        if is_write && self.under_way() == 1 {
            self.lone = Some(index);
            return Ok(());
        }
        self.push_lone();
        self.push(index);
        if is_write && self.under_way() <= EAGER {
            // What the kernel does not take now it is given when somebody waits.
            let _ = self.ring.submit();
        }
        Ok(())
    }

    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()> {
        match min > self.ready.len() {
            true => self.write_lone(),
            false => self.push_lone(),
        }
        self.collect();
        loop {
            let missing = min.saturating_sub(self.ready.len());
            let want = missing.min(self.under_way());
            if want == 0 && self.ring.submission().is_empty() {
                break;
            }
            self.enter(want)?;
        }
        out.append(&mut self.ready);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.under_way() + self.ready.len()
    }
}

impl Drop for Uring {
    /// Waits for everything under way, so that no buffer is freed that the kernel still fills.
    fn drop(&mut self) {
        self.push_lone();
        while self.under_way() > 0 {
            if self.enter(1).is_err() {
                // The kernel may still use them: give their memory up rather than free it.
                mem::forget(mem::take(&mut self.flights));
                mem::forget(Arc::clone(&self.pool));
                return;
            }
        }
    }
}
