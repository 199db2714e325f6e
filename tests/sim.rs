//! The simulated disk keeps its promises: contents, order, faults, hooks, crash images.

use mallet::io::sim::{CrashPlan, Event, Fault, On, SimDisk, Step, Survive};
use mallet::io::{Device, Done, Op, read_at};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

const SECTOR: usize = 512;

/// Submits, reaping whenever the queue is full.
fn submit(device: &mut dyn Device, tag: u64, mut op: Op, out: &mut Vec<Done>) {
    while let Err(back) = device.submit(tag, op) {
        op = back;
        device.reap(1, out).expect("a simulated queue");
    }
}

fn write_op(device: &mut dyn Device, at: u64, len: usize, fill: u8) -> Op {
    let mut buf = device.buffer(len);
    buf.fill(fill);
    Op::Write { at, buf }
}

fn read_op(device: &mut dyn Device, at: u64, len: usize) -> Op {
    let buf = device.buffer(len);
    Op::Read { at, buf }
}

/// One operation, waited for.
fn one(device: &mut dyn Device, op: Op) -> Done {
    let mut out = Vec::new();
    device.submit(7, op).expect("an empty queue");
    device.reap(1, &mut out).expect("a simulated queue");
    assert_eq!(out.len(), 1);
    out.pop().expect("one completion")
}

fn write(device: &mut dyn Device, at: u64, fill: u8) -> std::io::Result<()> {
    let op = write_op(device, at, SECTOR, fill);
    one(device, op).result
}

fn flush(device: &mut dyn Device) -> std::io::Result<()> {
    one(device, Op::Flush).result
}

/// The fill of each sector.
fn fills(disk: &SimDisk) -> Vec<u8> {
    let bytes = disk.read(0, disk.size() as usize).expect("the whole disk");
    bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
}

#[test]
fn completions_come_out_of_order_and_the_seed_decides() {
    let order = |seed| {
        let disk = SimDisk::new(32 * SECTOR as u64);
        let mut device = disk.device(seed);
        let mut out = Vec::new();
        for tag in 0..32 {
            let op = read_op(&mut device, tag * SECTOR as u64, SECTOR);
            device.submit(tag, op).expect("room for 32");
        }
        let op = read_op(&mut device, 0, SECTOR);
        device.submit(99, op).expect_err("the queue is full");
        while device.in_flight() > 0 {
            device.reap(1, &mut out).expect("a simulated queue");
        }
        out.iter().map(|done| done.tag).collect::<Vec<_>>()
    };
    let sorted: Vec<u64> = (0..32).collect();
    assert_eq!(order(0), sorted);
    assert_eq!(order(5), order(5));
    assert_ne!(order(5), order(6));
    assert_ne!(order(5), sorted);
    assert_eq!(order(5).into_iter().collect::<BTreeSet<_>>().len(), 32);
}

#[test]
fn two_devices_share_a_disk_over_a_file() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let bytes: Vec<u8> = (0..50_001_u32).map(|i| (i / 3) as u8).collect();
    std::fs::write(file.path(), &bytes).expect("room for it");
    let disk = SimDisk::over(file.reopen().expect("the file")).expect("its length");
    let (mut writer, mut reader) = (disk.device(1), disk.reader(2));
    assert_eq!(read_at(&mut reader, 0, 50_001).expect("readable"), bytes);
    write(&mut writer, 1024, 9).expect("writable");
    assert_eq!(
        read_at(&mut reader, 1000, 600).expect("readable"),
        [&bytes[1000..1024], &[9; 512][..], &bytes[1536..1600]].concat()
    );
    assert_eq!(std::fs::read(file.path()).expect("the file"), bytes);
    let refused = write(&mut reader, 0, 1).expect_err("opened for reading");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn the_contract_is_enforced() {
    let disk = SimDisk::new(10_000).sector(4096);
    let mut device = disk.device(1);
    for (at, len, kind) in [
        (512, 4096, ErrorKind::InvalidInput),
        (0, 512, ErrorKind::InvalidInput),
        (8192, 4096, ErrorKind::UnexpectedEof),
        (u64::MAX - 4095, 8192, ErrorKind::UnexpectedEof),
    ] {
        let op = read_op(&mut device, at, len);
        assert_eq!(
            one(&mut device, op).result.expect_err("refused").kind(),
            kind
        );
    }
    let op = read_op(&mut device, 8192, 10_000 - 8192);
    one(&mut device, op).result.expect("the tail");
    // A flush is alone.
    let op = read_op(&mut device, 0, 4096);
    device.submit(1, op).expect("room");
    device
        .submit(2, Op::Flush)
        .expect_err("something is in flight");
    let mut out = Vec::new();
    device.reap(1, &mut out).expect("a simulated queue");
    device.submit(2, Op::Flush).expect("nothing is in flight");
    let op = read_op(&mut device, 0, 4096);
    device.submit(3, op).expect_err("a flush is in flight");
}

