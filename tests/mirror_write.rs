//! Streams applied to slaves: those that the kernel made, against the slaves that the kernel made of
//! them; and what must not be applied.

mod common;

use common::golden;
use common::listing::{Mask, compare_asof};
use common::slave::{
    SLAVE, apply, apply_as, apply_until, assert_sound, elements, fresh, made, master_of, plain,
    synced, view, visible,
};
use common::soak;
use common::streams::records;
use mallet::error::{Class, Error};
use mallet::format::Tid;
use mallet::format::mrecord::{self, Body, ELEMENT, HEAD, Kind};
use mallet::format::node::LeafElement;
use mallet::format::record::rt;
use mallet::io::sim::SimDisk;
use mallet::mirror::Terms;
use mallet::mirror::write::{Edge, Report, Request, write};
use mallet::progress::{Progress, Status};
use mallet::store::Fetch;
use std::path::Path;

const END_5: Tid = Tid(0x1_0002_8320);
const END_10: Tid = Tid(0x1_0005_8630);
const END_20: Tid = Tid(0x1_000a_0cd0);

fn golden_stream(dir: &Path, name: &str) -> Vec<u8> {
    golden::bytes(dir, name)
}

/// Applies golden streams in turn; after each the slave is as the listing says.
fn follow(dir: &Path, disk: &SimDisk, rounds: &[(&str, &str, Tid)], mask: Mask) {
    for (stream, listing, end) in rounds {
        let report = apply(disk, &golden_stream(dir, stream));
        assert_eq!(report.acknowledged, Some(*end), "{stream}: {report:?}");
        assert_eq!(synced(disk), *end);
        compare_asof(&mut view(disk), dir, listing, SLAVE, *end, mask);
        assert_sound(disk);
    }
}

const SLAVE_A: [(&str, &str, Tid); 3] = [
    ("mirror/full-5.mir", "mirror/slaveA-full-5.lst", END_5),
    ("mirror/inc-5-10.mir", "mirror/slaveA-inc-5-10.lst", END_10),
    (
        "mirror/inc-10-20.mir",
        "mirror/slaveA-inc-10-20.lst",
        END_20,
    ),
];
const SLAVE_B: [(&str, &str, Tid); 1] =
    [("mirror/fullB-20.mir", "mirror/slaveB-full-20.lst", END_20)];

/// Every element with its data is what the kernel's own slave has.
#[test]
fn slaves_are_the_kernels() {
    let Some(dir) = golden::dir() else { return };
    for (rounds, image) in [(&SLAVE_A[..], "slaveA"), (&SLAVE_B[..], "slaveB")] {
        let disk = fresh(7, master_of(&golden_stream(&dir, rounds[0].0)));
        follow(&dir, &disk, rounds, Mask::Mtime);
        let path = golden::file(&dir, &format!("mirror/{image}.img"));
        let mut kernels = common::streams::view(&path);
        let theirs = elements(&mut kernels, SLAVE);
        let ours = elements(&mut view(&disk), SLAVE);
        for ((our, our_data), (their, their_data)) in ours.iter().zip(&theirs) {
            let place = their.data_offset.get() != 0;
            assert_eq!(our.data_offset.get() != 0, place);
            let mut our = *our;
            our.data_offset = their.data_offset;
            assert_eq!(our, *their);
            assert_eq!(our_data, their_data);
        }
        assert_eq!(ours.len(), theirs.len());
    }
}

/// The listings hold whatever version the slave's file system has, and whatever number the slave.
#[test]
fn slaves_of_every_version() {
    let Some(dir) = golden::dir() else { return };
    for version in 4..=7 {
        let disk = fresh(version, master_of(&golden_stream(&dir, SLAVE_A[0].0)));
        follow(&dir, &disk, &SLAVE_A, Mask::Mtime);
    }
}

