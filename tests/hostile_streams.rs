//! Streams changed at random, by seed, and applied: whole records with their sums made good again, so
//! that what they say is believed as far as it can be. Whatever they say, nothing panics or runs for
//! ever, other PFSs stay as they are, the slave as of what it had acknowledged does too, the volume
//! stays sound, and the right stream makes the slave right. `MALLET_SEED=0x…` runs one seed alone.

mod common;
#[allow(dead_code)]
#[path = "common/mutate.rs"]
mod mutate;

use common::slave::{assert_sound, assert_sound_but, visible};
use common::streams::records;
use common::victim::{self, OTHER, PFS, Victim};
use mallet::error::Class;
use mallet::format::mrecord::{self, ELEMENT, HEAD, Kind};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{data_sum, rt};
use mallet::format::{CrcKind, Rule, Tid};
use mallet::fs::pfs_ops::{self, Settings};
use mallet::fs::rollback::{Rollback, roll_back};
use mallet::io::sim::SimDisk;
use mutate::Random;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerocopy::FromBytes;

/// Streams tried; with `MALLET_SOAK` more.
const CASES: u64 = 300;
/// No single one may take longer; most take a hundredth.
const PATIENCE: Duration = Duration::from_secs(20);

/// Rules about what records say, which a source can break at will: a slave keeps what it is given.
/// (The sizes of records of some types, and what is in them, among these; a PFS record in a slave is
/// nothing but bytes.) All others are about how records are stored, which is the slave's own affair.
const CONTENTS: [Rule; 20] = [
    Rule::LeafLocalization,
    Rule::LeafLength,
    Rule::PfsRecord,
    Rule::LeafVersions,
    Rule::FileOverlap,
    Rule::FileShape,
    Rule::FileEnd,
    Rule::FileTail,
    Rule::FileOwner,
    Rule::Inode,
    Rule::Nlinks,
    Rule::EntryTarget,
    Rule::EntryType,
    Rule::EntryLocalization,
    Rule::EntryName,
    Rule::EntryKey,
    Rule::EntryDuplicate,
    Rule::DirectoryParent,
    Rule::SymlinkTarget,
    Rule::Snapshot,
];

/// Values at which arithmetic tends to break.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 32,
    (1 << 62) - 1,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// A record: its kind and its body.
type Parts = (u32, Vec<u8>);

fn parts(stream: &[u8]) -> Vec<Parts> {
    let each = records(stream).into_iter().map(|record| {
        let kind = u32::from_le_bytes(record[12..16].try_into().expect("four bytes"));
        (kind, record[HEAD..].to_vec())
    });
    each.collect()
}

fn joined(all: &[Parts]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, body) in all {
        mrecord::append(&mut out, *kind, &[body]);
    }
    out
}

fn short(kind: Kind) -> Parts {
    (kind as u32, 1u64.to_le_bytes().to_vec())
}

/// A number near those that mean something here.
fn number(random: &mut Random, victim: &Victim) -> u64 {
    let base = match random.below(5) {
        0 => victim.ends[0].0,
        1 => victim.ends[1].0,
        2 => random.any(),
        _ => EDGES[random.below(EDGES.len())],
    };
    base.wrapping_add((random.below(3) as u64).wrapping_sub(1))
}

