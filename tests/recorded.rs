//! Two-way sessions whose other end is played from what DragonFly's own code recorded: its streams for
//! the target, the record of its slave for the source.

mod common;

use common::golden;
use common::slave::{
    NOW, SLAVE, assert_sound, fresh, master_of, plain, store, synced, view, visible,
};
use common::streams::{self, Still, records, stream};
use mallet::error::{Class, Result};
use mallet::format::Tid;
use mallet::format::mrecord::{self, Body, Capabilities, HEAD, Kind};
use mallet::format::record::PfsData;
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::mirror::wire::{Records, Sink};
use mallet::mirror::{Asked, SourcePfs, read, window, write};
use std::path::Path;

const END_5: Tid = Tid(0x1_0002_8320);
const END_10: Tid = Tid(0x1_0005_8630);
const END_20: Tid = Tid(0x1_000a_0cd0);

/// What is said in `bytes`, in words.
fn words(bytes: &[u8]) -> String {
    let word = |record: &Vec<u8>| match Body::parse(record, 0).expect("a sound record") {
        Body::Pfsd(pfsd) => format!("pfsd {:x}", pfsd.pfs.sync_end_tid.get()),
        Body::Update(tid) => format!("update {tid:x}"),
        other => format!("{other:?}")
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    records(bytes)
        .iter()
        .map(word)
        .collect::<Vec<_>>()
        .join(", ")
}

/// All that the PFSDs in `bytes` announce.
fn reserved(mut bytes: &[u8]) -> u32 {
    let (mut records, mut all) = (Records::new(&mut bytes), 0);
    while let Ok(Some(record)) = records.next() {
        if let Body::Pfsd(pfsd) = record.body {
            all |= pfsd.reserved.get();
        }
    }
    all
}

/// A target that can do more than the original.
fn announcing() -> write::Request {
    write::Request {
        announces: Capabilities::ALL,
        ..plain()
    }
}

/// Applies a stream two-way; what the target said, and how it ended.
fn answered(disk: &SimDisk, from: &[u8]) -> (String, Result<()>) {
    let (mut said, mut report, request) = (Vec::new(), write::Report::default(), announcing());
    let mut edge = write::Edge {
        now: &mut || NOW,
        progress: &mut (),
        events: &mut |_| Ok(()),
        make: &mut |_, _| panic!("the slave is there"),
    };
    let mut store = store(disk);
    let answers: Option<&mut dyn std::io::Write> = Some(&mut said);
    let ended = write::write(&mut store, from, answers, &request, &mut edge, &mut report);
    disk.forget_log();
    // The original says nothing there, and is told nothing.
    assert_eq!((reserved(from), reserved(&said)), (0, 0));
    (words(&said), ended)
}

/// The original's source at the other end: the target says its record and what it acknowledges, and
/// nothing that the original would not understand.
#[test]
fn the_originals_source() {
    let Some(dir) = golden::dir() else { return };
    let streams = [
        ("mirror/full-5.mir", END_5, "mirror/master-5.img"),
        ("mirror/inc-5-10.mir", END_10, "mirror/master-10.img"),
        ("mirror/inc-10-20.mir", END_20, "mirror/master-20.img"),
    ];
    let disk = fresh(7, master_of(&golden::bytes(&dir, streams[0].0)));
    let mut had = Tid(1);
    for (name, end, master) in streams {
        let bytes = golden::bytes(&dir, name);
        // The link breaks: the slave stays as of what it had.
        for cut in [bytes.len() / 3, bytes.len() - 40, bytes.len() - 48] {
            let (said, ended) = answered(&disk, &bytes[..cut]);
            let error = ended.expect_err("a stream that is cut off");
            assert_eq!(
                (error.class(), synced(&disk)),
                (Class::Protocol, had),
                "{name}"
            );
            assert_eq!(said, format!("pfsd {:x}", had.0), "{name}");
        }
        let (said, ended) = answered(&disk, &bytes);
        ended.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            said,
            format!("pfsd {:x}, update {:x}", had.0, end.0),
            "{name}"
        );
        let mut master = streams::view(&golden::file(&dir, master));
        let (shown, expected) = (
            visible(&mut view(&disk), SLAVE, end),
            visible(&mut master, 1, end),
        );
        assert!(shown == expected, "{name}");
        had = end;
    }
    assert_sound(&disk);
}

/// Without work the original says IDLE, and is told what the slave has.
#[test]
fn the_originals_idle_source() {
    let Some(dir) = golden::dir() else { return };
    let full = golden::bytes(&dir, "skips/full.mir");
    let idle = golden::bytes(&dir, "skips/none.mir");
    let disk = fresh(7, master_of(&full));
    let (said, ended) = answered(&disk, &idle);
    ended.expect("a session");
    assert_eq!(said, "pfsd 1, update 1");
    assert!(answered(&disk, &full).1.is_ok());
    let has = synced(&disk).0;
    let (said, ended) = answered(&disk, &idle);
    ended.expect("a session");
    assert_eq!(said, format!("pfsd {has:x}, update {has:x}"));
}

