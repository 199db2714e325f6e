//! Which record comes next: the source's side of a session as a machine without I/O.

use super::arrival::{TID_LIMIT, refused};
use super::dump::name;
use super::lane::key_in;
use super::target::same_master;
use super::window::{Resume, SourcePfs, Window};
use crate::error::{Class, Error, Result};
use crate::format::mrecord::{self, Body, Capabilities, Kind, PFSD, SHORT, padded};
use crate::format::record::PfsData;
use crate::format::{Key, Tid};
use std::collections::VecDeque;

/// A record of the session, as opposed to those of the B-Tree.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // one exists at a time
pub enum Message {
    /// A PFS's state.
    Pfsd(PfsData),
    /// The same, with what its end can do beyond the original: the first of a batch.
    Hello(PfsData, Capabilities),
    /// When the source's PFS record was created.
    Source(Tid),
    /// The batch is complete: the target may acknowledge it.
    Sync,
    /// The batch is over and gives nothing to acknowledge.
    Idle,
    /// The stream is over.
    Term,
}

impl Message {
    /// Its bytes, padding included, appended to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        match self {
            Message::Pfsd(pfs) => mrecord::append_pfsd(out, pfs, 0),
            Message::Hello(pfs, what) => mrecord::append_pfsd(out, pfs, what.0),
            Message::Source(leaf) => mrecord::append_source(out, *leaf),
            Message::Sync => mrecord::append_mark(out, Kind::Sync),
            Message::Idle => mrecord::append_mark(out, Kind::Idle),
            Message::Term => mrecord::append_mark(out, Kind::Term),
        }
    }

    /// How many bytes those are.
    pub fn stream_bytes(&self) -> u64 {
        padded(match self {
            Message::Pfsd(_) | Message::Hello(..) => PFSD,
            _ => SHORT,
        }) as u64
    }
}

/// What the source has to do next.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // one exists at a time
pub enum Action {
    /// Send a record.
    Send(Message),
    /// Take the target's next record, and show it with [`Session::take`]. Two-way only.
    Take,
    /// Find when the source's PFS record was created, and tell it with [`Session::identified`].
    Identify,
    /// Decide on the windows of the batches to come, and tell them with [`Session::plan`].
    Plan,
    /// Send what is in this window, and tell how it ended with [`Session::bulk_ended`].
    Bulk(Window),
    /// Wait until the source has more, and tell it with [`Session::renew`]; or [`Session::end`]. Only
    /// where the source is followed.
    Wait,
    /// Nothing; the session is over.
    Done,
}

/// How the records of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything in the window was sent.
    Complete,
    /// There was nothing to send.
    Idle,
    /// Everything that could be read was sent, and not everything could be read.
    Damaged,
    /// Stopped on request before the end.
    Stopped,
    /// A writer was too fast for the view: what was sent stays, and another batch has the rest. Only
    /// where the source is followed.
    Overtaken,
}

/// The state of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The state of the source's PFS comes next.
    Hello,
    /// The target's PFSD comes next.
    Greeting,
    /// The target is to be told what its cursor knows the source by.
    Identify,
    /// It is told: this.
    Identified(Tid),
    /// The target's cursor comes next.
    Cursor,
    /// The windows are to be decided on.
    Plan,
    /// The state of the PFS at the window's end comes next.
    Open,
    /// The records of the window come next.
    Bulk,
    /// The mark behind the records comes next.
    Close(Ended),
    /// The target's UPDATE comes next: of this TID, or of one that the session does not know.
    Answer(Option<Tid>),
    /// Nothing comes before the source has more.
    Wait,
    /// The end of the stream comes next.
    Term,
    Done,
}

/// The source's side of a session.
///
/// A batch is `PFSD PFSD { REC PASS SKIP } (SYNC | IDLE)`, a stream is batches and one TERM. A batch
/// with damage does not end with SYNC, and no later one does: whoever acknowledges a TID
/// acknowledges everything up to it. A batch whose view was overtaken does not either; the next one
/// begins where it began.
///
/// Two-way, the target's PFSD follows the first of a batch, and its UPDATE the mark at the end. Where
/// both ends can go on at the record, SOURCE and the target's CURSOR come behind the first two. A
/// stream stopped on request ends with TERM at once: nobody waits for an UPDATE that does not come.
#[derive(Debug)]
pub struct Session {
    pfs: SourcePfs,
    end: Tid,
    windows: VecDeque<Window>,
    state: State,
    damaged: bool,
    two_way: bool,
    /// What this end announces, and what both ends can do.
    announces: Capabilities,
    agreed: Capabilities,
    /// What the target has been told that it knows the source by.
    leaf: Option<Tid>,
    /// The last batch was acknowledged: there is nothing to go on with.
    clean: bool,
    /// Where the target says that an interrupted batch goes on.
    resume: Option<Resume>,
    /// Whether the session goes on when the source has more.
    follows: bool,
    /// What the target said last that it has.
    target: Option<Tid>,
    acknowledged: Option<Tid>,
}

