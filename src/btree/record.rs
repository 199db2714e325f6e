//! A leaf element's data.

use crate::error::Result;
use crate::format::node::LeafElement;
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

/// Reads the data of `leaf` and checks its CRC, reading twice before it calls it bad. An impossible
/// address or length is an error of class `Damage`, an unreadable device one of class `Io`.
pub fn data<F: Fetch + ?Sized>(fetch: &mut F, leaf: &LeafElement) -> Result<Data> {
    let _ = (fetch, leaf);
    todo!()
}

/// As [`data`], with a wrong CRC as an error of class `Damage`.
pub fn good_data<F: Fetch + ?Sized>(fetch: &mut F, leaf: &LeafElement) -> Result<Bytes> {
    let _ = (fetch, leaf);
    todo!()
}

/// Where the data of `leaf` lies, for [`Fetch::want`]; `None` if it has none or the place is
/// impossible.
pub fn extent(leaf: &LeafElement) -> Option<(crate::format::Offset, usize)> {
    let _ = leaf;
    todo!()
}
