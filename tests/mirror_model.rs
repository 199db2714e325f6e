//! Masters that change in every way, and slaves that follow them through streams: whenever a batch is
//! acknowledged, the slave as of its TID is the master as of that TID.

mod common;

use common::changing::{MASTER, Master, OBJECTS, Random, create, key, prune};
use common::slave::{
    NOW, SLAVE, apply_as, assert_sound_but, fresh, plain, store, synced, view, visible,
};
use common::soak;
use common::streams::{records, stream};
use mallet::btree::Editor;
use mallet::format::{Key, Rule, Tid, mrecord};
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::mirror::{Request, SourcePfs, Window};

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
