//! B-Tree nodes and their elements (format.md §8).

use super::fault::hex32;
use super::{CrcKind, Fault, Key, Localization, NODE_SIZE, Offset, Rule, Tid, crc};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

/// Type of an internal node, and of an element that designates one.
pub const INTERNAL: u8 = b'I';
/// Type of a leaf, and of an element that designates one.
pub const LEAF: u8 = b'L';
/// Type of a freed node.
pub const DELETED: u8 = b'D';
/// `btype` of a leaf's elements.
pub const RECORD: u8 = b'R';
/// Elements that a leaf can hold.
pub const LEAF_MAX: usize = 63;
/// Children that an internal node can have; one more element is the right boundary.
pub const INTERNAL_MAX: usize = 62;
/// Levels that a tree can sensibly have: 31 children at least, a billion billion elements.
pub const DEPTH_MAX: usize = 16;

/// The key part of every element; also a bound in SKIP records.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Base {
    /// Object id.
    pub obj_id: I64,
    /// Type-specific key.
    pub key: I64,
    /// Creation TID.
    pub create_tid: U64,
    /// Deletion TID, 0 if not deleted; no part of the key.
    pub delete_tid: U64,
    /// Record type.
    pub rec_type: U16,
    /// Object type, informational.
    pub obj_type: u8,
    /// What the element designates.
    pub btype: u8,
    /// PFS and class.
    pub localization: U32,
}

impl Base {
    /// The key.
    pub fn key(&self) -> Key {
        Key {
            localization: Localization(self.localization.get()),
            obj_id: self.obj_id.get(),
            rec_type: self.rec_type.get(),
            key: self.key.get(),
            create_tid: Tid(self.create_tid.get()),
        }
    }

    /// A bound made from a key: nothing but the key is set.
    pub fn from_key(key: Key) -> Base {
        Base {
            obj_id: I64::new(key.obj_id),
            key: I64::new(key.key),
            create_tid: U64::new(key.create_tid.0),
            delete_tid: U64::ZERO,
            rec_type: U16::new(key.rec_type),
            obj_type: 0,
            btype: 0,
            localization: U32::new(key.localization.0),
        }
    }

    /// The creation TID.
    pub fn create_tid(&self) -> Tid {
        Tid(self.create_tid.get())
    }

    /// The deletion TID.
    pub fn delete_tid(&self) -> Tid {
        Tid(self.delete_tid.get())
    }
}

/// A leaf's element: one record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LeafElement {
    /// The key.
    pub base: Base,
    /// Creation time in seconds, for display.
    pub create_ts: U32,
    /// Deletion time in seconds, for display.
    pub delete_ts: U32,
    /// Address of the record's data; 0 if there is none.
    pub data_offset: U64,
    /// Length of the data in bytes.
    pub data_len: I32,
    /// CRC of the data.
    pub data_crc: U32,
}

impl LeafElement {
    /// Address of the data.
    pub fn data_offset(&self) -> Offset {
        Offset(self.data_offset.get())
    }

    /// Whether the record is visible as of `asof`.
    pub fn visible(&self, asof: Tid) -> bool {
        super::addr::visible(self.base.create_tid(), self.base.delete_tid(), asof)
    }
}

/// An internal node's element: one child, or the right boundary.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct InternalElement {
    /// The child's left bound.
    pub base: Base,
    /// At least every TID below.
    pub mirror_tid: U64,
    /// The child, zone 8.
    pub subtree_offset: U64,
    /// Zero.
    pub reserved: U64,
}

/// An element of unknown kind: its base and 24 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Element {
    /// The key.
    pub base: Base,
    /// The kind's own fields.
    pub rest: [u8; 24],
}

/// A node.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Node {
    /// CRC of all bytes behind this field.
    pub crc: U32,
    /// Formerly a signature.
    pub reserved01: U32,
    /// The parent node, 0 for the root.
    pub parent: U64,
    /// Elements in use, the right boundary not counted.
    pub count: I32,
    /// [`INTERNAL`], [`LEAF`] or [`DELETED`].
    pub kind: u8,
    /// Zero.
    pub reserved02: [u8; 3],
    /// Zero.
    pub reserved03: [U64; 4],
    /// At least every TID below.
    pub mirror_tid: U64,
    /// The elements.
    pub elms: [Element; LEAF_MAX],
}

