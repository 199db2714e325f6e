//! What leaf elements point at: inodes, directory entries, PFS and snapshot records
//! (format.md §11–§16).

use super::namehash::NameHash;
use super::node::LeafElement;
use super::volume::until_nul;
use super::{CrcKind, LARGE_DATA, Localization, Tid, Zone, crc};
use std::mem::{offset_of, size_of};
use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Record types.
pub mod rt {
    /// An inode.
    pub const INODE: u16 = 0x01;
    /// A block of file data; its key is the offset behind its last byte.
    pub const DATA: u16 = 0x10;
    /// A directory entry.
    pub const DIRENTRY: u16 = 0x11;
    /// A record of a database file.
    pub const DB: u16 = 0x12;
    /// Reserved for extended attributes.
    pub const EXT: u16 = 0x13;
    /// A symlink's target.
    pub const FIX: u16 = 0x14;
    /// A pseudo file system.
    pub const PFS: u16 = 0x15;
    /// A snapshot.
    pub const SNAPSHOT: u16 = 0x16;
    /// Configuration text of a PFS.
    pub const CONFIG: u16 = 0x17;

    /// The type's name; `None` for types that do not exist.
    pub fn name(rec_type: u16) -> Option<&'static str> {
        Some(match rec_type {
            INODE => "INODE",
            DATA => "DATA",
            DIRENTRY => "DIRENTRY",
            DB => "DB",
            EXT => "EXT",
            FIX => "FIX",
            PFS => "PFS",
            SNAPSHOT => "SNAPSHOT",
            CONFIG => "CONFIG",
            _ => return None,
        })
    }
}

/// Key of a symlink's FIX record.
pub const FIX_SYMLINK: i64 = 1;
/// Bytes of a symlink's target that fit into the inode.
pub const INLINE_SYMLINK: usize = 24;
/// Longest name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path, and symlink target, in bytes.
pub const PATH_MAX: usize = 1024;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ObjType {
    /// A directory.
    Directory = 1,
    /// A regular file.
    File = 2,
    /// A database file; not produced by normal use.
    Database = 3,
    /// A FIFO.
    Fifo = 4,
    /// A character device.
    CharDevice = 5,
    /// A block device.
    BlockDevice = 6,
    /// A symbolic link.
    Symlink = 7,
    /// Unused.
    PseudoFs = 8,
    /// A socket.
    Socket = 9,
}

impl ObjType {
    /// The type with this code.
    pub fn from_code(code: u8) -> Option<ObjType> {
        Some(match code {
            1 => ObjType::Directory,
            2 => ObjType::File,
            3 => ObjType::Database,
            4 => ObjType::Fifo,
            5 => ObjType::CharDevice,
            6 => ObjType::BlockDevice,
            7 => ObjType::Symlink,
            8 => ObjType::PseudoFs,
            9 => ObjType::Socket,
            _ => return None,
        })
    }
}

/// An inode's data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InodeData {
    /// 1.
    pub version: U16,
    /// Permission bits.
    pub mode: U16,
    /// `chflags` bits.
    pub uflags: U32,
    /// Device nodes: major number.
    pub rmajor: U32,
    /// Device nodes: minor number.
    pub rminor: U32,
    /// Time of the last change of the inode, microseconds since 1970.
    pub ctime: U64,
    /// Directories: the parent; others: the last known one.
    pub parent_obj_id: I64,
    /// Owner, in the last four bytes.
    pub uid: [u8; 16],
    /// Group, in the last four bytes.
    pub gid: [u8; 16],
    /// [`ObjType`].
    pub obj_type: u8,
    /// Directories: hash algorithm and place of entries.
    pub cap_flags: u8,
    /// Zero.
    pub reserved01: U16,
    /// Zero.
    pub reserved02: U32,
    /// Number of entries that name this object.
    pub nlinks: U64,
    /// Bytes in the file or the symlink's target.
    pub size: U64,
    /// A short symlink's target.
    pub symlink: [u8; INLINE_SYMLINK],
    /// Time of the last change of the contents, microseconds; outside the CRC.
    pub mtime: U64,
    /// Time of the last access, microseconds; outside the CRC.
    pub atime: U64,
}

/// Bytes of an inode that its CRC covers: all but mtime and atime.
pub const INODE_CRC_BYTES: usize = offset_of!(InodeData, mtime);

impl InodeData {
    /// Capability bit: entries live beside the inode ([`Localization::INODE`]).
    pub const CAP_DIR_LOCAL_INO: u8 = 0x04;

