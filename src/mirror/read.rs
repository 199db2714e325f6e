//! A stream from beginning to end: the session, the scan and an output put together; two-way, with
//! what the target says.

use super::damage::{Damage, Damages};
pub use super::output::Output;
use super::ready::Identity;
use super::session::{Action, Ended, Message, Session};
use super::source::{Item, Source};
use super::split::{self, Chunk, Histogram};
use super::throttle::Clock;
use super::window::{SourcePfs, Window, untouched};
use super::wire::{Records, broken};
use crate::error::{Class, Error, Result};
use crate::format::mrecord::Capabilities;
use crate::format::{Key, Tid};
use crate::fs::pfs;
use crate::progress::{Progress, Status};
use crate::store::{Fetch, View};
use std::io::Read;

/// Records between two looks at time and signals.
const RECORDS: u32 = 32;
/// Bytes of the stream between two events that say how far a batch is.
const SCANNED: u64 = 512 << 10;

/// What to stream.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// From which PFS.
    pub pfs: SourcePfs,
    /// What of it.
    pub window: Window,
    /// Split into batches of about so many bytes; `None`: one batch (`-B`).
    pub split: Option<u64>,
    /// Let the target acknowledge batches of which not everything could be read.
    pub accept_damage: bool,
    /// Somebody may be writing to the volume: how far the PFS can be given is to be looked up in the
    /// view once it is known from where on.
    pub live: bool,
}

/// The views of a source that is followed, one after another.
pub trait Supply {
    /// A view to give what is there to give; the first one at once, another when the source may have
    /// more, or when the last one was `overtaken`. `None`: there will be none.
    fn next(&mut self, overtaken: bool) -> Result<Option<Supplied>>;
}

/// A view, and what to give of it.
pub struct Supplied {
    /// The view.
    pub view: View,
    /// What to give; its window counts only one-way, and only for the first.
    pub request: Request,
}

/// Something to tell the user.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A prescan for chunks of this many bytes begins.
    Prescan(u64),
    /// The prescan has seen another chunk's worth of bytes.
    PrescanChunk,
    /// The prescan is over.
    Prescanned {
        /// What it led to.
        chunks: &'a [Chunk],
        /// Bytes that it counted.
        total: u64,
    },
    /// A batch begins.
    Batch {
        /// Its window.
        window: Window,
        /// Its bytes as the prescan counted them, if there was one.
        estimate: Option<u64>,
    },
    /// There is no work in the batch.
    NoWork,
    /// Two-way: what both ends can do beyond the original.
    Agreed(Capabilities),
    /// Two-way: the target has everything up to this TID, on stable media.
    Acknowledged(Tid),
    /// Something could not be read.
    Damage(&'a Damage),
    /// Some more of the batch's records are through.
    Scanned {
        /// The object of the last of them.
        object: i64,
        /// Bytes of the stream so far, in all batches.
        bytes: u64,
        /// Whether that was the last of this batch.
        whole: bool,
    },
}

/// Where time, progress and the user come in.
pub struct Edge<'a> {
    /// Time, for the bandwidth ceiling.
    pub clock: &'a mut dyn Clock,
    /// Told at every safe point. An error of class `Interrupted` ends the stream there, with TERM.
    pub progress: &'a mut dyn Progress,
    /// Told what happens.
    pub events: &'a mut dyn FnMut(&Event<'_>),
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records of the B-Tree: REC, PASS and SKIP together.
    pub records: u64,
    /// REC: elements created in the window.
    pub rec: u64,
    /// PASS: older elements of the leaves visited.
    pub pass: u64,
    /// SKIP: ranges without changes.
    pub skip: u64,
    /// Deletions that the target has not heard of: PASS with a `delete_tid` in the window or
    /// behind it, and REC with one.
    pub deletes: u64,
    /// Bytes of data.
    pub payload_bytes: u64,
    /// Bytes in all, session records and padding included.
    pub stream_bytes: u64,
}

