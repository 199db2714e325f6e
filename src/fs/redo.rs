//! Recovery's second stage: what programs had made durable by fsync after the crashed system's last
//! flush, carried out again (durability.md §6).
//!
//! The log is read from where the last SYNC record of the undone range says. What lies before that
//! range was committed, so its TERM records say which writes are on the medium already; those
//! within it announce what was just undone.

use super::ObjectId;
use super::ops::Ops;
use crate::error::{Class, Error, Result};
use crate::format::fifo::{self, Record, RedoHead};
use crate::format::{BUFFER, Fault, Localization, Offset, Rule, Zone};
use crate::io::Bytes;
use crate::store::{Fetch, Store, View};
use std::collections::{HashMap, VecDeque};

/// Bytes of file contents that one transaction writes.
const BATCH: usize = 1 << 20;

/// What was carried out again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redone {
    /// Writes and truncations.
    pub done: u64,
    /// Those left out, with the reason.
    pub skipped: Vec<String>,
}

/// Replays the REDO log that recovery found, if there is one. All of it or nothing: a crash before
/// the end makes the next opening begin again. `now` is in microseconds since 1970: the new
/// modification time of what is written.
///
/// Errors: `Damage` where the log is not whole, `NoSpace` where there is no space for the data or no
/// room in the log for the changes.
pub fn replay(store: &mut Store, now: u64) -> Result<Redone> {
    let Some(start) = store.recovered().redo else {
        return Ok(Redone::default());
    };
    let range = store.recovered().range;
    let context = |error: Error| error.context("the REDO log cannot be replayed");
    let mut steps = read(store.view(), start, range).map_err(context)?;
    store.hold(true);
    let mut redone = Redone::default();
    while !steps.is_empty() {
        let batch = take_batch(store.view(), &mut steps).map_err(context)?;
        apply(store, &batch, now, &mut redone).map_err(context)?;
    }
    store.hold(false);
    Ok(redone)
}

/// One operation of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    id: ObjectId,
    /// File offset of bytes written, or the new length.
    at: u64,
    /// Bytes written; `None`: a truncation.
    len: Option<usize>,
    /// Where the record lies in the ring, and its number.
    place: u64,
    seq: u32,
}

/// What a TERM record names: file, kind, and, but for truncations, offset.
type Term = (i64, u32, u32, u64);

/// Reads records of the ring one by one.
struct Log<'v> {
    view: &'v mut View,
    buffer: Option<(u64, Bytes)>,
    version: u32,
}

impl<'v> Log<'v> {
    fn new(view: &'v mut View) -> Log<'v> {
        let version = view.version();
        Log {
            view,
            buffer: None,
            version,
        }
    }

    /// The record at `pos`.
    fn at(&mut self, pos: u64) -> Result<Record<'_>> {
        let start = pos - pos % BUFFER as u64;
        if self.buffer.as_ref().is_none_or(|(at, _)| *at != start) {
            self.buffer = Some((start, self.view.fifo_bytes(start, BUFFER)?));
        }
        let Some((_, buffer)) = &self.buffer else {
            return Err(Error::damage("no FIFO buffer"));
        };
        let base = Offset::new(Zone::UNDO, 0, start);
        Ok(Record::at(
            buffer,
            (pos - start) as usize,
            base,
            self.version,
        )?)
    }
}

/// The operations of the log from `start` to the end of the undone range that are to be carried out
/// again, in order.
fn read(view: &mut View, start: u64, range: (u64, u64)) -> Result<VecDeque<Step>> {
    let (first, end) = range;
    let ring = view.ring();
    let (size, undone) = (ring.bytes(), ring.distance(first, end));
    let inside = ring.distance(first, start) < undone;
    // Bytes before the undone range, and in all.
    let (before, all) = match inside {
        true => (0, ring.distance(start, end)),
        false => {
            let before = ring.distance(start, first);
            (before, before + undone)
        }
    };
    let mut log = Log::new(view);
    let mut steps = Vec::new();
    let mut terms = HashMap::new();
    let (mut done, mut expected) = (0, None);
    while done < all {
        let place = (start + done) % size;
        let record = log.at(place)?;
        if let Some(seq) = record.seq() {
            check_seq(place, expected, seq)?;
            expected = Some(seq.wrapping_add(1));
            match record.redo() {
                Some(redo) if is_step(redo) => steps.push((done, step(redo, place, seq))),
                Some(redo) if done < before => {
                    if let Some(term) = term(redo) {
                        terms.insert(term, done);
                    }
                }
                _ => {}
            }
        }
        done += record.size() as u64;
    }
    let kept = steps.into_iter().filter(|(at, step)| {
        let term = terms.get(&ended_by(step));
        term.is_none_or(|term| *term < *at)
    });
    Ok(kept.map(|(_, step)| step).collect())
}

/// The numbers ascend without a gap, or the log was overwritten.
fn check_seq(place: u64, expected: Option<u32>, seq: u32) -> Result<()> {
    match expected {
        Some(expected) if expected != seq => {
            let at = Offset::new(Zone::UNDO, 0, place);
            let expected = format!("record number {expected}");
            Err(Fault::new(Rule::Fifo, at, expected, seq).into())
        }
        _ => Ok(()),
    }
}

fn is_step(redo: &RedoHead) -> bool {
    matches!(redo.flags.get(), fifo::REDO_WRITE | fifo::REDO_TRUNC)
}

