//! The device over plain system calls, for hosts that refuse io_uring. An operation is carried out
//! when it is submitted; its completion waits for [`Device::reap`].

use super::buf::{Buf, Pool};
use super::medium::{Latch, Medium};
use super::{Device, Done, Op};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file or block device, read and written with `pread` and `pwrite`.
#[derive(Debug)]
pub(super) struct Posix {
    medium: Medium,
    depth: usize,
    pool: Arc<Pool>,
    latch: Latch,
    ready: Vec<Done>,
}

impl Posix {
    pub fn new(medium: Medium, depth: usize, pool: Arc<Pool>) -> Posix {
        Posix {
            medium,
            depth: depth.max(1),
            pool,
            latch: Latch::default(),
            ready: Vec::new(),
        }
    }

    fn perform(&mut self, op: &mut Op) -> io::Result<()> {
        self.latch.check()?;
        let result = self.medium.check(op).and_then(|()| match op {
            Op::Read { at, buf } => self.transfer(*at, buf.len(), false, |file, at, done| {
                file.read_at(&mut buf[done..], at)
            }),
            Op::Write { at, buf } => self.transfer(*at, buf.len(), true, |file, at, done| {
                file.write_at(&buf[done..], at)
            }),
            Op::Flush => self.medium.plain.sync_data(),
        });
        self.medium.settle(&mut self.latch, op, result)
    }

    /// Repeats `call` (descriptor, byte of the file, bytes already done) until all is done.
    fn transfer(
        &self,
        at: u64,
        len: usize,
        write: bool,
        mut call: impl FnMut(&File, u64, usize) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let place = at + done as u64;
            let file = self.medium.route(place, len - done, write);
            match call(file, self.medium.base + place, done) {
                Ok(0) if write => return Err(io::ErrorKind::WriteZero.into()),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Device for Posix {
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
        format!("posix, {}", self.medium.how())
    }

    fn buffer(&mut self, len: usize) -> Buf {
        super::medium::buffer(&self.pool, len)
    }

    fn submit(&mut self, tag: u64, mut op: Op) -> Result<(), Op> {
        // One that must be alone was accepted as the first, and nothing after it.
        let held = self
            .ready
            .first()
            .is_some_and(|done| self.medium.alone(&done.op));
        let alone = held || self.medium.alone(&op);
        if self.ready.len() >= self.depth || (alone && !self.ready.is_empty()) {
            return Err(op);
        }
        let result = self.perform(&mut op);
        self.ready.push(Done { tag, op, result });
        Ok(())
    }

    fn reap(&mut self, _min: usize, out: &mut Vec<Done>) -> io::Result<()> {
        out.append(&mut self.ready);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.ready.len()
    }
}