impl Counts {
    pub(super) fn item(&mut self, item: &Item, window: &Window) {
        self.records += 1;
        self.stream_bytes += item.stream_bytes();
        self.payload_bytes += item.payload() as u64;
        let deleted = match item {
            Item::Record { leaf, .. } => {
                self.rec += 1;
                !leaf.base.delete_tid().is_zero()
            }
            Item::Pass(leaf) => {
                self.pass += 1;
                leaf.base.delete_tid() >= window.begin
            }
            Item::Skip { .. } => {
                self.skip += 1;
                false
            }
            Item::Quiet { .. } => {
                self.records -= 1;
                false
            }
        };
        self.deletes += u64::from(deleted);
    }
}

/// A place in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The window of the batch.
    pub window: Window,
    /// Every key below was sent.
    pub key: Key,
}

/// Where a stream was stopped before its end, between two records.
#[derive(Debug)]
pub struct Stop {
    /// How far it was.
    pub at: Position,
    /// Where a continuation begins: there, or at the first damage that was not acknowledged, which
    /// no continuation may leave behind.
    pub resume: Position,
    /// Why: an error of class `Interrupted` (on request) or `Expired` (a writer was too fast).
    pub why: Error,
}

/// How a stream went.
#[derive(Debug, Default)]
pub struct Report {
    /// What it holds.
    pub counts: Counts,
    /// Its batches.
    pub batches: u64,
    /// What could not be read.
    pub damage: Damages,
    /// Two-way: what the target had, and what it acknowledged last.
    pub target: (Option<Tid>, Option<Tid>),
    /// Set if it was stopped before its end: its last batch is not whole.
    pub stopped: Option<Stop>,
}

/// Streams what `request` asks for into `out`.
///
/// What is merely damaged is sent as far as it goes (flagged, or as a SKIP that nothing is known
/// of) and listed in the report. An error means that the stream ends in the middle.
pub fn run<F: Fetch + ?Sized>(
    fetch: &mut F,
    request: &Request,
    out: &mut dyn Output,
    edge: &mut Edge<'_>,
) -> Result<Report> {
    let mut session = Session::one_way(request.pfs, request.window.end);
    let mut report = Report::default();
    Run::new(*request, out, edge, &mut report).session(fetch, &mut session, None)?;
    Ok(report)
}

/// Streams two-way: the target says in `answers` what it lacks, in place of the window that `request`
/// has, and what it has acknowledged. `report` is right after an error too.
///
/// Errors, beyond those of [`run`]: class `Incompatible` if the target does not belong to this
/// master, `Protocol` if it says what does not belong there, or is gone.
pub fn converse<F: Fetch + ?Sized, R: Read>(
    fetch: &mut F,
    request: &Request,
    announces: Capabilities,
    out: &mut dyn Output,
    answers: &mut Records<R>,
    edge: &mut Edge<'_>,
    report: &mut Report,
) -> Result<()> {
    let announces = announced(request, announces);
    let mut session = Session::two_way(request.pfs).announcing(announces);
    Run::new(*request, out, edge, report).session(fetch, &mut session, Some(answers))
}

/// What a source announces that can do `what`.
fn announced(request: &Request, what: Capabilities) -> Capabilities {
    match request.accept_damage {
        // What is accepted is sent as if it were whole: nobody may go on behind it.
        true => what.both(Capabilities::ALIVE),
        false => what,
    }
}

/// Streams whatever `supply` gives, until it gives no more; two-way where there are `answers`. A view
/// that is overtaken ends its batch, and another one has the rest. `report` is right after an error
/// too. Errors: those of [`converse`], and those of `supply`.
pub fn follow<R: Read>(
    supply: &mut dyn Supply,
    announces: Capabilities,
    out: &mut dyn Output,
    mut answers: Option<&mut Records<R>>,
    edge: &mut Edge<'_>,
    report: &mut Report,
) -> Result<()> {
    let Some(mut supplied) = supply.next(false)? else {
        return Ok(());
    };
    let request = supplied.request;
    let mut session = match answers {
        Some(_) => Session::two_way(request.pfs).announcing(announced(&request, announces)),
        None => Session::one_way(request.pfs, request.pfs.end),
    };
    session = session.following();
    let mut run = Run::new(request, out, edge, report);
    (run.follows, run.two_way) = (true, answers.is_some());
    loop {
        let answers = answers
            .as_deref_mut()
            .map(|answers| answers as &mut dyn Answers);
        run.session(&mut supplied.view, &mut session, answers)?;
        if session.is_over() {
            return Ok(());
        }
        // It holds memory and expires; the next one is another.
        drop(supplied);
        match supply.next(std::mem::take(&mut run.overtaken))? {
            Some(next) => {
                supplied = next;
                run.renew(supplied.request);
                session.renew(supplied.request.pfs);
            }
            None => {
                session.end();
                while let Action::Send(message) = session.action() {
                    run.send(&message, true)?;
                }
                return Ok(());
            }
        }
    }
}

