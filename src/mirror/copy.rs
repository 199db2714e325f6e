//! One PFS copied to slaves of this machine (`mirror-copy`): one scan of the source for all of them.
//!
//! # The road of a pass
//!
//! ```text
//! check     every slave against the source: nothing is written before all fit
//! settle    what a pass that cannot be continued left is taken back; a cursor is read
//! window    from what each slave has to one end
//! scan      a thread reads the source: what the slave that lacks most lacks, data in long runs
//! apply     each slave takes of it what it lacks itself
//! note      every so often all is made durable, and with it how far each slave is
//! complete  what was not mentioned goes; the end becomes what the slave has; durable, acknowledged
//! ```
//!
//! It can end anywhere: what is durable is beyond what a slave shows, and the slave's own record says
//! where to go on. A slave that fails leaves the others alone.
//!
//! A source in a slave's own volumes is read between that slave's transactions, a portion at a time,
//! always up to the same TID: what changes meanwhile is of another PFS or later.

use super::apply::successor;
use super::apply::{Applied, Terms};
use super::damage::{Damage, Damages};
use super::lane::Lane;
use super::link::{link, portion, read};
use super::pour::Pour;
use super::ready::{Identity, Ready, ahead, check, settle};
use super::source::{Item, Source};
use super::split::{self, Histogram};
use super::takeback;
use super::throttle::{Clock, Throttle};
use super::window::{SourcePfs, Window, is_idle};
use crate::error::{Class, Error, Result};
use crate::format::node::LeafElement;
use crate::format::{Key, Tid};
use crate::fs::rollback::RolledBack;
use crate::progress::{Progress, Status};
use crate::store::{Fetch, Store, View};
use std::time::Duration;

/// Records between two looks at time and signals.
pub(super) const RECORDS: u64 = 64;
/// Data of one transaction where the source is in the slave's own volumes.
const INSIDE: usize = 16 << 20;

/// Where the source is.
pub enum Origin<'a> {
    /// In volumes of its own.
    Apart(&'a mut View),
    /// In the volumes of this store, by its index.
    Inside(usize),
}

/// A slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In the volumes of this store, by its index.
    pub store: usize,
    /// Its number.
    pub pfs: u16,
}

/// How much is made durable at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// After so many records of the source.
    pub records: u64,
    /// After so many bytes of data.
    pub bytes: u64,
    /// After so much time.
    pub time: Duration,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            records: 1 << 20,
            bytes: 512 << 20,
            time: Duration::from_secs(3),
        }
    }
}

/// What to copy, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The source.
    pub source: SourcePfs,
    /// What slaves know it by.
    pub identity: Identity,
    /// Split into passes of about so many bytes, each acknowledged.
    pub split: Option<u64>,
    /// Under which terms passes are acknowledged.
    pub terms: Terms,
    /// At most so many bytes a second.
    pub bandwidth: Option<u64>,
    /// How much is made durable at a time.
    pub group: Group,
    /// Bytes of data in all, for progress, where that is known.
    pub bytes_total: Option<u64>,
}

/// Something to tell the user. Slaves are named by their index.
#[derive(Debug)]
pub enum Event<'a> {
    /// What a pass left that could not be continued was taken back.
    TakenBack(usize, RolledBack),
    /// An interrupted pass goes on.
    Resumed(usize, Key),
    /// A pass begins for a slave.
    Pass(usize, Window),
    /// Everything up to this TID was there already.
    Standing(usize, Tid),
    /// A pass is durable and acknowledged.
    Acknowledged(usize, Tid, &'a Applied),
    /// A pass is durable, and is not acknowledged: not everything of it could be read.
    Withheld(usize, &'a Applied),
    /// A slave failed.
    Failed(usize, &'a Error),
    /// Something could not be read.
    Damage(&'a Damage),
}

/// Where time, progress and the user come in.
pub struct Edge<'a> {
    /// The time, in microseconds since 1970.
    pub now: &'a mut dyn FnMut() -> u64,
    /// Time, for the bandwidth ceiling and for how much is made durable at a time.
    pub clock: &'a mut dyn Clock,
    /// Told at every safe point, of bytes that are durable. An error ends the copy there; what came
    /// so far is kept.
    pub progress: &'a mut dyn Progress,
    /// Told what happens.
    pub events: &'a mut dyn FnMut(&Event<'_>),
}

/// How it went for one slave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What it had, and what it has.
    pub tids: (Tid, Tid),
    /// Passes that were acknowledged.
    pub passes: u64,
    /// What all passes did.
    pub applied: Applied,
    /// What could not be read.
    pub damage: Damages,
    /// Whether an interrupted pass was continued.
    pub resumed: bool,
    /// Whether a pass was not acknowledged.
    pub withheld: bool,
    /// Why it ended early.
    pub error: Option<Error>,
}

