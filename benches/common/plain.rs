//! The device engine alone, copying a file: what there is to compare a copy with.

use super::measure::{Sample, Watch};
use mallet::io::{self, Buf, Device, Direct, Op, OpenOptions};
use std::path::Path;

/// Bytes of one transfer.
const PIECE: u64 = 1 << 20;
/// Reads in flight, and writes.
const DEPTH: usize = 32;

/// Copies the first file to the start of the second, 1 MiB at a time, 32 reads and 32 writes in
/// flight, and makes it stable.
pub fn copy(from: &Path, to: &Path) -> Sample {
    let watch = Watch::start();
    let mut from = open(from, false);
    let mut to = open(to, true);
    let size = from.size();
    assert!(to.size() >= size, "room for a copy");
    // No buffer of one engine's pool goes to the other's device, so nothing is copied in memory.
    let mut free: Vec<Buf> = (0..2 * DEPTH)
        .map(|_| Buf::zeroed(PIECE as usize))
        .collect();
    let mut ready: Vec<(u64, Buf)> = Vec::new();
    let (mut next, mut written) = (0, 0);
    let mut done = Vec::new();
    while written < size {
        while next < size && from.in_flight() < DEPTH {
            let Some(mut buf) = free.pop() else { break };
            buf.truncate(PIECE.min(size - next) as usize);
            from.submit(next, Op::Read { at: next, buf })
                .expect("room in the queue");
            next = (next + PIECE).min(size);
        }
        while to.in_flight() < DEPTH {
            let Some((at, buf)) = ready.pop() else { break };
            to.submit(at, Op::Write { at, buf })
                .expect("room in the queue");
        }
        // Waits for a read where writes may be added, else for a write.
        let full = to.in_flight() == DEPTH;
        let wait = from.in_flight() > 0 && !full;
        from.reap(usize::from(wait), &mut done)
            .expect("completions");
        for done in done.drain(..) {
            done.result.expect("bytes of the source");
            if let Op::Read { at, buf } = done.op {
                ready.push((at, buf));
            }
        }
        let wait = to.in_flight() > 0 && !wait && ready.is_empty();
        to.reap(usize::from(wait || full), &mut done)
            .expect("completions");
        for done in done.drain(..) {
            done.result.expect("a written copy");
            if let Op::Write { buf, .. } = done.op {
                written += buf.len() as u64;
                free.push(buf);
            }
        }
    }
    to.submit(0, Op::Flush).expect("a queue that is empty");
    to.reap(1, &mut done).expect("completions");
    for done in done {
        done.result.expect("a stable copy");
    }
    Sample {
        bytes: size,
        device_bytes: size,
        written: size,
        ..watch.stop()
    }
}

fn open(path: &Path, write: bool) -> Box<dyn Device> {
    let options = OpenOptions {
        direct: Direct::On,
        depth: DEPTH,
        buffers: 0,
        write,
        ..OpenOptions::default()
    };
    io::open(path, &options).expect("an image that opens")
}
