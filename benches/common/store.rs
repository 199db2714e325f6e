//! Volumes opened for writing, and plain writes of the same kind beside them.

use super::build::bulk::PFS;
use super::input::Input;
use mallet::btree::Editor;
use mallet::format::record::PfsData;
use mallet::fs::newfs::{NewFs, newfs};
use mallet::fs::recover;
use mallet::fs::{pfs, pfs_edit};
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

/// A file of at least `size` bytes, every block of it written, so that the host allocates nothing
/// when it is written again. One that is there is taken as it is.
pub fn full_file(path: &Path, size: u64) {
    use std::os::unix::fs::MetadataExt;
    let whole = |found: &std::fs::Metadata| found.len() == size && found.blocks() * 512 >= size;
    if std::fs::metadata(path).is_ok_and(|found| whole(&found)) {
        return;
    }
    let mut file = File::create(path).expect("a file");
    let piece = vec![0xA5; 1 << 20];
    for _ in 0..size.div_ceil(1 << 20) {
        file.write_all(&piece).expect("room for a file");
    }
    file.set_len(size).expect("the file's length");
    file.sync_all().expect("a stable file");
}

/// A file written in full, with room for a copy of an image of `size` bytes, its log and its tree.
pub fn target(size: u64) -> PathBuf {
    let path = super::input::folder().join("target.img");
    let size = size + size / 8 + (256 << 20);
    full_file(&path, size.next_multiple_of(8 << 20));
    path
}

/// A fresh file system over whatever the file in `path` holds.
pub fn fresh(path: &Path) {
    let options = io::OpenOptions {
        direct: Direct::On,
        write: true,
        ..io::OpenOptions::default()
    };
    let mut devices = [io::open(path, &options).expect("an image that opens")];
    let what = NewFs {
        label: b"bench".to_vec(),
        version: 7,
        undo_bytes: None,
        fsid: *b"a file system id",
        now: NOW,
    };
    newfs(&mut devices, &what).expect("a file system");
}

/// A fresh file system with a slave of the input's PFS as PFS 1.
pub fn fresh_slave(path: &Path, input: &Input) {
    fresh(path);
    let mut view = super::engine::view(&input.path, 1 << 20);
    let master = pfs::load(&mut view, PFS)
        .expect("a readable record")
        .expect("the PFS");
    let mut store = open(path, 1 << 20);
    let mut txn = store.begin(NOW).expect("a transaction");
    let mut data = PfsData::default_for(*b"a slave's own id");
    data.shared_uuid = master.data.shared_uuid;
    data.mirror_flags.set(PfsData::SLAVE);
    data.sync_beg_tid.set(1);
    data.sync_end_tid.set(1);
    pfs_edit::store_record(&mut Editor::new(), &mut txn, PFS, &data).expect("a record");
    txn.commit().expect("a slave");
}
