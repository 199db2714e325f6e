//! A device whose queue is full when a read comes, and empty a moment later.

mod common;

use common::build::Options;
use common::build::bulk::{Bulk, Changes};
use mallet::format::{BUFFER, Offset};
use mallet::io::{Buf, Device, Done, Op};
use mallet::store::{Fetch, View, ViewOptions, VolumeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Takes two operations at a time and completes both at every second look.
struct Sleepy {
    file: File,
    held: Vec<(u64, Op)>,
    looks: u64,
}

impl Device for Sleepy {
    fn size(&self) -> u64 {
        self.file.metadata().expect("its size").len()
    }
    fn align(&self) -> usize {
        512
    }
    fn name(&self) -> &str {
        "sleepy"
    }
    fn depth(&self) -> usize {
        2
    }
    fn buffer(&mut self, len: usize) -> Buf {
        Buf::zeroed(len)
    }
    fn submit(&mut self, tag: u64, op: Op) -> Result<(), Op> {
        if self.held.len() == 2 {
            return Err(op);
        }
        self.held.push((tag, op));
        Ok(())
    }
    fn reap(&mut self, min: usize, out: &mut Vec<Done>) -> io::Result<()> {
        self.looks += 1;
        if min == 0 && self.looks % 2 == 1 {
            return Ok(());
        }
        for (tag, mut op) in self.held.drain(..) {
            let result = match &mut op {
                Op::Read { at, buf } => self.file.read_exact_at(buf, *at),
                _ => Ok(()),
            };
            out.push(Done { tag, op, result });
        }
        Ok(())
    }
    fn in_flight(&self) -> usize {
        self.held.len()
    }
}

/// A read that waits in line while everything before it completes at once is not lost.
#[test]
fn a_full_queue_that_empties_at_once_loses_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut options = Options::new(folder.path().join("image"), 7, 0);
    let bulk = Bulk {
        files: 2000,
        files_per_dir: 500,
        sizes: 0..=0,
        changes: Changes::None,
        scattered: false,
    };
    options.volumes[0].1 = bulk.needs(&options).1;
    let made = bulk.build(&options);
    let place = |n: u64| Offset(made.built.root.buffer().0 - 2 * n * BUFFER as u64);
    for first_look in 0..2 {
        let device = Sleepy {
            file: File::open(&options.volumes[0].0).expect("an image"),
            held: Vec::new(),
            looks: first_look,
        };
        let set = VolumeSet::open(vec![Box::new(device)]).expect("a volume");
        let mut view = View::open(set, &ViewOptions::default()).expect("a view");
        for round in 0..4 {
            let ahead: Vec<_> = (1..6).map(|n| (place(8 * round + n), BUFFER)).collect();
            view.want(&ahead);
            view.bytes(place(8 * round), BUFFER)
                .expect("a read that is not lost");
        }
    }
}
