//! Where a stream goes: records of the session and of the B-Tree become bytes, or are only counted.

use super::session::Message;
use super::source::Item;
use super::throttle::Clock;
use super::wire::Sink;
use crate::error::Result;
use crate::format::mrecord::{CRC_ERROR, Capabilities, DATA_CRC_BAD, Kind};
use std::io::Write;
use zerocopy::IntoBytes;

/// Where a stream goes.
pub trait Output {
    /// Whether it wants the records' data.
    fn wants_data(&self) -> bool;

    /// A record of the session.
    fn message(&mut self, message: &Message) -> Result<()>;

    /// A record of the B-Tree.
    fn item(&mut self, item: &Item) -> Result<()>;

    /// Lets it say what the original does not know, if the target does.
    fn agreed(&mut self, _: Capabilities) {}

    /// Hands on what was gathered if that is worth it, or in any case if `all`.
    fn flush(&mut self, clock: &mut dyn Clock, all: bool) -> Result<()>;

    /// Bytes handed on so far.
    fn bytes(&self) -> u64;
}

impl<W: Write> Output for Sink<W> {
    fn wants_data(&self) -> bool {
        true
    }

    fn message(&mut self, message: &Message) -> Result<()> {
        self.mark(|out| message.append(out));
        Ok(())
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Pass(leaf) => self.record(Kind::Pass as u32, leaf.as_bytes(), None),
            // A stream of bytes has one target.
            Item::Quiet { .. } => {}
            Item::Skip { from, to, damage } => {
                let mut body = [0; 80];
                body[..40].copy_from_slice(from.as_bytes());
                body[40..].copy_from_slice(to.as_bytes());
                let kind = match damage {
                    Some(_) if self.tells_damage() => Kind::Unreadable,
                    _ => Kind::Skip,
                };
                self.record(kind as u32, &body, None);
            }
            Item::Record { leaf, data, damage } => {
                let flags = match damage {
                    Some(_) => CRC_ERROR | DATA_CRC_BAD,
                    None => 0,
                };
                self.record(Kind::Record as u32 | flags, leaf.as_bytes(), data.as_ref());
            }
        }
        Ok(())
    }

    fn agreed(&mut self, what: Capabilities) {
        self.tell_damage(what.has(Capabilities::RESUME));
    }

    fn flush(&mut self, clock: &mut dyn Clock, all: bool) -> Result<()> {
        match all || self.is_full() {
            true => self.flush(clock),
            false => Ok(()),
        }
    }

    fn bytes(&self) -> u64 {
        self.written()
    }
}