/// Streams of thousands of files that skip most of them.
#[test]
fn streams_with_skips() {
    let Some(dir) = golden::dir() else { return };
    let streams = ["full", "inc1", "inc12"].map(|n| golden_stream(&dir, &format!("skips/{n}.mir")));
    let listing = "skips/m-asof.lst";
    let third = Tid(0x1_000b_83a0);
    let disk = fresh(7, master_of(&streams[0]));
    apply(&disk, &streams[0]);
    let two = disk.snapshot();
    let report = apply(&disk, &streams[2]);
    assert_eq!(report.acknowledged, Some(third));
    compare_asof(&mut view(&disk), &dir, listing, SLAVE, third, Mask::Mtime);
    assert_sound(&disk);
    // In two steps, the second with what the first brought already.
    apply(&two, &streams[1]);
    assert_eq!(synced(&two), Tid(0x1_000b_0340));
    apply(&two, &streams[2]);
    compare_asof(&mut view(&two), &dir, listing, SLAVE, third, Mask::Mtime);
    assert_sound(&two);
    // No work: what stands is said again.
    let none = golden_stream(&dir, "skips/none.mir");
    let before = elements(&mut view(&two), SLAVE);
    let (report, ended) = apply_as(&two, &none[..], &plain());
    ended.expect("a stream without work");
    assert_eq!((report.acknowledged, report.withheld), (None, false));
    assert!(elements(&mut view(&two), SLAVE) == before && synced(&two) == third);
}

/// Applied again, a stream changes nothing, and does not make the slave write.
#[test]
fn replays() {
    let Some(dir) = golden::dir() else { return };
    let stream = golden_stream(&dir, "mirror/fullB-20.mir");
    let disk = fresh(7, master_of(&stream));
    apply(&disk, &stream);
    let before = (
        elements(&mut view(&disk), SLAVE),
        elements(&mut view(&disk), 0),
    );
    let (writes, report) = (disk.counts().writes, apply(&disk, &stream));
    assert_eq!(report.acknowledged, Some(END_20));
    assert_eq!((report.applied.created, report.applied.deleted), (0, 0));
    assert_eq!(disk.counts().writes, writes);
    let after = (
        elements(&mut view(&disk), SLAVE),
        elements(&mut view(&disk), 0),
    );
    assert!(before == after);
}

/// The class and text of what refuses a stream; the slave is as it was.
fn refused(disk: &SimDisk, stream: &[u8]) -> (Class, String) {
    let before = elements(&mut view(disk), SLAVE);
    let sync_end = synced(disk);
    let (report, ended) = apply_as(disk, stream, &plain());
    let error = ended.expect_err("a stream that is refused");
    assert_eq!((synced(disk), report.acknowledged), (sync_end, None));
    assert!(elements(&mut view(disk), SLAVE) == before, "{error}");
    assert_sound(disk);
    (error.class(), error.to_string())
}

#[test]
fn streams_that_are_not_for_this_slave() {
    let Some(dir) = golden::dir() else { return };
    let [full, inc10, inc20] = SLAVE_A.map(|(name, ..)| golden_stream(&dir, name));
    let master = master_of(&full);
    let (class, text) = refused(&fresh(7, [9; 16]), &full);
    assert_eq!(class, Class::Incompatible);
    assert!(text.contains("another master"), "{text}");
    // A master, whatever its uuid.
    let disk = common::slave::volume(7, 512 << 20, |data| data.shared_uuid = master);
    let (class, text) = refused(&disk, &full);
    assert_eq!(class, Class::Incompatible);
    assert!(text.contains("no slave"), "{text}");
    // An older stream: refused, unless forced.
    let disk = fresh(7, master);
    for stream in [&full, &inc10, &inc20] {
        apply(&disk, stream);
    }
    let (class, text) = refused(&disk, &inc10);
    assert_eq!(class, Class::Incompatible);
    assert!(text.contains("older"), "{text}");
    let forced = Request {
        force: true,
        ..plain()
    };
    let (report, ended) = apply_as(&disk, &inc10[..], &forced);
    ended.expect("a stream that is forced");
    assert_eq!((report.acknowledged, synced(&disk)), (Some(END_10), END_10));
    assert_sound(&disk);
    // And forward again.
    apply(&disk, &inc20);
    compare_asof(
        &mut view(&disk),
        &dir,
        SLAVE_A[2].1,
        SLAVE,
        END_20,
        Mask::Mtime,
    );
}

