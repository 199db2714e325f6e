//! One PFS copied to slaves: the kernel's masters as sources, one scan for several slaves, passes
//! stopped anywhere and continued, sources that are not what they were.

mod common;

use common::golden;
use common::listing;
use common::slave::{
    NOW, SLAVE, assert_sound, assert_sound_but, fresh, store, synced, view, visible,
};
use common::streams::{After, Still};
use mallet::error::{Class, Result};
use mallet::format::record::PfsData;
use mallet::format::{Rule, Tid};
use mallet::fs::pfs::{self, Pfs};
use mallet::io::sim::SimDisk;
use mallet::mirror::copy::{Edge, Event, Group, Origin, Place, Report, Request, copy};
use mallet::mirror::ready::Identity;
use mallet::mirror::{SourcePfs, Terms};
use mallet::progress::Progress;
use mallet::store::{Store, View};
use std::path::Path;

const MASTERS: [&str; 3] = [
    "mirror/master-5.img",
    "mirror/master-10.img",
    "mirror/master-20.img",
];

fn master(dir: &Path, name: &str) -> View {
    listing::view(&[golden::file(dir, name)])
}

fn pfs_of(view: &mut View, id: u16) -> Pfs {
    pfs::load(view, id).expect("a table").expect("a PFS")
}

fn request(pfs: &Pfs) -> Request {
    Request {
        source: SourcePfs::from(pfs),
        identity: Identity::of(pfs),
        split: None,
        terms: Terms::default(),
        bandwidth: None,
        group: Group::default(),
        bytes_total: None,
    }
}

/// What a copy told.
#[derive(Debug, Default)]
struct Told {
    taken_back: usize,
    resumed: usize,
    passes: usize,
    standing: usize,
}

fn run(
    origin: &mut Origin<'_>,
    disks: &[&SimDisk],
    places: &[Place],
    request: &Request,
    progress: &mut dyn Progress,
) -> (Result<Report>, Told) {
    let mut stores: Vec<Store> = disks.iter().map(|disk| store(disk)).collect();
    let mut told = Told::default();
    let mut edge = Edge {
        now: &mut || NOW,
        clock: &mut Still,
        progress,
        events: &mut |event| match event {
            Event::TakenBack(..) => told.taken_back += 1,
            Event::Resumed(..) => told.resumed += 1,
            Event::Pass(..) => told.passes += 1,
            Event::Standing(..) => told.standing += 1,
            _ => {}
        },
    };
    let report = copy(origin, &mut stores, places, request, &mut edge);
    disks.iter().for_each(|disk| disk.forget_log());
    (report, told)
}

/// Copies PFS 1 of a view to slaves on disks of their own.
fn copy_to(master: &mut View, disks: &[&SimDisk], group: Group, calls: u32) -> (Report, Told) {
    let pfs = pfs_of(master, SLAVE);
    let request = Request {
        group,
        ..request(&pfs)
    };
    let places: Vec<Place> = (0..disks.len())
        .map(|store| Place { store, pfs: SLAVE })
        .collect();
    let mut origin = Origin::Apart(master);
    let (report, told) = run(
        &mut origin,
        disks,
        &places,
        &request,
        &mut After(calls.into()),
    );
    (report.expect("slaves that fit"), told)
}

fn whole(master: &mut View, disks: &[&SimDisk]) -> (Report, Told) {
    let (report, told) = copy_to(master, disks, Group::default(), u32::MAX);
    assert!(report.stopped.is_none(), "{report:?}");
    assert!(
        report.targets.iter().all(|t| t.class().is_none()),
        "{report:?}"
    );
    (report, told)
}

/// A slave shows as of its TID what its master shows as of that.
fn assert_same(master: &mut View, disk: &SimDisk) {
    let tid = synced(disk);
    let (ours, theirs) = (
        visible(&mut view(disk), SLAVE, tid),
        visible(master, SLAVE, tid),
    );
    assert!(
        ours == theirs,
        "as of {tid}: {} and {} records",
        ours.len(),
        theirs.len()
    );
    assert!(!ours.is_empty());
}