#[test]
fn a_failed_write_or_flush_latches() {
    for (on, fails) in [(On::Write, true), (On::Flush, true), (On::Read, false)] {
        let disk = SimDisk::new(8192);
        let mut device = disk.device(1);
        disk.inject(on, 0, Fault::EIO);
        let failed = match on {
            On::Write => write(&mut device, 0, 1),
            On::Flush => flush(&mut device),
            _ => read_at(&mut device, 0, 1).map(drop),
        };
        let code = failed.expect_err("injected").raw_os_error();
        assert_eq!(code, Some(nix::libc::EIO));
        assert_eq!(write(&mut device, 0, 1).is_err(), fails, "{on:?}");
        assert_eq!(flush(&mut device).is_err(), fails);
        let later = read_at(&mut device, 0, 1);
        assert_eq!(later.is_err(), fails);
        if let Err(error) = later {
            assert!(error.to_string().contains("given up"), "{error}");
        }
        // Another handle is another matter.
        write(&mut disk.device(2), 0, 2).expect("a fresh handle");
    }
}

#[test]
fn faults_strike_the_nth() {
    let disk = SimDisk::new(64 * SECTOR as u64);
    let mut device = disk.device(0);
    disk.inject(On::Read, 1, Fault::Corrupt);
    let clean = read_at(&mut device, 0, 4096).expect("readable");
    let bad = read_at(&mut device, 0, 4096).expect("it lies");
    let flipped: u32 = clean
        .iter()
        .zip(&bad)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(flipped, 1);
    assert_eq!(read_at(&mut device, 0, 4096).expect("readable"), clean);

    disk.inject(On::Write, 0, Fault::Misdirect(1024));
    write(&mut device, 0, 7).expect("it lies");
    assert_eq!(fills(&disk)[..4], [0, 0, 7, 0]);
    disk.inject(On::Write, 0, Fault::Lose);
    write(&mut device, 0, 8).expect("it lies");
    assert_eq!(fills(&disk)[0], 0);

    disk.inject(On::Write, 0, Fault::Short(1500));
    let op = write_op(&mut device, 8192, 4096, 5);
    one(&mut device, op).result.expect_err("cut short");
    assert_eq!(fills(&disk)[16..20], [5, 5, 0, 0]);

    let mut device = disk.device(0);
    disk.inject_from(On::Any, 2, Fault::ENOSPC);
    write(&mut device, 0, 1).expect("before");
    flush(&mut device).expect("before");
    let failed = write(&mut device, 0, 1).expect_err("injected");
    assert_eq!(failed.kind(), ErrorKind::StorageFull);
    write(&mut disk.device(0), 0, 1).expect_err("every one");
    disk.heal();
    write(&mut disk.device(0), 0, 1).expect("healed");

    disk.set_unreadable(5000..5001);
    let mut device = disk.device(0);
    read_at(&mut device, 4096, 512).expect("beside it");
    read_at(&mut device, 4608, 512).expect_err("unreadable");
    assert_eq!(disk.counts().flushes, 1);
}

#[test]
fn a_delayed_operation_waits_for_others() {
    let disk = SimDisk::new(4096);
    let mut device = disk.device(0);
    disk.inject(On::Any, 0, Fault::Delay(2));
    for tag in 0..4 {
        let op = read_op(&mut device, 0, SECTOR);
        device.submit(tag, op).expect("room");
    }
    let mut out = Vec::new();
    device.reap(4, &mut out).expect("a simulated queue");
    let tags: Vec<u64> = out.iter().map(|done| done.tag).collect();
    assert_eq!(tags, [1, 2, 0, 3]);
}

#[test]
fn the_hook_comes_between() {
    let disk = SimDisk::new(4096);
    let mut reads = 0;
    disk.set_hook(move |step, disk| {
        assert_eq!(step, Step::Read { at: 0, len: 512 });
        reads += 1;
        // Another engine at work: its own operations call no hook.
        write(&mut disk.device(3), 0, reads).expect("writable");
        if reads == 2 {
            disk.clear_hook();
        }
    });
    let mut reader = disk.reader(1);
    let mut next = || read_at(&mut reader, 0, 1).expect("readable")[0];
    assert_eq!([next(), next(), next()], [1, 2, 2]);
}

#[test]
fn dropping_a_device_performs_what_is_left() {
    let disk = SimDisk::new(4096);
    let mut device = disk.device(1);
    let op = write_op(&mut device, 0, SECTOR, 3);
    device.submit(1, op).expect("room");
    assert_eq!(fills(&disk)[0], 0);
    drop(device);
    assert_eq!(fills(&disk)[0], 3);
}

