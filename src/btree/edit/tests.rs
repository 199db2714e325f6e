//! The editor on memory, against a sorted map.

mod arena;

use super::*;
use crate::btree::put::{self, NewRecord};
use crate::format::Localization;
use crate::format::record::rt;
use arena::{Arena, Random};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn key(pfs: u16, obj_id: i64, key: i64, create_tid: u64) -> Key {
    Key {
        localization: Localization::new(pfs, Localization::MISC),
        obj_id,
        rec_type: rt::DATA,
        key,
        create_tid: Tid(create_tid),
    }
}

fn element(key: Key, delete_tid: u64) -> LeafElement {
    let mut base = Base::from_key(key);
    base.delete_tid = U64::new(delete_tid);
    base.btype = RECORD;
    LeafElement {
        base,
        create_ts: U32::ZERO,
        delete_ts: U32::ZERO,
        data_offset: U64::ZERO,
        data_len: I32::ZERO,
        data_crc: U32::new(key.key as u32),
    }
}

/// A tree, what it should hold, and what mirroring must be able to see.
#[derive(Default)]
struct Model {
    arena: Arena,
    editor: Editor,
    records: BTreeMap<Key, LeafElement>,
    /// Keys with the TID of a removal that slaves must notice.
    removed: BTreeMap<Key, Tid>,
    tid: u64,
}

impl Model {
    fn insert(&mut self, new: LeafElement) {
        let key = new.base.key();
        let before = self.arena.clone();
        let known = self.records.contains_key(&key);
        let inserted = self.editor.insert(&mut self.arena, &new).expect("room");
        assert_eq!(inserted, !known);
        if known {
            assert!(self.arena == before, "a duplicate changed something");
        } else {
            self.records.insert(key, new);
        }
    }

    fn remove(&mut self, key: Key, mirror: u64) {
        let old = self.editor.remove(&mut self.arena, key, Tid(mirror));
        assert_eq!(Some(old.expect("it is there")), self.records.remove(&key));
        if mirror > 0 {
            self.removed.insert(key, Tid(mirror));
        }
    }

    fn delete(&mut self, key: Key, tid: u64) {
        let old = self.editor.set_deleted(&mut self.arena, key, Tid(tid), 7);
        let record = self.records.get_mut(&key).expect("a record");
        assert_eq!(&old.expect("it is there"), record);
        record.base.delete_tid = U64::new(tid);
        record.delete_ts = U32::new(7);
    }

    fn any_key(&self, random: &mut Random) -> Option<Key> {
        let from = Self::some_key(random, 1);
        let after = self.records.range(from..).next();
        after.or(self.records.iter().next()).map(|(key, _)| *key)
    }

    fn some_key(random: &mut Random, tid: u64) -> Key {
        let (pfs, obj) = (random.below(3) as u16, random.below(5) as i64 - 1);
        key(pfs, obj, random.below(400) as i64, tid)
    }

    /// One step of many kinds.
    fn step(&mut self, random: &mut Random) {
        self.tid += 16;
        match random.below(100) {
            0..40 => {
                let create = 16 * (1 + random.below(self.tid / 16));
                self.insert(element(Self::some_key(random, create), 0));
            }
            40..44 => {
                // A run, in the middle of the rest or at its end.
                let start = Self::some_key(random, self.tid);
                for i in 0..random.below(150) as i64 {
                    self.insert(element(
                        key(
                            start.localization.pfs(),
                            start.obj_id,
                            start.key + i,
                            self.tid,
                        ),
                        0,
                    ));
                }
            }
            44..46 => {
                // A subtree goes.
                let from = Self::some_key(random, 1);
                let count = random.below(300) as usize;
                let keys: Vec<_> = self
                    .records
                    .range(from..)
                    .take(count)
                    .map(|r| *r.0)
                    .collect();
                let mirror = if random.below(2) == 0 { self.tid } else { 0 };
                for key in keys {
                    self.remove(key, mirror);
                }
            }
            46..66 => {
                if let Some(key) = self.any_key(random) {
                    let mirror = if random.below(2) == 0 { self.tid } else { 0 };
                    self.remove(key, mirror);
                }
            }
            66..76 => {
                if let Some(key) = self.any_key(random) {
                    let tid = if random.below(3) == 0 {
                        0
                    } else {
                        self.tid + 16
                    };
                    self.delete(key, tid);
                }
            }
            76..80 => {
                if let Some(key) = self.any_key(random) {
                    let at = Offset(0xa000_0000_0000_4000);
                    self.editor
                        .set_data(&mut self.arena, key, at, 9, 3)
                        .expect("it is there");
                    let record = self.records.get_mut(&key).expect("a record");
                    record.data_offset = U64::new(at.0);
                    record.data_len = I32::new(9);
                    record.data_crc = U32::new(3);
                }
            }
            80..90 => {
                let create = 16 * (1 + random.below(self.tid / 16));
                let key = Self::some_key(random, create);
                let found = self
                    .editor
                    .at_or_after(&mut self.arena, key)
                    .expect("a tree");
                assert_eq!(found, self.records.range(key..).next().map(|r| *r.1));
            }
            90..99 => {
                if let Some(key) = self.any_key(random) {
                    let found = self.editor.find(&mut self.arena, key).expect("a tree");
                    assert_eq!(found.as_ref(), self.records.get(&key));
                }
            }
            _ => self.editor = Editor::new(),
        }
    }

