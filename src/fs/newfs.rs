//! A fresh file system on devices (format.md §4.4).
//!
//! What is written is what DragonFly's own formatter writes, and nothing else: the freemap, the
//! UNDO FIFO, a root leaf with two records, the headers. All other bytes stay as they are. Unlike
//! there, all checksums of the headers are right.

mod contents;
mod geometry;

use crate::error::{Error, Result};
use crate::format::{BIGBLOCK, BUFFER, CrcKind};
use crate::io::{Buf, Device, Done, Op, read_at};
use contents::Contents;
pub use geometry::{DRAGONFLY_MIN, UNDO_DEFAULT_MAX, least_size};
use geometry::{Geometry, VOLUME_BEGIN};

/// What to make.
#[derive(Clone, Debug)]
pub struct NewFs {
    /// The label, 1 to 63 bytes.
    pub label: Vec<u8>,
    /// File system version, 4 to 7.
    pub version: u32,
    /// Size of the UNDO FIFO in bytes, rounded up to whole big-blocks; `None`: by the size of
    /// volume 0.
    pub undo_bytes: Option<u64>,
    /// The file system id, random, as stored.
    pub fsid: [u8; 16],
    /// Microseconds since 1970.
    pub now: u64,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Size of the UNDO FIFO in bytes.
    pub undo_bytes: u64,
    /// Big-blocks for nodes and data.
    pub bigblocks: u64,
    /// Those of them that are free.
    pub free_bigblocks: u64,
}

/// Length of one write in bytes.
const PIECE: usize = 1 << 20;
/// How many bytes of writes are in flight at most.
const WINDOW: usize = 32 << 20;

/// Makes a file system on `devices`, volume 0 first, and makes it stable. Headers that stand there
/// are wiped first and the new ones written last, volume 0's behind all others: after a crash in
/// between there is no file system, rather than an old header over new contents.
///
/// Errors: class `Usage` if the request cannot be met (too small, label too long; nothing was
/// written then), `Io` if a device fails.
pub fn newfs(devices: &mut [Box<dyn Device>], what: &NewFs) -> Result<Made> {
    newfs_within(devices, u64::MAX, what)
}

/// As [`newfs`], and each volume uses no more than the first `size` bytes of its device.
pub fn newfs_within(devices: &mut [Box<dyn Device>], size: u64, what: &NewFs) -> Result<Made> {
    let sizes: Vec<(String, u64)> = devices
        .iter()
        .map(|device| (device.name().to_owned(), device.size().min(size)))
        .collect();
    let geometry = plan(&sizes, what)?;
    let contents = Contents::new(what, &geometry);
    for device in devices.iter_mut() {
        wipe_header(device.as_mut())?;
    }
    for (number, device) in devices.iter_mut().enumerate() {
        fill_volume(device.as_mut(), number, &geometry, &contents)?;
    }
    for device in devices.iter_mut() {
        flush(device.as_mut())?;
    }
    // Volume 0 makes a file system of the others: it comes last, after they are stable.
    for (number, device) in devices.iter_mut().enumerate().skip(1) {
        write_header(device.as_mut(), number, &contents)?;
    }
    write_header(devices[0].as_mut(), 0, &contents)?;
    Ok(geometry.made())
}

/// What [`newfs`] would make of devices of these names and sizes in bytes; the same errors of
/// class `Usage`.
pub fn preview(devices: &[(String, u64)], what: &NewFs) -> Result<Made> {
    Ok(plan(devices, what)?.made())
}

fn plan(devices: &[(String, u64)], what: &NewFs) -> Result<Geometry> {
    if !(1..=63).contains(&what.label.len()) {
        let len = what.label.len();
        return Err(Error::usage(format!(
            "a label has 1 to 63 bytes, not {len}"
        )));
    }
    if what.label.contains(&0) {
        return Err(Error::usage("a label cannot hold a NUL byte"));
    }
    if !(4..=7).contains(&what.version) {
        let text = format!("versions 4 to 7 can be made, not {}", what.version);
        return Err(Error::usage(text));
    }
    Geometry::new(devices, what.undo_bytes)
}

/// Takes away what stands where the header will be, so that nothing takes the volume for what it
/// was while it is being made.
fn wipe_header(device: &mut dyn Device) -> Result<()> {
    let old = read_at(device, 0, BUFFER)
        .map_err(|error| Error::io("reading the header", error).context(device.name()))?;
    if old.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let mut writer = Writer::new(device);
    writer.write(0, BUFFER, |_, buf| buf.fill(0))?;
    writer.finish()?;
    flush(device)
}

