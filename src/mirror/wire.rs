//! A stream's bytes: records read from a pipe or file, records written to one.
//!
//! Reading is strict and never searches for the next signature: a stream with one wrong byte is
//! wrong. Every error names the byte offset in the stream. Writing copies a payload at most once
//! before the kernel takes it.

use super::throttle::{Clock, Throttle};
use crate::error::{Class, Error, Result};
use crate::format::mrecord::{self, Body, HEAD, Head, RECORD_MAX, padded};
use crate::io::Bytes;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Bytes asked of the source at a time.
const READ: usize = 256 << 10;

/// An error of class `Protocol` about the stream's byte `at`.
pub fn broken(at: u64, text: impl std::fmt::Display) -> Error {
    Error::new(
        Class::Protocol,
        format!("the stream is broken at byte {at}: {text}"),
    )
}

/// The error about an end that has not been heard for so long that it counts as gone: what a reader
/// or writer of the link says with [`ErrorKind::TimedOut`].
pub fn silent() -> Error {
    Error::new(
        Class::Protocol,
        "nothing is heard of the other end any more; nothing that was acknowledged is lost, start \
         again",
    )
}

/// A record as it came.
pub struct Record<'a> {
    /// Byte offset in the stream.
    pub at: u64,
    /// The whole record, without its padding.
    pub bytes: &'a [u8],
    /// What it says.
    pub body: Body<'a>,
}

/// Reads a stream record by record, in bounded memory.
pub struct Records<R> {
    from: R,
    buf: Vec<u8>,
    /// Bytes of `buf` that hold the stream from `at` on.
    held: Range<usize>,
    at: u64,
    /// Size of the record given last, padding included: used up by the next call.
    given: usize,
}

impl<R: Read> Records<R> {
    /// Reads records from `from`, which needs no buffer of its own.
    pub fn new(from: R) -> Records<R> {
        Records {
            from,
            buf: vec![0; READ + padded(RECORD_MAX)],
            held: 0..0,
            at: 0,
            given: 0,
        }
    }

    /// Byte offset of the record that the next call reads.
    pub fn offset(&self) -> u64 {
        self.at + self.given as u64
    }

    /// The next record; `None` where the bytes end between two records. Errors are of class
    /// `Protocol` (the bytes are no record, or end within one) or `Io`.
    #[allow(clippy::should_implement_trait)] // what is given borrows from the reader
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        self.held.start += self.given;
        self.at += self.given as u64;
        self.given = 0;
        let have = self.fill(HEAD)?;
        if have == 0 {
            return Ok(None);
        }
        let wrong = |at, fault: crate::format::Fault| {
            broken(
                at,
                format!("expected {}, found {}", fault.expected, fault.found),
            )
        };
        let Some(head) = self.buf[self.held.clone()].first_chunk::<HEAD>() else {
            return Err(self.truncated("a record's head", have));
        };
        let size = Head::parse(head, self.at)
            .map_err(|f| wrong(self.at, f))?
            .size();
        let have = self.fill(padded(size))?;
        if have < padded(size) {
            return Err(self.truncated(&format!("a record of {size} bytes"), have));
        }
        self.given = padded(size);
        let bytes = &self.buf[self.held.start..self.held.start + size];
        let body = Body::parse(bytes, self.at).map_err(|f| wrong(self.at, f))?;
        Ok(Some(Record {
            at: self.at,
            bytes,
            body,
        }))
    }

    fn truncated(&self, what: &str, have: usize) -> Error {
        broken(
            self.at,
            format!("it ends within {what}, after {have} of its bytes; it was cut off"),
        )
    }

    /// Sees to it that `need` bytes are held unless the source ends before; says how many are, at
    /// most `need`.
    fn fill(&mut self, need: usize) -> Result<usize> {
        while self.held.len() < need {
            if self.held.start + need > self.buf.len() {
                self.buf.copy_within(self.held.clone(), 0);
                self.held = 0..self.held.len();
            }
            match self.from.read(&mut self.buf[self.held.end..]) {
                Ok(0) => break,
                Ok(n) => self.held.end += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::TimedOut => return Err(silent()),
                Err(e) => return Err(Error::io("reading the stream", e)),
            }
        }
        Ok(self.held.len().min(need))
    }
}

/// Payloads up to this length are copied behind their record's head: cheaper than a piece more.
const COPIED: usize = 1024;
/// Bytes gathered before they are handed over.
const GATHERED: usize = 1 << 20;
/// Pieces handed over at a time; the kernel's own limit is 1024.
const PIECES: usize = 512;

enum Piece {
    /// A range of `own`.
    Own(Range<usize>),
    Payload(Bytes),
}

impl Piece {
    fn bytes<'a>(&'a self, own: &'a [u8]) -> &'a [u8] {
        match self {
            Piece::Own(range) => &own[range.clone()],
            Piece::Payload(bytes) => bytes,
        }
    }
}

