//! The suite of all devices over loop devices with 512- and 4096-byte sectors. They need root and
//! are skipped aloud without it.

mod common;
mod suite;

use common::loopdev::Loop;
use mallet::error::Class;
use mallet::io::lock::{Lock, acquire, claim};
use mallet::io::{Direct, OpenOptions, open};
use std::fs;
use std::time::Duration;
use suite::*;

#[test]
fn loop_devices() {
    for sector in [512, 4096] {
        let folder = folder();
        let mut expected = noise((3 << 20) + 3 * sector, 11);
        let path = image(folder.path(), &expected);
        let Some(device) = Loop::new(&path, sector, false) else {
            return;
        };
        suite(&device.0, &mut expected, true, 0);
        for offset in [65536, sector + 100] {
            let mut inside = expected[offset..].to_vec();
            let options = OpenOptions {
                offset: offset as u64,
                ..OpenOptions::default()
            };
            let mut opened = open(&device.0, &options).expect("opens");
            assert!(opened.align() >= sector.min(4096) || opened.engine().contains("buffered"));
            reading(&mut *opened, &inside);
            writing(&device.0, &options, &mut inside, 12);
            expected.splice(offset.., inside);
        }
        // Locks and claims.
        let lock = |kind| acquire(&device.0, 0, kind, Duration::ZERO);
        let held = lock(Lock::Write).expect("nobody holds it");
        assert_eq!(lock(Lock::Read).expect_err("held").class(), Class::Busy);
        lock(Lock::Stream(3)).expect("another byte");
        drop(held);
        let claimed = claim(&device.0)
            .expect("not in use")
            .expect("a block device");
        let error = claim(&device.0).expect_err("claimed");
        assert_eq!(error.class(), Class::Busy, "{error}");
        open(&device.0, &OpenOptions::default()).expect("readers may");
        drop(claimed);
        // A program that another test starts meanwhile has the claim too, until it runs.
        let free = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            claim(&device.0).is_ok()
        });
        assert!(free, "free again");
        drop(device);
        assert!(fs::read(&path).expect("the file") == expected);
    }
}

/// A device that is no multiple of its sector, as only a loop device can be, ends with the last
/// whole one. (Through the page cache Linux may fail reads near it.)
#[test]
fn a_loop_device_with_a_broken_sector() {
    let folder = folder();
    let bytes = noise((3 << 20) + 4096 + 1536, 12);
    let path = image(folder.path(), &bytes);
    let Some(device) = Loop::new(&path, 4096, false) else {
        return;
    };
    for (engine, direct) in MODES
        .into_iter()
        .filter(|(_, direct)| *direct != Direct::Off)
    {
        if let Some(mut opened) = try_open(&device.0, &options(engine, direct)) {
            reading(&mut *opened, &bytes[..(3 << 20) + 4096]);
        }
    }
}

#[test]
fn read_only_loop_devices() {
    for sector in [512, 4096] {
        let folder = folder();
        let mut expected = noise(2 << 20, 13);
        let path = image(folder.path(), &expected);
        let Some(device) = Loop::new(&path, sector, true) else {
            return;
        };
        suite(&device.0, &mut expected, false, 0);
        let write = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let error = open(&device.0, &write).map(drop).expect_err("read-only");
        assert!(matches!(error.class(), Class::Io), "{error}");
        acquire(&device.0, 0, Lock::Read, Duration::ZERO).expect("reading needs no more");
        drop(device);
        assert!(fs::read(&path).expect("the file") == expected);
    }
}