impl Outcome {
    /// The class of what went wrong, if anything.
    pub fn class(&self) -> Option<Class> {
        match (&self.error, self.withheld || !self.damage.is_empty()) {
            (Some(error), _) => Some(error.class()),
            (None, true) => Some(Class::Damage),
            (None, false) => None,
        }
    }
}

/// How it went.
#[derive(Debug, Default)]
pub struct Report {
    /// For each slave.
    pub targets: Vec<Outcome>,
    /// Items that the source gave, all passes together.
    pub items: u64,
    /// Bytes of data that it read.
    pub read_bytes: u64,
    /// Passes over the source.
    pub passes: u64,
    /// Why it ended early, for all.
    pub stopped: Option<Error>,
}

/// Copies what `request` says from `origin` to `places`.
///
/// An error means that nothing was written: a slave does not fit. Whatever else ends the copy early
/// stands in the report.
pub fn copy(
    origin: &mut Origin<'_>,
    stores: &mut [Store],
    places: &[Place],
    request: &Request,
    edge: &mut Edge<'_>,
) -> Result<Report> {
    let mut copy = Copy {
        origin,
        stores,
        places,
        request,
        edge,
        report: Report::default(),
        throttle: request.bandwidth.map(Throttle::new),
        told: Status {
            bytes_total: request.bytes_total,
            ..Status::default()
        },
    };
    copy.check()?;
    let mut left: Vec<usize> = (0..places.len()).collect();
    while !left.is_empty() && copy.report.stopped.is_none() {
        // A store has one transaction at a time.
        let mut group: Vec<usize> = Vec::new();
        left.retain(|at| {
            let other = |in_group: &usize| places[*in_group].store == places[*at].store;
            let free = !group.iter().any(other);
            if free {
                group.push(*at);
            }
            !free
        });
        copy.group(&group);
    }
    Ok(copy.report)
}

struct Copy<'a, 'o, 'e> {
    origin: &'a mut Origin<'o>,
    stores: &'a mut [Store],
    places: &'a [Place],
    request: &'a Request,
    edge: &'a mut Edge<'e>,
    report: Report,
    throttle: Option<Throttle>,
    /// Bytes of data that are durable, and how far else it is.
    told: Status,
}

/// A slave in the group of a pass.
struct Member {
    at: usize,
    ready: Ready,
}

