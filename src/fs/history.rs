//! The versions of an object (operations.md §4.3).

use super::list::Attributes;
use super::{Inode, ObjectId, inode_at};
use crate::btree::Cursor;
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{ObjType, rt};
use crate::format::{Key, Localization, Tid, XBUFFER};
use crate::store::Fetch;
use std::collections::BTreeMap;

/// A TID at which something happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The TID.
    pub tid: Tid,
    /// When, in seconds since 1970; 0 if the record does not say.
    pub seconds: u32,
    /// What happened.
    pub event: Event,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This version of the inode came to be.
    Changed(Attributes),
    /// This version of the inode came to be, and cannot be read.
    Unreadable(String),
    /// The block at the offset that was asked for was written.
    Written,
    /// The last version before was deleted, and none followed at once.
    Deleted,
}

/// TIDs gathered in one pass over the records, 24 bytes or so each.
const BATCH: usize = 1 << 18;

/// Gives what happened to an object, in order of TID.
///
/// Records of a block that changed its shape are in no order of TIDs, so the first [`BATCH`] TIDs
/// are gathered and given, then the next ones: the records are read once for each batch.
pub struct Versions {
    subject: Subject,
    end: Tid,
    /// The last batch, least TID last.
    batch: Vec<(Tid, Happened)>,
    /// The greatest TID gathered so far.
    last: Option<Tid>,
    more: bool,
    limit: usize,
}

/// Whose versions they are.
enum Subject {
    Inode(ObjectId),
    /// The block of a file that holds the byte at this offset.
    Block(ObjectId, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Happened {
    seconds: u32,
    deleted: bool,
}

/// The versions of the inode of `id` that were made up to `end`.
///
/// As the kernel keeps it: a change of contents that leaves the size alone makes no version of the
/// inode ([`block`] shows those), a change of mtime alone none at all.
pub fn inode(id: ObjectId, end: Tid) -> Versions {
    Versions::new(Subject::Inode(id), end, BATCH)
}

/// The versions of the block of `file` that holds the byte at `offset`, made up to `end`. An error
/// of class `Usage` if `file` is no regular file.
pub fn block(file: &Inode, offset: u64, end: Tid) -> Result<Versions> {
    if file.kind() != Some(ObjType::File) {
        let id = file.id;
        return Err(Error::usage(format!(
            "{id} is no regular file: it has no blocks"
        )));
    }
    // No file reaches beyond this.
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    Ok(Versions::new(Subject::Block(file.id, offset), end, BATCH))
}

impl Versions {
    fn new(subject: Subject, end: Tid, limit: usize) -> Versions {
        Versions {
            subject,
            end,
            batch: Vec::new(),
            last: None,
            more: true,
            limit,
        }
    }

    /// The next version; `None` at the end. An error ends it.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Version>> {
        if self.batch.is_empty() && self.more {
            self.gather(fetch)?;
        }
        let Some((tid, Happened { seconds, deleted })) = self.batch.pop() else {
            return Ok(None);
        };
        let event = match self.subject {
            _ if deleted => Event::Deleted,
            Subject::Inode(id) => changed(fetch, id, tid)?,
            Subject::Block(..) => Event::Written,
        };
        Ok(Some(Version {
            tid,
            seconds,
            event,
        }))
    }

    fn gather<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let mut events = Events::new(self.last, self.end, self.limit);
        let mut cursor = self.subject.cursor();
        while let Some(leaf) = cursor.next(fetch)? {
            if self.subject.is_met(&leaf) {
                events.add(&leaf);
            }
        }
        (self.batch, self.more) = events.finish();
        self.last = self.batch.first().map(|(tid, _)| *tid).or(self.last);
        Ok(())
    }
}

impl Subject {
    /// All records that may be met.
    fn cursor(&self) -> Cursor {
        let (from, to) = match *self {
            Subject::Inode(id) => {
                let key = id.key(Localization::INODE, rt::INODE, 0);
                (key, key)
            }
            Subject::Block(id, offset) => {
                let key = |key| id.key(Localization::MISC, rt::DATA, key);
                let last = offset.saturating_add(XBUFFER as i64);
                (key(offset.saturating_add(1)), key(last))
            }
        };
        let create_tid = Tid::MAX;
        Cursor::new(from, Key { create_tid, ..to })
    }

    fn is_met(&self, leaf: &LeafElement) -> bool {
        match self {
            Subject::Inode(_) => true,
            Subject::Block(_, offset) => {
                let (end, len) = (leaf.base.key.get(), leaf.data_len.get());
                end > *offset && end.saturating_sub(len.into()) <= *offset
            }
        }
    }
}

