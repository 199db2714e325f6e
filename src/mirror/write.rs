//! A stream of bytes applied to a slave: the session, the reader and the applier put together.

use super::ack::Ack;
use super::apply::{Applied, Applier, Batch, Ending, Terms};
use super::copy::Group;
use super::damage::{Damage, Damages, What};
use super::ready::{self, Identity};
use super::takeback;
use super::target::{Slave, Step, Target};
use super::window::SourcePfs;
use super::wire::{Records, broken, silent};
use crate::error::{Class, Error, Result};
use crate::format::mark::{self, MARK_SIZE};
use crate::format::mrecord::{self, Body, Capabilities};
use crate::format::node::Base;
use crate::format::record::PfsData;
use crate::format::{Key, Tid};
use crate::fs::pfs;
use crate::fs::rollback::RolledBack;
use crate::progress::{Progress, Status};
use crate::store::{Store, Txn};
use std::io::{ErrorKind, Read, Write};

/// Records between two looks at time and signals.
const RECORDS: u64 = 64;

/// Into what, and how.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The slave PFS.
    pub pfs: u16,
    /// Take windows that the slave does not fit.
    pub force: bool,
    /// Under which terms batches are acknowledged.
    pub terms: Terms,
    /// Two-way: what this end announces beyond the original.
    pub announces: Capabilities,
    /// How much is made durable at a time, where a batch that is interrupted goes on there.
    pub group: Group,
}

/// Something to tell the user.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Two-way: what both ends can do beyond the original.
    Agreed(Capabilities),
    /// Two-way: from now on the source owes something, or does not.
    Owed(bool),
    /// What a pass left that could not be continued was taken back.
    TakenBack(&'a RolledBack),
    /// An interrupted batch goes on here.
    Resumed(Key),
    /// A batch begins.
    Batch(Batch),
    /// A batch is durable and acknowledged.
    Acknowledged(Tid, &'a Applied),
    /// A batch had no work; the slave has everything up to this TID.
    Standing(Tid),
    /// A batch is durable, and is not acknowledged.
    Withheld(&'a Applied),
    /// Something did not arrive whole.
    Damage(&'a Damage),
    /// The source said that there is no more.
    Terminated,
}

/// Where time, progress and the user come in.
pub struct Edge<'a> {
    /// The time, in microseconds since 1970.
    pub now: &'a mut dyn FnMut() -> u64,
    /// Told at every safe point. An error ends the session there; what came so far is kept.
    pub progress: &'a mut dyn Progress,
    /// Told what happens.
    pub events: &'a mut dyn FnMut(&Event<'_>) -> Result<()>,
    /// Makes the slave of a PFS that says this of itself, where there is none yet.
    pub make: &'a mut dyn FnMut(&mut Store, &PfsData) -> Result<()>,
}

/// What came of a stream.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The last TID that was acknowledged.
    pub acknowledged: Option<Tid>,
    /// Batches that were completed, and of those the ones that were acknowledged.
    pub batches: (u64, u64),
    /// What they all did.
    pub applied: Applied,
    /// What did not arrive whole.
    pub damage: Damages,
    /// Records and bytes of the stream.
    pub status: Status,
    /// Whether a batch was not acknowledged: it was not whole.
    pub withheld: bool,
    /// Whether the source stopped in the middle of a batch.
    pub stopped: bool,
    /// What a batch would have done that was stopped for what it deletes.
    pub braked: Option<Applied>,
}

/// Where the slave's volumes are. A stream that waits for more leaves them to others.
pub trait Home {
    /// The volumes, opened and locked if they are not.
    fn open(&mut self) -> Result<&mut Store>;

    /// A batch is over, and nobody knows when the next one begins.
    fn leave(&mut self) {}
}

/// One that is open stays open.
impl Home for Store {
    fn open(&mut self) -> Result<&mut Store> {
        Ok(self)
    }
}

/// Applies the stream that `from` gives. Two-way, `answers` takes what the target says.
///
/// Batches are acknowledged one by one, and an error leaves those that were. Errors: class
/// `Protocol` (no stream, one that is wrong or cut off), `Incompatible` (not for this slave),
/// `Brake`, those of progress, and those of the store. `report` is right after an error too.
pub fn write<'a, R: Read>(
    home: &mut dyn Home,
    from: R,
    answers: Option<&'a mut (dyn Write + 'a)>,
    request: &'a Request,
    edge: &'a mut Edge<'_>,
    report: &'a mut Report,
) -> Result<()> {
    let mut session = Session {
        records: Records::new(from),
        target: Target::new(request.force, answers.is_some()).announcing(match answers.is_some() {
            true => request.announces,
            false => Capabilities::NONE,
        }),
        agreed: Capabilities::NONE,
        owed: false,
        identity: None,
        settled: false,
        cursor: None,
        since: Since::default(),
        answers,
        request,
        edge,
        report,
    };
    while !session.target.is_over() && session.next(home)? {}
    Ok(())
}

