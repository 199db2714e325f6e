//! One target of a pass: what of the source's items is for it, by the rules of a session.

use super::apply::{Applied, Applier, Ending, Terms};
use super::arrival::localized;
use super::damage::Damages;
use super::session::opening;
use super::sieve::{For, Sieve};
use super::source::Item;
use super::target::{Slave, Step, Target};
use super::window::{SourcePfs, Window};
use crate::error::{Class, Error, Result};
use crate::format::Key;
use crate::format::mark;
use crate::format::mrecord::{Body, PfsdBody};
use crate::format::node::Base;
use crate::format::record::PfsData;
use crate::store::{Durable, Txn};

/// A target in a pass.
pub(super) struct Lane {
    target: Target,
    applier: Applier,
    sieve: Sieve,
}

impl Lane {
    /// Opens the session of one pass: the source shows itself and its window, the target its slave.
    /// Errors: class `Incompatible` if they do not belong together.
    pub fn open(
        source: &SourcePfs,
        window: Window,
        slave: Slave,
        allow_deletes: bool,
    ) -> Result<Lane> {
        let mut target = greeted(source, slave)?;
        target.take(&pfsd(opening(source, &window)))?;
        let mut applier = Applier::new(target.batch()?)?;
        applier.allow_deletes(allow_deletes);
        Ok(Lane {
            target,
            applier,
            sieve: Sieve::new(window),
        })
    }

    /// Lets checkpoints note how far the pass is.
    pub fn note_progress(&mut self, cursor: mark::Cursor) {
        self.applier.note_progress(cursor);
    }

    /// What was done so far.
    pub fn applied(&self) -> &Applied {
        self.applier.applied()
    }

    /// What did not arrive whole.
    pub fn damage(&self) -> &Damages {
        self.applier.damage()
    }

    /// Takes one item of a scan that may also be for others, who lack more or less.
    pub fn take(&mut self, txn: &mut Txn<'_>, item: &Item) -> Result<()> {
        match self.sieve.sieve(item) {
            For::Nothing => Ok(()),
            For::Pass(leaf) => {
                self.applies(&Body::Pass(*leaf))?;
                self.applier.pass(txn, leaf)
            }
            For::Skip(from, to, damage) => {
                let (left, right) = (*from, *to);
                self.applies(&Body::Skip {
                    from: left,
                    to: right,
                })?;
                match damage {
                    None => self.applier.skip(txn, from, to),
                    Some(damage) => self.applier.unreadable(txn, from, to, damage),
                }
            }
            For::Record(leaf, data, damage) => {
                let data = data.map_or(&[][..], |data| data);
                self.applies(&Body::Record {
                    leaf: *leaf,
                    data,
                    bad: damage.is_some(),
                    nodata: false,
                })?;
                match damage {
                    None => self.applier.rec(txn, leaf, data),
                    Some(damage) => self.applier.damaged(txn, leaf, damage),
                }
            }
        }
    }

    /// Says to the session what comes; it has nothing to say but that it is to be applied.
    fn applies(&mut self, body: &Body<'_>) -> Result<()> {
        match self.target.take(body)? {
            Step::Apply => Ok(()),
            step => Err(Error::new(
                Class::Protocol,
                format!("{step:?} where a record is to be applied"),
            )),
        }
    }

    /// Makes what was done durable and notes how far it is.
    pub fn checkpoint(&mut self, txn: &mut Txn<'_>) -> Result<Durable> {
        self.applier.checkpoint(txn)
    }

    /// The same, at the end of a transaction.
    pub fn suspend(&mut self, txn: Txn<'_>) -> Result<Durable> {
        self.applier.suspend(txn)
    }

    /// The source has said everything: completes the pass.
    pub fn complete(&mut self, txn: Txn<'_>, terms: Terms) -> Result<Ending> {
        self.target.take(&Body::Sync)?;
        self.applier.complete(txn, terms)
    }
}

/// A target that was shown the source and has shown `slave`: they belong together, or it is an
/// error of class `Incompatible`.
pub(super) fn greeted(source: &SourcePfs, slave: Slave) -> Result<Target> {
    let mut target = Target::new(false, false);
    target.take(&pfsd(source.told(source.end)))?;
    target.slave(slave)?;
    Ok(target)
}

fn pfsd(pfs: PfsData) -> Body<'static> {
    Body::Pfsd(PfsdBody {
        version: 1.into(),
        reserved: 0.into(),
        pfs,
    })
}

/// `key`, of another PFS, in PFS `pfs`.
pub(super) fn key_in(key: Key, pfs: u16) -> Key {
    localized(&Base::from_key(key), pfs)
}
