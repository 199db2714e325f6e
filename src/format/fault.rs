//! What a medium can do wrong: one rule a variant, and a fault that names rule, place, expectation
//! and finding.

use super::Offset;
use std::fmt;

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $name:ident => $text:literal,)*) => {
        /// A rule of the format (format.md §21) that bytes can violate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule { $($(#[doc = $doc])* $name,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Rule] = &[$(Rule::$name,)*];

            /// The rule's name in output.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => $text,)* }
            }
        }
    };
}

rules! {
    /// The volume signature.
    VolumeSignature => "volume-signature",
    /// `0 < bot <= mem <= buf_beg < buf_end <= device`.
    VolumeRange => "volume-range",
    /// The file system type UUID.
    VolumeType => "volume-type",
    /// `vol_version` is 1 to 7.
    VolumeVersion => "volume-version",
    /// Volume numbers, counts and ids of a set agree.
    VolumeSet => "volume-set",
    /// The header's own CRC (advisory).
    VolumeCrc => "volume-crc",
    /// A blockmap entry's CRC (advisory).
    BlockmapCrc => "blockmap-crc",
    /// Zone nibbles and positions in the header's blockmap.
    Blockmap => "blockmap",
    /// The UNDO array names as many big-blocks as the FIFO is long, all owned by zone 3.
    UndoArray => "undo-array",
    /// A FIFO record's framing or CRC, or the chain of sequence numbers.
    Fifo => "fifo",
    /// A layer-1 entry's CRC.
    Layer1Crc => "layer1-crc",
    /// A layer-1 entry's pointer to its layer-2 array.
    Layer1Pointer => "layer1-pointer",
    /// `blocks_free` equals the number of free layer-2 entries.
    Layer1Free => "layer1-free",
    /// A layer-2 entry's CRC.
    Layer2Crc => "layer2-crc",
    /// A layer-2 entry's owner is one that exists.
    Layer2Owner => "layer2-owner",
    /// Entries of free, UNDO, freemap and nonexistent big-blocks have one form only.
    Layer2Canonical => "layer2-canonical",
    /// `append_off` is at most a big-block.
    Layer2Append => "layer2-append",
    /// `bytes_free` is at most a big-block.
    Layer2Free => "layer2-free",
    /// Owner 15 from exactly the first big-block that does not fit into the volume.
    Layer2End => "layer2-end",
    /// `bytes_free` equals a big-block less everything that refers to it.
    Layer2Sum => "layer2-sum",
    /// `vol0_stat_freebigblocks` is the sum of all `blocks_free`.
    StatFree => "stat-freebigblocks",
    /// `vol0_stat_bigblocks` is the number of big-blocks for data.
    StatBigblocks => "stat-bigblocks",
    /// `vol0_stat_inodes` is the number of live inodes.
    StatInodes => "stat-inodes",
    /// A node's address: zone 8, aligned, inside the volume.
    NodeAddress => "node-address",
    /// A node that the device does not give.
    NodeRead => "node-read",
    /// A node's CRC.
    NodeCrc => "node-crc",
    /// A node's type, and the type its parent says it has.
    NodeType => "node-type",
    /// A node's element count.
    NodeCount => "node-count",
    /// A node has one place in the tree.
    NodeShared => "node-shared",
    /// A node's parent pointer.
    NodeParent => "node-parent",
    /// Elements in strictly ascending order.
    NodeOrder => "node-order",
    /// Elements inside the bounds that the parent sets.
    NodeBounds => "node-bounds",
    /// All leaves at the same depth, and that depth sane.
    NodeDepth => "node-depth",
    /// `mirror_tid` at least what is below (advisory).
    MirrorTid => "mirror-tid",
    /// A leaf element's `btype`.
    LeafBtype => "leaf-btype",
    /// A record type that exists.
    LeafRecType => "leaf-rec-type",
    /// The localization type that the record type demands.
    LeafLocalization => "leaf-localization",
    /// `create_tid` above 1, `delete_tid` 0 or above it.
    LeafTid => "leaf-tid",
    /// Versions of one key do not overlap.
    LeafVersions => "leaf-versions",
    /// Data zone by record type and length.
    LeafZone => "leaf-zone",
    /// Data length by record type.
    LeafLength => "leaf-length",
    /// Data address: alignment, no crossing of buffers or big-blocks, inside the volume.
    LeafAddress => "leaf-address",
    /// Record data, or freemap or FIFO, that the device does not give.
    DataRead => "data-read",
    /// Record data's CRC.
    DataCrc => "data-crc",
    /// Data in a big-block of the zone that its layer-2 entry names.
    ExtentOwner => "extent-owner",
    /// Data below the big-block's append point.
    ExtentAppend => "extent-append",
    /// Distinct extents do not overlap.
    ExtentOverlap => "extent-overlap",
    /// Visible file blocks do not overlap.
    FileOverlap => "file-overlap",
    /// File blocks have the shapes that the kernel can rewrite.
    FileShape => "file-shape",
    /// No visible block at or beyond the end of the file.
    FileEnd => "file-end",
    /// Zeros behind the end of the file in its last block.
    FileTail => "file-tail",
    /// Visible records belong to a visible inode.
    FileOwner => "file-owner",
    /// Inode contents: version, type, sizes.
    Inode => "inode",
    /// `nlinks` equals the number of visible entries.
    Nlinks => "nlinks",
    /// An entry names an inode that is visible.
    EntryTarget => "entry-target",
    /// An entry's type is its target's.
    EntryType => "entry-type",
    /// An entry's localization is its directory's PFS.
    EntryLocalization => "entry-localization",
    /// An entry's key lies in the range of its name's hash.
    EntryKey => "entry-key",
    /// Names are 1 to 255 bytes without `/` and NUL.
    EntryName => "entry-name",
    /// One entry a name.
    EntryDuplicate => "entry-duplicate",
    /// A directory's parent holds its entry, and only that.
    DirectoryParent => "directory-parent",
    /// A long symlink has its target record (advisory).
    SymlinkTarget => "symlink-target",
    /// A PFS record's contents.
    PfsRecord => "pfs-record",
    /// A snapshot record's contents (advisory).
    Snapshot => "snapshot",
    /// No TID or object id above `vol0_next_tid`.
    NextTid => "next-tid",
    /// A stream record's framing, size, type or CRC.
    Stream => "stream",
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A violation: the rule, the place, what the rule expects and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The violated rule.
    pub rule: Rule,
    /// Where: the address of the structure (zone 1 for headers, zone 3 for the FIFO).
    pub at: Offset,
    /// What the rule expects.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Fault {
    /// A violation of `rule` at `at`.
    pub fn new(
        rule: Rule,
        at: Offset,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Fault {
        Fault {
            rule,
            at,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}: expected {}, found {}",
            self.rule, self.at, self.expected, self.found
        )
    }
}

/// A `u32` CRC for messages.
pub(crate) fn hex32(value: u32) -> String {
    format!("0x{value:08x}")
}