const _: () = {
    assert!(size_of::<Base>() == 40);
    assert!(offset_of!(Base, rec_type) == 32 && offset_of!(Base, localization) == 36);
    assert!(size_of::<LeafElement>() == 64);
    assert!(size_of::<InternalElement>() == 64);
    assert!(size_of::<Element>() == 64);
    assert!(size_of::<Node>() == NODE_SIZE);
    assert!(offset_of!(Node, count) == 16 && offset_of!(Node, mirror_tid) == 56);
};

impl Node {
    /// The node in `bytes`, which must be exactly one node long.
    pub fn from_bytes(bytes: &[u8]) -> Option<&Node> {
        Node::ref_from_bytes(bytes).ok()
    }

    /// The CRC of this node under `kind`.
    pub fn sum(&self, kind: CrcKind) -> u32 {
        kind.sum(&self.as_bytes()[4..])
    }

    /// Whether this is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.kind == LEAF
    }

    /// `mirror_tid`.
    pub fn mirror_tid(&self) -> Tid {
        Tid(self.mirror_tid.get())
    }

    /// Elements in use: at most [`LEAF_MAX`], at most [`INTERNAL_MAX`] in an internal node,
    /// whatever the bytes say.
    pub fn count(&self) -> usize {
        let max = if self.is_leaf() {
            LEAF_MAX
        } else {
            INTERNAL_MAX
        };
        usize::try_from(self.count.get()).unwrap_or(0).min(max)
    }

    /// The records of a leaf; empty for other nodes.
    pub fn leaves(&self) -> &[LeafElement] {
        if !self.is_leaf() {
            return &[];
        }
        let all: &[LeafElement; LEAF_MAX] = transmute_ref!(&self.elms);
        &all[..self.count()]
    }

    /// The children of an internal node; empty for other nodes.
    pub fn children(&self) -> &[InternalElement] {
        if self.kind != INTERNAL {
            return &[];
        }
        let all: &[InternalElement; LEAF_MAX] = transmute_ref!(&self.elms);
        &all[..self.count()]
    }

    /// The base of element `index`; `index == count` is an internal node's right boundary.
    pub fn base(&self, index: usize) -> Base {
        self.elms[index.min(LEAF_MAX - 1)].base
    }

    /// Checks the CRC under a file system of `version`; `at` is the node's address.
    pub fn check_crc(&self, at: Offset, version: u32) -> Result<(), Fault> {
        match crc::accept(version, self.crc.get(), |kind| self.sum(kind)) {
            Some(_) => Ok(()),
            None => Err(Fault::new(
                Rule::NodeCrc,
                at,
                hex32(self.sum(CrcKind::of_version(version))),
                hex32(self.crc.get()),
            )),
        }
    }

    /// Checks type, count and order: what makes a node usable by itself.
    pub fn check_shape(&self, at: Offset) -> Result<(), Fault> {
        let range = match self.kind {
            LEAF => 0..=LEAF_MAX as i32,
            INTERNAL => 1..=INTERNAL_MAX as i32,
            other => {
                let found = format!("0x{other:02x}");
                return Err(Fault::new(
                    Rule::NodeType,
                    at,
                    "an internal node or a leaf",
                    found,
                ));
            }
        };
        let count = self.count.get();
        if !range.contains(&count) {
            let expected = format!("{} to {}", range.start(), range.end());
            return Err(Fault::new(Rule::NodeCount, at, expected, count));
        }
        let used = self.count() + usize::from(self.kind == INTERNAL);
        for pair in self.elms[..used].windows(2) {
            let (left, right) = (pair[0].base.key(), pair[1].base.key());
            if left >= right {
                let expected = format!("an element above {left}");
                return Err(Fault::new(Rule::NodeOrder, at, expected, right));
            }
        }
        Ok(())
    }
}
