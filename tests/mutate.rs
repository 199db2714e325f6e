//! Small volumes damaged at random, by seed: flipped bits, overwritten fields, pointers that lead to
//! the wrong place or back, checksums made good again or not, images cut short. Nothing may panic,
//! run for ever or take memory without end. `MALLET_SEED=0x…` runs one seed alone.

mod common;
#[allow(dead_code)]
#[path = "common/mutate.rs"]
mod mutate;
#[allow(dead_code)]
#[path = "common/wreck.rs"]
mod wreck;

use common::readers;
use mallet::check::Options;
use mallet::io::{Buf, Device, Done, Op};
use mutate::Random;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wreck::Base;

/// Damaged volumes tried; with `MALLET_SOAK` set twenty times as many.
const CASES: u64 = 1000;
/// No single one may take longer; most take a hundredth.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bound of the whole process's memory: two threads with two caches of 4 MiB each.
const MEMORY_MAX_KIB: u64 = 384 << 10;

/// A device that ends early.
struct Short {
    device: Box<dyn Device>,
    size: u64,
}

impl Device for Short {
    fn size(&self) -> u64 {
        self.size
    }
    fn align(&self) -> usize {
        self.device.align()
    }
    fn name(&self) -> &str {
        self.device.name()
    }
    fn depth(&self) -> usize {
        self.device.depth()
    }
    fn buffer(&mut self, len: usize) -> Buf {
        self.device.buffer(len)
    }
    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op> {
        self.device.submit(tag, op)
    }
    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()> {
        self.device.reap(min, out)
    }
    fn in_flight(&self) -> usize {
        self.device.in_flight()
    }
}

fn run(bases: &[Base], seed: u64) {
    let mut random = Random::new(seed);
    let base = &bases[random.below(bases.len())];
    let image = base.image();
    for _ in 0..1 + random.below(6) {
        base.damage(&image, &mut random);
    }
    let size = match random.below(20) {
        0 => random.any() % image.disk.size(),
        _ => image.disk.size(),
    };
    let device = || {
        let device = image.device();
        Box::new(Short { device, size }) as Box<dyn Device>
    };
    let options = Options {
        data: random.below(2) == 0,
        mirror_tid: random.below(2) == 0,
        per_rule: 3,
    };
    let (findings, report) = readers::check(device(), &options);
    for finding in findings {
        // Rendering is part of the job.
        assert!(!finding.fault.to_string().is_empty());
    }
    if let Err(error) = report {
        assert!(!error.to_string().is_empty());
    }
    let _ = readers::read_everything(device());
}

/// Peak memory of this process in KiB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn damaged_volumes_are_survived() {
    let names = [
        "mirror/pfs.img",
        "crash/crash-v4-n053.img",
        "crash/crash-v3-n180.img",
    ];
    let bases: Vec<Base> = names.iter().map(|name| Base::testdata(name)).collect();
    let one = std::env::var("MALLET_SEED").ok();
    if let Some(text) = one {
        let digits = text.trim_start_matches("0x");
        run(
            &bases,
            u64::from_str_radix(digits, 16).expect("a seed in hex"),
        );
        return;
    }
    let cases = common::soak(CASES);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cases {
                        return;
                    }
                    let start = Instant::now();
                    let result = catch_unwind(AssertUnwindSafe(|| run(&bases, seed)));
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
    if let Some(peak) = peak_memory() {
        println!("peak memory {peak} KiB");
        assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    }
}
