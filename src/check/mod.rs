//! Is it whole: full verification of a volume set, read-only (format.md §21).
//!
//! [`run`] goes over everything once: headers, FIFO, freemap, then the B-Tree in key order. The
//! walk feeds each record to the leaf rules, to the space accounting and to the view of its PFS
//! (current; slaves as of their `sync_end_tid`). Then one further pass per group of snapshots looks
//! at the PFSs as of each, where the original's own pruning can leave gaps: those findings are
//! warnings. A finding never ends a check; only what ends the picture itself does.
//!
//! Without [`Options::data`] the check reads headers, the FIFO's range to undo, the freemap, all
//! nodes and all record data of zone 9 (inodes, entries, PFS records …) and verifies every CRC among
//! them. With it also all file data: their CRCs, the zeros behind each file's end, and the framing
//! of the FIFO's whole ring. File data of snapshots is looked at for zeros behind the end only
//! where it is no longer current.
//!
//! Memory: `space` documents the accounting of space; `files` takes 32 bytes an inode and 24 an
//! entry of one PFS at a time. Snapshots are looked at together only as far as that stays below
//! 64 MiB.

mod blocks;
mod entries;
mod fifo;
mod files;
mod freemap;
mod header;
mod leaf;
mod media;
mod pass;
mod pfs;
mod records;
mod sink;
mod space;
mod tree;

pub use media::{Media, Volume};
pub use sink::{Finding, Severity};

use crate::error::{Error, Result};
use crate::format::{BIGBLOCK, Fault, Offset, Rule, Tid, XBUFFER};
use crate::io::Bytes;
use crate::progress::{Progress, Status};
use crate::store::{Fetch, View};
use leaf::Versions;
use sink::Sink;
use space::Space;

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Read all file data too.
    pub data: bool,
    /// Compare every `mirror_tid` with the TIDs below it; violations are errors then, and each one
    /// is handed out.
    pub mirror_tid: bool,
    /// Findings of one rule and severity to hand out; the rest are counted.
    pub per_rule: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data: false,
            mirror_tid: false,
            per_rule: 100,
        }
    }
}

/// What was looked at and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Findings by rule and severity, all of them, handed out or not.
    pub counts: Vec<(Rule, Severity, u64)>,
    /// B-Tree nodes.
    pub nodes: u64,
    /// Leaves among them.
    pub leaves: u64,
    /// Records, every version.
    pub records: u64,
    /// Inodes that are not deleted, over all PFSs.
    pub inodes: u64,
    /// Views of a PFS: the current one or the slave's, and one per snapshot.
    pub views: u64,
    /// Snapshots left out because there are too many.
    pub snapshots_left_out: u64,
    /// Big-blocks in use.
    pub bigblocks_used: u64,
    /// FIFO records in the range to undo.
    pub fifo_records: u64,
    /// Bytes of metadata records' data compared with their CRCs.
    pub metadata_bytes: u64,
    /// Bytes of file data compared with their CRCs.
    pub data_bytes: u64,
    /// Whether every node of the tree could be read.
    pub complete: bool,
}

impl Report {
    /// Findings of one severity.
    pub fn total(&self, severity: Severity) -> u64 {
        let counts = self.counts.iter().filter(|(_, s, _)| *s == severity);
        counts.map(|(_, _, n)| n).sum()
    }

    /// Number of errors.
    pub fn errors(&self) -> u64 {
        self.total(Severity::Error)
    }

    /// Number of warnings.
    pub fn warnings(&self) -> u64 {
        self.total(Severity::Warn)
    }
}

/// A check under way.
struct Run<'a> {
    media: &'a Media,
    options: &'a Options,
    sink: Sink<'a>,
    progress: &'a mut dyn Progress,
    report: Report,
    space: Space,
    versions: Versions,
    version: u32,
    next_tid: Tid,
    /// Nodes were lost: absence proves nothing.
    incomplete: bool,
    /// Nodes break the rules of nodes: passes without reports leave them out.
    tree_faults: bool,
    /// Data was lost whose place and length are unknown.
    unplaced: bool,
    status: Status,
    pulses: u32,
}

/// Checks everything that `view` shows. Findings go to `findings` as they are made. An error is one
/// of the picture as a whole (it expired) or of `progress` (interrupted).
pub fn run(
    view: &mut View,
    options: &Options,
    findings: &mut dyn FnMut(Finding),
    progress: &mut dyn Progress,
) -> Result<Report> {
    let mut media = Media::of(view.volumes());
    media.fifo = view.fifo_fault().cloned();
    run_on(view, &media, options, findings, progress)
}