fn write_header(device: &mut dyn Device, number: usize, contents: &Contents<'_>) -> Result<()> {
    let mut writer = Writer::new(device);
    writer.write(0, BUFFER, |_, buf| contents.header(number, buf))?;
    writer.finish()?;
    flush(device)
}

/// Everything of one volume but its header.
fn fill_volume(
    device: &mut dyn Device,
    number: usize,
    geometry: &Geometry,
    contents: &Contents<'_>,
) -> Result<()> {
    let volume = geometry.volumes[number];
    let meta = (number == 0).then(|| read_unit(device, geometry.meta()));
    let mut writer = Writer::new(device);
    if number == 0 {
        writer.write(bigblock_at(0), BIGBLOCK as usize, |at, buf| {
            contents.layer1(at, buf);
        })?;
    }
    for array in 0..volume.layer2 {
        let at = bigblock_at(geometry.layer2_at(number, array));
        writer.write(at, BIGBLOCK as usize, |at, buf| {
            contents.layer2(number, array, at, buf);
        })?;
    }
    if let Some(meta) = meta {
        let mut meta = meta?;
        for block in 0..geometry.undo {
            let at = bigblock_at(geometry.undo_at() + block);
            writer.write(at, BIGBLOCK as usize, |at, buf| {
                contents.fifo(block * BIGBLOCK + at, buf);
            })?;
        }
        let node = contents.root_node();
        writer.write(bigblock_at(geometry.btree()), node.len(), |_, buf| {
            buf.copy_from_slice(&node);
        })?;
        contents.meta(&mut meta);
        writer.write(bigblock_at(geometry.meta()), meta.len(), |_, buf| {
            buf.copy_from_slice(&meta);
        })?;
    }
    writer.finish()
}

/// What stands at the start of big-block `block`: one unit of the device, of which only a part
/// will be changed.
fn read_unit(device: &mut dyn Device, block: u64) -> Result<Vec<u8>> {
    let len = device.align().max(512);
    read_at(device, bigblock_at(block), len)
        .map_err(|error| Error::io("reading what is there", error).context(device.name()))
}

/// Byte of the device at which big-block `index` begins.
fn bigblock_at(index: u64) -> u64 {
    VOLUME_BEGIN + index * BIGBLOCK
}

fn flush(device: &mut dyn Device) -> Result<()> {
    let name = device.name().to_owned();
    let failed = |error| Error::io("making it stable", error).context(&name);
    if device.submit(0, Op::Flush).is_err() {
        return Err(failed(std::io::Error::other("the device takes no flush")));
    }
    let mut done = Vec::new();
    device.reap(1, &mut done).map_err(failed)?;
    done.into_iter()
        .try_for_each(|done| done.result)
        .map_err(failed)
}

/// Writes with many operations in flight.
struct Writer<'d> {
    device: &'d mut dyn Device,
    done: Vec<Done>,
    limit: usize,
}

impl Writer<'_> {
    fn new(device: &mut dyn Device) -> Writer<'_> {
        let limit = device.depth().clamp(1, WINDOW / PIECE);
        Writer {
            device,
            done: Vec::new(),
            limit,
        }
    }

    /// Writes `len` bytes at byte `at`, in pieces that `fill` makes: it is given each one's offset
    /// from `at`, and must set all of its bytes.
    fn write(&mut self, at: u64, len: usize, fill: impl Fn(u64, &mut [u8])) -> Result<()> {
        for from in (0..len).step_by(PIECE) {
            let mut buf = self.device.buffer(PIECE.min(len - from));
            fill(from as u64, &mut buf);
            self.submit(at + from as u64, buf)?;
        }
        Ok(())
    }

    fn submit(&mut self, at: u64, buf: Buf) -> Result<()> {
        while self.device.in_flight() >= self.limit {
            self.reap()?;
        }
        let mut op = Op::Write { at, buf };
        while let Err(back) = self.device.submit(0, op) {
            op = back;
            if self.device.in_flight() == 0 {
                let error = std::io::Error::other("the device takes no write");
                return Err(Error::io("writing", error).context(self.device.name()));
            }
            self.reap()?;
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        let name = self.device.name().to_owned();
        let failed = |error| Error::io("writing", error).context(&name);
        self.device.reap(1, &mut self.done).map_err(failed)?;
        self.done
            .drain(..)
            .try_for_each(|done| done.result)
            .map_err(failed)
    }

    /// Waits for all that is in flight.
    fn finish(mut self) -> Result<()> {
        while self.device.in_flight() > 0 {
            self.reap()?;
        }
        Ok(())
    }
}

/// The kind of checksum that a volume of `version` carries.
fn kind(version: u32) -> CrcKind {
    CrcKind::of_version(version)
}
