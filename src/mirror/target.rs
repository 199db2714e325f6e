//! The target's side of a session as a machine without I/O: what a record of the stream means, and
//! what is to be done about it (mirroring.md §6.1).
//!
//! ```text
//! PFSD  → Hello     show me the slave (make it if there is none); two-way: say its record
//! SOURCE → Source   (two mallets) make the slave ready to go on where it was interrupted; say CURSOR
//! PFSD  → Read      the window; nothing is decided on it yet
//! REC … → Apply     what `Target::batch` says is checked and begun with the first of them
//! SYNC  → Complete  finish, make durable; then tell it, and (two-way) say UPDATE
//! IDLE  → Idle      say what the slave has
//! TERM  → Over      or Stopped, where it stands in the middle of a batch
//! ```
//!
//! The window of a batch without work may be anything; so it is looked at only when there is work.

use super::ack::Ack;
use super::apply::Batch;
use super::arrival::{TID_LIMIT, refused};
use super::dump::name;
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::format::mrecord::{Body, Capabilities};
use crate::format::record::PfsData;
use uuid::Uuid;

/// The slave that a target writes to, as its record says.
#[derive(Clone, Copy, Debug)]
pub struct Slave {
    /// Its number.
    pub id: u16,
    /// Its record.
    pub data: PfsData,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // one exists at a time
pub enum Step {
    /// Load the slave (or make one with this PFS's `shared_uuid`) and give it with
    /// [`Target::slave`]; two-way, say its record then.
    Hello(PfsData),
    /// Make the slave ready for a pass from a source whose PFS record was created at this TID, and
    /// say the cursor that counts for it.
    Source(Tid),
    /// The other end has nothing to say yet.
    Alive,
    /// Nothing; take the next record.
    Read,
    /// Apply the record: it belongs to [`Target::batch`].
    Apply,
    /// Complete the batch, and tell the acknowledgement with [`Target::acknowledged`]. Two-way, say
    /// it; if there is none, end the session: the source waits for an UPDATE that does not come.
    Complete,
    /// There was no work: acknowledge what stands.
    Idle,
    /// The source stopped in the middle of a batch: keep what came of it. The session is over.
    Stopped,
    /// The session is over.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The PFSD of a batch comes next, or TERM.
    Between,
    /// The slave is to be shown.
    Greeted,
    /// The second PFSD comes next.
    Opening,
    /// A batch is open and nothing came of it.
    Open,
    /// Something came.
    Bulk,
    Over,
}

/// The target's side of a session.
#[derive(Debug)]
pub struct Target {
    state: State,
    force: bool,
    /// What this end announces, and what both ends can do.
    announces: Capabilities,
    agreed: Capabilities,
    two_way: bool,
    slave: Option<Slave>,
    /// What the two PFSDs of the batch said.
    told: Option<PfsData>,
    window: Option<PfsData>,
    /// A batch of this session was not acknowledged, so none that begins behind it can be.
    withheld: bool,
}

impl Target {
    /// At the beginning of a session. With `force`, windows that the slave does not fit are taken:
    /// older than what it has, or with a gap before them. `two_way`, the source hears what the slave has.
    pub fn new(force: bool, two_way: bool) -> Target {
        Target {
            state: State::Between,
            force,
            announces: Capabilities::NONE,
            agreed: Capabilities::NONE,
            two_way,
            slave: None,
            told: None,
            window: None,
            withheld: false,
        }
    }

    /// The same for an end of a two-way session that can do `what` beyond the original.
    pub fn announcing(self, what: Capabilities) -> Target {
        Target {
            announces: what,
            ..self
        }
    }

    /// What both ends can do beyond the original: what the slave's PFSD is to announce. Known from
    /// the first PFSD on.
    pub fn agreed(&self) -> Capabilities {
        self.agreed
    }

    /// Whether the source owes something: it has been told where the slave stands, or has begun.
    pub fn is_owed(&self) -> bool {
        matches!(self.state, State::Opening | State::Open | State::Bulk)
    }

