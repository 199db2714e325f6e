//! Streams from golden volumes beside those that DragonFly's kernel made of them.

mod common;

use common::golden;
use mallet::btree::{good_data, lookup};
use mallet::format::mrecord::{Body, Head, padded};
use mallet::format::node::Base;
use mallet::format::record::{PfsData, rt};
use mallet::format::{Key, Localization, ROOT_OBJ, Tid};
use mallet::io::{OpenOptions, open};
use mallet::mirror::read::Output;
use mallet::mirror::wire::{Records, Sink};
use mallet::mirror::{
    Asked, Clock, Counts, Edge, Event, Report, Request, SourcePfs, plan, run, window,
};
use mallet::progress::Progress;
use mallet::store::{View, ViewOptions, VolumeSet};
use std::path::Path;
use std::time::Duration;

/// Time stands still.
struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

fn view(path: &Path) -> View {
    let device = open(path, &OpenOptions::default()).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// PFS `id` as a source that gives everything up to `end`.
fn source(view: &mut View, id: u16, end: Tid) -> SourcePfs {
    let lo = Localization::new(0, Localization::MISC);
    let key = Key::first_version(lo, ROOT_OBJ, rt::PFS, PfsData::record_key(id));
    let leaf = lookup(view, key, Tid::MAX).expect("a readable tree");
    let bytes = good_data(view, &leaf.expect("a PFS")).expect("its record");
    SourcePfs {
        id,
        data: PfsData::from_bytes(&bytes),
        end,
    }
}

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
    }
}

fn edge<T>(progress: &mut dyn Progress, work: impl FnOnce(&mut Edge<'_>) -> T) -> T {
    work(&mut Edge {
        clock: &mut Still,
        progress,
        events: &mut |_: &Event<'_>| {},
    })
}

/// Reads a stream into memory.
fn stream(view: &mut View, request: &Request, progress: &mut dyn Progress) -> (Vec<u8>, Report) {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out, None);
    let report = edge(progress, |edge| run(view, request, &mut sink, edge)).expect("a stream");
    assert_eq!(sink.bytes(), report.counts.stream_bytes);
    (out, report)
}

/// The records of a stream, without padding.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Records::new(bytes);
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("a sound stream") {
        records.push(record.bytes.to_vec());
    }
    records
}

/// Why a record may differ from the original's (decisions.md 1). Pads are not looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mask {
    /// The eight body bytes of SYNC, IDLE and TERM mean nothing.
    Mark,
    /// The original clears a clipped delete_tid only, we the delete_ts too.
    DeleteTs,
    /// Our second PFSD says where the window begins.
    Begin,
    /// The bounds of our SKIPs are the node's own, inside those of its parent.
    Bounds,
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
        (Mask::Mark, Body::Sync | Body::Idle | Body::Term) => bytes[16..24].fill(0),
        // delete_ts is at 44 of the element, the element at 16 of the record.
        (Mask::DeleteTs, Body::Record { leaf, .. }) if leaf.base.delete_tid().is_zero() => {
            bytes[60..64].fill(0);
        }
        // sync_beg_tid is at 8 of the PFS record, that at 24 of the stream's.
        (Mask::Begin, Body::Pfsd(_)) => bytes[32..40].fill(0),
        // mtime and atime are the last 16 bytes of an inode.
        (Mask::Times, Body::Record { leaf, .. }) if leaf.base.rec_type.get() == rt::INODE => {
            let end = bytes.len();
            bytes[end - 16..].fill(0);
        }
        // delete_tid is at 24 of the element, delete_ts at 44.
        (Mask::Later, Body::Pass(_)) => {
            bytes[40..48].fill(0);
            bytes[60..64].fill(0);
        }
        _ => {}
    }
    bytes
}

fn inside(ours: &(Base, Base), theirs: &(Base, Base)) -> bool {
    theirs.0.key() <= ours.0.key() && ours.1.key() <= theirs.1.key()
}

/// Whether `ours` is `theirs` but for masks, and for which.
fn difference(ours: &[u8], theirs: &[u8]) -> Result<Vec<Mask>, ()> {
    if ours == theirs {
        return Ok(Vec::new());
    }
    let bodies = (Body::parse(ours, 0), Body::parse(theirs, 0));
    if let (Ok(Body::Skip { from, to }), Ok(Body::Skip { from: f, to: t })) = bodies {
        return match inside(&(from, to), &(f, t)) {
            true => Ok(vec![Mask::Bounds]),
            false => Err(()),
        };
    }
    let all = [
        Mask::Mark,
        Mask::DeleteTs,
        Mask::Begin,
        Mask::Times,
        Mask::Later,
    ];
    for mask in all {
        if masked(ours, mask) == masked(theirs, mask) {
            return Ok(vec![mask]);
        }
    }
    let both = |record: &[u8]| {
        let mut bytes = masked(record, Mask::DeleteTs);
        let end = bytes.len();
        bytes[end - 16..].copy_from_slice(&masked(record, Mask::Times)[end - 16..]);
        bytes
    };
    match both(ours) == both(theirs) {
        true => Ok(vec![Mask::DeleteTs, Mask::Times]),
        false => Err(()),
    }
}

fn is_pass(record: &[u8]) -> bool {
    matches!(Body::parse(record, 0), Ok(Body::Pass(_)))
}

#[test]
fn streams_are_the_kernels() {
    let Some(dir) = golden::dir() else { return };
    for case in CASES {
        let name = case.stream;
        let mut view = view(&golden::file(&dir, case.image));
        let request = request(&mut view, &case);
        let (bytes, report) = stream(&mut view, &request, &mut ());
        assert!(report.damage.is_empty() && report.stopped.is_none());
        assert_pads_are_zero(&bytes);
        let ours = records(&bytes);
        let theirs = records(&golden::bytes(&dir, name));
        let (mut masks, mut extra) = (Vec::new(), 0);
        let mut rest = theirs.iter().peekable();
        for (index, record) in ours.iter().enumerate() {
            loop {
                let other = rest
                    .next()
                    .unwrap_or_else(|| panic!("{name}: {index} is too much"));
                match difference(record, other) {
                    Ok(found) => {
                        masks.extend(found.into_iter().map(|mask| (index, mask)));
                        break;
                    }
                    // The original's buffer restarted: the first leaf of a SKIP is reported.
                    Err(()) if is_pass(other) && !is_pass(record) => extra += 1,
                    Err(()) => panic!(
                        "{name}: record {index}\n ours {:?}\n theirs {:?}",
                        Body::parse(record, 0),
                        Body::parse(other, 0)
                    ),
                }
            }
        }
        assert!(
            rest.peek().is_none(),
            "{name}: {} are missing",
            rest.count()
        );
        let count = |mask| masks.iter().filter(|(_, m)| *m == mask).count();
        let later = usize::from(name == "mirror/inc-5-10.mir");
        assert_eq!(count(Mask::Later), later, "{name}");
        // Only the second PFSD, and only with a begin above the floor.
        let begins = masks.iter().filter(|(_, m)| *m == Mask::Begin);
        let expected = usize::from(case.begin.is_some());
        assert_eq!(begins.clone().count(), expected, "{name}");
        assert!(begins.clone().all(|(index, _)| *index == 1), "{name}");
        let kinds = [
            Mask::Mark,
            Mask::DeleteTs,
            Mask::Begin,
            Mask::Bounds,
            Mask::Times,
        ];
        let counts: Vec<_> = kinds.map(|mask| (mask, count(mask))).to_vec();
        println!(
            "{name}: {} records, {extra} extra PASS there, {counts:?}",
            ours.len()
        );
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