    /// Reads an inode; `None` unless `bytes` is exactly one.
    pub fn from_bytes(bytes: &[u8]) -> Option<InodeData> {
        InodeData::read_from_bytes(bytes).ok()
    }

    /// The object's type.
    pub fn obj_type(&self) -> Option<ObjType> {
        ObjType::from_code(self.obj_type)
    }

    /// The user id.
    pub fn uid(&self) -> u32 {
        low_id(&self.uid)
    }

    /// The group id.
    pub fn gid(&self) -> u32 {
        low_id(&self.gid)
    }

    /// The permission bits.
    pub fn mode(&self) -> u16 {
        self.mode.get() & 0o7777
    }

    /// Where this directory's entries live.
    pub fn entry_class(&self) -> u16 {
        if self.cap_flags & InodeData::CAP_DIR_LOCAL_INO != 0 {
            Localization::INODE
        } else {
            Localization::MISC
        }
    }

    /// How this directory hashes names.
    pub fn name_hash(&self) -> Option<NameHash> {
        NameHash::from_cap_flags(self.cap_flags)
    }
}

fn low_id(uuid: &[u8; 16]) -> u32 {
    u32::from_le_bytes([uuid[12], uuid[13], uuid[14], uuid[15]])
}

/// The fixed part of a directory entry's data; the name follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EntryHead {
    /// The object that the entry names.
    pub obj_id: I64,
    /// Its PFS id in the upper half.
    pub localization: U32,
    /// Zero.
    pub reserved: U32,
}

/// A directory entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The object that the entry names.
    pub obj_id: i64,
    /// Its PFS.
    pub localization: Localization,
    /// The name.
    pub name: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry; `None` if `bytes` is too short for one.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Entry<'a>> {
        let (head, name) = EntryHead::ref_from_prefix(bytes).ok()?;
        Some(Entry {
            obj_id: head.obj_id.get(),
            localization: Localization(head.localization.get()),
            name,
        })
    }

    /// Whether the name is one that a directory can hold: 1 to 255 bytes, no `/`, no NUL, not
    /// `.` or `..`.
    pub fn name_is_valid(&self) -> bool {
        (1..=NAME_MAX).contains(&self.name.len())
            && !self.name.iter().any(|b| matches!(b, 0 | b'/'))
            && self.name != b"."
            && self.name != b".."
    }
}

/// A pseudo file system's record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PfsData {
    /// Unused.
    pub sync_low_tid: U64,
    /// Earliest TID with history.
    pub sync_beg_tid: U64,
    /// Slave: the last TID mirrored in full.
    pub sync_end_tid: U64,
    /// Never written.
    pub sync_beg_ts: U64,
    /// Never written.
    pub sync_end_ts: U64,
    /// The same on a master and its slaves.
    pub shared_uuid: [u8; 16],
    /// Every copy's own.
    pub unique_uuid: [u8; 16],
    /// Zero.
    pub reserved01: I32,
    /// [`PfsData::SLAVE`], [`PfsData::DELETED`].
    pub mirror_flags: U32,
    /// NUL-terminated label.
    pub label: [u8; 64],
    /// Directory for snapshot links.
    pub snapshots: [u8; 64],
    /// Zero.
    pub reserved02: [U32; 3],
    /// Seconds of fine-grained history to keep.
    pub prune_min: U32,
    /// Unused.
    pub prune_max: U32,
    /// Zero in DragonFly's; mallet's resume cursor on slaves.
    pub reserved03: [u8; 64],
}

impl PfsData {
    /// Mirror flag: this copy follows a master.
    pub const SLAVE: u32 = 1;
    /// Mirror flag: destroyed.
    pub const DELETED: u32 = 0x8000_0000;

    /// Reads a record of any length: what is missing is zero, what is too much ignored.
    pub fn from_bytes(bytes: &[u8]) -> PfsData {
        let mut data = PfsData::new_zeroed_record();
        let len = bytes.len().min(size_of::<PfsData>());
        data.as_mut_bytes()[..len].copy_from_slice(&bytes[..len]);
        data
    }

    /// What holds for a PFS without a record: a master with the file system's own ids.
    pub fn default_for(fsid: [u8; 16]) -> PfsData {
        PfsData {
            shared_uuid: fsid,
            unique_uuid: fsid,
            ..PfsData::new_zeroed_record()
        }
    }

    fn new_zeroed_record() -> PfsData {
        <PfsData as zerocopy::FromZeros>::new_zeroed()
    }

