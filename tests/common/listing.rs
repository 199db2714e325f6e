//! Listings of trees, and the kernel's to compare them with.

use super::golden;
use mallet::format::Tid;
use mallet::format::record::ObjType;
use mallet::fs::list::{self, Detail, Entry};
use mallet::fs::namespace::Object;
use mallet::fs::walk::{Scope, Visit, Walk};
use mallet::fs::{Inode, Tree, file, pfs, root};
use mallet::io::{OpenOptions, open};
use mallet::progress::Status;
use mallet::store::{View, ViewOptions, VolumeSet};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The volumes at `paths`, read.
pub fn view(paths: &[PathBuf]) -> View {
    let devices = paths.iter().map(|path| {
        let device = open(path, &OpenOptions::default());
        device.expect("an image that opens")
    });
    let set = VolumeSet::open(devices.collect()).expect("volumes of one file system");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// The CRC-32 of a file, read in pieces of odd lengths that straddle blocks where it is short.
pub fn crc_of(view: &mut View, inode: &Inode, asof: Tid) -> u32 {
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
pub fn line(entry: &Entry, crc: u32) -> Vec<u8> {
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
pub fn listing(view: &mut View, tree: Tree) -> Vec<Vec<u8>> {
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
pub struct Listing {
    /// Lines of a `PFS n` header.
    pub table: Vec<String>,
    /// Lines of objects, by PFS.
    pub sections: BTreeMap<u16, Vec<Vec<u8>>>,
}

/// Reads a listing; lines without a section before them belong to `pfs`.
pub fn read_listing(golden: &Path, name: &str, mut pfs: u16) -> Listing {
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
pub enum Mask {
    Nothing,
    /// An in-place change of mtime has no TID: it is not mirrored, and not versioned.
    Mtime,
    /// As `Mtime`; and the tree lies under another PFS number.
    MtimeAndPfs,
}

/// `line` with what `mask` names hidden.
pub fn masked(line: &[u8], mask: Mask) -> Vec<u8> {
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
pub fn cut<'a>(ours: &'a [u8], kernels: &[u8]) -> &'a [u8] {
    let target = ours.windows(4).position(|w| w == b" -> ");
    match target.map(|at| at + 4 + 86) {
        Some(end) if end == kernels.len() => &ours[..end.min(ours.len())],
        _ => ours,
    }
}

/// Compares two listings line by line.
pub fn compare(what: &str, ours: &[Vec<u8>], kernels: &[Vec<u8>], mask: Mask) {
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
pub fn table_line(pfs: &pfs::Pfs) -> String {
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
pub fn compare_current(view: &mut View, golden: &Path, name: &str) {
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
pub fn compare_asof(view: &mut View, golden: &Path, name: &str, pfs: u16, asof: Tid, mask: Mask) {
    let kernels = read_listing(golden, name, pfs);
    let ours = listing(view, Tree { pfs, asof });
    compare(name, &ours, &kernels.sections[&pfs], mask);
}
