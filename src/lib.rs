//! Own DragonFly BSD HAMMER(1) volumes in user space: make, read, change, check and mirror them on
//! block devices and image files.
//!
//! The rooms, from the ground up; a room imports only from rooms below it:
//!
//! * [`mod@format`]: the disk and the wire as types; no I/O.
//! * [`io`]: devices; knows nothing of HAMMER.
//! * [`store`]: bytes at HAMMER addresses, a consistent picture of a volume set, changed atomically.
//! * [`btree`]: keys to records; search, cursors, the TID-filtered scan; changes.
//! * [`fs`]: records to files, current and as of a TID; operations, copying in, new file systems.
//! * [`mirror`]: one pseudo file system as a stream of changes, and streams applied to slaves.
//! * [`check`]: is it whole.
//! * [`cli`]: words in, words out.
//!
//! [`error`] and [`progress`] lie below all but [`mod@format`].

pub mod btree;
pub mod check;
pub mod cli;
pub mod error;
pub mod format;
pub mod fs;
pub mod io;
pub mod mirror;
pub mod progress;
pub mod store;

pub use error::{Error, Result};
