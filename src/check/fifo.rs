//! The UNDO/REDO FIFO: what recovery would read, and with the option `data` the framing of the
//! whole ring (durability.md §2.2, §5; format.md §21 rule 8).
//!
//! From version 4 on every sector of the ring begins with a record that carries a sequence number.
//! Recovery stands on the record before `first_offset`, those from there to the end of the log, and
//! the one that ends it; damage there is an error. Damage elsewhere in the ring becomes an error
//! only once the log gets there, and is a warning. Before version 4 only the records from
//! `first_offset` to `next_offset` exist.

use super::sink::Severity;
use super::{Run, ahead};
use crate::error::Result;
use crate::format::fifo::{Record, SECTOR};
use crate::format::volume::VolumeHeader;
use crate::format::{BIGBLOCK, BUFFER, Fault, Offset, Rule, Zone};
use crate::io::Bytes;
use crate::store::Fetch;

/// The ring: addresses to bytes.
struct Ring<'h> {
    header: &'h VolumeHeader,
    /// Length in bytes.
    len: u64,
    /// The buffer read last.
    buffer: Option<(u64, Bytes)>,
}

/// One step of a scan: where the record is, its size, its sequence number.
struct Step {
    at: u64,
    size: u64,
    seq: Option<u32>,
}

/// Checks the FIFO that `header`, the root header as it is on the device, describes.
pub(super) fn check<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    header: &VolumeHeader,
) -> Result<()> {
    let version = header.version.get();
    let mut ring = Ring {
        header,
        len: header.undo_bytes(),
        buffer: None,
    };
    if let Err(fault) = header.check_root(Offset::new(Zone::RAW_VOLUME, 0, 0)) {
        // Opening says so too; here it keeps the arithmetic below safe.
        run.sink.error(fault, "root volume header");
        return Ok(());
    }
    let undo = header.zone(Zone::UNDO);
    let first = Offset(undo.first_offset.get()).short() % ring.len;
    let next = Offset(undo.next_offset.get()).short() % ring.len;
    let scanned = if version >= 4 {
        log(run, fetch, &mut ring, first)?
    } else {
        range(run, fetch, &mut ring, first, next)?
    };
    run.report.fifo_records = scanned.records;
    let said = |(rule, severity): &(Rule, Severity)| {
        matches!(rule, Rule::Fifo | Rule::DataRead) && *severity == Severity::Error
    };
    if let Some(fault) = run.media.fifo.clone()
        && !run.sink.counts().keys().any(said)
    {
        run.sink.error(fault, "UNDO FIFO");
    }
    if version >= 4 && run.options.data {
        whole(run, fetch, &mut ring, first, scanned.bytes)?;
    }
    Ok(())
}

/// How far a scan came.
#[derive(Default)]
struct Scanned {
    records: u64,
    bytes: u64,
}

/// Version 4 and later: the record before `first`, and all with ascending sequence numbers from
/// there on, the one that ends them included.
fn log<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    ring: &mut Ring<'_>,
    first: u64,
) -> Result<Scanned> {
    let mut scanned = Scanned::default();
    let Some(before) = sequence_before(run, fetch, ring, first)? else {
        return Ok(scanned);
    };
    let mut expected = before.wrapping_add(1);
    let (mut at, mut walked) = (first, 0);
    // The log cannot be longer than the ring.
    while walked < ring.len {
        let step = match ring.forward(run, fetch, at)? {
            Ok(step) => step,
            Err(fault) => {
                run.sink.error(fault, "UNDO FIFO, range to undo");
                break;
            }
        };
        if let Some(seq) = step.seq {
            if seq != expected {
                break;
            }
            expected = expected.wrapping_add(1);
            scanned.records += 1;
            scanned.bytes = walked + step.size;
        }
        walked += step.size;
        at = (step.at + step.size) % ring.len;
        run.pulse()?;
    }
    Ok(scanned)
}

/// The sequence number of the last record before `first` that has one.
fn sequence_before<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    ring: &mut Ring<'_>,
    first: u64,
) -> Result<Option<u32>> {
    let mut at = first;
    // A sector begins with a numbered record, so two sectors back at the most there is one; old
    // rings are given a buffer.
    for _ in 0..BUFFER / 8 {
        match ring.back(run, fetch, at)? {
            Ok(Step { seq: Some(seq), .. }) => return Ok(Some(seq)),
            Ok(step) => at = step.at,
            Err(fault) => {
                run.sink.error(fault, "UNDO FIFO, before first_offset");
                return Ok(None);
            }
        }
    }
    let place = Offset::new(Zone::UNDO, 0, first);
    let fault = Fault::new(Rule::Fifo, place, "a numbered record before", "only PADs");
    run.sink.error(fault, "UNDO FIFO");
    Ok(None)
}