#[test]
fn power_cuts() {
    let disk = SimDisk::new(4 * SECTOR as u64);
    let mut device = disk.device(0);
    write(&mut device, 0, 1).expect("writable");
    flush(&mut device).expect("flushable");
    let before = disk.now();
    write(&mut device, 512, 2).expect("writable");
    write(&mut device, 1024, 3).expect("writable");
    write(&mut device, 512, 4).expect("writable");
    let after = disk.now();
    let at = |cut, survive| fills(&disk.crash(cut, survive).expect("in memory"));
    assert_eq!(at(0, Survive::All), [0, 0, 0, 0]);
    assert_eq!(at(1, Survive::None), [0, 0, 0, 0]);
    assert_eq!(at(before, Survive::None), [1, 0, 0, 0]);
    assert_eq!(at(after, Survive::None), [1, 0, 0, 0]);
    assert_eq!(at(after, Survive::All), [1, 4, 3, 0]);
    assert_eq!(at(after, Survive::Only(0)), [1, 2, 0, 0]);
    assert_eq!(at(after, Survive::Without(2)), [1, 2, 3, 0]);
    let images = disk.crash_images(CrashPlan::default());
    let seen: BTreeSet<Vec<u8>> = images
        .map(|image| fills(&image.expect("in memory").disk))
        .collect();
    // Every state there is: the second sector old, first or second write; the third old or new.
    let all = [0, 2, 4]
        .into_iter()
        .flat_map(|second| [[1, second, 0, 0], [1, second, 3, 0]]);
    let all: BTreeSet<Vec<u8>> = all.map(Vec::from).chain([vec![0; 4]]).collect();
    assert_eq!(seen, all);
    // The log can be read, and begun anew.
    assert_eq!(disk.log()[1], Event::Flush);
    disk.forget_log();
    let images = disk.crash_images(CrashPlan::default());
    assert_eq!(images.count(), 1);
    assert_eq!(at(0, Survive::None), [1, 4, 3, 0]);
}

/// What a random run does: a sector and its fill, or a flush.
fn steps() -> impl Strategy<Value = Vec<Option<(u8, u8)>>> {
    let step = prop_oneof![
        4 => (0..12_u8, 1..=255_u8).prop_map(Some),
        1 => Just(None),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every crash image holds, sector by sector, what was last flushed or one of the writes since.
    #[test]
    fn crash_images_are_possible(steps in steps(), seed in 0..1000_u64) {
        let disk = SimDisk::new(12 * SECTOR as u64);
        let mut device = disk.device(seed);
        let mut out = Vec::new();
        for step in &steps {
            match step {
                Some((sector, fill)) => {
                    let at = u64::from(*sector) * SECTOR as u64;
                    let op = write_op(&mut device, at, SECTOR, *fill);
                    submit(&mut device, 0, op, &mut out);
                }
                None => submit(&mut device, 0, Op::Flush, &mut out),
            }
        }
        drop(device);
        // By cut: what each sector may hold, from the log alone.
        let log = disk.log();
        let possible = |cut: usize| {
            let mut stable = BTreeMap::from_iter((0..12_usize).map(|s| (s, vec![0])));
            let mut last = [0; 12];
            for event in &log[..cut] {
                match event {
                    Event::Write { at, bytes } => {
                        let sector = *at as usize / SECTOR;
                        last[sector] = bytes[0];
                        stable.entry(sector).or_default().push(bytes[0]);
                    }
                    Event::Flush => {
                        for (sector, fills) in &mut stable {
                            *fills = vec![last[*sector]];
                        }
                    }
                }
            }
            stable
        };
        let mut cuts = BTreeSet::new();
        for image in disk.crash_images(CrashPlan { seed, ..CrashPlan::default() }) {
            let image = image.expect("in memory");
            cuts.insert(image.cut);
            let possible = possible(image.cut);
            for (sector, fill) in fills(&image.disk).into_iter().enumerate() {
                prop_assert!(possible[&sector].contains(&fill), "{:?}", image.survive);
            }
        }
        // One cut for every run of writes, right after it.
        let ends = (1..=log.len()).filter(|end| {
            matches!(log[end - 1], Event::Write { .. })
                && !matches!(log.get(*end), Some(Event::Write { .. }))
        });
        let expected: BTreeSet<usize> = ends.chain([0]).collect();
        prop_assert_eq!(cuts, expected);
        prop_assert_eq!(fills(&disk.crash(log.len(), Survive::All).expect("in memory")), fills(&disk));
    }
}