fn fresh_for(master: &mut View, version: u32) -> SimDisk {
    fresh(version, pfs_of(master, SLAVE).data.shared_uuid)
}

#[test]
fn slaves_of_every_version_follow() {
    let Some(dir) = golden::dir() else { return };
    for version in 4..=7 {
        let disk = fresh_for(&mut master(&dir, MASTERS[0]), version);
        for name in MASTERS {
            let mut master = master(&dir, name);
            let (report, _) = whole(&mut master, &[&disk]);
            assert_eq!(
                report.targets[0].tids.1,
                pfs_of(&mut master, SLAVE).sync_end
            );
            assert_eq!(report.targets[0].tids.1, synced(&disk));
            assert_same(&mut master, &disk);
            assert_sound(&disk);
        }
        // Again: nothing to do, and nothing written.
        let mut master = master(&dir, MASTERS[2]);
        let (report, told) = whole(&mut master, &[&disk]);
        assert_eq!((report.passes, told.standing), (0, 1));
    }
}

#[test]
fn masters_of_every_version_are_followed() {
    let Some(dir) = golden::dir() else { return };
    // 4, 7, and one that was made as 1 and taken up to 7 a step at a time.
    for version in ["4", "7", "1_2_3_4_5_6_7"] {
        let mut master = master(&dir, &format!("small/small-v{version}.img"));
        let root = pfs_of(&mut master, 0);
        for own in 4..=7 {
            let disk = fresh(own, root.data.shared_uuid);
            let place = Place {
                store: 0,
                pfs: SLAVE,
            };
            let mut origin = Origin::Apart(&mut master);
            let (report, _) = run(&mut origin, &[&disk], &[place], &request(&root), &mut ());
            let report = report.expect("a slave that fits");
            assert!(report.targets[0].class().is_none(), "{report:?}");
            let tid = synced(&disk);
            let ours = visible(&mut view(&disk), SLAVE, tid);
            assert!(ours == visible(&mut master, 0, tid));
            // PFS 0 has the records of all PFSs; in a slave they say nothing.
            assert_sound_but(&disk, &[Rule::LeafLocalization]);
        }
    }
}

/// Beside a writer the newest record may be one that is gone since a slave got it. A slave that has
/// more than its master was ever committed to have is of another past.
#[test]
fn a_slave_beyond_the_newest_record_lacks_nothing() {
    let Some(dir) = golden::dir() else { return };
    let mut master = master(&dir, MASTERS[2]);
    let disk = fresh_for(&mut master, 7);
    whole(&mut master, &[&disk]);
    let (tid, pfs) = (synced(&disk), pfs_of(&mut master, SLAVE));
    let mut request = request(&pfs);
    // Nothing is newer: the end is what the slave has.
    request
        .source
        .beside_a_writer(&mut master, tid.next(), &mut ())
        .expect("a readable tree");
    assert_eq!((request.source.end, request.source.committed), (tid, tid));
    // Looked for from the start, for a slave that lacks everything, it is the newest there is.
    let mut all = request.source;
    all.beside_a_writer(&mut master, Tid(1), &mut ())
        .expect("a readable tree");
    assert!(all.end <= tid && all.end > Tid(1));
    let place = Place {
        store: 0,
        pfs: SLAVE,
    };
    for end in [tid, Tid(tid.0 - 1), Tid(tid.0 / 2)] {
        request.source.end = end;
        let mut origin = Origin::Apart(&mut master);
        let (report, told) = run(&mut origin, &[&disk], &[place], &request, &mut ());
        let report = report.expect("a slave that fits");
        assert_eq!((report.passes, told.standing), (0, 1), "{report:?}");
        assert_eq!((report.targets[0].class(), synced(&disk)), (None, tid));
    }
    request.source.committed = Tid(tid.0 - 1);
    let mut origin = Origin::Apart(&mut master);
    let (refused, _) = run(&mut origin, &[&disk], &[place], &request, &mut ());
    assert_eq!(refused.expect_err("too new").class(), Class::Incompatible);
}

