//! Opening a file system for writing: the store's recovery (UNDO), then what only this room can do:
//! the REDO log replayed, a half-done operation taken back, TIDs kept apart from those in use.

use crate::error::Result;
use crate::store::{Store, StoreOptions, VolumeSet};

/// How to open.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// For the store.
    pub store: StoreOptions,
    /// Replay the REDO log; without it, what programs had made durable by fsync since the crashed
    /// system's last flush is lost.
    pub redo: bool,
    /// Microseconds since 1970.
    pub now: u64,
}

/// What opening did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// UNDO records taken back.
    pub undone: u64,
    /// Writes and truncations of the REDO log carried out.
    pub redone: u64,
    /// Those left out, with the reason: an object that does not exist any more.
    pub not_redone: Vec<String>,
    /// Half-done operations taken back.
    pub rolled_back: u64,
}

/// Opens a volume set for writing.
pub fn open(set: VolumeSet, options: &OpenOptions) -> Result<(Store, Report)> {
    let _ = (set, options);
    todo!()
}
