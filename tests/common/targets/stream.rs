//! A mirror stream, read record by record.

use mallet::error::Class;
use mallet::format::crc::crc32;
use mallet::format::mrecord::{self, Body, HEAD, Head, RECORD_MAX, padded};
use mallet::mirror::dump::{Dump, Text};
use std::hint::black_box;
use std::io::{self, Read};

/// A stream as it comes, and with every record's sum put right.
pub fn stream(data: &[u8]) {
    walk(data);
    dump(data);
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    walk(&repaired);
    dump(&repaired);
}

/// A source that gives its bytes in crooked portions.
struct Portions<'a>(&'a [u8]);

impl Read for Portions<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let portion = 1 + self.0.len() % 4099;
        let n = portion.min(out.len()).min(self.0.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// Reads the stream as `mirror-dump` does: grammar and order too.
fn dump(stream: &[u8]) {
    let mut dump = Dump::new(Portions(stream));
    let mut end = 0;
    let result = loop {
        match dump.next() {
            Ok(Some(record)) => {
                assert_eq!(record.at, end);
                end += padded(record.bytes.len()) as u64;
                black_box(Text(&record.body).to_string());
            }
            other => break other.map(|_| ()),
        }
    };
    assert!(end <= stream.len() as u64);
    if let Err(error) = result {
        assert_eq!(error.class(), Class::Protocol, "{error}");
    }
}

fn walk(stream: &[u8]) {
    let mut at = 0;
    while let Some(head) = stream.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) {
        let Ok(head) = Head::parse(head, at as u64) else {
            return;
        };
        assert!((HEAD..=RECORD_MAX).contains(&head.size()));
        let Some(record) = stream.get(at..at + head.size()) else {
            return;
        };
        let Ok(body) = Body::parse(record, at as u64) else {
            return;
        };
        check_body(&body, record);
        at += padded(head.size());
    }
}

fn check_body(body: &Body<'_>, record: &[u8]) {
    let mut again = Vec::new();
    match body {
        Body::Record {
            leaf, data, nodata, ..
        } => {
            assert!(mrecord::ELEMENT + data.len() <= record.len());
            assert!(data.is_empty() || !nodata);
            black_box(leaf.base.key().to_string());
            // A record may carry more than its data; without that it is what we would write.
            if mrecord::ELEMENT + data.len() == record.len() {
                let kind = u32::from_le_bytes([record[12], record[13], record[14], record[15]]);
                mrecord::append_record(&mut again, leaf, data, kind & !0xFF);
            }
        }
        Body::Pass(leaf) => mrecord::append_pass(&mut again, leaf),
        Body::Skip { from, to } => mrecord::append_skip(&mut again, from, to),
        Body::Update(tid) => mrecord::append_update(&mut again, *tid),
        Body::Pfsd(body) if body.version.get() == 1 => {
            mrecord::append_pfsd(&mut again, &body.pfs, body.reserved.get());
        }
        Body::Source(leaf) => mrecord::append_source(&mut again, *leaf),
        Body::Cursor { key, end } => mrecord::append_cursor(&mut again, key, *end),
        _ => {}
    }
    if !again.is_empty() {
        assert_eq!(
            again[..record.len()],
            *record,
            "written again, a record is the same"
        );
    }
}

fn repair(stream: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = stream
        .get_mut(at..)
        .and_then(|b| b.first_chunk_mut::<HEAD>())
    {
        head[..4].copy_from_slice(&mrecord::SIGNATURE.to_le_bytes());
        let size = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let end = at.saturating_add(size);
        if !(HEAD..=RECORD_MAX).contains(&size) || end > stream.len() {
            return;
        }
        let sum = crc32(&stream[at + 8..end]);
        stream[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
        at += padded(size);
    }
}
