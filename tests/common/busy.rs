//! A writer that changes a PFS as a busy machine does, at random: files with history and without,
//! small and large, operations that take several checkpoints or fail half way, history pruned, space
//! given back and used again, other PFSs changed in between.

use super::crash::state::Digest;
use super::crash::timeline::Random;
use mallet::btree::{AsOf, Cursor, Editor, good_data, put};
use mallet::error::{Class, Error, Result};
use mallet::format::node::LeafElement;
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, ROOT_OBJ, Tid};
use mallet::fs::operation::{self, Operation};
use mallet::fs::ops::{Attributes, NewObject, Ops};
use mallet::fs::pfs;
use mallet::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use mallet::store::{Fetch, Store};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};
use zerocopy::IntoBytes;

/// The PFS that is changed.
pub const MASTER: u16 = 1;
/// Seconds of the clock at the start, in microseconds since 1970.
const START: u64 = 1_700_000_000_000_000;
/// `chflags` bit: what is replaced of this object is destroyed.
const NOHISTORY: u32 = 0x40;
/// Files of PFS 0 whose data is overwritten in place to fill the log.
const BALLAST: u64 = 32;
/// Bytes of each: as much as lies in one record of short data.
const BALLAST_LEN: usize = 8000;
/// Records that one transaction of a pruning takes away at most.
const PRUNED: usize = 200;
/// Files beyond which some are removed.
const FILES: usize = 60;

/// A file that exists.
#[derive(Clone, Debug)]
struct Made {
    dir: i64,
    name: Vec<u8>,
    obj: i64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Operations.
    pub operations: u64,
    /// Those of them that failed half way and were taken back.
    pub failed: u64,
    /// Prunings that took something away.
    pub prunings: u64,
    /// How often there was no space left.
    pub full: u64,
    /// How often the log was filled.
    pub storms: u64,
    /// How often everything was removed.
    pub purges: u64,
}

/// What the master was, commit by commit: for those who cannot ask it later, because history goes.
#[derive(Debug, Default)]
pub struct Journal {
    states: Vec<State>,
}

/// What the master was after a commit.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The newest TID that it had records of, and the newest that was ever given out.
    tids: (Tid, Tid),
    digest: Digest,
}

impl Journal {
    fn note(&mut self, tids: (Tid, Tid), digest: Digest) {
        let state = State { tids, digest };
        self.states.push(state);
    }

    /// How many states there were.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether the master ever was `digest` as of `tid`. From the newest TID that a state has records of
    /// to the next that will be given out, all are the same.
    pub fn has(&self, tid: Tid, digest: &Digest) -> bool {
        self.states
            .iter()
            .any(|state| (state.tids.0..=state.tids.1).contains(&tid) && state.digest == *digest)
    }

    /// The last state: its TID and digest.
    pub fn last(&self) -> (Tid, Digest) {
        let last = self.states.last().expect("a state");
        (last.tids.0, last.digest)
    }
}

/// PFS 1 of a volume of version 7 as of `tid`: as [`pfs_digest`], by the checksums of the data
/// instead of the data.
///
/// [`pfs_digest`]: super::crash::state::pfs_digest
pub fn quick_digest<F: Fetch>(fetch: &mut F, tid: Tid) -> Result<Digest> {
    let mut records = AsOf::new(Key::pfs_min(MASTER), Key::pfs_max(MASTER), tid);
    let mut hash = Sha256::new();
    while let Some(mut leaf) = records.next(fetch)? {
        let rec_type = leaf.base.rec_type.get();
        if matches!(rec_type, rt::PFS | rt::SNAPSHOT | rt::CONFIG) {
            continue;
        }
        leaf.base.delete_tid.set(0);
        leaf.delete_ts.set(0);
        leaf.data_offset.set(0);
        hash.update(leaf.as_bytes());
    }
    Ok(hash.finalize().into())
}

/// The writer, but for the store that it writes to.
pub struct Busy {
    journal: Option<Arc<Mutex<Journal>>>,
    random: Random,
    now: u64,
    /// Directories: one whose files have history, one whose files have none.
    dirs: [i64; 2],
    files: Vec<Made>,
    named: u64,
    /// What it did.
    pub done: Done,
}

