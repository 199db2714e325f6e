//! Recovery stage 1 once more, straight from durability.md §5, as strict as the kernel and sharing
//! no code with the library: what undoes a crashed volume in tests, and what the library's own
//! recovery is measured against.
//!
//! It works on images in memory, one a volume, and leaves them as a mount would after its first
//! flush: everything undone, the range to undo empty.

use mallet::io::sim::SimDisk;

/// Bytes of a volume that the oracle may change.
pub trait Image {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `out` from byte `at`.
    fn read(&self, at: u64, out: &mut [u8]);
    /// Puts `bytes` at byte `at`.
    fn write(&mut self, at: u64, bytes: &[u8]);
}

impl Image for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read(&self, at: u64, out: &mut [u8]) {
        out.copy_from_slice(&self[at as usize..][..out.len()]);
    }
    fn write(&mut self, at: u64, bytes: &[u8]) {
        self[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

impl Image for SimDisk {
    fn size(&self) -> u64 {
        SimDisk::size(self)
    }
    fn read(&self, at: u64, out: &mut [u8]) {
        let bytes = SimDisk::read(self, at, out.len());
        out.copy_from_slice(&bytes.expect("within the disk"));
    }
    fn write(&mut self, at: u64, bytes: &[u8]) {
        SimDisk::write(self, at, bytes).expect("within the disk");
    }
}

/// What was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Records of all kinds in the range.
    pub records: u64,
    /// UNDO records among them.
    pub undos: u64,
    /// Where the range begins and ends, bytes in the ring.
    pub range: (u64, u64),
    /// The number that the next record gets; 0 before version 4.
    pub next_seq: u32,
    /// Where the REDO log begins, as the last SYNC record says.
    pub redo: Option<u64>,
}

const BUFFER: u64 = 16384;
const SHORT: u64 = (1 << 52) - 1;

const VERSION: usize = 0x98;
const ZONE3: usize = 0x180;
const FIRST: usize = ZONE3 + 8;
const NEXT: usize = ZONE3 + 16;
const ALLOC: usize = ZONE3 + 24;
const UNDO_ARRAY: usize = 0x388;
const HEADER: usize = 1928;

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// The table of a reflected CRC.
const fn table(poly: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { poly } else { 0 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

static CRC32: [u32; 256] = table(0xEDB8_8320);
static CRC32C: [u32; 256] = table(0x82F6_3B78);

fn crc(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        table[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

fn sum(table: &[u32; 256], record: &[u8]) -> u32 {
    crc(table, &record[..12]) ^ crc(table, &record[16..])
}

struct Volume {
    /// Position among the images.
    image: usize,
    buf_beg: u64,
    buf_end: u64,
}

struct Recovery<'a, I> {
    images: &'a mut [I],
    /// By volume number.
    volumes: Vec<Option<Volume>>,
    version: u32,
    undo_array: Vec<u64>,
    /// Ring length.
    alloc: u64,
    /// The last FIFO buffer that was read, and its start in the ring.
    buffer: Option<(u64, Vec<u8>)>,
}

/// A record: kind and bytes.
struct Record {
    kind: u16,
    bytes: Vec<u8>,
}

const PAD: u16 = 0x8040;
const UNDO: u16 = 0x0043;
const REDO: u16 = 0x0044;

/// Undoes what the FIFO of the root volume among `images` says. An error is what would make the
/// kernel refuse the mount.
pub fn recover<I: Image>(images: &mut [I]) -> Result<Undone, String> {
    let mut recovery = Recovery::open(images)?;
    let root = recovery.root()?;
    let header = recovery.header(root);
    let (first, next, alloc) = (
        le64(&header, FIRST),
        le64(&header, NEXT),
        le64(&header, ALLOC),
    );
    if first > alloc || next > alloc {
        return Err(format!(
            "first {first:#x} or next {next:#x} beyond {alloc:#x}"
        ));
    }
    for (what, at) in [("first", first), ("next", next)] {
        if at >> 60 != 3 || at >> 52 & 0xFF != 0 || at & 7 != 0 {
            return Err(format!("{what} {at:#x} is no place in the FIFO"));
        }
    }
    let first = first & SHORT;
    let (next, next_seq) = match recovery.version {
        0..=3 => (next & SHORT, 0),
        _ => recovery.end_of_log(first)?,
    };
    let mut undone = recovery.apply(first, next)?;
    undone.next_seq = next_seq;
    // The result of the first flush of a mount: nothing left to undo.
    let place = (3 << 60 | (next % recovery.alloc)).to_le_bytes();
    recovery.images[root].write(FIRST as u64, &place);
    recovery.images[root].write(NEXT as u64, &place);
    Ok(undone)
}

impl<'a, I: Image> Recovery<'a, I> {
    fn open(images: &'a mut [I]) -> Result<Recovery<'a, I>, String> {
        let mut recovery = Recovery {
            images,
            volumes: std::iter::repeat_with(|| None).take(256).collect(),
            version: 0,
            undo_array: Vec::new(),
            alloc: 0,
            buffer: None,
        };
        let mut fsid = None;
        for image in 0..recovery.images.len() {
            let header = recovery.header(image);
            if le64(&header, 0) != 0xC841_4D4D_C552_3031 {
                return Err(format!("image {image}: no signature"));
            }
            let id = header[0x30..0x40].to_vec();
            if *fsid.get_or_insert(id.clone()) != id {
                return Err(format!("image {image}: another file system"));
            }
            let number = le32(&header, 0x90) as usize;
            let volume = Volume {
                image,
                buf_beg: le64(&header, 0x18),
                buf_end: le64(&header, 0x20),
            };
            if volume.buf_end > recovery.images[image].size() {
                return Err(format!("image {image}: shorter than its volume"));
            }
            match recovery.volumes.get_mut(number) {
                Some(slot @ None) => *slot = Some(volume),
                _ => return Err(format!("image {image}: volume number {number}")),
            }
        }
        let root = recovery.root()?;
        let header = recovery.header(root);
        if le32(&header, 0x94) as usize != recovery.images.len() {
            return Err("volumes are missing".into());
        }
        recovery.version = le32(&header, VERSION);
        if !(1..=7).contains(&recovery.version) {
            return Err(format!("version {}", recovery.version));
        }
        recovery.undo_array = (0..128)
            .map(|n| le64(&header, UNDO_ARRAY + 8 * n))
            .collect();
        let alloc = le64(&header, ALLOC);
        if alloc >> 52 != 3 << 8 || alloc & SHORT == 0 || alloc & (BUFFER - 1) != 0 {
            return Err(format!("end of the FIFO {alloc:#x}"));
        }
        recovery.alloc = alloc & SHORT;
        Ok(recovery)
    }

    fn root(&self) -> Result<usize, String> {
        match &self.volumes[0] {
            Some(volume) => Ok(volume.image),
            None => Err("no root volume".into()),
        }
    }

    fn header(&self, image: usize) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        self.images[image].read(0, &mut header);
        header
    }

    /// Image and byte of a zone-2 address with `len` bytes behind it.
    fn place(&self, at: u64, len: u64) -> Result<(usize, u64), String> {
        let number = (at >> 52 & 0xFF) as usize;
        let Some(volume) = &self.volumes[number] else {
            return Err(format!("{at:#x}: no volume {number}"));
        };
        let byte = volume.buf_beg + (at & SHORT);
        if byte + len > volume.buf_end {
            return Err(format!("{at:#x}: beyond the volume"));
        }
        Ok((volume.image, byte))
    }

    /// The ring's bytes from `at` to the end of their 16 KiB buffer.
    fn ring(&mut self, at: u64) -> Result<&[u8], String> {
        let start = at & !(BUFFER - 1);
        if self.buffer.as_ref().is_none_or(|(have, _)| *have != start) {
            let block = self.undo_array.get((start >> 23) as usize).copied();
            let zone2 = match block {
                Some(block) if block >> 60 == 2 => block + (start & 0x7F_FFFF),
                other => return Err(format!("FIFO big-block of {start:#x}: {other:x?}")),
            };
            let (image, byte) = self.place(zone2, BUFFER)?;
            let mut bytes = vec![0; BUFFER as usize];
            self.images[image].read(byte, &mut bytes);
            self.buffer = Some((start, bytes));
        }
        let (_, bytes) = self.buffer.as_ref().expect("just read");
        Ok(&bytes[(at - start) as usize..])
    }

    /// The record that starts at `at`, all of it checked.
    fn at(&mut self, at: u64) -> Result<Record, String> {
        let version = self.version;
        let fail = |what: &str| Err(format!("record at {at:#x}: {what}"));
        let rest = self.ring(at)?;
        if rest.len() < 8 {
            return fail("across the end of a buffer");
        }
        let (signature, kind) = (le16(rest, 0), le16(rest, 2));
        let size = le32(rest, 4) as usize;
        if signature != 0xC84E {
            return fail("head signature");
        }
        if size < 8 || !size.is_multiple_of(8) {
            return fail("size");
        }
        if size > rest.len() {
            return fail("across the end of a buffer");
        }
        let bytes = rest[..size].to_vec();
        if kind == PAD && size == 8 {
            return Ok(Record { kind, bytes });
        }
        let tail = size - 8;
        if le16(&bytes, tail) != 0xC74F {
            return fail("tail signature");
        }
        if le16(&bytes, tail + 2) != kind || le32(&bytes, tail + 4) as usize != size {
            return fail("tail unlike the head");
        }
        if kind != PAD {
            if size < 24 {
                return fail("too small");
            }
            let stored = le32(&bytes, 12);
            let ok =
                sum(&CRC32, &bytes) == stored || (version >= 7 && sum(&CRC32C, &bytes) == stored);
            if !ok {
                return fail("CRC");
            }
        }
        Ok(Record { kind, bytes })
    }

    /// The record that ends at `end`; gives its start.
    fn before(&mut self, end: u64) -> Result<(u64, Record), String> {
        let end = if end == 0 { self.alloc } else { end };
        let bytes: [u8; 8] = self.ring(end - 8)?[..8].try_into().expect("8 bytes");
        let (signature, kind, size) = (le16(&bytes, 0), le16(&bytes, 2), le32(&bytes, 4));
        let whole = signature == 0xC84E && kind == PAD && size == 8;
        if !whole && signature != 0xC74F {
            return Err(format!("no record ends at {end:#x}"));
        }
        let start = end.checked_sub(u64::from(size)).unwrap_or(u64::MAX);
        if size < 8 || start & !(BUFFER - 1) != (end - 1) & !(BUFFER - 1) {
            return Err(format!("record before {end:#x}: size {size}"));
        }
        let record = self.at(start)?;
        if record.bytes.len() as u64 != end - start {
            return Err(format!("record before {end:#x}: head and tail differ"));
        }
        Ok((start, record))
    }

    /// Version 4 and later: the log ends where the numbers do. Gives that end and the next number.
    fn end_of_log(&mut self, first: u64) -> Result<(u64, u32), String> {
        let mut at = first;
        let mut seq = loop {
            let (start, record) = self.before(at)?;
            at = start;
            if record.kind != PAD {
                break le32(&record.bytes, 8).wrapping_add(1);
            }
        };
        let (mut at, mut end, mut total) = (first % self.alloc, first, 0);
        loop {
            let record = self.at(at)?;
            let size = record.bytes.len() as u64;
            at = (at + size) % self.alloc;
            total += size;
            if record.kind != PAD {
                if le32(&record.bytes, 8) != seq {
                    return Ok((end, seq));
                }
                seq = seq.wrapping_add(1);
                end = at;
            }
            if total > self.alloc {
                return Err("the log has no end".into());
            }
        }
    }

    /// Puts the old bytes back, newest record first.
    fn apply(&mut self, first: u64, end: u64) -> Result<Undone, String> {
        let mut left = match end >= first {
            true => end - first,
            false => self.alloc - first + end,
        };
        let mut undone = Undone {
            records: 0,
            undos: 0,
            range: (first, end),
            next_seq: 0,
            redo: None,
        };
        let mut at = end;
        while left > 0 {
            let (start, record) = self.before(at)?;
            at = start;
            left = left
                .checked_sub(record.bytes.len() as u64)
                .ok_or("a record across the start of the range")?;
            undone.records += 1;
            match record.kind {
                UNDO => {
                    self.put_back(&record.bytes)
                        .map_err(|error| format!("record at {start:#x}: {error}"))?;
                    undone.undos += 1;
                }
                REDO if record.bytes.len() >= 64 && le32(&record.bytes, 36) == 0x10 => {
                    undone.redo = undone.redo.or(Some(le64(&record.bytes, 24)));
                }
                _ => {}
            }
        }
        Ok(undone)
    }

    fn put_back(&mut self, record: &[u8]) -> Result<(), String> {
        if record.len() < 40 {
            return Err("an UNDO record without room".into());
        }
        let (at, count) = (le64(record, 16), le32(record, 24) as usize);
        if count > record.len() - 40 {
            return Err(format!("{count} bytes do not fit the record"));
        }
        let within = at & (BUFFER - 1);
        if within + count as u64 > BUFFER {
            return Err(format!("{at:#x}: across the end of a buffer"));
        }
        let old = &record[32..32 + count];
        let (image, byte) = match at >> 60 {
            1 => match &self.volumes[(at >> 52 & 0xFF) as usize] {
                Some(volume) => (volume.image, within),
                None => return Err(format!("{at:#x}: no such volume")),
            },
            2 => self.place(at, count as u64)?,
            _ => return Err(format!("{at:#x}: zone")),
        };
        self.images[image].write(byte, old);
        Ok(())
    }
}
