//! All objects below one, in byte order of their full paths.
//!
//! Bounds, whatever the medium says: names are sorted in memory, [`HELD_MAX`] bytes of them at most
//! over all directories being walked. Of a larger directory the smallest names that fit are taken,
//! and it is read again for the next ones: 10 million names of 20 bytes take some 20 passes. Nested
//! large directories share: one that needs room takes it from the one that holds most, which is
//! read once more for what it gave up. Paths are at most [`DEPTH_MAX`] deep, a directory below
//! itself is not entered, and one that has several names is entered anew at most [`REVISITS_MAX`]
//! times in a walk.

use super::dir::{self, Entries, name_is_valid};
use super::namespace::{Object, missing_inode, show};
use super::order::{Level, Name, Smallest, Turn};
use super::{Inode, ObjectId};
use crate::btree;
use crate::error::{Class, Error, Result};
use crate::format::record::{ObjType, rt};
use crate::format::{Fault, HALF_BUFFER, Localization, Offset, Rule, Tid, Zone};
use crate::store::Fetch;
use std::collections::{HashSet, VecDeque};

/// Most bytes of names (and 24 for each) held in memory for sorting, over all directories being
/// walked; one being sorted may have as much again of its own share allocated, not in use.
const HELD_MAX: usize = 28 << 20;
/// What a directory may hold when there is no room: at 2048 levels, 8 MiB.
const HELD_MIN: usize = 4 << 10;
/// Levels of directories that are entered.
const DEPTH_MAX: usize = 2048;
/// How often a walk enters a directory that it has entered before by another path. After a crash
/// a renamed directory can have two entries; more is damage.
const REVISITS_MAX: usize = 1000;
/// Directories remembered to know those entered before.
const REMEMBERED_MAX: usize = 1 << 20;
/// Inodes announced at a time.
const AHEAD: usize = 64;
/// Unreadable entries reported for one directory.
const TROUBLES_MAX: usize = 64;

/// An object met on a walk.
#[derive(Debug)]
pub struct Found {
    /// Its full path.
    pub path: Vec<u8>,
    /// The object.
    pub id: ObjectId,
    /// Its inode; `None` if there is none, or it cannot be read.
    pub inode: Option<Inode>,
    /// What the directory's entry says it is, where the inode says nothing.
    pub kind: Option<ObjType>,
    /// The view.
    pub asof: Tid,
    /// What is wrong: with the entry, the inode, or the directory.
    pub error: Option<Error>,
}

/// A stop on a walk.
#[derive(Debug)]
pub enum Visit {
    /// An object. If it is a directory whose `error` is `None`, its contents follow later, and a
    /// [`Visit::Leave`]; or a [`Visit::Trouble`] of its path alone, if its inode is not to be had
    /// any more by then.
    Object(Found),
    /// Everything below this directory has been visited.
    Leave {
        /// Its full path.
        path: Vec<u8>,
        /// Its inode.
        inode: Inode,
    },
    /// Entries of a directory could not be read and are missing from the walk.
    Trouble {
        /// The directory's full path.
        path: Vec<u8>,
        /// Why.
        error: Error,
    },
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The object, and everything below it.
    All,
    /// What is in the directory, but neither itself nor what is below.
    Children,
}

/// A walk.
pub struct Walk {
    asof: Tid,
    scope: Scope,
    contents: bool,
    memory: usize,
    start: Option<Object>,
    /// The path of the directory on top of the stack, without a `/` at its end.
    path: Vec<u8>,
    stack: Vec<Frame>,
    troubles: VecDeque<(Vec<u8>, Error)>,
    held: usize,
    entered: HashSet<ObjectId>,
    revisits: usize,
}

/// A directory being walked.
struct Frame {
    dir: Inode,
    /// Length of its path in [`Walk::path`].
    path_len: usize,
    level: Level<ObjectId>,
    /// Bytes of names in memory, as accounted in [`Walk::held`].
    held: usize,
    /// Entries of the batch whose inodes are announced.
    announced: usize,
}

impl Walk {
    /// A walk of `object`, whose path is `path`.
    pub fn new(object: Object, path: &[u8], scope: Scope) -> Walk {
        let mut trimmed = path.to_vec();
        while trimmed.last() == Some(&b'/') {
            trimmed.pop();
        }
        Walk {
            asof: object.asof,
            scope,
            contents: false,
            memory: HELD_MAX,
            start: Some(object),
            path: trimmed,
            stack: Vec::new(),
            troubles: VecDeque::new(),
            held: 0,
            entered: HashSet::new(),
            revisits: 0,
        }
    }

    /// Announces the contents of small files with their inodes ([`Fetch::want`]), for a caller who
    /// reads the files met.
    pub fn with_contents(mut self) -> Walk {
        self.contents = true;
        self
    }

    /// Holds up to `bytes` of names in memory (and 4 KiB for each directory on the way down)
    /// instead of 28 MiB: less memory, and large directories are read more often.
    pub fn with_memory(mut self, bytes: usize) -> Walk {
        self.memory = bytes;
        self
    }