/// A stream's bytes again, as `change` makes its records.
fn rewritten(stream: &[u8], mut change: impl FnMut(usize, &mut Vec<u8>, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, record) in records(stream).into_iter().enumerate() {
        let kind = u32::from_le_bytes(record[12..16].try_into().expect("four bytes"));
        let (mut kind, mut body) = (kind.to_le_bytes().to_vec(), record[HEAD..].to_vec());
        change(at, &mut kind, &mut body);
        if kind.is_empty() {
            continue;
        }
        let kind = u32::from_le_bytes(kind[..].try_into().expect("four bytes"));
        mrecord::append(&mut out, kind, &[&body]);
    }
    out
}

/// An incremental stream of ours says where it begins.
#[test]
fn gaps_are_noticed() {
    let Some(dir) = golden::dir() else { return };
    let full = golden_stream(&dir, "mirror/full-5.mir");
    let inc20 = golden_stream(&dir, "mirror/inc-10-20.mir");
    let begins = |tid: Tid| {
        rewritten(&inc20, |at, _, body| {
            if at == 1 {
                body[16..24].copy_from_slice(&tid.0.to_le_bytes());
            }
        })
    };
    let disk = fresh(7, master_of(&full));
    apply(&disk, &full);
    let (class, text) = refused(&disk, &begins(END_10.next()));
    assert_eq!(class, Class::Incompatible);
    assert!(text.contains("between"), "{text}");
    // Without a gap it is taken.
    apply(&disk.snapshot(), &begins(END_5.next()));
    // The original's says nothing, and cannot be refused.
    apply(&disk, &inc20);
}

#[test]
fn streams_in_the_wrong_order() {
    let Some(dir) = golden::dir() else { return };
    let full = golden_stream(&dir, "mirror/full-5.mir");
    let kinds: Vec<u8> = records(&full).iter().map(|r| r[12]).collect();
    let rec = kinds.iter().position(|kind| *kind == 1).expect("a REC");
    let twice = {
        let mut all: Vec<Vec<u8>> = records(&full);
        all.insert(rec + 5, all[rec + 4].clone());
        all
    };
    let swapped = {
        let mut all: Vec<Vec<u8>> = records(&full);
        all.swap(rec + 9, rec + 10);
        all
    };
    for all in [twice, swapped] {
        let mut stream = Vec::new();
        for record in all {
            stream.extend_from_slice(&record);
            stream.resize(mrecord::padded(stream.len()), 0);
        }
        let (class, text) = refused(&fresh(7, master_of(&full)), &stream);
        assert_eq!(class, Class::Protocol);
        assert!(
            text.contains("do not ascend") && text.contains("byte "),
            "{text}"
        );
    }
}

/// A stream that ends too early acknowledges nothing, keeps what came, and can be sent again.
#[test]
fn streams_cut_at_every_record() {
    let Some(dir) = golden::dir() else { return };
    let full = golden_stream(&dir, "mirror/full-5.mir");
    let inc = golden_stream(&dir, "mirror/inc-5-10.mir");
    let disk = fresh(7, master_of(&full));
    apply(&disk, &full);
    let whole = disk.snapshot();
    apply(&whole, &inc);
    let expected = elements(&mut view(&whole), SLAVE);
    let mut cut = 0;
    let all = records(&inc);
    let kept = elements(&mut view(&disk), SLAVE).len();
    let mut most = 0;
    for (number, record) in all.iter().enumerate() {
        // All of the first and the last, and some between.
        let step = (all.len() / soak(40) as usize).max(1);
        if number < 4 || number + 4 > all.len() || number.is_multiple_of(step) {
            let slave = disk.snapshot();
            let (report, ended) = apply_as(&slave, &inc[..cut], &plain());
            assert_eq!(
                ended.expect_err("a stream cut off").class(),
                Class::Protocol
            );
            let last = number + 1 == all.len();
            assert_eq!(report.acknowledged, last.then_some(END_10));
            assert_eq!(synced(&slave), if last { END_10 } else { END_5 });
            most = most.max(elements(&mut view(&slave), SLAVE).len());
            if number.is_multiple_of(7) {
                assert_sound(&slave);
                compare_asof(
                    &mut view(&slave),
                    &dir,
                    SLAVE_A[0].1,
                    SLAVE,
                    END_5,
                    Mask::Mtime,
                );
            }
            apply(&slave, &inc);
            assert!(elements_alike(
                &elements(&mut view(&slave), SLAVE),
                &expected
            ));
        }
        cut += mrecord::padded(record.len());
    }
    assert!(most > kept, "what came is kept");
    assert_eq!(cut, inc.len());
}