/// What the version of the inode of `id` made at `tid` says.
fn changed<F: Fetch + ?Sized>(fetch: &mut F, id: ObjectId, tid: Tid) -> Result<Event> {
    let key = Key {
        create_tid: tid,
        ..id.key(Localization::INODE, rt::INODE, 0)
    };
    let Some(leaf) = Cursor::new(key, key).next(fetch)? else {
        return Ok(Event::Unreadable("its record is gone".into()));
    };
    match inode_at(fetch, id, leaf) {
        Ok(inode) => Ok(Event::Changed(Attributes::of(&inode))),
        Err(e) if e.is_media() => Ok(Event::Unreadable(e.to_string())),
        Err(e) => Err(e),
    }
}

/// Gathers what records tell: creations, and the deletions that no creation goes with. Keeps the
/// first `limit` TIDs above one.
struct Events {
    above: Option<Tid>,
    end: Tid,
    limit: usize,
    by_tid: BTreeMap<Tid, Happened>,
    more: bool,
}

impl Events {
    fn new(above: Option<Tid>, end: Tid, limit: usize) -> Events {
        Events {
            above,
            end,
            limit,
            by_tid: BTreeMap::new(),
            more: false,
        }
    }

    /// Takes in a record, if it was made up to the end.
    fn add(&mut self, leaf: &LeafElement) {
        let (created, deleted) = (leaf.base.create_tid(), leaf.base.delete_tid());
        if created > self.end {
            return;
        }
        self.put(created, leaf.create_ts.get(), false);
        if !deleted.is_zero() && deleted <= self.end {
            self.put(deleted, leaf.delete_ts.get(), true);
        }
    }

    fn put(&mut self, tid: Tid, seconds: u32, deleted: bool) {
        if self.above.is_some_and(|above| tid <= above) {
            return;
        }
        let happened = Happened { seconds, deleted };
        match deleted {
            true => {
                self.by_tid.entry(tid).or_insert(happened);
            }
            false => {
                self.by_tid.insert(tid, happened);
            }
        }
        if self.by_tid.len() > self.limit {
            self.by_tid.pop_last();
            self.more = true;
        }
    }

    /// The events, last one first, and whether there are more behind them.
    fn finish(self) -> (Vec<(Tid, Happened)>, bool) {
        (self.by_tid.into_iter().rev().collect(), self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn leaf(create: u64, delete: u64) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.create_tid.set(create);
        leaf.base.delete_tid.set(delete);
        leaf.create_ts.set(create as u32);
        leaf.delete_ts.set(delete as u32);
        leaf
    }

    /// All events of some records, `limit` at a time.
    fn told(records: &[(u64, u64)], end: u64, limit: usize) -> Vec<(u64, u32, bool)> {
        let (mut all, mut last) = (Vec::new(), None);
        loop {
            let mut events = Events::new(last, Tid(end), limit);
            for (create, delete) in records {
                events.add(&leaf(*create, *delete));
                assert!(events.by_tid.len() <= limit);
            }
            let (batch, more) = events.finish();
            last = batch.first().map(|(tid, _)| *tid).or(last);
            let batch = batch.into_iter().rev();
            all.extend(batch.map(|(tid, h)| (tid.0, h.seconds, h.deleted)));
            if !more {
                return all;
            }
        }
    }

    #[test]
    fn replaced_and_deleted() {
        // Order of records is not that of TIDs where a block changed its shape.
        let records = [(30, 0), (10, 20), (20, 25)];
        let expected = [
            (10, 10, false),
            (20, 20, false),
            (25, 25, true),
            (30, 30, false),
        ];
        for limit in 1..6 {
            assert_eq!(told(&records, u64::MAX, limit), expected);
            assert_eq!(told(&records, 29, limit), expected[..3]);
            assert_eq!(told(&records, 24, limit), expected[..2]);
        }
    }

    proptest! {
        /// Batches, however small, tell what all records at once tell.
        #[test]
        fn batches_of_events(
            records in proptest::collection::vec((1u64..60, 0u64..70), 0..40),
            end in 1u64..80,
            limit in 1usize..10,
        ) {
            let mut model = BTreeMap::new();
            for (create, delete) in records.iter().filter(|r| r.0 <= end) {
                model.insert(*create, false);
                if (1..=end).contains(delete) {
                    model.entry(*delete).or_insert(true);
                }
            }
            let model: Vec<_> = model.into_iter().map(|(tid, deleted)| (tid, tid as u32, deleted)).collect();
            prop_assert_eq!(told(&records, end, limit), model);
        }
    }
}