    /// Whether this is a slave.
    pub fn is_slave(&self) -> bool {
        self.mirror_flags.get() & PfsData::SLAVE != 0
    }

    /// Whether the PFS was destroyed.
    pub fn is_deleted(&self) -> bool {
        self.mirror_flags.get() & PfsData::DELETED != 0
    }

    /// The label up to its NUL.
    pub fn label(&self) -> &[u8] {
        until_nul(&self.label)
    }

    /// The snapshots directory up to its NUL.
    pub fn snapshots(&self) -> &[u8] {
        until_nul(&self.snapshots)
    }

    /// The stored end of what is mirrored.
    pub fn sync_end_tid(&self) -> Tid {
        Tid(self.sync_end_tid.get())
    }

    /// The key of PFS `pfs`'s record within PFS 0.
    pub fn record_key(pfs: u16) -> i64 {
        i64::from(pfs) << 16
    }
}

/// A snapshot's record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SnapshotData {
    /// The TID; the record's key is authoritative.
    pub tid: U64,
    /// When it was taken, microseconds.
    pub ts: U64,
    /// Zero.
    pub reserved01: [U64; 2],
    /// NUL-terminated label.
    pub label: [u8; 64],
    /// Zero.
    pub reserved02: [U64; 4],
}

impl SnapshotData {
    /// The label up to its NUL.
    pub fn label(&self) -> &[u8] {
        until_nul(&self.label)
    }
}

const _: () = {
    assert!(size_of::<InodeData>() == 128);
    assert!(INODE_CRC_BYTES == 112);
    assert!(offset_of!(InodeData, uid) == 32 && offset_of!(InodeData, obj_type) == 64);
    assert!(offset_of!(InodeData, nlinks) == 72 && offset_of!(InodeData, symlink) == 88);
    assert!(size_of::<EntryHead>() == 16);
    assert!(size_of::<PfsData>() == 292);
    assert!(offset_of!(PfsData, mirror_flags) == 76 && offset_of!(PfsData, prune_min) == 220);
    assert!(offset_of!(PfsData, reserved03) == 228);
    assert!(size_of::<SnapshotData>() == 128);
};

/// The bytes of a record's data that its CRC covers; `None` if the length is impossible for the
/// type (an inode that is not 128 bytes).
pub fn crc_bytes(rec_type: u16, data: &[u8]) -> Option<&[u8]> {
    if rec_type == rt::INODE {
        return (data.len() == size_of::<InodeData>()).then(|| &data[..INODE_CRC_BYTES]);
    }
    Some(data)
}

/// The CRC that a leaf element of `rec_type` carries for `data` under `kind`.
pub fn data_sum(rec_type: u16, data: &[u8], kind: CrcKind) -> u32 {
    match crc_bytes(rec_type, data) {
        Some([]) | None => 0,
        Some(bytes) => kind.sum(bytes),
    }
}

/// Whether `data` is what `leaf`'s CRC says, in a file system of `version`.
pub fn data_crc_ok(leaf: &LeafElement, data: &[u8], version: u32) -> bool {
    let rec_type = leaf.base.rec_type.get();
    if crc_bytes(rec_type, data).is_none() {
        return false;
    }
    crc::accept(version, leaf.data_crc.get(), |kind| {
        data_sum(rec_type, data, kind)
    })
    .is_some()
}

/// The localization classes in which a record of `rec_type` can stand; `None` for types that do not
/// exist.
pub fn classes(rec_type: u16) -> Option<&'static [u16]> {
    Some(match rec_type {
        rt::INODE | rt::SNAPSHOT | rt::CONFIG => &[Localization::INODE],
        rt::DIRENTRY => &[Localization::INODE, Localization::MISC],
        rt::DATA | rt::DB | rt::EXT | rt::FIX | rt::PFS => &[Localization::MISC],
        _ => return None,
    })
}

/// The zone in which a record of `rec_type` with `len` bytes of data lives; `None` for types that
/// do not exist.
pub fn data_zone(rec_type: u16, len: u32) -> Option<Zone> {
    Some(match rec_type {
        rt::INODE | rt::DIRENTRY | rt::EXT | rt::FIX | rt::PFS | rt::SNAPSHOT | rt::CONFIG => {
            Zone::META
        }
        rt::DATA | rt::DB if len >= LARGE_DATA => Zone::LARGE_DATA,
        rt::DATA | rt::DB => Zone::SMALL_DATA,
        _ => return None,
    })
}
