//! Questions and answers as bytes, for a witness on another machine.
//!
//! ```text
//! message = version 1 | kind 1 | zero 2 | bytes of the body 4 | CRC 4 | body
//! ```
//!
//! The CRC is the CRC-32 of what stands before it, exclusive-or'd with that of the body. Integers are little-endian. The side that is asked speaks first, and says who it is; then it is
//! asked, and answers. Bytes that are no message end the conversation: class `Protocol`, and the
//! place. A body has a limit, so that nobody makes the other side hold more than that.

use super::{Answer, Ask, Depth, Entry, Place, Range, Seen, Standing, Total, Wanted};
use crate::error::{Class, Error, Result};
use crate::format::node::LeafElement;
use crate::format::record::PfsData;
use crate::format::{CrcKind, Tid};
use crate::fs::pfs::Pfs;
use crate::mirror::lag::Change;
use std::io::{self, ErrorKind, Read};
use zerocopy::{FromBytes, IntoBytes};

/// The version of this language: the first byte of every message.
const VERSION: u8 = 1;
/// Bytes before a body.
const HEAD: usize = 12;
/// Bytes before the CRC of a head.
const SUMMED: usize = 8;
/// Questions in one message, at most.
pub(super) const ASKS_MAX: usize = 64;
/// Pieces or records in one answer, at most.
pub(super) const PARTS_MAX: usize = 1024;

/// Bytes of a place: class 2, object 8, type 2, key 8.
const PLACE: usize = 20;
/// Bytes of a total: count 8, damaged 8, digest 32.
const TOTAL: usize = 48;
/// Bytes of a record: place, TID 8, length 4, flag 1, digest 32.
const ENTRY: usize = PLACE + 45;
/// Bytes of a question: two places and whether there is a second one, TID 8, depth 1, what is wanted
/// 1, and the size of pieces 8.
const ASK: usize = 2 * PLACE + 1 + 8 + 1 + 1 + 8;
/// Bytes of the largest body.
const BODY_MAX: usize = 5 + PARTS_MAX * (PLACE + TOTAL);

/// What goes over a link.
#[derive(Clone, Debug)]
pub enum Message {
    /// Who is asked: the first message.
    Standing(Box<Standing>),
    /// Questions about ranges. An [`Message::Answer`] to each is expected, in their order.
    Asks(Vec<Ask>),
    /// An answer about a range.
    Answer(Answer),
    /// The answer takes a while: so much more has been looked at.
    Seen(Seen),
    /// What changed last, from the first TID to the last one? A [`Message::Changed`] is expected.
    Newest(Tid, Tid),
    /// What changed last; `None` if nothing did.
    Changed(Option<Change>),
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Standing(_) => 1,
            Message::Asks(_) => 2,
            Message::Answer(_) => 3,
            Message::Seen(_) => 4,
            Message::Newest(..) => 5,
            Message::Changed(_) => 6,
        }
    }

    /// Appends its bytes to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([VERSION, self.kind(), 0, 0]);
        out.extend([0; HEAD - 4]);
        match self {
            Message::Standing(standing) => put_standing(out, standing),
            Message::Asks(asks) => {
                out.extend((asks.len() as u16).to_le_bytes());
                asks.iter().for_each(|ask| put_ask(out, ask));
            }
            Message::Answer(answer) => put_answer(out, answer),
            Message::Seen(seen) => {
                out.extend(seen.records.to_le_bytes());
                out.extend(seen.bytes.to_le_bytes());
                out.extend(seen.object.to_le_bytes());
            }
            Message::Newest(first, last) => {
                out.extend(first.0.to_le_bytes());
                out.extend(last.0.to_le_bytes());
            }
            Message::Changed(change) => {
                out.push(u8::from(change.is_some()));
                let change = change.unwrap_or_default();
                out.extend(change.tid.0.to_le_bytes());
                out.extend(change.time.to_le_bytes());
                out.extend(change.bytes.to_le_bytes());
            }
        }
        let len = (out.len() - start - HEAD) as u32;
        out[start + 4..start + SUMMED].copy_from_slice(&len.to_le_bytes());
        let (head, body) = out[start..].split_at(HEAD);
        let sum = CrcKind::Ieee.sum2(&head[..SUMMED], body);
        out[start + SUMMED..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    }

    fn parse(kind: u8, body: &[u8]) -> Option<Message> {
        let mut rest = Rest(body);
        let message = match kind {
            1 => Message::Standing(Box::new(rest.standing()?)),
            2 => {
                let count = usize::from(u16::from_le_bytes(rest.take()?));
                if count > ASKS_MAX || rest.0.len() != count * ASK {
                    return None;
                }
                Message::Asks((0..count).map(|_| rest.ask()).collect::<Option<_>>()?)
            }
            3 => Message::Answer(rest.answer()?),
            4 => Message::Seen(Seen {
                records: rest.u64()?,
                bytes: rest.u64()?,
                object: i64::from_le_bytes(rest.take()?),
            }),
            5 => Message::Newest(Tid(rest.u64()?), Tid(rest.u64()?)),
            6 => {
                let is_some = rest.flag()?;
                let change = Change {
                    tid: Tid(rest.u64()?),
                    time: u32::from_le_bytes(rest.take()?),
                    bytes: rest.u64()?,
                };
                Message::Changed(is_some.then_some(change))
            }
            _ => return None,
        };
        rest.0.is_empty().then_some(message)
    }
}