    /// The next stop; `None` at the end.
    ///
    /// What is damaged or unreadable is part of a [`Visit`]; an error is one of the whole view.
    pub fn next<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<Option<Visit>> {
        if let Some(start) = self.start.take() {
            let id = start.inode.id;
            if start.inode.is_directory() {
                self.remember(id);
                self.enter(start.inode);
            }
            if self.scope == Scope::All || self.stack.is_empty() {
                let path = self.shown();
                return Ok(Some(Visit::Object(self.found(
                    path,
                    id,
                    Some(start.inode),
                    None,
                ))));
            }
        }
        loop {
            if let Some((path, error)) = self.troubles.pop_front() {
                return Ok(Some(Visit::Trouble { path, error }));
            }
            let Some(frame) = self.stack.last_mut() else {
                return Ok(None);
            };
            match frame.level.turn() {
                Turn::Entry(name, again) => return self.entry(fetch, name, again).map(Some),
                Turn::Descend(name, id) => self.descend(fetch, &name, id)?,
                Turn::Refill => self.refill(fetch)?,
                Turn::Done => return Ok(self.leave()),
            }
        }
    }

    fn found(
        &self,
        path: Vec<u8>,
        id: ObjectId,
        inode: Option<Inode>,
        error: Option<Error>,
    ) -> Found {
        Found {
            path,
            id,
            inode,
            kind: None,
            asof: self.asof,
            error,
        }
    }

    /// The path of the directory on top of the stack.
    fn shown(&self) -> Vec<u8> {
        match self.path.is_empty() {
            true => b"/".to_vec(),
            false => self.path.clone(),
        }
    }

    fn enter(&mut self, dir: Inode) {
        self.stack.push(Frame {
            dir,
            path_len: self.path.len(),
            level: Level::new(),
            held: 0,
            announced: 0,
        });
    }

    fn leave(&mut self) -> Option<Visit> {
        let path = self.shown();
        let frame = self.stack.pop()?;
        self.held -= frame.held;
        self.path
            .truncate(self.stack.last().map_or(0, |f| f.path_len));
        Some(Visit::Leave {
            path,
            inode: frame.dir,
        })
    }