fn elements_alike(a: &[(LeafElement, Vec<u8>)], b: &[(LeafElement, Vec<u8>)]) -> bool {
    let plain = |all: &[(LeafElement, Vec<u8>)]| -> Vec<(LeafElement, Vec<u8>)> {
        let each = all.iter().map(|(leaf, data)| {
            let mut leaf = *leaf;
            leaf.data_offset.set(0);
            (leaf, data.clone())
        });
        each.collect()
    };
    plain(a) == plain(b)
}

/// A record that is damaged, whether the source says so or not, does not stop the rest, is listed,
/// and keeps the batch from being acknowledged.
#[test]
fn damaged_records() {
    let Some(dir) = golden::dir() else { return };
    let full = golden_stream(&dir, "mirror/full-5.mir");
    let inc = golden_stream(&dir, "mirror/inc-5-10.mir");
    let is_data = |kind: &[u8], body: &[u8]| kind[0] == 1 && body[32] == rt::DATA as u8;
    for flagged in [false, true] {
        let mut left = 3;
        let spoiled = rewritten(&inc, |_, kind, body| {
            if is_data(kind, body) && left > 0 {
                left -= 1;
                match flagged {
                    true => kind[3] |= 0xc0,
                    false => body[ELEMENT - HEAD] ^= 1,
                }
            }
        });
        let disk = fresh(7, master_of(&full));
        apply(&disk, &full);
        let accepting = disk.snapshot();
        let (report, ended) = apply_as(&disk, &spoiled[..], &plain());
        ended.expect("a stream that ends well");
        assert_eq!(report.damage.count, 3);
        assert!(report.damage.first.iter().all(|d| d.bytes.is_some()));
        assert_eq!((report.acknowledged, report.withheld), (None, true));
        assert_eq!(synced(&disk), END_5);
        assert_sound(&disk);
        compare_asof(
            &mut view(&disk),
            &dir,
            SLAVE_A[0].1,
            SLAVE,
            END_5,
            Mask::Mtime,
        );
        // Sent again whole, it is complete.
        apply(&disk, &inc);
        compare_asof(
            &mut view(&disk),
            &dir,
            SLAVE_A[1].1,
            SLAVE,
            END_10,
            Mask::Mtime,
        );
        // Accepted, it is acknowledged, and nothing else is missing.
        let accept = Request {
            terms: Terms {
                accept_damage: true,
                ..Terms::default()
            },
            ..plain()
        };
        let (report, ended) = apply_as(&accepting, &spoiled[..], &accept);
        ended.expect("a stream that ends well");
        assert_eq!(report.acknowledged, Some(END_10));
        let (all, most) = (
            visible(&mut view(&disk), SLAVE, END_10),
            visible(&mut view(&accepting), SLAVE, END_10),
        );
        assert!(most.len() < all.len() && most.len() + 3 >= all.len());
    }
}

/// The begin of a window is the floor for what is created: what lies below was dropped, and says so.
#[test]
fn records_below_the_floor_are_not_acknowledged() {
    let Some(dir) = golden::dir() else { return };
    let full = golden_stream(&dir, "mirror/full-5.mir");
    let raised = rewritten(&full, |at, _, body| {
        if at < 2 {
            body[16..24].copy_from_slice(&0x1_0002_0000u64.to_le_bytes());
        }
    });
    let disk = fresh(7, master_of(&full));
    let (report, ended) = apply_as(&disk, &raised[..], &plain());
    ended.expect("a stream that ends well");
    assert!(report.applied.dropped > 0 && report.applied.created > 0);
    assert_eq!((report.acknowledged, report.withheld), (None, true));
    assert_sound(&disk);
}

/// Ends the work at the given look.
struct StopAt(u32);

impl Progress for StopAt {
    fn at(&mut self, _: &Status) -> mallet::error::Result<()> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            0 => Err(Error::new(Class::Interrupted, "enough")),
            _ => Ok(()),
        }
    }
}

