//! A master that changes in every way: records replaced with history and without, made, removed one by
//! one and in ranges, pruned.

use super::slave::{NOW, SLAVE, store, volume};
use mallet::btree::put::{self, NewRecord};
use mallet::btree::{AsOf, Cursor, Editor};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, Localization, Tid};
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::store::{Fetch, Store, Txn};

/// Bytes of data of every record.
pub const LEN: usize = 40;
/// Objects, and records of each.
pub const OBJECTS: (u64, u64) = (40, 16);
/// Number of the master's PFS, and of every slave's.
pub const MASTER: u16 = SLAVE;

/// Plain random numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub fn key(obj: u64, block: u64) -> Key {
    Key {
        localization: Localization::new(MASTER, Localization::MISC),
        obj_id: 1000 + obj as i64,
        rec_type: rt::DATA,
        key: block as i64 * LEN as i64,
        create_tid: Tid(1),
    }
}

/// Objects that keep no history.
fn keeps(key: Key) -> bool {
    key.obj_id % 4 != 0
}

pub struct Master {
    pub store: Store,
    pub disk: SimDisk,
    editor: Editor,
}

impl Master {
    pub fn new() -> Master {
        let disk = volume(7, 128 << 20, |data| data.shared_uuid = [3; 16]);
        Master {
            store: store(&disk),
            disk,
            editor: Editor::new(),
        }
    }

    pub fn change<T>(&mut self, work: impl FnOnce(&mut Editor, &mut Txn<'_>) -> T) -> T {
        let mut txn = self.store.begin(NOW).expect("a transaction");
        let made = work(&mut self.editor, &mut txn);
        txn.commit().expect("a commit");
        self.disk.forget_log();
        made
    }

    /// Replaces, makes or removes a record.
    pub fn touch(&mut self, random: &mut Random, near: u64) {
        let count = 1 + random.below(8);
        let keys: Vec<(Key, bool)> = (0..count)
            .map(|_| {
                // Mostly close together, so that much of the tree is left alone.
                let obj = match random.one_in(8) {
                    true => random.below(OBJECTS.0),
                    false => (near + random.below(3)) % OBJECTS.0,
                };
                (key(obj, random.below(OBJECTS.1)), random.one_in(4))
            })
            .collect();
        self.change(|editor, txn| {
            for (key, remove) in keys {
                let old = AsOf::new(key, key, Tid::MAX).next(txn).expect("a tree");
                if let Some(old) = &old {
                    put::retire(editor, txn, old, keeps(key)).expect("a record retired");
                }
                if !remove {
                    create(editor, txn, key);
                }
            }
        });
    }

    /// Removes a whole range of objects.
    pub fn clear(&mut self, from: u64, to: u64) {
        self.change(|editor, txn| {
            for old in current(txn, key(from, 0), key(to, 0)) {
                put::retire(editor, txn, &old, keeps(old.base.key())).expect("a record retired");
            }
        });
    }

    /// Destroys what is deleted, all of it or some.
    pub fn prune(&mut self, random: &mut Random, all: bool) {
        self.change(|editor, txn| prune(editor, txn, Tid::MAX, |_| all || random.one_in(2)));
    }

    pub fn end(&mut self) -> Tid {
        let own = pfs::load(self.store.view(), MASTER).expect("a table");
        own.expect("the master").sync_end
    }
}

pub fn create(editor: &mut Editor, txn: &mut Txn<'_>, key: Key) {
    let mut data = [0u8; LEN];
    data[..8].copy_from_slice(&txn.tid().0.to_le_bytes());
    data[8..16].copy_from_slice(&key.key.to_le_bytes());
    let mut base = Base::from_key(Key {
        create_tid: txn.tid(),
        ..key
    });
    base.obj_type = ObjType::File as u8;
    let record = NewRecord {
        base,
        create_ts: txn.now_seconds(),
        delete_ts: 0,
        data: &data,
        crc: None,
    };
    // Made twice by one transaction: the first stands.
    put::create(editor, txn, &record).expect("a record made");
}

fn current<F: Fetch>(fetch: &mut F, from: Key, to: Key) -> Vec<LeafElement> {
    let mut cursor = AsOf::new(from, to, Tid::MAX);
    let mut all = Vec::new();
    while let Some(leaf) = cursor.next(fetch).expect("a readable tree") {
        all.push(leaf);
    }
    all
}

/// Destroys deleted records whose deletion is not above `until`.
pub fn prune(
    editor: &mut Editor,
    txn: &mut Txn<'_>,
    until: Tid,
    mut wanted: impl FnMut(&LeafElement) -> bool,
) {
    let mut cursor = Cursor::new(Key::pfs_min(MASTER), Key::pfs_max(MASTER));
    let mut dead = Vec::new();
    while let Some(leaf) = cursor.next(txn).expect("a readable tree") {
        let deleted = leaf.base.delete_tid();
        if !deleted.is_zero() && deleted <= until && wanted(&leaf) {
            dead.push(leaf.base.key());
        }
    }
    for key in dead {
        put::destroy(editor, txn, key, Tid::ZERO).expect("a record destroyed");
    }
}
