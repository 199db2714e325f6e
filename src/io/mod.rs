//! Devices: batches of reads and writes with owned buffers, and an explicit flush.
//!
//! A [`Device`] takes operations ([`Op`]) and gives back completions ([`Done`]), in any order.
//! There are no partial transfers: an operation is done in full or failed. A flush may be
//! submitted only with nothing in flight (linking or draining in the kernel's queue is no
//! barrier). After a failed write or flush the device is latched: every later operation fails,
//! until it is opened again.
//!
//! [`open()`] opens an image file or block device; [`sim`] is a simulated disk for tests.
//!
//! This room knows nothing of HAMMER.

pub mod buf;
pub mod lock;
mod medium;
mod open;
mod posix;
pub mod sim;
pub mod sys;
mod uring;

pub use buf::{Buf, Bytes};
pub use open::{Direct, Engine, OpenOptions, open};

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
    /// Size in bytes. It need not be a multiple of [`Device::align`]: a read that ends at the very
    /// end may have any length. Writes may not.
    fn size(&self) -> u64;

    /// Required alignment of offsets and lengths in bytes (a power of two, at most 4096).
    fn align(&self) -> usize;

    /// A name for messages.
    fn name(&self) -> &str;

    /// The name, for messages, of a volume that begins at byte `offset` of this device.
    fn name_at(&self, offset: u64) -> String {
        format!("{}@{offset}", self.name())
    }

    /// How many operations may usefully be in flight.
    fn depth(&self) -> usize;

    /// A buffer of `len` bytes (contents unspecified), from registered memory where possible.
    fn buffer(&mut self, len: usize) -> Buf;

    /// What serves the operations, for people: the engine, direct or buffered.
    fn engine(&self) -> String {
        String::new()
    }

    /// Queues an operation. Gives it back when the queue is full: reap, then try again. A flush is
    /// given back while anything is in flight, and anything while a flush is; so may be a read
    /// of a crooked tail.
    ///
    /// An operation may begin as late as at the next [`Device::reap`]; `reap(0, …)` begins all
    /// that is queued and does not wait. One that breaks a rule (alignment, range, a write to a
    /// device opened for reading) is accepted, and completes with the error.
    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op>;

    /// Waits until at least `min` operations are complete (or nothing is in flight) and appends
    /// all that are to `out`.
    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()>;

    /// Operations submitted and not yet reaped.
    fn in_flight(&self) -> usize;
}

/// The longest single transfer of [`read_at`], in bytes.
const PIECE: u64 = 1 << 20;

/// Reads `len` bytes at byte `at`, aligned or not, and waits for them. For small reads with
/// nothing else in flight on `device`; refused otherwise, because the completions of others
/// would be lost. A range beyond the end is an `UnexpectedEof`.
pub fn read_at(device: &mut dyn Device, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let size = device.size();
    let Some(end) = at.checked_add(len as u64).filter(|end| *end <= size) else {
        let text = format!("{len} bytes at {at} reach beyond the end at {size}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    };
    if device.in_flight() != 0 {
        let text = "a synchronous read beside others in flight";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let align = device.align() as u64;
    let mut bytes = Vec::with_capacity(len);
    let mut from = at - at % align;
    while bytes.len() < len {
        // Past `end` only up to the alignment, and never past the end of the device.
        let to = end.next_multiple_of(align).min(size).min(from + PIECE);
        let buf = device.buffer((to - from) as usize);
        if device.submit(0, Op::Read { at: from, buf }).is_err() {
            return Err(io::Error::other("the device takes no operation"));
        }
        let mut done = Vec::new();
        device.reap(1, &mut done)?;
        let Some(Done {
            op: Op::Read { buf, .. },
            result,
            ..
        }) = done.pop()
        else {
            return Err(io::Error::other("the device lost an operation"));
        };
        result?;
        let skip = at.saturating_sub(from) as usize;
        let take = (len - bytes.len()).min(buf.len() - skip);
        bytes.extend_from_slice(&buf[skip..skip + take]);
        from = to;
    }
    Ok(bytes)
}
