//! The suite of all devices over image files: on a disk, on tmpfs, inside a larger file, for an
//! ordinary user; and what the engines do when something is missing or goes away.

mod suite;

use mallet::error::Class;
use mallet::io::lock::{Lock, acquire};
use mallet::io::{Direct, Done, Engine, Op, OpenOptions, open};
use nix::sys::resource::{Resource, setrlimit};
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use suite::*;

#[test]
fn files() {
    for len in [3_000_000, 1 << 21, (1 << 20) + 1] {
        let folder = folder();
        let mut expected = noise(len, 3);
        let path = image(folder.path(), &expected);
        suite(&path, &mut expected, true, 0);
        assert_eq!(fs::metadata(&path).expect("it exists").len(), len as u64);
    }
}

#[test]
fn tmpfs() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        // Not by a macro that the test runner captures: a skip is to be seen.
        let _ = writeln!(std::io::stderr(), "skipped: no /dev/shm");
        return;
    };
    let mut expected = noise(2_000_000, 4);
    let path = image(folder.path(), &expected);
    suite(&path, &mut expected, true, 0);
}

#[test]
fn inside_a_larger_file() {
    let folder = folder();
    let whole = noise(3_000_000, 5);
    let path = image(folder.path(), &whole);
    let mut expected = whole.clone();
    // Sectors, half sectors and bytes; direct transfers only where they can be.
    for offset in [1 << 20, 4096 * 3 + 512, 777] {
        for (engine, direct) in [
            (Engine::Auto, Direct::Auto),
            (Engine::Uring, Direct::Off),
            (Engine::Posix, Direct::Off),
        ] {
            let options = OpenOptions {
                offset: offset as u64,
                ..options(engine, direct)
            };
            let Some(mut device) = try_open(&path, &options) else {
                continue;
            };
            assert_eq!(device.name(), format!("{}@{offset}", path.display()));
            let inside = format!("{}@{}", path.display(), offset + 99);
            assert_eq!(device.name_at(99), inside);
            reading(&mut *device, &expected[offset..]);
            writing(&path, &options, &mut expected[offset..], offset as u64);
        }
        assert!(fs::read(&path).expect("the file") == expected);
        assert!(expected[..777] == whole[..777], "nothing before the offset");
    }
    let crooked = OpenOptions {
        offset: 777,
        ..options(Engine::Posix, Direct::On)
    };
    let error = open(&path, &crooked)
        .map(drop)
        .expect_err("cannot be direct");
    assert_eq!(error.class(), Class::Usage, "{error}");
}

#[test]
fn dropped_with_operations_in_flight() {
    let folder = folder();
    let path = image(folder.path(), &vec![0; 1 << 21]);
    let bytes = noise(1 << 21, 6);
    for (engine, direct) in MODES {
        let options = OpenOptions {
            write: true,
            ..options(engine, direct)
        };
        let Some(mut device) = try_open(&path, &options) else {
            continue;
        };
        let mut kept = device.buffer(1 << 20);
        for at in (0..bytes.len()).step_by(1 << 17) {
            let op = write_op(&mut *device, at as u64, &bytes[at..at + (1 << 17)]);
            device.submit(at as u64, op).expect("room for 16");
        }
        drop(device);
        assert!(fs::read(&path).expect("the file") == bytes);
        // Memory of the pool outlives the device.
        kept.fill(1);
        fs::write(&path, vec![0; 1 << 21]).expect("the file");
    }
}

#[test]
fn buffers_of_another_device() {
    let folder = folder();
    let bytes = noise(1 << 20, 7);
    let path = image(folder.path(), &bytes);
    let mut first = open(&path, &OpenOptions::default()).expect("opens");
    let mut second = open(&path, &OpenOptions::default()).expect("opens");
    let op = read_op(&mut *first, 0, 1 << 20);
    let mut out = Vec::new();
    submit(&mut *second, 1, op, &mut out);
    finish(&mut *second, &mut out);
    let Done { op, result, .. } = out.remove(0);
    result.expect("readable");
    assert!(matches!(op, Op::Read { buf, .. } if buf[..] == bytes[..]));
}

#[test]
fn a_file_that_shrinks() {
    for (engine, direct) in MODES {
        let folder = folder();
        let path = image(folder.path(), &noise(1 << 20, 8));
        let Some(mut device) = try_open(&path, &options(engine, direct)) else {
            continue;
        };
        let file = File::options().write(true).open(&path).expect("the file");
        for len in [500_000, 499_712, 0] {
            file.set_len(len).expect("the file");
            let op = read_op(&mut *device, 491_520, 65536);
            let error = one(&mut *device, op).expect_err("cut short");
            assert_eq!(
                error.kind(),
                ErrorKind::UnexpectedEof,
                "{len} {engine:?} {direct:?}"
            );
        }
    }
}

#[test]
fn direct_transfers_refused() {
    // A file of a file system that has no direct transfers, empty as far as it says.
    let path = Path::new("/proc/version");
    let device = open(path, &options(Engine::Auto, Direct::Auto)).expect("falls back");
    assert!(device.engine().contains("buffered"));
    let error = open(path, &options(Engine::Auto, Direct::On)).map(drop);
    let error = error.expect_err("no fallback was allowed");
    assert!(error.to_string().contains("--direct off"), "{error}");
}

