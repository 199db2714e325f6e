//! Streams from golden volumes beside those that DragonFly's kernel made of them.

mod common;

use common::golden;
use common::streams::{edge, records, source, stream, view};
use mallet::btree::{Scan, Step};
use mallet::format::mrecord::{Body, Head, padded};
use mallet::format::node::Base;
use mallet::format::record::rt;
use mallet::format::{Key, Tid};
use mallet::mirror::{Asked, Counts, Request, plan, window};
use mallet::store::View;

/// What to read: a golden stream's window.
#[derive(Clone, Copy)]
struct Case {
    image: &'static str,
    stream: &'static str,
    begin: Option<u64>,
    end: u64,
    split: Option<u64>,
}

const fn case(image: &'static str, stream: &'static str, begin: Option<u64>, end: u64) -> Case {
    Case {
        image,
        stream,
        begin,
        end,
        split: None,
    }
}

const CASES: [Case; 8] = [
    Case {
        split: Some(4 << 30),
        ..case(
            "mirror/master-5.img",
            "mirror/full-5.mir",
            None,
            0x1_0002_8320,
        )
    },
    case(
        "mirror/master-20.img",
        "mirror/fullB-20.mir",
        None,
        0x1_000a_0cd0,
    ),
    case(
        "mirror/master-10.img",
        "mirror/inc-5-10.mir",
        Some(0x1_0002_8321),
        0x1_0005_8630,
    ),
    case(
        "mirror/master-20.img",
        "mirror/inc-10-20.mir",
        Some(0x1_0005_8631),
        0x1_000a_0cd0,
    ),
    case("skips/m.img", "skips/full.mir", None, 0x1_000b_02d0),
    case(
        "skips/m.img",
        "skips/inc1.mir",
        Some(0x1_000b_02d1),
        0x1_000b_0340,
    ),
    case(
        "skips/m.img",
        "skips/inc12.mir",
        Some(0x1_000b_02d1),
        0x1_000b_83a0,
    ),
    case(
        "skips/m.img",
        "skips/none.mir",
        Some(0x1_000b_83a1),
        0x1_000b_83a0,
    ),
];

/// Made before the image's last changes: leaves that these skip were touched since.
const EARLIER: [&str; 2] = ["skips/inc1.mir", "skips/inc12.mir"];

fn request(view: &mut View, case: &Case) -> Request {
    // The end that the kernel had when it made the stream: the image can have a later one.
    let pfs = source(view, 1, Tid(case.end));
    let asked = Asked {
        begin: case.begin.map(Tid),
        end: Some(Tid(case.end)),
    };
    Request {
        pfs,
        window: window::one_way(&pfs, asked, None).expect("a window"),
        split: case.split,
        accept_damage: false,
        live: false,
    }
}

/// Why a record may differ from the original's: those of decisions.md 1 that are needed here. The
/// marks' eight bytes, the delete_ts of clipped deletions, the PASS where a buffer restarted and the
/// SKIP bounds could differ too, and do not in these streams. Pads are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// Our second PFSD says where the window begins.
    Begin,
    /// mtime and atime change in place.
    Times,
    /// A PASS carries deletions from behind the window: this one was made after the stream.
    Later,
}

/// Zeroes what a mask covers in a record. The CRC goes with it.
fn masked(record: &[u8], mask: Mask) -> Vec<u8> {
    let mut bytes = record.to_vec();
    bytes[4..8].fill(0);
    let body = Body::parse(record, 0).expect("a sound record");
    match (mask, body) {
        // sync_beg_tid is at 8 of the PFS record, that at 24 of the stream's.
        (Mask::Begin, Body::Pfsd(_)) => bytes[32..40].fill(0),
        // mtime and atime are the last 16 bytes of an inode.
        (Mask::Times, Body::Record { leaf, .. }) if leaf.base.rec_type.get() == rt::INODE => {
            let end = bytes.len();
            bytes[end - 16..].fill(0);
        }
        // delete_tid is at 24 of the element, delete_ts at 44, the element at 16.
        (Mask::Later, Body::Pass(_)) => {
            bytes[40..48].fill(0);
            bytes[60..64].fill(0);
        }
        _ => {}
    }
    bytes
}

/// Whether `ours` is `theirs`, and under which mask if it is not so byte for byte.
fn compare(ours: &[u8], theirs: &[u8]) -> Result<Option<Mask>, ()> {
    if ours == theirs {
        return Ok(None);
    }
    let all = [Mask::Begin, Mask::Times, Mask::Later];
    let mask = all
        .into_iter()
        .find(|mask| masked(ours, *mask) == masked(theirs, *mask));
    mask.map(Some).ok_or(())
}

#[test]
fn streams_are_the_kernels() {
    let Some(dir) = golden::dir() else { return };
    for case in CASES.iter().filter(|c| !EARLIER.contains(&c.stream)) {
        let name = case.stream;
        let mut view = view(&golden::file(&dir, case.image));
        let request = request(&mut view, case);
        let (bytes, report) = stream(&mut view, &request, &mut ());
        assert!(report.damage.is_empty() && report.stopped.is_none());
        assert_pads_are_zero(&bytes);
        let (ours, theirs) = (records(&bytes), records(&golden::bytes(&dir, name)));
        let mut masks = Vec::new();
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            match compare(ours, theirs) {
                Ok(mask) => masks.extend(mask.map(|mask| (index, mask))),
                Err(()) => panic!(
                    "{name}: record {index}\n ours {:?}\n theirs {:?}",
                    Body::parse(ours, 0),
                    Body::parse(theirs, 0)
                ),
            }
        }
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let of = |mask| masks.iter().filter(move |(_, m)| *m == mask);
        // One PASS of one stream, as the golden README says.
        let later = usize::from(name == "mirror/inc-5-10.mir");
        assert_eq!(of(Mask::Later).count(), later, "{name}");
        // Only the second PFSD, and only with a begin above the floor.
        let begins: Vec<usize> = of(Mask::Begin).map(|(index, _)| *index).collect();
        assert_eq!(begins, case.begin.map_or(vec![], |_| vec![1]), "{name}");
        let times = of(Mask::Times).count();
        println!("{name}: {} records, times masked in {times}", ours.len());
    }
}