fn new(kind: ObjType, uflags: u32) -> NewObject<'static> {
    NewObject {
        kind,
        mode: 0o755,
        uid: 1,
        gid: 2,
        uflags,
        rdev: (0, 0),
        target: b"",
        times: None,
    }
}

impl Busy {
    /// Makes PFS 1, a master, with a file or two; `ballast` if the log is to be filled later.
    pub fn begin(store: &mut Store, seed: u64, ballast: bool) -> Result<Busy> {
        let pfs = NewPfs {
            kind: Kind::Master,
            id: Some(MASTER),
            fresh: [[seed as u8 | 1; 16], [seed as u8 | 2; 16]],
            settings: &Settings::default(),
            link: None,
        };
        pfs_ops::create(store, &pfs, START)?;
        let (dirs, _) = operation::run(store, MASTER, START, |op| {
            op.step(|txn, ops| {
                let keeping = ops.create(txn, ROOT_OBJ, b"keeping", &new(ObjType::Directory, 0))?;
                let what = new(ObjType::Directory, NOHISTORY);
                Ok([keeping, ops.create(txn, ROOT_OBJ, b"passing", &what)?])
            })
        })?;
        if ballast {
            operation::run(store, 0, START, |op| {
                (0..BALLAST).try_for_each(|n| {
                    op.step(|txn, ops| {
                        let name = format!("ballast-{n}");
                        let what = new(ObjType::File, 0);
                        let obj = ops.create(txn, ROOT_OBJ, name.as_bytes(), &what)?;
                        ops.write(txn, obj, 0, &[1; BALLAST_LEN])
                    })
                })
            })?;
        }
        Ok(Busy {
            journal: None,
            random: Random(seed),
            now: START,
            dirs,
            files: Vec::new(),
            named: 0,
            done: Done::default(),
        })
    }

    /// From now on notes what the master is after every commit.
    pub fn keep(&mut self, store: &mut Store, journal: &Arc<Mutex<Journal>>) -> Result<()> {
        self.journal = Some(Arc::clone(journal));
        self.note(store)
    }

