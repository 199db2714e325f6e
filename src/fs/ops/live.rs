//! The current records of a key range, through the editor, which remembers its place.

use super::last_version;
use crate::btree::Editor;
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::{Key, Tid};
use crate::store::Txn;

/// Walks the current records between two keys: of each record the latest version, if it is not
/// deleted. Records already given may be changed between two calls, and records inserted below the
/// next one.
pub struct Live {
    /// Where to look next; `None` at the end.
    next: Option<Key>,
    to: Key,
    ahead: Option<LeafElement>,
    /// Records deleted at this TID count as current.
    deleted: Option<Tid>,
}

impl Live {
    /// The records with keys in `[from, to]`, whatever the creation TIDs of these.
    pub fn new(from: Key, to: Key) -> Live {
        Live {
            next: Some(Key {
                create_tid: Tid(1),
                ..from
            }),
            to: last_version(to),
            ahead: None,
            deleted: None,
        }
    }

    /// As [`Live::new`], and what `tid` deleted still counts.
    pub fn with_deleted(from: Key, to: Key, tid: Tid) -> Live {
        Live {
            deleted: Some(tid),
            ..Live::new(from, to)
        }
    }

    /// The next record.
    pub fn next(&mut self, editor: &mut Editor, txn: &mut Txn<'_>) -> Result<Option<LeafElement>> {
        loop {
            let Some(mut last) = self.version(editor, txn)? else {
                return Ok(None);
            };
            loop {
                match self.version(editor, txn)? {
                    Some(next) if is_same(&next, &last) => last = next,
                    other => {
                        self.ahead = other;
                        break;
                    }
                }
            }
            let deleted = last.base.delete_tid();
            if deleted.is_zero() || Some(deleted) == self.deleted {
                return Ok(Some(last));
            }
        }
    }

    /// The next element, any version.
    fn version(&mut self, editor: &mut Editor, txn: &mut Txn<'_>) -> Result<Option<LeafElement>> {
        if let Some(element) = self.ahead.take() {
            return Ok(Some(element));
        }
        let Some(from) = self.next else {
            return Ok(None);
        };
        let found = editor.at_or_after(txn, from)?;
        let found = found.filter(|element| element.base.key() <= self.to);
        self.next = found.and_then(|element| successor(element.base.key()));
        Ok(found)
    }
}

fn is_same(a: &LeafElement, b: &LeafElement) -> bool {
    a.base.key().cmp_record(&b.base.key()).is_eq()
}

/// The key right above `key`, as far as one object's records go.
pub fn successor(key: Key) -> Option<Key> {
    if !key.create_tid.is_zero() {
        // The highest TID is followed by 0, which is above all.
        let create_tid = Tid(key.create_tid.0.wrapping_add(1));
        return Some(Key { create_tid, ..key });
    }
    let (rec_type, next) = match key.key.checked_add(1) {
        Some(next) => (key.rec_type, next),
        None => (key.rec_type.checked_add(1)?, i64::MIN),
    };
    Some(Key {
        rec_type,
        key: next,
        create_tid: Tid(1),
        ..key
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_ascend_and_leave_nothing_out() {
        let key = Key {
            key: 5,
            rec_type: 0x10,
            create_tid: Tid(7),
            ..Key::MIN
        };
        let next = successor(key).expect("a successor");
        assert_eq!(next.create_tid, Tid(8));
        let top = successor(Key {
            create_tid: Tid::MAX,
            ..key
        });
        let top = top.expect("a successor");
        assert_eq!((top.key, top.create_tid), (5, Tid::ZERO));
        let next = successor(top).expect("a successor");
        assert_eq!((next.key, next.create_tid), (6, Tid(1)));
        assert!(key < top && top < next);
        let next = successor(Key {
            key: i64::MAX,
            ..top
        });
        let next = next.expect("a successor");
        assert_eq!((next.rec_type, next.key), (0x11, i64::MIN));
        assert_eq!(
            successor(Key {
                key: i64::MAX,
                rec_type: u16::MAX,
                ..top
            }),
            None
        );
    }
}
