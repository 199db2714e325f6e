//! A PFS of a volume that is read here, as a witness.

use super::wire::PARTS_MAX;
use super::{Answer, Ask, Depth, Digest, Entry, Place, Range, Seen, Tick, Total, Wanted, Witness};
use crate::btree::{AsOf, data, record};
use crate::error::{Class, Error, Result};
use crate::format::mark::MARK_SIZE;
use crate::format::node::LeafElement;
use crate::format::record::{EntryHead, INODE_CRC_BYTES, PfsData, rt};
use crate::format::{Key, Tid};
use crate::mirror::lag::{Change, Changes, newest};
use crate::store::Fetch;
use sha2::{Digest as _, Sha256};
use std::mem::offset_of;

/// Records whose data is announced together, at most.
const BATCH: usize = 128;

/// Pictures that may expire one after the other before anything is read of them.
const LOST_MAX: u32 = 8;

/// What a side reads: one picture, or one after the other while somebody writes.
pub trait Ground {
    /// The picture.
    fn fetch(&mut self) -> &mut dyn Fetch;

    /// Takes another picture of the same PFS in place of one that has expired; `false` if it cannot.
    fn renew(&mut self) -> Result<bool> {
        Ok(false)
    }
}

impl<F: Fetch> Ground for F {
    fn fetch(&mut self) -> &mut dyn Fetch {
        self
    }
}

/// A PFS of a volume that is read here.
///
/// Where a writer overtakes the picture, the next one goes on with the record behind the last one that
/// was read: as of a TID that lies behind, both show the same records, but for what was removed without
/// history in between.
pub struct Side<'v> {
    ground: &'v mut dyn Ground,
    pfs: u16,
    name: String,
}

impl<'v> Side<'v> {
    /// PFS `pfs` of what `ground` reads; errors begin with `name`.
    pub fn new(ground: &'v mut dyn Ground, pfs: u16, name: impl Into<String>) -> Side<'v> {
        let name = name.into();
        Side { ground, pfs, name }
    }

    fn one(&mut self, ask: &Ask, tick: Tick<'_>) -> Result<Answer> {
        let mut told = Told::new(ask.wanted);
        let mut lost = 0;
        loop {
            let before = told.last;
            match self.look(ask, &mut told, &mut *tick) {
                Ok(()) => return Ok(told.answer()),
                Err(error) => {
                    lost = if told.last == before { lost + 1 } else { 1 };
                    self.again(error, lost)?;
                }
            }
        }
    }

    /// Another picture where the last one expired, as did `lost` in a row.
    fn again(&mut self, error: Error, lost: u32) -> Result<()> {
        if error.class() != Class::Expired {
            return Err(error);
        }
        if lost >= LOST_MAX {
            let text = format!(
                "writers overtook {lost} views in a row, faster than anything could be read of them: \
                 try again once less is written"
            );
            return Err(error.context(text));
        }
        match self.ground.renew()? {
            true => Ok(()),
            false => Err(error),
        }
    }

    /// Tells what the picture shows behind what has been told.
    fn look(&mut self, ask: &Ask, told: &mut Told, tick: Tick<'_>) -> Result<()> {
        let fetch = self.ground.fetch();
        let mut walk = Walk::new(self.pfs, ask, told.last);
        while let Some(batch) = walk.batch(fetch)? {
            let mut seen = Seen::default();
            for leaf in &batch {
                let (entry, read) = entry(fetch, leaf, ask.depth)?;
                seen.records += 1;
                seen.bytes += read;
                seen.object = entry.place.obj_id;
                told.add(entry)?;
            }
            tick(seen)?;
        }
        Ok(())
    }
}

impl Witness for Side<'_> {
    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        let answers: Result<_> = asks.iter().map(|ask| self.one(ask, &mut *tick)).collect();
        answers.map_err(|error| error.context(&self.name))
    }
}

impl Changes for Side<'_> {
    fn newest(&mut self, first: Tid, last: Tid, tick: Tick<'_>) -> Result<Option<Change>> {
        let mut lost = 0;
        loop {
            let found = newest(self.ground.fetch(), self.pfs, (first, last), &mut *tick);
            let Err(error) = found else { return found };
            lost += 1;
            let again = self.again(error, lost);
            again.map_err(|error| error.context(&self.name))?;
        }
    }
}

/// An answer in the making.
struct Told {
    wanted: Wanted,
    sum: Sum,
    pieces: Vec<(Place, Total)>,
    entries: Vec<Entry>,
    last: Option<Place>,
}

impl Told {
    fn new(wanted: Wanted) -> Told {
        Told {
            wanted,
            sum: Sum::default(),
            pieces: Vec::new(),
            entries: Vec::new(),
            last: None,
        }
    }

    /// Takes the next record. Errors: class `Protocol` where an answer would not end.
    fn add(&mut self, entry: Entry) -> Result<()> {
        self.last = Some(entry.place);
        match self.wanted {
            Wanted::Records => self.entries.push(entry),
            Wanted::Pieces(every) if self.sum.count >= every => {
                self.pieces.push(std::mem::take(&mut self.sum).piece());
                self.sum.add(&entry);
            }
            _ => self.sum.add(&entry),
        }
        // The piece in the making is to come.
        if self.entries.len().max(self.pieces.len() + 1) > PARTS_MAX {
            let text = format!("asked for more than {PARTS_MAX} records or pieces at once");
            return Err(Error::new(Class::Protocol, text));
        }
        Ok(())
    }

    fn answer(mut self) -> Answer {
        match self.wanted {
            Wanted::Whole => Answer::Whole(self.sum.piece().1),
            Wanted::Records => Answer::Records(self.entries),
            Wanted::Pieces(_) => {
                if self.sum.count > 0 {
                    self.pieces.push(self.sum.piece());
                }
                Answer::Pieces(self.pieces)
            }
        }
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
    /// A place whose records have been told, as have those before it.
    told: Option<Place>,
    depth: Depth,
    over: bool,
}

impl Walk {
    fn new(pfs: u16, ask: &Ask, told: Option<Place>) -> Walk {
        let range = ask.range;
        let from = told.unwrap_or(range.from).in_pfs(pfs);
        let to = range.to.map_or(Key::pfs_max(pfs), |to| to.in_pfs(pfs));
        Walk {
            records: AsOf::new(from, to, ask.as_of),
            range,
            told,
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
            let is_told = self
                .told
                .is_some_and(|told| Place::of(&leaf.base.key()) <= told);
            if is_told || [rt::CONFIG, rt::SNAPSHOT].contains(&leaf.base.rec_type.get()) {
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