#[test]
fn queues_have_limits() {
    let folder = folder();
    let path = image(folder.path(), &[0; 4096]);
    for options in [
        OpenOptions {
            depth: 0,
            ..OpenOptions::default()
        },
        OpenOptions {
            depth: 5000,
            ..OpenOptions::default()
        },
        OpenOptions {
            buffers: 5000,
            ..OpenOptions::default()
        },
    ] {
        let error = open(&path, &options).map(drop).expect_err("out of range");
        assert_eq!(error.class(), Class::Usage);
    }
    for depth in [1, 3, 4096] {
        let options = OpenOptions {
            depth,
            buffers: 0,
            ..OpenOptions::default()
        };
        let mut device = open(&path, &options).expect("opens");
        let mut taken = 0;
        loop {
            let op = read_op(&mut *device, 0, 4096);
            if device.submit(taken, op).is_err() {
                break;
            }
            taken += 1;
        }
        assert_eq!(taken, depth as u64);
        finish(&mut *device, &mut Vec::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Batches of reads anywhere, reaped now and then, give the file's bytes.
    #[test]
    fn batches(
        seed in 0..1000_u64,
        depth in 1..40_usize,
        reads in prop::collection::vec((0..512_usize, 1..64_usize, 0..4_usize), 1..80),
    ) {
        let folder = folder();
        let bytes = noise((1 << 21) + 12_345, seed);
        let path = image(folder.path(), &bytes);
        for (engine, direct) in MODES {
            let options = OpenOptions { depth, ..options(engine, direct) };
            let Some(mut device) = try_open(&path, &options) else { continue };
            let mut out = Vec::new();
            for (tag, (at, len, min)) in reads.iter().enumerate() {
                let at = at * 4096;
                let len = (len * 4096).min(bytes.len() - at);
                let op = read_op(&mut *device, at as u64, len);
                submit(&mut *device, tag as u64, op, &mut out);
                let before = out.len();
                if *min > 0 {
                    let possible = device.in_flight().min(*min);
                    device.reap(*min, &mut out).expect("the queue works");
                    prop_assert!(out.len() - before >= possible);
                }
            }
            finish(&mut *device, &mut out);
            let mut tags: Vec<u64> = out.iter().map(|done| done.tag).collect();
            tags.sort_unstable();
            prop_assert_eq!(tags, (0..reads.len() as u64).collect::<Vec<_>>());
            for done in out {
                prop_assert!(done.result.is_ok());
                let Op::Read { at, buf } = done.op else { panic!("a read comes back as one") };
                prop_assert!(buf[..] == bytes[at as usize..at as usize + buf.len()]);
            }
        }
    }
}

/// Runs the test `name` of this file again in a process of its own, with a folder to use; the
/// folder's path in that process.
fn in_child(name: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("MALLET_DEVICES_CHILD") {
        return Some(folder.into());
    }
    // Where an ordinary user can reach it.
    let folder = tempfile::tempdir().expect("a folder");
    let everyone = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), everyone).expect("my own");
    let test = std::env::current_exe().expect("this program");
    let status = Command::new(test)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("MALLET_DEVICES_CHILD", folder.path())
        .status();
    assert!(status.expect("this program runs").success());
    None
}

/// Becomes an ordinary user.
fn drop_root() {
    use nix::unistd::{Gid, Uid, geteuid, setgid, setuid};
    if geteuid().is_root() {
        setgid(Gid::from_raw(65534)).expect("root may");
        setuid(Uid::from_raw(65534)).expect("root may");
    }
}

#[test]
fn an_ordinary_user_with_little_locked_memory() {
    let Some(folder) = in_child("an_ordinary_user_with_little_locked_memory") else {
        return;
    };
    let expected = noise(2_000_000, 9);
    let path = image(&folder, &expected);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("my own");
    drop_root();
    for (limit, most) in [(3 << 20, 3), (65536, 0)] {
        setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).expect("less is always allowed");
        let mut device = open(&path, &options(Engine::Auto, Direct::Auto)).expect("opens");
        let engine = device.engine();
        let registered = (0..=most).any(|n| engine.ends_with(&format!("{n} MiB registered")));
        assert!(registered || engine.starts_with("posix"), "{engine}");
        reading(&mut *device, &expected);
    }
    let write = OpenOptions {
        write: true,
        ..OpenOptions::default()
    };
    let error = open(&path, &write).map(drop).expect_err("read-only");
    assert!(
        error.to_string().contains("cannot be opened for writing"),
        "{error}"
    );
    acquire(&path, 0, Lock::Read, Duration::ZERO).expect("reading needs no more");
    let error = acquire(&path, 0, Lock::Write, Duration::ZERO).expect_err("read-only");
    assert_eq!(error.class(), Class::Io);
}

#[test]
fn out_of_descriptors() {
    let Some(folder) = in_child("out_of_descriptors") else {
        return;
    };
    let expected = noise(1_000_000, 10);
    let path = image(&folder, &expected);
    let next = File::open("/dev/null").expect("it exists").as_raw_fd() as u64;
    // Enough for the file, not for a ring.
    setrlimit(Resource::RLIMIT_NOFILE, next + 2, next + 2).expect("less is always allowed");
    let error = open(&path, &options(Engine::Uring, Direct::Auto)).map(drop);
    let error = error.expect_err("no ring");
    assert!(error.to_string().contains("--io posix"), "{error}");
    let mut device = open(&path, &options(Engine::Auto, Direct::Auto)).expect("opens");
    assert!(device.engine().starts_with("posix"));
    reading(&mut *device, &expected);
}