impl Session {
    /// A one-way session that gives `pfs` up to `end` (the end of the last window).
    pub fn one_way(pfs: SourcePfs, end: Tid) -> Session {
        Session {
            pfs,
            end,
            windows: VecDeque::new(),
            state: State::Hello,
            damaged: false,
            two_way: false,
            announces: Capabilities::NONE,
            agreed: Capabilities::NONE,
            leaf: None,
            clean: false,
            resume: None,
            follows: false,
            target: None,
            acknowledged: None,
        }
    }

    /// A two-way session that gives `pfs` up to its end: the target says where to begin. A target of a
    /// master that has more than is committed is refused.
    pub fn two_way(pfs: SourcePfs) -> Session {
        Session {
            two_way: true,
            ..Session::one_way(pfs, pfs.end)
        }
    }

    /// The same for an end of a two-way session that can do `what` beyond the original.
    pub fn announcing(self, what: Capabilities) -> Session {
        Session {
            announces: what,
            ..self
        }
    }

    /// The same session, which waits where it would be over, until the source has more.
    pub fn following(self) -> Session {
        Session {
            follows: true,
            ..self
        }
    }

    /// What both ends can do beyond the original, once the target has answered.
    pub fn agreed(&self) -> Capabilities {
        self.agreed
    }

    /// Where the next batch goes on, if one was interrupted: in the source's PFS. It ends at the
    /// earliest where that one would have.
    pub fn resume(&self) -> Option<Resume> {
        self.resume
    }

    /// The source has more: it is now `pfs`. After [`Action::Wait`], or before a batch is begun.
    pub fn renew(&mut self, pfs: SourcePfs) {
        if matches!(self.state, State::Wait | State::Hello) {
            (self.pfs, self.end) = (pfs, pfs.end);
            self.state = State::Hello;
        }
    }

    /// There will be no more. After [`Action::Wait`], or before a batch is begun.
    pub fn end(&mut self) {
        if matches!(self.state, State::Wait | State::Hello) {
            self.state = State::Term;
        }
    }

    /// Whether everything was said.
    pub fn is_over(&self) -> bool {
        self.state == State::Done
    }

    /// What follows the last batch.
    fn after_all(&self) -> State {
        // Behind damage nothing can be acknowledged, however long one waits.
        match self.follows && !self.damaged {
            true => State::Wait,
            false => State::Term,
        }
    }

    /// What the target said last that it has, before the batch that is open.
    pub fn target(&self) -> Option<Tid> {
        self.target
    }

    /// The last TID that the target acknowledged in this session.
    pub fn acknowledged(&self) -> Option<Tid> {
        self.acknowledged
    }

    /// Takes what the target says, after [`Action::Take`]. Errors: class `Protocol` for a record that
    /// does not belong there, `Incompatible` for a target that is no slave of this master, or has
    /// more than it.
    pub fn take(&mut self, body: &Body<'_>) -> Result<()> {
        match (self.state, body) {
            (State::Greeting, Body::Pfsd(pfsd)) => {
                self.greeted(pfsd.version.get(), &pfsd.pfs)?;
                self.agreed = self.announces.both(Capabilities(pfsd.reserved.get()));
                let resumes = self.agreed.has(Capabilities::RESUME);
                self.state = match (self.windows.is_empty(), resumes) {
                    (true, true) => State::Identify,
                    (true, false) => State::Plan,
                    (false, _) => State::Open,
                };
                Ok(())
            }
            (State::Cursor, Body::Cursor { key, end }) => {
                self.resume = self.cursor(key.key(), *end)?;
                self.state = State::Plan;
                Ok(())
            }
            (State::Greeting | State::Cursor | State::Answer(_), Body::Alive)
                if self.agreed.has(Capabilities::ALIVE) =>
            {
                Ok(())
            }
            (State::Answer(expected), Body::Update(tid)) => {
                let tid = Tid(*tid);
                match expected {
                    Some(end) if end != tid => {
                        return Err(refused(format!(
                            "the target acknowledges {tid} where the batch ends at {end}"
                        )));
                    }
                    Some(end) => {
                        self.acknowledged = Some(end);
                        self.clean = true;
                    }
                    None => {}
                }
                self.state = match self.windows.is_empty() {
                    true => self.after_all(),
                    false => State::Hello,
                };
                Ok(())
            }
            (state, body) => {
                let expected = match state {
                    State::Greeting => "the target's PFSD",
                    State::Cursor => "CURSOR",
                    State::Answer(_) => "UPDATE",
                    _ => "nothing",
                };
                Err(refused(format!("{} where {expected} belongs", name(body))))
            }
        }
    }

    /// Takes the TID at which the source's PFS record was created, after [`Action::Identify`].
    pub fn identified(&mut self, leaf: Tid) {
        self.state = match self.clean && self.leaf == Some(leaf) {
            true => State::Plan,
            false => State::Identified(leaf),
        };
        self.leaf = Some(leaf);
    }

