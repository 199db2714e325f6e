//! What differs between two views of a tree or a file.
//!
//! Structure only: contents are compared by the records that hold them, not by their bytes. A
//! record never changes its data, so equal records are equal bytes; different ones need not differ.

use super::file::{Block, Blocks};
use super::list::Attributes;
use super::namespace::Object;
use super::walk::{Found, Scope, Visit, Walk};
use super::{Inode, symlink_target};
use crate::error::{Error, Result};
use crate::format::Tid;
use crate::format::record::ObjType;
use crate::progress::Status;
use crate::store::Fetch;
use std::cmp::Ordering;

bitflags::bitflags! {
    /// In what respects an object differs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Aspects: u16 {
        /// There is something at this path only in the later view.
        const ADDED = 1;
        /// There is something at this path only in the earlier view.
        const REMOVED = 1 << 1;
        /// The path names another object.
        const OBJECT = 1 << 2;
        /// Another kind of object.
        const KIND = 1 << 3;
        /// Records that hold the contents of a file, or a symlink's target.
        const CONTENT = 1 << 4;
        /// The size.
        const SIZE = 1 << 5;
        /// Permission bits.
        const MODE = 1 << 6;
        /// Owner or group.
        const OWNER = 1 << 7;
        /// The number of names.
        const LINKS = 1 << 8;
        /// `chflags` bits.
        const FLAGS = 1 << 9;
        /// Device numbers.
        const DEVICE = 1 << 10;
        /// Nothing of the above, but there is another version of the inode.
        const INODE = 1 << 11;
    }
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The full path.
    pub path: Vec<u8>,
    /// In what respects. Empty if only `error` is of note.
    pub aspects: Aspects,
    /// The object in the earlier view.
    pub from: Option<Attributes>,
    /// The object in the later view.
    pub to: Option<Attributes>,
    /// Bytes of a file that other records hold (or none), counted up to the larger size.
    pub changed_bytes: u64,
    /// Why the comparison is not complete.
    pub error: Option<String>,
}

/// Walks two views of a tree side by side, in byte order of paths.
pub struct Diff {
    from: Side,
    to: Side,
}

/// One view, one object ahead.
struct Side {
    walk: Option<Walk>,
    ahead: Option<Found>,
    /// What could not be read.
    lost: Option<(Vec<u8>, Error)>,
}

impl Side {
    fn new(object: Option<Object>, path: &[u8]) -> Side {
        Side {
            walk: object.map(|object| Walk::new(object, path, Scope::All)),
            ahead: None,
            lost: None,
        }
    }

    /// Sees to it that the next object is known, or why not.
    fn fill<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        while self.ahead.is_none() && self.lost.is_none() {
            let Some(walk) = &mut self.walk else {
                return Ok(());
            };
            match walk.next(fetch)? {
                Some(Visit::Object(found)) => self.ahead = Some(found),
                Some(Visit::Trouble { path, error }) => self.lost = Some((path, error)),
                Some(Visit::Leave { .. }) => {}
                None => self.walk = None,
            }
        }
        Ok(())
    }
}

impl Diff {
    /// The differences between `from` and `to`, two views of what `path` names; `None` where it
    /// names nothing.
    pub fn new(path: &[u8], from: Option<Object>, to: Option<Object>) -> Diff {
        Diff {
            from: Side::new(from, path),
            to: Side::new(to, path),
        }
    }

    /// The next difference; `None` at the end. `status` counts the objects compared.
    ///
    /// What is damaged or unreadable is part of a difference; an error is one of the whole view.
    pub fn next<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        status: &mut Status,
    ) -> Result<Option<Difference>> {
        loop {
            self.from.fill(fetch)?;
            self.to.fill(fetch)?;
            for side in [&mut self.from, &mut self.to] {
                if let Some((path, error)) = side.lost.take() {
                    let mut difference = Difference::new(path, Aspects::empty());
                    difference.error = Some(error.to_string());
                    return Ok(Some(difference));
                }
            }
            let order = match (&self.from.ahead, &self.to.ahead) {
                (Some(from), Some(to)) => from.path.cmp(&to.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(None),
            };
            let from = match order {
                Ordering::Greater => None,
                _ => self.from.ahead.take(),
            };
            let to = match order {
                Ordering::Less => None,
                _ => self.to.ahead.take(),
            };
            status.items += 1;
            if let Some(difference) = compare(fetch, from, to)? {
                return Ok(Some(difference));
            }
        }
    }
}

impl Difference {
    fn new(path: Vec<u8>, aspects: Aspects) -> Difference {
        Difference {
            path,
            aspects,
            from: None,
            to: None,
            changed_bytes: 0,
            error: None,
        }
    }

    fn one_sided(found: Found, aspects: Aspects) -> Difference {
        let attributes = found.inode.as_ref().map(Attributes::of);
        let mut difference = Difference::new(found.path, aspects);
        if attributes.is_some_and(|a| a.kind == Some(ObjType::File)) {
            difference.changed_bytes = attributes.map_or(0, |a| a.size);
        }
        match aspects {
            Aspects::ADDED => difference.to = attributes,
            _ => difference.from = attributes,
        }
        difference.error = found.error.map(|e| e.to_string());
        difference
    }
}

