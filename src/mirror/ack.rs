//! What a target may say of what it has, and only then.

use crate::error::{Class, Error, Result};
use crate::format::{Tid, mrecord};
use crate::fs::pfs;
use crate::store::{Durable, Store};

/// A slave has everything up to a TID, on stable media, whatever happens. Made from proof alone.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    tid: Tid,
    _proof: Durable,
}

impl Ack {
    /// After a commit whose transaction stored `tid` as the slave's end.
    pub(super) fn committed(tid: Tid, proof: Durable) -> Ack {
        Ack { tid, _proof: proof }
    }

    /// What slave PFS `pfs` has, with nothing new: the answer to a batch without work.
    ///
    /// Errors: class `Usage` if there is no such PFS, and those of a store that is latched.
    pub fn standing(store: &mut Store, pfs: u16) -> Result<Ack> {
        let proof = store.durable()?;
        match pfs::record(store.view(), pfs)? {
            Some(data) => Ok(Ack::committed(data.sync_end_tid(), proof)),
            None => Err(Error::new(
                Class::Usage,
                format!("PFS {pfs} does not exist any more"),
            )),
        }
    }

    /// The TID.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// The record that says so, appended to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        mrecord::append_update(out, self.tid.0);
    }
}