/// [`run`] on any picture of the volumes that `media` describes.
pub fn run_on<F: Fetch + ?Sized>(
    fetch: &mut F,
    media: &Media,
    options: &Options,
    findings: &mut dyn FnMut(Finding),
    progress: &mut dyn Progress,
) -> Result<Report> {
    let header = *fetch.header();
    let mut run = Run {
        media,
        options,
        sink: Sink::new(
            findings,
            options.per_rule,
            options.mirror_tid.then_some(Rule::MirrorTid),
        ),
        progress,
        report: Report::default(),
        space: Space::default(),
        versions: Versions::default(),
        version: header.version.get(),
        next_tid: header.next_tid(),
        incomplete: false,
        tree_faults: false,
        unplaced: false,
        status: Status::default(),
        pulses: 0,
    };
    header::check(&mut run, &header);
    if let Some(root) = media.volumes.iter().find(|v| v.number == 0) {
        fifo::check(&mut run, fetch, &root.header)?;
    }
    freemap::check(&mut run, fetch, &header)?;
    let (meta, data) = run.space.expected_bytes();
    let total = meta + if options.data { data } else { 0 };
    run.status.bytes_total = Some(total);
    let snapshots = records::check(&mut run, fetch)?;
    let certain = !run.incomplete && !run.unplaced;
    run.space.finish(certain, &mut run.sink);
    pfs::snapshots(&mut run, fetch, snapshots)?;
    run.report.complete = !run.incomplete;
    run.status.bytes = total;
    run.tick()?;
    let counts = run.sink.counts().iter();
    run.report.counts = counts
        .map(|((rule, severity), n)| (*rule, *severity, *n))
        .collect();
    Ok(run.report)
}

/// A finding made of an error that carries a violated rule: what opening a damaged volume gives.
pub fn finding(error: &Error) -> Option<Finding> {
    error.fault().map(|fault| Finding {
        severity: Severity::Error,
        fault: fault.clone(),
        detail: String::new(),
    })
}

/// For walks over whole big-blocks: at each multiple of a MiB, `at`, announces the MiB behind this
/// one; at a big-block's start this one too.
fn ahead<F: Fetch + ?Sized>(fetch: &mut F, at: Offset) {
    const STEP: u64 = 1 << 20;
    let start = at.in_bigblock();
    if !start.is_multiple_of(STEP) {
        return;
    }
    let from = if start == 0 { 0 } else { start + STEP };
    let to = (start + 2 * STEP).min(BIGBLOCK);
    let chunks = (from..to).step_by(XBUFFER);
    let list: Vec<_> = chunks
        .map(|byte| (Offset(at.bigblock().0 + byte), XBUFFER))
        .collect();
    fetch.want(&list);
}

impl Run<'_> {
    /// The fault that `error`, met at `at`, stands for: its own, or one of `rule`. What is no fault
    /// of the medium is an error still.
    fn media_fault(&self, error: Error, rule: Rule, at: Offset) -> Result<Fault> {
        if !error.is_media() {
            return Err(error);
        }
        let own = error.fault().cloned();
        Ok(own.unwrap_or_else(|| Fault::new(rule, at, "bytes that can be read", error)))
    }

    /// Bytes of metadata; `None`, with a finding, where there are none.
    fn metadata<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        at: Offset,
        len: usize,
        what: &str,
    ) -> Result<Option<Bytes>> {
        match fetch.bytes(at, len) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => {
                let fault = self.media_fault(error, Rule::DataRead, at)?;
                self.sink.error(fault, what);
                Ok(None)
            }
        }
    }

    /// Tells how far the check is, now and then.
    fn pulse(&mut self) -> Result<()> {
        self.pulses = self.pulses.wrapping_add(1);
        if !self.pulses.is_multiple_of(256) {
            return Ok(());
        }
        self.tick()
    }

    /// Tells how far the check is.
    fn tick(&mut self) -> Result<()> {
        // The freemap may say less than there is: it counts freed space at once.
        let total = self.status.bytes_total.unwrap_or(u64::MAX);
        self.progress.at(&Status {
            bytes: self.status.bytes.min(total),
            ..self.status
        })
    }
}
