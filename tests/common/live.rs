//! A volume under the kernel's hands, write by write (golden `live/`), and what is in it.

use mallet::Result;
use mallet::btree::{AsOf, good_data};
use mallet::format::record::{INODE_CRC_BYTES, rt};
use mallet::format::{Key, Tid};
use mallet::io::sim::SimDisk;
use mallet::store::{View, ViewOptions, VolumeSet};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;
use zerocopy::IntoBytes;

/// One record of `writes.log`.
pub enum Event {
    Write {
        at: u64,
        from: usize,
        len: usize,
    },
    Flush,
    /// Behind a sync: this TID is committed.
    Mark(Tid),
}

/// What the kernel sent to the device, in order.
pub struct Log {
    bytes: Vec<u8>,
    /// Write, flush, mark, as they came.
    pub events: Vec<Event>,
}

impl Log {
    /// Reads `writes.log`.
    pub fn read(bytes: Vec<u8>) -> Log {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (mut events, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (kind, len, place) = (u32_at(at), u32_at(at + 4) as usize, u64_at(at + 8));
            let from = at + 16;
            events.push(match kind {
                1 => Event::Write {
                    at: place,
                    from,
                    len,
                },
                2 => Event::Flush,
                3 => Event::Mark(Tid(u64_at(from))),
                other => panic!("kind {other} at {at}"),
            });
            at = from + len;
        }
        Log { bytes, events }
    }

    /// Does on `disk` what the kernel did next.
    pub fn replay(&self, index: usize, disk: &SimDisk) {
        match &self.events[index] {
            Event::Write { at, from, len } => {
                let bytes = &self.bytes[*from..from + len];
                disk.write(*at, bytes).expect("a write within the device");
            }
            Event::Flush => disk.flush(),
            Event::Mark(_) => {}
        }
    }
}

/// A view of `disk`, with little memory: most buffers are read more than once.
pub fn view(disk: &SimDisk, seed: u64, live: bool) -> Result<View> {
    let set = VolumeSet::open(vec![Box::new(disk.reader(seed))])?;
    let options = ViewOptions {
        cache_bytes: 256 << 10,
        live,
        ..ViewOptions::default()
    };
    View::open(set, &options)
}

/// PFS 1 as of `tid`, all but what can change without a TID: a hash and the number of records.
pub fn digest(view: &mut View, tid: Tid) -> Result<(String, u64)> {
    let mut records = AsOf::new(Key::pfs_min(1), Key::pfs_max(1), tid);
    let (mut hash, mut count) = (Sha256::new(), 0);
    while let Some(mut leaf) = records.next(view)? {
        let data = good_data(view, &leaf)?;
        let covered = match leaf.base.rec_type.get() {
            rt::INODE => &data[..INODE_CRC_BYTES],
            _ => &data[..],
        };
        leaf.base.delete_tid.set(0);
        leaf.delete_ts.set(0);
        leaf.data_offset.set(0);
        hash.update(leaf.as_bytes());
        hash.update(covered);
        count += 1;
    }
    Ok((
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect(),
        count,
    ))
}

/// What a quiet view shows at every mark: its index, its TID, the digest as of it.
pub fn truth(start: &Path, log: &Log) -> Vec<(usize, Tid, String)> {
    let disk = SimDisk::over(File::open(start).expect("the start image")).expect("a disk");
    let mut marks = Vec::new();
    for (index, event) in log.events.iter().enumerate() {
        log.replay(index, &disk);
        if let Event::Mark(tid) = event {
            disk.forget_log();
            let mut quiet = view(&disk, 0, false).expect("a quiet view");
            let (hash, count) = digest(&mut quiet, *tid).expect("a readable state");
            assert!(count > 0);
            marks.push((index, *tid, hash));
        }
    }
    marks
}
