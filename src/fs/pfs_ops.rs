//! The life of a pseudo file system: made, changed, upgraded, downgraded, destroyed
//! (mirroring.md §2.5).
//!
//! Nobody may stream into the PFS meanwhile: callers hold its lock.

use super::namespace::{self, Final, Object};
use super::ops::{NewObject, Ops};
use super::pfs::{self, Pfs};
use super::pfs_edit::{add_root, set_mark, store_record};
use super::rollback::{Rollback, RolledBack, roll_back};
use super::{ObjectId, Tree, inode};
use crate::error::{Class, Error, Result};
use crate::format::mark::Cursor;
use crate::format::record::{ObjType, PfsData};
use crate::format::{Key, PFS_MAX, Tid};
use crate::progress::Progress;
use crate::store::{Fetch, Store, Txn};

/// Longest label and longest snapshots directory, in bytes.
pub const TEXT_MAX: usize = 63;

/// What a new PFS is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is written to, and streams are read from it.
    Master,
    /// It follows a master.
    Slave,
}

/// Fields of a PFS's record to be changed; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The id that a master and its slaves have in common, as stored.
    pub shared_uuid: Option<[u8; 16]>,
    /// The id of this copy, as stored.
    pub unique_uuid: Option<[u8; 16]>,
    /// The label, up to 63 bytes.
    pub label: Option<Vec<u8>>,
    /// The earliest TID with history.
    pub sync_beg_tid: Option<Tid>,
    /// The last TID mirrored in full.
    pub sync_end_tid: Option<Tid>,
    /// The snapshots directory, up to 63 bytes; empty: the default one.
    pub snapshots: Option<Vec<u8>>,
    /// Seconds of fine-grained history to keep.
    pub prune_min: Option<u32>,
}

impl Settings {
    /// Checks what must hold whatever the PFS is. Errors: class `Usage`.
    pub fn check(&self) -> Result<()> {
        for (name, text) in [("label", &self.label), ("snapshots", &self.snapshots)] {
            let Some(text) = text else { continue };
            if text.len() > TEXT_MAX || text.contains(&0) {
                let text = format!("{name}: at most {TEXT_MAX} bytes, none of them NUL");
                return Err(Error::usage(text));
            }
        }
        Ok(())
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    fn apply(&self, data: &mut PfsData) {
        let text = |field: &mut [u8; 64], text: &[u8]| {
            *field = [0; 64];
            field[..text.len()].copy_from_slice(text);
        };
        if let Some(uuid) = self.shared_uuid {
            data.shared_uuid = uuid;
        }
        if let Some(uuid) = self.unique_uuid {
            data.unique_uuid = uuid;
        }
        if let Some(label) = &self.label {
            text(&mut data.label, label);
        }
        if let Some(tid) = self.sync_beg_tid {
            data.sync_beg_tid.set(tid.0);
        }
        if let Some(tid) = self.sync_end_tid {
            data.sync_end_tid.set(tid.0);
        }
        if let Some(snapshots) = &self.snapshots {
            text(&mut data.snapshots, snapshots);
        }
        if let Some(seconds) = self.prune_min {
            data.prune_min.set(seconds);
        }
    }
}

/// A PFS to be made.
#[derive(Clone, Debug)]
pub struct NewPfs<'a> {
    /// What it is to be.
    pub kind: Kind,
    /// Its number; `None`: the first that is free, 1 to 65535.
    pub id: Option<u16>,
    /// Fresh ids, shared and unique, for those that `settings` do not give.
    pub fresh: [[u8; 16]; 2],
    /// What its record is to say.
    pub settings: &'a Settings,
    /// Where in PFS 0 to put a symlink to it.
    pub link: Option<&'a [u8]>,
}

/// Makes a PFS, in one transaction: its record, a master's root directory, the symlink. Gives its
/// number.
///
/// Errors: class `Usage` where the number is in use or the settings cannot be, `Incompatible` for
/// PFS 0, `Other` where the link cannot be made.
pub fn create(store: &mut Store, new: &NewPfs<'_>, now: u64) -> Result<u16> {
    new.settings.check()?;
    let id = free_id(store, new.id)?;
    let link = new.link.map(|path| place(store, path)).transpose()?;
    let mut data = PfsData::default_for(new.fresh[0]);
    data.unique_uuid = new.fresh[1];
    data.sync_beg_tid.set(1);
    match new.kind {
        Kind::Slave => {
            data.mirror_flags.set(PfsData::SLAVE);
            data.sync_end_tid.set(1);
        }
        // Means nothing; DragonFly leaves there what it has read when it sets the options.
        Kind::Master => data.sync_end_tid = store.view().header().next_tid,
    }
    new.settings.apply(&mut data);
    let mut ops = Ops::new(0);
    let mut txn = store.begin(now)?;
    store_record(ops.editor(), &mut txn, id, &data)?;
    ensure_root(&mut ops, &mut txn, id, &data)?;
    if let Some((folder, name)) = link {
        let new = NewObject {
            kind: ObjType::Symlink,
            mode: 0o755,
            uid: 0,
            gid: 0,
            uflags: 0,
            rdev: (0, 0),
            target: &link_target(id),
            times: None,
        };
        ops.create(&mut txn, folder, &name, &new)?;
    }
    txn.commit()?;
    Ok(id)
}

