//! An element as it arrives from a source, made the target's own: checked, put into the target's
//! PFS, its data with the kind of CRC that the target's version reads (mirroring.md §5.6, §7.4).

use crate::error::{Class, Error, Result};
use crate::format::node::{Base, LeafElement};
use crate::format::record::{EntryHead, classes, data_sum, data_zone, rt};
use crate::format::{BUFFER, CrcKind, Key, Localization, Tid, XBUFFER, Zone};
use std::borrow::Cow;
use std::mem::offset_of;

/// The highest TID that a stream may speak of, and the highest object id.
pub const TID_LIMIT: Tid = Tid::LIMIT;

/// An error of class `Protocol`: the stream says what no source may say.
pub fn refused(what: impl std::fmt::Display) -> Error {
    Error::new(Class::Protocol, format!("the stream is wrong: {what}"))
}

/// The key of `base` within PFS `pfs`: which PFS it came from does not matter.
pub fn localized(base: &Base, pfs: u16) -> Key {
    let mut key = base.key();
    key.localization = Localization::new(pfs, key.localization.class());
    key
}

/// The key of an element within PFS `pfs`. Errors, of class `Protocol`: a record type or a class
/// that does not exist, TIDs and object ids that no element can have.
pub fn element_key(leaf: &LeafElement, pfs: u16) -> Result<Key> {
    let key = localized(&leaf.base, pfs);
    if data_zone(key.rec_type, 0).is_none() {
        let found = key.rec_type;
        return Err(refused(format!(
            "record type 0x{found:02x} does not exist, at {key}"
        )));
    }
    // What DragonFly never writes, and what does not go into the space of its type.
    let len = leaf.data_len.get();
    let fits = match u32::try_from(len)
        .ok()
        .and_then(|len| data_zone(key.rec_type, len))
    {
        Some(Zone::LARGE_DATA) => len as usize <= XBUFFER && (len as usize).is_multiple_of(BUFFER),
        Some(_) => len as usize <= BUFFER,
        None => false,
    };
    if !fits {
        return Err(refused(format!(
            "{len} bytes of data are impossible, at {key}"
        )));
    }
    let class = key.localization.class();
    if classes(key.rec_type).is_none_or(|classes| !classes.contains(&class)) {
        let rec_type = key.rec_type;
        return Err(refused(format!(
            "class {class} is none of record type 0x{rec_type:02x}, at {key}"
        )));
    }
    // The target's own ids are made above all that came.
    if !(1..=TID_LIMIT.0.cast_signed()).contains(&key.obj_id) {
        return Err(refused(format!("an impossible object id, at {key}")));
    }
    let (create, delete) = (leaf.base.create_tid(), leaf.base.delete_tid());
    let sane = create > Tid(1) && create <= TID_LIMIT && delete <= TID_LIMIT;
    if !sane || (!delete.is_zero() && delete <= create) {
        return Err(refused(format!(
            "created at {create} and deleted at {delete} is impossible, at {key}"
        )));
    }
    Ok(key)
}

/// A record's data as the target stores it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The bytes.
    pub data: Cow<'a, [u8]>,
    /// Their CRC, of a kind that the target reads.
    pub crc: u32,
}

/// The data of `leaf` for PFS `pfs` of a file system of `version`; `None` if it is not what the
/// element's CRC says, whatever the kind of CRC. `hint` is the kind that was right the last time.
///
/// Errors, of class `Protocol`: more or fewer bytes than the element speaks of, a directory entry
/// that is too short to be one.
pub fn stored<'a>(
    leaf: &LeafElement,
    data: &'a [u8],
    pfs: u16,
    version: u32,
    hint: &mut CrcKind,
) -> Result<Option<Stored<'a>>> {
    let rec_type = leaf.base.rec_type.get();
    let data = payload(leaf, data)?;
    let Some(kind) = matching(rec_type, &data, leaf.data_crc.get(), *hint) else {
        return Ok(None);
    };
    *hint = kind;
    let own = CrcKind::of_version(version);
    let mut stored = Stored {
        data,
        crc: leaf.data_crc.get(),
    };
    let moved = rec_type == rt::DIRENTRY && rehome(&mut stored.data, pfs)?;
    // Version 7 reads both kinds, and what came as CRC-32 may stay so.
    if moved || (kind == CrcKind::Castagnoli && own == CrcKind::Ieee) {
        stored.crc = data_sum(rec_type, &stored.data, own);
    }
    Ok(Some(stored))
}

/// The bytes that belong to `leaf`: those that came, or zeros for an element that has a length and
/// no place on the source's device.
fn payload<'a>(leaf: &LeafElement, data: &'a [u8]) -> Result<Cow<'a, [u8]>> {
    let len = usize::try_from(leaf.data_len.get()).unwrap_or(usize::MAX);
    if data.len() == len {
        return Ok(Cow::Borrowed(data));
    }
    if data.is_empty() && leaf.data_offset.get() == 0 && len <= crate::format::XBUFFER {
        return Ok(Cow::Owned(vec![0; len]));
    }
    let (found, key) = (data.len(), leaf.base.key());
    Err(refused(format!(
        "{found} bytes of data where the element has {len}, at {key}"
    )))
}

/// The kind of CRC under which `crc` is that of `data`.
fn matching(rec_type: u16, data: &[u8], crc: u32, hint: CrcKind) -> Option<CrcKind> {
    let other = match hint {
        CrcKind::Ieee => CrcKind::Castagnoli,
        CrcKind::Castagnoli => CrcKind::Ieee,
    };
    // A length that the type cannot have has no CRC.
    crate::format::record::crc_bytes(rec_type, data)?;
    [hint, other]
        .into_iter()
        .find(|kind| data_sum(rec_type, data, *kind) == crc)
}

