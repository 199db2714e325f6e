//! Two-way sessions over a simulated link that is cut at every byte, becomes noise, or loses an end.
//! Whatever happens: both ends come to an end, nothing is acknowledged that is not durable, the slave
//! shows as of its TID what its master shows as of that, and the next session that nothing disturbs
//! makes them equal.

mod common;

use common::build::{self, files::Content, files::Files, files::Object};
use common::crash::timeline::Random;
use common::link::{Link, Plan, Trouble, Way};
use common::session::{self, How, Ran, session};
use common::slave::{self, SLAVE, assert_sound, synced, view, visible};
use common::soak;
use common::streams::records;
use mallet::error::Class;
use mallet::format::mrecord::Capabilities;
use mallet::format::record::PfsData;
use mallet::format::{Key, Tid};
use mallet::fs::pfs;
use mallet::io::lock::{self, Lock};
use mallet::io::sim::{SimDisk, Survive};
use mallet::mirror::read;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// What a PFS shows.
type Shown = Vec<(Key, Vec<u8>)>;

/// A master, what it shows as of TIDs, and a slave that has some of it.
struct World {
    master: SimDisk,
    /// Its last TID at each step.
    tids: Vec<Tid>,
    slave: SimDisk,
    shown: HashMap<Tid, Shown>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    sessions: u64,
    /// Of the disturbed ones, those that an end called a failure, and acknowledgements heard in them.
    failed: u64,
    acknowledged: u64,
    /// Deaths of the target's process.
    deaths: u64,
    /// Sessions that went on where one was interrupted, and those that took back what one left.
    resumed: u64,
    taken_back: u64,
}

/// A master whose PFS 1 changed in steps, of files of up to `size` bytes.
fn master(seed: u64, steps: u64, files_a_step: u64, size: u64) -> (SimDisk, Vec<Tid>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("master");
    let mut options = build::Options::new(&path, 7, 104 << 20);
    options.seed = seed + 1;
    let mut files = Files::new(&options);
    files.pfs_master(1, "master");
    let root = Object::root(1);
    let mut random = Random(seed ^ 0x11_4B);
    let mut names: Vec<(Vec<u8>, Object)> = Vec::new();
    let mut tids = Vec::new();
    for step in 0..steps {
        for n in 0..files_a_step {
            let content = Content::Pattern(random.below(size));
            let any = |random: &mut Random| random.below(names.len() as u64) as usize;
            match random.below(5) {
                0 | 1 if !names.is_empty() => {
                    let (_, file) = names[any(&mut random)];
                    files.rewrite(file, &content, step * 100 + n);
                }
                2 if !names.is_empty() => {
                    let (name, _) = names.swap_remove(any(&mut random));
                    files.remove(root, &name);
                }
                _ => {
                    let name = format!("f{step}-{n}").into_bytes();
                    let file = files.file(root, &name, &content);
                    names.push((name, file));
                }
            }
        }
        tids.push(files.tid());
    }
    files.build(&options);
    let disk = SimDisk::over(File::open(&path).expect("an image")).expect("a disk");
    (disk, tids)
}

impl World {
    /// With a slave that has the master's first step.
    fn new(seed: u64, steps: u64, files_a_step: u64, size: u64) -> World {
        let (master, tids) = master(seed, steps, files_a_step, size);
        let found = pfs::load(&mut view(&master), 1).expect("a table");
        let uuid = found.expect("the master").data.shared_uuid;
        let slave = slave::volume(7, 104 << 20, |data| {
            data.shared_uuid = uuid;
            data.mirror_flags.set(PfsData::SLAVE);
        });
        let mut world = World {
            master,
            slave,
            shown: HashMap::new(),
            tally: Tally::default(),
            tids,
        };
        let how = How::plain(world.tids[0]);
        let ran = world.undisturbed(&world.slave.clone(), how, seed);
        world.slave = ran.slave;
        world.slave.forget_log();
        world
    }

    fn end(&self) -> Tid {
        *self.tids.last().expect("steps")
    }

