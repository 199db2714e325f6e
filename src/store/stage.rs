//! File data on its way to the device: neighbouring pieces gathered into large writes, started as
//! soon as they are full (they lie in space that nobody refers to yet).

use super::disks::Disks;
use crate::error::Result;
use crate::io::Buf;

/// Bytes that one write takes at most.
const WRITE_MAX: usize = 1 << 20;

/// Data being gathered for one place.
#[derive(Default)]
pub(super) struct Stage {
    pending: Option<Pending>,
    /// Device ranges written since the last barrier that may still be under way.
    started: Vec<(usize, u64, u64)>,
}

struct Pending {
    disk: usize,
    at: u64,
    buf: Buf,
    len: usize,
}

impl Stage {
    /// Adds `bytes`, to be written at `at` of `disk`.
    pub fn add(&mut self, disks: &mut Disks, disk: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let follows = |p: &Pending| {
            p.disk == disk && p.at + p.len as u64 == at && p.len + bytes.len() <= p.buf.len()
        };
        if !self.pending.as_ref().is_some_and(follows) {
            self.start(disks)?;
            self.pending = Some(Pending {
                disk,
                at,
                buf: disks.buffer(disk, WRITE_MAX),
                len: 0,
            });
        }
        if let Some(pending) = &mut self.pending {
            pending.buf[pending.len..pending.len + bytes.len()].copy_from_slice(bytes);
            pending.len += bytes.len();
            if pending.len == pending.buf.len() {
                self.start(disks)?;
            }
        }
        Ok(())
    }

    /// Starts what was gathered.
    pub fn start(&mut self, disks: &mut Disks) -> Result<()> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        pending.buf.truncate(pending.len);
        let end = pending.at + pending.len as u64;
        match self.started.last_mut() {
            Some((disk, _, to)) if *disk == pending.disk && *to == pending.at => *to = end,
            _ => self.started.push((pending.disk, pending.at, end)),
        }
        disks.write(pending.disk, pending.at, pending.buf)
    }

    /// Whether any of `len` bytes at `at` of `disk` were written and may not have arrived.
    pub fn overlaps(&self, disk: usize, at: u64, len: usize) -> bool {
        let end = at + len as u64;
        let meets = |(d, from, to): (usize, u64, u64)| d == disk && from < end && at < to;
        let pending = self.pending.as_ref();
        pending.is_some_and(|p| meets((p.disk, p.at, p.at + p.len as u64)))
            || self.started.iter().any(|range| meets(*range))
    }

    /// Notes that everything that was started has arrived.
    pub fn arrived(&mut self) {
        self.started.clear();
    }

    /// Forgets what was gathered; what was started goes on.
    pub fn drop_pending(&mut self) {
        self.pending = None;
    }
}