/// Changes the record of PFS `id`. Gives what it says then.
///
/// Errors: class `Usage` if there is no such PFS or the settings cannot be.
pub fn update(store: &mut Store, id: u16, settings: &Settings, now: u64) -> Result<Pfs> {
    settings.check()?;
    let mut data = existing(store, id)?.data;
    settings.apply(&mut data);
    save(store, id, &data, now)?;
    existing(store, id)
}

/// Makes a master of slave `id`: what lies above its `sync_end_tid` is taken back first. Snapshots
/// and configuration stay. Interrupted, it can be repeated.
///
/// Errors: class `Usage` if there is no such PFS, `Incompatible` if it is a master.
pub fn upgrade(
    store: &mut Store,
    id: u16,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let pfs = existing(store, id)?;
    refuse_root(id, "upgraded")?;
    if !pfs.is_slave() {
        return Err(wrong_kind(id, "is a master already"));
    }
    let end = pfs.data.sync_end_tid();
    roll_back_first(store, &pfs, now)?;
    let what = Rollback {
        pfs: id,
        to: end,
        spare_local: true,
    };
    let done = roll_back(store, &what, now, progress)?;
    let mut data = pfs.data;
    let flags = data.mirror_flags.get() & !PfsData::SLAVE;
    data.mirror_flags.set(flags);
    save(store, id, &data, now)?;
    Ok(done)
}

/// Makes a slave of master `id`, as of what is committed. Gives its `sync_end_tid`.
///
/// Errors: class `Usage` if there is no such PFS, `Incompatible` if it is a slave, or PFS 0.
pub fn downgrade(store: &mut Store, id: u16, now: u64) -> Result<Tid> {
    let pfs = existing(store, id)?;
    refuse_root(id, "downgraded")?;
    if pfs.is_slave() {
        return Err(wrong_kind(id, "is a slave already"));
    }
    let end = pfs
        .data
        .sync_end_tid()
        .max(pfs::committed_end(store.view())?);
    let mut data = pfs.data;
    let flags = data.mirror_flags.get() | PfsData::SLAVE;
    data.mirror_flags.set(flags);
    data.sync_end_tid.set(end.0);
    save(store, id, &data, now)?;
    Ok(end)
}

/// Destroys all that PFS `id` holds, with history, snapshots and configuration, then the PFS; the
/// symlink at `link` goes with it. Interrupted, part of it is gone: it must be repeated.
///
/// Errors: class `Usage` if there is no such PFS, or `link` is no symlink to it (nothing was changed
/// then); `Incompatible` for PFS 0.
pub fn destroy(
    store: &mut Store,
    id: u16,
    link: Option<&[u8]>,
    now: u64,
    progress: &mut dyn Progress,
) -> Result<RolledBack> {
    let pfs = existing(store, id)?;
    refuse_root(id, "destroyed")?;
    let link = link.map(|path| found_link(store, path, id)).transpose()?;
    let tid = condemn(store, &pfs, now)?;
    let what = Rollback {
        pfs: id,
        to: Tid::ZERO,
        spare_local: false,
    };
    let done = roll_back(store, &what, now, progress).map_err(|error| {
        let class = error.class();
        error
            .context(format!(
                "PFS {id} is destroyed in part, and shows nothing any more; repeat pfs-destroy"
            ))
            .with_class(class)
    })?;
    let mut data = pfs.data;
    let flags = data.mirror_flags.get() | PfsData::DELETED;
    data.mirror_flags.set(flags);
    let mut ops = Ops::new(0);
    // The same TID: of the record there is one new version, as if it all had been done at once.
    let mut txn = store.resume(tid, now)?;
    store_record(ops.editor(), &mut txn, id, &data)?;
    if let Some((folder, name)) = link {
        ops.remove(&mut txn, folder, &name)?;
    }
    txn.commit()?;
    Ok(done)
}

fn existing(store: &mut Store, id: u16) -> Result<Pfs> {
    pfs::find(store.view(), &id.to_string())
}

fn save(store: &mut Store, id: u16, data: &PfsData, now: u64) -> Result<()> {
    let mut ops = Ops::new(0);
    let mut txn = store.begin(now)?;
    store_record(ops.editor(), &mut txn, id, data)?;
    ensure_root(&mut ops, &mut txn, id, data)?;
    txn.commit()?;
    Ok(())
}

