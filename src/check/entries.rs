//! Directory entries: each by itself, and all of a view joined with its inodes.

use super::Run;
use super::files::{Files, Ino, Seen};
use super::leaf::describe;
use crate::format::namehash::NameHash;
use crate::format::record::{Entry, INLINE_SYMLINK, InodeData, ObjType};
use crate::format::{Fault, Offset, Rule, Zone};
use std::collections::HashSet;

/// An entry as far as the join needs it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// The object that the entry names.
    pub target: i64,
    /// The directory that holds it.
    pub dir: i64,
    /// Address of the entry's data, and the type that the element gives; see `files::pack`.
    pub place_kind: u64,
}

impl Reference {
    fn kind(&self) -> u8 {
        self.place_kind as u8
    }

    fn place(&self) -> Offset {
        Offset((self.place_kind >> 8) << 4).in_zone(Zone::META)
    }
}

const _: () = assert!(size_of::<Reference>() == 24);

/// Names that another entry of the same directory could still repeat: an entry stands at most
/// [`NameHash::max_iterations`] above its name's key, so only names of the last few entries.
#[derive(Default)]
pub(super) struct Names {
    dir: i64,
    end: i64,
    seen: HashSet<Box<[u8]>>,
}

impl Names {
    /// Meets a name at `key` of `dir` that could stand at keys up to `last`; whether it is new.
    fn meet(&mut self, dir: i64, key: i64, last: i64, name: &[u8]) -> bool {
        if self.dir != dir || key > self.end {
            self.seen.clear();
            self.dir = dir;
            self.end = last;
        }
        self.end = self.end.max(last);
        self.seen.insert(name.into())
    }
}

/// Checks an entry against its directory: where it stands, its key, its name among the others.
pub(super) fn check(
    files: &mut Files,
    run: &mut Run<'_>,
    seen: &Seen,
    dir: &Ino,
    entry: &Entry<'_>,
) {
    let key = seen.leaf.base.key();
    let Some(hash) = NameHash::from_cap_flags(dir.cap_flags).filter(|_| !dir.unknown) else {
        return;
    };
    let local = dir.cap_flags & InodeData::CAP_DIR_LOCAL_INO != 0;
    let class = key.localization.class();
    if local != (class == crate::format::Localization::INODE) {
        let expected = format!(
            "class {} by the directory's flags",
            if local { 1 } else { 2 }
        );
        let fault = Fault::new(Rule::EntryLocalization, seen.at, expected, class);
        files.put(run, fault, describe(&seen.leaf));
    }
    let (first, last) = (hash.key(entry.name), hash.last_key(entry.name));
    if !(first..=last).contains(&key.key) {
        let expected = format!("a key of 0x{first:016x} to 0x{last:016x}");
        let found = format!("0x{:016x}", key.key);
        let fault = Fault::new(Rule::EntryKey, seen.at, expected, found);
        files.put(run, fault, describe(&seen.leaf));
    } else if !files.names.meet(key.obj_id, key.key, last, entry.name) {
        let name = entry.name.escape_ascii();
        let fault = Fault::new(Rule::EntryDuplicate, seen.at, "a name of its own", name);
        files.put(run, fault, describe(&seen.leaf));
    }
}

/// Joins a view's entries with its inodes, once all are known.
pub(super) fn join(files: &mut Files, run: &mut Run<'_>) {
    let mut references = std::mem::take(&mut files.references);
    references.sort_unstable();
    let inodes = std::mem::take(&mut files.inodes);
    let parents = std::mem::take(&mut files.parents);
    let mut parents = parents.into_iter().peekable();
    let mut rest = references.as_slice();
    if let Some(first) = inodes.first().filter(|i| !Files::is_root(i.obj)) {
        let found = format!("0x{:016x}", first.obj);
        let fault = Fault::new(Rule::Inode, first.place(), "a root directory first", found);
        files.doubtful(run, fault, format!("PFS {}", files.pfs));
    }
    for inode in &inodes {
        let (dangling, others) = split(rest, |r| r.target < inode.obj);
        dangling.iter().for_each(|r| unresolved(files, run, r));
        let (own, others) = split(others, |r| r.target == inode.obj);
        rest = others;
        let parent = parents.next_if(|(obj, _)| *obj == inode.obj);
        object(files, run, inode, parent.map(|(_, parent)| parent), own);
    }
    rest.iter().for_each(|r| unresolved(files, run, r));
}

/// The references of a sorted slice that `test` holds for, and those behind.
fn split(list: &[Reference], test: impl Fn(&Reference) -> bool) -> (&[Reference], &[Reference]) {
    list.split_at(list.partition_point(test))
}

fn unresolved(files: &Files, run: &mut Run<'_>, entry: &Reference) {
    let expected = format!("object 0x{:016x}", entry.target);
    let fault = Fault::new(
        Rule::EntryTarget,
        entry.place(),
        expected,
        "no visible inode",
    );
    files.doubtful(run, fault, in_directory(files, entry));
}

fn in_directory(files: &Files, entry: &Reference) -> String {
    format!("PFS {}, entry in directory 0x{:016x}", files.pfs, entry.dir)
}

/// Everything about one object that its entries decide.
fn object(
    files: &Files,
    run: &mut Run<'_>,
    inode: &Ino,
    parent: Option<i64>,
    entries: &[Reference],
) {
    if inode.unknown {
        return;
    }
    let detail = || format!("PFS {}, object 0x{:016x}", files.pfs, inode.obj);
    let fault =
        |rule, expected: String, found: String| Fault::new(rule, inode.place(), expected, found);
    for entry in entries.iter().filter(|e| e.kind() != inode.kind()) {
        let expected = format!("type {}", inode.kind());
        let fault = Fault::new(Rule::EntryType, entry.place(), expected, entry.kind());
        files.put(run, fault, in_directory(files, entry));
    }
    let nlinks = u64::from(inode.nlinks);
    if Files::is_root(inode.obj) {
        if nlinks != 1 || !entries.is_empty() {
            let found = format!("nlinks {nlinks}, {} entries", entries.len());
            let expected = "nlinks 1 and no entry for a root directory";
            files.put(run, fault(Rule::Nlinks, expected.into(), found), detail());
        }
        if let Some(parent) = parent.filter(|p| *p != 0) {
            let found = format!("0x{parent:016x}");
            let fault = fault(Rule::DirectoryParent, "no parent of a root".into(), found);
            files.put(run, fault, detail());
        }
        return;
    }
    if nlinks != entries.len() as u64 {
        let expected = format!("{} by its entries", entries.len());
        let fault = fault(Rule::Nlinks, expected, nlinks.to_string());
        files.doubtful(run, fault, detail());
    }
    if let Some(parent) = parent.filter(|_| !entries.is_empty()) {
        if !entries.iter().any(|e| e.dir == parent) {
            let expected = format!("directory 0x{:016x}, which holds its entry", entries[0].dir);
            let found = format!("0x{parent:016x}");
            let fault = fault(Rule::DirectoryParent, expected, found);
            files.doubtful(run, fault, detail());
        } else if entries.len() > 1 {
            let found = format!("{} entries", entries.len());
            let fault = fault(Rule::DirectoryParent, "one entry".into(), found);
            files.warn(run, fault, detail());
        }
    }
    let long = inode.is(ObjType::Symlink) && inode.size > INLINE_SYMLINK as u64;
    if long && !inode.target {
        let expected = format!("a target of {} bytes", inode.size);
        let fault = fault(Rule::SymlinkTarget, expected, "none".into());
        files.warn(run, fault, detail());
    }
}
