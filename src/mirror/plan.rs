//! What a stream would hold (`mirror-plan`): the same session and the same scan, with an output
//! that only counts. No data is read.

use super::own::Shadow;
use super::read::{Counts, Edge, Output, Report, Request, run};
use super::session::Message;
use super::sieve::{For, Sieve};
use super::source::{Item, Source};
use super::throttle::Clock;
use super::window::Window;
use crate::error::Result;
use crate::format::mrecord::{ELEMENT, SKIP, padded};
use crate::format::node::LeafElement;
use crate::format::record::data_zone;
use crate::format::{BUFFER, Key, Zone};
use crate::progress::{Progress, Status};
use crate::store::Fetch;

/// Counts and forgets.
#[derive(Debug, Default)]
struct Counter {
    bytes: u64,
}

impl Output for Counter {
    fn wants_data(&self) -> bool {
        false
    }

    fn message(&mut self, message: &Message) -> Result<()> {
        self.bytes += message.stream_bytes();
        Ok(())
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        self.bytes += item.stream_bytes();
        Ok(())
    }

    fn flush(&mut self, _: &mut dyn Clock, _: bool) -> Result<()> {
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Finds out what the stream that `request` asks for would hold: the report that [`run`] would
/// give, but for damage that only reading data shows.
pub fn plan<F: Fetch + ?Sized>(
    fetch: &mut F,
    request: &Request,
    edge: &mut Edge<'_>,
) -> Result<Report> {
    run(fetch, request, &mut Counter::default(), edge)
}

/// Records between two looks at time and signals.
const RECORDS: u64 = 64;
/// What an element takes in a tree whose nodes are half full, and what its nodes take above it.
const ELEMENT_SPACE: u64 = 136;

/// What a copy to one target takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// What it gets.
    pub counts: Counts,
    /// Bytes that this takes in its file system, at most about.
    pub space: u64,
    /// Records that it has and would lose because the source does not mention them.
    pub implied_deletes: u64,
    /// Whether that is so much of what is met that the copy would be stopped, unless it is allowed.
    pub brakes: bool,
}

impl Need {
    fn record(&mut self, leaf: &LeafElement) {
        let len = usize::try_from(leaf.data_len.get()).unwrap_or(0);
        let zone = data_zone(
            leaf.base.rec_type.get(),
            u32::try_from(len).unwrap_or(u32::MAX),
        );
        let space = match zone {
            Some(Zone::LARGE_DATA) => len.next_multiple_of(BUFFER),
            _ => len.next_multiple_of(16),
        };
        self.space += space as u64 + ELEMENT_SPACE;
        let counts = &mut self.counts;
        counts.rec += 1;
        counts.payload_bytes += len as u64;
        counts.stream_bytes += padded(ELEMENT + len) as u64;
        counts.deletes += u64::from(!leaf.base.delete_tid().is_zero());
    }

    fn item(&mut self, item: &For<'_>, window: &Window) {
        let counts = &mut self.counts;
        match item {
            For::Nothing => return,
            For::Record(leaf, ..) => self.record(leaf),
            For::Pass(leaf) => {
                let begin = window.begin_at(leaf.base.key());
                counts.pass += 1;
                counts.stream_bytes += padded(ELEMENT) as u64;
                counts.deletes += u64::from(leaf.base.delete_tid() >= begin);
            }
            For::Skip(..) => {
                counts.skip += 1;
                counts.stream_bytes += padded(SKIP) as u64;
            }
        }
        self.counts.records += 1;
    }
}

/// What a copy of PFS `pfs` to targets with these windows, which have one end, takes for each of
/// them: one scan, and no data is read. What targets have and the source does not is not counted:
/// [`plan_against`] does that.
pub fn plan_for<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    windows: &[Window],
    progress: &mut dyn Progress,
) -> Result<Vec<Need>> {
    let mut slaves: Vec<_> = windows.iter().map(|_| None).collect();
    plan_against(fetch, pfs, windows, &mut slaves, progress)
}

/// The same, beside what the targets have: for each window its slave, unless that is yet to be made.
pub fn plan_against<F: Fetch + ?Sized>(
    fetch: &mut F,
    pfs: u16,
    windows: &[Window],
    slaves: &mut [Option<Shadow<'_>>],
    progress: &mut dyn Progress,
) -> Result<Vec<Need>> {
    let mut needs = vec![Need::default(); windows.len()];
    let mut sieves: Vec<Sieve> = windows.iter().map(|window| Sieve::new(*window)).collect();
    let mut source = Source::shared(pfs, Key::pfs_min(pfs), windows, false);
    let mut status = Status::default();
    while !windows.is_empty()
        && let Some(item) = source.next(fetch)?
    {
        if status.items.is_multiple_of(RECORDS) {
            status.object = item.object();
            progress.at(&status)?;
        }
        status.items += 1;
        let targets = needs.iter_mut().zip(&mut sieves).zip(windows);
        for (((need, sieve), window), slave) in targets.zip(&mut *slaves) {
            let item = sieve.sieve(&item);
            need.item(&item, window);
            if let Some(slave) = slave {
                slave.item(&item, &mut || progress.at(&status))?;
            }
        }
    }
    for (need, slave) in needs.iter_mut().zip(slaves) {
        let Some(slave) = slave else { continue };
        let met = slave.finish(&mut || progress.at(&status))?;
        (need.implied_deletes, need.brakes) = (met.gap_deleted, met.brakes());
    }
    Ok(needs)
}
