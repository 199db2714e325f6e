//! Parsers of single structures of the medium.

use super::VERSIONS;
use mallet::format::fifo::{self, Record};
use mallet::format::namehash::NameHash;
use mallet::format::node::{self, InternalElement, LeafElement, Node};
use mallet::format::record::{self, Entry, InodeData, PfsData, SnapshotData, rt};
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{BIGBLOCK, BUFFER, CrcKind, Key, NODE_SIZE, Offset, Tid, Zone, freemap};
use std::hint::black_box;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

const KINDS: [CrcKind; 2] = [CrcKind::Ieee, CrcKind::Castagnoli];

/// A volume header, with the device ending where the header says and elsewhere.
pub fn volume_header(data: &[u8]) {
    let Some(mut header) = VolumeHeader::from_prefix(data) else {
        assert!(data.len() < HEADER_SIZE);
        return;
    };
    let at = Offset::new(Zone::RAW_VOLUME, 0, 0);
    let end = header.buf_end.get().cast_unsigned();
    for size in [0, data.len() as u64, end, end.wrapping_sub(1), u64::MAX] {
        if header.check(at, size).is_ok() {
            assert!(size >= end, "areas beyond the device's end");
            assert!(header.buffer_space() > 0);
        }
    }
    if header.check_root(at).is_ok() {
        let bigblocks = header.undo_bytes() / BIGBLOCK;
        assert!((1..=128).contains(&bigblocks));
        let undo = header.zone(Zone::UNDO);
        assert!(Offset(undo.first_offset.get()).short() <= header.undo_bytes());
        assert!(Offset(undo.next_offset.get()).short() <= header.undo_bytes());
        // The freemap's addresses are computed from the layer-1 array without further checks.
        let root = Offset(header.zone(Zone::FREEMAP).phys_offset.get());
        for at in [Offset(0), Offset(u64::MAX), Offset(header.btree_root.get())] {
            assert_eq!(freemap::layer1_entry(root, at).zone(), Zone::RAW_BUFFER);
        }
    }
    for zone in 0..=u8::MAX {
        black_box(header.zone(Zone(zone)).sum(CrcKind::Ieee));
    }
    assert!(!header.label().contains(&0));
    black_box(header.stale_sums(at));
    header.crc = U32::new(header.sum(CrcKind::of_version(header.version.get())));
    let stale = header.stale_sums(at);
    assert!(
        stale
            .iter()
            .all(|f| f.rule != mallet::format::Rule::VolumeCrc)
    );
}

