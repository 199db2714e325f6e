//! Small volumes damaged at random, by seed: flipped bits, overwritten fields, pointers that lead to
//! the wrong place or back, checksums made good again or not, images cut short. Nothing may panic,
//! run for ever or take memory without end. `MALLET_SEED=0x…` runs one seed alone.

mod common;
#[allow(dead_code)]
#[path = "common/mutate.rs"]
mod mutate;

use common::golden;
use common::patch::{Image, Place};
use common::readers;
use mallet::check::Options;
use mallet::format::{BUFFER, NODE_SIZE, Offset, Zone};
use mallet::io::{Buf, Device, Done, Op};
use mutate::Random;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

/// Damaged volumes tried; with `MALLET_SOAK` set twenty times as many.
const CASES: u64 = 1000;
/// No single one may take longer; most take a hundredth.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bound of the whole process's memory: two threads with two caches of 4 MiB each.
const MEMORY_MAX_KIB: u64 = 384 << 10;

/// A volume to damage, with the places worth damaging.
struct Base {
    path: PathBuf,
    nodes: Vec<Offset>,
    records: Vec<Place>,
    /// Layer-2 entries of the big-blocks in use.
    layer2: Vec<Offset>,
    layer1: Offset,
    /// The FIFO's buffers around its range to undo.
    fifo: Vec<Offset>,
}

impl Base {
    fn new(name: &str) -> Base {
        let path = golden::testdata(name);
        let image = Image::over(&path);
        let records = image.records();
        let mut nodes: Vec<Offset> = records.iter().map(|p| p.node).collect();
        nodes.push(image.root());
        nodes.dedup();
        let header = image.header();
        let used = (0..header.buffer_space() >> 23)
            .map(|i| image.layer2(Offset::new(Zone::RAW_BUFFER, 0, i << 23)))
            .filter(|(_, entry)| entry.owner() != Zone::FREE)
            .map(|(place, _)| place);
        let undo = Offset(header.undo_array[0].get());
        Base {
            layer2: used.collect(),
            layer1: image.layer1_place(Offset(0)),
            fifo: (0..24)
                .map(|i| Offset(undo.0 + i * BUFFER as u64))
                .collect(),
            path,
            nodes,
            records,
        }
    }

    /// An address that means something here: a loop, a wrong type, a wrong place.
    fn pointer(&self, random: &mut Random) -> u64 {
        let node = self.nodes[random.below(self.nodes.len())].0;
        let record = self.records[random.below(self.records.len())].leaf;
        match random.below(6) {
            0 | 1 => node,
            2 => record.data_offset.get(),
            3 => record.base.create_tid.get(),
            4 => record.base.obj_id.get().cast_unsigned(),
            _ => node ^ 1 << random.below(64),
        }
    }

    /// Changes a few bytes of a structure.
    fn mangle(&self, bytes: &mut [u8], random: &mut Random) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.any() as u8,
            2 => {
                let width = (2 << random.below(3)).min(bytes.len());
                let at = (at & !(width - 1)).min(bytes.len() - width);
                let value = [0, 1, u64::MAX, 1 << 63, 63, 64, 4096][random.below(7)];
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            3 if bytes.len() >= 8 => {
                let at = (at & !7).min(bytes.len() - 8);
                bytes[at..at + 8].copy_from_slice(&self.pointer(random).to_le_bytes());
            }
            _ => {
                let len = (64 >> random.below(4)).min(bytes.len());
                let (from, to) = (
                    random.below(bytes.len() - len + 1) & !7,
                    random.below(bytes.len() - len + 1) & !7,
                );
                bytes.copy_within(from..from + len, to);
            }
        }
    }

    /// Damages one structure of `image`; with its checksum made good two times in three.
    fn damage(&self, image: &Image, random: &mut Random) {
        let seal = random.below(3) != 0;
        let raw = |image: &Image, at: Offset, len: usize, random: &mut Random| {
            let mut bytes = image.read(at, len);
            self.mangle(&mut bytes, random);
            image.write(at, &bytes);
        };
        match random.below(16) {
            0 => {
                // Mostly behind the fields that make it a volume at all.
                let from = if random.below(4) == 0 { 0 } else { 0xC8 };
                image.edit_header(|h| self.mangle(&mut h.as_mut_bytes()[from..], random));
            }
            1 => {
                let at = self.fifo[random.below(self.fifo.len())];
                raw(image, at, BUFFER, random);
            }
            2 | 3 => {
                let at = self.layer2[random.below(self.layer2.len())];
                image.edit_sealed(at, 16, |entry| self.mangle(entry, random));
            }
            4 => image.edit_sealed(self.layer1, 32, |entry| self.mangle(entry, random)),
            5..=7 => {
                let at = self.nodes[random.below(self.nodes.len())];
                if seal {
                    // Its head, or anything in it.
                    let len = if random.below(2) == 0 { 256 } else { NODE_SIZE };
                    image.edit_node(at, |n| self.mangle(&mut n.as_mut_bytes()[4..len], random));
                } else {
                    raw(image, at, NODE_SIZE, random);
                }
            }
            8..=11 => {
                let place = self.records[random.below(self.records.len())];
                image.edit_leaf(&place, |leaf| self.mangle(leaf.as_mut_bytes(), random));
            }
            _ => {
                let place = self.records[random.below(self.records.len())];
                if seal {
                    image.edit_data(&place, |data| self.mangle(data, random));
                } else {
                    let len = place.leaf.data_len.get() as usize;
                    raw(image, place.leaf.data_offset(), len, random);
                }
            }
        }
    }
}

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
    let image = Image::over(&base.path);
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
    let bases: Vec<Base> = names.iter().map(|name| Base::new(name)).collect();
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