/// Bytes that `count` questions take on a link, together.
pub(super) fn asks_size(count: usize) -> u64 {
    (count.div_ceil(ASKS_MAX) * (HEAD + 2) + count * ASK) as u64
}

/// Bytes that an answer takes on a link.
pub(super) fn answer_size(answer: &Answer) -> u64 {
    let parts = match answer {
        Answer::Whole(_) => TOTAL,
        Answer::Pieces(pieces) => pieces.len() * (PLACE + TOTAL),
        Answer::Records(entries) => entries.len() * ENTRY,
    };
    (HEAD + 5 + parts) as u64
}

fn put_place(out: &mut Vec<u8>, place: &Place) {
    out.extend(place.class.to_le_bytes());
    out.extend(place.obj_id.to_le_bytes());
    out.extend(place.rec_type.to_le_bytes());
    out.extend(place.key.to_le_bytes());
}

fn put_total(out: &mut Vec<u8>, total: &Total) {
    out.extend(total.count.to_le_bytes());
    out.extend(total.damaged.to_le_bytes());
    out.extend(total.digest);
}

fn put_ask(out: &mut Vec<u8>, ask: &Ask) {
    let Ask {
        range,
        as_of,
        depth,
        wanted,
    } = ask;
    put_place(out, &range.from);
    out.push(u8::from(range.to.is_some()));
    put_place(out, &range.to.unwrap_or(Place::MIN));
    out.extend(as_of.0.to_le_bytes());
    out.push(match depth {
        Depth::Sums => 0,
        Depth::Data => 1,
    });
    let (wanted, every) = match wanted {
        Wanted::Whole => (0, 0),
        Wanted::Pieces(every) => (1, *every),
        Wanted::Records => (2, 0),
    };
    out.push(wanted);
    out.extend(every.to_le_bytes());
}

fn put_answer(out: &mut Vec<u8>, answer: &Answer) {
    let (kind, count) = match answer {
        Answer::Whole(_) => (0, 1),
        Answer::Pieces(pieces) => (1, pieces.len()),
        Answer::Records(entries) => (2, entries.len()),
    };
    out.push(kind);
    out.extend((count as u32).to_le_bytes());
    match answer {
        Answer::Whole(total) => put_total(out, total),
        Answer::Pieces(pieces) => {
            for (place, total) in pieces {
                put_place(out, place);
                put_total(out, total);
            }
        }
        Answer::Records(entries) => {
            for entry in entries {
                put_place(out, &entry.place);
                out.extend(entry.create_tid.0.to_le_bytes());
                out.extend(entry.len.to_le_bytes());
                out.push(u8::from(entry.damaged));
                out.extend(entry.digest);
            }
        }
    }
}

fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    let Standing { version, pfs } = standing;
    out.extend(version.to_le_bytes());
    out.extend(pfs.id.to_le_bytes());
    out.extend(pfs.sync_end.0.to_le_bytes());
    out.push(u8::from(pfs.unfinished.is_some()));
    out.extend(pfs.unfinished.unwrap_or_default().0.to_le_bytes());
    out.extend_from_slice(pfs.data.as_bytes());
    if let Some(leaf) = &pfs.leaf {
        out.extend_from_slice(leaf.as_bytes());
    }
}