/// A B-Tree node: its sum, its shape, its elements.
pub fn node(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.resize(NODE_SIZE, 0);
    let at = Offset::new(Zone::BTREE, 0, 0);
    let node = Node::from_bytes(&bytes).expect("exactly one node");
    for version in VERSIONS {
        black_box(node.check_crc(at, version)).ok();
    }
    let mut right = *node;
    for kind in KINDS {
        right.crc = U32::new(node.sum(kind));
        assert!(right.check_crc(at, 7).is_ok());
        let old = right.check_crc(at, 6).is_ok();
        assert!(old || kind == CrcKind::Castagnoli);
    }
    let (leaves, children) = (node.leaves(), node.children());
    assert!(leaves.len() <= node::LEAF_MAX && children.len() <= node::INTERNAL_MAX);
    assert!(leaves.is_empty() || children.is_empty());
    for index in [0, node.count(), usize::MAX] {
        black_box(node.base(index).key());
    }
    leaves.iter().for_each(leaf_element);
    for InternalElement { base, .. } in children {
        black_box((base.key().to_string(), base.create_tid(), base.delete_tid()));
    }
    if node.check_shape(at).is_ok() {
        assert_eq!(node.count.get(), node.count() as i32);
        assert!(node.is_leaf() || node.kind == node::INTERNAL);
        let used = node.count() + usize::from(!node.is_leaf());
        let keys: Vec<Key> = (0..used).map(|i| node.base(i).key()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

fn leaf_element(leaf: &LeafElement) {
    let (create, delete) = (leaf.base.create_tid(), leaf.base.delete_tid());
    if leaf.visible(Tid::MAX) {
        assert!(delete.is_zero());
    }
    if leaf.visible(delete) {
        assert!(delete.is_zero() && create.is_zero());
    }
    let len = leaf.data_len.get().cast_unsigned();
    let zone = record::data_zone(leaf.base.rec_type.get(), len);
    assert_eq!(zone.is_some(), rt::name(leaf.base.rec_type.get()).is_some());
    black_box((leaf.data_offset().to_string(), leaf.base.key().to_string()));
    let again = node::Base::from_key(leaf.base.key());
    assert_eq!(again.key(), leaf.base.key());
}

/// A buffer of the FIFO, walked both ways.
pub fn fifo_record(data: &[u8]) {
    let mut bytes = data[..data.len().min(BUFFER)].to_vec();
    for version in VERSIONS {
        walk_fifo(&bytes, version);
    }
    repair_fifo(&mut bytes);
    for version in VERSIONS {
        walk_fifo(&bytes, version);
    }
}

fn walk_fifo(buffer: &[u8], version: u32) {
    let base = Offset::new(Zone::UNDO, 0, 0);
    for start in (0..buffer.len()).step_by(fifo::SECTOR as usize) {
        let mut pos = start;
        while let Ok(record) = Record::at(buffer, pos, base, version) {
            assert!(record.size() >= 8 && record.size().is_multiple_of(8));
            fifo_body(&record, base);
            let end = pos + record.size();
            let (back, same) = Record::before(buffer, end, base, version)
                .expect("what is a record forward is one backward");
            assert_eq!(
                (back, same.size(), same.kind),
                (pos, record.size(), record.kind)
            );
            pos = end;
        }
        assert!(pos <= buffer.len());
    }
    for end in (0..=buffer.len()).step_by(8) {
        if let Ok((pos, record)) = Record::before(buffer, end, base, version) {
            assert_eq!(pos + record.size(), end);
        }
    }
}

fn fifo_body(record: &Record<'_>, place: Offset) {
    assert_eq!(record.seq().is_none(), record.kind == fifo::PAD);
    if let Ok(Some(undo)) = record.undo(place) {
        assert_eq!(record.kind, fifo::UNDO);
        assert!(undo.old.len() + 40 <= record.size());
        assert!(undo.at.in_buffer() + undo.old.len() <= BUFFER);
        assert!(matches!(
            undo.at.zone(),
            Zone::RAW_VOLUME | Zone::RAW_BUFFER
        ));
    }
    if let Some(redo) = record.redo() {
        assert_eq!(record.kind, fifo::REDO);
        black_box((redo.bytes.get(), redo.flags.get()));
    }
}

/// Puts right the tail and the sum of whatever looks like a record from a sector's start on.
fn repair_fifo(buffer: &mut [u8]) {
    for start in (0..buffer.len()).step_by(fifo::SECTOR as usize) {
        let mut pos = start;
        while let Some(head) = buffer.get(pos..).and_then(|b| b.first_chunk::<8>()) {
            let [_, _, k0, k1, size @ ..] = *head;
            let size = u32::from_le_bytes(size) as usize;
            let fits = size >= 24 && size.is_multiple_of(8) && size <= buffer.len() - pos;
            if !fits || u16::from_le_bytes([k0, k1]) == fifo::PAD {
                break;
            }
            let record = &mut buffer[pos..pos + size];
            record[..2].copy_from_slice(&fifo::HEAD.to_le_bytes());
            record[size - 8..size - 6].copy_from_slice(&fifo::TAIL.to_le_bytes());
            record.copy_within(2..8, size - 6);
            let sum = CrcKind::Ieee.sum2(&record[..12], &record[16..]);
            record[12..16].copy_from_slice(&sum.to_le_bytes());
            pos += size;
        }
    }
}

/// A leaf element and the data behind it, taken for data of every record type.
pub fn leaf_data(data: &[u8]) {
    let Ok((mut leaf, data)) = LeafElement::read_from_prefix(data) else {
        return;
    };
    leaf_element(&leaf);
    for rec_type in [
        leaf.base.rec_type.get(),
        rt::INODE,
        rt::DATA,
        rt::DIRENTRY,
        rt::FIX,
        rt::PFS,
        rt::SNAPSHOT,
        rt::CONFIG,
    ] {
        leaf.base.rec_type.set(rec_type);
        for version in VERSIONS {
            black_box(record::data_crc_ok(&leaf, data, version));
        }
        for kind in KINDS {
            leaf.data_crc.set(record::data_sum(rec_type, data, kind));
            let takes = record::crc_bytes(rec_type, data).is_some();
            assert_eq!(record::data_crc_ok(&leaf, data, 7), takes);
        }
    }
    inode_data(data);
    if let Some(entry) = Entry::from_bytes(data) {
        assert_eq!(entry.name, &data[16..]);
        if entry.name_is_valid() {
            assert!((1..=record::NAME_MAX).contains(&entry.name.len()));
        }
        for flags in 0..=3 {
            if let Some(hash) = NameHash::from_cap_flags(flags) {
                let key = hash.key(entry.name);
                assert!(key >= 1 << 32 && hash.last_key(entry.name) > key);
            }
        }
    }
    let pfs = PfsData::from_bytes(data);
    let kept = data.len().min(pfs.as_bytes().len());
    assert_eq!(pfs.as_bytes()[..kept], data[..kept]);
    assert!(!pfs.label().contains(&0) && !pfs.snapshots().contains(&0));
    black_box((pfs.is_slave(), pfs.is_deleted(), pfs.sync_end_tid()));
    if let Ok((snapshot, _)) = SnapshotData::read_from_prefix(data) {
        assert!(!snapshot.label().contains(&0));
    }
}

fn inode_data(data: &[u8]) {
    let Some(inode) = InodeData::from_bytes(data) else {
        assert_ne!(data.len(), 128);
        return;
    };
    assert!(inode.mode() <= 0o7777);
    assert!(matches!(inode.entry_class(), 1 | 2));
    assert_eq!(inode.name_hash().is_some(), inode.cap_flags & 2 == 0);
    black_box((inode.obj_type(), inode.uid(), inode.gid()));
}