    /// Shows the slave, after [`Step::Hello`]; again for every batch. Errors, of class
    /// `Incompatible`: it is none, or not one of this source.
    pub fn slave(&mut self, slave: Slave) -> Result<()> {
        let Some(told) = self.told.filter(|_| self.state == State::Greeted) else {
            return Err(refused("the slave is shown where none is asked for"));
        };
        let id = slave.id;
        if !slave.data.is_slave() || slave.data.is_deleted() {
            return Err(Error::new(
                Class::Incompatible,
                format!(
                    "PFS {id} is no slave; a stream goes into a slave only (mallet pfs-downgrade \
                     makes one of a master, mallet pfs-slave a new one)"
                ),
            ));
        }
        same_master(&told, &slave.data, &format!("PFS {id}"))?;
        self.slave = Some(slave);
        self.state = State::Opening;
        Ok(())
    }

    /// Takes the next record of the stream. Errors: class `Protocol` where it does not belong there,
    /// `Incompatible` where the batch is not for this slave.
    pub fn take(&mut self, body: &Body<'_>) -> Result<Step> {
        if let Body::Pfsd(pfsd) = body {
            let version = pfsd.version.get();
            if version != 1 {
                return Err(refused(format!("a PFSD of version {version}, not 1")));
            }
        }
        let (state, step) = match (self.state, body) {
            (State::Between, Body::Pfsd(pfsd)) => {
                (self.told, self.window) = (Some(pfsd.pfs), None);
                self.agreed = self.announces.both(Capabilities(pfsd.reserved.get()));
                (State::Greeted, Step::Hello(pfsd.pfs))
            }
            (State::Opening, Body::Source(leaf)) if self.agreed.has(Capabilities::RESUME) => {
                (State::Opening, Step::Source(*leaf))
            }
            (state, Body::Alive)
                if state != State::Over && self.agreed.has(Capabilities::ALIVE) =>
            {
                (state, Step::Alive)
            }
            (State::Opening, Body::Pfsd(pfsd)) => {
                if let Some(slave) = &self.slave {
                    same_master(&pfsd.pfs, &slave.data, &format!("PFS {}", slave.id))?;
                }
                self.window = Some(pfsd.pfs);
                (State::Open, Step::Read)
            }
            (State::Open | State::Bulk, Body::Record { nodata: true, .. }) => {
                return Err(refused("a record without its data, as only prescans have"));
            }
            (State::Open | State::Bulk, Body::Unreadable { .. })
                if !self.agreed.has(Capabilities::RESUME) =>
            {
                return Err(refused("UNREADABLE, which nobody announced"));
            }
            (
                State::Bulk,
                Body::Record { .. } | Body::Pass(_) | Body::Skip { .. } | Body::Unreadable { .. },
            ) => (State::Bulk, Step::Apply),
            (
                State::Open,
                Body::Record { .. } | Body::Pass(_) | Body::Skip { .. } | Body::Unreadable { .. },
            ) => {
                self.check()?;
                (State::Bulk, Step::Apply)
            }
            (State::Open | State::Bulk, Body::Sync) => {
                self.check()?;
                (State::Between, Step::Complete)
            }
            (State::Open | State::Bulk, Body::Idle) => {
                // Records without SYNC: the source could not read all of them.
                self.withheld |= self.state == State::Bulk;
                (State::Between, Step::Idle)
            }
            (State::Between | State::Opening, Body::Term) => (State::Over, Step::Over),
            (State::Open | State::Bulk, Body::Term) => (State::Over, Step::Stopped),
            (state, body) => {
                let expected = match state {
                    State::Between => "the PFSD of a batch or TERM",
                    State::Greeted => "nothing before the slave is shown",
                    State::Opening => "the second PFSD of a batch or TERM",
                    State::Open | State::Bulk => "REC, PASS, SKIP, SYNC, IDLE or TERM",
                    State::Over => "the end of the bytes behind TERM",
                };
                let found = name(body);
                return Err(refused(format!("{found} where {expected} belongs")));
            }
        };
        self.state = state;
        Ok(step)
    }

