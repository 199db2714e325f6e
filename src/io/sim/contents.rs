//! What a simulated disk holds: changed pieces over a file or over zeros. Copies are cheap, they
//! share what is the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Length of a piece in bytes.
const CHUNK: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Contents {
    size: u64,
    base: Option<Arc<File>>,
    chunks: BTreeMap<u64, Arc<[u8]>>,
}

impl Contents {
    /// `size` bytes: those of `base`, and zeros where there are none.
    pub fn new(size: u64, base: Option<File>) -> Contents {
        Contents {
            size,
            base: base.map(Arc::new),
            chunks: BTreeMap::new(),
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `out` from byte `at`.
    pub fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        for (number, skip, range) in self.pieces(at, out.len())? {
            let out = &mut out[range];
            match self.chunks.get(&number) {
                Some(chunk) => out.copy_from_slice(&chunk[skip..skip + out.len()]),
                None => self.read_base(number * CHUNK as u64 + skip as u64, out)?,
            }
        }
        Ok(())
    }

    /// Puts `bytes` at byte `at`.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        for (number, skip, range) in self.pieces(at, bytes.len())? {
            let bytes = &bytes[range];
            let mut chunk = match self.chunks.remove(&number) {
                Some(chunk) => chunk,
                None => {
                    let mut fresh = vec![0; CHUNK];
                    self.read_base(number * CHUNK as u64, &mut fresh)?;
                    Arc::from(fresh)
                }
            };
            Arc::make_mut(&mut chunk)[skip..skip + bytes.len()].copy_from_slice(bytes);
            self.chunks.insert(number, chunk);
        }
        Ok(())
    }

    /// The chunks that `len` bytes at `at` touch: number, first byte in it, range of the request.
    fn pieces(
        &self,
        at: u64,
        len: usize,
    ) -> io::Result<impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> + use<>> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.size) {
            let text = format!("{len} bytes at {at} reach beyond the end at {}", self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let mut done = 0;
        Ok(std::iter::from_fn(move || {
            let place = at + done as u64;
            let skip = (place % CHUNK as u64) as usize;
            let count = (CHUNK - skip).min(len - done);
            let range = done..done + count;
            done += count;
            (count > 0).then_some((place / CHUNK as u64, skip, range))
        }))
    }

    fn read_base(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        if let Some(base) = &self.base {
            while done < out.len() {
                match base.read_at(&mut out[done..], at + done as u64) {
                    Ok(0) => break,
                    Ok(count) => done += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        out[done..].fill(0);
        Ok(())
    }
}
