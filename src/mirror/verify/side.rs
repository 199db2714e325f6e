//! A PFS of a volume that is read here, as a witness.

use super::{Answer, Ask, Depth, Digest, Entry, Place, Range, Seen, Tick, Total, Wanted, Witness};
use crate::btree::{AsOf, data, record};
use crate::error::Result;
use crate::format::mark::MARK_SIZE;
use crate::format::node::LeafElement;
use crate::format::record::{EntryHead, INODE_CRC_BYTES, PfsData, rt};
use crate::format::{Key, Tid};
use crate::store::Fetch;
use sha2::{Digest as _, Sha256};
use std::mem::offset_of;

/// Records whose data is announced together, at most.
const BATCH: usize = 128;

/// A PFS of a volume that is read here.
pub struct Side<'v> {
    fetch: &'v mut dyn Fetch,
    pfs: u16,
    name: String,
}

impl<'v> Side<'v> {
    /// PFS `pfs` of `fetch`; errors begin with `name`.
    pub fn new(fetch: &'v mut dyn Fetch, pfs: u16, name: impl Into<String>) -> Side<'v> {
        let name = name.into();
        Side { fetch, pfs, name }
    }

    fn one(&mut self, ask: &Ask, tick: Tick<'_>) -> Result<Answer> {
        let mut walk = Walk::new(self.pfs, ask);
        let mut sum = Sum::default();
        let (mut pieces, mut entries) = (Vec::new(), Vec::new());
        while let Some(batch) = walk.batch(&mut *self.fetch)? {
            let mut seen = Seen::default();
            for leaf in &batch {
                let (entry, read) = entry(&mut *self.fetch, leaf, ask.depth)?;
                seen.records += 1;
                seen.bytes += read;
                seen.object = entry.place.obj_id;
                match ask.wanted {
                    Wanted::Records => entries.push(entry),
                    Wanted::Pieces(every) if sum.count >= every => {
                        pieces.push(std::mem::take(&mut sum).piece());
                        sum.add(&entry);
                    }
                    _ => sum.add(&entry),
                }
            }
            tick(seen)?;
        }
        Ok(match ask.wanted {
            Wanted::Whole => Answer::Whole(sum.piece().1),
            Wanted::Records => Answer::Records(entries),
            Wanted::Pieces(_) => {
                if sum.count > 0 {
                    pieces.push(sum.piece());
                }
                Answer::Pieces(pieces)
            }
        })
    }
}

impl Witness for Side<'_> {
    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        let answers: Result<_> = asks.iter().map(|ask| self.one(ask, &mut *tick)).collect();
        answers.map_err(|error| error.context(&self.name))
    }
}

/// A total in the making.
#[derive(Default)]
struct Sum {
    first: Option<Place>,
    count: u64,
    damaged: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, entry: &Entry) {
        self.first.get_or_insert(entry.place);
        self.count += 1;
        self.damaged += u64::from(entry.damaged);
        self.hash.update(entry.digest);
    }

    fn piece(self) -> (Place, Total) {
        let total = Total {
            count: self.count,
            damaged: self.damaged,
            digest: self.hash.finalize().into(),
        };
        (self.first.unwrap_or(Place::MIN), total)
    }
}

/// The records that a question is about, those aside that are every copy's own.
struct Walk {
    records: AsOf,
    range: Range,
    depth: Depth,
    over: bool,
}

impl Walk {
    fn new(pfs: u16, ask: &Ask) -> Walk {
        let range = ask.range;
        let to = range.to.map_or(Key::pfs_max(pfs), |to| to.in_pfs(pfs));
        Walk {
            records: AsOf::new(range.from.in_pfs(pfs), to, ask.as_of),
            range,
            depth: ask.depth,
            over: false,
        }
    }