/// The target's way back.
trait Answers {
    /// Waits for what the target says, and shows it to the session.
    fn hear(&mut self, session: &mut Session) -> Result<()>;
}

impl<R: Read> Answers for Records<R> {
    fn hear(&mut self, session: &mut Session) -> Result<()> {
        let at = self.offset();
        match self.next()? {
            Some(record) => session.take(&record.body),
            None => Err(broken(
                at,
                "the target is gone; nothing that it acknowledged is lost, start again",
            )),
        }
    }
}

struct Run<'a, 'e> {
    request: Request,
    /// What is asked for; two-way, once the target has said it.
    window: Window,
    /// Whether another view follows one that is overtaken.
    follows: bool,
    two_way: bool,
    /// Whether that happened.
    overtaken: bool,
    out: &'a mut dyn Output,
    edge: &'a mut Edge<'e>,
    report: &'a mut Report,
    /// The first damage that keeps this and all later batches from being acknowledged.
    held: Option<Position>,
    /// The object of the last record.
    object: i64,
    /// Bytes of the stream when that was last told.
    scanned: u64,
    /// The batches' estimated bytes, if there was a prescan.
    estimates: Option<std::vec::IntoIter<u64>>,
    total: Option<u64>,
}

impl<'a, 'e> Run<'a, 'e> {
    fn new(
        request: Request,
        out: &'a mut dyn Output,
        edge: &'a mut Edge<'e>,
        report: &'a mut Report,
    ) -> Run<'a, 'e> {
        Run {
            request,
            window: request.window,
            follows: false,
            two_way: false,
            overtaken: false,
            out,
            edge,
            report,
            held: None,
            object: 0,
            scanned: 0,
            estimates: None,
            total: None,
        }
    }

    /// Another view takes the place of the last one.
    fn renew(&mut self, request: Request) {
        self.request = request;
        self.window.end = request.pfs.end;
        self.window.resume = None;
        (self.estimates, self.total) = (None, None);
    }

    /// Sends a record of the session.
    fn send(&mut self, message: &Message, two_way: bool) -> Result<()> {
        self.report.counts.stream_bytes += message.stream_bytes();
        self.out.message(message)?;
        // The one who reads is to see a mark when it is made; two-way, all of it.
        if two_way || !matches!(message, Message::Pfsd(_)) {
            self.out.flush(self.edge.clock, true)?;
        }
        Ok(())
    }

