//! A device on a simulated disk.

use super::super::medium::{Latch, check_range};
use super::super::{Buf, Device, Done, Op};
use super::{Fault, Random, SimDisk, Step};
use std::io;

/// How many operations a simulated device takes.
const DEPTH: usize = 32;
/// What fresh buffers are filled with, so that nobody relies on zeros.
const JUNK: u8 = 0xA5;

/// A device on a [`SimDisk`], with a queue and a latch of its own. Operations are performed when
/// they are reaped, in an order that the seed directs; dropping the device performs what is left.
pub struct SimDevice {
    disk: SimDisk,
    size: u64,
    sector: usize,
    write: bool,
    /// `None`: in order of submission.
    order: Option<Random>,
    latch: Latch,
    pending: Vec<Pending>,
    ready: Vec<Done>,
}

struct Pending {
    tag: u64,
    op: Op,
    fault: Option<Fault>,
    /// Others that must complete before this one.
    delay: u32,
}

impl SimDevice {
    pub(super) fn new(disk: SimDisk, seed: u64, write: bool) -> SimDevice {
        let (size, sector) = {
            let disk = disk.lock();
            (disk.contents.size(), disk.sector)
        };
        SimDevice {
            disk,
            size,
            sector,
            write,
            order: (seed != 0).then_some(Random(seed)),
            latch: Latch::default(),
            pending: Vec::new(),
            ready: Vec::new(),
        }
    }

    fn check(&self, op: &Op) -> io::Result<()> {
        if matches!(op, Op::Write { .. }) && !self.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        check_range(op, self.size, self.sector)
    }

    fn finish(&mut self, tag: u64, op: Op, result: io::Result<()>) {
        if let Err(error) = &result {
            self.latch.note(&op, error);
        }
        self.ready.push(Done { tag, op, result });
    }

    /// Performs one pending operation.
    fn perform_one(&mut self) {
        let free = |pending: &Pending| pending.delay == 0;
        let choices = self.pending.iter().filter(|p| free(p)).count();
        let chosen = match &mut self.order {
            Some(order) => order.below(choices),
            None => 0,
        };
        let index = self
            .pending
            .iter()
            .enumerate()
            .filter(|(_, p)| free(p))
            .nth(chosen)
            .map_or(0, |(index, _)| index);
        if self.pending.is_empty() {
            return;
        }
        let Pending {
            tag, mut op, fault, ..
        } = self.pending.remove(index);
        for other in &mut self.pending {
            other.delay = other.delay.saturating_sub(1);
        }
        let result = self.disk.perform(&mut op, fault);
        self.finish(tag, op, result);
    }
}

impl Device for SimDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn align(&self) -> usize {
        self.sector
    }

    fn name(&self) -> &str {
        "simulated disk"
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn engine(&self) -> String {
        "simulated".to_owned()
    }

    fn buffer(&mut self, len: usize) -> Buf {
        let mut buf = Buf::zeroed(len);
        buf.fill(JUNK);
        buf
    }

    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op> {
        let flush = |op: &Op| matches!(op, Op::Flush);
        let alone = flush(&op)
            || self.pending.iter().any(|p| flush(&p.op))
            || self.ready.iter().any(|done| flush(&done.op));
        if self.in_flight() >= DEPTH || (alone && self.in_flight() > 0) {
            return Err(op);
        }
        if let Err(error) = self.latch.check().and_then(|()| self.check(&op)) {
            self.finish(tag, op, Err(error));
            return Ok(());
        }
        let fault = self.disk.admit(Step::of(&op));
        let delay = match fault {
            Some(Fault::Delay(delay)) => delay,
            _ => 0,
        };
        self.pending.push(Pending {
            tag,
            op,
            fault,
            delay,
        });
        Ok(())
    }

    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()> {
        let due = min.saturating_sub(self.ready.len()).min(self.pending.len());
        // Some more may be complete by then.
        let more = self.pending.len() - due;
        let more = match &mut self.order {
            Some(order) => order.below(more + 1),
            None => more,
        };
        for _ in 0..due + more {
            self.perform_one();
        }
        out.append(&mut self.ready);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.pending.len() + self.ready.len()
    }
}

impl Drop for SimDevice {
    fn drop(&mut self) {
        while !self.pending.is_empty() {
            self.perform_one();
        }
    }
}