    /// The batch that is open, or was completed last. Errors: class `Incompatible` for a window
    /// that the slave does not fit, `Protocol` for one that is impossible or where none is open.
    pub fn batch(&self) -> Result<Batch> {
        let (Some(slave), Some(window)) = (&self.slave, &self.window) else {
            return Err(refused("no batch is open"));
        };
        Ok(Batch {
            pfs: slave.id,
            begin: Tid(window.sync_beg_tid.get()),
            end: window.sync_end_tid(),
            synced: slave.data.sync_end_tid(),
        })
    }

    /// Takes notice that a batch is acknowledged.
    pub fn acknowledged(&mut self, ack: &Ack) {
        if let Some(slave) = &mut self.slave {
            slave.data.sync_end_tid.set(ack.tid().0);
        }
    }

    /// Takes notice that a batch was completed and could not be acknowledged: what begins behind it in
    /// this session is applied, and not acknowledged either.
    pub fn withheld(&mut self) {
        self.withheld = true;
    }

    /// Whether a batch that is whole may be acknowledged: not if one before it was not, unless it has
    /// everything that the one before it left open. A begin that is the master's own floor says
    /// nothing, but two-way a source begins where it is told to.
    pub fn may_acknowledge(&self) -> bool {
        let begins_there = |batch: Batch| {
            let told = batch.begin > self.floor() && batch.begin <= batch.synced.next();
            told || self.two_way
        };
        !self.withheld || self.batch().is_ok_and(begins_there)
    }

    /// The source's own floor.
    fn floor(&self) -> Tid {
        Tid(self.told.map_or(0, |told| told.sync_beg_tid.get()))
    }

    /// Whether the bytes may end here.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// What the source said of itself, since it was greeted.
    pub fn told(&self) -> Option<&PfsData> {
        self.told.as_ref()
    }

    /// Whether a batch is open.
    pub fn in_batch(&self) -> bool {
        matches!(self.state, State::Open | State::Bulk)
    }