/// Writes records, gathered into large vectored writes, under a bandwidth ceiling.
pub struct Sink<W> {
    out: W,
    throttle: Option<Throttle>,
    own: Vec<u8>,
    pieces: Vec<Piece>,
    queued: usize,
    gathered: usize,
    written: u64,
    tells_damage: bool,
}

impl<W: Write> Sink<W> {
    /// Writes to `out`, at most `rate` bytes a second.
    pub fn new(out: W, rate: Option<u64>) -> Sink<W> {
        let throttle = rate.map(Throttle::new);
        // Under a ceiling little is gathered, so that a stop is soon obeyed.
        let gathered = throttle
            .as_ref()
            .map_or(GATHERED, |t| GATHERED.min(t.portion()));
        Sink {
            out,
            throttle,
            own: Vec::new(),
            pieces: Vec::new(),
            queued: 0,
            gathered,
            written: 0,
            tells_damage: false,
        }
    }

    /// Whether a range that cannot be read is said to be one, or is nothing but skipped.
    pub fn tell_damage(&mut self, tells: bool) {
        self.tells_damage = tells;
    }

    /// See [`Sink::tell_damage`].
    pub fn tells_damage(&self) -> bool {
        self.tells_damage
    }

    /// Bytes that the other side has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Queues a record of `kind` (with flags) made of `body` and `payload`. The sum of their
    /// lengths is at most [`RECORD_MAX`].
    pub fn record(&mut self, kind: u32, body: &[u8], payload: Option<&Bytes>) {
        let data: &[u8] = payload.map_or(&[], |p| p);
        let head = mrecord::head(kind, &[body, data]);
        self.copy(head.as_bytes());
        self.copy(body);
        match payload {
            Some(payload) if payload.len() > COPIED => {
                self.pieces.push(Piece::Payload(payload.clone()));
                self.queued += payload.len();
            }
            _ => self.copy(data),
        }
        self.copy(&[0; 8][..padded(head.size()) - head.size()]);
    }

    /// Queues a session record.
    pub fn mark(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        append(&mut bytes);
        self.copy(&bytes);
    }

    fn copy(&mut self, bytes: &[u8]) {
        let start = self.own.len();
        self.own.extend_from_slice(bytes);
        self.queued += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Own(range)) => range.end = self.own.len(),
            _ => self.pieces.push(Piece::Own(start..self.own.len())),
        }
    }

    /// Whether enough is queued to be worth a [`Sink::flush`].
    pub fn is_full(&self) -> bool {
        self.queued >= self.gathered || self.pieces.len() >= PIECES
    }

    /// Hands everything queued to the other side, as slowly as the ceiling demands. A reader that
    /// is gone is an error of class `Protocol`.
    pub fn flush(&mut self, clock: &mut dyn Clock) -> Result<()> {
        let mut done = 0;
        while done < self.queued {
            let portion = match &mut self.throttle {
                Some(throttle) => {
                    let wait = throttle.wait(clock.now());
                    if !wait.is_zero() {
                        clock.sleep(wait);
                    }
                    throttle.portion()
                }
                None => usize::MAX,
            };
            let n = self.write_some(done, portion, clock)?;
            if let Some(throttle) = &mut self.throttle {
                throttle.spent(n);
            }
            done += n;
            self.written += n as u64;
        }
        self.own.clear();
        self.pieces.clear();
        self.queued = 0;
        self.out.flush().map_err(write_error)
    }

    /// Writes up to `most` of the queued bytes from the one at `from` on; says how many.
    fn write_some(&mut self, from: usize, most: usize, clock: &mut dyn Clock) -> Result<usize> {
        let mut slices = Vec::with_capacity(self.pieces.len());
        let (mut skip, mut left) = (from, most);
        for piece in &self.pieces {
            let bytes = piece.bytes(&self.own);
            let bytes = &bytes[skip.min(bytes.len())..];
            skip = skip.saturating_sub(piece.bytes(&self.own).len());
            let bytes = &bytes[..left.min(bytes.len())];
            left -= bytes.len();
            if !bytes.is_empty() {
                slices.push(IoSlice::new(bytes));
            }
            if left == 0 {
                break;
            }
        }
        loop {
            match self.out.write_vectored(&slices) {
                Ok(0) => return Err(write_error(ErrorKind::WriteZero.into())),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Whoever shares the pipe may have made it non-blocking.
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    clock.sleep(Duration::from_millis(2));
                }
                Err(e) => return Err(write_error(e)),
            }
        }
    }
}

