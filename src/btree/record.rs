//! A leaf element's data.

use crate::error::{Error, Result};
use crate::format::fault::hex32;
use crate::format::node::LeafElement;
use crate::format::record::{data_crc_ok, data_sum, data_zone};
use crate::format::{BIGBLOCK, CrcKind, Fault, Offset, Rule, XBUFFER};
use crate::io::Bytes;
use crate::store::Fetch;

/// A record's data as read.
#[derive(Clone, Debug)]
pub struct Data {
    /// The bytes: `data_len` of them, empty if the element has none. Zeros where `data_offset` is 0
    /// and `data_len` is not.
    pub bytes: Bytes,
    /// Whether they are what the element's CRC says.
    pub crc_ok: bool,
}

/// Where the data of `leaf` lies: address and length in bytes; `None` if it has none on the device.
///
/// Errors: class `Damage` where length, zone or address are impossible.
pub fn place(leaf: &LeafElement) -> Result<Option<(Offset, usize)>> {
    let at = leaf.data_offset();
    let fault =
        |rule, expected: String, found: String| Err(Fault::new(rule, at, expected, found).into());
    let len = leaf.data_len.get();
    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= XBUFFER) else {
        return fault(Rule::LeafLength, "0 to 65536 bytes".into(), len.to_string());
    };
    if len == 0 || at == Offset::NULL {
        return Ok(None);
    }
    let zone = data_zone(leaf.base.rec_type.get(), len as u32);
    if !at.zone().is_data() || zone.is_some_and(|zone| zone != at.zone()) {
        let expected = zone.map_or("a data zone".into(), |zone| zone.to_string());
        return fault(Rule::LeafZone, expected, at.zone().to_string());
    }
    if at.in_bigblock() + len as u64 > BIGBLOCK {
        let expected = format!("{len} bytes within a big-block");
        return fault(
            Rule::LeafAddress,
            expected,
            format!("byte {}", at.in_bigblock()),
        );
    }
    Ok(Some((at, len)))
}

/// Where the data of `leaf` lies, for [`Fetch::want`]; `None` if it has none or the place is
/// impossible.
pub fn extent(leaf: &LeafElement) -> Option<(Offset, usize)> {
    place(leaf).ok().flatten()
}

/// Reads the data of `leaf` and checks its CRC, reading twice before it calls it bad.
///
/// Errors: class `Damage` where length or address are impossible, `Io` where the device does not
/// give the bytes.
pub fn data<F: Fetch + ?Sized>(fetch: &mut F, leaf: &LeafElement) -> Result<Data> {
    let version = fetch.version();
    let Some((at, len)) = place(leaf)? else {
        // `place` saw to the range of the length.
        let bytes = Bytes::zeroed(leaf.data_len.get().max(0) as usize);
        let crc_ok = data_crc_ok(leaf, &bytes, version);
        return Ok(Data { bytes, crc_ok });
    };
    let bytes = fetch.bytes(at, len)?;
    if data_crc_ok(leaf, &bytes, version) {
        return Ok(Data {
            bytes,
            crc_ok: true,
        });
    }
    fetch.forget(at, len);
    let bytes = fetch.bytes(at, len)?;
    let crc_ok = data_crc_ok(leaf, &bytes, version);
    Ok(Data { bytes, crc_ok })
}

/// As [`data`], with a wrong CRC as an error of class `Damage`.
pub fn good_data<F: Fetch + ?Sized>(fetch: &mut F, leaf: &LeafElement) -> Result<Bytes> {
    let data = data(fetch, leaf)?;
    if data.crc_ok {
        return Ok(data.bytes);
    }
    Err(bad_crc(leaf, &data.bytes, fetch.version()))
}

/// The error that says that `bytes` are not what the element's CRC says.
pub fn bad_crc(leaf: &LeafElement, bytes: &[u8], version: u32) -> Error {
    let sum = data_sum(
        leaf.base.rec_type.get(),
        bytes,
        CrcKind::of_version(version),
    );
    let stored = leaf.data_crc.get();
    let at = leaf.data_offset();
    Error::from(Fault::new(Rule::DataCrc, at, hex32(sum), hex32(stored))).context(leaf.base.key())
}