struct Session<'a, 'e, R> {
    records: Records<R>,
    target: Target,
    /// What was told last: what both ends can do, and whether the source owes something.
    agreed: Capabilities,
    owed: bool,
    /// The source, once it has said what cursors know it by.
    identity: Option<Identity>,
    /// Whether what an earlier pass left has been seen to, since the slave was shown.
    settled: bool,
    /// What checkpoints of the batch are to note.
    cursor: Option<mark::Cursor>,
    since: Since,
    answers: Option<&'a mut (dyn Write + 'a)>,
    request: &'a Request,
    edge: &'a mut Edge<'e>,
    report: &'a mut Report,
}

impl<R: Read> Session<'_, '_, R> {
    /// Takes what stands between two batches, and the batch that follows; says whether to go on.
    fn next(&mut self, home: &mut dyn Home) -> Result<bool> {
        self.owed()?;
        let at = self.records.offset();
        let Some(record) = self.records.next()? else {
            return Err(cut_off(at));
        };
        let step = self.target.take(&record.body);
        match step.map_err(|e| placed(e, at))? {
            Step::Hello(told) => self.greet(home.open()?, &told)?,
            Step::Source(leaf) => self.resume(home.open()?, leaf)?,
            Step::Read => {
                self.settle(home.open()?)?;
                let goes_on = self.batch(home.open()?);
                home.leave();
                return goes_on;
            }
            Step::Over => (self.edge.events)(&Event::Terminated)?,
            Step::Alive | Step::Apply | Step::Complete | Step::Idle | Step::Stopped => {}
        }
        Ok(true)
    }

    /// Tells whether the source owes something, if that has changed.
    fn owed(&mut self) -> Result<()> {
        let owed = self.target.is_owed();
        if self.answers.is_some() && owed != self.owed {
            self.owed = owed;
            (self.edge.events)(&Event::Owed(owed))?;
        }
        Ok(())
    }

    /// Shows the slave to the machine, and two-way to the source.
    fn greet(&mut self, store: &mut Store, told: &PfsData) -> Result<()> {
        let id = self.request.pfs;
        let mut found = pfs::load(store.view(), id)?;
        if found.is_none() {
            (self.edge.make)(store, told)?;
            found = pfs::load(store.view(), id)?;
        }
        let Some(found) = found else {
            return Err(Error::usage(format!("there is no PFS {id}")));
        };
        let data = found.data;
        self.target.slave(Slave { id, data })?;
        (self.settled, self.cursor) = (false, None);
        let agreed = self.target.agreed();
        // A source that may say next who it is has a word in what becomes of what is left.
        if !agreed.has(Capabilities::RESUME) {
            self.settle(store)?;
        }
        // What is kept there is about this volume only.
        let told = PfsData {
            reserved03: [0; MARK_SIZE],
            ..data
        };
        self.say(|out| mrecord::append_pfsd(out, &told, agreed.0))?;
        if agreed != self.agreed {
            self.agreed = agreed;
            (self.edge.events)(&Event::Agreed(agreed))?;
        }
        Ok(())
    }

    /// Makes the slave ready for a pass from its begin on, if it is not ready for any.
    fn settle(&mut self, store: &mut Store) -> Result<()> {
        if self.settled {
            return Ok(());
        }
        let id = self.request.pfs;
        self.settled = true;
        takeback::settle(store, id, (self.edge.now)(), self.edge.progress)?;
        if let (Some(identity), Some(slave)) = (&self.identity, pfs::load(store.view(), id)?) {
            self.cursor = Some(ready::start(&slave, identity));
        }
        Ok(())
    }

    /// Makes the slave ready to go on where a pass of this source was interrupted, and says where.
    fn resume(&mut self, store: &mut Store, leaf: Tid) -> Result<()> {
        let Some(told) = self.target.told().copied() else {
            return Ok(());
        };
        let id = self.request.pfs;
        let identity = Identity::told(&told, leaf);
        let source = SourcePfs {
            id,
            data: told,
            end: told.sync_end_tid(),
            committed: told.sync_end_tid(),
        };
        let (now, progress) = ((self.edge.now)(), &mut *self.edge.progress);
        let (ready, taken_back) = ready::settle(store, id, &source, &identity, now, progress)?;
        if let Some(taken_back) = &taken_back {
            (self.edge.events)(&Event::TakenBack(taken_back))?;
        }
        if let Some(resume) = ready.resume {
            (self.edge.events)(&Event::Resumed(resume.key))?;
        }
        (self.settled, self.identity, self.cursor) = (true, Some(identity), Some(ready.cursor));
        let (key, end) = match ready.resume {
            Some(resume) => (resume.key, resume.end),
            None => (Key::pfs_min(id), Tid::ZERO),
        };
        self.say(|out| mrecord::append_cursor(out, &Base::from_key(key), end))
    }