    /// Does what the session says, until it is over or waits for another view.
    fn session<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        session: &mut Session,
        mut answers: Option<&mut dyn Answers>,
    ) -> Result<()> {
        // Before anything is begun with this view: it may be overtaken at any time.
        let leaf = match answers.is_some() {
            true => match pfs::load(fetch, self.request.pfs.id) {
                Ok(found) => found.map_or(Tid::ZERO, |pfs| Identity::of(&pfs).leaf()),
                Err(why) if self.is_overtaken(&why) => {
                    self.overtaken = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
            false => Tid::ZERO,
        };
        loop {
            match session.action() {
                Action::Send(message) => self.send(&message, answers.is_some())?,
                Action::Take => {
                    let Some(answers) = &mut answers else {
                        return Err(broken(0, "nobody answers"));
                    };
                    let before = (session.acknowledged(), session.agreed());
                    answers.hear(session)?;
                    self.heard(session, before);
                }
                Action::Identify => session.identified(leaf),
                Action::Plan => match self.windows(fetch) {
                    Ok(windows) => session.plan(windows),
                    Err(why) if self.is_overtaken(&why) => {
                        // A batch was begun: it ends without work.
                        self.overtaken = true;
                        let nothing = Window {
                            end: Tid(self.window.begin.0.saturating_sub(1)),
                            resume: None,
                            ..self.window
                        };
                        session.plan([nothing]);
                    }
                    Err(why) if is_stop(&why) => {
                        self.stop(self.window, Key::pfs_min(self.request.pfs.id), why);
                        session.plan([]);
                    }
                    Err(error) => return Err(error),
                },
                Action::Bulk(window) => {
                    let ended = self.batch(fetch, window)?;
                    self.report.batches += 1;
                    if matches!(ended, Ended::Complete | Ended::Idle) {
                        self.window.begin = self.window.begin.max(window.end.next());
                    }
                    session.bulk_ended(ended);
                }
                Action::Wait | Action::Done => return Ok(()),
            }
        }
    }

    /// Whether the view is of no more use, and another one follows. One-way, the target has to see
    /// that the next batch leaves nothing out: a begin at the floor does not say so.
    fn is_overtaken(&self, error: &Error) -> bool {
        let floor = Tid(self.request.pfs.data.sync_beg_tid.get());
        let is_told = self.two_way || self.window.begin > floor;
        self.follows && is_told && error.class() == Class::Expired
    }

    /// Takes notice of what the target said.
    fn heard(&mut self, session: &Session, (before, agreed): (Option<Tid>, Capabilities)) {
        let (has, acknowledged) = (session.target(), session.acknowledged());
        if session.agreed() != agreed {
            (self.edge.events)(&Event::Agreed(session.agreed()));
            self.out.agreed(session.agreed());
        }
        if let Some(tid) = has {
            let floor = Tid(self.request.pfs.data.sync_beg_tid.get());
            self.window = Window {
                begin: tid.next().max(floor),
                end: self.request.pfs.end,
                resume: None,
            };
            self.report.target.0 = self.report.target.0.or(has);
        }
        if let Some(resume) = session.resume() {
            self.window.end = self.request.pfs.end.max(resume.end);
            self.window.resume = Some(resume);
        }
        if let Some(tid) = acknowledged.filter(|_| acknowledged != before) {
            self.report.target.1 = acknowledged;
            (self.edge.events)(&Event::Acknowledged(tid));
        }
    }

    fn stop(&mut self, window: Window, key: Key, why: Error) {
        let at = Position { window, key };
        // What was damaged was given out before, so it lies below `key` or in an earlier window.
        let resume = self.held.unwrap_or(at);
        self.report.stopped = Some(Stop { at, resume, why });
    }

    /// The windows of all batches: one, unless the transfer is to be split and long enough for it.
    fn windows<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Vec<Window>> {
        if self.request.live {
            let mut pfs = self.request.pfs;
            pfs.beside_a_writer(fetch, self.window.begin, self.edge.progress)?;
            // A batch that goes on ends at the earliest where it would have.
            let resume = self.window.resume.map(|resume| resume.end);
            self.window.end = resume.map_or(pfs.end, |end| end.max(pfs.end));
        }
        let window = self.window;
        let whole = vec![window];
        let Some(split) = self.request.split else {
            return Ok(whole);
        };
        let long = split::may_exceed(fetch.header(), split);
        if window.is_empty() || window.resume.is_some() || !long || self.is_idle(fetch, &window)? {
            return Ok(whole);
        }
        (self.edge.events)(&Event::Prescan(split));
        let histogram = self.prescan(fetch, &window, split)?;
        let chunks = histogram.chunks(split);
        self.total = Some(histogram.total());
        (self.edge.events)(&Event::Prescanned {
            chunks: &chunks,
            total: histogram.total(),
        });
        let estimates: Vec<u64> = chunks.iter().map(|chunk| chunk.bytes).collect();
        self.estimates = Some(estimates.into_iter());
        let windows = chunks.iter().map(|chunk| Window {
            begin: chunk.begin,
            end: chunk.end,
            resume: None,
        });
        Ok(windows.collect())
    }

    fn prescan<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        window: &Window,
        split: u64,
    ) -> Result<Histogram> {
        let mut histogram = Histogram::new(window.begin, window.end);
        let mut source = Source::new(self.request.pfs.id, *window, false);
        let mut shown = 0;
        loop {
            if source.wants_step(fetch) {
                self.tell()?;
                source.step(fetch)?;
                continue;
            }
            let Some(item) = source.take(fetch)? else {
                return Ok(histogram);
            };
            self.object = item.object();
            if let Item::Record { leaf, .. } | Item::Pass(leaf) = &item {
                histogram.add(leaf);
            }
            if histogram.total() - shown > split {
                shown = histogram.total();
                (self.edge.events)(&Event::PrescanChunk);
            }
        }
    }

    fn is_idle<F: Fetch + ?Sized>(&self, fetch: &mut F, window: &Window) -> Result<bool> {
        let (from, to) = (
            Key::pfs_min(self.request.pfs.id),
            Key::pfs_max(self.request.pfs.id),
        );
        // What a target got of an interrupted batch is to be acknowledged, or taken back.
        let resumed = window.resume.is_some() && self.report.target.0.is_some();
        Ok(!resumed && (window.is_empty() || untouched(fetch, from, to, window.begin)?))
    }

    /// Tells how far the stream is; an error ends it.
    fn tell(&mut self) -> Result<()> {
        self.edge.progress.at(&Status {
            items: self.report.counts.records,
            bytes: self.out.bytes(),
            bytes_total: self.total,
            object: self.object,
        })
    }

    /// Says so if enough of a batch, or the `whole` of it, is through.
    fn scanned(&mut self, whole: bool) {
        let bytes = self.report.counts.stream_bytes;
        if whole || bytes.saturating_sub(self.scanned) >= SCANNED {
            self.scanned = bytes;
            (self.edge.events)(&Event::Scanned {
                object: self.object,
                bytes,
                whole,
            });
        }
    }

    /// Sends the records of one batch.
    fn batch<F: Fetch + ?Sized>(&mut self, fetch: &mut F, window: Window) -> Result<Ended> {
        let estimate = self.estimates.as_mut().and_then(Iterator::next);
        (self.edge.events)(&Event::Batch { window, estimate });
        let mut source = Source::new(self.request.pfs.id, window, self.out.wants_data());
        let idle = match self.is_idle(fetch, &window) {
            Ok(false) => self.drain(fetch, &window, &mut source).map(|()| false),
            idle => idle,
        };
        match idle {
            Ok(true) => {
                (self.edge.events)(&Event::NoWork);
                return Ok(Ended::Idle);
            }
            Ok(false) => self.scanned(true),
            Err(why) if self.is_overtaken(&why) => {
                self.overtaken = true;
                return Ok(Ended::Overtaken);
            }
            Err(why) if is_stop(&why) => {
                self.stop(window, source.position(), why);
                return Ok(Ended::Stopped);
            }
            Err(error) => return Err(error),
        }
        if self.request.accept_damage {
            self.held = None;
        }
        Ok(match self.held {
            Some(_) => Ended::Damaged,
            None => Ended::Complete,
        })
    }

    /// Sends everything that `source` gives.
    fn drain<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        window: &Window,
        source: &mut Source,
    ) -> Result<()> {
        let mut quiet = RECORDS;
        loop {
            let step = source.wants_step(fetch);
            quiet += 1;
            if step || quiet > RECORDS {
                quiet = 0;
                self.tell()?;
            }
            if step {
                source.step(fetch)?;
                continue;
            }
            let Some(item) = source.take(fetch)? else {
                return Ok(());
            };
            self.object = item.object();
            self.report.counts.item(&item, window);
            if let Some(damage) = item.damage() {
                let (window, key) = (*window, damage.from);
                self.held.get_or_insert(Position { window, key });
                self.report.damage.add(damage);
                (self.edge.events)(&Event::Damage(damage));
            }
            self.out.item(&item)?;
            self.out.flush(self.edge.clock, false)?;
            self.scanned(false);
        }
    }
}

/// Whether an error ends a stream properly, at the last record sent: a stop on request, or a view
/// that a writer has overtaken.
fn is_stop(error: &Error) -> bool {
    matches!(error.class(), Class::Interrupted | Class::Expired)
}
