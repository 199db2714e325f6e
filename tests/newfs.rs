//! `newfs`: what it makes is whole, of every version and shape; what it must not touch, it does not
//! touch; a crash in the middle leaves no file system.

mod common;

use common::program::{err, events, mallet, out, run, status, text};
use mallet::check::{self, Options, Severity};
use mallet::error::Class;
use mallet::format::volume::VolumeHeader;
use mallet::fs::newfs::{Made, NewFs, least_size, newfs, newfs_within};
use mallet::io::Device;
use mallet::io::lock::{self, Lock};
use mallet::io::sim::{Event, SimDisk};
use mallet::store::{View, ViewOptions, VolumeSet};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Start of zone 2 on every volume.
const BEGIN: u64 = 0x88000;

fn what(version: u32, undo: Option<u64>) -> NewFs {
    NewFs {
        label: b"LABEL".to_vec(),
        version,
        undo_bytes: undo,
        fsid: [7; 16],
        now: 1_700_000_000_123_456,
    }
}

fn devices(disks: &[SimDisk], seed: u64) -> Vec<Box<dyn Device>> {
    let device = |disk: &SimDisk| Box::new(disk.device(seed)) as Box<dyn Device>;
    disks.iter().map(device).collect()
}

fn view(disks: &[SimDisk]) -> View {
    let set = VolumeSet::open(devices(disks, 3)).expect("a volume set");
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// Everything holds, warnings included.
fn assert_whole(disks: &[SimDisk]) -> VolumeHeader {
    let mut view = view(disks);
    let options = Options {
        data: true,
        ..Options::default()
    };
    let mut findings = Vec::new();
    check::run(&mut view, &options, &mut |f| findings.push(f), &mut ()).expect("a check");
    // The root leaf of a fresh file system says mirror_tid 0, as DragonFly's does.
    findings.retain(|finding| finding.severity == Severity::Error);
    assert!(findings.is_empty(), "{findings:?}");
    *view.volumes().root_header()
}

fn make(disks: &[SimDisk], version: u32, undo: Option<u64>) -> Made {
    newfs(&mut devices(disks, 5), &what(version, undo)).expect("a file system")
}

#[test]
fn every_version_is_whole() {
    for version in 4..=7 {
        let disk = SimDisk::new(100 * MIB);
        let made = make(std::slice::from_ref(&disk), version, None);
        assert_eq!((made.undo_bytes, made.bigblocks), (8 * MIB, 9));
        let header = assert_whole(&[disk]);
        assert_eq!(header.version.get(), version);
        assert_eq!(header.label(), b"LABEL");
        assert_eq!(header.stat_freebigblocks.get(), 7);
    }
}

/// Around whole big-blocks, with tails; the least size of all.
#[test]
fn sizes_at_the_edges() {
    let least = least_size(0, 8 * MIB);
    assert_eq!(least, BEGIN + 7 * 8 * MIB);
    for size in [
        least,
        least + 1,
        least + 16383,
        least + 16384,
        least + 8 * MIB - 1,
        least + 8 * MIB,
        least + 8 * MIB + 4096,
    ] {
        let disk = SimDisk::new(size);
        let made = make(std::slice::from_ref(&disk), 7, None);
        assert_eq!(made.free_bigblocks, (size - BEGIN) / (8 * MIB) - 5);
        let header = assert_whole(&[disk]);
        assert_eq!(header.buf_end.get(), (size & !16383).cast_signed());
    }
    for size in [0, 1, 16384, BEGIN, least - 1] {
        let disk = SimDisk::new(size);
        let before = disk.counts();
        let error = newfs(&mut devices(std::slice::from_ref(&disk), 1), &what(7, None))
            .expect_err("too small");
        assert_eq!(error.class(), Class::Usage);
        assert!(error.to_string().contains(&least.to_string()), "{error}");
        assert_eq!(disk.counts(), before, "nothing was touched");
    }
}

#[test]
fn many_volumes() {
    let sizes = [80, 40, 17, 120].map(|mib| SimDisk::new(mib * MIB + 12345));
    let made = make(&sizes, 7, Some(9 * MIB));
    assert_eq!(made.undo_bytes, 16 * MIB);
    let header = assert_whole(&sizes);
    assert_eq!(header.vol_count.get(), 4);
    let small = [SimDisk::new(80 * MIB), SimDisk::new(16 * MIB)];
    let error = newfs(&mut devices(&small, 1), &what(7, None)).expect_err("too small");
    assert!(error.to_string().contains("volume 1"), "{error}");
    let most: Vec<SimDisk> = (0..256).map(|_| SimDisk::new(80 * MIB)).collect();
    make(&most, 6, None);
    assert_eq!(assert_whole(&most).vol_count.get(), 256);
}

/// More than one layer-2 array, on a disk that only holds what was written.
#[test]
fn more_than_four_tebibytes() {
    let disk = SimDisk::new((4 << 40) + BEGIN + 8 * MIB);
    let made = make(std::slice::from_ref(&disk), 7, Some(8 * MIB));
    assert_eq!(made.bigblocks, 524_289 - 4);
    assert_whole(&[disk]);
}

#[test]
fn bad_requests() {
    let disk = SimDisk::new(100 * MIB);
    let refused = |change: &dyn Fn(&mut NewFs)| {
        let mut what = what(7, None);
        change(&mut what);
        let error =
            newfs(&mut devices(std::slice::from_ref(&disk), 1), &what).expect_err("refused");
        assert_eq!(error.class(), Class::Usage, "{error}");
    };
    refused(&|what| what.label = Vec::new());
    refused(&|what| what.label = vec![b'x'; 64]);
    refused(&|what| what.label = b"a\0b".to_vec());
    refused(&|what| what.version = 3);
    refused(&|what| what.version = 8);
    refused(&|what| what.undo_bytes = Some(0));
    refused(&|what| what.undo_bytes = Some((1 << 30) + 1));
    refused(&|what| what.undo_bytes = Some(64 * MIB));
    assert_eq!(disk.now(), 0, "nothing was written");
    let longest = NewFs {
        label: vec![b'x'; 63],
        ..what(7, None)
    };
    newfs(&mut devices(std::slice::from_ref(&disk), 1), &longest).expect("63 bytes fit");
    assert_eq!(assert_whole(&[disk]).label(), [b'x'; 63]);
}

/// Bytes that belong to nothing stay as they were, and a volume ends where it is told to.
#[test]
fn nothing_else_is_touched() {
    let disk = SimDisk::new(100 * MIB);
    let garbage = vec![0xA5; MIB as usize];
    for at in 0..100 {
        disk.write(at * MIB, &garbage).expect("inside the disk");
    }
    let mut devices = devices(std::slice::from_ref(&disk), 1);
    let made = newfs_within(&mut devices, 80 * MIB, &what(7, None)).expect("a file system");
    assert_eq!(made.bigblocks, 6);
    let bytes = disk.read(0, 100 << 20).expect("the disk");
    let bigblock = |n: u64| (BEGIN + n * 8 * MIB) as usize;
    let written = [
        0..16384,
        bigblock(0)..bigblock(3),
        bigblock(3)..bigblock(3) + 4096,
        bigblock(4)..bigblock(4) + 420,
    ];
    let untouched = (0..bytes.len()).filter(|at| !written.iter().any(|range| range.contains(at)));
    let mut count = 0;
    for at in untouched {
        assert_eq!(bytes[at], 0xA5, "byte {at:#x}");
        count += 1;
    }
    assert!(count > 70 << 20);
    assert_eq!(assert_whole(&[disk]).buf_end.get(), 80 << 20);
}

/// Whatever a power cut leaves of the writes since the last flush: the old file system is gone
/// before anything of it is overwritten, and the new one is there whole or not at all.
#[test]
fn a_crash_leaves_no_half_file_system() {
    let disks = [SimDisk::new(80 * MIB), SimDisk::new(40 * MIB)];
    make(&disks, 6, None);
    for disk in &disks {
        disk.flush();
        disk.forget_log();
    }
    let old = disks[0].read(0, 1928).expect("a header");
    make(&disks, 7, None);
    let log = disks[0].log();
    let first_flush = log.iter().position(|event| matches!(event, Event::Flush));
    let wiped = first_flush.expect("a flush");
    assert!(
        log[..wiped]
            .iter()
            .all(|event| matches!(event, Event::Write { at: 0, .. }))
    );
    let header = log.iter().rposition(
        |event| matches!(event, Event::Write { at: 0, bytes } if bytes.iter().any(|b| *b != 0)),
    );
    let header = header.expect("the new header");
    assert!(
        matches!(log[header - 1], Event::Flush),
        "all else is stable"
    );
    assert!(matches!(log[header + 1..], [Event::Flush]), "it comes last");
    for event in &log[..header] {
        if let Event::Write { at: 0, bytes } = event {
            assert_ne!(bytes[..1928], old[..]);
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
    }
    assert_whole(&disks);
}

#[test]
fn the_command_makes_image_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let (a, b) = (dir.path().join("a.img"), dir.path().join("b.img"));
    let output = run(&["newfs", "-L", "x", "--size", "320m", text(&a)]);
    assert_eq!((status(&output), err(&output)), (0, String::new()));
    assert!(out(&output).contains("version   7"), "{}", out(&output));
    assert_eq!(fs::metadata(&a).expect("a file").len(), 320 * MIB);
    let checked = run(&["check", "--data", text(&a)]);
    assert_eq!(status(&checked), 0, "{}", out(&checked));

    // Not again, unless it is meant; and a small one is told apart.
    let again = run(&["newfs", "-L", "x", text(&a)]);
    assert_eq!(status(&again), 3);
    assert!(
        err(&again).contains("holds a HAMMER volume; -f"),
        "{}",
        err(&again)
    );
    let line = ["newfs", "-f", "-V4", "-u8m", "--json", "-Ly", "--size=100m"];
    let output = run(&[&line[..], &[text(&a), text(&b)]].concat());
    assert!(err(&output).contains("304 MiB"), "{}", err(&output));
    let events = events(&out(&output), 0);
    let summary = events.last().expect("a summary");
    assert_eq!(
        (&summary["version"], &summary["undo_bytes"]),
        (&4.into(), &(8 * MIB).into())
    );
    assert_eq!(summary["volumes"], 2);
    assert_eq!(
        fs::metadata(&a).expect("a file").len(),
        320 * MIB,
        "not cut"
    );
    let both = format!("{},{}", text(&a), text(&b));
    let checked = run(&["check", "--data", &both]);
    assert_eq!(status(&checked), 0, "{}", out(&checked));
}

#[test]
fn the_command_refuses() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| text(&dir.path().join(name)).to_owned();
    let new = |words: &[&str]| run(&[&["newfs", "-L", "x"], words].concat());
    let refused = |words: &[&str], code: i32, hint: &str| {
        let output = new(words);
        assert_eq!(status(&output), code, "{words:?}: {}", err(&output));
        assert!(err(&output).contains(hint), "{words:?}: {}", err(&output));
    };
    let (none, small) = (at("none"), at("small"));
    refused(&[&none], 2, "--size");
    refused(&["--size", "8m", &small], 2, "too small");
    assert!(!Path::new(&small).exists(), "what it made is gone again");
    refused(&["--size", "100m", &none, &none], 2, "twice");
    refused(&["--size", "100m", "-u", "2g", &none], 2, "1 GiB");
    refused(&["-V", "3", "--size", "100m", &none], 2, "4..=7");
    refused(&["--size", "100m", "host:x"], 2, "this machine");
    refused(&["--size", "100m", &format!("{none}#1")], 2, "PFS");
    refused(&[text(dir.path())], 2, "neither a regular file");

    let ext = at("ext");
    let mut bytes = vec![0; 100 << 20];
    bytes[0x438..0x43A].copy_from_slice(&[0x53, 0xEF]);
    fs::write(&ext, &bytes).expect("room");
    refused(&[&ext], 3, "ext4");
    assert_eq!(fs::read(&ext).expect("a file"), bytes, "untouched");
    let letter = at("letter");
    fs::write(&letter, b"Dear reader").expect("room");
    refused(&["--size", "100m", &letter], 3, "not empty");
    let empty = at("empty");
    File::create(&empty).expect("a file");
    assert_eq!(
        status(&new(&["--size", "100m", &empty])),
        0,
        "empty files grow"
    );

    let held = lock::acquire(Path::new(&empty), 0, Lock::Read, Duration::ZERO).expect("a lock");
    refused(&["-f", &empty], 4, "reading");
    drop(held);
    assert_eq!(status(&new(&["-f", &empty])), 0);
}

#[test]
fn a_dry_run_makes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("v.img");
    let output = run(&["newfs", "-n", "-L", "x", "--size", "1g", text(&path)]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(
        out(&output).contains("undo      64.0 MiB"),
        "{}",
        out(&output)
    );
    assert!(!path.exists());
}

/// A volume inside a larger file leaves what is before and behind it alone.
#[test]
fn a_volume_at_an_offset() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("disk.img");
    fs::write(&path, vec![0xEE; 110 << 20]).expect("room");
    let volume = format!("{}@4m", text(&path));
    let output = mallet()
        .args(["newfs", "-L", "x", "--size", "100m", &volume])
        .output()
        .expect("the program runs");
    assert_eq!(status(&output), 0, "{}", err(&output));
    let bytes = fs::read(&path).expect("a file");
    assert_eq!(bytes.len(), 110 << 20);
    assert!(bytes[..4 << 20].iter().all(|byte| *byte == 0xEE));
    assert!(bytes[104 << 20..].iter().all(|byte| *byte == 0xEE));
    assert_eq!(status(&run(&["check", "--data", &volume])), 0);
}
