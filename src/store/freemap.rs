//! The freemap as it is in a picture: layer-1 and layer-2 entries by address (format.md §6).

use super::Fetch;
use crate::error::Result;
use crate::format::freemap::{LAYER2_SPAN, Layer1, Layer2, layer1_entry, layer2_entry};
use crate::format::volume::ZONE_MAX;
use crate::format::{BIGBLOCK, Fault, Offset, Rule, Zone};
use crate::io::Bytes;
use std::mem::size_of;
use zerocopy::FromBytes;

/// Layer-2 entries that one read takes.
const PIECE: usize = 16384 / size_of::<Layer2>();

/// The layer-1 entry that describes `at`, its CRC checked, and its own address (zone 2).
///
/// Errors: class `Damage` for a wrong CRC, and what [`Fetch::bytes`] says.
pub fn layer1<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) -> Result<(Offset, Layer1)> {
    let root = Offset(fetch.header().zone(Zone::FREEMAP).phys_offset.get());
    let place = layer1_entry(root, at);
    let bytes = fetch.bytes(place, size_of::<Layer1>())?;
    let entry = read::<Layer1>(&bytes, place)?;
    entry.check(place, fetch.version())?;
    Ok((place, entry))
}

/// The layer-2 array that describes `at`; `None` where there is no space.
pub fn array<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) -> Result<Option<Offset>> {
    let (place, entry) = layer1(fetch, at)?;
    if !entry.is_available() {
        return Ok(None);
    }
    let array = entry.array();
    if array.zone() != Zone::RAW_BUFFER || array.in_bigblock() != 0 {
        let expected = "a big-block in zone 2";
        return Err(Fault::new(Rule::Layer1Pointer, place, expected, array).into());
    }
    Ok(Some(array))
}

/// The layer-2 entry that describes `at`, its CRC checked, and its own address (zone 2); `None`
/// where there is no space.
pub fn layer2<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) -> Result<Option<(Offset, Layer2)>> {
    let Some(array) = array(fetch, at)? else {
        return Ok(None);
    };
    let place = layer2_entry(array, at);
    let bytes = fetch.bytes(place, size_of::<Layer2>())?;
    let entry = read::<Layer2>(&bytes, place)?;
    entry.check(place, fetch.version())?;
    Ok(Some((place, entry)))
}

/// Walks the layer-2 entries of one volume's existing big-blocks, in order of address. CRCs are left
/// to the caller: a walk reports what is there.
pub struct BigBlocks {
    volume: u8,
    /// Byte offset in zone 2 of the next big-block, and behind the last one; below 2^53.
    next: u64,
    end: u64,
    array: Option<Offset>,
    piece: Option<(usize, Bytes)>,
}

/// A big-block's entry.
#[derive(Clone, Copy, Debug)]
pub struct BigBlock {
    /// The big-block's address (zone 2).
    pub at: Offset,
    /// The entry's own address (zone 2).
    pub place: Offset,
    /// The entry.
    pub entry: Layer2,
}

impl BigBlocks {
    /// The whole big-blocks of volume `number`, which has `space` bytes of zone 2.
    pub fn new(number: u8, space: u64) -> BigBlocks {
        BigBlocks {
            volume: number,
            next: 0,
            end: space.min(ZONE_MAX) / BIGBLOCK * BIGBLOCK,
            array: None,
            piece: None,
        }
    }

    /// The next big-block. After an error the walk goes on behind what could not be read: a
    /// layer-1 entry's whole span, or one read of layer-2 entries.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<BigBlock>> {
        loop {
            if self.next >= self.end {
                return Ok(None);
            }
            let at = Offset::new(Zone::RAW_BUFFER, self.volume, self.next);
            if self.next.is_multiple_of(LAYER2_SPAN) {
                (self.array, self.piece) = (None, None);
            }
            let array = match self.array {
                Some(array) => array,
                None => match array(fetch, at) {
                    Ok(Some(array)) => *self.array.insert(array),
                    Ok(None) => {
                        self.skip(LAYER2_SPAN);
                        continue;
                    }
                    Err(error) => {
                        self.skip(LAYER2_SPAN);
                        return Err(error);
                    }
                },
            };
            let place = layer2_entry(array, at);
            let (index, within) = (at.layer2_index() / PIECE, at.layer2_index() % PIECE);
            if self.piece.as_ref().is_none_or(|(here, _)| *here != index) {
                let start = layer2_entry(array, Offset(at.0 - within as u64 * BIGBLOCK));
                match fetch.bytes(start, PIECE * size_of::<Layer2>()) {
                    Ok(bytes) => self.piece = Some((index, bytes)),
                    Err(error) => {
                        self.skip(PIECE as u64 * BIGBLOCK);
                        return Err(error);
                    }
                }
            }
            let Some((_, bytes)) = &self.piece else {
                continue;
            };
            let entry = read::<Layer2>(&bytes[within * size_of::<Layer2>()..], place)?;
            self.next += BIGBLOCK;
            return Ok(Some(BigBlock { at, place, entry }));
        }
    }

    /// Goes on at the next multiple of `span` bytes.
    fn skip(&mut self, span: u64) {
        self.next = (self.next / span + 1) * span;
        self.piece = None;
    }
}

fn read<T: FromBytes>(bytes: &[u8], at: Offset) -> Result<T> {
    match T::read_from_prefix(bytes) {
        Ok((entry, _)) => Ok(entry),
        Err(_) => {
            let found = format!("{} bytes", bytes.len());
            Err(Fault::new(Rule::Layer1Pointer, at, "a freemap entry", found).into())
        }
    }
}
