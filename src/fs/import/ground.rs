//! What is copied into: a PFS that is being changed, or, in a dry run, one that is only looked at.

use crate::fs::operation::Operation;
use crate::store::Fetch;

/// What is copied into.
pub enum Ground<'g, 's> {
    /// An operation.
    Real(&'g mut Operation<'s>),
    /// The committed state, of PFS `.1`; nothing is changed.
    Dry(&'g mut dyn Fetch, u16),
}

impl Ground<'_, '_> {
    /// The picture.
    pub fn fetch(&mut self) -> &mut dyn Fetch {
        match self {
            Ground::Real(op) => op.txn(),
            Ground::Dry(fetch, _) => *fetch,
        }
    }

    /// The PFS.
    pub fn pfs(&self) -> u16 {
        match self {
            Ground::Real(op) => op.pfs(),
            Ground::Dry(_, pfs) => *pfs,
        }
    }
}