/// One that has nothing, one that is behind, one that is up to date, one in the middle of a pass.
#[test]
fn one_scan_for_slaves_that_lack_different_things() {
    let Some(dir) = golden::dir() else { return };
    let mut masters = MASTERS.map(|name| master(&dir, name));
    let [none, five, ten, twenty, middle] = [7, 6, 7, 5, 7].map(|v| fresh_for(&mut masters[0], v));
    whole(&mut masters[0], &[&five]);
    whole(&mut masters[1], &[&ten, &middle]);
    whole(&mut masters[2], &[&twenty]);
    let small = Group {
        records: 40,
        ..Group::default()
    };
    let (report, _) = copy_to(&mut masters[2], &[&middle], small, 5);
    assert_eq!(report.stopped.expect("stopped").class(), Class::Interrupted);
    let alone = fresh_for(&mut masters[0], 7);
    let (only, _) = whole(&mut masters[2], &[&alone]);
    let disks = [&five, &none, &middle, &twenty, &ten];
    let (report, told) = whole(&mut masters[2], &disks);
    assert_eq!(
        (report.passes, told.passes, told.standing, told.resumed),
        (1, 4, 1, 1)
    );
    assert_eq!(report.read_bytes, only.read_bytes, "read once");
    // Each gets what it lacks.
    let bytes = |at: usize| report.targets[at].applied.bytes;
    assert!(bytes(1) > bytes(0) && bytes(0) > bytes(4) && bytes(4) >= bytes(2) && bytes(3) == 0);
    for target in &report.targets {
        assert_eq!(
            (target.applied.existing <= 40, target.applied.dropped),
            (true, 0)
        );
    }
    for disk in disks {
        assert_same(&mut masters[2], disk);
        assert_sound(disk);
    }
}

/// Stopped after every few records, a pass comes to its end, and hardly anything is sent twice.
#[test]
fn stopped_and_continued() {
    let Some(dir) = golden::dir() else { return };
    for records in [1, 30, 200] {
        let group = Group {
            records,
            ..Group::default()
        };
        let mut masters = MASTERS.map(|name| master(&dir, name));
        let disk = fresh_for(&mut masters[0], 7);
        let calls = if records == 1 { 60 } else { 4 };
        for (at, master) in masters.iter_mut().enumerate() {
            let mut created = 0;
            let mut runs = 0;
            loop {
                let (report, told) = copy_to(master, &[&disk], group, calls);
                let target = &report.targets[0];
                created += target.applied.created;
                assert!(target.applied.existing <= records, "{report:?}");
                assert_eq!(told.taken_back, 0);
                runs += 1;
                match report.stopped {
                    None => break,
                    Some(error) => assert_eq!(error.class(), Class::Interrupted),
                }
                assert!(runs < 1000);
                assert_sound(&disk);
            }
            assert!(runs > 1 || at > 0, "never stopped");
            assert_same(master, &disk);
            if at == 0 {
                let all = visible(&mut view(&disk), SLAVE, Tid::MAX).len() as u64;
                assert!(created >= all);
            }
        }
        assert_sound(&disk);
    }
}

/// A pass is stopped, and meanwhile its master goes on.
#[test]
fn a_later_master_continues() {
    let Some(dir) = golden::dir() else { return };
    let mut masters = MASTERS.map(|name| master(&dir, name));
    let group = Group {
        records: 25,
        ..Group::default()
    };
    for calls in [2, 5, 9, 14, 30] {
        let disk = fresh_for(&mut masters[0], 7);
        let mut resumed = 0;
        for master in &mut masters[..2] {
            let (report, told) = copy_to(master, &[&disk], group, calls);
            assert_eq!(told.taken_back, 0);
            resumed += told.resumed;
            drop(report);
        }
        let (_, told) = whole(&mut masters[2], &[&disk]);
        resumed += told.resumed;
        assert!(resumed > 0);
        assert_same(&mut masters[2], &disk);
        assert_sound(&disk);
    }
}

