//! Directories: their entries, and one entry by name (format.md §13).

use super::{Inode, ObjectId};
use crate::btree;
use crate::btree::record::{extent, good_data};
use crate::error::{Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::{Entry, NAME_MAX, rt};
use crate::format::{Fault, Key, Rule, Tid};
use crate::store::Fetch;
use std::collections::VecDeque;

/// How many entries are announced at a time before the first of them is read.
const AHEAD: usize = 128;

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name as stored: whatever bytes are there, up to [`NAME_MAX`].
    pub name: Vec<u8>,
    /// The object that it names.
    pub target: ObjectId,
    /// The record.
    pub leaf: LeafElement,
}

impl DirEntry {
    /// Whether the name is one that a path can hold: 1 to 255 bytes, no `/`, no NUL, not `.` or
    /// `..`.
    pub fn name_is_valid(&self) -> bool {
        name_is_valid(&self.name)
    }
}

/// Whether `name` is one that a directory can hold: 1 to 255 bytes, no `/`, no NUL, not `.` or
/// `..`.
pub fn name_is_valid(name: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.iter().any(|b| matches!(b, 0 | b'/'))
        && name != b"."
        && name != b".."
}

/// Walks the entries of a directory in key order: neither the order of names nor that of creation.
///
/// An entry or a node that cannot be read is an error of the one call that meets it; the next call
/// goes on behind it.
pub struct Entries {
    cursor: btree::AsOf,
    pfs: u16,
    ahead: VecDeque<Result<LeafElement>>,
    done: bool,
}

impl Entries {
    /// The entries of `dir` as of `asof`.
    pub fn new(dir: &Inode, asof: Tid) -> Entries {
        Entries::between(dir, i64::MIN, i64::MAX, asof)
    }

    /// Those with keys from `first` to `last`.
    pub(super) fn between(dir: &Inode, first: i64, last: i64, asof: Tid) -> Entries {
        let (from, to) = range(dir, first, last);
        Entries {
            cursor: btree::AsOf::new(from, to, asof),
            pfs: dir.id.pfs,
            ahead: VecDeque::new(),
            done: false,
        }
    }

    /// The next entry.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<DirEntry>> {
        if self.ahead.is_empty() && !self.done {
            self.look_ahead(fetch)?;
        }
        match self.ahead.pop_front() {
            Some(leaf) => read(fetch, leaf?).map(Some),
            None => Ok(None),
        }
    }

    fn look_ahead<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        while self.ahead.len() < AHEAD {
            match self.cursor.next(fetch) {
                Ok(Some(leaf)) => self.ahead.push_back(Ok(leaf)),
                Ok(None) => {
                    self.done = true;
                    break;
                }
                Err(e) if e.is_media() => {
                    let pfs = self.pfs;
                    let e = e.context(format!("a directory of PFS {pfs}"));
                    self.ahead.push_back(Err(e));
                }
                Err(e) => return Err(e),
            }
        }
        if self.ahead.len() > 1 {
            let leaves = self.ahead.iter().filter_map(|leaf| leaf.as_ref().ok());
            let extents: Vec<_> = leaves.filter_map(extent).collect();
            fetch.want(&extents);
        }
        Ok(())
    }
}

/// The record of the entry with `key` in `dir`, if it can be had.
pub(super) fn record<F: Fetch + ?Sized>(
    fetch: &mut F,
    dir: &Inode,
    key: i64,
    asof: Tid,
) -> Option<LeafElement> {
    btree::lookup(fetch, range(dir, key, key).0, asof).ok()?
}

fn range(dir: &Inode, first: i64, last: i64) -> (Key, Key) {
    let class = dir.data.entry_class();
    (
        dir.id.key(class, rt::DIRENTRY, first),
        dir.id.key(class, rt::DIRENTRY, last),
    )
}

fn read<F: Fetch + ?Sized>(fetch: &mut F, leaf: LeafElement) -> Result<DirEntry> {
    let key = leaf.base.key();
    let dir = ObjectId {
        pfs: key.localization.pfs(),
        obj: key.obj_id,
    };
    let context = || format!("entry 0x{:016x} of {dir}", key.key);
    let bytes = good_data(fetch, &leaf).map_err(|e| e.context(context()))?;
    let fault = |found: String| {
        let expected = "a name of 1 to 255 bytes";
        let fault = Fault::new(Rule::EntryName, leaf.data_offset(), expected, found);
        Error::from(fault).context(context())
    };
    let Some(entry) = Entry::from_bytes(&bytes) else {
        return Err(fault(format!("{} bytes of data", bytes.len())));
    };
    if entry.name.is_empty() || entry.name.len() > NAME_MAX {
        return Err(fault(format!("{} bytes", entry.name.len())));
    }
    Ok(DirEntry {
        name: entry.name.to_vec(),
        target: ObjectId {
            pfs: entry.localization.pfs(),
            obj: entry.obj_id,
        },
        leaf,
    })
}

/// The entry `name` of `dir` as of `asof`.
///
/// Looks where the directory's hash puts the name; in all of the directory if the hash is one that
/// does not exist. Entries in the way that cannot be read are an error only if the name is not
/// found among the others.
pub fn lookup<F: Fetch + ?Sized>(
    fetch: &mut F,
    dir: &Inode,
    name: &[u8],
    asof: Tid,
) -> Result<Option<DirEntry>> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Ok(None);
    }
    let (first, last) = match dir.data.name_hash() {
        Some(hash) => (hash.key(name), hash.last_key(name)),
        None => (i64::MIN, i64::MAX),
    };
    let (from, to) = range(dir, first, last);
    let mut cursor = btree::AsOf::new(from, to, asof);
    let mut trouble = None;
    loop {
        let entry = match cursor.next(fetch) {
            Ok(Some(leaf)) => read(fetch, leaf),
            Ok(None) => break,
            Err(e) => Err(e),
        };
        match entry {
            Ok(entry) if entry.name == name => return Ok(Some(entry)),
            Ok(_) => {}
            Err(e) if e.is_media() => trouble = trouble.or(Some(e)),
            Err(e) => return Err(e),
        }
    }
    match trouble {
        Some(e) => Err(e),
        None => Ok(None),
    }
}