    fn descend<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        name: &[u8],
        id: ObjectId,
    ) -> Result<()> {
        // It was there a moment ago.
        let inode = match super::inode(fetch, id, self.asof) {
            Ok(Some(inode)) => inode,
            Ok(None) => return Ok(()),
            Err(error) if error.is_media() => {
                let path = [&self.path, b"/".as_slice(), name].concat();
                self.troubles.push_back((path, error));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.path.push(b'/');
        self.path.extend_from_slice(name);
        self.enter(inode);
        Ok(())
    }

    fn entry<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        name: Name,
        again: bool,
    ) -> Result<Visit> {
        self.announce(fetch, name.target);
        let frame = self
            .stack
            .last_mut()
            .expect("an entry is of a frame's directory");
        let parent = frame.dir;
        let mut path = self.path.clone();
        path.push(b'/');
        path.extend_from_slice(&name.name);
        let (inode, mut error) = match super::inode(fetch, name.target, self.asof) {
            Ok(Some(inode)) => (Some(inode), None),
            Ok(None) => {
                let error = missing_inode(&parent, &name.name, name.target, self.asof);
                (None, Some(error))
            }
            Err(e) if e.is_media() => (None, Some(e)),
            Err(e) => return Err(e),
        };
        if error.is_none() {
            error = self.objection(fetch, &parent, &name, again, inode.as_ref());
        }
        let (key, target) = (name.key, name.target);
        let directory = inode.is_some_and(|inode| inode.is_directory());
        if directory && error.is_none() && self.scope == Scope::All {
            let frame = self.stack.last_mut().expect("the same frame as above");
            frame.level.descend(name.name, name.target);
        }
        let mut found = self.found(path, target, inode, error);
        if found.inode.is_none() {
            let leaf = dir::record(fetch, &parent, key, self.asof);
            found.kind = leaf.and_then(|leaf| ObjType::from_code(leaf.base.obj_type));
        }
        Ok(Visit::Object(found))
    }

    /// Why an entry that leads to an object is still not as it should be; a directory with an
    /// objection is not entered.
    fn objection<F: Fetch + ?Sized>(
        &mut self,
        fetch: &mut F,
        parent: &Inode,
        name: &Name,
        again: bool,
        inode: Option<&Inode>,
    ) -> Option<Error> {
        let asof = self.asof;
        let mut fault = |rule, expected: &str, found: String| {
            let leaf = dir::record(fetch, parent, name.key, asof);
            let at = leaf.map_or(Offset::NULL, |leaf| leaf.data_offset());
            let context = format!("entry 0x{:016x} of {}", name.key, parent.id);
            Some(Error::from(Fault::new(rule, at, expected, found)).context(context))
        };
        if !name_is_valid(&name.name) {
            let expected = "a name of 1 to 255 bytes without / and NUL, not . or ..";
            return fault(Rule::EntryName, expected, show(&name.name));
        }
        if again {
            let found = format!("{} again", show(&name.name));
            return fault(Rule::EntryDuplicate, "one entry a name", found);
        }
        let target = name.target;
        if !inode?.is_directory() {
            return None;
        }
        if self.stack.iter().any(|frame| frame.dir.id == target) {
            return fault(
                Rule::DirectoryParent,
                "no loop",
                format!("{target} below itself"),
            );
        }
        if self.stack.len() >= DEPTH_MAX {
            let text = format!("not entered: more than {DEPTH_MAX} levels of directories");
            return Some(Error::new(Class::Other, text));
        }
        if !self.remember(target) {
            self.revisits += 1;
            if self.revisits > REVISITS_MAX {
                let found = format!("{target} again, and {REVISITS_MAX} others before");
                return fault(Rule::DirectoryParent, "one entry a directory", found);
            }
        }
        None
    }

    /// Notes that `dir` is entered; `false` if it was before.
    fn remember(&mut self, dir: ObjectId) -> bool {
        match self.entered.len() < REMEMBERED_MAX {
            true => self.entered.insert(dir),
            false => !self.entered.contains(&dir),
        }
    }

    /// Announces the inodes of the entry that leads to `here` and of those to come.
    fn announce<F: Fetch + ?Sized>(&mut self, fetch: &mut F, here: ObjectId) {
        let asof = self.asof;
        let Some(frame) = self.stack.last_mut() else {
            return;
        };
        if frame.announced > 0 {
            frame.announced -= 1;
            return;
        }
        let mut coming = vec![here];
        coming.extend(frame.level.coming().take(AHEAD - 1));
        frame.announced = coming.len() - 1;
        let inodes = |id: &ObjectId| {
            let key = id.key(Localization::INODE, rt::INODE, 0);
            let leaf = btree::lookup(fetch, key, asof).ok()??;
            btree::record::extent(&leaf)
        };
        let mut extents: Vec<_> = coming.iter().filter_map(inodes).collect();
        if self.contents {
            extents.extend(coming.iter().filter_map(|id| small_data(fetch, *id, asof)));
        }
        if extents.len() > 1 {
            fetch.want(&extents);
        }
    }

    /// Reads the smallest names above the last batch's.
    fn refill<F: Fetch + ?Sized>(&mut self, fetch: &mut F) -> Result<()> {
        let path = self.shown();
        let frame = self.stack.last_mut().expect("a frame asked for it");
        self.held -= frame.held;
        frame.held = 0;
        let (dir, above) = (frame.dir, frame.level.above());
        let first_pass = above.is_none();
        let mut smallest = Smallest::new(self.room(), above);
        let mut entries = Entries::new(&dir, self.asof);
        let mut reported = 0;
        loop {
            match entries.next(fetch) {
                Ok(Some(entry)) => {
                    if smallest.wants_room(&entry.name) {
                        self.make_room();
                        smallest.widen(self.room());
                    }
                    smallest.add(&entry.name, entry.leaf.base.key.get(), entry.target);
                }
                Ok(None) => break,
                Err(error) if error.is_media() => {
                    reported += 1;
                    if first_pass && reported <= TROUBLES_MAX {
                        self.troubles.push_back((path.clone(), error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if first_pass && reported > TROUBLES_MAX {
            let more = reported - TROUBLES_MAX;
            let error = Error::damage(format!("{more} more entries that cannot be read"));
            self.troubles.push_back((path, error));
        }
        let batch = smallest.finish();
        let frame = self.stack.last_mut().expect("the same frame as above");
        frame.held = batch.cost();
        self.held += frame.held;
        frame.announced = 0;
        frame.level.refill(batch);
        Ok(())
    }

    /// Bytes of names that one more directory may hold: some are left for small ones below it.
    fn room(&self) -> usize {
        let free = self.memory.saturating_sub(self.held);
        (free - free / 8).max(HELD_MIN)
    }

    /// Lets the directories that hold most give up half, until none holds more than twice what is
    /// free.
    fn make_room(&mut self) {
        loop {
            let free = self.memory.saturating_sub(self.held);
            let most = self.stack.iter_mut().max_by_key(|frame| frame.held);
            let Some(frame) = most.filter(|frame| frame.held / 2 > free) else {
                return;
            };
            frame.level.halve();
            let given_up = frame.held.saturating_sub(frame.level.cost());
            frame.held -= given_up;
            frame.announced = 0;
            self.held -= given_up;
            if given_up == 0 {
                return;
            }
        }
    }
}

/// Where the contents of a small file lie: its first record, if that is no large block, which
/// readers announce themselves.
fn small_data<F: Fetch + ?Sized>(
    fetch: &mut F,
    id: ObjectId,
    asof: Tid,
) -> Option<(Offset, usize)> {
    let key = |key| id.key(Localization::MISC, rt::DATA, key);
    let mut cursor = btree::AsOf::new(key(1), key(HALF_BUFFER as i64), asof);
    let leaf = cursor.next(fetch).ok()??;
    btree::record::extent(&leaf).filter(|(at, _)| at.zone() != Zone::LARGE_DATA)
}