fn write_error(error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::BrokenPipe => Error::new(
            Class::Protocol,
            "the stream's reader is gone; nothing it has not acknowledged is lost, start again",
        ),
        ErrorKind::TimedOut => silent(),
        _ => Error::io("writing the stream", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::mrecord::{Kind, SIGNATURE_REVERSED};
    use crate::format::node::{Base, LeafElement};
    use crate::format::{Key, record::PfsData};
    use crate::io::Buf;
    use crate::mirror::throttle::tests::Virtual;
    use proptest::prelude::*;
    use std::sync::Arc;
    use zerocopy::FromZeros;

    fn bytes(data: &[u8]) -> Bytes {
        let mut buf = Buf::zeroed(data.len());
        buf.copy_from_slice(data);
        Bytes::new(Arc::new(buf))
    }

    fn leaf(len: usize) -> LeafElement {
        let mut leaf = LeafElement::new_zeroed();
        leaf.data_len.set(len as i32);
        leaf.data_offset.set(0xa000_0000_0000_0000);
        leaf
    }

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        mrecord::append_pfsd(&mut out, &PfsData::default_for([7; 16]), 0);
        mrecord::append_record(&mut out, &leaf(5), b"hello", 0);
        mrecord::append_pass(&mut out, &leaf(3));
        let min = Base::from_key(Key::MIN);
        mrecord::append_skip(&mut out, &min, &Base::from_key(Key::MAX));
        mrecord::append_mark(&mut out, Kind::Sync);
        mrecord::append_mark(&mut out, Kind::Term);
        out
    }

    fn all(stream: &[u8]) -> Result<Vec<(u64, usize)>> {
        let mut records = Records::new(stream);
        let mut found = Vec::new();
        while let Some(record) = records.next()? {
            found.push((record.at, record.bytes.len()));
        }
        Ok(found)
    }

    #[test]
    fn records_come_with_their_offsets() {
        let found = all(&sample()).unwrap();
        assert_eq!(
            found,
            [
                (0, 316),
                (320, 85),
                (408, 80),
                (488, 96),
                (584, 24),
                (608, 24)
            ]
        );
    }

    #[test]
    fn every_cut_is_noticed() {
        let stream = sample();
        let whole: Vec<u64> = all(&stream).unwrap().iter().map(|r| r.0).collect();
        for cut in 0..stream.len() {
            let result = all(&stream[..cut]);
            match result {
                Ok(_) => assert!(whole.contains(&(cut as u64)), "cut at {cut}"),
                Err(e) => {
                    assert_eq!(e.class(), Class::Protocol);
                    let last = whole.iter().rfind(|at| **at < cut as u64).unwrap();
                    assert!(e.to_string().contains(&format!("at byte {last}:")), "{e}");
                }
            }
        }
    }

    #[test]
    fn heads_that_lie_are_refused() {
        let cases: [(usize, u32, &str); 5] = [
            (0, SIGNATURE_REVERSED, "other byte order"),
            (0, 0, "signature"),
            (8, 15, "16 to"),
            (8, RECORD_MAX as u32 + 1, "16 to"),
            (12, 99, "CRC"),
        ];
        for (at, value, text) in cases {
            let mut stream = sample();
            stream[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let error = all(&stream).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let mut unknown = Vec::new();
        mrecord::append(&mut unknown, 0x42, &[&[0; 8]]);
        let error = all(&unknown).unwrap_err().to_string();
        assert!(error.contains("known record type"), "{error}");
    }

    /// Takes a few bytes at a time and says so.
    struct Dribble<'a>(&'a mut Vec<u8>, usize);

    impl Write for Dribble<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1 = self.1 * 5 % 31 + 1;
            let n = buf.len().min(self.1);
            self.0.extend_from_slice(&buf[..n]);
            Ok(n)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        /// However the other side takes the bytes, they are those that `append_record` makes.
        #[test]
        fn written_as_appended(
            lens in prop::collection::vec(0usize..5000, 0..20),
            rate in prop::option::of(1000u64..1_000_000),
        ) {
            let (mut expected, mut out) = (Vec::new(), Vec::new());
            let mut clock = Virtual::new();
            let mut sink = Sink::new(Dribble(&mut out, 1), rate);
            for len in lens {
                let data: Vec<u8> = (0..len).map(|i| i as u8).collect();
                mrecord::append_record(&mut expected, &leaf(len), &data, 0);
                sink.record(1, leaf(len).as_bytes(), Some(&bytes(&data)));
                if sink.is_full() {
                    sink.flush(&mut clock).unwrap();
                }
            }
            mrecord::append_mark(&mut expected, Kind::Term);
            sink.mark(|out| mrecord::append_mark(out, Kind::Term));
            sink.flush(&mut clock).unwrap();
            let written = sink.written();
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(written, out.len() as u64);
        }

        #[test]
        fn garbage_ends_in_an_error(mut stream in prop::collection::vec(any::<u8>(), 1..400)) {
            prop_assert!(all(&stream).is_err());
            let mut good = sample();
            good.append(&mut stream);
            prop_assert!(all(&good).is_err());
        }
    }

    #[test]
    fn a_reader_that_is_gone_breaks_the_protocol() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Sink::new(Gone, None);
        sink.mark(|out| mrecord::append_mark(out, Kind::Term));
        let error = sink.flush(&mut Virtual::new()).unwrap_err();
        assert_eq!(error.class(), Class::Protocol);
    }
}
