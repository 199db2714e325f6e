//! What runs in a process of its own, by name; arguments are text, samples go to standard output.

use super::build::bulk::PFS;
use super::engine;
use super::input::drop_cached;
use super::measure::{Sample, Watch, peak_rss_of_children};
use super::raw::Raw;
use mallet::format::Tid;
use mallet::format::crc::CrcKind;
use mallet::format::node::Node;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zerocopy::IntoBytes;

/// Runs the case called `name`.
pub fn run(name: &str, args: &[String]) {
    let args = Args(args);
    match name {
        "raw" => print(&raw(&args.path(0))),
        "scan" => scan(&args.path(0), args.number(1), args.number(2)),
        "mirror" => print(&mirror(&args.path(0), args.number(1), args.number(2))),
        "check" => print(&check(&args.path(0), args.number(1), args.number(2) != 0)),
        "program" => print(&program(&args.path(0), &args.0[1..])),
        _ => super::writes::run(name, &args),
    }
}

pub fn print(sample: &Sample) {
    println!("{}", sample.line());
}

/// Arguments by position.
pub struct Args<'a>(&'a [String]);

impl Args<'_> {
    pub fn path(&self, index: usize) -> PathBuf {
        PathBuf::from(&self.0[index])
    }

    pub fn number(&self, index: usize) -> u64 {
        self.0[index].parse().expect("a number")
    }

    /// Those from `index` on.
    pub fn rest(&self, index: usize) -> &[String] {
        &self.0[index..]
    }
}

/// The file from end to end, cold.
fn raw(path: &Path) -> Sample {
    drop_cached(path);
    let watch = Watch::start();
    let bytes = engine::read_through(path);
    Sample {
        bytes,
        device_bytes: bytes,
        ..watch.stop()
    }
}

/// `mirror-read` from TID `begin` on to `/dev/null`, cold.
fn mirror(path: &Path, cache: u64, begin: u64) -> Sample {
    drop_cached(path);
    let watch = Watch::start();
    let mut view = engine::view(path, cache as usize);
    let counts = engine::mirror_read(&mut view, PFS, Tid(begin));
    Sample {
        items: counts.records,
        bytes: counts.stream_bytes,
        device_bytes: view.counters().bytes,
        ..watch.stop()
    }
}

/// `check`, or `check --data`, cold. Its bytes are those it reads from the device.
fn check(path: &Path, cache: u64, data: bool) -> Sample {
    drop_cached(path);
    let watch = Watch::start();
    let mut view = engine::view(path, cache as usize);
    let report = engine::check(&mut view, data);
    let device_bytes = view.counters().bytes;
    Sample {
        items: report.records,
        bytes: device_bytes,
        device_bytes,
        ..watch.stop()
    }
}

/// The program itself with these arguments, cold, its output thrown away. Counts nothing but time
/// and memory.
fn program(path: &Path, args: &[String]) -> Sample {
    drop_cached(path);
    let watch = Watch::start();
    let status = Command::new(env!("CARGO_BIN_EXE_mallet"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program");
    assert!(status.success(), "{args:?}: {status}");
    Sample {
        peak_rss: peak_rss_of_children(),
        ..watch.stop()
    }
}

/// Scans a tree that is in the cache: `pairs` times a sample of the scan and one of a plain pass
/// over the nodes' bytes that computes their CRCs. With no pairs, one scan, for its memory.
fn scan(path: &Path, cache: u64, pairs: u64) {
    let mut view = engine::view(path, cache as usize);
    let watch = Watch::start();
    let (items, _) = engine::scan(&mut view, PFS, Tid(1));
    if pairs == 0 {
        let device_bytes = view.counters().bytes;
        return print(&Sample {
            items,
            device_bytes,
            ..watch.stop()
        });
    }
    let read = view.counters().bytes;
    let nodes = all_nodes(path);
    for n in 0..pairs {
        let mut scanned = Sample::default();
        let mut summed = Sample::default();
        for turn in 0..2 {
            // The one that comes first goes second the next time.
            if (n + turn) % 2 == 0 {
                let watch = Watch::start();
                let seen = (0..ROUNDS).map(|_| engine::scan(&mut view, PFS, Tid(1)).0);
                scanned = Sample {
                    items: seen.sum(),
                    ..watch.stop()
                };
            } else {
                let watch = Watch::start();
                for _ in 0..ROUNDS {
                    black_box(crc_pass(&nodes));
                }
                summed = Sample {
                    items: items * ROUNDS,
                    ..watch.stop()
                };
            }
        }
        print(&scanned);
        print(&summed);
    }
    assert_eq!(view.counters().bytes, read, "a tree that is in the cache");
}

/// Passes in one sample, so that the clock's steps do not matter.
const ROUNDS: u64 = 10;

/// The bytes of all nodes, in key order.
fn all_nodes(path: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    Raw::open(&[path]).walk(Tid::ZERO, &mut |_, node| {
        all.extend_from_slice(node.as_bytes())
    });
    all
}

/// Computes every node's CRC; gives how many are right.
fn crc_pass(nodes: &[u8]) -> u64 {
    let mut right = 0;
    for bytes in nodes.chunks_exact(size_of::<Node>()) {
        let node = Node::from_bytes(bytes).expect("a node's length");
        right += u64::from(node.sum(CrcKind::Castagnoli) == node.crc.get());
    }
    right
}
