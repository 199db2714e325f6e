//! Masters that change in every way, and slaves that follow them through streams: whenever a batch is
//! acknowledged, the slave as of its TID is the master as of that TID.

mod common;

use common::slave::{
    NOW, SLAVE, apply_as, assert_sound_but, fresh, plain, store, synced, view, visible, volume,
};
use common::soak;
use common::streams::{records, stream};
use mallet::btree::put::{self, NewRecord};
use mallet::btree::{AsOf, Cursor, Editor};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{ObjType, rt};
use mallet::format::{Key, Localization, Rule, Tid, mrecord};
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::mirror::{Request, SourcePfs, Window};
use mallet::store::{Fetch, Store, Txn};

/// Bytes of data of every record.
const LEN: usize = 40;
/// Objects, and records of each.
const OBJECTS: (u64, u64) = (40, 16);
/// Number of the master's PFS, and of every slave's.
const MASTER: u16 = SLAVE;

/// Plain random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn key(obj: u64, block: u64) -> Key {
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

struct Master {
    store: Store,
    disk: SimDisk,
    editor: Editor,
}

impl Master {
    fn new() -> Master {
        let disk = volume(7, 128 << 20, |data| data.shared_uuid = [3; 16]);
        Master {
            store: store(&disk),
            disk,
            editor: Editor::new(),
        }
    }

    fn change<T>(&mut self, work: impl FnOnce(&mut Editor, &mut Txn<'_>) -> T) -> T {
        let mut txn = self.store.begin(NOW).expect("a transaction");
        let made = work(&mut self.editor, &mut txn);
        txn.commit().expect("a commit");
        self.disk.forget_log();
        made
    }

    /// Replaces, makes or removes a record.
    fn touch(&mut self, random: &mut Random, near: u64) {
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
    fn clear(&mut self, from: u64, to: u64) {
        self.change(|editor, txn| {
            for old in current(txn, key(from, 0), key(to, 0)) {
                put::retire(editor, txn, &old, keeps(old.base.key())).expect("a record retired");
            }
        });
    }

    /// Destroys what is deleted, all of it or some.
    fn prune(&mut self, random: &mut Random, all: bool) {
        self.change(|editor, txn| prune(editor, txn, Tid::MAX, |_| all || random.one_in(2)));
    }

    fn end(&mut self) -> Tid {
        let own = pfs::load(self.store.view(), MASTER).expect("a table");
        own.expect("the master").sync_end
    }
}

fn create(editor: &mut Editor, txn: &mut Txn<'_>, key: Key) {
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
fn prune(
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

/// The stream of the PFS on `disk` in the window from `begin` to `end`.
fn stream_of(disk: &SimDisk, begin: Tid, end: Tid) -> Vec<u8> {
    let mut view = view(disk);
    let pfs = pfs::load(&mut view, MASTER)
        .expect("a table")
        .expect("the source");
    let request = Request {
        pfs: SourcePfs::from(&pfs),
        window: Window {
            begin,
            end,
            resume: None,
        },
        split: None,
        accept_damage: false,
        live: false,
    };
    stream(&mut view, &request, &mut ()).0
}

/// Lets the slave follow its source, whole or cut off; says whether it was acknowledged.
fn follow(source: &SimDisk, slave: &SimDisk, end: Tid, random: &mut Random, what: &str) -> bool {
    let begin = synced(slave).next();
    if begin > end {
        return false;
    }
    let mut bytes = stream_of(source, begin, end);
    let cut = random.one_in(3);
    if cut {
        let all = records(&bytes);
        let keep = random.below(all.len() as u64) as usize;
        let len: usize = all[..keep].iter().map(|r| mrecord::padded(r.len())).sum();
        bytes.truncate(len);
    }
    let (report, ended) = apply_as(slave, &bytes[..], &plain());
    assert_eq!(ended.is_err(), cut, "{what}: {ended:?}");
    if report.acknowledged.is_none() {
        // Or without work.
        let idle = report.status.items == 1 && !report.withheld;
        assert!(cut || idle, "{what}: {report:?}");
        return false;
    }
    assert_eq!((report.acknowledged, synced(slave)), (Some(end), end));
    assert_same(source, slave, end, what);
    true
}

fn assert_same(source: &SimDisk, slave: &SimDisk, asof: Tid, what: &str) {
    let theirs = visible(&mut view(source), MASTER, asof);
    let ours = visible(&mut view(slave), SLAVE, asof);
    if ours != theirs {
        let name = |all: &[(Key, Vec<u8>)], other: &[(Key, Vec<u8>)]| -> Vec<String> {
            let odd = all.iter().filter(|one| !other.contains(one));
            odd.map(|(key, _)| key.to_string()).collect()
        };
        let (more, less) = (name(&ours, &theirs), name(&theirs, &ours));
        panic!("{what}, as of {asof}: too much {more:#?}, too little {less:#?}");
    }
}

/// A master with history, without, and pruned; windows up to the end and to TIDs before it; streams
/// cut off anywhere; a slave that is pruned, and one of its own.
#[test]
fn slaves_follow() {
    for seed in 0..soak(12) {
        let mut random = Random(seed);
        let mut master = Master::new();
        let first = fresh(7, [3; 16]);
        let second = fresh(6, [3; 16]);
        master.change(|editor, txn| {
            for obj in 0..OBJECTS.0 {
                (0..OBJECTS.1).for_each(|block| create(editor, txn, key(obj, block)));
            }
        });
        let mut acknowledged = 0;
        for round in 0..25 {
            let what = format!("seed {seed}, round {round}");
            let near = random.below(OBJECTS.0);
            for _ in 0..random.below(6) {
                master.touch(&mut random, near);
            }
            if random.one_in(6) {
                master.clear(near, near + random.below(6));
            }
            if random.one_in(3) {
                let all = random.one_in(2);
                master.prune(&mut random, all);
            }
            let newest = master.end();
            let begin = synced(&first).0;
            let end = match random.one_in(3) {
                // In the middle, as the chunks of a split stream are.
                true => Tid(begin + random.below(newest.0.saturating_sub(begin) + 1)),
                false => newest,
            };
            acknowledged += u64::from(follow(&master.disk, &first, end, &mut random, &what));
            if random.one_in(5) {
                // A slave keeps what its next pass may need.
                let until = synced(&first);
                let mut store = store(&first);
                let mut txn = store.begin(NOW).expect("a transaction");
                prune(&mut Editor::new(), &mut txn, until, |_| random.one_in(2));
                txn.commit().expect("a commit");
            }
            let what = format!("{what}, the slave's slave");
            follow(&first, &second, synced(&first), &mut random, &what);
        }
        for disk in [&master.disk, &first, &second] {
            // Blocks without files.
            assert_sound_but(disk, &[Rule::FileOwner]);
        }
        assert!(acknowledged > 5, "seed {seed}: {acknowledged}");
    }
}
