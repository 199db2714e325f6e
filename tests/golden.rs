//! Listings of volumes made by DragonFly's kernel against the kernel's own listings, line for line:
//! every PFS, current and as of every listed TID; crashed volumes as their read-only mount shows
//! them. And no file is changed by being read.

mod common;

use common::{golden, oracle};
use mallet::format::record::ObjType;
use mallet::format::volume::VolumeHeader;
use mallet::format::{Offset, Tid};
use mallet::fs::list::{self, Detail, Entry};
use mallet::fs::namespace::Object;
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{Inode, Tree, file, pfs, root};
use mallet::io::sim::SimDisk;
use mallet::io::{OpenOptions, open};
use mallet::progress::Status;
use mallet::store::{View, ViewOptions, VolumeSet};
use nix::unistd::Whence;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

fn view(paths: &[PathBuf]) -> View {
    let devices = paths.iter().map(|path| {
        let device = open(path, &OpenOptions::default());
        device.expect("an image that opens")
    });
    let set = VolumeSet::open(devices.collect()).expect("volumes of one file system");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// The CRC-32 of a file, read in pieces of odd lengths that straddle blocks where it is short.
fn crc_of(view: &mut View, inode: &Inode, asof: Tid) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    if inode.size() < 4 << 20 {
        let mut buf = vec![0xAA; 30_011];
        let mut at = 0;
        loop {
            let len = file::read_at(view, inode, asof, at, &mut buf).expect("readable contents");
            hasher.update(&buf[..len]);
            at += len as u64;
            if len == 0 {
                return hasher.finalize();
            }
        }
    }
    let zeros = vec![0; 1 << 20];
    let mut reader = file::Reader::new(inode, asof);
    let mut at = 0;
    while let Some(piece) = reader.next(view).expect("readable contents") {
        assert_eq!(piece.at, at, "pieces follow each other");
        at += piece.len;
        match piece.body {
            file::Body::Data(bytes) => hasher.update(&bytes),
            file::Body::Bad(error) => panic!("{error}"),
            file::Body::Hole => {
                let mut left = piece.len;
                while left > 0 {
                    let step = left.min(zeros.len() as u64);
                    hasher.update(&zeros[..step as usize]);
                    left -= step;
                }
            }
        }
    }
    assert_eq!(at, inode.size());
    hasher.finalize()
}

/// An entry as the kernel's listings have it.
fn line(entry: &Entry, crc: u32) -> Vec<u8> {
    let a = entry.attributes.expect("an inode");
    let kind = match a.kind {
        Some(ObjType::Directory) => 'd',
        Some(ObjType::File) => 'f',
        Some(ObjType::Symlink) => 'l',
        _ => 'o',
    };
    let time = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let mut line = format!("{kind} ").into_bytes();
    line.extend_from_slice(&entry.path);
    let fields = format!(
        " mode={:04o} nlink={} uid={} gid={} size={} mtime={} ctime={} obj={:016x} lo={:08x}",
        a.mode,
        a.nlinks,
        a.uid.cast_signed(),
        a.gid.cast_signed(),
        a.size,
        time(a.mtime_us),
        time(a.ctime_us),
        entry.id.obj,
        u32::from(entry.id.pfs) << 16,
    );
    line.extend_from_slice(fields.as_bytes());
    if let Some(sum) = entry.sha256 {
        let hex: String = sum.iter().map(|b| format!("{b:02x}")).collect();
        line.extend_from_slice(format!(" crc={crc:08x} sha256={hex}").as_bytes());
    }
    if let Some(target) = &entry.target {
        line.extend_from_slice(b" -> ");
        line.extend_from_slice(target);
    }
    if kind == 'o' {
        let (kind, rdev) = match a.kind {
            Some(ObjType::CharDevice) => (0, a.rdev.expect("a device's numbers")),
            Some(ObjType::Fifo) => (7, (0, 0)),
            other => panic!("no line for {other:?}"),
        };
        let (major, minor) = rdev;
        line.extend_from_slice(format!(" type={kind} rdev={major},{minor}").as_bytes());
    }
    line
}

