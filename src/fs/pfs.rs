//! The table of pseudo file systems (format.md §16.1, mirroring.md §2).

use super::Tree;
use crate::btree;
use crate::btree::record::good_data;
use crate::error::{Class, Error, Result};
use crate::format::mark::Intent;
use crate::format::node::LeafElement;
use crate::format::record::{PfsData, rt};
use crate::format::{Key, Localization, Offset, PFS_MAX, ROOT_OBJ, Tid};
use crate::store::Fetch;

/// A pseudo file system.
#[derive(Clone, Copy, Debug)]
pub struct Pfs {
    /// Its number.
    pub id: u16,
    /// Its record, or what holds without one (PFS 0 only).
    pub data: PfsData,
    /// The record's leaf element; `None` if there is no record.
    pub leaf: Option<LeafElement>,
    /// The effective `sync_end_tid` (mirroring.md §2.3): a slave's as stored, a master's the newest
    /// TID that is committed in this view of the volume.
    pub sync_end: Tid,
    /// The TID of an operation that is not complete: to whoever reads, what carries it is not
    /// there. `sync_end` lies before it.
    pub unfinished: Option<Tid>,
}

impl Pfs {
    /// Whether it follows a master.
    pub fn is_slave(&self) -> bool {
        self.data.is_slave()
    }

    /// Whether it was destroyed; to the kernel it does not exist then.
    pub fn is_deleted(&self) -> bool {
        self.data.is_deleted()
    }

    /// The view of this PFS as of `asof`; without one a master's current state, or a slave as of
    /// its `sync_end_tid`: what lies above is an unfinished pass. Never later than before an
    /// unfinished operation.
    pub fn tree(&self, asof: Option<Tid>) -> Tree {
        let default = match self.is_slave() {
            true => self.sync_end,
            false => Tid::MAX,
        };
        let asof = asof.unwrap_or(default);
        Tree {
            pfs: self.id,
            asof: self.unfinished.map_or(asof, |tid| asof.min(before(tid))),
        }
    }
}

/// The current PFS records' leaf elements by PFS number, and what follows from them.
struct Records {
    leaves: Vec<(u16, LeafElement)>,
    /// The effective end of every master.
    end: Tid,
}

impl Records {
    fn read<F: Fetch + ?Sized>(fetch: &mut F) -> Result<Records> {
        let mut cursor = btree::AsOf::new(record_key(0), record_key(u16::MAX), Tid::MAX);
        let mut leaves = Vec::new();
        while let Some(leaf) = cursor.next(fetch)? {
            if let Some(id) = number(leaf.base.key.get()) {
                leaves.push((id, leaf));
            }
        }
        let end = masters_end(fetch, leaves.iter().map(|(_, leaf)| leaf))?;
        Ok(Records { leaves, end })
    }

    fn has_root(&self) -> bool {
        self.leaves.first().is_some_and(|(id, _)| *id == 0)
    }

    /// The PFS of one record.
    fn pfs<F: Fetch + ?Sized>(&self, fetch: &mut F, id: u16, leaf: LeafElement) -> Result<Pfs> {
        let data = data(fetch, id, &leaf)?;
        let unfinished = intent(fetch, &data, &leaf).map(|intent| intent.tid);
        let end = match data.is_slave() {
            true => data.sync_end_tid(),
            false => self.end,
        };
        Ok(Pfs {
            id,
            data,
            leaf: Some(leaf),
            sync_end: unfinished.map_or(end, |tid| end.min(before(tid))),
            unfinished,
        })
    }

    /// PFS 0 where it has no record.
    fn default_root<F: Fetch + ?Sized>(&self, fetch: &F) -> Pfs {
        Pfs {
            id: 0,
            data: PfsData::default_for(fetch.header().fsid),
            leaf: None,
            sync_end: self.end,
            unfinished: None,
        }
    }

    fn all<F: Fetch + ?Sized>(&self, fetch: &mut F) -> Result<Vec<Pfs>> {
        let mut table = Vec::with_capacity(self.leaves.len() + 1);
        if !self.has_root() {
            table.push(self.default_root(fetch));
        }
        for (id, leaf) in &self.leaves {
            table.push(self.pfs(fetch, *id, *leaf)?);
        }
        Ok(table)
    }

    /// The PFS of this number, destroyed or not; no other record is read.
    fn one<F: Fetch + ?Sized>(&self, fetch: &mut F, id: u16) -> Result<Option<Pfs>> {
        match self.leaves.iter().find(|(other, _)| *other == id) {
            Some((_, leaf)) => self.pfs(fetch, id, *leaf).map(Some),
            None => Ok((id == 0).then(|| self.default_root(fetch))),
        }
    }
}