/// Changes a field of an element; its data too now and then, and the CRC of that follows.
fn change_element(body: &mut [u8], random: &mut Random, victim: &Victim) {
    let (element, data) = body.split_at_mut(ELEMENT - HEAD);
    let Ok(leaf) = LeafElement::mut_from_bytes(element) else {
        return;
    };
    let value = number(random, victim);
    match random.below(11) {
        0 => leaf.base.obj_id.set(value.cast_signed()),
        1 => leaf.base.key.set(value.cast_signed()),
        2 => leaf.base.create_tid.set(value),
        3 => leaf.base.delete_tid.set(value),
        4 => {
            let all = [rt::INODE, rt::DATA, rt::PFS, rt::SNAPSHOT, rt::CONFIG, 0x77];
            leaf.base.rec_type.set(all[random.below(all.len())]);
        }
        5 => leaf.base.localization.set(random.below(1 << 18) as u32),
        6 => leaf.data_len.set(value as i32),
        7 => leaf.data_offset.set(value),
        8 => leaf.base.obj_type = random.any() as u8,
        9 => leaf.delete_ts.set(value as u32),
        _ if data.len() >= 8 => {
            let at = random.below(data.len() - 7) & !7;
            data[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        _ => leaf.base.btype = random.any() as u8,
    }
    if random.below(4) != 0 {
        let sum = data_sum(leaf.base.rec_type.get(), data, CrcKind::Castagnoli);
        leaf.data_crc.set(sum);
    }
}

/// Changes a record where it hurts.
fn change(part: &mut Parts, random: &mut Random, victim: &Victim) {
    let (kind, body) = part;
    let element = [Kind::Record as u32, Kind::Pass as u32].contains(&(*kind & 0xFF));
    match random.below(8) {
        0 => *kind ^= 1 << random.below(32),
        1 => {
            let at = random.below(body.len());
            body[at] ^= 1 << random.below(8);
        }
        2 => body.truncate(random.below(body.len() + 1)),
        3 => body.resize(body.len() + random.below(64), random.any() as u8),
        _ if element && body.len() >= ELEMENT - HEAD => change_element(body, random, victim),
        _ if body.len() >= 8 => {
            // A window's ends, a bound of a range.
            let words = (body.len() / 8).min(6);
            let at = 8 * random.below(words);
            body[at..at + 8].copy_from_slice(&number(random, victim).to_le_bytes());
        }
        _ => {}
    }
}

/// Changes a stream in one to six places.
fn changed(stream: &[u8], other: &[Parts], random: &mut Random, victim: &Victim) -> Vec<u8> {
    let mut all = parts(stream);
    for _ in 0..1 + random.below(6) {
        let at = random.below(all.len());
        match random.below(12) {
            0 => {
                let to = random.below(all.len());
                all.swap(at, to);
            }
            1 => all.insert(at, all[at].clone()),
            2 => drop(all.remove(at)),
            3 => drop(all.drain(at..(at + random.below(40)).min(all.len()))),
            4 => all.insert(at, other[random.below(other.len())].clone()),
            5 => {
                let kinds = [Kind::Sync, Kind::Idle, Kind::Term, Kind::Update];
                all.insert(at, short(kinds[random.below(4)]));
            }
            6 => {
                // A range from one record to another, or to anywhere.
                let mut body = Vec::new();
                for _ in 0..2 {
                    let from = &all[random.below(all.len())].1;
                    let mut base = from.get(..40).map_or(vec![0; 40], <[u8]>::to_vec);
                    if random.below(3) == 0 {
                        base[random.below(40)] = random.any() as u8;
                    }
                    body.extend_from_slice(&base);
                }
                all.insert(at, (Kind::Skip as u32, body));
            }
            7 => change(&mut all[random.below(2)], random, victim),
            _ => change(&mut all[at], random, victim),
        }
        if all.len() < 3 {
            break;
        }
    }
    if random.below(3) == 0 {
        // In the order of the keys that it has now.
        all.sort_by_key(|(kind, body)| match (kind & 0xFF, body.get(..40)) {
            (2, _) => (0, None),
            (1 | 3 | 4, Some(base)) => {
                let mut key = Base::read_from_bytes(base).expect("40 bytes").key();
                key.localization.0 &= 0xFFFF;
                (1, Some(key))
            }
            _ => (2, None),
        });
    }
    let mut bytes = joined(&all);
    match random.below(20) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        2 => bytes.extend(joined(&all)),
        _ => {}
    }
    bytes
}

/// What the slave had acknowledged is what it was, whatever else is there now. Gives how many records
/// it got that are as old: a stream gives a slave that has lost something what it lacks.
fn published_stays(before: &SimDisk, now: &SimDisk, synced: Tid) -> usize {
    let all = |disk| victim::elements(&mut victim::view(disk).expect("a view"), PFS);
    let (before, new) = (all(before), all(now));
    let mut left = new.iter();
    for (leaf, data) in &before {
        let key = leaf.base.key();
        let found = left.find(|(other, _)| other.base.key() == key);
        let Some((other, now)) = found else {
            assert!(
                !leaf.visible(synced) && leaf.base.create_tid() > synced,
                "{key} is gone"
            );
            continue;
        };
        assert_eq!(now, data, "{key} has other data");
        let same = leaf.visible(synced) == other.visible(synced);
        assert!(same, "{key} was {leaf:?} and is {other:?}, as of {synced}");
    }
    let old = |all: &[(LeafElement, _)]| {
        let count = all.iter().filter(|(l, _)| l.base.create_tid() <= synced);
        count.count()
    };
    old(&new).saturating_sub(old(&before))
}

fn others(disk: &SimDisk) -> [Vec<(LeafElement, Vec<u8>)>; 2] {
    let mut view = victim::view(disk).expect("a view");
    [0, OTHER].map(|id| victim::elements(&mut view, id))
}

/// The slave is taken back to `synced`, and follows its source.
fn made_right(disk: &SimDisk, victim: &Victim, synced: Tid) {
    let mut store = victim::open(disk).expect("a volume that opens");
    let what = Rollback {
        pfs: PFS,
        to: synced,
        spare_local: false,
    };
    roll_back(&mut store, &what, victim::NOW, &mut ()).expect("a rollback");
    let settings = Settings {
        sync_end_tid: Some(synced),
        ..Settings::default()
    };
    pfs_ops::update(&mut store, PFS, &settings, victim::NOW).expect("a PFS record");
    drop(store);
    let (report, ended) = victim::apply(disk, &victim.full, false);
    ended.expect("the right stream");
    assert_eq!(report.acknowledged, Some(victim.ends[1]), "{report:?}");
}

fn run(victims: &[Victim], right: &[Vec<(mallet::format::Key, Vec<u8>)>], seed: u64) {
    let mut random = Random::new(seed);
    let which = random.below(victims.len());
    let victim = &victims[which];
    let streams = [&victim.full, &victim.between, &victim.first];
    let other = parts(streams[random.below(3)]);
    let stream = changed(streams[random.below(3)], &other, &mut random, victim);
    let disk = victim.disk.snapshot();
    let before = others(&disk);
    let (report, ended) = victim::apply(&disk, &stream, false);
    if let Err(error) = &ended {
        let expected = [Class::Protocol, Class::Incompatible, Class::Brake];
        assert!(expected.contains(&error.class()), "{error}");
        assert!(!error.to_string().is_empty());
    }
    assert!(others(&disk) == before, "another PFS has changed");
    let synced = victim::end(&disk);
    assert_eq!(synced, report.acknowledged.unwrap_or(victim.ends[0]));
    let added = published_stays(&victim.disk, &disk, victim.ends[0]);
    assert_sound_but(&disk, &CONTENTS);
    // Whoever writes to the volume next has TIDs and object ids.
    let mut store = victim::open(&disk).expect("a volume that opens");
    let made = victim::change(&mut store, OTHER, |op| {
        for name in ["/one", "/two", "/three"] {
            victim::put(op, name.as_bytes(), name.as_bytes())?;
        }
        Ok(())
    });
    made.expect("changes beside the slave");
    drop(store);
    made_right(&disk, victim, victim.ends[0]);
    if added > 0 {
        // They can stand before what was there, and nothing tells them from what is right.
        return;
    }
    let mut view = victim::view(&disk).expect("a view");
    let found = visible(&mut view, PFS, victim.ends[1]);
    let right = &right[which];
    let differs = |(a, b): &(&_, &_)| a != b;
    let first = found.iter().zip(right).find(differs);
    let first = first.map(|(a, b)| (a.0, b.0));
    assert!(
        found == *right,
        "the right stream does not converge: {first:?}"
    );
}

#[test]
fn hostile_streams_are_survived() {
    let victims = [Victim::new(7), Victim::new(6)];
    let right: Vec<_> = victims
        .iter()
        .map(|victim| {
            let disk = victim.disk.snapshot();
            made_right(&disk, victim, victim.ends[0]);
            assert_sound(&disk);
            visible(
                &mut victim::view(&disk).expect("a view"),
                PFS,
                victim.ends[1],
            )
        })
        .collect();
    if let Ok(text) = std::env::var("MALLET_SEED") {
        let digits = text.trim_start_matches("0x");
        let seed = u64::from_str_radix(digits, 16).expect("a seed in hex");
        return run(&victims, &right, seed);
    }
    let cases = common::soak(CASES);
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cases {
                        return;
                    }
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| run(&victims, &right, seed)));
                    let took = start.elapsed();
                    if result.is_err() || took > PATIENCE {
                        eprintln!("failed: MALLET_SEED=0x{seed:x} after {took:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "seeds above");
}