/// The record of the slave that the original's `mirror-write` filled, as of `tid`.
fn slave_record(dir: &Path, tid: Tid) -> PfsData {
    let mut volume = streams::view(&golden::file(dir, "mirror/slaveA.img"));
    let slave = pfs::load(&mut volume, 1)
        .expect("a table")
        .expect("the slave");
    assert!(slave.is_slave() && slave.sync_end == END_20);
    let mut data = slave.data;
    data.sync_end_tid.set(tid.0);
    data
}

/// A source's session with a target that says `answers`.
fn conversed(dir: &Path, answers: &[u8]) -> (Vec<u8>, Result<()>, read::Report) {
    let mut volume = streams::view(&golden::file(dir, "mirror/master-20.img"));
    let source: SourcePfs = streams::source(&mut volume, 1, END_20);
    let request = read::Request {
        pfs: source,
        window: window::one_way(&source, Asked::default(), None).expect("a window"),
        split: None,
        accept_damage: false,
        live: false,
    };
    let (mut out, mut report) = (Vec::new(), read::Report::default());
    let mut sink = Sink::new(&mut out, None);
    let mut edge = read::Edge {
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_| {},
    };
    let mut answers = Records::new(answers);
    let ended = read::converse(
        &mut volume,
        &request,
        Capabilities::ALL,
        &mut sink,
        &mut answers,
        &mut edge,
        &mut report,
    );
    (out, ended, report)
}

/// The same stream one-way, from `begin` on: `tests/streams.rs` has compared it with the original's.
fn one_way(dir: &Path, begin: Tid) -> Vec<u8> {
    let mut volume = streams::view(&golden::file(dir, "mirror/master-20.img"));
    let source = streams::source(&mut volume, 1, END_20);
    let asked = Asked {
        begin: Some(begin),
        end: None,
    };
    let request = read::Request {
        pfs: source,
        window: window::one_way(&source, asked, None).expect("a window"),
        split: None,
        accept_damage: false,
        live: false,
    };
    stream(&mut volume, &request, &mut ()).0
}

/// What PFSD says in its reserved field, which the original leaves alone, put aside.
fn plain_pfsd(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut all = records(stream);
    for record in &mut all {
        if record[12] == Kind::Pfsd as u8 {
            record[4..8].fill(0);
            record[HEAD + 4..HEAD + 8].fill(0);
        }
    }
    all
}

/// The original's target at the other end: it gets from its TID on what a stream that begins there
/// holds, and is believed what it acknowledges.
#[test]
fn the_originals_target() {
    let Some(dir) = golden::dir() else { return };
    for had in [Tid(1), END_5, END_10] {
        let mut answers = Vec::new();
        mrecord::append_pfsd(&mut answers, &slave_record(&dir, had), 0);
        mrecord::append_update(&mut answers, END_20.0);
        let (out, ended, report) = conversed(&dir, &answers);
        ended.expect("a session");
        assert_eq!(report.target, (Some(had), Some(END_20)));
        assert!(
            plain_pfsd(&out) == plain_pfsd(&one_way(&dir, had.next())),
            "as of {had}"
        );
    }
    // It has everything; to IDLE it says what it heard last, or nothing sensible.
    for told in [END_20.0, 0, 7] {
        let mut answers = Vec::new();
        mrecord::append_pfsd(&mut answers, &slave_record(&dir, END_20), 0);
        mrecord::append_update(&mut answers, told);
        let (out, ended, report) = conversed(&dir, &answers);
        ended.expect("a session");
        assert_eq!(report.target, (Some(END_20), None));
        assert!(words(&out).ends_with("Idle, Term"), "{}", words(&out));
    }
}

/// What a target may not say.
#[test]
fn targets_that_say_something_else() {
    let Some(dir) = golden::dir() else { return };
    let slave = slave_record(&dir, END_10);
    let pfsd = |pfs: &PfsData| {
        let mut bytes = Vec::new();
        mrecord::append_pfsd(&mut bytes, pfs, 0);
        bytes
    };
    let update = |tid: Tid| {
        let mut bytes = Vec::new();
        mrecord::append_update(&mut bytes, tid.0);
        bytes
    };
    let (mut master, mut other) = (slave, slave);
    master.mirror_flags.set(0);
    other.shared_uuid = [9; 16];
    let good = [pfsd(&slave), update(END_20)].concat();
    let cases = [
        (vec![], Class::Protocol),
        (good[..100].to_vec(), Class::Protocol),
        (good[..good.len() - 24].to_vec(), Class::Protocol),
        (good[..good.len() - 1].to_vec(), Class::Protocol),
        (update(END_20), Class::Protocol),
        ([pfsd(&slave), pfsd(&slave)].concat(), Class::Protocol),
        ([pfsd(&slave), update(END_10)].concat(), Class::Protocol),
        (pfsd(&master), Class::Incompatible),
        (pfsd(&other), Class::Incompatible),
    ];
    for (number, (answers, class)) in cases.into_iter().enumerate() {
        let (_, ended, report) = conversed(&dir, &answers);
        let error = ended.expect_err(&format!("case {number}"));
        assert_eq!(error.class(), class, "case {number}: {error}");
        assert_eq!(report.target.1, None, "case {number}");
    }
}
