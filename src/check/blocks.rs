//! A file's blocks (format.md §14).

use super::Run;
use super::files::{Files, Ino, Seen};
use super::leaf::{describe, placed};
use super::records::Data;
use crate::btree;
use crate::error::Result;
use crate::format::{Fault, HALF_BUFFER, Rule, align16, block_size};
use crate::store::Fetch;

/// Where the blocks of the file under way end.
#[derive(Default)]
pub(super) struct Blocks {
    obj: i64,
    end: u64,
}

impl Blocks {
    /// Takes a block; the end of those before if it starts below that.
    fn overlap(&mut self, obj: i64, base: u64, end: u64) -> Option<u64> {
        let before = if self.obj == obj { self.end } else { 0 };
        self.obj = obj;
        self.end = before.max(end);
        (base < before).then_some(before)
    }
}

/// How well a block's shape fits.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    Good,
    /// Legal, but not what the kernel would choose for this size.
    Odd(String),
    Bad(String),
}

/// The shape of a block of `len` bytes at `base` of a file of `size` bytes. A short first block of
/// a file that grew later keeps its length until it is rewritten.
fn shape(base: u64, len: u64, size: u64) -> Shape {
    let block = block_size(base);
    if !base.is_multiple_of(block) {
        return Shape::Bad(format!("a base that is a multiple of {block}"));
    }
    let short = align16(size);
    if len == block {
        if base == 0 && (1..=HALF_BUFFER).contains(&size) {
            return Shape::Odd(format!("{short} bytes in a file of {size}"));
        }
        return Shape::Good;
    }
    if base == 0 && len.is_multiple_of(16) && len <= HALF_BUFFER && len <= short {
        return Shape::Good;
    }
    match base == 0 && size <= HALF_BUFFER {
        true => Shape::Bad(format!("{short} bytes in a file of {size}")),
        false => Shape::Bad(format!("{block} bytes")),
    }
}

/// `size` rounded up to the blocks at its end.
fn round_up(size: u64) -> u64 {
    size.checked_next_multiple_of(block_size(size))
        .unwrap_or(u64::MAX)
}

/// Checks the block `seen` of `file`.
pub(super) fn check<F: Fetch + ?Sized>(
    files: &mut Files,
    run: &mut Run<'_>,
    fetch: &mut F,
    seen: &Seen,
    file: &Ino,
) -> Result<()> {
    let detail = || describe(&seen.leaf);
    let (Ok(end), Ok(len)) = (
        u64::try_from(seen.leaf.base.key.get()),
        u64::try_from(seen.leaf.data_len.get()),
    ) else {
        let found = format!("0x{:x}", seen.leaf.base.key);
        let fault = Fault::new(Rule::FileShape, seen.at, "a key of 0 and above", found);
        files.put(run, fault, detail());
        return Ok(());
    };
    let Some(base) = end.checked_sub(len) else {
        let expected = format!("a key of at least the length {len}");
        let fault = Fault::new(Rule::FileShape, seen.at, expected, end);
        files.put(run, fault, detail());
        return Ok(());
    };
    let found = format!("{len} bytes at {base}");
    if let Some(before) = files.blocks.overlap(file.obj, base, end) {
        let expected = format!("a block from {before} on");
        let fault = Fault::new(Rule::FileOverlap, seen.at, expected, &found);
        files.put(run, fault, detail());
    }
    if base >= round_up(file.size) {
        let expected = format!("no block behind the end at {}", file.size);
        let fault = Fault::new(Rule::FileEnd, seen.at, expected, found);
        files.put(run, fault, detail());
        return Ok(());
    }
    match shape(base, len, file.size) {
        Shape::Good => {}
        Shape::Odd(expected) => {
            let fault = Fault::new(Rule::FileShape, seen.at, expected, found);
            files.warn(run, fault, detail());
        }
        Shape::Bad(expected) => {
            let fault = Fault::new(Rule::FileShape, seen.at, expected, found);
            files.put(run, fault, detail());
        }
    }
    if end > file.size {
        tail(files, run, fetch, seen, file.size.saturating_sub(base))?;
    }
    Ok(())
}

/// Checks that the block's bytes from `from` on are zero.
fn tail<F: Fetch + ?Sized>(
    files: &Files,
    run: &mut Run<'_>,
    fetch: &mut F,
    seen: &Seen,
    from: u64,
) -> Result<()> {
    if !run.options.data {
        return Ok(());
    }
    let bytes = match &seen.data {
        Data::Good(bytes) => bytes.clone(),
        // The main pass has read and judged this block; here only what is history by now matters.
        Data::Unread if files.is_snapshot() && !seen.leaf.base.delete_tid().is_zero() => {
            if placed(&seen.leaf, run.media).is_none() {
                return Ok(());
            }
            match btree::data(fetch, &seen.leaf) {
                Ok(data) if data.crc_ok => data.bytes,
                Ok(_) => return Ok(()),
                Err(error) if error.is_media() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        _ => return Ok(()),
    };
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or_default();
    if let Some(at) = rest.iter().position(|b| *b != 0) {
        let expected = "zeros behind the end of the file";
        let found = format!("0x{:02x} at byte {} of the block", rest[at], from + at);
        let fault = Fault::new(Rule::FileTail, seen.leaf.data_offset(), expected, found);
        files.put(run, fault, describe(&seen.leaf));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::LARGE_DATA;

    const K: u64 = 1024;

    #[test]
    fn shapes() {
        for (base, len, size) in [
            (0, 16, 1),
            (0, 16, 16),
            (0, 8192, 8192),
            (0, 16 * K, 8193),
            (0, 112, 5000),
            (0, 112, 5 << 20),
            (1008 * K, 16 * K, 1 << 20),
            (1 << 20, 64 * K, (1 << 20) + 1),
        ] {
            assert_eq!(shape(base, len, size), Shape::Good, "{base} {len} {size}");
        }
        for (base, len, size) in [
            (0, 32, 16),
            (0, 8208, 9000),
            (16 * K, 112, 20000),
            (8 * K, 16 * K, 1 << 20),
            (1 << 20, 16 * K, 2 << 20),
            (16 * K, 64 * K, 2 << 20),
        ] {
            assert!(matches!(shape(base, len, size), Shape::Bad(_)));
        }
        assert!(matches!(
            shape(0, u64::from(LARGE_DATA), 100),
            Shape::Odd(_)
        ));
    }

    #[test]
    fn ends() {
        assert_eq!(round_up(0), 0);
        assert_eq!(round_up(1), 16 * K);
        assert_eq!(round_up(16 * K), 16 * K);
        assert_eq!(round_up((1 << 20) - 1), 1 << 20);
        assert_eq!(round_up((1 << 20) + 1), (1 << 20) + 64 * K);
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn overlaps_are_of_one_file() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.overlap(5, 0, 100), None);
        assert_eq!(blocks.overlap(5, 64, 80), Some(100));
        assert_eq!(blocks.overlap(5, 90, 120), Some(100));
        assert_eq!(blocks.overlap(6, 0, 100), None);
    }
}