/// Before version 4: the records from `first` to `next`.
fn range<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    ring: &mut Ring<'_>,
    first: u64,
    next: u64,
) -> Result<Scanned> {
    let mut scanned = Scanned::default();
    let bytes = (next + ring.len - first) % ring.len;
    while scanned.bytes < bytes {
        let at = (first + scanned.bytes) % ring.len;
        match ring.forward(run, fetch, at)? {
            Ok(step) => {
                scanned.bytes += step.size;
                scanned.records += u64::from(step.seq.is_some());
            }
            Err(fault) => {
                run.sink.error(fault, "UNDO FIFO, range to undo");
                return Ok(scanned);
            }
        }
        run.pulse()?;
    }
    if scanned.bytes != bytes {
        let place = Offset::new(Zone::UNDO, 0, next);
        let found = format!("one across it, {} bytes", scanned.bytes - bytes);
        let fault = Fault::new(Rule::Fifo, place, "a record that ends here", found);
        run.sink.error(fault, "UNDO FIFO, next_offset");
    }
    Ok(scanned)
}

/// The framing of all sectors outside of the `bytes` from `first` on that were looked at already.
fn whole<F: Fetch + ?Sized>(
    run: &mut Run<'_>,
    fetch: &mut F,
    ring: &mut Ring<'_>,
    first: u64,
    bytes: u64,
) -> Result<()> {
    for sector in (0..ring.len).step_by(SECTOR as usize) {
        ahead(fetch, ring.place(sector));
        // Neither the log nor the record that ends it a second time.
        let past = (sector + ring.len - first) % ring.len;
        if past <= bytes || ring.len - past < SECTOR {
            continue;
        }
        let mut at = sector;
        while at < sector + SECTOR {
            let fault = match ring.forward(run, fetch, at)? {
                Ok(step) if at == sector && step.seq.is_none() => {
                    ring.fault(at, "a numbered record", "a PAD")
                }
                Ok(step) if at + step.size > sector + SECTOR => {
                    ring.fault(at, "a record within its sector", &step.size.to_string())
                }
                Ok(step) => {
                    at += step.size;
                    continue;
                }
                Err(fault) => fault,
            };
            run.sink.warn(fault, "UNDO FIFO, outside the range to undo");
            break;
        }
        run.pulse()?;
    }
    Ok(())
}

impl Ring<'_> {
    fn fault(&self, at: u64, expected: &str, found: &str) -> Fault {
        Fault::new(
            Rule::Fifo,
            Offset::new(Zone::UNDO, 0, at),
            expected.to_owned(),
            found.to_owned(),
        )
    }

    /// The zone-2 address of the ring's byte `at`.
    fn place(&self, at: u64) -> Offset {
        let slot = (at / BIGBLOCK) as usize;
        let slot = self.header.undo_array.get(slot).map_or(0, |s| s.get());
        Offset(slot.wrapping_add(at % BIGBLOCK))
    }

    /// The 16 KiB buffer that holds the ring's byte `at`.
    fn buffer<F: Fetch + ?Sized>(
        &mut self,
        run: &Run<'_>,
        fetch: &mut F,
        at: u64,
    ) -> Result<Result<Bytes, Fault>> {
        let base = at - at % BUFFER as u64;
        if let Some((found, bytes)) = &self.buffer
            && *found == base
        {
            return Ok(Ok(bytes.clone()));
        }
        Ok(match fetch.bytes(self.place(base), BUFFER) {
            Ok(bytes) => {
                self.buffer = Some((base, bytes.clone()));
                Ok(bytes)
            }
            Err(error) => Err(run.media_fault(error, Rule::DataRead, self.place(base))?),
        })
    }

    /// The record that starts at `at`.
    fn forward<F: Fetch + ?Sized>(
        &mut self,
        run: &Run<'_>,
        fetch: &mut F,
        at: u64,
    ) -> Result<Result<Step, Fault>> {
        let version = self.header.version.get();
        let buffer = match self.buffer(run, fetch, at)? {
            Ok(buffer) => buffer,
            Err(fault) => return Ok(Err(fault)),
        };
        let pos = (at % BUFFER as u64) as usize;
        let base = Offset::new(Zone::UNDO, 0, at - pos as u64);
        let place = Offset::new(Zone::UNDO, 0, at);
        Ok(Record::at(&buffer, pos, base, version).and_then(|record| {
            if let Some(undo) = record.undo(place)?
                && undo.at.zone() == Zone::RAW_BUFFER
                && !run.media.holds(undo.at, undo.old.len() as u64)
            {
                let expected = "old bytes of a place inside a volume";
                return Err(Fault::new(Rule::Fifo, place, expected, undo.at));
            }
            Ok(Step {
                at,
                size: record.size() as u64,
                seq: record.seq(),
            })
        }))
    }

    /// The record that ends at `at`.
    fn back<F: Fetch + ?Sized>(
        &mut self,
        run: &Run<'_>,
        fetch: &mut F,
        at: u64,
    ) -> Result<Result<Step, Fault>> {
        let version = self.header.version.get();
        let end = if at == 0 { self.len } else { at };
        let buffer = match self.buffer(run, fetch, end - 1)? {
            Ok(buffer) => buffer,
            Err(fault) => return Ok(Err(fault)),
        };
        let start = (end - 1) - (end - 1) % BUFFER as u64;
        let base = Offset::new(Zone::UNDO, 0, start);
        let found = Record::before(&buffer, (end - start) as usize, base, version);
        Ok(found.map(|(pos, record)| Step {
            at: start + pos as u64,
            size: record.size() as u64,
            seq: record.seq(),
        }))
    }
}
