//! One view of one PFS: what its records say together (format.md §21 rule 6).
//!
//! Records come in key order: first the inodes with the entries of directories that keep them
//! beside the inode, then file data, symlink targets and the entries of old directories. Inodes are
//! kept, 32 bytes each, and looked up by position as the second part goes by; entries name objects
//! in any order, so they are kept too, 24 bytes each, and joined with the inodes at the end
//! (`entries`).

use super::Run;
use super::blocks::Blocks;
use super::entries::{self, Names, Reference};
use super::leaf::describe;
use super::records::Data;
use crate::error::Result;
use crate::format::node::LeafElement;
use crate::format::record::{Entry, FIX_SYMLINK, INLINE_SYMLINK, InodeData, ObjType, rt};
use crate::format::{Fault, Key, Localization, Offset, ROOT_OBJ, Rule, Tid, Zone};
use crate::store::Fetch;

/// A record on its way through a view.
#[derive(Clone)]
pub(super) struct Seen {
    pub leaf: LeafElement,
    /// The element's address.
    pub at: Offset,
    pub data: Data,
}

/// An inode as far as the joins need it.
#[derive(Clone, Copy)]
pub(super) struct Ino {
    pub obj: i64,
    pub size: u64,
    /// Low 60 bits of the data's address / 16, and the object's type in the low byte.
    place_kind: u64,
    /// Larger counts are as good as the largest: no volume holds so many entries.
    pub nlinks: u32,
    pub cap_flags: u8,
    /// The contents are damaged: nothing is known but that the object exists.
    pub unknown: bool,
    /// The target of a long symlink was met.
    pub target: bool,
}

impl Ino {
    /// The type's code.
    pub fn kind(&self) -> u8 {
        self.place_kind as u8
    }

    /// Whether the object is of this type.
    pub fn is(&self, kind: ObjType) -> bool {
        !self.unknown && self.kind() == kind as u8
    }

    /// The address of the inode's data.
    pub fn place(&self) -> Offset {
        Offset((self.place_kind >> 8) << 4).in_zone(Zone::META)
    }
}

/// Address and type in one word.
pub(super) fn pack(place: Offset, kind: u8) -> u64 {
    (place.long() >> 4) << 8 | u64::from(kind)
}

/// A view.
pub(super) struct Files {
    pub pfs: u16,
    pub asof: Tid,
    /// A snapshot: what is wrong is a warning.
    advisory: bool,
    /// Entries of this view are damaged: absence proves nothing.
    lost: bool,
    /// The latest version of the record under way that was created by `asof`.
    candidate: Option<Seen>,
    /// By object id, ascending.
    pub inodes: Vec<Ino>,
    /// Directories and their parents, by object id, ascending.
    pub parents: Vec<(i64, i64)>,
    pub references: Vec<Reference>,
    pub names: Names,
    /// Position in `inodes` of the object under way in the second part.
    cursor: usize,
    /// The last object that records were found of and no inode: one finding is enough.
    ownerless: Option<(i64, u16)>,
    pub blocks: Blocks,
}

impl Files {
    /// A view of `pfs` as of `asof`.
    pub fn new(pfs: u16, asof: Tid, advisory: bool) -> Files {
        Files {
            pfs,
            asof,
            advisory,
            lost: false,
            candidate: None,
            inodes: Vec::new(),
            parents: Vec::new(),
            references: Vec::new(),
            names: Names::default(),
            cursor: 0,
            ownerless: None,
            blocks: Blocks::default(),
        }
    }

    /// The PFS.
    pub fn pfs(&self) -> u16 {
        self.pfs
    }

    /// Whether this is a snapshot's view.
    pub fn is_snapshot(&self) -> bool {
        self.advisory
    }

    /// Takes the next record, any version; they come in key order.
    pub fn feed<F: Fetch + ?Sized>(
        &mut self,
        run: &mut Run<'_>,
        fetch: &mut F,
        seen: Seen,
    ) -> Result<()> {
        let key = seen.leaf.base.key();
        if key.create_tid > self.asof {
            return Ok(());
        }
        if let Some(last) = self.candidate.replace(seen)
            && last.leaf.base.key().cmp_record(&key).is_ne()
        {
            self.settle(run, fetch, &last)?;
        }
        Ok(())
    }

    /// Ends the view: the last record, and all joins.
    pub fn finish<F: Fetch + ?Sized>(mut self, run: &mut Run<'_>, fetch: &mut F) -> Result<()> {
        if let Some(last) = self.candidate.take() {
            self.settle(run, fetch, &last)?;
        }
        entries::join(&mut self, run);
        Ok(())
    }

    /// A version that no later one replaces: visible unless it is deleted.
    fn settle<F: Fetch + ?Sized>(
        &mut self,
        run: &mut Run<'_>,
        fetch: &mut F,
        seen: &Seen,
    ) -> Result<()> {
        if !seen.leaf.visible(self.asof) {
            return Ok(());
        }
        let key = seen.leaf.base.key();
        match key.rec_type {
            rt::INODE => self.inode(seen),
            rt::DIRENTRY => self.entry(run, seen, &key),
            rt::DATA => return self.block(run, fetch, seen, &key),
            rt::FIX => self.symlink(run, seen, &key),
            _ => {}
        }
        Ok(())
    }