/// The library's listing of `tree`.
fn listing(view: &mut View, tree: Tree) -> Vec<Vec<u8>> {
    let Some(inode) = root(view, tree).expect("a readable root") else {
        return Vec::new();
    };
    let object = Object {
        inode,
        asof: tree.asof,
    };
    let mut walk = Walk::new(object, b"/", Scope::All);
    let mut status = Status::default();
    let mut lines = Vec::new();
    while let Some(visit) = walk.next(view).expect("a readable tree") {
        let found = match visit {
            Visit::Object(found) => found,
            Visit::Leave { .. } => continue,
            Visit::Trouble { error, .. } => panic!("{error}"),
        };
        let inode = found.inode.expect("an inode");
        let detail = &mut Detail {
            sha256: true,
            ..Detail::default()
        };
        let entry = list::entry(view, found, detail, &mut (), &mut status).expect("an entry");
        assert_eq!(entry.error, None);
        let is_file = inode.kind() == Some(ObjType::File);
        let crc = is_file.then(|| crc_of(view, &inode, tree.asof));
        lines.push(line(&entry, crc.unwrap_or(0)));
    }
    lines
}

/// One of the kernel's listing files.
#[derive(Default)]
struct Listing {
    /// Lines of a `PFS n` header.
    table: Vec<String>,
    /// Lines of objects, by PFS.
    sections: BTreeMap<u16, Vec<Vec<u8>>>,
}

/// Reads a listing; lines without a section before them belong to `pfs`.
fn read_listing(golden: &Path, name: &str, mut pfs: u16) -> Listing {
    let mut listing = Listing::default();
    for line in golden::bytes(golden, name).split(|b| *b == b'\n') {
        let text = String::from_utf8_lossy(line);
        if let Some(section) = text.strip_prefix("== PFS ") {
            let id = section.split(' ').next().expect("a word");
            pfs = id.parse().expect("a PFS number");
        } else if text.starts_with("PFS ") {
            listing.table.push(text.into_owned());
        } else if matches!(line.get(..2), Some(b"d " | b"f " | b"l " | b"o ")) {
            listing.sections.entry(pfs).or_default().push(line.to_vec());
        }
    }
    assert!(!listing.sections.is_empty(), "{name}: no objects");
    listing
}

/// Fields that two listings of the same tree may differ in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    Nothing,
    /// An in-place change of mtime has no TID: it is not mirrored, and not versioned.
    Mtime,
    /// As `Mtime`; and the tree lies under another PFS number.
    MtimeAndPfs,
}

fn masked(line: &[u8], mask: Mask) -> Vec<u8> {
    let hide = |line: Vec<u8>, field: &str| {
        let at = line
            .windows(field.len())
            .position(|w| w == field.as_bytes());
        let at = at.expect("the field") + field.len();
        let end = line[at..].iter().position(|b| *b == b' ');
        let end = end.map_or(line.len(), |end| at + end);
        [&line[..at], b"*", &line[end..]].concat()
    };
    let line = line.to_vec();
    match mask {
        Mask::Nothing => line,
        Mask::Mtime => hide(line, " mtime="),
        Mask::MtimeAndPfs => hide(hide(line, " mtime="), " lo="),
    }
}

/// Cuts the target of our line where some of the kernel's listings cut it: at 86 characters.
fn cut<'a>(ours: &'a [u8], kernels: &[u8]) -> &'a [u8] {
    let target = ours.windows(4).position(|w| w == b" -> ");
    match target.map(|at| at + 4 + 86) {
        Some(end) if end == kernels.len() => &ours[..end.min(ours.len())],
        _ => ours,
    }
}

fn compare(what: &str, ours: &[Vec<u8>], kernels: &[Vec<u8>], mask: Mask) {
    for (ours, kernels) in ours.iter().zip(kernels) {
        let ours = masked(cut(ours, kernels), mask);
        let kernels = masked(kernels, mask);
        assert_eq!(
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&kernels),
            "{what}"
        );
    }
    assert_eq!(ours.len(), kernels.len(), "{what}: objects");
}

/// A PFS's line in the kernel's listings.
fn table_line(pfs: &pfs::Pfs) -> String {
    let data = &pfs.data;
    format!(
        "PFS {} {} beg {:016x} end {:016x} sync_beg_ts {} sync_end_ts {} mirror_flags {:x} label {:?}",
        pfs.id,
        if pfs.is_slave() { "SLAVE" } else { "MASTER" },
        data.sync_beg_tid.get(),
        pfs.sync_end.0,
        data.sync_beg_ts.get(),
        data.sync_end_ts.get(),
        data.mirror_flags.get(),
        String::from_utf8_lossy(data.label()),
    )
}