    /// Takes the records of a batch, and its end; says whether to go on.
    fn batch(&mut self, store: &mut Store) -> Result<bool> {
        let mut txn = store.begin((self.edge.now)())?;
        let mut applier = None;
        self.since = Since {
            time: (self.edge.now)(),
            ..Since::default()
        };
        self.owed()?;
        let step = loop {
            match self.step(&mut txn, &mut applier) {
                Ok(Step::Apply) => {}
                Ok(step) => break step,
                Err(Failure::Wrong(error)) => return Err(error),
                Err(Failure::Ended(error)) => {
                    self.keep(txn, applier)?;
                    return Err(error);
                }
            }
        };
        match step {
            Step::Complete => {
                let applier = match applier {
                    Some(applier) => applier,
                    None => {
                        let batch = self.target.batch()?;
                        begin(self.request, self.edge, self.cursor, batch)?
                    }
                };
                self.complete(applier, txn)?;
                if let Some(error) = self.braked(store)? {
                    return Err(error);
                }
                return Ok(self.answers.is_none() || !self.report.withheld);
            }
            Step::Idle => {
                self.report.withheld |= applier.is_some();
                self.keep(txn, applier)?;
                let ack = Ack::standing(store, self.request.pfs)?;
                (self.edge.events)(&Event::Standing(ack.tid()))?;
                self.say(|out| ack.append(out))?;
            }
            _ => {
                self.keep(txn, applier)?;
                self.report.stopped = true;
                (self.edge.events)(&Event::Terminated)?;
            }
        }
        Ok(true)
    }

    /// Takes one record of a batch, and applies it if there is something to apply.
    fn step(&mut self, txn: &mut Txn<'_>, applier: &mut Option<Applier>) -> Result<Step, Failure> {
        let at = self.records.offset();
        self.report.status.bytes = at;
        if self.report.status.items.is_multiple_of(RECORDS) {
            let told = self.edge.progress.at(&self.report.status);
            told.map_err(Failure::Ended)?;
        }
        let record = match self.records.next() {
            Ok(Some(record)) => record,
            Ok(None) => return Err(Failure::Ended(cut_off(at))),
            Err(error) => {
                // Whoever is asked to end gives no more bytes.
                let told = self.edge.progress.at(&self.report.status);
                return Err(Failure::Ended(told.err().unwrap_or(error)));
            }
        };
        self.report.status.items += 1;
        let wrong = |error| Failure::Wrong(placed(error, at));
        let step = self.target.take(&record.body).map_err(wrong)?;
        if !matches!(step, Step::Apply) {
            return Ok(step);
        }
        let applier = match applier {
            Some(applier) => applier,
            None => {
                let batch = self.target.batch().map_err(wrong)?;
                let new = begin(self.request, self.edge, self.cursor, batch);
                applier.insert(new.map_err(wrong)?)
            }
        };
        self.report.status.object = applier.position().obj_id;
        apply(applier, txn, &record.body).map_err(wrong)?;
        self.since.count(&record.body);
        if self.cursor.is_some() && self.since.is_enough(&self.request.group, self.edge.now) {
            applier.checkpoint(txn).map_err(wrong)?;
        }
        Ok(step)
    }

    /// Keeps what came of a batch that is not complete.
    fn keep(&mut self, txn: Txn<'_>, applier: Option<Applier>) -> Result<()> {
        let Some(mut applier) = applier else {
            return Ok(());
        };
        applier.suspend(txn)?;
        self.count(&applier)
    }

    /// Makes a batch durable and acknowledges it, if it may be.
    fn complete(&mut self, mut applier: Applier, txn: Txn<'_>) -> Result<()> {
        let terms = Terms {
            withhold: self.request.terms.withhold || !self.target.may_acknowledge(),
            ..self.request.terms
        };
        let ending = applier.complete(txn, terms)?;
        self.count(&applier)?;
        self.report.batches.0 += 1;
        match ending {
            Ending::Acknowledged(ack) => {
                self.report.batches.1 += 1;
                self.report.acknowledged = Some(ack.tid());
                // It covers what an earlier one left open.
                self.report.withheld = false;
                self.target.acknowledged(&ack);
                (self.edge.events)(&Event::Acknowledged(ack.tid(), applier.applied()))?;
                self.say(|out| ack.append(out))
            }
            Ending::Withheld => {
                self.target.withheld();
                self.report.withheld = true;
                (self.edge.events)(&Event::Withheld(applier.applied()))
            }
            Ending::Braked => {
                self.report.braked = Some(*applier.applied());
                Ok(())
            }
        }
    }

