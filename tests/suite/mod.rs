//! What holds for every device, whatever it is and however it is opened.
#![allow(dead_code)]

use mallet::io::{Device, Direct, Done, Engine, Op, OpenOptions, open, read_at};
use std::fs;
use std::io::ErrorKind;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Every way to open a device.
pub const MODES: [(Engine, Direct); 5] = [
    (Engine::Auto, Direct::Auto),
    (Engine::Uring, Direct::On),
    (Engine::Uring, Direct::Off),
    (Engine::Posix, Direct::On),
    (Engine::Posix, Direct::Off),
];

pub fn options(engine: Engine, direct: Direct) -> OpenOptions {
    OpenOptions {
        engine,
        direct,
        buffers: 4,
        ..OpenOptions::default()
    }
}

/// Opens the device, or says why this host cannot.
pub fn try_open(path: &Path, options: &OpenOptions) -> Option<Box<dyn Device>> {
    match open(path, options) {
        Ok(device) => {
            let engine = device.engine();
            assert!(options.engine != Engine::Uring || engine.starts_with("io_uring"));
            assert!(options.engine != Engine::Posix || engine.starts_with("posix"));
            assert!(options.direct != Direct::On || engine.contains("direct"));
            assert!(options.direct != Direct::Off || engine.contains("buffered"));
            Some(device)
        }
        Err(error) if error.to_string().contains("refused") => {
            // Not by a macro that the test runner captures: a skip is to be seen.
            let _ = writeln!(std::io::stderr(), "skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Bytes that differ from place to place, from a seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = (0..len.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(len);
    bytes
}

/// A file of these bytes in `folder`.
pub fn image(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("volume.img");
    fs::write(&path, bytes).expect("room for an image");
    path
}

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for images")
}

/// Submits, reaping whenever the queue is full.
pub fn submit(device: &mut dyn Device, tag: u64, mut op: Op, out: &mut Vec<Done>) {
    while let Err(back) = device.submit(tag, op) {
        op = back;
        device.reap(1, out).expect("the queue works");
    }
}

pub fn finish(device: &mut dyn Device, out: &mut Vec<Done>) {
    device
        .reap(device.in_flight(), out)
        .expect("the queue works");
    assert_eq!(device.in_flight(), 0);
}

pub fn one(device: &mut dyn Device, op: Op) -> std::io::Result<()> {
    let mut out = Vec::new();
    submit(device, 1, op, &mut out);
    finish(device, &mut out);
    assert_eq!(out.len(), 1);
    out.remove(0).result
}

pub fn read_op(device: &mut dyn Device, at: u64, len: usize) -> Op {
    let mut buf = device.buffer(len);
    buf.fill(0xEE);
    Op::Read { at, buf }
}

pub fn write_op(device: &mut dyn Device, at: u64, bytes: &[u8]) -> Op {
    let mut buf = device.buffer(bytes.len());
    buf.copy_from_slice(bytes);
    Op::Write { at, buf }
}

/// Reads pieces of `piece` bytes, all submitted at once as far as the queue goes.
pub fn read_all(device: &mut dyn Device, piece: usize, expected: &[u8]) {
    let mut out = Vec::new();
    let mut seen = 0;
    let mut check = |out: &mut Vec<Done>| {
        for done in out.drain(..) {
            let Op::Read { at, buf } = done.op else {
                panic!("a read comes back as a read")
            };
            if let Err(error) = done.result {
                panic!("{} bytes at {at} of {}: {error}", buf.len(), expected.len());
            }
            assert_eq!(at, done.tag);
            let at = at as usize;
            assert!(
                buf[..] == expected[at..at + buf.len()],
                "{} at {at}",
                buf.len()
            );
            seen += buf.len();
        }
    };
    for at in (0..expected.len()).step_by(piece) {
        let op = read_op(device, at as u64, piece.min(expected.len() - at));
        submit(device, at as u64, op, &mut out);
        assert!(device.in_flight() <= device.depth());
        check(&mut out);
    }
    finish(device, &mut out);
    check(&mut out);
    assert_eq!(seen, expected.len());
}

/// What holds for every device that holds `expected`, opened for reading.
pub fn reading(device: &mut dyn Device, expected: &[u8]) {
    let align = device.align();
    assert!(align.is_power_of_two() && align <= 4096);
    assert_eq!(device.size(), expected.len() as u64, "{}", device.engine());
    read_all(device, 16384, expected);
    read_all(device, 1 << 20, expected);
    // Crooked ranges, and the tail.
    let end = expected.len();
    for (at, len) in [
        (0, 0),
        (1, 1),
        (align - 1, 2),
        (5000, 70_000),
        (end - 3, 3),
        (end, 0),
    ] {
        let bytes = read_at(device, at as u64, len).expect("inside");
        assert!(bytes == expected[at..at + len], "{len} at {at}");
    }
    // What breaks a rule.
    let size = end as u64;
    let last = size - size % align as u64;
    for (at, len, kind) in [
        (last, 2 * align, ErrorKind::UnexpectedEof),
        (u64::MAX - 4095, 8192, ErrorKind::UnexpectedEof),
        (1, align, ErrorKind::InvalidInput),
        (0, align + 1, ErrorKind::InvalidInput),
    ] {
        let op = read_op(device, at, len);
        assert_eq!(
            one(device, op).expect_err("refused").kind(),
            kind,
            "{len} at {at}"
        );
    }
    // A flush is alone.
    let op = read_op(device, 0, align);
    device.submit(1, op).expect("room");
    assert!(device.submit(2, Op::Flush).is_err());
    finish(device, &mut Vec::new());
    device.submit(2, Op::Flush).expect("nothing in flight");
    let op = read_op(device, 0, align);
    assert!(device.submit(3, op).is_err());
    let mut out = Vec::new();
    finish(device, &mut out);
    out.remove(0).result.expect("a reader may flush");
    // Not for writing; and a failed write is the end of it.
    let op = write_op(device, 0, &vec![0; align]);
    let refused = one(device, op).expect_err("opened for reading");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let latched = read_at(device, 0, 1).expect_err("latched");
    assert!(latched.to_string().contains("given up"), "{latched}");
}

/// Writes here and there, flushes, and reads it back through a fresh handle of another mode.
pub fn writing(path: &Path, options: &OpenOptions, expected: &mut [u8], seed: u64) {
    let options = OpenOptions {
        write: true,
        ..options.clone()
    };
    let Some(mut device) = try_open(path, &options) else {
        return;
    };
    let align = device.align();
    let mut out = Vec::new();
    let sizes = [align, 4096, 16384, 65536, 1 << 20];
    for (number, len) in sizes.into_iter().cycle().take(40).enumerate() {
        // Ranges of one batch must not overlap: what remains then is not defined.
        let place = (number / 5 + 8 * (number % 5)) * expected.len() / 40;
        let at = place.next_multiple_of(align);
        let len = len.min(expected.len() / 40 / align * align).max(align);
        if at + len > expected.len() {
            continue;
        }
        let bytes = noise(len, seed + number as u64);
        expected[at..at + len].copy_from_slice(&bytes);
        let op = write_op(&mut *device, at as u64, &bytes);
        submit(&mut *device, number as u64, op, &mut out);
    }
    finish(&mut *device, &mut out);
    for done in out {
        done.result.expect("writable");
    }
    one(&mut *device, Op::Flush).expect("flushable");
    let whole = read_at(&mut *device, 0, expected.len()).expect("readable");
    assert!(whole == expected, "read back through {}", device.engine());
    // Behind the end: nothing grows, and the device is latched.
    let tail = expected.len() - expected.len() % align;
    let op = write_op(&mut *device, tail as u64 + align as u64, &vec![1; align]);
    one(&mut *device, op).expect_err("behind the end");
    one(&mut *device, Op::Flush).expect_err("latched");
}

/// All modes over one file or device.
pub fn suite(path: &Path, expected: &mut Vec<u8>, write: bool, offset: u64) {
    for (engine, direct) in MODES {
        let options = OpenOptions {
            offset,
            ..options(engine, direct)
        };
        let before = fs::metadata(path).expect("it exists");
        if let Some(mut device) = try_open(path, &options) {
            reading(&mut *device, expected);
        }
        let after = fs::metadata(path).expect("it exists");
        let times = |m: &fs::Metadata| (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        assert_eq!(times(&before), times(&after), "reading changed the file");
        assert_eq!(
            (before.atime(), before.atime_nsec()),
            (after.atime(), after.atime_nsec())
        );
    }
    if write {
        for (number, (engine, direct)) in MODES.into_iter().enumerate() {
            let options = OpenOptions {
                offset,
                ..options(engine, direct)
            };
            writing(path, &options, expected, 1000 * number as u64 + 7);
            let mut other = open(path, &self::options(Engine::Posix, Direct::Off)).expect("opens");
            let read = read_at(&mut *other, offset, expected.len()).expect("readable");
            assert!(read == *expected, "written through {engine:?}, {direct:?}");
        }
    }
}