fn inside(ours: &(Base, Base), theirs: &(Base, Base)) -> bool {
    theirs.0.key() <= ours.0.key() && ours.1.key() <= theirs.1.key()
}

/// A stream from a later state of the volume is the same but for leaves touched since: what was
/// skipped of them is PASSed.
#[test]
fn later_volumes_give_the_same_records() {
    let Some(dir) = golden::dir() else { return };
    for case in CASES.iter().filter(|c| EARLIER.contains(&c.stream)) {
        let mut view = view(&golden::file(&dir, case.image));
        let request = request(&mut view, case);
        let ours = records(&stream(&mut view, &request, &mut ()).0);
        let theirs = records(&golden::bytes(&dir, case.stream));
        let touched = touched_after(&mut view, Tid(case.end));
        let skips: Vec<(Base, Base)> = theirs.iter().filter_map(|r| skip(r)).collect();
        let skipped = |key| skips.iter().any(|(f, t)| (f.key()..t.key()).contains(&key));
        let (mut extra, mut skipped_by_us) = (0, 0);
        let mut others = theirs.iter().filter(|r| skip(r).is_none());
        for record in &ours {
            match Body::parse(record, 0) {
                Ok(Body::Skip { from, to }) => {
                    assert!(skips.iter().any(|theirs| inside(&(from, to), theirs)));
                    skipped_by_us += 1;
                }
                Ok(Body::Pass(leaf)) if skipped(leaf.base.key()) => {
                    let leaf = leaf.base.key();
                    assert!(
                        touched.iter().any(|(f, t)| (*f..=*t).contains(&leaf)),
                        "{leaf}"
                    );
                    extra += 1;
                }
                body => {
                    let other = others.next().expect("no more than the original has");
                    assert!(compare(record, other).is_ok(), "{}: {body:?}", case.stream);
                }
            }
        }
        assert_eq!(others.next(), None, "{}", case.stream);
        assert!(skipped_by_us > 0);
        println!("{}: {extra} PASS in leaves touched later", case.stream);
    }
}

/// First and last key of the leaves touched after `end`.
fn touched_after(view: &mut View, end: Tid) -> Vec<(Key, Key)> {
    let mut scan = Scan::new(Key::pfs_min(1), Key::pfs_max(1), end.next());
    let mut touched = Vec::new();
    while let Some(step) = scan.next(view).expect("a readable tree") {
        if let Step::Leaf(leaf) = step
            && leaf.node.mirror_tid() > end
            && let [first, .., last] = leaf.elements()
        {
            touched.push((first.base.key(), last.base.key()));
        }
    }
    touched
}

fn skip(record: &[u8]) -> Option<(Base, Base)> {
    match Body::parse(record, 0) {
        Ok(Body::Skip { from, to }) => Some((from, to)),
        _ => None,
    }
}

/// Every pad byte of ours is zero.
fn assert_pads_are_zero(stream: &[u8]) {
    let mut at = 0;
    while at < stream.len() {
        let head = stream[at..].first_chunk().expect("a head");
        let size = Head::parse(head, at as u64).expect("a sound head").size();
        let pad = &stream[at + size..at + padded(size)];
        assert!(pad.iter().all(|b| *b == 0), "pad at {}", at + size);
        at += padded(size);
    }
}

/// The plan of a stream is what the stream then holds, whole or split.
#[test]
fn plans_are_kept() {
    let Some(dir) = golden::dir() else { return };
    for case in CASES {
        let mut view = view(&golden::file(&dir, case.image));
        for split in [None, Some(1), Some(100_000), Some(4 << 20)] {
            let request = Request {
                split,
                ..request(&mut view, &case)
            };
            let planned = edge(&mut (), |edge| plan(&mut view, &request, edge)).expect("a plan");
            let (bytes, report) = stream(&mut view, &request, &mut ());
            assert_eq!(planned.counts, report.counts, "{}", case.stream);
            assert_eq!(planned.batches, report.batches, "{}", case.stream);
            let counted = count(&bytes, &request);
            assert_eq!(planned.counts, counted, "{}", case.stream);
        }
    }
}

/// What a stream holds, counted from its bytes.
fn count(stream: &[u8], request: &Request) -> Counts {
    let mut counts = Counts {
        stream_bytes: stream.len() as u64,
        ..Counts::default()
    };
    let mut begin = request.window.begin;
    for record in records(stream) {
        match Body::parse(&record, 0).expect("a sound record") {
            Body::Record { leaf, data, .. } => {
                counts.rec += 1;
                counts.payload_bytes += data.len() as u64;
                counts.deletes += u64::from(!leaf.base.delete_tid().is_zero());
            }
            Body::Pass(leaf) => {
                counts.pass += 1;
                counts.deletes += u64::from(leaf.base.delete_tid() >= begin);
            }
            Body::Skip { .. } => counts.skip += 1,
            // The last one before a record is the second of the batch.
            Body::Pfsd(pfsd) => begin = Tid(pfsd.pfs.sync_beg_tid.get()),
            _ => {}
        }
    }
    counts.records = counts.rec + counts.pass + counts.skip;
    counts
}