    fn note(&self, store: &mut Store) -> Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let tid = newest(store.view())?;
        let digest = quick_digest(store.view(), tid)?;
        let last = store.view().header().next_tid().max(tid);
        journal.lock().expect("no panic").note((tid, last), digest);
        Ok(())
    }

    /// The time, which goes on by a moment or by more than freed space is left alone for.
    fn tick(&mut self) -> u64 {
        self.now += match self.random.below(4) {
            0 => 61_000_000,
            _ => 1000,
        };
        self.now
    }

    /// Makes a change, in one transaction or several.
    ///
    /// Errors: those of the medium. After one the store must be opened again, and
    /// [`Busy::look_around`] is due.
    pub fn change(&mut self, store: &mut Store) -> Result<()> {
        let made = match self.random.below(100) {
            0..=69 => self.operation(store),
            70..=79 => self.prune(store),
            80..=84 => self.elsewhere(store),
            85..=94 => self.touch(store),
            95 => self.relabel(store),
            _ => self.failing(store),
        };
        match made {
            Err(error) if error.class() == Class::NoSpace && store.durable().is_ok() => {
                self.done.full += 1;
                self.make_room(store)
            }
            Err(error) if error.class() == Class::Other && store.durable().is_ok() => {
                // What is no longer there, after a crash or what was taken back.
                self.look_around(store)
            }
            other => other,
        }?;
        let free = store.view().header().stat_freebigblocks.get();
        match free < 2 {
            true => self.make_room(store),
            false => Ok(()),
        }
    }

    fn operation(&mut self, store: &mut Store) -> Result<()> {
        let steps = match self.random.below(8) {
            0 => 20 + self.random.below(40),
            _ => 1 + self.random.below(4),
        };
        let now = self.tick();
        operation::run(store, MASTER, now, |op| {
            (0..steps).try_for_each(|_| self.step(op))
        })?;
        self.done.operations += 1;
        self.note(store)
    }

    /// An operation that fails: nothing of it may ever be seen.
    fn failing(&mut self, store: &mut Store) -> Result<()> {
        let (steps, now) = (1 + self.random.below(30), self.tick());
        let failed = operation::run(store, MASTER, now, |op| {
            (0..steps).try_for_each(|_| self.step(op))?;
            Err::<(), _>(Error::new(Class::Usage, "enough"))
        });
        self.look_around(store)?;
        self.note(store)?;
        match failed {
            Err(error) if error.class() == Class::Usage => {
                self.done.failed += 1;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn step(&mut self, op: &mut Operation<'_>) -> Result<()> {
        let kind = self.random.below(20);
        let kind = match self.files.len() {
            0..8 => kind % 5,
            FILES.. => 14,
            _ => kind,
        };
        if kind < 5 {
            return self.create(op);
        }
        let index = self.random.below(self.files.len() as u64) as usize;
        let Made { dir, name, obj } = self.files[index].clone();
        match kind {
            5..=9 => {
                let at = self.random.below(100_000);
                let len = 1 + self.random.below(40_000);
                self.fill(op, obj, at, len)
            }
            10..=11 => {
                let len = self.random.below(200_000);
                self.fill(op, obj, 0, len)
            }
            12..=13 => {
                let size = self.random.below(120_000);
                op.room()?;
                let (txn, ops) = op.parts();
                let sweep = ops.begin_truncate(txn, obj, size)?;
                op.sweep(sweep)
            }
            14..=16 => {
                self.files.swap_remove(index);
                op.room()?;
                let (txn, ops) = op.parts();
                let sweep = ops.begin_remove(txn, dir, &name)?;
                op.sweep(sweep)
            }
            17..=18 => self.rename(op, index),
            _ => {
                let what = Attributes {
                    mode: Some(0o600 + self.random.below(64) as u16),
                    ..Attributes::default()
                };
                op.step(|txn, ops| ops.set_attributes(txn, obj, &what))
            }
        }
    }

    fn create(&mut self, op: &mut Operation<'_>) -> Result<()> {
        let dir = self.dirs[self.random.below(2) as usize];
        self.named += 1;
        let name = format!("file-{}", self.named).into_bytes();
        let obj = op.step(|txn, ops| ops.create(txn, dir, &name, &new(ObjType::File, 0)))?;
        self.files.push(Made { dir, name, obj });
        let len = match self.random.below(8) {
            0 => 200_000 + self.random.below(400_000),
            1..=3 => self.random.below(100_000),
            _ => self.random.below(9000),
        };
        self.fill(op, obj, 0, len)
    }

    /// Moves a file, perhaps over another one.
    fn rename(&mut self, op: &mut Operation<'_>, index: usize) -> Result<()> {
        let from = self.files[index].clone();
        self.named += 1;
        let mut to = (from.dir, format!("moved-{}", self.named).into_bytes());
        if self.random.below(2) == 0 {
            let other = self.random.below(self.files.len() as u64) as usize;
            if other != index {
                to = (self.files[other].dir, self.files[other].name.clone());
            }
        }
        op.room()?;
        let (txn, ops) = op.parts();
        let sweep = ops.begin_rename(txn, (from.dir, &from.name), (to.0, &to.1))?;
        op.sweep(sweep)?;
        self.files
            .retain(|file| file.obj != from.obj && (file.dir, &file.name) != (to.0, &to.1));
        self.files.push(Made {
            dir: to.0,
            name: to.1,
            obj: from.obj,
        });
        Ok(())
    }

    fn fill(&mut self, op: &mut Operation<'_>, obj: i64, at: u64, len: u64) -> Result<()> {
        let (mut at, end) = (at, at + len);
        while at < end {
            let take = (16384 - at % 16384).min(end - at);
            let mut bytes = vec![self.random.next() as u8; take as usize];
            // No two blocks are the same.
            let mark = self.random.next().to_le_bytes();
            let marked = mark.len().min(bytes.len());
            bytes[..marked].copy_from_slice(&mark[..marked]);
            op.step(|txn, ops| ops.write(txn, obj, at, &bytes))?;
            at += take;
        }
        Ok(())
    }

    /// Takes history away: all of it, some of it, what lies in one range, or what is older.
    fn prune(&mut self, store: &mut Store) -> Result<()> {
        let mut old: Vec<LeafElement> = dead(store)?;
        if old.is_empty() {
            return Ok(());
        }
        let at = self.random.below(old.len() as u64) as usize;
        match self.random.below(4) {
            0 => {}
            1 => old.truncate(at),
            2 => {
                let tid = old[at].base.delete_tid();
                old.retain(|leaf| leaf.base.delete_tid() <= tid);
            }
            _ => old.retain(|_| self.random.below(2) == 0),
        }
        self.destroy(store, &old)
    }

    fn destroy(&mut self, store: &mut Store, elements: &[LeafElement]) -> Result<()> {
        let mut left = elements;
        self.done.prunings += u64::from(!left.is_empty());
        while !left.is_empty() {
            let now = self.tick();
            let (mut txn, mut editor) = (store.begin(now)?, Editor::new());
            let mut count = 0;
            while let Some(leaf) = left.get(count).filter(|_| count < PRUNED) {
                if txn.is_full() && count > 0 {
                    break;
                }
                put::destroy(&mut editor, &mut txn, leaf.base.key(), Tid::ZERO)?;
                count += 1;
            }
            txn.commit()?;
            self.note(store)?;
            left = &left[count..];
        }
        Ok(())
    }

    /// Lets the volume have room again: history goes, then files.
    fn make_room(&mut self, store: &mut Store) -> Result<()> {
        self.look_around(store)?;
        let old = dead(store)?;
        self.destroy(store, &old)?;
        let few = store.view().header().stat_freebigblocks.get() < 3;
        let keep = if few { self.files.len() / 2 } else { FILES };
        while self.files.len() > keep {
            let now = self.tick();
            let index = self.random.below(self.files.len() as u64) as usize;
            let Made { dir, name, .. } = self.files.swap_remove(index);
            operation::run(store, MASTER, now, |op| {
                op.room()?;
                let (txn, ops) = op.parts();
                let sweep = ops.begin_remove(txn, dir, &name)?;
                op.sweep(sweep)
            })?;
            self.note(store)?;
        }
        let old = dead(store)?;
        self.destroy(store, &old)
    }

    /// Something in another PFS.
    fn elsewhere(&mut self, store: &mut Store) -> Result<()> {
        let now = self.tick();
        self.named += 1;
        let name = format!("elsewhere-{}", self.named);
        operation::run(store, 0, now, |op| {
            op.step(|txn, ops| {
                let what = new(ObjType::File, NOHISTORY);
                let obj = ops.create(txn, ROOT_OBJ, name.as_bytes(), &what)?;
                ops.write(txn, obj, 0, &[7; 100])
            })?;
            op.step(|txn, ops| ops.remove(txn, ROOT_OBJ, name.as_bytes()))
        })?;
        self.note(store)
    }

    /// The time of a file changed in place: a change without a TID.
    fn touch(&mut self, store: &mut Store) -> Result<()> {
        let now = self.tick();
        let Some(file) = self.files.last() else {
            return Ok(());
        };
        let what = Attributes {
            mtime: Some(now),
            ..Attributes::default()
        };
        let mut txn = store.begin(now)?;
        Ops::new(MASTER).set_attributes(&mut txn, file.obj, &what)?;
        txn.commit()?;
        Ok(())
    }

    /// The PFS's record changed: slaves in the middle of a pass are to begin anew.
    fn relabel(&mut self, store: &mut Store) -> Result<()> {
        let now = self.tick();
        let settings = Settings {
            label: Some(format!("label-{now}").into_bytes()),
            ..Settings::default()
        };
        pfs_ops::update(store, MASTER, &settings, now).map(drop)
    }

    /// Fills the log once round and more, with what says nothing about PFS 1.
    pub fn storm(&mut self, store: &mut Store) -> Result<()> {
        let leaves = ballast(store)?;
        let round = store.view().ring().bytes() / (BALLAST * BALLAST_LEN as u64);
        for _ in 0..round + 2 {
            let now = self.tick();
            let fill = self.random.next() as u8;
            let (mut txn, mut editor) = (store.begin(now)?, Editor::new());
            for leaf in &leaves {
                let bytes = vec![fill; leaf.data_len.get() as usize];
                put::overwrite(&mut editor, &mut txn, leaf, &bytes)?;
            }
            txn.commit()?;
        }
        self.done.storms += 1;
        Ok(())
    }

    /// Everything goes, its history too, and as much comes in its place: whole big-blocks are freed and
    /// used again.
    pub fn purge(&mut self, store: &mut Store) -> Result<()> {
        self.look_around(store)?;
        let (all, now) = (std::mem::take(&mut self.files), self.tick());
        for few in all.chunks(8) {
            operation::run(store, MASTER, now, |op| {
                few.iter().try_for_each(|Made { dir, name, .. }| {
                    op.room()?;
                    let (txn, ops) = op.parts();
                    let sweep = ops.begin_remove(txn, *dir, name)?;
                    op.sweep(sweep)
                })
            })?;
            self.note(store)?;
        }
        let old = dead(store)?;
        self.destroy(store, &old)?;
        self.done.purges += 1;
        for _ in 0..10 {
            match self.operation(store) {
                Err(error) if error.class() == Class::NoSpace && store.durable().is_ok() => {
                    self.done.full += 1;
                    self.make_room(store)?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes files without history, or takes them away again.
    pub fn pass_by(&mut self, store: &mut Store, make: bool) -> Result<()> {
        let (now, dir) = (self.tick(), self.dirs[1]);
        operation::run(store, MASTER, now, |op| {
            (0..40).try_for_each(|n| {
                let name = format!("passing-{n}");
                op.step(|txn, ops| match make {
                    true => {
                        let obj = ops.create(txn, dir, name.as_bytes(), &new(ObjType::File, 0))?;
                        ops.write(txn, obj, 0, &[n; 3000])
                    }
                    false => ops.remove(txn, dir, name.as_bytes()),
                })
            })
        })?;
        self.note(store)
    }

    /// A directory more: a change with a TID.
    pub fn mark(&mut self, store: &mut Store) -> Result<()> {
        let now = self.tick();
        self.make_room(store)?;
        self.named += 1;
        let name = format!("mark-{}", self.named);
        operation::run(store, MASTER, now, |op| {
            op.step(|txn, ops| {
                let what = new(ObjType::Directory, 0);
                ops.create(txn, ROOT_OBJ, name.as_bytes(), &what).map(drop)
            })
        })?;
        self.note(store)
    }

    /// Finds out what files there are: after a crash, and after what was taken back.
    pub fn look_around(&mut self, store: &mut Store) -> Result<()> {
        let view = store.view();
        let mut records = AsOf::new(Key::pfs_min(MASTER), Key::pfs_max(MASTER), Tid::MAX);
        let mut files = Vec::new();
        while let Some(leaf) = records.next(view)? {
            let dir = leaf.base.obj_id.get();
            if leaf.base.rec_type.get() != rt::DIRENTRY || !self.dirs.contains(&dir) {
                continue;
            }
            let data = good_data(view, &leaf)?;
            let (head, name) = data.split_at_checked(16).expect("an entry");
            let obj = i64::from_le_bytes(head[..8].try_into().expect("8 bytes"));
            let name = name.to_vec();
            files.push(Made { dir, name, obj });
        }
        self.files = files;
        Ok(())
    }
}

/// What is history in PFS 1.
fn dead(store: &mut Store) -> Result<Vec<LeafElement>> {
    let mut cursor = Cursor::new(Key::pfs_min(MASTER), Key::pfs_max(MASTER));
    let mut found = Vec::new();
    while let Some(leaf) = cursor.next(store.view())? {
        if !leaf.base.delete_tid().is_zero() {
            found.push(leaf);
        }
    }
    Ok(found)
}

/// The data of the ballast.
fn ballast(store: &mut Store) -> Result<Vec<LeafElement>> {
    let mut records = AsOf::new(Key::pfs_min(0), Key::pfs_max(0), Tid::MAX);
    let mut found = Vec::new();
    while let Some(leaf) = records.next(store.view())? {
        let is_data = leaf.base.rec_type.get() == rt::DATA;
        let len = leaf.data_len.get() as usize;
        if is_data && (BALLAST_LEN..=8192).contains(&len) {
            found.push(leaf);
        }
    }
    Ok(found)
}

/// The last TID that PFS 1 has a record of, in whatever state; nothing of what is under way.
pub fn newest<F: Fetch>(fetch: &mut F) -> Result<Tid> {
    let intent = pfs::standing_intent(fetch, MASTER)?.map(|intent| intent.tid);
    let mut cursor = Cursor::new(Key::pfs_min(MASTER), Key::pfs_max(MASTER));
    let mut newest = Tid::ZERO;
    while let Some(leaf) = cursor.next(fetch)? {
        for tid in [leaf.base.create_tid(), leaf.base.delete_tid()] {
            if Some(tid) != intent {
                newest = newest.max(tid);
            }
        }
    }
    Ok(newest)
}
