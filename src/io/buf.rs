//! Buffers: owned, page-aligned memory that travels to the device and back, and shared read-only
//! slices of it.

use aligned_vec::{AVec, ConstAlign};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Alignment of every buffer's first byte: enough for any device's direct transfers.
pub const ALIGN: usize = 4096;

/// A page of bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; ALIGN]);

impl Page {
    const ZERO: Page = Page([0; ALIGN]);
}

/// Page-aligned memory. By pages, because those are copied at once even in a build that is not
/// optimised.
struct Memory(AVec<Page, ConstAlign<ALIGN>>);

impl Memory {
    /// At least `len` zero bytes.
    fn zeroed(len: usize) -> Memory {
        let mut pages = AVec::new(ALIGN);
        pages.resize(len.div_ceil(ALIGN), Page::ZERO);
        Memory(pages)
    }

    /// A copy of `bytes`, with zeros up to the end of its last page.
    fn copy_of(bytes: &[u8]) -> Memory {
        let mut pages = AVec::with_capacity(ALIGN, bytes.len().div_ceil(ALIGN));
        let (whole, rest) = bytes.as_chunks::<ALIGN>();
        for page in whole {
            pages.push(Page(*page));
        }
        if !rest.is_empty() {
            let mut last = Page::ZERO;
            last.0[..rest.len()].copy_from_slice(rest);
            pages.push(last);
        }
        Memory(pages)
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory(AVec::new(ALIGN))
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_bytes()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} pages)", self.0.len())
    }
}

/// An owned, page-aligned buffer. Dropping one that came from a [`Pool`] returns its memory.
pub struct Buf {
    memory: Memory,
    len: usize,
    home: Option<(Arc<Pool>, u16)>,
}

impl Buf {
    /// A buffer of `len` zero bytes outside any pool.
    pub fn zeroed(len: usize) -> Buf {
        Buf {
            memory: Memory::zeroed(len),
            len,
            home: None,
        }
    }

    /// A buffer that holds a copy of `bytes`, outside any pool.
    pub fn copy_of(bytes: &[u8]) -> Buf {
        Buf {
            memory: Memory::copy_of(bytes),
            len: bytes.len(),
            home: None,
        }
    }

    /// The pool slot that the memory belongs to, for devices that registered the pool.
    pub fn slot(&self) -> Option<u16> {
        self.home.as_ref().map(|(_, slot)| *slot)
    }

    /// Makes the buffer shorter; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some((pool, slot)) = self.home.take() {
            let memory = std::mem::take(&mut self.memory);
            pool.give_back(slot, memory);
        }
    }
}

/// A fixed set of equally long buffers, reused; their addresses never change, so that a device can
/// register them with the kernel.
#[derive(Debug)]
pub struct Pool {
    slot_len: usize,
    free: Mutex<Vec<(u16, Memory)>>,
}

impl Pool {
    /// `count` slots of `slot_len` bytes each.
    pub fn new(count: u16, slot_len: usize) -> Arc<Pool> {
        let slots = (0..count).map(|slot| (slot, Memory::zeroed(slot_len)));
        Arc::new(Pool {
            slot_len,
            free: Mutex::new(slots.rev().collect()),
        })
    }

    /// Address and length of every slot that is free, in no particular order: before the first
    /// [`Pool::take`], of all.
    pub fn addresses(&self) -> Vec<(u16, *const u8, usize)> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter()
            .map(|(slot, memory)| (*slot, memory.as_ptr(), self.slot_len))
            .collect()
    }

    /// A buffer of `len` bytes, contents unspecified; `None` if no slot is free or `len` is more
    /// than a slot holds.
    pub fn take(self: &Arc<Pool>, len: usize) -> Option<Buf> {
        if len > self.slot_len {
            return None;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, memory) = free.pop()?;
        Some(Buf {
            memory,
            len,
            home: Some((Arc::clone(self), slot)),
        })
    }

    fn give_back(&self, slot: u16, memory: Memory) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push((slot, memory));
    }
}

/// A shared, read-only piece of a buffer.
#[derive(Clone)]
pub struct Bytes {
    buf: Arc<Buf>,
    start: usize,
    end: usize,
}

impl Bytes {
    /// All of `buf`.
    pub fn new(buf: Arc<Buf>) -> Bytes {
        let end = buf.len();
        Bytes { buf, start: 0, end }
    }

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Bytes {
        Bytes::new(Arc::new(Buf::zeroed(len)))
    }

    /// A piece of this piece; `range` is cut to what there is.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        let end = self.start.saturating_add(range.end).min(self.end);
        let start = self.start.saturating_add(range.start).min(end);
        Bytes {
            buf: Arc::clone(&self.buf),
            start,
            end,
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_back() {
        let pool = Pool::new(2, 8192);
        assert!(pool.take(8193).is_none());
        let first = pool.take(8192).expect("two slots are free");
        let second = pool.take(100).expect("one slot is free");
        assert_eq!((second.len(), second.as_ptr() as usize % ALIGN), (100, 0));
        assert_ne!(first.slot(), second.slot());
        assert!(pool.take(1).is_none());
        let slot = first.slot();
        let shared = Bytes::new(Arc::new(first));
        let piece = shared.slice(10..20);
        drop(shared);
        assert!(pool.take(1).is_none(), "a piece keeps the slot");
        drop(piece);
        assert_eq!(pool.take(1).and_then(|b| b.slot()), slot);
    }

    #[test]
    fn slices_are_cut() {
        let all = Bytes::zeroed(10);
        assert_eq!(all.slice(3..7).len(), 4);
        assert_eq!(all.slice(3..99).slice(5..99).len(), 2);
        assert_eq!(all.slice(11..12).len(), 0);
    }
}
