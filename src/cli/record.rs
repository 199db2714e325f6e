//! Records in words, for dumps.

use super::escape;
use crate::format::Localization;
use crate::format::node::LeafElement;
use crate::format::record::{Entry, InodeData, PfsData, SnapshotData, rt};
use std::fmt::Write;
use zerocopy::FromBytes;

/// What `data`, the data of `leaf`, says: one line, names escaped. Data too short for its record
/// type is left unexplained.
pub fn describe(leaf: &LeafElement, data: &[u8]) -> String {
    let key = leaf.base.key.get();
    let told = match leaf.base.rec_type.get() {
        rt::INODE => InodeData::from_bytes(data).map(|inode| describe_inode(&inode)),
        rt::DATA => Some(format!(
            "file bytes {}..{key}",
            key.saturating_sub(i64::from(leaf.data_len.get()))
        )),
        rt::DIRENTRY => Entry::from_bytes(data).map(|entry| {
            let pfs = match Localization::pfs(entry.localization) {
                0 => String::new(),
                pfs => format!(" of PFS {pfs}"),
            };
            let name = escape::name(entry.name);
            format!("\"{name}\" is object {:016x}{pfs}", entry.obj_id)
        }),
        rt::FIX => Some(format!("target \"{}\"", escape::name(data))),
        rt::PFS => Some(describe_pfs(&PfsData::from_bytes(data), key)),
        rt::SNAPSHOT => SnapshotData::read_from_prefix(data)
            .ok()
            .map(|(snapshot, _)| {
                let label = escape::name(snapshot.label()).to_string();
                format!("snapshot {:016x} \"{label}\"", snapshot.tid.get())
            }),
        rt::CONFIG => Some(format!("{} bytes of configuration", data.len())),
        _ => None,
    };
    told.unwrap_or_default()
}

fn describe_inode(inode: &InodeData) -> String {
    let mut text = match inode.obj_type() {
        Some(kind) => format!("{kind:?}").to_lowercase(),
        None => format!("type {}", inode.obj_type),
    };
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        " mode={:04o} links={} uid={} gid={} size={} parent={:016x}",
        inode.mode(),
        inode.nlinks.get(),
        inode.uid(),
        inode.gid(),
        inode.size.get(),
        inode.parent_obj_id.get(),
    );
    text
}

fn describe_pfs(pfs: &PfsData, key: i64) -> String {
    let kind = match (pfs.is_deleted(), pfs.is_slave()) {
        (true, _) => "destroyed",
        (false, true) => "slave",
        (false, false) => "master",
    };
    format!(
        "PFS {} {kind} sync-end={:016x} \"{}\"",
        (key >> 16) & 0xffff,
        pfs.sync_end_tid.get(),
        escape::name(pfs.label())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    fn leaf(rec_type: u16, key: i64, len: usize) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.rec_type.set(rec_type);
        leaf.base.key.set(key);
        leaf.data_len.set(len as i32);
        leaf
    }

    #[test]
    fn names_cannot_act() {
        let mut data = [0; 16].to_vec();
        data.extend(b"\x1b[2J");
        let told = describe(&leaf(rt::DIRENTRY, 0, data.len()), &data);
        assert_eq!(told, "\"\\x1b[2J\" is object 0000000000000000");
    }

    #[test]
    fn file_data_ends_at_its_key() {
        let told = describe(&leaf(rt::DATA, 32768, 16384), &[]);
        assert_eq!(told, "file bytes 16384..32768");
    }

    proptest! {
        #[test]
        fn any_bytes_of_any_type(rec_type in 0u16..0x20, key: i64, data: Vec<u8>) {
            let told = describe(&leaf(rec_type, key, data.len()), &data);
            prop_assert!(!told.contains(char::is_control));
        }
    }
}
