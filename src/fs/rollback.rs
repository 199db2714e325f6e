//! A PFS taken back to a TID: what was created later is destroyed, what was deleted later lives
//! again (mirroring.md §2.5; decisions on rollback).

use crate::error::Result;
use crate::format::Tid;
use crate::progress::Progress;
use crate::store::Store;

/// What to take back.
#[derive(Clone, Copy, Debug)]
pub struct Rollback {
    /// The PFS.
    pub pfs: u16,
    /// Everything after this TID goes.
    pub to: Tid,
    /// Whether snapshot and configuration records stay, whatever their TID.
    pub spare_local: bool,
}

/// What was taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// Records destroyed.
    pub destroyed: u64,
    /// Deletions cleared.
    pub undeleted: u64,
}

/// Takes back what `what` says, over as many transactions as it needs; repeating it after a crash
/// goes on where it ended.
pub fn roll_back(
    store: &mut Store,
    what: &Rollback,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let _ = (store, what, now, progress);
    todo!()
}