    /// A session that nothing disturbs, which is to make both equal.
    fn undisturbed(&mut self, slave: &SimDisk, how: How, seed: u64) -> Ran {
        let ran = session(&self.master, slave, how, &Plan::sound(seed));
        for ended in [&ran.source.0, &ran.target.0] {
            assert!(ended.is_ok(), "undisturbed, {how:?}: {ended:?}");
        }
        assert_eq!(synced(&ran.slave), how.end, "undisturbed, {how:?}");
        assert_eq!(
            ran.source.1.target.1.is_some(),
            ran.target.1.acknowledged.is_some()
        );
        self.assert_equal(&ran.slave, "undisturbed");
        self.count(&ran);
        ran
    }

    fn count(&mut self, ran: &Ran) {
        self.tally.sessions += 1;
        self.tally.deaths += u64::from(ran.link.dead().is_some());
        self.tally.resumed += u64::from(ran.told.resumed);
        self.tally.taken_back += u64::from(ran.told.taken_back);
    }

    /// The slave shows what its master shows as of the slave's TID.
    fn assert_equal(&mut self, slave: &SimDisk, what: &str) -> Tid {
        let tid = synced(slave);
        let master = &self.master;
        let expected = self
            .shown
            .entry(tid)
            .or_insert_with(|| visible(&mut view(master), 1, tid));
        // A fresh slave says 1 and shows nothing.
        if tid > Tid(1) {
            let shown = visible(&mut view(slave), SLAVE, tid);
            assert!(
                shown == *expected,
                "{what}: as of {tid} it is not its master"
            );
        }
        tid
    }

    /// A session by `plan`, and one after it that nothing disturbs.
    fn disturbed(&mut self, how: How, plan: &Plan) {
        let slave = self.slave.clone();
        let ran = self.disturbed_from(&slave, how, plan);
        let again = self.undisturbed(&ran.slave, how, plan.seed);
        if plan.seed.is_multiple_of(64) {
            assert_sound(&again.slave);
        }
    }

    /// A session by `plan`; every rule that holds afterwards.
    fn disturbed_from(&mut self, slave: &SimDisk, how: How, plan: &Plan) -> Ran {
        let what = format!("{plan:?}, {how:?}");
        let ran = session(&self.master, slave, how, plan);
        let died = ran.link.dead().is_some();
        self.count(&ran);
        for ended in [&ran.source.0, &ran.target.0] {
            let Err(error) = ended else { continue };
            self.tally.failed += 1;
            let class = error.class();
            let fits = [Class::Protocol, Class::Incompatible].contains(&class);
            assert!(fits, "{what}: {error} ({class:?})");
        }
        if died {
            // Opening recovers it.
            drop(session::store(&ran.slave, 1 << 20, 1).expect("a store"));
        }
        let has = self.assert_equal(&ran.slave, &what);
        assert!(has >= synced(slave), "{what}: it lost what it had");
        for (tid, at) in ran.link.acknowledged() {
            assert!(
                Tid(tid) <= has,
                "{what}: {tid:x} was acknowledged, it has {has}"
            );
            self.tally.acknowledged += 1;
            // A power cut at that very moment, the worst there is.
            if !died && plan.seed.is_multiple_of(16) {
                let cut = ran.slave.crash(at, Survive::None).expect("an image");
                drop(session::store(&cut, 1 << 20, 1).expect("a store"));
                assert!(Tid(tid) <= synced(&cut), "{what}: {tid:x} was not durable");
            }
        }
        let heard = ran.source.1.target.1;
        assert!(
            heard.is_none_or(|tid| tid <= has),
            "{what}: {heard:?} heard, it has {has}"
        );
        ran
    }