/// A stream that would delete most of a slave is stopped, and the slave is what it was.
#[test]
fn the_brake() {
    let disk = fresh(7, [3; 16]);
    let full = apply(&disk, &made(0x2000, 0x1000, 0..10_500));
    assert_eq!(full.applied.created, 10_500);
    let before = elements(&mut view(&disk), SLAVE);
    // Few of many, and many of more, are nothing unusual.
    apply(&disk.snapshot(), &made(0x3000, 0x1000, 0..5_500));
    let other = made(0x3000, 0x2fff, 20_000..20_100);
    let (report, ended) = apply_as(&disk, &other[..], &plain());
    let error = ended.expect_err("a stream that is stopped");
    assert_eq!(error.class(), Class::Brake);
    assert!(error.to_string().contains("10500 of the 10500"), "{error}");
    assert_eq!((report.acknowledged, synced(&disk)), (None, Tid(0x2000)));
    assert!(elements(&mut view(&disk), SLAVE) == before);
    // Interrupted while the slave is taken back: whoever comes next does it first.
    let half = disk.snapshot();
    let (_, ended) = apply_until(&half, &other[..], &plain(), &mut StopAt(3));
    assert_eq!(ended.expect_err("interrupted").class(), Class::Interrupted);
    let due = |disk: &SimDisk| {
        let slave = mallet::fs::pfs::load(&mut view(disk), SLAVE).expect("a table");
        mallet::mirror::takeback::is_due(&slave.expect("the slave"))
    };
    assert!(due(&half) && !due(&disk));
    assert_eq!(synced(&half), Tid(0x2000));
    apply(&half, &made(0x3000, 0x1000, 0..10_400));
    assert!(!due(&half));
    assert_eq!(visible(&mut view(&half), SLAVE, Tid(0x3000)).len(), 10_400);
    assert_eq!(visible(&mut view(&half), SLAVE, Tid(0x2000)).len(), 10_500);
    // Wanted, it is done.
    let allow = Request {
        terms: Terms {
            allow_deletes: true,
            ..Terms::default()
        },
        ..plain()
    };
    let (report, ended) = apply_as(&disk, &other[..], &allow);
    ended.expect("a stream that is allowed");
    assert_eq!(report.acknowledged, Some(Tid(0x3000)));
    assert_eq!(visible(&mut view(&disk), SLAVE, Tid(0x3000)).len(), 100);
    assert_eq!(visible(&mut view(&disk), SLAVE, Tid(0x2000)).len(), 10_500);
}

/// What a pass with a later end left does not show through an earlier one.
#[test]
fn abandoned_passes_leave_nothing_visible() {
    let disk = fresh(7, [3; 16]);
    apply(&disk, &made(0x2000, 0x1000, 0..100));
    // Of the window up to 0x4000 comes a part: one record at its very end, and what lies before it
    // of the old ones is deleted at 0x4000.
    let later = made(0x4000, 0x4000, 50..60);
    let (report, ended) = apply_as(&disk, &later[..later.len() - 48], &plain());
    assert!(ended.is_err() && report.acknowledged.is_none());
    assert!(report.applied.gap_deleted >= 50);
    // The master lost them without a trace, and an earlier end is the next to be told.
    apply(&disk, &made(0x3000, 0x1000, 80..100));
    assert_eq!(visible(&mut view(&disk), SLAVE, Tid(0x3000)).len(), 20);
    // The records of 0x4000 are gone from the master too: they vanish, nobody has seen them.
    apply(&disk, &made(0x4000, 0x1000, 80..100));
    assert_eq!(visible(&mut view(&disk), SLAVE, Tid(0x4000)).len(), 20);
    let left = elements(&mut view(&disk), SLAVE);
    assert!(
        left.iter()
            .all(|(leaf, _)| leaf.base.create_tid() == Tid(0x1000))
    );
    assert_eq!(left.len(), 100);
}