    /// Takes the slave back if the batch was stopped for what it deletes.
    fn braked(&mut self, store: &mut Store) -> Result<Option<Error>> {
        let Some(applied) = self.report.braked else {
            return Ok(None);
        };
        let id = self.request.pfs;
        takeback::take_back(store, id, (self.edge.now)(), self.edge.progress)?;
        Ok(Some(takeback::braked(id, &applied)))
    }

    /// Adds what a batch did to the report.
    fn count(&mut self, applier: &Applier) -> Result<()> {
        self.report.applied.add(applier.applied());
        for damage in &applier.damage().first {
            (self.edge.events)(&Event::Damage(damage))?;
        }
        self.report.damage.append(applier.damage());
        Ok(())
    }

    /// Two-way: says something to the source.
    fn say(&mut self, what: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let Some(answers) = &mut self.answers else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        what(&mut bytes);
        let said = answers.write_all(&bytes).and_then(|()| answers.flush());
        said.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Error::new(
                Class::Protocol,
                "the source is gone; nothing that was acknowledged is lost, start again",
            ),
            ErrorKind::TimedOut => silent(),
            _ => Error::io("answering the source", error),
        })
    }
}

/// What came of a batch since all was durable, and when that was.
#[derive(Clone, Copy, Debug, Default)]
struct Since {
    records: u64,
    bytes: u64,
    /// Microseconds since 1970.
    time: u64,
}

impl Since {
    fn count(&mut self, body: &Body<'_>) {
        self.records += 1;
        if let Body::Record { data, .. } = body {
            self.bytes += data.len() as u64;
        }
    }

    /// Whether it is enough to be made durable; if so, counting begins anew.
    fn is_enough(&mut self, group: &Group, now: &mut dyn FnMut() -> u64) -> bool {
        let mut enough = self.records >= group.records || self.bytes >= group.bytes;
        if !enough && self.records.is_multiple_of(RECORDS) {
            let passed = now().saturating_sub(self.time);
            enough = u128::from(passed) >= group.time.as_micros();
        }
        if enough {
            *self = Since {
                time: now(),
                ..Since::default()
            };
        }
        enough
    }
}

/// Begins a batch, whose checkpoints note in `cursor` how far it is.
fn begin(
    request: &Request,
    edge: &mut Edge<'_>,
    cursor: Option<mark::Cursor>,
    batch: Batch,
) -> Result<Applier> {
    let mut applier = Applier::new(batch)?;
    applier.allow_deletes(request.terms.allow_deletes);
    if let Some(cursor) = cursor {
        let end = batch.end;
        applier.note_progress(mark::Cursor { end, ..cursor });
    }
    (edge.events)(&Event::Batch(batch))?;
    Ok(applier)
}

/// Why a batch ended early.
enum Failure {
    /// The stream or the slave is wrong: what is not durable yet is given up.
    Wrong(Error),
    /// No more comes; what came was right.
    Ended(Error),
}

fn apply(applier: &mut Applier, txn: &mut Txn<'_>, body: &Body<'_>) -> Result<()> {
    match body {
        Body::Record {
            leaf, bad: true, ..
        } => {
            let text = "its source could not read its data".to_owned();
            applier.damaged(txn, leaf, &Damage::record(leaf, What::Sum, text))
        }
        Body::Record { leaf, data, .. } => applier.rec(txn, leaf, data),
        Body::Pass(leaf) => applier.pass(txn, leaf),
        Body::Skip { from, to } => applier.skip(txn, from, to),
        Body::Unreadable { from, to } => {
            let error = Error::damage("its source could not read a node");
            let damage = Damage::range(from.key(), to.key(), &error);
            applier.unreadable(txn, from, to, &damage)
        }
        // The session has no other that is to be applied.
        _ => Ok(()),
    }
}

/// Names the place in the stream in an error about the stream.
fn placed(error: Error, at: u64) -> Error {
    match error.class() {
        Class::Protocol => error.context(format!("byte {at} of the stream")),
        _ => error,
    }
}

fn cut_off(at: u64) -> Error {
    broken(at, "it ends without TERM; it was cut off")
}
