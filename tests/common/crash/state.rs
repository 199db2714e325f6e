//! What volumes hold, as one number: to compare a crashed volume with what it was, by whatever way
//! it is read.

use super::super::oracle::Image;
use mallet::btree::{AsOf, good_data};
use mallet::format::freemap::{Layer1, Layer2, layer1_entry, layer2_entry};
use mallet::format::node::Node;
use mallet::format::record::{INODE_CRC_BYTES, rt};
use mallet::format::volume::{HEADER_SIZE, VolumeHeader};
use mallet::format::{BIGBLOCK, Key, NODE_SIZE, Offset, Tid, Zone};
use mallet::store::{Fetch, View};
use sha2::{Digest as _, Sha256};
use std::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

/// A digest.
pub type Digest = [u8; 32];

/// Something to read volumes by.
pub trait Source {
    /// The root volume's header.
    fn root(&self) -> VolumeHeader;
    /// Numbers and headers of the volumes.
    fn volumes(&self) -> Vec<(u8, VolumeHeader)>;
    /// `len` bytes at `at`, zones 2, 4 and 8 to 11.
    fn get(&mut self, at: Offset, len: usize) -> Result<Vec<u8>, String>;
    /// The node at `at`.
    fn node(&mut self, at: Offset) -> Result<Vec<u8>, String> {
        self.get(at, NODE_SIZE)
    }
}

/// Volumes as they lie on the medium.
pub struct Plain<'a, I> {
    images: &'a [I],
    headers: Vec<VolumeHeader>,
}

impl<'a, I: Image> Plain<'a, I> {
    /// Reads the headers.
    pub fn new(images: &'a [I]) -> Plain<'a, I> {
        let headers = images.iter().map(|image| {
            let mut bytes = [0; HEADER_SIZE];
            image.read(0, &mut bytes);
            VolumeHeader::from_prefix(&bytes).expect("a header's length")
        });
        Plain {
            images,
            headers: headers.collect(),
        }
    }
}

impl<I: Image> Source for Plain<'_, I> {
    fn root(&self) -> VolumeHeader {
        let root = self.headers.iter().find(|header| header.vol_no.get() == 0);
        *root.expect("a root volume")
    }

    fn volumes(&self) -> Vec<(u8, VolumeHeader)> {
        let headers = self.headers.iter();
        headers.map(|h| (h.vol_no.get() as u8, *h)).collect()
    }

    fn get(&mut self, at: Offset, len: usize) -> Result<Vec<u8>, String> {
        let number = i32::from(at.volume());
        let index = self.headers.iter().position(|h| h.vol_no.get() == number);
        let index = index.ok_or_else(|| format!("{at}: no such volume"))?;
        let byte = self.headers[index].buf_beg.get().cast_unsigned() + at.short();
        if byte + len as u64 > self.images[index].size() {
            return Err(format!("{at}: beyond the volume"));
        }
        let mut bytes = vec![0; len];
        self.images[index].read(byte, &mut bytes);
        Ok(bytes)
    }
}

impl Source for View {
    fn root(&self) -> VolumeHeader {
        *Fetch::header(self)
    }

    fn volumes(&self) -> Vec<(u8, VolumeHeader)> {
        let volumes = View::volumes(self);
        volumes.volumes().map(|(n, _, h)| (n, *h)).collect()
    }

    fn get(&mut self, at: Offset, len: usize) -> Result<Vec<u8>, String> {
        let bytes = self.bytes(at, len).map_err(|error| error.to_string())?;
        Ok(bytes.to_vec())
    }

    fn node(&mut self, at: Offset) -> Result<Vec<u8>, String> {
        let node = Fetch::node(self, at).map_err(|error| error.to_string())?;
        Ok(node.as_bytes().to_vec())
    }
}

/// Everything that a committed state consists of and recovery must restore to the byte: the header
/// but for what is never taken back, every entry of the freemap, the whole tree, all data.
pub fn digest(source: &mut dyn Source) -> Result<Digest, String> {
    let mut hash = Sha256::new();
    let root = source.root();
    hash.update(root.version.as_bytes());
    hash.update(root.vol_count.as_bytes());
    hash.update(root.stat_bigblocks.as_bytes());
    hash.update(root.stat_freebigblocks.as_bytes());
    hash.update(root.stat_inodes.as_bytes());
    hash.update(root.btree_root.as_bytes());
    for (zone, entry) in root.blockmap.iter().enumerate() {
        if zone != usize::from(Zone::UNDO.0) {
            hash.update(&entry.as_bytes()[..36]);
        }
    }
    let freemap = Offset(root.zone(Zone::FREEMAP).phys_offset.get());
    for (number, header) in source.volumes() {
        let start = Offset::new(Zone::RAW_BUFFER, number, 0);
        let bytes = source.get(layer1_entry(freemap, start), size_of::<Layer1>())?;
        hash.update(&bytes);
        let layer1 = Layer1::read_from_bytes(&bytes).expect("an entry's length");
        let blocks = (header.buffer_space() / BIGBLOCK) as usize;
        let entries = layer2_entry(layer1.array(), start);
        hash.update(source.get(entries, blocks * size_of::<Layer2>())?);
    }
    let mut todo = vec![(Offset(root.btree_root.get()), 0)];
    while let Some((at, depth)) = todo.pop() {
        if depth > 16 {
            return Err("the tree has no end".into());
        }
        let bytes = source.node(at)?;
        hash.update(&bytes);
        let node = Node::from_bytes(&bytes).expect("a node's length");
        for child in node.children() {
            todo.push((Offset(child.subtree_offset.get()), depth + 1));
        }
        for leaf in node.leaves() {
            let len = usize::try_from(leaf.data_len.get()).unwrap_or(0).min(65536);
            if len > 0 {
                hash.update(source.get(leaf.data_offset(), len)?);
            }
        }
    }
    Ok(hash.finalize().into())
}

/// PFS `pfs` as of `tid`, all but what can change without a TID, wherever it lies and whatever its
/// number is.
pub fn pfs_digest<F: Fetch>(fetch: &mut F, pfs: u16, tid: Tid) -> mallet::Result<Digest> {
    let mut records = AsOf::new(Key::pfs_min(pfs), Key::pfs_max(pfs), tid);
    let mut hash = Sha256::new();
    while let Some(mut leaf) = records.next(fetch)? {
        let rec_type = leaf.base.rec_type.get();
        // What each PFS has of its own.
        if matches!(rec_type, rt::PFS | rt::SNAPSHOT | rt::CONFIG) {
            continue;
        }
        let data = good_data(fetch, &leaf)?;
        let covered = match rec_type {
            rt::INODE => &data[..INODE_CRC_BYTES],
            _ => &data[..],
        };
        leaf.base.delete_tid.set(0);
        leaf.base
            .localization
            .set(leaf.base.localization.get() & 0xFFFF);
        leaf.delete_ts.set(0);
        leaf.data_offset.set(0);
        // Volumes of different versions.
        leaf.data_crc.set(0);
        hash.update(leaf.as_bytes());
        if rec_type == rt::DIRENTRY && data.len() >= 16 {
            // The PFS of the object that it names.
            hash.update(&data[..8]);
            hash.update(&data[16..]);
        } else {
            hash.update(covered);
        }
    }
    Ok(hash.finalize().into())
}

/// The first bytes of a digest, for messages.
pub fn short(digest: &Digest) -> String {
    digest[..4].iter().map(|b| format!("{b:02x}")).collect()
}
