//! The library's calls that are measured, each once.

use mallet::btree::{Scan, Step};
use mallet::check;
use mallet::format::{Key, Tid};
use mallet::fs;
use mallet::io::{self, Direct, Op, OpenOptions};
use mallet::mirror::split;
use mallet::mirror::window::one_way;
use mallet::mirror::wire::Sink;
use mallet::mirror::{self, Asked, Clock, Counts, Edge, Request, SourcePfs};
use mallet::store::{View, ViewOptions, VolumeSet};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one sequential read of the baseline.
const PIECE: u64 = 1 << 20;
/// Reads of the baseline in flight.
const DEPTH: usize = 32;

/// A view of the volume in `path`, read past the page cache, with `cache` bytes of cache.
pub fn view(path: &Path, cache: usize) -> View {
    view_through(path, cache, Direct::On)
}

/// The same, past the page cache or through it.
pub fn view_through(path: &Path, cache: usize, direct: Direct) -> View {
    let options = OpenOptions {
        direct,
        ..OpenOptions::default()
    };
    let device = io::open(path, &options).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    let options = ViewOptions {
        cache_bytes: cache,
        ..ViewOptions::default()
    };
    View::open(set, &options).expect("a view")
}

/// What serves reads of the file in `path`.
pub fn describe(path: &Path) -> String {
    let options = OpenOptions {
        direct: Direct::On,
        ..OpenOptions::default()
    };
    io::open(path, &options)
        .expect("an image that opens")
        .engine()
}

/// Reads the whole file in order with the device engine alone; gives the bytes read.
pub fn read_through(path: &Path) -> u64 {
    let options = OpenOptions {
        direct: Direct::On,
        depth: DEPTH,
        buffers: DEPTH,
        ..OpenOptions::default()
    };
    let mut device = io::open(path, &options).expect("an image that opens");
    let size = device.size();
    let (mut next, mut read) = (0, 0);
    let mut done = Vec::new();
    while next < size || device.in_flight() > 0 {
        while next < size && device.in_flight() < DEPTH {
            let buf = device.buffer(PIECE.min(size - next) as usize);
            device
                .submit(next, Op::Read { at: next, buf })
                .expect("room in the queue");
            next = (next + PIECE).min(size);
        }
        device.reap(1, &mut done).expect("completions");
        for done in done.drain(..) {
            done.result.expect("bytes of the image");
            if let Op::Read { buf, .. } = done.op {
                read += buf.len() as u64;
            }
        }
    }
    read
}

/// Scans PFS `pfs` for what is at or after `begin`, the structure only; gives elements seen and
/// elements that are in the window.
pub fn scan(view: &mut View, pfs: u16, begin: Tid) -> (u64, u64) {
    let mut scan = Scan::new(Key::pfs_min(pfs), Key::pfs_max(pfs), begin);
    let (mut seen, mut new) = (0, 0);
    while let Some(step) = scan.next(view).expect("a readable tree") {
        match step {
            Step::Leaf(leaf) => {
                for element in leaf.elements() {
                    seen += 1;
                    new += u64::from(element.base.create_tid() >= begin);
                }
            }
            Step::Skip { .. } => {}
            Step::Unreadable { error, .. } => panic!("{error}"),
        }
    }
    (seen, new)
}

/// The host's clock.
pub struct Host(pub Instant);

impl Clock for Host {
    fn now(&mut self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Streams PFS `pfs` from `begin` on to `/dev/null`, as `mirror-read` does without options.
pub fn mirror_read(view: &mut View, pfs: u16, begin: Tid) -> Counts {
    let pfs = fs::pfs::load(view, pfs)
        .expect("a readable record")
        .expect("the PFS");
    let pfs = SourcePfs::from(&pfs);
    let asked = Asked {
        begin: Some(begin),
        end: None,
    };
    let request = Request {
        pfs,
        window: one_way(&pfs, asked, None).expect("a window"),
        split: Some(split::DEFAULT),
        accept_damage: false,
        live: false,
    };
    let null = File::create("/dev/null").expect("/dev/null");
    let mut edge = Edge {
        clock: &mut Host(Instant::now()),
        progress: &mut (),
        events: &mut |_| {},
    };
    let mut out = Sink::new(null, None);
    let report = mirror::run(view, &request, &mut out, &mut edge).expect("a whole stream");
    assert!(report.stopped.is_none() && report.damage.is_empty());
    report.counts
}

/// Checks the volume, its file data too if `data`; it must be clean.
pub fn check(view: &mut View, data: bool) -> check::Report {
    let options = check::Options {
        data,
        ..check::Options::default()
    };
    let mut found = |finding: check::Finding| eprintln!("   {}", finding.fault);
    let report = check::run(view, &options, &mut found, &mut ()).expect("a whole check");
    assert_eq!((report.errors(), report.warnings()), (0, 0));
    report
}
