//! Devices: batches of reads and writes with owned buffers, and an explicit flush.
//!
//! A [`Device`] takes operations ([`Op`]) and gives back completions ([`Done`]), in any order.
//! There are no partial transfers: an operation is done in full or failed. A flush may be
//! submitted only with nothing in flight (linking or draining in the kernel's queue is no
//! barrier). After a failed write or flush the device is latched: every later call fails.
//!
//! This room knows nothing of HAMMER.

pub mod buf;

pub use buf::{Buf, Bytes};

use std::io;

/// An operation on a device. The buffer travels with it and comes back in [`Done`].
#[derive(Debug)]
pub enum Op {
    /// Fill `buf` (its whole length) from byte `at`.
    Read {
        /// Byte offset on the device, a multiple of [`Device::align`].
        at: u64,
        /// Destination; its length is the transfer length.
        buf: Buf,
    },
    /// Write all of `buf` at byte `at`.
    Write {
        /// Byte offset on the device, a multiple of [`Device::align`].
        at: u64,
        /// Source; its length is the transfer length.
        buf: Buf,
    },
    /// Make everything written so far stable. Only with nothing in flight.
    Flush,
}

/// A completed operation.
#[derive(Debug)]
pub struct Done {
    /// The tag given at submission.
    pub tag: u64,
    /// The operation, with its buffer.
    pub op: Op,
    /// How it went.
    pub result: io::Result<()>,
}

/// A device (or image file): the one interface under everything else.
pub trait Device: Send {
    /// Size in bytes as far as it can be read with aligned transfers; a tail shorter than
    /// [`Device::align`] is readable too (the implementation bounces).
    fn size(&self) -> u64;

    /// Required alignment of offsets and lengths in bytes (a power of two, at most 4096).
    fn align(&self) -> usize;

    /// A name for messages.
    fn name(&self) -> &str;

    /// How many operations may usefully be in flight.
    fn depth(&self) -> usize;

    /// A buffer of `len` bytes (contents unspecified), from registered memory where possible.
    fn buffer(&mut self, len: usize) -> Buf;

    /// Queues an operation. Gives it back when the queue is full: reap, then try again.
    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op>;

    /// Waits until at least `min` operations are complete (or nothing is in flight) and appends
    /// all that are to `out`.
    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()>;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;
}