impl Copy<'_, '_, '_> {
    /// Whether every slave fits. Nothing is written before.
    fn check(&mut self) -> Result<()> {
        for (at, place) in self.places.iter().enumerate() {
            let twice = self.places[..at].contains(place);
            if twice {
                let text = format!("PFS {} is named twice", place.pfs);
                return Err(Error::usage(text));
            }
            let view = self.stores[place.store].view();
            let slave = check(view, place.pfs, &self.request.source)?;
            if !self.request.terms.allow_older {
                ahead(&slave, &self.request.source)?;
            }
            let tid = slave.data.sync_end_tid();
            let tids = (tid, tid);
            self.report.targets.push(Outcome {
                tids,
                ..Outcome::default()
            });
        }
        Ok(())
    }

    /// Brings the slaves of one group, each of other volumes, up to date.
    fn group(&mut self, group: &[usize]) {
        let ends = match self.settled(group).and_then(|group| self.ends(&group)) {
            Ok(ends) => ends,
            Err(error) => return self.stop(error),
        };
        for end in ends {
            let passed = self.settled(group).and_then(|group| self.pass(group, end));
            if let Err(error) = passed {
                return self.stop(error);
            }
            if self.report.stopped.is_some() {
                return;
            }
        }
    }

    /// Ends the copy for all.
    fn stop(&mut self, error: Error) {
        self.report.stopped.get_or_insert(error);
    }

    /// Takes a slave out.
    fn fail(&mut self, at: usize, error: Error) {
        (self.edge.events)(&Event::Failed(at, &error));
        self.report.targets[at].error = Some(error);
    }

    /// The slaves of `group` that have not failed, made ready. An error is one of progress.
    fn settled(&mut self, group: &[usize]) -> Result<Vec<Member>> {
        let Request {
            source, identity, ..
        } = self.request;
        let mut members = Vec::new();
        for at in group.iter().copied() {
            let outcome = &self.report.targets[at];
            if outcome.error.is_some() || outcome.withheld {
                continue;
            }
            let Place { store, pfs } = self.places[at];
            let now = (self.edge.now)();
            let store = &mut self.stores[store];
            match settle(store, pfs, source, identity, now, self.edge.progress) {
                Ok((ready, taken_back)) => {
                    if let Some(taken_back) = taken_back {
                        (self.edge.events)(&Event::TakenBack(at, taken_back));
                    }
                    members.push(Member { at, ready });
                }
                Err(error) if error.class() == Class::Interrupted => return Err(error),
                Err(error) => self.fail(at, error),
            }
        }
        Ok(members)
    }

    /// The ends of all passes: one, unless the copy is to be split. No pass ends before one that
    /// was interrupted would have ended.
    fn ends(&mut self, group: &[Member]) -> Result<Vec<Tid>> {
        let source = self.request.source;
        let resumed = group.iter().filter_map(|member| member.ready.resume);
        let end = resumed.fold(source.end, |end, resume| end.max(resume.end));
        let windows = group.iter().map(|member| member.ready.window(&source, end));
        let Some(begin) = windows.map(|window| window.begin).min() else {
            return Ok(Vec::new());
        };
        let fresh = group.iter().all(|member| member.ready.resume.is_none());
        let (Some(split), true, true) = (self.request.split, fresh, begin <= end) else {
            return Ok(vec![end]);
        };
        let window = Window {
            begin,
            end,
            resume: None,
        };
        let (fetch, progress) = (view(self.origin, self.stores), &mut *self.edge.progress);
        if !split::may_exceed(fetch.header(), split) {
            return Ok(vec![end]);
        }
        // Twice: a first pass begins at 1, and TIDs at 2^32 or far above, all in one bucket of a
        // histogram from there.
        let mut lowest = end;
        prescan(fetch, source.id, window, progress, &mut |leaf| {
            let tids = [leaf.base.create_tid(), leaf.base.delete_tid()];
            let inside = tids.into_iter().filter(|tid| *tid >= begin);
            lowest = inside.fold(lowest, Tid::min);
        })?;
        let mut histogram = Histogram::new(lowest, end);
        prescan(fetch, source.id, window, progress, &mut |leaf| {
            histogram.add(leaf);
        })?;
        let chunks = histogram.chunks(split);
        Ok(chunks.iter().map(|chunk| chunk.end).collect())
    }

    /// One pass for all `members` that lack something up to `end`. An error is one of the source or
    /// of progress.
    fn pass(&mut self, members: Vec<Member>, end: Tid) -> Result<()> {
        let source = self.request.source;
        let mut windows = Vec::new();
        let mut at_work = Vec::new();
        for member in members {
            let window = member.ready.window(&source, end);
            if self.is_idle(&window)? {
                let tid = member.ready.synced();
                (self.edge.events)(&Event::Standing(member.at, tid));
                continue;
            }
            self.announce(&member, &window);
            windows.push(window);
            at_work.push(member);
        }
        if windows.is_empty() {
            return Ok(());
        }
        self.report.passes += 1;
        let lanes = self.lanes(&at_work, &windows)?;
        match self.origin {
            Origin::Apart(_) => self.apart(lanes, &windows),
            Origin::Inside(_) => self.inside(lanes, &windows),
        }
    }

    /// Whether there is nothing to do in a window.
    fn is_idle(&mut self, window: &Window) -> Result<bool> {
        let id = self.request.source.id;
        is_idle(view(self.origin, self.stores), id, window)
    }

    fn announce(&mut self, member: &Member, window: &Window) {
        let at = member.at;
        if let Some(resume) = window.resume {
            self.report.targets[at].resumed = true;
            (self.edge.events)(&Event::Resumed(at, resume.key));
        }
        (self.edge.events)(&Event::Pass(at, *window));
    }

    /// The sessions of a pass.
    fn lanes(&self, members: &[Member], windows: &[Window]) -> Result<Vec<(usize, Lane)>> {
        let lanes = members.iter().zip(windows).map(|(member, window)| {
            let ready = &member.ready;
            let allowed = self.request.terms.allow_deletes;
            let mut lane = Lane::open(&self.request.source, *window, ready.slave, allowed)?;
            let mut cursor = ready.cursor;
            cursor.end = window.end;
            lane.note_progress(cursor);
            Ok((member.at, lane))
        });
        lanes.collect()
    }

    /// A pass from volumes that no slave is in: one transaction for the whole of it, and a thread
    /// that reads ahead.
    fn apart(&mut self, lanes: Vec<(usize, Lane)>, windows: &[Window]) -> Result<()> {
        let id = self.request.source.id;
        let mut source = Source::shared(id, Key::pfs_min(id), windows, true);
        let Origin::Apart(view) = &mut *self.origin else {
            return Ok(());
        };
        let view = &mut **view;
        let now = (self.edge.now)();
        let mut pour = Pour::new(
            self.request,
            self.edge,
            &mut self.report,
            &mut self.throttle,
        );
        pour.told = self.told;
        let mut open = pour.begin(self.stores, self.places, lanes, now);
        let (to, mut from) = link();
        let ended = std::thread::scope(|scope| {
            scope.spawn(move || read(view, &mut source, &to));
            let ended = pour.all(&mut from, &mut open);
            // Nobody reads on for nothing.
            drop(from);
            ended
        });
        match ended {
            Ok(()) => pour.complete(open),
            Err(_) => {
                let lanes = pour.suspend(open);
                pour.leave(lanes);
            }
        }
        let (told, braked) = (pour.told, pour.braked);
        self.told = told;
        self.take_back(braked);
        ended
    }

    /// A pass from the volumes of one of the slaves: read a portion, apply it, commit, and again.
    fn inside(&mut self, mut lanes: Vec<(usize, Lane)>, windows: &[Window]) -> Result<()> {
        let id = self.request.source.id;
        let now = (self.edge.now)();
        let mut from = Key::pfs_min(id);
        let mut pour = Pour::new(
            self.request,
            self.edge,
            &mut self.report,
            &mut self.throttle,
        );
        pour.told = self.told;
        while !lanes.is_empty() {
            let mut source = Source::shared(id, from, windows, true);
            let fetch = view(self.origin, self.stores);
            let items = match portion(fetch, &mut source, INSIDE) {
                Ok(items) => items,
                Err(error) => {
                    pour.leave(lanes);
                    return Err(error);
                }
            };
            let Some(last) = items.last() else { break };
            from = behind(last);
            let mut open = pour.begin(self.stores, self.places, lanes, now);
            let poured = pour.items(&items, &mut open);
            lanes = pour.suspend(open);
            if let Err(error) = poured {
                pour.leave(lanes);
                return Err(error);
            }
        }
        let open = pour.begin(self.stores, self.places, lanes, now);
        pour.complete(open);
        let (told, braked) = (pour.told, pour.braked);
        self.told = told;
        self.take_back(braked);
        Ok(())
    }

    /// Takes slaves back that were to lose too much.
    fn take_back(&mut self, braked: Vec<(usize, Applied)>) {
        for (at, applied) in braked {
            let Place { store, pfs } = self.places[at];
            let now = (self.edge.now)();
            let store = &mut self.stores[store];
            let error = match takeback::take_back(store, pfs, now, self.edge.progress) {
                Ok(taken_back) => {
                    (self.edge.events)(&Event::TakenBack(at, taken_back));
                    takeback::braked(pfs, &applied)
                }
                Err(error) => error,
            };
            self.fail(at, error);
        }
    }
}

/// Shows the elements of a window to `each`.
fn prescan(
    fetch: &mut View,
    pfs: u16,
    window: Window,
    progress: &mut dyn Progress,
    each: &mut dyn FnMut(&LeafElement),
) -> Result<()> {
    let mut scan = Source::new(pfs, window, false);
    let mut status = Status::default();
    while let Some(item) = scan.next(fetch)? {
        if status.items.is_multiple_of(RECORDS) {
            progress.at(&status)?;
        }
        status.items += 1;
        if let Item::Record { leaf, .. } | Item::Pass(leaf) = &item {
            each(leaf);
        }
    }
    Ok(())
}

/// The source's volumes, while no transaction is open in them.
fn view<'a>(origin: &'a mut Origin<'_>, stores: &'a mut [Store]) -> &'a mut View {
    match origin {
        Origin::Apart(view) => view,
        Origin::Inside(store) => stores[*store].view(),
    }
}

/// Where the scan goes on behind an item.
fn behind(item: &Item) -> Key {
    match item {
        Item::Record { leaf, .. } | Item::Pass(leaf) => successor(leaf.base.key()),
        Item::Skip { to, .. } => to.key(),
        Item::Quiet { from, .. } => from.key(),
    }
}