/// All pseudo file systems with a current record, destroyed ones too, by number; PFS 0 always.
pub fn all<F: Fetch + ?Sized>(fetch: &mut F) -> Result<Vec<Pfs>> {
    Records::read(fetch)?.all(fetch)
}

/// PFS `id`; `None` if it does not exist or was destroyed.
pub fn load<F: Fetch + ?Sized>(fetch: &mut F, id: u16) -> Result<Option<Pfs>> {
    let pfs = Records::read(fetch)?.one(fetch, id)?;
    Ok(pfs.filter(|pfs| !pfs.is_deleted()))
}

/// What PFS `id`'s record says; `None` if it has none or was destroyed. Cheaper than [`load`]: the
/// other records are not read.
pub fn record<F: Fetch + ?Sized>(fetch: &mut F, id: u16) -> Result<Option<PfsData>> {
    let Some(leaf) = btree::lookup(fetch, record_key(id), Tid::MAX)? else {
        return Ok(None);
    };
    let data = data(fetch, id, &leaf)?;
    Ok((!data.is_deleted()).then_some(data))
}

/// The intent that stands in PFS `id`'s record: an operation on it is not complete. `None` also if
/// another system has written since, which then has seen the operation's records.
pub fn standing_intent<F: Fetch + ?Sized>(fetch: &mut F, id: u16) -> Result<Option<Intent>> {
    let Some(leaf) = btree::lookup(fetch, record_key(id), Tid::MAX)? else {
        return Ok(None);
    };
    let data = data(fetch, id, &leaf)?;
    Ok(intent(fetch, &data, &leaf))
}

/// The valid intent in a record, if the header says that nobody else has written since.
fn intent<F: Fetch + ?Sized>(fetch: &F, data: &PfsData, leaf: &LeafElement) -> Option<Intent> {
    let intent = Intent::read(&data.reserved03, leaf.base.create_tid())?;
    stands(&intent, fetch.header().next_tid()).then_some(intent)
}

/// Whether an intent holds on a volume whose header says `next_tid`: nobody else has written since,
/// and its TID is one that an operation under that record can have.
pub fn stands(intent: &Intent, next_tid: Tid) -> bool {
    let possible = intent.own_leaf.max(Tid(2))..=next_tid;
    intent.next_tid == next_tid && possible.contains(&intent.tid)
}

/// The last TID before `tid`, which is not 0.
fn before(tid: Tid) -> Tid {
    Tid(tid.0.saturating_sub(1))
}

/// The PFS that `name` names: a number, else a label.
///
/// A PFS that does not exist or was destroyed, and a label that several carry, are errors of class
/// `Usage` that say what there is.
pub fn find<F: Fetch + ?Sized>(fetch: &mut F, name: &str) -> Result<Pfs> {
    let records = Records::read(fetch)?;
    // Damage to the record of one PFS does not keep the others from being found by number.
    if let Some(pfs) = name
        .parse()
        .ok()
        .map(|id| records.one(fetch, id))
        .transpose()?
        .flatten()
    {
        return select(vec![pfs], name);
    }
    select(records.all(fetch)?, name)
}

fn select(table: Vec<Pfs>, name: &str) -> Result<Pfs> {
    let matches: Vec<&Pfs> = match name.parse::<u32>() {
        Ok(id) => table.iter().filter(|p| u32::from(p.id) == id).collect(),
        Err(_) => table
            .iter()
            .filter(|p| p.data.label() == name.as_bytes() && !p.is_deleted())
            .collect(),
    };
    match matches[..] {
        [pfs] if pfs.is_deleted() => Err(Error::usage(format!("PFS {name} was destroyed"))),
        [pfs] => Ok(*pfs),
        [] => {
            let existing = table.iter().filter(|p| !p.is_deleted());
            let existing: Vec<String> = existing.map(describe).collect();
            let existing = existing.join(", ");
            Err(Error::usage(format!(
                "there is no PFS {name:?} (there are: {existing})"
            )))
        }
        _ => {
            let ids: Vec<String> = matches.iter().map(|p| p.id.to_string()).collect();
            let ids = ids.join(", ");
            Err(Error::usage(format!(
                "the label {name:?} is that of several PFSs: name one of {ids}"
            )))
        }
    }
}

fn describe(pfs: &Pfs) -> String {
    match pfs.data.label() {
        [] => pfs.id.to_string(),
        label => format!("{} {:?}", pfs.id, String::from_utf8_lossy(label)),
    }
}