fn step(redo: &RedoHead, place: u64, seq: u32) -> Step {
    let is_write = redo.flags.get() == fifo::REDO_WRITE;
    Step {
        id: ObjectId {
            pfs: Localization(redo.localization.get()).pfs(),
            obj: redo.obj_id.get(),
        },
        at: redo.redo_offset.get(),
        len: is_write.then(|| usize::try_from(redo.bytes.get()).unwrap_or(0)),
        place,
        seq,
    }
}

/// What a TERM record ends.
fn term(redo: &RedoHead) -> Option<Term> {
    let (flags, lo) = (redo.flags.get(), redo.localization.get());
    let at = match flags {
        fifo::REDO_TERM_WRITE => redo.redo_offset.get(),
        fifo::REDO_TERM_TRUNC => 0,
        _ => return None,
    };
    Some((redo.obj_id.get(), lo, flags, at))
}

/// The TERM record that says that `step` is on the medium.
fn ended_by(step: &Step) -> Term {
    let lo = Localization::new(step.id.pfs, 0).0;
    match step.len {
        Some(_) => (step.id.obj, lo, fifo::REDO_TERM_WRITE, step.at),
        None => (step.id.obj, lo, fifo::REDO_TERM_TRUNC, 0),
    }
}

/// A change of one file, made of one record or of several writes that follow each other.
struct Change {
    id: ObjectId,
    at: u64,
    /// Bytes to write; `None`: a truncation.
    bytes: Option<Vec<u8>>,
    records: u64,
}

/// The next changes, with their bytes. One change at least.
fn take_batch(view: &mut View, steps: &mut VecDeque<Step>) -> Result<Vec<Change>> {
    let mut log = Log::new(view);
    let mut batch: Vec<Change> = Vec::new();
    let mut total = 0;
    while total < BATCH
        && let Some(step) = steps.pop_front()
    {
        let bytes = match step.len {
            Some(len) => Some(payload(&mut log, &step, len)?),
            None => None,
        };
        total += bytes.as_ref().map_or(1, Vec::len).max(1);
        match (batch.last_mut(), bytes) {
            (Some(last), Some(bytes)) if follows(last, &step) => {
                if let Some(whole) = &mut last.bytes {
                    whole.extend_from_slice(&bytes);
                    last.records += 1;
                }
            }
            (_, bytes) => batch.push(Change {
                id: step.id,
                at: step.at,
                bytes,
                records: 1,
            }),
        }
    }
    Ok(batch)
}

/// Whether the bytes of `step` continue those of `last`.
fn follows(last: &Change, step: &Step) -> bool {
    let end = last.bytes.as_ref().map(|bytes| bytes.len() as u64);
    last.id == step.id && end.and_then(|len| last.at.checked_add(len)) == Some(step.at)
}

/// The bytes that a record says were written. Our own log may have come to lie over it meanwhile.
fn payload(log: &mut Log<'_>, step: &Step, len: usize) -> Result<Vec<u8>> {
    let record = log.at(step.place)?;
    let data = record.redo_data().filter(|data| data.len() == len);
    match data {
        Some(data) if record.seq() == Some(step.seq) => Ok(data.to_vec()),
        _ => {
            let at = Offset::new(Zone::UNDO, 0, step.place);
            let expected = format!("REDO record number {} with {len} bytes", step.seq);
            Err(Fault::new(Rule::Fifo, at, expected, "another").into())
        }
    }
}

/// Carries out changes, in one transaction.
fn apply(store: &mut Store, batch: &[Change], now: u64, redone: &mut Redone) -> Result<()> {
    let mut txn = store.begin(now)?;
    let mut ops = Ops::new(0);
    for change in batch {
        if ops.pfs() != change.id.pfs {
            ops = Ops::new(change.id.pfs);
        }
        let obj = change.id.obj;
        let result = match &change.bytes {
            Some(bytes) => ops.write_open(&mut txn, obj, change.at, bytes),
            None => ops.truncate(&mut txn, obj, change.at),
        };
        match result {
            Ok(()) => redone.done += change.records,
            Err(error) if error.class() == Class::Other => redone.skipped.push(error.to_string()),
            Err(error) => return Err(error),
        }
        if txn.is_full() {
            txn.checkpoint()?;
        }
    }
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(obj: i64, at: u64) -> Step {
        Step {
            id: ObjectId { pfs: 1, obj },
            at,
            len: Some(10),
            place: 0,
            seq: 0,
        }
    }

    #[test]
    fn ends_of_operations() {
        let step = write(7, 16384);
        assert_eq!(ended_by(&step), (7, 0x1_0000, fifo::REDO_TERM_WRITE, 16384));
        let cut = Step { len: None, ..step };
        assert_eq!(ended_by(&cut), (7, 0x1_0000, fifo::REDO_TERM_TRUNC, 0));
    }

    #[test]
    fn writes_that_follow_each_other() {
        let change = |bytes: Option<Vec<u8>>| Change {
            id: ObjectId { pfs: 1, obj: 7 },
            at: 90,
            bytes,
            records: 1,
        };
        let ten = change(Some(vec![0; 10]));
        assert!(follows(&ten, &write(7, 100)));
        assert!(!follows(&ten, &write(8, 100)));
        assert!(!follows(&ten, &write(7, 90)));
        assert!(!follows(&change(None), &write(7, 90)));
        let last = Change {
            at: u64::MAX,
            ..ten
        };
        assert!(!follows(&last, &write(7, 9)));
    }

    #[test]
    fn gaps_in_the_numbers() {
        assert!(check_seq(0, None, 5).is_ok());
        assert!(check_seq(0, Some(5), 5).is_ok());
        assert!(check_seq(0, Some(5), 6).is_err());
    }
}
