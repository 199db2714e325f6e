//! Volumes opened for writing, and plain writes of the same kind beside them.

use super::input::Input;
use mallet::fs::recover;
use mallet::io::{self, Buf, Direct};
use mallet::store::{Store, StoreOptions, VolumeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The time that changes carry, in microseconds since 1970.
pub const NOW: u64 = 1_800_000_000_000_000;
/// Bytes behind the volume's end in a working copy, for plain writes to the same file.
pub const TAIL: u64 = 8 << 20;

/// The volume in `path`, open for writing past the page cache, with `cache` bytes of cache.
pub fn open(path: &Path, cache: usize) -> Store {
    let options = io::OpenOptions {
        direct: Direct::On,
        write: true,
        ..io::OpenOptions::default()
    };
    let device = io::open(path, &options).expect("an image that opens");
    let set = VolumeSet::open(vec![device]).expect("a volume");
    let options = recover::OpenOptions {
        store: StoreOptions {
            cache_bytes: cache,
            ..StoreOptions::default()
        },
        redo: true,
        now: NOW,
    };
    recover::open(set, &options).expect("a store").0
}

/// A copy of an input that may be changed: written in full, with [`TAIL`] bytes behind it.
pub fn working_copy(input: &Input, name: &str) -> PathBuf {
    let path = input.path.with_file_name(name);
    let mut from = File::open(&input.path).expect("the input");
    let mut to = File::create(&path).expect("a working copy");
    let mut piece = vec![0; 1 << 20];
    loop {
        let len = from.read(&mut piece).expect("bytes of the input");
        if len == 0 {
            break;
        }
        to.write_all(&piece[..len]).expect("room for a copy");
    }
    piece.fill(0);
    for _ in 0..TAIL >> 20 {
        to.write_all(&piece).expect("room for a copy");
    }
    to.sync_all().expect("a stable copy");
    path
}

/// Plain writes past the page cache to the end of a file.
pub struct Plain {
    file: File,
    block: Buf,
    start: u64,
    next: u64,
}

impl Plain {
    /// Of blocks of `len` bytes, to the last [`TAIL`] bytes of the file in `path`.
    pub fn open(path: &Path, len: usize) -> Plain {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(nix::libc::O_DIRECT)
            .open(path)
            .expect("a file that opens past the page cache");
        let size = file.metadata().expect("the file's size").len();
        Plain {
            file,
            block: Buf::zeroed(len),
            start: size - TAIL,
            next: 0,
        }
    }

    /// Writes the next block and makes it stable.
    pub fn write(&mut self) {
        let at = self.start + self.next;
        self.next = (self.next + self.block.len() as u64) % TAIL;
        self.file
            .write_all_at(&self.block, at)
            .expect("a plain write");
        self.file.sync_data().expect("a flush");
    }
}