    fn check(&mut self) {
        let found = self.arena.check();
        let keys: Vec<_> = found.iter().map(|e| e.base.key()).collect();
        let expected: Vec<_> = self.records.keys().copied().collect();
        assert_eq!(keys, expected);
        assert!(found.iter().eq(self.records.values()));
        for (key, tid) in &self.removed {
            self.arena.check_seen(*key, *tid);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_tree_is_a_sorted_map(seed: u64) {
        let mut random = Random(seed);
        let mut model = Model::default();
        for round in 0..12 {
            for _ in 0..150 {
                model.step(&mut random);
            }
            model.check();
            if round == 8 {
                let keys: Vec<_> = model.records.keys().copied().collect();
                for key in keys {
                    model.remove(key, 0);
                }
                model.check();
                prop_assert_eq!(model.arena.nodes(), 1, "an empty tree is one leaf");
            }
        }
    }

    /// Space runs out at any allocation: nothing that was there is lost, and the tree is whole.
    #[test]
    fn no_space_leaves_a_whole_tree(seed: u64, budget in 0usize..40) {
        let mut random = Random(seed);
        let mut model = Model::default();
        model.arena.budget = budget;
        let mut failed = 0;
        for _ in 0..4000 {
            let create = 16 + random.below(99);
            let new = element(Model::some_key(&mut random, create), 0);
            match model.editor.insert(&mut model.arena, &new) {
                Ok(true) => drop(model.records.insert(new.base.key(), new)),
                Ok(false) => {}
                Err(_) => failed += 1,
            }
        }
        prop_assert!(failed > 0);
        model.check();
    }

    /// Damaged nodes give errors of class `Damage`, whatever is asked.
    #[test]
    fn damage_is_an_error(seed: u64) {
        let mut random = Random(seed);
        let mut model = Model::default();
        for _ in 0..400 {
            model.step(&mut random);
        }
        for _ in 0..200 {
            model.arena.damage(&mut random);
            let mut editor = Editor::new();
            let create = 16 * (1 + random.below(20));
            let key = Model::some_key(&mut random, create);
            let arena = &mut model.arena;
            let result = match random.below(5) {
                0 => editor.insert(arena, &element(key, 0)).map(drop),
                1 => editor.find(arena, key).map(drop),
                2 => editor.remove(arena, key, Tid(9)).map(drop),
                3 => editor.set_deleted(arena, key, Tid(1 << 40), 0).map(drop),
                _ => editor.at_or_after(arena, key).map(drop),
            };
            if let Err(error) = result {
                prop_assert_eq!(error.class(), crate::error::Class::Damage);
            }
        }
    }
}

#[test]
fn ascending_inserts_fill_leaves_and_touch_little() {
    let mut model = Model::default();
    for i in 0..40_000 {
        let new = element(key(0, 5, i, 16 + i as u64), 0);
        assert!(model.editor.insert(&mut model.arena, &new).expect("room"));
        model.records.insert(new.base.key(), new);
    }
    model.check();
    let leaves = 40_000_usize.div_ceil(60);
    assert!(
        model.arena.nodes() < leaves + leaves / 50,
        "{} nodes",
        model.arena.nodes()
    );
    // The head and the element of the leaf, and of each node above it.
    let per_insert = model.arena.touched / 40_000;
    assert!(per_insert < 400, "{per_insert} bytes");
    let reads = model.arena.reads;
    assert!(reads < 4 * model.arena.nodes(), "{reads} reads");
}

#[test]
fn a_run_in_the_middle_fills_its_leaves() {
    let mut model = Model::default();
    for i in 0..500 {
        model.insert(element(key(0, i % 2 * 9, i, 16), 0));
    }
    let before = model.arena.nodes();
    for i in 0..20_000 {
        let new = element(key(0, 5, i, 16 + 16 * i as u64), 0);
        assert!(model.editor.insert(&mut model.arena, &new).expect("room"));
        model.records.insert(new.base.key(), new);
    }
    model.check();
    let more = model.arena.nodes() - before;
    assert!(more < 20_000 / 58, "{more} nodes");
}

#[test]
fn separators_are_never_first_versions() {
    let mut model = Model::default();
    for i in (0..3000).rev() {
        model.insert(element(key(0, 5, i, 1), 0));
    }
    for i in 3000..6000 {
        model.insert(element(key(0, 5, i, 1), 0));
    }
    model.check();
}

#[test]
fn what_cannot_be_is_refused() {
    let mut model = Model::default();
    let mut refuse = |key: Key| {
        let error = model.editor.insert(&mut model.arena, &element(key, 0));
        assert!(error.is_err_and(|e| e.class() == crate::error::Class::Damage));
    };
    refuse(Key::MAX);
    refuse(key(0, 1, 1, 0));
    let here = key(0, 1, 1, 32);
    model.insert(element(here, 0));
    for tid in [16, 32] {
        let error = model
            .editor
            .set_deleted(&mut model.arena, here, Tid(tid), 0);
        assert!(error.is_err());
    }
    assert!(
        model
            .editor
            .remove(&mut model.arena, key(0, 1, 2, 32), Tid(0))
            .is_err()
    );
    model.check();
}

#[test]
fn two_editors_see_each_other() {
    let mut model = Model::default();
    let mut other = Editor::new();
    for i in 0..3000 {
        let new = element(key(0, i % 7, i, 16), 0);
        let editor = if i % 3 == 0 {
            &mut other
        } else {
            &mut model.editor
        };
        assert!(editor.insert(&mut model.arena, &new).expect("room"));
        model.records.insert(new.base.key(), new);
    }
    model.check();
}

fn record(base_key: Key, rec_type: u16, data: &[u8]) -> NewRecord<'_> {
    let base = Base::from_key(Key {
        rec_type,
        ..base_key
    });
    NewRecord {
        base,
        create_ts: 1,
        delete_ts: 0,
        data,
        crc: None,
    }
}

#[test]
fn records_take_and_give_back_space() {
    let (mut arena, mut editor) = (Arena::default(), Editor::new());
    let inode = record(key(0, 5, 0, 32), rt::INODE, &[1; 128]);
    let block = record(key(0, 5, 16384, 32), rt::DATA, &[2; 16384]);
    let short = record(key(0, 5, 100, 32), rt::DATA, &[3; 100]);
    for new in [&inode, &block, &short] {
        assert!(put::create(&mut editor, &mut arena, new).expect("room"));
        let used = arena.used.clone();
        assert!(!put::create(&mut editor, &mut arena, new).expect("a tree"));
        assert_eq!(arena.used, used, "a duplicate takes no space");
    }
    let zones: Vec<_> = arena.used.keys().map(|at| Offset(*at).zone().0).collect();
    assert_eq!((arena.inodes, zones), (1, vec![9, 10, 11]));
    let inode = inode.base.key();
    put::mark_deleted(&mut editor, &mut arena, inode, Tid(48), 3).expect("it is there");
    assert_eq!(arena.inodes, 0);
    put::mark_deleted(&mut editor, &mut arena, inode, Tid(64), 3).expect("it is there");
    assert_eq!(arena.inodes, 0);
    put::mark_deleted(&mut editor, &mut arena, inode, Tid(0), 0).expect("it is there");
    assert_eq!(arena.inodes, 1);
    for key in [inode, block.base.key(), short.base.key()] {
        put::destroy(&mut editor, &mut arena, key, Tid(0)).expect("it is there");
    }
    assert_eq!((arena.inodes, arena.used.len(), arena.nodes()), (0, 0, 1));
}

#[test]
fn a_record_ends_as_its_history_says() {
    let (mut arena, mut editor) = (Arena::default(), Editor::new());
    arena.tid = 160;
    let keys = [key(0, 5, 1, 160), key(0, 5, 2, 32), key(0, 5, 3, 32)];
    for (key, keep) in keys.into_iter().zip([true, true, false]) {
        put::create(&mut editor, &mut arena, &record(key, rt::DATA, b"x")).expect("room");
        let element = editor.find(&mut arena, key).expect("a tree").expect("it");
        put::retire(&mut editor, &mut arena, &element, keep).expect("it is there");
    }
    let left = arena.check();
    assert_eq!(left.len(), 1);
    assert_eq!(
        (left[0].base.key(), left[0].base.delete_tid()),
        (keys[1], Tid(160))
    );
    assert_eq!(arena.used.len(), 1);
    arena.check_seen(keys[2], Tid(160));
}

#[test]
fn overwriting_touches_what_differs() {
    let (mut arena, mut editor) = (Arena::default(), Editor::new());
    let mut data = [7; 128];
    let inode = record(key(0, 5, 0, 32), rt::INODE, &data);
    put::create(&mut editor, &mut arena, &inode).expect("room");
    let inode = inode.base.key();
    let get = |arena: &mut Arena, editor: &mut Editor| {
        editor.find(arena, inode).expect("a tree").expect("it")
    };
    let first = get(&mut arena, &mut editor);
    // Times are outside the CRC.
    data[115] = 8;
    let touched = arena.touched;
    put::overwrite(&mut editor, &mut arena, &first, &data).expect("its place");
    assert_eq!(arena.touched - touched, 1);
    assert_eq!(get(&mut arena, &mut editor), first);
    data[3] = 9;
    put::overwrite(&mut editor, &mut arena, &first, &data).expect("its place");
    let second = get(&mut arena, &mut editor);
    assert_ne!(second.data_crc, first.data_crc);
    let good = crate::btree::good_data(&mut arena, &second).expect("its CRC");
    assert_eq!(&*good, &data);
    assert!(put::overwrite(&mut editor, &mut arena, &second, &data[1..]).is_err());
}

#[test]
fn an_append_to_an_open_leaf_is_fast() {
    let mut model = Model::default();
    let started = std::time::Instant::now();
    for i in 0..200_000 {
        let new = element(key(0, 5, i, 16), 0);
        model.editor.insert(&mut model.arena, &new).expect("room");
    }
    let each = started.elapsed() / 200_000;
    assert!(each < std::time::Duration::from_micros(50), "{each:?}");
}

/// What is put into the space of removed subtrees, with older TIDs, must not hide the removal.
#[test]
fn a_removal_stays_visible() {
    let put = |model: &mut Model, i: i64| {
        let new = element(key(0, 5, i, 16), 0);
        assert!(model.editor.insert(&mut model.arena, &new).expect("room"));
        model.records.insert(new.base.key(), new);
    };
    let mut full = Model::default();
    for i in 0..16_000 {
        put(&mut full, i);
    }
    // Where the root's children begin: exactly these subtrees go, with no leaf of their neighbours.
    let edges = full.arena.root_edges();
    assert!(edges.len() > 3);
    let subtrees = [(0, edges[1]), (edges[1], edges[3]), (edges[3], 16_000)];
    let others = [(63, 126), (0, 500), (3000, 12_000), (0, 15_999)];
    for (from, to) in subtrees.into_iter().chain(others) {
        let mut model = Model {
            arena: full.arena.clone(),
            records: full.records.clone(),
            ..Model::default()
        };
        for i in from..to {
            model.remove(key(0, 5, i, 16), 160);
        }
        model.check();
        // From the outer ends inwards, so that both neighbours are widened and split.
        let middle = from + (to - from) / 2;
        for i in (from..middle).chain((middle..to).rev()) {
            put(&mut model, i);
            if i % 2000 == 0 {
                model.check();
            }
        }
        model.check();
    }
}