/// Makes a directory entry name an object of PFS `pfs`; says whether that changed it.
fn rehome(data: &mut Cow<'_, [u8]>, pfs: u16) -> Result<bool> {
    const AT: usize = offset_of!(EntryHead, localization);
    let own = Localization::new(pfs, 0).0.to_le_bytes();
    let Some(found) = data.get(AT..AT + own.len()) else {
        let len = data.len();
        return Err(refused(format!("a directory entry of {len} bytes")));
    };
    if found == own {
        return Ok(false);
    }
    data.to_mut()[AT..AT + own.len()].copy_from_slice(&own);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn leaf(rec_type: u16, data: &[u8], kind: CrcKind) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.base.rec_type.set(rec_type);
        leaf.base.localization.set(0x0003_0002);
        leaf.base.obj_id.set(0x40);
        leaf.base.create_tid.set(0x50);
        leaf.data_offset.set(1);
        leaf.data_len.set(data.len() as i32);
        leaf.data_crc.set(data_sum(rec_type, data, kind));
        leaf
    }

    #[test]
    fn keys_are_put_into_the_targets_pfs() {
        let leaf = leaf(rt::DATA, b"", CrcKind::Ieee);
        let key = element_key(&leaf, 9).unwrap();
        assert_eq!(key.localization, Localization(0x0009_0002));
    }

    #[test]
    fn impossible_elements_are_refused() {
        let good = leaf(rt::DATA, b"", CrcKind::Ieee);
        let spoil: [&dyn Fn(&mut LeafElement); 13] = [
            &|l| l.base.obj_id.set(0),
            &|l| l.base.obj_id.set(-1),
            &|l| l.base.obj_id.set(1 << 62),
            &|l| l.base.create_tid.set(1),
            &|l| l.base.create_tid.set(1 << 62),
            &|l| l.base.localization.set(0x0003_0001),
            &|l| l.base.rec_type.set(0x77),
            &|l| l.base.localization.set(0x0003_0000),
            &|l| l.base.create_tid.set(0),
            &|l| l.base.create_tid.set(u64::MAX),
            &|l| l.base.delete_tid.set(0x50),
            &|l| l.base.delete_tid.set(0x4f),
            &|l| l.base.delete_tid.set(u64::MAX),
        ];
        for (at, spoil) in spoil.iter().enumerate() {
            let mut bad = good;
            spoil(&mut bad);
            let error = element_key(&bad, 1).expect_err(&format!("case {at}"));
            assert_eq!(error.class(), Class::Protocol);
        }
        assert!(element_key(&good, 1).is_ok());
    }

    #[test]
    fn crcs_become_what_the_target_reads() {
        use CrcKind::{Castagnoli, Ieee};
        for (sent, version, expected) in [
            (Castagnoli, 7, Castagnoli),
            (Castagnoli, 6, Ieee),
            (Ieee, 7, Ieee),
            (Ieee, 4, Ieee),
        ] {
            for mut hint in [Castagnoli, Ieee] {
                let leaf = leaf(rt::DATA, b"some data", sent);
                let stored = stored(&leaf, b"some data", 1, version, &mut hint).unwrap();
                let stored = stored.expect("a CRC that is right");
                assert_eq!(stored.crc, data_sum(rt::DATA, b"some data", expected));
                assert_eq!(hint, sent);
            }
        }
    }

    #[test]
    fn wrong_crcs_are_noticed() {
        let mut bad = leaf(rt::DATA, b"some data", CrcKind::Ieee);
        let mut hint = CrcKind::Ieee;
        assert_eq!(stored(&bad, b"some dat!", 1, 7, &mut hint).unwrap(), None);
        bad.base.rec_type.set(rt::INODE);
        assert_eq!(stored(&bad, b"some data", 1, 7, &mut hint).unwrap(), None);
    }

    #[test]
    fn lengths_must_agree() {
        let mut short = leaf(rt::DATA, b"some data", CrcKind::Ieee);
        let mut hint = CrcKind::Ieee;
        assert!(stored(&short, b"some", 1, 7, &mut hint).is_err());
        assert!(stored(&short, b"", 1, 7, &mut hint).is_err());
        // An element without a place has zeros, if the CRC says so too.
        short.data_offset.set(0);
        assert_eq!(stored(&short, b"", 1, 7, &mut hint).unwrap(), None);
        let zeros = [0; 9];
        short
            .data_crc
            .set(data_sum(rt::DATA, &zeros, CrcKind::Castagnoli));
        let stored = stored(&short, b"", 1, 7, &mut hint).unwrap().unwrap();
        assert_eq!(&*stored.data, &zeros);
    }

    #[test]
    fn entries_name_objects_of_the_targets_pfs() {
        let mut data = vec![7u8; 20];
        data[8..12].copy_from_slice(&0x0003_0000u32.to_le_bytes());
        let entry = leaf(rt::DIRENTRY, &data, CrcKind::Ieee);
        let mut hint = CrcKind::Ieee;
        let same = stored(&entry, &data, 3, 7, &mut hint).unwrap().unwrap();
        assert!(matches!(same.data, Cow::Borrowed(_)));
        assert_eq!(same.crc, entry.data_crc.get());
        let moved = stored(&entry, &data, 5, 7, &mut hint).unwrap().unwrap();
        let mut expected = data.clone();
        expected[8..12].copy_from_slice(&0x0005_0000u32.to_le_bytes());
        assert_eq!(*moved.data, expected);
        let sum = data_sum(rt::DIRENTRY, &expected, CrcKind::Castagnoli);
        assert_eq!(moved.crc, sum);
        let short = leaf(rt::DIRENTRY, b"0123456789", CrcKind::Ieee);
        assert!(stored(&short, b"0123456789", 5, 7, &mut hint).is_err());
    }
}