/// What another state of the master left is taken back before anything else.
/// A source that was restored from an older copy, master or slave, does not go on with what it gave
/// before: it cannot give the rest of that.
#[test]
fn a_restored_source_does_not_continue() {
    let Some(dir) = golden::dir() else { return };
    for as_slave in [false, true] {
        let mut masters = MASTERS.map(|name| master(&dir, name));
        let group = Group {
            records: 25,
            ..Group::default()
        };
        let told_as = |pfs: &mut Pfs| {
            if as_slave {
                pfs.data.mirror_flags.set(PfsData::SLAVE);
                pfs.data.sync_end_tid.set(pfs.sync_end.0);
            }
        };
        let disk = fresh_for(&mut masters[0], 7);
        whole(&mut masters[0], &[&disk]);
        let place = Place {
            store: 0,
            pfs: SLAVE,
        };
        let [_, older, newer] = &mut masters;
        let mut copied = Vec::new();
        for (source, calls) in [(newer, 9), (older, u64::MAX)] {
            let mut pfs = pfs_of(source, SLAVE);
            told_as(&mut pfs);
            let request = Request {
                group,
                ..request(&pfs)
            };
            let mut origin = Origin::Apart(source);
            let (report, told) = run(&mut origin, &[&disk], &[place], &request, &mut After(calls));
            let report = report.expect("a slave that fits");
            copied.push((
                report.stopped.is_some(),
                told.taken_back,
                told.resumed,
                pfs.sync_end,
            ));
        }
        let [(true, 0, 0, newest), (false, 1, 0, end)] = copied[..] else {
            panic!("{copied:?}");
        };
        assert!(end < newest && synced(&disk) == end, "as slave: {as_slave}");
        assert_same(&mut masters[1], &disk);
        assert_sound(&disk);
    }
}

#[test]
fn a_changed_source_does_not_continue() {
    let Some(dir) = golden::dir() else { return };
    let mut masters = MASTERS.map(|name| master(&dir, name));
    let group = Group {
        records: 25,
        ..Group::default()
    };
    let disk = fresh_for(&mut masters[0], 7);
    whole(&mut masters[0], &[&disk]);
    let before = visible(&mut view(&disk), SLAVE, Tid::MAX);
    copy_to(&mut masters[2], &[&disk], group, 9);
    assert!(visible(&mut view(&disk), SLAVE, Tid::MAX) != before);
    // The record of the source has another version since.
    let mut pfs = pfs_of(&mut masters[1], SLAVE);
    let leaf = pfs.leaf.as_mut().expect("a record");
    leaf.base.create_tid.set(leaf.base.create_tid.get() + 16);
    let place = Place {
        store: 0,
        pfs: SLAVE,
    };
    let mut origin = Origin::Apart(&mut masters[1]);
    let (report, told) = run(&mut origin, &[&disk], &[place], &request(&pfs), &mut ());
    assert!(
        report.expect("a slave that fits").targets[0]
            .class()
            .is_none()
    );
    assert_eq!((told.taken_back, told.resumed), (1, 0));
    assert_same(&mut masters[1], &disk);
    assert_sound(&disk);
}

