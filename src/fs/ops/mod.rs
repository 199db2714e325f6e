//! Changes to the files of a PFS, exactly as DragonFly makes them at record level (operations.md
//! §13, format.md §18): everything that a transaction does carries its TID, and what a transaction
//! changes twice is in its last form.
//!
//! Every function takes object ids of one PFS, looks at the current state, and leaves the transaction
//! to be committed by the caller. One that fails may have changed something: drop the transaction.
//! What is wrong with the request itself is an error of class `Other`, found before anything was
//! changed.
//!
//! What can need more than one checkpoint (the records of a large file removed) comes in two forms:
//! [`Ops::begin_remove`], [`Ops::begin_rename`] and [`Ops::begin_truncate`] give a [`Sweep`], whose
//! steps end where the transaction is full; [`Ops::remove`], [`Ops::rename`] and [`Ops::truncate`]
//! go through it to the end, with checkpoints in between where they must. At every one of these the
//! file system is whole: an object without entries, a file that is not yet cut.
//!
//! What is replaced of an object without history is destroyed. A change that may still have to be
//! taken back after a checkpoint needs the old records until then: [`History`] says which it is.

mod create;
mod data;
mod entry;
mod flags;
mod forget;
mod inode;
mod live;
mod remove;
mod rename;
mod sweep;

pub use forget::Forget;
pub use sweep::Sweep;

use super::{Inode, ObjectId};
use crate::btree::Editor;
use crate::btree::put::{self, NewRecord};
use crate::error::{Class, Error, Result};
use crate::format::node::{Base, LeafElement};
use crate::format::record::{ObjType, rt};
use crate::format::{Key, Localization, Tid};
use crate::store::Txn;
use live::Live;

/// What a new object is to be.
#[derive(Clone, Debug)]
pub struct NewObject<'a> {
    /// Its type.
    pub kind: ObjType,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `chflags` bits beside those inherited from the directory.
    pub uflags: u32,
    /// Device number, for devices.
    pub rdev: (u32, u32),
    /// Target, for symlinks.
    pub target: &'a [u8],
    /// Modification and access time, microseconds; `None`: now.
    pub times: Option<(u64, u64)>,
}

/// What of an inode to change; `None` leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// `chflags` bits.
    pub uflags: Option<u32>,
    /// Modification time, microseconds; in place.
    pub mtime: Option<u64>,
    /// Access time, microseconds; in place.
    pub atime: Option<u64>,
}

/// When old records of objects without history are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// At once. For changes of one checkpoint, and for those that nobody takes back once they are
    /// durable.
    AtOnce,
    /// Once the operation is there: until then they are marked deleted, as those that stay. A
    /// rollback finds them, and a [`Forget`] takes them away in the end.
    Later,
}

/// Changes to the files of one PFS.
#[derive(Debug)]
pub struct Ops {
    pfs: u16,
    editor: Editor,
    history: History,
    /// Whether there is work for a [`Forget`].
    owes: bool,
}

impl Ops {
    /// For the PFS of this number; what has no history is destroyed at once.
    pub fn new(pfs: u16) -> Ops {
        Ops::with(pfs, History::AtOnce)
    }

    /// For the PFS of this number.
    pub fn with(pfs: u16, history: History) -> Ops {
        Ops {
            pfs,
            editor: Editor::new(),
            history,
            owes: false,
        }
    }

    /// Whether records of objects without history were marked deleted that a [`Forget`] is to
    /// destroy.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// The editor that the changes go through.
    pub fn editor(&mut self) -> &mut Editor {
        &mut self.editor
    }

    /// The PFS.
    pub fn pfs(&self) -> u16 {
        self.pfs
    }

    /// The object as the transaction sees it; `None` if it does not exist.
    pub fn inode(&mut self, txn: &mut Txn<'_>, obj: i64) -> Result<Option<Inode>> {
        let id = self.id(obj);
        let key = id.key(Localization::INODE, rt::INODE, 0);
        match Live::new(key, key).next(&mut self.editor, txn)? {
            Some(leaf) => super::inode_at(txn, id, leaf).map(Some),
            None => Ok(None),
        }
    }

    /// The object, which must exist.
    fn existing(&mut self, txn: &mut Txn<'_>, obj: i64) -> Result<Inode> {
        let id = self.id(obj);
        self.inode(txn, obj)?
            .ok_or_else(|| refused(format!("{id} does not exist")))
    }

    fn id(&self, obj: i64) -> ObjectId {
        ObjectId { pfs: self.pfs, obj }
    }

    /// Makes a record of an object at the transaction's TID.
    fn insert(&mut self, txn: &mut Txn<'_>, key: Key, kind: u8, data: &[u8]) -> Result<()> {
        let key = Key {
            create_tid: txn.tid(),
            ..key
        };
        let record = NewRecord {
            base: Base {
                obj_type: kind,
                ..Base::from_key(key)
            },
            create_ts: txn.now_seconds(),
            delete_ts: 0,
            data,
            crc: None,
        };
        match put::create(&mut self.editor, txn, &record)? {
            true => Ok(()),
            false => Err(Error::damage(format!("a record with key {key} exists"))),
        }
    }

    /// Ends a record's life; `keep` says whether its owner has history.
    fn retire(&mut self, txn: &mut Txn<'_>, leaf: &LeafElement, keep: bool) -> Result<()> {
        let later = !keep && self.history == History::Later;
        // What this transaction made is destroyed whatever its owner is.
        self.owes |= later && leaf.base.create_tid() != txn.tid();
        put::retire(&mut self.editor, txn, leaf, keep || later)
    }
}

/// The error of a request that the state of the files does not allow.
fn refused(text: impl Into<String>) -> Error {
    Error::new(Class::Other, text)
}

/// A name as an error shows it.
fn shown(name: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(name))
}

/// The highest key of all versions of `key`'s record.
fn last_version(key: Key) -> Key {
    Key {
        create_tid: Tid::ZERO,
        ..key
    }
}