    /// The next records, whose data is on its way if it is needed; `None` at the end.
    fn batch(&mut self, fetch: &mut dyn Fetch) -> Result<Option<Vec<LeafElement>>> {
        let room = fetch.readahead();
        let (mut batch, mut extents, mut bytes) = (Vec::new(), Vec::new(), 0);
        while !self.over && batch.len() < BATCH && bytes < room.max(1) {
            let leaf = self.records.next(fetch)?;
            let Some(leaf) = leaf.filter(|leaf| self.range.holds(Place::of(&leaf.base.key())))
            else {
                self.over = true;
                break;
            };
            if [rt::CONFIG, rt::SNAPSHOT].contains(&leaf.base.rec_type.get()) {
                continue;
            }
            if is_read(&leaf, self.depth)
                && let Some(extent) = record::extent(&leaf)
            {
                bytes += extent.1;
                extents.push(extent);
            }
            batch.push(leaf);
        }
        if extents.len() > 1 {
            fetch.want(&extents);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// Whether a record's data has to be read: something of it may differ between good copies, or the
/// CRC is not to stand for it.
fn is_read(leaf: &LeafElement, depth: Depth) -> bool {
    depth == Depth::Data || [rt::DIRENTRY, rt::PFS].contains(&leaf.base.rec_type.get())
}

/// What is told of a record, and how many bytes of data were read for it.
fn entry<F: Fetch + ?Sized>(
    fetch: &mut F,
    leaf: &LeafElement,
    depth: Depth,
) -> Result<(Entry, u64)> {
    let place = Place::of(&leaf.base.key());
    let mut hash = Sha256::new();
    hash.update(place.class.to_le_bytes());
    hash.update(place.obj_id.to_le_bytes());
    hash.update(place.rec_type.to_le_bytes());
    hash.update(place.key.to_le_bytes());
    hash.update(leaf.base.create_tid.get().to_le_bytes());
    hash.update([leaf.base.obj_type]);
    hash.update(leaf.create_ts.get().to_le_bytes());
    hash.update(leaf.data_len.get().to_le_bytes());
    let (mut damaged, mut read) = (false, 0);
    if !is_read(leaf, depth) {
        hash.update(leaf.data_crc.get().to_le_bytes());
    } else {
        match data(fetch, leaf) {
            Ok(found) => {
                damaged = !found.crc_ok;
                read = found.bytes.len() as u64;
                same_in_copies(place.rec_type, &found.bytes, |bytes| hash.update(bytes));
            }
            Err(error) if error.is_media() => damaged = true,
            Err(error) => return Err(error),
        }
    }
    let entry = Entry {
        place,
        create_tid: Tid(leaf.base.create_tid.get()),
        len: u32::try_from(leaf.data_len.get()).unwrap_or(0),
        damaged,
        digest: Digest::from(hash.finalize()),
    };
    Ok((entry, read))
}

/// Gives what of a record's data has to be the same in a copy, in parts.
fn same_in_copies(rec_type: u16, data: &[u8], mut give: impl FnMut(&[u8])) {
    // Left out are `from..to`, as far as there are so many bytes.
    let (from, to) = match rec_type {
        rt::INODE => (INODE_CRC_BYTES, usize::MAX),
        rt::DIRENTRY => {
            let at = offset_of!(EntryHead, localization);
            (at, at + size_of::<u32>())
        }
        rt::PFS => {
            let at = offset_of!(PfsData, reserved03);
            (at, at + MARK_SIZE)
        }
        _ => (usize::MAX, usize::MAX),
    };
    let len = data.len();
    give(&data[..from.min(len)]);
    give(&data[to.min(len)..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_copies_have_of_their_own_is_left_out() {
        let kept = |rec_type, len: usize| {
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let mut kept = Vec::new();
            same_in_copies(rec_type, &data, |bytes| kept.extend_from_slice(bytes));
            let left = data.iter().filter(|byte| !kept.contains(byte));
            left.copied().collect::<Vec<u8>>()
        };
        assert_eq!(kept(rt::INODE, 128), (112..128).collect::<Vec<u8>>());
        assert_eq!(kept(rt::DIRENTRY, 20), [8, 9, 10, 11]);
        assert_eq!(kept(rt::DIRENTRY, 9), [8]);
        assert_eq!(kept(rt::PFS, 230), [228, 229]);
        for len in [0, 1, 200] {
            assert!(kept(rt::DATA, len).is_empty());
        }
    }
}
