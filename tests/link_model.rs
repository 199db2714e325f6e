//! A master that changes in every way between two-way sessions that break anywhere: what one session
//! left, another goes on with, much later and from another state of the master. Whenever a batch is
//! acknowledged, the slave as of its TID is the master as of that TID; until then it shows what it
//! showed.

mod common;

use common::changing::{MASTER, Master, OBJECTS, Random, create, key, prune};
use common::link::{Plan, Trouble, Way};
use common::session::{How, session};
use common::slave::{NOW, SLAVE, assert_sound_but, store, synced, view, visible, volume};
use common::soak;
use mallet::btree::Editor;
use mallet::format::mrecord::Capabilities;
use mallet::format::record::PfsData;
use mallet::format::{Key, Rule, Tid};
use mallet::fs::pfs_ops::{self, Settings};
use mallet::fs::rollback::{Rollback, roll_back};
use mallet::io::sim::SimDisk;
use std::io::Write as _;
use std::time::Instant;

/// A slave, and what it shows as of its TID.
struct Slave {
    disk: SimDisk,
    shown: Vec<(Key, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct Tally {
    sessions: u64,
    acknowledged: u64,
    resumed: u64,
    taken_back: u64,
    deaths: u64,
}

impl Slave {
    fn new() -> Slave {
        let disk = volume(7, 128 << 20, |data| {
            data.shared_uuid = [3; 16];
            data.unique_uuid = [7; 16];
            data.mirror_flags.set(PfsData::SLAVE);
        });
        Slave {
            disk,
            shown: Vec::new(),
        }
    }

    /// One session, which may go wrong; says how much of the stream was sent.
    fn session(&mut self, master: &SimDisk, how: How, plan: &Plan, tally: &mut Tally) -> usize {
        let what = format!("{plan:?}, {how:?}");
        let before = synced(&self.disk);
        let ran = session(master, &self.disk, how, plan);
        tally.sessions += 1;
        tally.resumed += u64::from(ran.told.resumed);
        tally.taken_back += u64::from(ran.told.taken_back);
        tally.deaths += u64::from(ran.link.dead().is_some());
        self.disk = ran.slave;
        if ran.link.dead().is_some() {
            drop(store(&self.disk));
        }
        self.disk.forget_log();
        let has = synced(&self.disk);
        if plan.troubles.is_empty() {
            for ended in [&ran.source.0, &ran.target.0] {
                assert!(ended.is_ok(), "{what}: {ended:?}");
            }
            assert!(has == how.end || has == before, "{what}: as of {has}");
        }
        for (tid, _) in ran.link.acknowledged() {
            assert!(
                Tid(tid) <= has,
                "{what}: {tid:x} acknowledged, it has {has}"
            );
        }
        if has > before {
            tally.acknowledged += 1;
            self.shown = visible(&mut view(master), MASTER, has);
        }
        if has > Tid(1) {
            let shown = visible(&mut view(&self.disk), SLAVE, has);
            assert!(
                shown == self.shown,
                "{what}: wrong as of {has}, {before} before"
            );
        }
        ran.link.said(Way::There).len()
    }
}

/// The master loses what came after `to`, as when it is restored or taken back, and goes on.
fn taken_back(master: &mut Master, to: Tid, seed: u64) {
    let what = Rollback {
        pfs: MASTER,
        to,
        spare_local: true,
    };
    roll_back(&mut master.store, &what, NOW, &mut ()).expect("a master taken back");
    let settings = Settings {
        label: Some(format!("label {seed}").into_bytes()),
        ..Settings::default()
    };
    pfs_ops::update(&mut master.store, MASTER, &settings, NOW).expect("a new record");
    master.disk.forget_log();
}

fn trouble(random: &mut Random, len: usize) -> Trouble {
    let (way, at) = match random.below(8) {
        0 => (Way::Back, random.below(500)),
        _ => (Way::There, random.below(len as u64 + 100)),
    };
    match random.below(6) {
        0 | 1 => Trouble::Cut(way, at),
        2 => Trouble::Silence(way, at),
        3 => Trouble::DeathAt(random.below(100)),
        _ => Trouble::Death(way, at),
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let random = &mut Random(seed);
    let (mut master, mut slave) = (Master::new(), Slave::new());
    master.change(|editor, txn| {
        for obj in 0..OBJECTS.0 {
            (0..OBJECTS.1).for_each(|block| create(editor, txn, key(obj, block)));
        }
    });
    // How long the last stream was that came through.
    let mut len = 80_000;
    // An end that does not say who it is cannot be told from what it was before it was taken back.
    let mut anonymous = true;
    for round in 0..30 {
        let near = random.below(OBJECTS.0);
        for _ in 0..random.below(5) {
            master.touch(random, near);
        }
        if random.one_in(6) {
            master.clear(near, near + random.below(6));
        }
        if random.one_in(3) {
            let all = random.one_in(2);
            master.prune(random, all);
        }
        let (end, has) = (master.end(), synced(&slave.disk));
        if random.one_in(12) && has > Tid(1) {
            let to = has.0 + random.below(end.0 - has.0 + 1);
            taken_back(&mut master, Tid(to), seed * 100 + round);
            anonymous = false;
        }
        if random.one_in(8) {
            let until = synced(&slave.disk);
            let mut open = store(&slave.disk);
            let mut txn = open.begin(NOW).expect("a transaction");
            prune(&mut Editor::new(), &mut txn, until, |_| random.one_in(2));
            txn.commit().expect("a commit");
            slave.shown = visible(&mut view(&slave.disk), SLAVE, until);
        }
        let how = How {
            announces: match random.below(10) {
                _ if !anonymous => (Capabilities::ALL, Capabilities::ALL),
                0 => (Capabilities::NONE, Capabilities::ALL),
                1 => (Capabilities::ALL, Capabilities::ALIVE),
                _ => (Capabilities::ALL, Capabilities::ALL),
            },
            split: random.one_in(5).then_some(20_000),
            group: 1 + random.below(60),
            ..How::plain(master.end())
        };
        let mut plan = Plan::sound(random.next());
        let whole = random.one_in(4);
        if !whole {
            plan.troubles = vec![trouble(random, len)];
        }
        let has = synced(&slave.disk);
        let sent = slave.session(&master.disk, how, &plan, tally);
        if whole {
            len = sent;
        }
        anonymous |= synced(&slave.disk) > has;
    }
    let how = How {
        announces: (Capabilities::ALL, Capabilities::ALL),
        ..How::plain(master.end())
    };
    slave.session(&master.disk, how, &Plan::sound(seed), tally);
    let end = synced(&slave.disk);
    let expected = visible(&mut view(&master.disk), MASTER, Tid::LIMIT);
    let shown = visible(&mut view(&slave.disk), SLAVE, end);
    assert!(shown == expected, "seed {seed}: not its master in the end");
    for disk in [&master.disk, &slave.disk] {
        // Blocks without files.
        assert_sound_but(disk, &[Rule::FileOwner]);
    }
}

#[test]
fn interrupted_passes_go_on_from_any_state_of_the_master() {
    let (start, mut tally) = (Instant::now(), Tally::default());
    let seeds = soak(15);
    for seed in 1..=seeds {
        run(seed, &mut tally);
    }
    let Tally {
        sessions,
        acknowledged,
        resumed,
        taken_back,
        deaths,
    } = tally;
    let text = format!(
        "link, a changing master: {seeds} seeds, {sessions} sessions, {acknowledged} acknowledged, \
         {resumed} resumed, {taken_back} taken back, {deaths} deaths, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // Not by a macro that the test runner captures: this is to be seen.
    let _ = writeln!(std::io::stderr(), "{text}");
    assert!(acknowledged > seeds * 5 && resumed > seeds * 3 && taken_back > seeds / 4);
}
