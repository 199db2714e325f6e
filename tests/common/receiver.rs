//! A simple target for streams, in memory.

use super::streams::records;
use mallet::format::mrecord::Body;
use mallet::format::node::LeafElement;
use mallet::format::record::rt;
use mallet::format::{Key, Localization, Tid};
use std::collections::BTreeMap;

/// A target as mirroring.md §7 describes it, with the rules of decisions.md 5a and 12a.
#[derive(Clone, Default)]
pub struct Target {
    pub records: BTreeMap<Key, (LeafElement, Vec<u8>)>,
    pub sync_end: Tid,
}

impl Target {
    /// Applies a stream.
    pub fn apply(&mut self, stream: &[u8]) {
        let (mut begin, mut end) = (Tid::ZERO, Tid::ZERO);
        // Where the unresolved space begins, and whether that key belongs to it.
        let mut from = (Key::MIN, true);
        for record in records(stream) {
            match Body::parse(&record, 0).expect("a sound record") {
                Body::Pfsd(pfsd) => {
                    (begin, end) = (Tid(pfsd.pfs.sync_beg_tid.get()), pfsd.pfs.sync_end_tid());
                    from = (Key::MIN, true);
                }
                Body::Skip { from: f, to } => {
                    self.delete(from, local(f.key()), end);
                    from = (local(to.key()), true);
                }
                Body::Pass(leaf) => {
                    let key = local(leaf.base.key());
                    self.delete(from, key, end);
                    self.update(key, &leaf);
                    from = (key, false);
                }
                Body::Record { leaf, data, .. } => {
                    let key = local(leaf.base.key());
                    self.delete(from, key, end);
                    self.update(key, &leaf);
                    if leaf.base.create_tid() >= begin {
                        self.records.entry(key).or_insert((leaf, data.to_vec()));
                    }
                    from = (key, false);
                }
                Body::Sync => {
                    self.delete(from, Key::MAX, end);
                    self.sync_end = end;
                }
                _ => {}
            }
        }
    }

    fn update(&mut self, key: Key, leaf: &LeafElement) {
        if let Some((own, _)) = self.records.get_mut(&key)
            && !leaf.base.delete_tid().is_zero()
        {
            own.base.delete_tid = leaf.base.delete_tid;
        }
    }

    fn delete(&mut self, from: (Key, bool), to: Key, end: Tid) {
        let gap: Vec<Key> = self
            .records
            .range(from.0..to)
            .map(|(key, _)| *key)
            .collect();
        for key in gap.into_iter().filter(|key| from.1 || *key != from.0) {
            let (leaf, _) = self.records.get_mut(&key).expect("the key was just seen");
            if [rt::CONFIG, rt::SNAPSHOT].contains(&key.rec_type) || !leaf.visible(end) {
                continue;
            }
            if key.create_tid == end {
                self.records.remove(&key);
            } else {
                leaf.base.delete_tid.set(end.0);
            }
        }
    }

    /// What is visible as of `asof`, mtime and atime of inodes aside.
    pub fn visible(&self, asof: Tid) -> Vec<(Key, Vec<u8>)> {
        let visible = self
            .records
            .iter()
            .filter(|(_, (leaf, _))| leaf.visible(asof));
        visible
            .map(|(key, (_, data))| (*key, timeless(*key, data)))
            .collect()
    }
}

/// A key in terms of every PFS.
pub fn local(mut key: Key) -> Key {
    key.localization = Localization(u32::from(key.localization.class()));
    key
}

/// A record's data but for an inode's mtime and atime.
pub fn timeless(key: Key, data: &[u8]) -> Vec<u8> {
    let keep = if key.rec_type == rt::INODE {
        data.len() - 16
    } else {
        data.len()
    };
    data[..keep].to_vec()
}