/// What of a body has not been read yet.
struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (some, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*some)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place {
            class: u16::from_le_bytes(self.take()?),
            obj_id: i64::from_le_bytes(self.take()?),
            rec_type: u16::from_le_bytes(self.take()?),
            key: i64::from_le_bytes(self.take()?),
        })
    }

    fn total(&mut self) -> Option<Total> {
        Some(Total {
            count: self.u64()?,
            damaged: self.u64()?,
            digest: self.take()?,
        })
    }

    /// A question that can be answered: of a range that is one, in pieces that are some.
    fn ask(&mut self) -> Option<Ask> {
        let from = self.place()?;
        let is_bounded = self.flag()?;
        let to = self.place()?;
        let to = is_bounded.then_some(to);
        let as_of = Tid(self.u64()?);
        let depth = match self.flag()? {
            false => Depth::Sums,
            true => Depth::Data,
        };
        let [wanted] = self.take()?;
        let every = self.u64()?;
        let wanted = match wanted {
            0 => Wanted::Whole,
            1 if every > 0 => Wanted::Pieces(every),
            2 => Wanted::Records,
            _ => return None,
        };
        to.is_none_or(|to| from < to).then_some(Ask {
            range: Range { from, to },
            as_of,
            depth,
            wanted,
        })
    }

    fn answer(&mut self) -> Option<Answer> {
        let [kind] = self.take()?;
        let count = usize::try_from(u32::from_le_bytes(self.take()?)).ok()?;
        // Before anything is made room for: as many as there are bytes for.
        let holds = |size: usize| count <= PARTS_MAX && self.0.len() == count * size;
        Some(match kind {
            0 if count == 1 => Answer::Whole(self.total()?),
            1 if holds(PLACE + TOTAL) => {
                let piece = |_| Some((self.place()?, self.total()?));
                Answer::Pieces((0..count).map(piece).collect::<Option<_>>()?)
            }
            2 if holds(ENTRY) => {
                let entry = |_| self.entry();
                Answer::Records((0..count).map(entry).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn entry(&mut self) -> Option<Entry> {
        Some(Entry {
            place: self.place()?,
            create_tid: Tid(self.u64()?),
            len: u32::from_le_bytes(self.take()?),
            damaged: self.flag()?,
            digest: self.take()?,
        })
    }

    fn standing(&mut self) -> Option<Standing> {
        let version = u32::from_le_bytes(self.take()?);
        let id = u16::from_le_bytes(self.take()?);
        let sync_end = Tid(self.u64()?);
        let is_unfinished = self.flag()?;
        let unfinished = Tid(self.u64()?);
        let (data, rest) = PfsData::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        let leaf = match self.0 {
            [] => None,
            leaf => Some(LeafElement::read_from_bytes(leaf).ok()?),
        };
        self.0 = &[];
        let pfs = Pfs {
            id,
            data,
            leaf,
            sync_end,
            unfinished: is_unfinished.then_some(unfinished),
        };
        Some(Standing { version, pfs })
    }
}

/// Reads messages, in bounded memory.
pub struct Incoming<R> {
    from: R,
    at: u64,
}

impl<R: Read> Incoming<R> {
    /// Messages from `from`, which needs no buffer.
    pub fn new(from: R) -> Incoming<R> {
        Incoming { from, at: 0 }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// The next message; `None` where the bytes end between two.
    ///
    /// Errors: class `Protocol` for bytes that are no message, or that end within one; `Io`.
    #[allow(clippy::should_implement_trait)] // reading can fail
    pub fn next(&mut self) -> Result<Option<Message>> {
        let start = self.at;
        let broken = |what: String| {
            let text = format!("the link is broken at byte {start}: {what}");
            Error::new(Class::Protocol, text)
        };
        let mut head = [0; HEAD];
        // One byte tells that there is no message, however few follow.
        let have = self.fill(&mut head[..1])?;
        if have == 0 {
            return Ok(None);
        }
        if head[0] != VERSION {
            let text = format!(
                "expected {VERSION}, the version of what is spoken, found {}: is another version of \
                 mallet at the other end, or does something else speak there?",
                head[0]
            );
            return Err(broken(text));
        }
        let cut = |have, of| broken(format!("it ends after {have} bytes of {of}"));
        let have = 1 + self.fill(&mut head[1..])?;
        if have < HEAD {
            return Err(cut(have, "a head"));
        }
        let [_, kind, zero, zero_too, a, b, c, d, stored @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if [zero, zero_too] != [0, 0] || len > BODY_MAX {
            return Err(broken(format!(
                "expected a message of up to {BODY_MAX} bytes, found head {head:02x?}"
            )));
        }
        let mut body = vec![0; len];
        let have = self.fill(&mut body)?;
        if have < len {
            return Err(cut(have, "a body"));
        }
        let stored = u32::from_le_bytes(stored);
        let sum = CrcKind::Ieee.sum2(&head[..SUMMED], &body);
        if stored != sum {
            let text = format!("expected the CRC 0x{sum:08x}, found 0x{stored:08x}");
            return Err(broken(text));
        }
        let unknown = || broken(format!("no message of kind {kind} has such a body"));
        Message::parse(kind, &body).map(Some).ok_or_else(unknown)
    }

    /// Fills `buf` as far as there are bytes; says how far.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut have = 0;
        while have < buf.len() {
            match self.from.read(&mut buf[have..]) {
                Ok(0) => break,
                Ok(n) => {
                    have += n;
                    self.at += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(own(error, "reading the link")),
            }
        }
        Ok(have)
    }
}

/// The error that an I/O error carries, if it is one of ours: a wish to stop, for one.
pub(super) fn own(error: io::Error, what: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::io(what, error),
    }
}

#[cfg(test)]
mod tests;