/// Master and slave in one volume, and another slave elsewhere.
#[test]
fn master_and_slave_in_one_volume() {
    let Some(dir) = golden::dir() else { return };
    let file = std::fs::File::open(golden::file(&dir, "mirror/pfs.img")).expect("an image");
    let disk = SimDisk::over(file).expect("a disk");
    let master = pfs_of(&mut view(&disk), 1);
    let other = fresh(7, master.data.shared_uuid);
    let (mut places, disks) = (Vec::new(), [&disk, &other]);
    for pfs in pfs::all(&mut view(&disk)).expect("a table") {
        let follows = pfs.data.shared_uuid == master.data.shared_uuid;
        if pfs.is_slave() && !pfs.is_deleted() && follows {
            places.push(Place {
                store: 0,
                pfs: pfs.id,
            });
        }
    }
    assert!(!places.is_empty());
    places.push(Place {
        store: 1,
        pfs: SLAVE,
    });
    let (report, _) = run(
        &mut Origin::Inside(0),
        &disks,
        &places,
        &request(&master),
        &mut (),
    );
    let report = report.expect("slaves that fit");
    assert!(report.stopped.is_none(), "{report:?}");
    for (place, target) in places.iter().zip(&report.targets) {
        assert!(target.class().is_none(), "{report:?}");
        let mut theirs = view(&disk);
        let tid = pfs_of(&mut view(disks[place.store]), place.pfs).sync_end;
        assert_eq!(tid, master.sync_end);
        let ours = visible(&mut view(disks[place.store]), place.pfs, tid);
        assert!(ours == visible(&mut theirs, 1, tid), "PFS {}", place.pfs);
    }
    assert_sound(&disk);
    assert_sound(&other);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let Some(dir) = golden::dir() else { return };
    let mut source = master(&dir, MASTERS[0]);
    let pfs = pfs_of(&mut source, SLAVE);
    let good = fresh(7, pfs.data.shared_uuid);
    let other = fresh(7, [9; 16]);
    let no_slave = common::slave::volume(7, 512 << 20, |data: &mut PfsData| {
        data.shared_uuid = pfs.data.shared_uuid;
    });
    let place = |store, pfs| Place { store, pfs };
    let cases = [
        (
            &other,
            vec![place(0, SLAVE), place(1, SLAVE)],
            Class::Incompatible,
            "another master",
        ),
        (
            &no_slave,
            vec![place(0, SLAVE), place(1, SLAVE)],
            Class::Incompatible,
            "no slave",
        ),
        (
            &other,
            vec![place(0, SLAVE), place(1, 7)],
            Class::Usage,
            "no PFS 7",
        ),
        (
            &other,
            vec![place(0, SLAVE), place(0, SLAVE)],
            Class::Usage,
            "twice",
        ),
    ];
    for (bad, places, class, words) in cases {
        let mut origin = Origin::Apart(&mut source);
        let (report, told) = run(&mut origin, &[&good, bad], &places, &request(&pfs), &mut ());
        let error = report.expect_err("a slave that does not fit");
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(told.passes, 0);
        assert_eq!(synced(&good), Tid(1));
        assert!(visible(&mut view(&good), SLAVE, Tid::MAX).is_empty());
    }
}

/// Split, each pass is acknowledged, and an interruption keeps those that were.
#[test]
fn split_into_passes() {
    let Some(dir) = golden::dir() else { return };
    let mut master = master(&dir, MASTERS[2]);
    let disk = fresh_for(&mut master, 7);
    let pfs = pfs_of(&mut master, SLAVE);
    let request = Request {
        split: Some(1 << 20),
        group: Group {
            records: 64,
            ..Group::default()
        },
        ..request(&pfs)
    };
    let place = [Place {
        store: 0,
        pfs: SLAVE,
    }];
    let (mut passes, mut kept) = (0, 0);
    for _ in 0..1000 {
        let mut origin = Origin::Apart(&mut master);
        let (report, _) = run(&mut origin, &[&disk], &place, &request, &mut After(60));
        let report = report.expect("a slave that fits");
        let target = &report.targets[0];
        passes += target.passes;
        assert_eq!(target.tids.1, synced(&disk));
        if target.passes > 0 {
            assert_same(&mut master, &disk);
            assert_sound(&disk);
        }
        match report.stopped {
            Some(_) => kept += target.passes,
            None => break,
        }
    }
    assert!(
        passes > 2 && kept > 0,
        "{passes} passes, {kept} before the last run"
    );
    assert_eq!(synced(&disk), pfs.sync_end);
}
