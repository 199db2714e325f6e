//! What could not be read at the source of a stream, for people and scripts.

use crate::error::Error;
use crate::format::node::LeafElement;
use crate::format::record::rt;
use crate::format::{Key, Offset};
use std::fmt;
use std::ops::Range;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A record's data is not what its CRC says. It is sent as it is, flagged.
    Sum,
    /// A record's data cannot be had. Zeros are sent in its place, flagged.
    Data,
    /// A node cannot be used. Nothing is sent of what it holds.
    Node,
}

impl What {
    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            What::Sum => "data-crc",
            What::Data => "data",
            What::Node => "node",
        }
    }
}

/// One thing that could not be read.
#[derive(Clone, Debug)]
pub struct Damage {
    /// What is wrong.
    pub what: What,
    /// The record, or the first key of the range.
    pub from: Key,
    /// The key behind the range; the record's own key if it is about one.
    pub to: Key,
    /// Where the record's data lies.
    pub at: Offset,
    /// The bytes of the file that the record holds, if it is file data.
    pub bytes: Option<Range<u64>>,
    /// More about it.
    pub text: String,
}

impl Damage {
    pub(super) fn record(leaf: &LeafElement, what: What, text: String) -> Damage {
        let key = leaf.base.key();
        let len = i64::from(leaf.data_len.get());
        // A block's key is the offset behind its last byte.
        let bytes = match (key.rec_type, u64::try_from(key.key)) {
            (rt::DATA, Ok(end)) => {
                let start = key.key.saturating_sub(len).max(0).cast_unsigned();
                Some(start.min(end)..end)
            }
            _ => None,
        };
        Damage {
            what,
            from: key,
            to: key,
            at: leaf.data_offset(),
            bytes,
            text,
        }
    }

    pub(super) fn range(from: Key, to: Key, error: &Error) -> Damage {
        Damage {
            what: What::Node,
            from,
            to,
            at: error.fault().map_or(Offset::NULL, |fault| fault.at),
            bytes: None,
            text: error.to_string(),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what == What::Node {
            return write!(
                f,
                "{}: unknown is what lies from {} to {}",
                self.text, self.from, self.to
            );
        }
        write!(f, "object 0x{:016x}", self.from.obj_id)?;
        match &self.bytes {
            Some(bytes) => write!(f, ", bytes {} to {}", bytes.start, bytes.end)?,
            None => match rt::name(self.from.rec_type) {
                Some(name) => write!(f, ", its {name} record")?,
                None => write!(f, ", record type 0x{:02x}", self.from.rec_type)?,
            },
        }
        match self.what {
            What::Sum => write!(f, ": wrong data CRC at {}", self.at)?,
            _ => write!(f, ": {}", self.text)?,
        }
        write!(f, " ({})", self.from)
    }
}

/// Damage met in one stream: all of it counted, the first of it kept.
#[derive(Clone, Debug, Default)]
pub struct Damages {
    /// How much.
    pub count: u64,
    /// The first of it, in key order.
    pub first: Vec<Damage>,
}

/// How much is kept in memory.
const KEPT: usize = 1000;

impl Damages {
    /// Takes notice of one more.
    pub fn add(&mut self, damage: &Damage) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(damage.clone());
        }
    }

    /// Takes notice of all of `more`.
    pub fn append(&mut self, more: &Damages) {
        self.count += more.count;
        let room = KEPT.saturating_sub(self.first.len());
        self.first.extend(more.first.iter().take(room).cloned());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