/// Compares every PFS of a volume with the kernel's listing of it.
fn compare_current(view: &mut View, golden: &Path, name: &str) {
    let kernels = read_listing(golden, name, 0);
    let table = pfs::all(view).expect("a readable PFS table");
    let existing = || table.iter().filter(|p| !p.is_deleted());
    let lines: Vec<String> = existing().map(table_line).collect();
    assert_eq!(lines, kernels.table, "{name}");
    for pfs in existing() {
        let ours = listing(view, pfs.tree(None));
        let none = Vec::new();
        let kernels = kernels.sections.get(&pfs.id).unwrap_or(&none);
        compare(
            &format!("{name}, PFS {}", pfs.id),
            &ours,
            kernels,
            Mask::Nothing,
        );
    }
    for id in kernels.sections.keys() {
        assert!(existing().any(|p| p.id == *id), "{name}: PFS {id}");
    }
}

/// Compares one PFS as of a TID with the kernel's listing of that view.
fn compare_asof(view: &mut View, golden: &Path, name: &str, pfs: u16, asof: Tid, mask: Mask) {
    let kernels = read_listing(golden, name, pfs);
    let ours = listing(view, Tree { pfs, asof });
    compare(name, &ours, &kernels.sections[&pfs], mask);
}

/// The volumes of an image's file system and what is listed of them.
fn compare_volume(golden: &Path, paths: &[PathBuf], stem: &str) {
    let mut view = view(paths);
    compare_current(&mut view, golden, &format!("{stem}.lst"));
    let (folder, _) = stem.split_once('/').expect("a folder");
    for name in golden::names(golden, folder, ".lst") {
        let asof = name
            .strip_prefix(stem)
            .and_then(|n| n.strip_prefix(".asof-0x"));
        let Some(tid) = asof.and_then(|n| n.strip_suffix(".lst")) else {
            continue;
        };
        let asof = Tid(u64::from_str_radix(tid, 16).expect("a TID"));
        compare_asof(&mut view, golden, &name, 0, asof, Mask::Nothing);
    }
}

/// Runs `work` on every item, on as many threads as there are processors.
fn in_parallel<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let queue = std::sync::Mutex::new(items);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let item = queue.lock().expect("no panic while held").pop();
                    match item {
                        Some(item) => work(item),
                        None => break,
                    }
                }
            });
        }
    });
}

#[test]
fn small_volumes_of_all_versions() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "small", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

#[test]
fn several_volumes_in_any_order() {
    let Some(golden) = golden::dir() else { return };
    let path = |n: u32| golden::file(&golden, &format!("multivol/vol{n}.img"));
    compare_volume(&golden, &[path(2), path(0), path(1)], "multivol/multivol");
}

#[test]
fn extreme_names_and_sizes() {
    let Some(golden) = golden::dir() else { return };
    compare_volume(
        &golden,
        &[golden::file(&golden, "edge/edge.img")],
        "edge/edge",
    );
}

#[test]
fn deduplicated_and_pruned_volumes() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "maint", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

#[test]
fn masters_slaves_and_other_pseudo_file_systems() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "mirror", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        compare_volume(&golden, &[golden::file(&golden, &name)], stem);
    });
}

/// The committed TIDs of the mirror master after so many rounds.
const ROUNDS: [(u32, u64); 3] = [(5, 0x1_0002_8320), (10, 0x1_0005_8630), (20, 0x1_000a_0cd0)];

#[test]
fn masters_as_of_their_rounds() {
    let Some(golden) = golden::dir() else { return };
    for (stage, _) in ROUNDS {
        let image = golden::file(&golden, &format!("mirror/master-{stage}.img"));
        let mut view = view(&[image]);
        for (round, tid) in ROUNDS.into_iter().filter(|(round, _)| *round <= stage) {
            let name = format!("mirror/master-asof-{round}.lst");
            // Each was listed at its own stage.
            let mask = match stage == round {
                true => Mask::Nothing,
                false => Mask::Mtime,
            };
            compare_asof(&mut view, &golden, &name, 1, Tid(tid), mask);
        }
    }
}

#[test]
fn slaves_as_of_what_was_mirrored() {
    let Some(golden) = golden::dir() else { return };
    for (image, names) in [
        (
            "A",
            ["slaveA-full-5", "slaveA-inc-5-10", "slaveA-inc-10-20"].as_slice(),
        ),
        ("B", &["slaveB-full-20"]),
    ] {
        let mut view = view(&[golden::file(&golden, &format!("mirror/slave{image}.img"))]);
        for name in names {
            let round = name.rsplit('-').next().and_then(|n| n.parse().ok());
            let (round, tid) = *ROUNDS
                .iter()
                .find(|(r, _)| Some(*r) == round)
                .expect("a round");
            let name = format!("mirror/{name}.lst");
            compare_asof(&mut view, &golden, &name, 1, Tid(tid), Mask::Mtime);
            let masters = format!("mirror/master-asof-{round}.lst");
            compare_asof(&mut view, &golden, &masters, 1, Tid(tid), Mask::MtimeAndPfs);
        }
    }
}