    /// Where a target goes on that says it has everything below `key` up to `end`.
    fn cursor(&self, key: Key, end: Tid) -> Result<Option<Resume>> {
        if end.is_zero() {
            return Ok(None);
        }
        if end > TID_LIMIT || self.target.is_none_or(|has| end <= has) {
            return Err(refused(format!("a cursor up to {end} is impossible")));
        }
        if end > self.pfs.committed && !self.pfs.data.is_slave() {
            let committed = self.pfs.committed;
            let text = format!(
                "the target has a part of its master up to {end}, which goes to {committed} only: \
                 one of them was changed, taken back or restored behind the other's back; make the \
                 slave anew"
            );
            return Err(Error::new(Class::Incompatible, text));
        }
        let key = key_in(key, self.pfs.id);
        Ok(Some(Resume { key, end }))
    }

    fn greeted(&mut self, version: u32, slave: &PfsData) -> Result<()> {
        if version != 1 {
            return Err(refused(format!("a PFSD of version {version}, not 1")));
        }
        if !slave.is_slave() || slave.is_deleted() {
            return Err(Error::new(
                Class::Incompatible,
                "the target is no slave; a stream goes into a slave only",
            ));
        }
        same_master(&self.pfs.data, slave, "the target")?;
        let (has, end) = (slave.sync_end_tid(), self.pfs.committed);
        if has > TID_LIMIT {
            return Err(refused(format!("a target that has {has} is impossible")));
        }
        if has > end && !self.pfs.data.is_slave() {
            let text = format!(
                "the target is as of {has}, and its master has only {end}: one of them was changed, \
                 taken back or restored behind the other's back; make the slave anew"
            );
            return Err(Error::new(Class::Incompatible, text));
        }
        self.target = Some(has);
        // Whatever was planned, the target knows best what it lacks.
        let floor = Tid(self.pfs.data.sync_beg_tid.get());
        if let Some(window) = self.windows.front_mut() {
            window.begin = has.next().max(floor);
        }
        Ok(())
    }

    /// Decides on the windows of all batches, in order.
    pub fn plan(&mut self, windows: impl IntoIterator<Item = Window>) {
        self.windows.extend(windows);
        self.resume = None;
        self.state = match self.windows.is_empty() {
            true => State::Term,
            false => State::Open,
        };
    }

    /// Takes notice of how the records of a batch ended.
    pub fn bulk_ended(&mut self, ended: Ended) {
        self.damaged |= ended == Ended::Damaged;
        self.clean &= ended == Ended::Idle;
        if ended == Ended::Overtaken {
            // What comes after the window that is open will be in the next view's.
            self.windows.truncate(1);
        }
        self.state = match ended {
            // Neither SYNC nor IDLE: the target learns that the batch is not whole.
            Ended::Stopped => State::Term,
            ended => State::Close(ended),
        };
    }

    /// What to do next.
    pub fn action(&mut self) -> Action {
        match self.state {
            State::Hello => {
                self.state = match (self.two_way, self.windows.is_empty()) {
                    (true, _) => State::Greeting,
                    (false, true) => State::Plan,
                    (false, false) => State::Open,
                };
                Action::Send(Message::Hello(self.pfs.told(self.end), self.announces))
            }
            State::Greeting | State::Cursor | State::Answer(_) => Action::Take,
            State::Identify => Action::Identify,
            State::Identified(leaf) => {
                self.state = State::Cursor;
                Action::Send(Message::Source(leaf))
            }
            State::Plan => Action::Plan,
            State::Open => match self.windows.front() {
                Some(window) => {
                    self.state = State::Bulk;
                    Action::Send(Message::Pfsd(opening(&self.pfs, window)))
                }
                None => self.term(),
            },
            State::Bulk => match self.windows.front() {
                Some(window) => Action::Bulk(*window),
                None => self.term(),
            },
            State::Close(ended) => {
                let window = self.windows.pop_front();
                let synced = ended == Ended::Complete && !self.damaged;
                self.state = match (self.two_way, self.windows.is_empty()) {
                    // The answer to IDLE is what the target has; the original repeats what it heard.
                    (true, _) => State::Answer(window.filter(|_| synced).map(|w| w.end)),
                    (false, true) => self.after_all(),
                    (false, false) => State::Hello,
                };
                Action::Send(match synced {
                    true => Message::Sync,
                    false => Message::Idle,
                })
            }
            State::Wait => Action::Wait,
            State::Term => self.term(),
            State::Done => Action::Done,
        }
    }

    fn term(&mut self) -> Action {
        self.state = State::Done;
        Action::Send(Message::Term)
    }
}

/// The PFS record that opens a batch: it ends with the window, and begins with it if that is above
/// the floor, so that a saved stream carries its begin.
pub(super) fn opening(pfs: &SourcePfs, window: &Window) -> PfsData {
    let mut told = pfs.told(window.end);
    let floor = told.sync_beg_tid.get();
    told.sync_beg_tid.set(floor.max(window.begin.0));
    told
}

#[cfg(test)]
mod tests;
