//! The versions of an object (operations.md §4.3).

use super::list::Attributes;
use super::{Inode, ObjectId, inode_at};
use crate::btree::Cursor;
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{ObjType, rt};
use crate::format::{Localization, Tid, XBUFFER};
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

/// The versions of the inode of `id` that were made up to `end`, in order of TID.
///
/// As the kernel keeps it: a change of contents that leaves the size alone makes no version of the
/// inode ([`block`] shows those), a change of mtime alone none at all.
pub fn inode<F: Fetch + ?Sized>(fetch: &mut F, id: ObjectId, end: Tid) -> Result<Vec<Version>> {
    let key = id.key(Localization::INODE, rt::INODE, 0);
    let mut cursor = Cursor::new(
        key,
        crate::format::Key {
            create_tid: Tid::MAX,
            ..key
        },
    );
    let mut events = Events::new(end);
    while let Some(leaf) = cursor.next(fetch)? {
        if leaf.base.create_tid() > end {
            continue;
        }
        let event = match inode_at(fetch, id, leaf) {
            Ok(inode) => Event::Changed(Attributes::of(&inode)),
            Err(e) if e.is_media() => Event::Unreadable(e.to_string()),
            Err(e) => return Err(e),
        };
        events.add(&leaf, event);
    }
    Ok(events.finish())
}

/// The versions of the block of `file` that holds the byte at `offset`, made up to `end`, in order
/// of TID. An error of class `Usage` if `file` is no regular file.
pub fn block<F: Fetch + ?Sized>(
    fetch: &mut F,
    file: &Inode,
    offset: u64,
    end: Tid,
) -> Result<Vec<Version>> {
    if file.kind() != Some(ObjType::File) {
        let id = file.id;
        return Err(Error::usage(format!(
            "{id} is no regular file: it has no blocks"
        )));
    }
    let Ok(offset) = i64::try_from(offset) else {
        return Ok(Vec::new());
    };
    let class = Localization::MISC;
    let from = file.id.key(class, rt::DATA, offset.saturating_add(1));
    let last = offset.saturating_add(XBUFFER as i64);
    let to = file.id.key(class, rt::DATA, last);
    let to = crate::format::Key {
        create_tid: Tid::MAX,
        ..to
    };
    let mut cursor = Cursor::new(from, to);
    let mut events = Events::new(end);
    while let Some(leaf) = cursor.next(fetch)? {
        let base = leaf
            .base
            .key
            .get()
            .saturating_sub(i64::from(leaf.data_len.get()));
        if base <= offset && leaf.base.create_tid() <= end {
            events.add(&leaf, Event::Written);
        }
    }
    Ok(events.finish())
}

/// Gathers what records tell: creations, and the deletions that no creation goes with.
struct Events {
    end: Tid,
    by_tid: BTreeMap<Tid, (u32, Event)>,
}

impl Events {
    fn new(end: Tid) -> Events {
        Events {
            end,
            by_tid: BTreeMap::new(),
        }
    }

    fn add(&mut self, leaf: &LeafElement, event: Event) {
        let created = (leaf.create_ts.get(), event);
        self.by_tid.insert(leaf.base.create_tid(), created);
        let deleted = leaf.base.delete_tid();
        if !deleted.is_zero() && deleted <= self.end {
            let event = (leaf.delete_ts.get(), Event::Deleted);
            self.by_tid.entry(deleted).or_insert(event);
        }
    }

    fn finish(self) -> Vec<Version> {
        let versions = self.by_tid.into_iter();
        versions
            .map(|(tid, (seconds, event))| Version {
                tid,
                seconds,
                event,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn replaced_and_deleted() {
        let leaf = |create: u64, delete: u64| {
            let mut leaf = LeafElement::new_zeroed();
            leaf.base.create_tid.set(create);
            leaf.base.delete_tid.set(delete);
            leaf.create_ts.set(create as u32);
            leaf.delete_ts.set(delete as u32);
            leaf
        };
        let told = |end: u64| {
            let mut events = Events::new(Tid(end));
            // Order of records is not that of TIDs where a block changed its shape.
            for (create, delete) in [(30, 0), (10, 20), (20, 25)] {
                events.add(&leaf(create, delete), Event::Written);
            }
            let versions = events.finish().into_iter();
            versions
                .map(|v| (v.tid.0, v.seconds, v.event == Event::Deleted))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            told(u64::MAX),
            [
                (10, 10, false),
                (20, 20, false),
                (25, 25, true),
                (30, 30, false)
            ]
        );
        assert_eq!(
            told(24),
            [(10, 10, false), (20, 20, false), (30, 30, false)]
        );
    }
}