/// What no source may say is refused, whatever the checksums say.
#[test]
fn impossible_records() {
    let good = made(0x2000, 0x1000, 0..3);
    let spoiled = |at: usize, bytes: &[u8]| {
        rewritten(&good, |number, _, body| {
            if number == 2 {
                body[at..at + bytes.len()].copy_from_slice(bytes);
            }
        })
    };
    let tid = |tid: u64| tid.to_le_bytes();
    for (what, stream) in [
        ("created behind the window", spoiled(16, &tid(0x2001))),
        ("created at 0", spoiled(16, &tid(0))),
        ("deleted when created", spoiled(24, &tid(0x1000))),
        ("deleted at the end of time", spoiled(24, &tid(u64::MAX))),
        ("no such type", spoiled(32, &[0x66])),
        ("no such class", spoiled(36, &[9])),
        ("a window to the end of time", made(u64::MAX, 0x1000, 0..3)),
        ("a window to nowhere", made(0, 0x1000, 0..3)),
    ] {
        let disk = fresh(7, [3; 16]);
        let next = view(&disk).header().next_tid();
        let (class, text) = refused(&disk, &stream);
        assert_eq!(class, Class::Protocol, "{what}: {text}");
        assert_eq!(view(&disk).header().next_tid(), next, "{what}");
    }
    // A record without its data.
    let bare = rewritten(&good, |number, kind, body| {
        if number == 2 {
            kind[3] |= 0x10;
            body.truncate(ELEMENT - HEAD);
        }
    });
    assert_eq!(refused(&fresh(7, [3; 16]), &bare).0, Class::Protocol);
}

/// The slave's own TIDs come after the master's.
#[test]
fn the_allocator_is_raised() {
    let disk = fresh(7, [3; 16]);
    let far = 0x7_0000_0000;
    apply(&disk, &made(far, far - 0x10, 0..3));
    assert!(view(&disk).header().next_tid() >= Tid(far));
    let txn = common::slave::store(&disk)
        .begin(0)
        .expect("a transaction")
        .tid();
    assert!(txn > Tid(far), "{txn}");
    // Object ids are from the same counter; a master read while it was written to gives ids above
    // the end of the window.
    let disk = fresh(7, [3; 16]);
    let stream = common::slave::made_of(far as i64 + 0x10, far, far - 0x10, 0..3);
    apply(&disk, &stream);
    assert!(view(&disk).header().next_tid() >= Tid(far + 0x10));
}

/// A batch that was not whole keeps those behind it from being acknowledged, as the chunks of a
/// split stream are.
#[test]
fn nothing_behind_damage_is_acknowledged() {
    let spoil = |stream: &[u8]| {
        rewritten(stream, |number, _, body| {
            if number == 3 {
                body[ELEMENT - HEAD] ^= 1;
            }
        })
    };
    let first = made(0x2000, 0x1000, 0..10);
    let second = made(0x3000, 0x1000, 0..20);
    let both = [&spoil(&first)[..spoil(&first).len() - 24], &second].concat();
    let disk = fresh(7, [3; 16]);
    let (report, ended) = apply_as(&disk, &both[..], &plain());
    ended.expect("a stream that ends well");
    assert_eq!((report.acknowledged, report.batches), (None, (2, 0)));
    assert_eq!(synced(&disk), Tid(1));
    assert_eq!(elements(&mut view(&disk), SLAVE).len(), 20);
}

/// Two-way, the slave's record and the acknowledgements are said, and nothing else.
#[test]
fn answers() {
    let disk = fresh(7, [3; 16]);
    let mut stream = made(0x2000, 0x1000, 0..10);
    stream.truncate(stream.len() - 24);
    let mut idle = made(0x2000, 0x1000, 0..0);
    let at = idle.len() - 48;
    idle.truncate(at);
    mrecord::append_mark(&mut idle, Kind::Idle);
    mrecord::append_mark(&mut idle, Kind::Term);
    stream.extend_from_slice(&idle);
    let mut said = Vec::new();
    let mut store = common::slave::store(&disk);
    let mut edge = Edge {
        now: &mut || common::slave::NOW,
        progress: &mut (),
        events: &mut |_| Ok(()),
        make: &mut |_, _| panic!("the slave is there"),
    };
    let (request, mut report) = (plain(), Report::default());
    write(
        &mut store,
        &stream[..],
        Some(&mut said),
        &request,
        &mut edge,
        &mut report,
    )
    .expect("a session");
    let said: Vec<String> = records(&said)
        .iter()
        .map(
            |record| match Body::parse(record, 0).expect("a sound record") {
                Body::Pfsd(pfsd) => format!("pfsd {:x}", pfsd.pfs.sync_end_tid.get()),
                Body::Update(tid) => format!("update {tid:x}"),
                other => format!("{other:?}"),
            },
        )
        .collect();
    assert_eq!(said, ["pfsd 1", "update 2000", "pfsd 2000", "update 2000"]);
}
