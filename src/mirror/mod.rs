//! One pseudo file system as a stream of changes.
//!
//! # The session in words
//!
//! A *source* gives what happened to a PFS in a *window* of TIDs, a *target* makes it happen again.
//! A stream is batches and a last word:
//!
//! ```text
//! source → PFSD     the state of my PFS: who it is, how far it goes
//!        ← PFSD     (two-way) the state of mine: how far I have it
//!          plan     windows are decided on: from what the target has to what there is
//! source → PFSD     the state of my PFS at the end of this batch's window
//! source → REC …    an element created in the window, with its data
//!          PASS …   an older element, as it is now: it still exists, or it is deleted
//!          SKIP …   nothing is said of this range
//! source → SYNC     that was all of it     | IDLE  nothing to acknowledge
//!        ← UPDATE   (two-way) I have it on stable media up to this TID
//! source → TERM     no more batches
//! ```
//!
//! Keys ascend strictly within a batch. What the target has and the source does not mention, outside
//! of skipped ranges, is deleted. One-way streams lack what the target says; the begin of the window
//! is then given, and the stream may be kept in a file.
//!
//! What each side knows after a failure:
//!
//! * The source knows nothing of its targets and keeps nothing, but for the cycle file of a one-way
//!   stream ([`cycle`]).
//! * The target knows the end of the last window that ended with SYNC. What it got of a later batch
//!   is in place and beyond that TID, so invisible; the next batch repeats it.
//! * Two mallets know more: the target keeps how far a batch came, and the source goes on there
//!   (SOURCE and CURSOR, [`session`]).
//! * A batch of which something could not be read ends with IDLE, as do all behind it: the original
//!   lets flagged records count as deleted, and a SYNC would make that final.
//! * A stream stopped on request ends with TERM and without SYNC. One that broke ends in the middle;
//!   the target sees the end of the bytes and acknowledges nothing.
//!
//! # The files
//!
//! [`session`] is that as a machine without I/O: which record comes next. [`window`] decides on
//! TIDs, [`split`] on batches, [`source`] on the records of a batch, [`wire`] turns records into
//! bytes and back, [`output`] hands them on, under the ceiling of [`throttle`]. [`alive`] tells an end
//! that is slow from one that is gone. [`read`] puts them together;
//! [`mod@plan`] is the same with an output that only counts. [`dump`] says what a stream holds.
//!
//! [`target`] is the other side of the session, also without I/O. [`apply`] makes the records of a
//! batch true in a slave, [`own`] says what becomes of that which they do not mention, [`ack`] is what may be said of it then and not before, [`takeback`]
//! returns a slave to what it last acknowledged. [`write`](mod@write) puts these together for a
//! stream of bytes.
//!
//! [`copy`](mod@copy) has both sides in one process, and one scan for several slaves: a thread that
//! reads ahead (`link`), for each slave what of it is for that slave (`lane`), all of it made durable
//! together (`pour`); [`ready`] is what comes before a pass.
//!
//! [`verify`](mod@verify) tells whether a slave shows what its source shows; [`lag`](mod@lag) how far
//! it is behind.

pub mod ack;
pub mod alive;
pub mod apply;
mod arrival;
pub mod copy;
pub mod cycle;
pub mod damage;
pub mod dump;
pub mod follow;
pub mod lag;
mod lane;
mod link;
pub mod output;
pub mod own;
pub mod plan;
mod pour;
pub mod read;
pub mod ready;
pub mod session;
mod sieve;
pub mod source;
pub mod split;
pub mod takeback;
pub mod target;
pub mod throttle;
pub mod verify;
pub mod window;
pub mod wire;
pub mod write;

pub use ack::Ack;
pub use apply::{Applied, Applier, Batch, Ending, Terms};
pub use copy::copy;
pub use cycle::Cycle;
pub use damage::{Damage, Damages, What};
pub use own::Shadow;
pub use plan::{Need, plan, plan_against, plan_for};
pub use read::{Counts, Edge, Event, Report, Request, run};
pub use target::{Slave, Step, Target};
pub use throttle::Clock;
pub use window::{Asked, SourcePfs, Window, is_idle};