    /// Says how much was tried, and by which seeds.
    fn say(&self, name: &str, since: Instant) {
        let Tally {
            sessions,
            failed,
            acknowledged,
            deaths,
            resumed,
            taken_back,
        } = self.tally;
        let text = format!(
            "link, {name}: {sessions} sessions, {failed} ends failed, {acknowledged} \
             acknowledgements, {deaths} deaths, {resumed} resumed, {taken_back} taken back, {:.1} s",
            since.elapsed().as_secs_f64()
        );
        // Not by a macro that the test runner captures: this is to be seen.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// How a session of this seed is held: most in one batch, some in several; some with every record
/// durable when it is applied; between two ends that go on at the record, or where one cannot.
fn how(seed: u64, end: Tid) -> How {
    let (all, none) = (Capabilities::ALL, Capabilities::NONE);
    How {
        split: (seed % 3 == 1).then_some(8 << 10),
        dirty_bytes: [256 << 10, 0][usize::from(seed % 4 == 2)],
        announces: [
            (all, all),
            (none, none),
            (all, none),
            (all, all),
            (none, all),
        ][(seed % 5) as usize],
        group: [3, 20, 1 << 20][(seed % 7 % 3) as usize],
        ..How::plain(end)
    }
}

/// Whether this one of many is tried in a short run, where one in `share` is.
fn is_tried(number: u64, share: u64) -> bool {
    soak(1) > 1 || number.is_multiple_of(share)
}

/// A short stream, cut at every byte of both directions.
#[test]
fn cut_at_every_byte() {
    let start = Instant::now();
    let mut world = World::new(1, 3, 14, 900);
    // Both ways of holding a session, in one batch and in several.
    for seed in [0, 1, 3, 10] {
        let how = how(seed, world.end());
        let slave = world.slave.clone();
        let ran = world.undisturbed(&slave, how, seed);
        for (way, share) in [(Way::There, 97), (Way::Back, 13)] {
            let len = ran.link.said(way).len() as u64;
            assert!(len <= 64 << 10, "{len} bytes");
            for at in (0..=len).filter(|at| is_tried(at + seed, share)) {
                world.disturbed(how, &Plan::with(at, Trouble::Cut(way, at)));
            }
        }
    }
    world.say("cut at every byte", start);
}

/// A longer stream, cut around every record.
#[test]
fn cut_around_every_record() {
    let start = Instant::now();
    let mut world = World::new(2, 3, 60, 30_000);
    let how = How {
        split: Some(300 << 10),
        ..how(0, world.end())
    };
    let slave = world.slave.clone();
    let ran = world.undisturbed(&slave, how, 1);
    for (way, share) in [(Way::There, 31), (Way::Back, 1)] {
        let said = ran.link.said(way);
        let mut at = 0;
        for (number, record) in records(&said).iter().enumerate() {
            at += record.len().next_multiple_of(8) as u64;
            for at in [at - 1, at, at + 1] {
                if is_tried(number as u64, share) {
                    world.disturbed(how, &Plan::with(at, Trouble::Cut(way, at)));
                }
            }
        }
    }
    world.say("cut around every record", start);
}

/// What is durable is not sent again: however often a long pass is interrupted, all sessions together
/// send little more than one that is not; and a process that dies costs what was not durable yet.
#[test]
fn what_is_durable_is_not_sent_again() {
    let mut world = World::new(5, 3, 60, 30_000);
    let fresh = world.slave.clone();
    let how = How {
        announces: (Capabilities::ALL, Capabilities::ALL),
        group: 4,
        ..How::plain(world.end())
    };
    let ran = world.undisturbed(&fresh, how, 1);
    let whole = ran.link.said(Way::There).len() as u64;
    assert!(whole > 1 << 20, "{whole} bytes");
    for parts in [2, 5, 20] {
        for dies in [false, true] {
            let (mut slave, mut sent) = (fresh.clone(), 0);
            // Session records and the elements of one leaf; and what was not durable.
            // Under way are at most 64 KiB, and four records of up to as much.
            let more = if dies { 5 << 16 } else { 12_000 };
            let mut sessions = 0;
            for seed in 1.. {
                sessions = seed;
                let at = whole / parts;
                let trouble = match dies {
                    true => Trouble::Death(Way::There, at),
                    false => Trouble::Cut(Way::There, at),
                };
                let ran = world.disturbed_from(&slave, how, &Plan::with(seed, trouble));
                sent += ran.link.said(Way::There).len() as u64;
                slave = ran.slave;
                slave.forget_log();
                assert_eq!(ran.told.resumed, seed > 1);
                assert!(seed < 3 * parts, "{parts} parts: it does not get on");
                if synced(&slave) == how.end {
                    break;
                }
            }
            println!("{parts} parts, dies: {dies}: {sent} bytes of {whole}");
            assert!(
                sent <= whole + sessions * more,
                "{parts} parts: {sent} of {whole}"
            );
        }
    }
}

/// A connection that comes a second time while the first is at work: whoever applies a stream holds the
/// slave's lock, the second one is told so, and is served when the first has come to its end, be that
/// because its link is cut.
#[test]
fn a_second_connection_is_refused() {
    let mut world = World::new(4, 3, 14, 900);
    let lock = tempfile::NamedTempFile::new().expect("a file");
    let take = || lock::acquire(lock.path(), 0, Lock::Stream(SLAVE), Duration::ZERO);
    let how = how(0, world.end());
    // The first stands in the middle of a batch: its bytes have stopped, nobody has said so.
    let disk = world.slave.snapshot();
    let first = Link::new(&Plan::with(1, Trouble::Silence(Way::There, 2000)), &disk);
    let ((answers, out), (from, to)) = (first.source(), first.target());
    let (master, slave) = (world.master.clone(), disk.clone());
    let (at_work, is_at_work) = channel();
    let writer = thread::spawn({
        let path = lock.path().to_owned();
        move || {
            let _held = lock::acquire(&path, 0, Lock::Stream(SLAVE), Duration::ZERO).expect("free");
            at_work.send(()).expect("somebody waits");
            let (mut report, mut told) = Default::default();
            session::take(&slave, how, 1, (from, to), &mut report, &mut told)
        }
    });
    is_at_work.recv().expect("the lock is held");
    for _ in 0..3 {
        let second = take().expect_err("a second one");
        assert_eq!(second.class(), Class::Busy);
    }
    let reader = thread::spawn(move || {
        session::give(&master, how, answers, out, &mut read::Report::default())
    });
    for end in [reader, writer] {
        let ended = end
            .join()
            .expect("no panic")
            .expect_err("a link that is dead");
        assert_eq!(ended.class(), Class::Protocol, "{ended}");
    }
    let _held = take().expect("free again");
    world.assert_equal(&disk, "after the first");
    world.undisturbed(&disk, how, 2);
}

/// Anything at any time, again and again, until a session comes through.
#[test]
fn anything_at_random() {
    let start = Instant::now();
    let mut world = World::new(3, 4, 14, 900);
    for seed in 1..=soak(150) {
        let mut random = Random(seed << 8);
        let mut slave = world.slave.clone();
        for _ in 0..1 + random.below(4) {
            // Mostly the same two ends.
            let how = How {
                announces: match random.below(8) {
                    0 => how(random.next(), world.end()).announces,
                    _ => how(seed, world.end()).announces,
                },
                ..how(random.next(), world.tids[1 + random.below(3) as usize])
            };
            let trouble = |random: &mut Random| {
                let (way, at) = match random.below(3) {
                    0 => (Way::Back, random.below(800)),
                    _ => (Way::There, random.below(20_000)),
                };
                match random.below(9) {
                    0 => Trouble::Cut(way, at),
                    1 => Trouble::Silence(way, at),
                    2 => Trouble::Garbage(way, at),
                    3 => Trouble::Flip(way, at),
                    4 => Trouble::Twice(way, at),
                    5..=7 => Trouble::Death(way, at),
                    _ => Trouble::DeathAt(random.below(60)),
                }
            };
            let troubles = (0..1 + random.below(2))
                .map(|_| trouble(&mut random))
                .collect();
            let plan = Plan {
                seed: random.next(),
                room: [64 << 10, 4096, 100][random.below(3) as usize],
                troubles,
            };
            let ran = world.disturbed_from(&slave, how, &plan);
            slave = ran.slave;
            slave.forget_log();
        }
        let how = how(random.next(), world.end());
        let again = world.undisturbed(&slave, how, seed);
        if seed.is_multiple_of(16) {
            assert_sound(&again.slave);
        }
    }
    world.say("anything at random", start);
}