    /// Whether the window fits the slave.
    fn check(&self) -> Result<()> {
        let batch = self.batch()?;
        let Batch {
            begin, end, synced, ..
        } = batch;
        let pfs = batch.pfs;
        if end.is_zero() || end > TID_LIMIT {
            return Err(refused(format!(
                "a window that ends at {end} is impossible"
            )));
        }
        if self.force {
            return Ok(());
        }
        if end < synced {
            return Err(Error::new(
                Class::Incompatible,
                format!(
                    "the stream ends at {end}, and PFS {pfs} has everything up to {synced}: it is \
                     an older stream (--force: apply it, and let the slave be as of {end} again)"
                ),
            ));
        }
        // After a batch that was not acknowledged, its end is where the next one begins.
        if self.withheld {
            return Ok(());
        }
        // A begin that is the master's own floor, as the original always has it, says nothing.
        if begin > self.floor() && begin > synced.next() {
            return Err(Error::new(
                Class::Incompatible,
                format!(
                    "the stream begins at {begin}, and PFS {pfs} has everything up to {synced} \
                     only: what lies between is missing (make a stream from {} on; --force: \
                     apply it all the same)",
                    synced.next()
                ),
            ));
        }
        Ok(())
    }
}

/// Source and slave (`name` for people) are copies of one master.
pub(super) fn same_master(told: &PfsData, slave: &PfsData, name: &str) -> Result<()> {
    if told.shared_uuid == slave.shared_uuid {
        return Ok(());
    }
    let (from, to) = (told.shared_uuid, slave.shared_uuid);
    let (from, to) = (Uuid::from_bytes_le(from), Uuid::from_bytes_le(to));
    Err(Error::new(
        Class::Incompatible,
        format!(
            "the stream is of a PFS with the shared uuid {from}, and {name} has {to}: it is the \
             slave of another master"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mrecord::PfsdBody;
    use crate::format::node::{Base, LeafElement};
    use crate::format::{Key, mrecord};
    use zerocopy::FromZeros;

    fn pfs(uuid: u8, beg: u64, end: u64, flags: u32) -> PfsData {
        let mut data = PfsData::default_for([uuid; 16]);
        data.sync_beg_tid.set(beg);
        data.sync_end_tid.set(end);
        data.mirror_flags.set(flags);
        data
    }

    fn pfsd(data: PfsData) -> Body<'static> {
        announced(data, Capabilities::NONE)
    }

    fn announced(data: PfsData, what: Capabilities) -> Body<'static> {
        Body::Pfsd(PfsdBody {
            version: 1.into(),
            reserved: what.0.into(),
            pfs: data,
        })
    }

    fn record(nodata: bool) -> Body<'static> {
        Body::Record {
            leaf: LeafElement::new_zeroed(),
            data: &[],
            bad: false,
            nodata,
        }
    }

    /// A session with a slave that has everything up to 50: `beg-end` are PFSDs, the floor is 1.
    fn session(words: &str, force: bool) -> Result<String> {
        let mut target = Target::new(force, false);
        let mut did = String::new();
        let mut slave = pfs(3, 1, 50, PfsData::SLAVE);
        for word in words.split(' ') {
            let body = match word {
                "rec" => record(false),
                "nodata" => record(true),
                "pass" => Body::Pass(LeafElement::new_zeroed()),
                "skip" => Body::Skip {
                    from: Base::from_key(Key::MIN),
                    to: Base::from_key(Key::MAX),
                },
                "sync" => Body::Sync,
                "idle" => Body::Idle,
                "term" => Body::Term,
                "update" => Body::Update(7),
                "other" => pfsd(pfs(4, 1, 60, 0)),
                window => {
                    let (beg, end) = window.split_once('-').expect("a window");
                    pfsd(pfs(3, beg.parse().unwrap(), end.parse().unwrap(), 0))
                }
            };
            let step = target.take(&body)?;
            match step {
                Step::Hello(_) => target.slave(Slave { id: 2, data: slave })?,
                Step::Complete => {
                    // As the acknowledgement would.
                    slave.sync_end_tid.set(target.batch()?.end.0);
                }
                _ => {}
            }
            let name = format!("{step:?}");
            did += name.split('(').next().unwrap_or_default();
            did += " ";
        }
        Ok(did.trim_end().to_owned())
    }

    #[test]
    fn sessions() {
        for (words, steps) in [
            ("term", "Over"),
            ("1-60 term", "Hello Over"),
            ("1-60 1-60 term", "Hello Read Stopped"),
            ("1-60 1-60 rec term", "Hello Read Apply Stopped"),
            (
                "1-60 1-60 rec pass skip sync term",
                "Hello Read Apply Apply Apply Complete Over",
            ),
            ("1-60 51-60 sync term", "Hello Read Complete Over"),
            (
                "1-60 51-60 sync 1-70 61-70 rec sync term",
                "Hello Read Complete Hello Read Apply Complete Over",
            ),
            // A window without work may be anything.
            ("1-60 1-0 idle term", "Hello Read Idle Over"),
            ("1-60 90-60 idle term", "Hello Read Idle Over"),
            // A view that was overtaken, and the next one.
            (
                "1-60 51-60 rec idle 1-90 51-90 rec sync term",
                "Hello Read Apply Idle Hello Read Apply Complete Over",
            ),
            // Damage at the source: nothing is acknowledged, and no gap is seen.
            (
                "1-60 51-60 rec idle 1-90 61-90 rec idle term",
                "Hello Read Apply Idle Hello Read Apply Idle Over",
            ),
        ] {
            assert_eq!(session(words, false).unwrap(), steps, "{words}");
        }
    }

    #[test]
    fn records_where_they_do_not_belong() {
        for (words, complaint) in [
            ("rec", "REC where the PFSD"),
            ("1-60 rec", "REC where the second PFSD"),
            ("1-60 sync", "SYNC where the second PFSD"),
            ("1-60 1-60 1-60", "PFSD where REC"),
            ("1-60 1-60 update", "UPDATE where REC"),
            ("1-60 1-60 nodata", "prescans"),
            ("1-60 1-60 rec nodata", "prescans"),
            ("term term", "TERM where the end"),
            ("1-60 1-0 rec", "impossible"),
        ] {
            let error = session(words, false).unwrap_err();
            assert_eq!(error.class(), Class::Protocol, "{words}");
            assert!(error.to_string().contains(complaint), "{words}: {error}");
        }
    }

    #[test]
    fn more_only_where_both_announce_it() {
        use Capabilities as C;
        let source = Body::Source(Tid(5));
        for (ours, theirs) in [
            (C::NONE, C::ALL),
            (C::ALL, C::NONE),
            (C::ALL, C::RESUME),
            (C::ALIVE, C::ALL),
            (C::ALL, C(u32::MAX)),
        ] {
            let mut target = Target::new(false, true).announcing(ours);
            assert_eq!(target.agreed(), C::NONE);
            assert!(target.take(&Body::Alive).is_err(), "before the first PFSD");
            target.take(&announced(pfs(3, 1, 60, 0), theirs)).unwrap();
            assert_eq!(target.agreed(), ours.both(theirs));
            let data = pfs(3, 1, 50, PfsData::SLAVE);
            target.slave(Slave { id: 2, data }).unwrap();
            let (resume, alive) = (
                target.agreed().has(C::RESUME),
                target.agreed().has(C::ALIVE),
            );
            let step = target.take(&source);
            assert_eq!(matches!(step, Ok(Step::Source(Tid(5)))), resume);
            let beats = |target: &mut Target| {
                let step = target.take(&Body::Alive);
                assert_eq!(matches!(step, Ok(Step::Alive)), alive);
            };
            beats(&mut target);
            target.take(&pfsd(pfs(3, 51, 60, 0))).unwrap();
            assert!(target.take(&source).is_err(), "after the second PFSD");
            beats(&mut target);
            target.take(&record(false)).unwrap();
            beats(&mut target);
            target.take(&Body::Sync).unwrap();
            beats(&mut target);
            target.take(&Body::Term).unwrap();
            assert!(target.take(&Body::Alive).is_err(), "after TERM");
        }
    }

    #[test]
    fn windows_that_do_not_fit() {
        for (words, complaint) in [
            ("1-60 1-49 rec", "older stream"),
            ("1-60 1-49 sync", "older stream"),
            ("1-60 52-60 rec", "what lies between"),
            ("1-60 52-60 sync", "what lies between"),
            ("other", "another master"),
            ("1-60 other", "another master"),
        ] {
            let error = session(words, false).unwrap_err();
            assert_eq!(error.class(), Class::Incompatible, "{words}");
            assert!(error.to_string().contains(complaint), "{words}: {error}");
            let forced = session(words, true);
            assert_eq!(forced.is_ok(), !words.contains("other"), "{words}");
        }
        // Again, and a floor that the master's user set.
        assert!(session("1-60 1-50 rec sync", false).is_ok());
        assert!(session("52-60 52-60 rec sync", false).is_ok());
    }

    #[test]
    fn only_slaves_are_written_to() {
        for flags in [0, PfsData::SLAVE | PfsData::DELETED] {
            let mut target = Target::new(true, false);
            target.take(&pfsd(pfs(3, 1, 60, 0))).unwrap();
            let data = pfs(3, 1, 50, flags);
            let error = target.slave(Slave { id: 2, data }).unwrap_err();
            assert_eq!(error.class(), Class::Incompatible);
        }
        let mut target = Target::new(true, false);
        let data = pfs(3, 1, 50, PfsData::SLAVE);
        assert!(
            target.slave(Slave { id: 2, data }).is_err(),
            "not asked for"
        );
    }

    #[test]
    fn other_versions_are_refused() {
        let mut out = Vec::new();
        mrecord::append_pfsd(&mut out, &pfs(3, 1, 60, 0), 0);
        let Ok(Body::Pfsd(mut body)) = Body::parse(&out[..mrecord::PFSD], 0) else {
            panic!("a PFSD");
        };
        body.version.set(2);
        let error = Target::new(false, false)
            .take(&Body::Pfsd(body))
            .unwrap_err();
        assert_eq!(error.class(), Class::Protocol);
    }
}