fn compare<F: Fetch + ?Sized>(
    fetch: &mut F,
    from: Option<Found>,
    to: Option<Found>,
) -> Result<Option<Difference>> {
    let (from, to) = match (from, to) {
        (Some(from), Some(to)) => (from, to),
        (Some(from), None) => return Ok(Some(Difference::one_sided(from, Aspects::REMOVED))),
        (None, Some(to)) => return Ok(Some(Difference::one_sided(to, Aspects::ADDED))),
        (None, None) => return Ok(None),
    };
    let mut difference = Difference::new(to.path, Aspects::empty());
    let errors = [from.error, to.error];
    difference.error = errors.into_iter().flatten().next().map(|e| e.to_string());
    if from.id != to.id {
        difference.aspects |= Aspects::OBJECT;
    }
    if let (Some(old), Some(new)) = (from.inode, to.inode) {
        let (a, b) = (Attributes::of(&old), Attributes::of(&new));
        difference.aspects |= attribute_aspects(&a, &b);
        (difference.from, difference.to) = (Some(a), Some(b));
        match contents(fetch, (&old, from.asof), (&new, to.asof)) {
            Ok(0) => {}
            Ok(bytes) => {
                difference.changed_bytes = bytes;
                difference.aspects |= Aspects::CONTENT;
            }
            Err(e) if e.is_media() => difference.error = Some(e.to_string()),
            Err(e) => return Err(e),
        }
        if difference.aspects.is_empty() && old.tid() != new.tid() {
            difference.aspects = Aspects::INODE;
        }
    }
    let quiet = difference.aspects.is_empty() && difference.error.is_none();
    Ok((!quiet).then_some(difference))
}

fn attribute_aspects(a: &Attributes, b: &Attributes) -> Aspects {
    let mut aspects = Aspects::empty();
    let mut note = |differs, aspect| {
        if differs {
            aspects |= aspect;
        }
    };
    note(a.kind != b.kind, Aspects::KIND);
    note(a.size != b.size, Aspects::SIZE);
    note(a.mode != b.mode, Aspects::MODE);
    note((a.uid, a.gid) != (b.uid, b.gid), Aspects::OWNER);
    note(a.nlinks != b.nlinks, Aspects::LINKS);
    note(a.flags != b.flags, Aspects::FLAGS);
    note(a.rdev != b.rdev, Aspects::DEVICE);
    aspects
}

/// Bytes of content that differ: of files by records, of symlinks the longer target's length.
fn contents<F: Fetch + ?Sized>(
    fetch: &mut F,
    from: (&Inode, Tid),
    to: (&Inode, Tid),
) -> Result<u64> {
    match (from.0.kind(), to.0.kind()) {
        (Some(ObjType::File), Some(ObjType::File)) => changed_bytes(fetch, from, to),
        (Some(ObjType::Symlink), Some(ObjType::Symlink)) if from.0.leaf != to.0.leaf => {
            let from = symlink_target(fetch, from.0, from.1)?;
            let to = symlink_target(fetch, to.0, to.1)?;
            let len = from.len().max(to.len()) as u64;
            Ok(if from == to { 0 } else { len })
        }
        (Some(ObjType::File), _) => Ok(from.0.size()),
        (_, Some(ObjType::File)) => Ok(to.0.size()),
        _ => Ok(0),
    }
}

/// One file's blocks as runs: a block, or a hole up to the next one.
struct Layout {
    blocks: Blocks,
    next: Option<Block>,
    size: u64,
}

impl Layout {
    fn new<F: Fetch + ?Sized>(fetch: &mut F, (file, asof): (&Inode, Tid)) -> Result<Layout> {
        let mut blocks = Blocks::new(file, asof, 0, u64::MAX);
        let next = blocks.next(fetch)?;
        Ok(Layout {
            blocks,
            next,
            size: file.size(),
        })
    }

    /// What lies at `at`, and where that ends.
    fn run<F: Fetch + ?Sized>(&mut self, fetch: &mut F, at: u64) -> Result<(Source, u64)> {
        while self.next.is_some_and(|block| block.end <= at) {
            self.next = self.blocks.next(fetch)?;
        }
        Ok(match self.next {
            _ if at >= self.size => (Source::Nothing, u64::MAX),
            Some(block) if block.start <= at => (Source::of(&block), block.end),
            Some(block) => (Source::Hole, block.start),
            None => (Source::Hole, self.size),
        })
    }
}

/// Where a file's bytes come from.
#[derive(PartialEq)]
enum Source {
    /// There are none: behind the end.
    Nothing,
    Hole,
    /// Bytes at an address, with their file offset as the key tells it.
    Data {
        key: i64,
        len: i32,
        crc: u32,
        at: u64,
    },
}

impl Source {
    fn of(block: &Block) -> Source {
        match block.is_zeros() {
            true => Source::Hole,
            false => Source::Data {
                key: block.leaf.base.key.get(),
                len: block.leaf.data_len.get(),
                crc: block.leaf.data_crc.get(),
                at: block.leaf.data_offset.get(),
            },
        }
    }
}

/// Bytes of two files, or of two views of one, that come from different records.
///
/// Each record gives one run, so the work is bounded by their number.
pub fn changed_bytes<F: Fetch + ?Sized>(
    fetch: &mut F,
    from: (&Inode, Tid),
    to: (&Inode, Tid),
) -> Result<u64> {
    let end = from.0.size().max(to.0.size());
    let (mut from, mut to) = (Layout::new(fetch, from)?, Layout::new(fetch, to)?);
    let (mut at, mut changed) = (0, 0);
    while at < end {
        let (old, old_end) = from.run(fetch, at)?;
        let (new, new_end) = to.run(fetch, at)?;
        let next = old_end.min(new_end).min(end);
        if old != new {
            changed += next - at;
        }
        at = next;
    }
    Ok(changed)
}