/// A master has a root directory.
fn ensure_root(ops: &mut Ops, txn: &mut Txn<'_>, id: u16, data: &PfsData) -> Result<()> {
    if data.is_slave() || inode(txn, ObjectId::root(id), Tid::MAX)?.is_some() {
        return Ok(());
    }
    add_root(ops.editor(), txn, id)
}

fn refuse_root(id: u16, done: &str) -> Result<()> {
    match id {
        0 => Err(wrong_kind(
            0,
            &format!("is the file system's own and cannot be {done}"),
        )),
        _ => Ok(()),
    }
}

fn wrong_kind(id: u16, what: &str) -> Error {
    Error::new(Class::Incompatible, format!("PFS {id} {what}"))
}

/// Makes of a PFS that is to be destroyed a slave that has nothing, and is to be rolled back to that
/// before anything else: so an interruption leaves no half of it to be seen, or taken for whole.
/// Gives the TID of the record.
fn condemn(store: &mut Store, pfs: &Pfs, now: u64) -> Result<Tid> {
    let mut data = pfs.data;
    data.mirror_flags
        .set(data.mirror_flags.get() | PfsData::SLAVE);
    data.sync_end_tid.set(0);
    let mut ops = Ops::new(0);
    let mut txn = store.begin(now)?;
    let tid = txn.tid();
    store_record(ops.editor(), &mut txn, pfs.id, &data)?;
    let mark = first(pfs.id, tid).to_bytes();
    set_mark(ops.editor(), &mut txn, pfs.id, &mark)?;
    txn.commit()?;
    Ok(tid)
}

/// The mark that says "roll back first", for a record created at `own_leaf`.
fn first(id: u16, own_leaf: Tid) -> Cursor {
    Cursor {
        key: Key::pfs_min(id),
        end: Tid::MAX,
        source: 0,
        source_leaf: Tid::ZERO,
        own_leaf,
    }
}

/// Notes on the volume that the slave must be rolled back before anything else is done to it: a
/// position from before holds no longer once that has begun.
fn roll_back_first(store: &mut Store, pfs: &Pfs, now: u64) -> Result<()> {
    let Some(leaf) = &pfs.leaf else { return Ok(()) };
    let cursor = first(pfs.id, leaf.base.create_tid());
    let mut ops = Ops::new(0);
    let mut txn = store.begin(now)?;
    set_mark(ops.editor(), &mut txn, pfs.id, &cursor.to_bytes())?;
    txn.commit()?;
    Ok(())
}

/// The number of a PFS that does not exist: `wanted` or the first there is.
fn free_id(store: &mut Store, wanted: Option<u16>) -> Result<u16> {
    let mut taken = vec![false; PFS_MAX as usize];
    for pfs in pfs::all(store.view())? {
        taken[usize::from(pfs.id)] = !pfs.is_deleted();
    }
    match wanted {
        Some(0) => Err(wrong_kind(
            0,
            "is the file system's own; others are 1 to 65535",
        )),
        Some(id) if taken[usize::from(id)] => Err(Error::usage(format!(
            "PFS {id} exists; leave the number out for a free one"
        ))),
        Some(id) => Ok(id),
        None => (1..=u16::MAX)
            .find(|id| !taken[usize::from(*id)])
            .ok_or_else(|| Error::new(Class::NoSpace, "all 65536 PFSs are in use")),
    }
}

/// What a symlink to a PFS says (format.md §16.1).
fn link_target(id: u16) -> Vec<u8> {
    format!("@@PFS{id:05}").into_bytes()
}

/// The directory of PFS 0 that `path` leads to, and the name in it.
fn place(store: &mut Store, path: &[u8]) -> Result<(i64, Vec<u8>)> {
    let refused = |what: &str| Error::usage(format!("{}: {what}", namespace::show(path)));
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (folder, name) = match at {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    if name.is_empty() {
        return Err(refused("names no symlink"));
    }
    let object: Object = namespace::resolve(store.view(), Tree::current(0), folder, Final::Follow)?;
    if object.inode.id.pfs != 0 || object.asof != Tid::MAX {
        return Err(refused("symlinks to PFSs stand in PFS 0"));
    }
    Ok((object.inode.id.obj, name.to_vec()))
}

/// As [`place`], where there is a symlink to PFS `id`.
fn found_link(store: &mut Store, path: &[u8], id: u16) -> Result<(i64, Vec<u8>)> {
    let found = place(store, path)?;
    let object = namespace::resolve(store.view(), Tree::current(0), path, Final::Itself)?;
    let target = link_target(id);
    let is_link = object.inode.kind() == Some(ObjType::Symlink)
        && object.inode.data.size.get() == target.len() as u64
        && object.inode.data.symlink.starts_with(&target);
    if !is_link {
        let text = format!("{} is not a symlink to PFS {id}", namespace::show(path));
        return Err(Error::usage(text));
    }
    Ok(found)
}