#[test]
fn thousands_of_files_as_of_the_last_mirroring() {
    let Some(golden) = golden::dir() else { return };
    let mut view = view(&[golden::file(&golden, "skips/m.img")]);
    let asof = Tid(0x1_000b_83a0);
    compare_asof(
        &mut view,
        &golden,
        "skips/m-asof.lst",
        1,
        asof,
        Mask::Nothing,
    );
}

/// What must not change of a file by reading it: its length, its times of change, and every byte.
fn fingerprint(path: &Path) -> (u64, i64, i64, Vec<u8>) {
    let file = File::open(path).expect("an image");
    let meta = file.metadata().expect("its metadata");
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    // Holes are skipped: they read as zeros, and a write into one makes it data.
    while let Ok(data) = nix::unistd::lseek(&file, at, Whence::SeekData) {
        let hole = nix::unistd::lseek(&file, data, Whence::SeekHole).expect("the end at last");
        hash.update(data.to_le_bytes());
        let mut pos = data as u64;
        while pos < hole as u64 {
            let len = (hole as u64 - pos).min(buf.len() as u64) as usize;
            file.read_exact_at(&mut buf[..len], pos).expect("its bytes");
            hash.update(&buf[..len]);
            pos += len as u64;
        }
        at = hole;
    }
    (
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        hash.finalize().to_vec(),
    )
}

#[test]
fn crashed_volumes_read_as_by_the_kernel_and_stay_as_they_are() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let path = golden::file(&golden, &name);
        let before = fingerprint(&path);
        let mut view = view(std::slice::from_ref(&path));
        compare_current(&mut view, &golden, &format!("{stem}.ro.lst"));
        drop(view);
        assert!(before == fingerprint(&path), "{name} was changed");
    });
}

/// The tests' own recovery leads to what the kernel's does, on clean volumes too; and it refuses
/// what the kernel would.
#[test]
fn crashed_volumes_undone_by_the_oracle() {
    let Some(golden) = golden::dir() else { return };
    in_parallel(golden::names(&golden, "crash", ".img"), |name| {
        let stem = name.strip_suffix(".img").expect("an image");
        let file = File::open(golden::file(&golden, &name)).expect("an image");
        let mut disks = [SimDisk::over(file).expect("a disk")];
        let undone = oracle::recover(&mut disks).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Now there is nothing left to undo, for the oracle and for the library.
        let again = oracle::recover(&mut disks).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (again.records, again.next_seq),
            (0, undone.next_seq),
            "{name}"
        );
        let set = VolumeSet::open(vec![Box::new(disks[0].reader(1))]).expect("a volume");
        let mut view = View::open(set, &ViewOptions::default()).expect("a view");
        assert_eq!(view.undone().bytes, 0, "{name}");
        compare_current(&mut view, &golden, &format!("{stem}.ro.lst"));
    });
}

#[test]
fn the_oracle_refuses_what_the_kernel_refuses() {
    let Some(golden) = golden::dir() else { return };
    let open = |path: &Path| SimDisk::over(File::open(path).expect("an image")).expect("a disk");
    let names = golden::names(&golden, "crash", ".img").into_iter();
    let found = names.filter(|name| name.contains("v7")).find_map(|name| {
        let path = golden::file(&golden, &name);
        let undone = oracle::recover(&mut [open(&path)]).expect("a crashed volume");
        (undone.undos > 0).then_some((path, undone))
    });
    let (path, undone) = found.expect("one with old bytes");
    let disk = || open(&path);
    let header = disk().read(0, 2048).expect("bytes");
    let header = VolumeHeader::from_prefix(&header).expect("a header");
    let ring = header.buf_beg.get().cast_unsigned() + Offset(header.undo_array[0].get()).short();
    // Any byte of a record in the range, of the one before it, and of the one that ends the scan.
    let (first, end) = undone.range;
    for at in [
        first - 1,
        first,
        first + 8,
        end - 1,
        end.next_multiple_of(512),
    ] {
        let disk = disk();
        let byte = disk.read(ring + at, 1).expect("a byte")[0];
        disk.write(ring + at, &[!byte]).expect("a byte");
        let result = oracle::recover(&mut [disk]);
        result.expect_err(&format!("a bad record at {at}"));
    }
}