    fn inode(&mut self, seen: &Seen) {
        let inode = match &seen.data {
            Data::Good(bytes) => InodeData::from_bytes(bytes),
            _ => None,
        };
        let obj = seen.leaf.base.obj_id.get();
        // Out of order only where a node's elements are: found and said already.
        if self.inodes.last().is_some_and(|last| last.obj >= obj) {
            return;
        }
        let kind = inode.map_or(0, |i| i.obj_type);
        self.inodes.push(Ino {
            obj,
            size: inode.map_or(0, |i| i.size.get()),
            place_kind: pack(seen.leaf.data_offset(), kind),
            nlinks: inode.map_or(0, |i| u32::try_from(i.nlinks.get()).unwrap_or(u32::MAX)),
            cap_flags: inode.map_or(0, |i| i.cap_flags),
            unknown: inode.is_none(),
            target: false,
        });
        if let Some(inode) = inode
            && inode.obj_type() == Some(ObjType::Directory)
        {
            self.parents.push((obj, inode.parent_obj_id.get()));
        }
    }

    /// The position of the object of `key`'s record.
    fn find(&mut self, key: &Key) -> Option<usize> {
        if key.localization.class() == Localization::INODE {
            let last = self.inodes.len().checked_sub(1)?;
            return (self.inodes[last].obj == key.obj_id).then_some(last);
        }
        while self
            .inodes
            .get(self.cursor)
            .is_some_and(|i| i.obj < key.obj_id)
        {
            self.cursor += 1;
        }
        let found = self.inodes.get(self.cursor)?;
        (found.obj == key.obj_id).then_some(self.cursor)
    }

    fn entry(&mut self, run: &mut Run<'_>, seen: &Seen, key: &Key) {
        let Some(index) = self.find(key) else {
            return self.ownerless(run, seen, "a visible directory");
        };
        let dir = self.inodes[index];
        if !dir.unknown && !dir.is(ObjType::Directory) {
            return self.ownerless(run, seen, "a visible directory");
        }
        let Data::Good(bytes) = &seen.data else {
            self.lost = true;
            return;
        };
        let Some(entry) = Entry::from_bytes(bytes) else {
            return;
        };
        entries::check(self, run, seen, &dir, &entry);
        self.references.push(Reference {
            target: entry.obj_id,
            dir: key.obj_id,
            place_kind: pack(seen.leaf.data_offset(), seen.leaf.base.obj_type),
        });
    }

    fn block<F: Fetch + ?Sized>(
        &mut self,
        run: &mut Run<'_>,
        fetch: &mut F,
        seen: &Seen,
        key: &Key,
    ) -> Result<()> {
        let Some(index) = self.find(key) else {
            self.ownerless(run, seen, "a visible file");
            return Ok(());
        };
        let file = self.inodes[index];
        if file.unknown {
            return Ok(());
        }
        if !file.is(ObjType::File) && !file.is(ObjType::Database) {
            self.ownerless(run, seen, "a visible file");
            return Ok(());
        }
        super::blocks::check(self, run, fetch, seen, &file)
    }

    fn symlink(&mut self, run: &mut Run<'_>, seen: &Seen, key: &Key) {
        let Some(index) = self.find(key) else {
            return self.ownerless(run, seen, "a visible symlink");
        };
        let link = self.inodes[index];
        if key.key != FIX_SYMLINK || link.unknown {
            return;
        }
        if !link.is(ObjType::Symlink) {
            return self.ownerless(run, seen, "a visible symlink");
        }
        self.inodes[index].target = true;
        let len = seen.leaf.data_len.get();
        if u64::try_from(len) != Ok(link.size) && link.size > INLINE_SYMLINK as u64 {
            let expected = format!("a target of {} bytes", link.size);
            let fault = Fault::new(Rule::SymlinkTarget, seen.at, expected, len);
            self.put(run, fault, describe(&seen.leaf));
        }
    }

    fn ownerless(&mut self, run: &mut Run<'_>, seen: &Seen, expected: &str) {
        let object = (seen.leaf.base.obj_id.get(), seen.leaf.base.rec_type.get());
        if self.ownerless.replace(object) == Some(object) {
            return;
        }
        let expected = format!("{expected} that it belongs to");
        let fault = Fault::new(Rule::FileOwner, seen.at, expected, "none");
        self.doubtful(run, fault, describe(&seen.leaf));
    }

    /// Takes a violation within this view.
    pub fn put(&self, run: &mut Run<'_>, fault: Fault, detail: String) {
        let detail = self.within(detail);
        if self.advisory {
            run.sink.warn_once(fault, detail);
        } else {
            run.sink.error(fault, detail);
        }
    }

    /// Takes what is worth knowing within this view.
    pub fn warn(&self, run: &mut Run<'_>, fault: Fault, detail: String) {
        let detail = self.within(detail);
        run.sink.warn_once(fault, detail);
    }

    /// Takes a violation that lost nodes or entries may explain; of a snapshot it is not worth a word
    /// then.
    pub fn doubtful(&self, run: &mut Run<'_>, fault: Fault, detail: String) {
        let detail = self.within(detail);
        if !self.advisory {
            run.missing(fault, detail, run.incomplete || self.lost);
        } else if !self.lost && !run.incomplete && !run.tree_faults {
            run.sink.warn_once(fault, detail);
        }
    }

    fn within(&self, detail: String) -> String {
        match self.asof {
            Tid::MAX => detail,
            asof => format!("{detail}, as of {asof}"),
        }
    }

    /// Whether `obj` is the PFS's root directory.
    pub fn is_root(obj: i64) -> bool {
        obj == ROOT_OBJ
    }
}

const _: () = assert!(size_of::<Ino>() == 32);