/// The newest committed TID: what a master's effective `sync_end_tid` is.
pub fn committed_end<F: Fetch + ?Sized>(fetch: &mut F) -> Result<Tid> {
    Ok(Records::read(fetch)?.end)
}

/// `max(vol0_next_tid, mirror_tid of the root node, TIDs of PFS records)` (mirroring.md §2.3).
fn masters_end<'a, F: Fetch + ?Sized>(
    fetch: &mut F,
    records: impl Iterator<Item = &'a LeafElement>,
) -> Result<Tid> {
    let root = fetch.node(Offset(fetch.header().btree_root.get()))?;
    let records = records.flat_map(|leaf| [leaf.base.create_tid(), leaf.base.delete_tid()]);
    let next = fetch.header().next_tid();
    Ok(records.fold(next.max(root.mirror_tid()), Tid::max))
}

fn data<F: Fetch + ?Sized>(fetch: &mut F, id: u16, leaf: &LeafElement) -> Result<PfsData> {
    let bytes = good_data(fetch, leaf).map_err(|e| e.context(format!("record of PFS {id}")))?;
    Ok(PfsData::from_bytes(&bytes))
}

/// The key of PFS `id`'s record.
pub fn record_key(id: u16) -> Key {
    Key::first_version(
        Localization::new(0, Localization::MISC),
        ROOT_OBJ,
        rt::PFS,
        PfsData::record_key(id),
    )
}

/// The PFS number that a record's key stands for.
fn number(key: i64) -> Option<u16> {
    let id = u32::try_from(key >> 16).ok()?;
    (key & 0xFFFF == 0 && id < PFS_MAX).then_some(id as u16)
}

/// An error about a PFS without a root directory as of a TID, for callers that need one.
pub fn no_root(tree: Tree) -> Error {
    let when = match tree.asof {
        Tid::MAX => "now".to_owned(),
        tid => format!("as of {tid}"),
    };
    let pfs = tree.pfs;
    Error::new(
        Class::Other,
        format!("PFS {pfs} has no root directory {when}: it is an empty slave, or was made later"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::little_endian::U32;

    fn pfs(id: u16, label: &str, flags: u32) -> Pfs {
        let mut data = PfsData::default_for([7; 16]);
        data.label[..label.len()].copy_from_slice(label.as_bytes());
        data.mirror_flags = U32::new(flags);
        Pfs {
            id,
            data,
            leaf: None,
            sync_end: Tid(0x100),
            unfinished: None,
        }
    }

    #[test]
    fn selection_by_number_and_label() {
        let table = || {
            vec![
                pfs(0, "ROOT", 0),
                pfs(1, "a", 0),
                pfs(2, "b", PfsData::DELETED),
                pfs(3, "twice", PfsData::SLAVE),
                pfs(4, "twice", 0),
            ]
        };
        let id = |name| {
            select(table(), name)
                .map(|p| p.id)
                .map_err(|e| e.to_string())
        };
        assert_eq!(id("1"), Ok(1));
        assert_eq!(id("00003"), Ok(3));
        assert_eq!(id("a"), Ok(1));
        assert_eq!(id("2"), Err("PFS 2 was destroyed".into()));
        let missing = id("b").expect_err("a destroyed PFS's label");
        assert!(
            missing.contains("1 \"a\"") && !missing.contains("2 \"b\""),
            "{missing}"
        );
        assert!(id("twice").expect_err("two carry it").contains("3, 4"));
        assert!(id("70000").is_err());
    }

    #[test]
    fn slaves_are_seen_as_of_their_end() {
        assert_eq!(pfs(1, "", 0).tree(None).asof, Tid::MAX);
        assert_eq!(pfs(1, "", PfsData::SLAVE).tree(None).asof, Tid(0x100));
        assert_eq!(pfs(1, "", PfsData::SLAVE).tree(Some(Tid(5))).asof, Tid(5));
    }

    #[test]
    fn unfinished_operations_are_not_seen() {
        let unfinished = |flags| Pfs {
            unfinished: Some(Tid(0x80)),
            ..pfs(1, "", flags)
        };
        assert_eq!(unfinished(0).tree(None).asof, Tid(0x7f));
        assert_eq!(unfinished(PfsData::SLAVE).tree(None).asof, Tid(0x7f));
        assert_eq!(unfinished(0).tree(Some(Tid(0x80))).asof, Tid(0x7f));
        assert_eq!(unfinished(0).tree(Some(Tid(5))).asof, Tid(5));
    }

    #[test]
    fn record_keys() {
        assert_eq!(number(PfsData::record_key(65535)), Some(65535));
        assert_eq!(number(1), None);
        assert_eq!(number(-65536), None);
        assert_eq!(number(65536 << 16), None);
    }
}
