//! A slave compared with its master: good copies are equal whatever differs legally, and every record
//! that is not the same is found and named.

mod common;

use common::build::bulk::{Bulk, Changes, PFS};
use common::build::{FIRST_TID, Options};
use common::golden;
use common::listing;
use common::program::{copy_to, err, events, out, patch, run, status, text};
use common::slave::{NOW, SLAVE, fresh, store, synced, view};
use common::streams::Still;
use mallet::btree::put::{self, NewRecord};
use mallet::btree::{AsOf, Editor, good_data};
use mallet::error::{Class, Error, Result};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{data_sum, rt};
use mallet::format::volume::VolumeHeader;
use mallet::format::{CrcKind, Key, Localization, Offset, ROOT_OBJ, Tid};
use mallet::fs::pfs;
use mallet::io::Bytes;
use mallet::io::sim::SimDisk;
use mallet::mirror::copy::{self, Group, Origin, Place as Target, Request, copy};
use mallet::mirror::lag::Changes as _;
use mallet::mirror::ready::Identity;
use mallet::mirror::verify::{
    Ask, Depth, Difference, Edge, Ground, How, Range, Report, Side, Wanted, Witness as _, verify,
};
use mallet::mirror::{SourcePfs, Terms};
use mallet::store::{Fetch, NodeRef, Txn, View};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Output;

/// Brings the slave on `disk` up to PFS `id` of `master`.
fn follow(master: &mut View, id: u16, disk: &SimDisk) {
    let source = pfs::load(master, id).expect("a table").expect("a PFS");
    let request = Request {
        source: SourcePfs::from(&source),
        identity: Identity::of(&source),
        split: None,
        terms: Terms::default(),
        bandwidth: None,
        group: Group::default(),
        bytes_total: None,
    };
    let places = [Target {
        store: 0,
        pfs: SLAVE,
    }];
    let mut edge = copy::Edge {
        now: &mut || NOW,
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_| {},
    };
    let mut origin = Origin::Apart(master);
    let report = copy(
        &mut origin,
        &mut [store(disk)],
        &places,
        &request,
        &mut edge,
    );
    let report = report.expect("a slave that fits");
    assert!(report.targets[0].class().is_none(), "{report:?}");
    disk.forget_log();
}

fn compare(
    (source, from): (&mut View, u16),
    (slave, to): (&mut View, u16),
    as_of: Tid,
    depth: Depth,
) -> (Report, Vec<Difference>) {
    let mut found = Vec::new();
    let mut edge = Edge {
        progress: &mut (),
        found: &mut |one| {
            found.push(*one);
            Ok(())
        },
    };
    let report = verify(
        &mut Side::new(source, from, "source"),
        &mut Side::new(slave, to, "slave"),
        as_of,
        depth,
        &mut edge,
    );
    let report = report.expect("readable volumes");
    assert_eq!(report.differences(), found.len() as u64);
    assert!(found.is_sorted_by(|a, b| a.place < b.place));
    (report, found)
}

/// The slave shows as of its TID what `id` of `master` shows then, by CRCs and by data; how many
/// records that is.
fn assert_equal(master: &mut View, id: u16, disk: &SimDisk) -> u64 {
    let (tid, mut slave) = (synced(disk), view(disk));
    let mut records = 0;
    for depth in [
        Depth::between(master.version(), slave.version()),
        Depth::Data,
    ] {
        let (report, found) = compare((master, id), (&mut slave, SLAVE), tid, depth);
        assert!(report.is_equal(), "{depth:?}: {found:?}");
        assert_eq!(report.source_records, report.slave_records);
        assert!(report.crossed < 1000, "{report:?}");
        records = report.source_records;
    }
    records
}

#[test]
fn slaves_of_every_version_are_equal_and_stay_so_when_the_master_goes_on() {
    let Some(dir) = golden::dir() else { return };
    let names = ["5", "10", "20"].map(|at| format!("mirror/master-{at}.img"));
    let mut masters = names.map(|name| listing::view(&[golden::file(&dir, &name)]));
    let uuid = |view: &mut View| {
        let master = pfs::load(view, SLAVE).expect("a table").expect("a PFS");
        master.data.shared_uuid
    };
    for version in 4..=7 {
        let disk = fresh(version, uuid(&mut masters[0]));
        assert_eq!(assert_equal(&mut masters[0], SLAVE, &disk), 0);
        follow(&mut masters[0], SLAVE, &disk);
        assert!(assert_equal(&mut masters[0], SLAVE, &disk) > 100);
        // One pass behind.
        assert_equal(&mut masters[1], SLAVE, &disk);
        follow(&mut masters[1], SLAVE, &disk);
        follow(&mut masters[2], SLAVE, &disk);
        assert_equal(&mut masters[2], SLAVE, &disk);
    }
}

#[test]
fn masters_of_every_version_and_another_pfs() {
    let Some(dir) = golden::dir() else { return };
    for version in ["4", "7", "1_2_3_4_5_6_7"] {
        let name = format!("small/small-v{version}.img");
        let mut master = listing::view(&[golden::file(&dir, &name)]);
        let root = pfs::load(&mut master, 0).expect("a table").expect("PFS 0");
        for own in [4, 7] {
            let disk = fresh(own, root.data.shared_uuid);
            follow(&mut master, 0, &disk);
            assert!(assert_equal(&mut master, 0, &disk) > 20);
        }
    }
}

/// A volume of more than 100 000 records, and the TID that all of it is visible as of.
fn large(folder: &Path, version: u32) -> (PathBuf, Tid) {
    let bulk = Bulk {
        files: 35_000,
        files_per_dir: 1000,
        sizes: 100..=900,
        changes: Changes::None,
        scattered: false,
    };
    let path = folder.join("large");
    let options = Options::new(&path, version, 0);
    let (_, bytes) = bulk.needs(&options);
    let made = bulk.build(&Options::new(&path, version, bytes + (256 << 20)));
    (path, made.last)
}

fn disk(path: &Path) -> SimDisk {
    SimDisk::over(File::open(path).expect("the volume")).expect("a disk")
}

/// The volume at `path`, with a change.
fn changed(path: &Path, change: impl FnOnce(&mut Editor, &mut Txn<'_>)) -> View {
    let disk = disk(path);
    let mut store = store(&disk);
    let mut txn = store.begin(NOW).expect("a transaction");
    change(&mut Editor::new(), &mut txn);
    txn.commit().expect("a commit");
    drop(store);
    view(&disk)
}

/// Every record of a type, with the data.
fn records(view: &mut View, rec_type: u16) -> Vec<LeafElement> {
    let mut all = AsOf::new(Key::pfs_min(PFS), Key::pfs_max(PFS), Tid::MAX);
    let mut found = Vec::new();
    while let Some(leaf) = all.next(view).expect("a readable tree") {
        if leaf.base.rec_type.get() == rec_type {
            found.push(leaf);
        }
    }
    found
}

fn flip(editor: &mut Editor, txn: &mut Txn<'_>, leaf: &LeafElement, at: usize) {
    let mut data = good_data(txn, leaf).expect("good data").to_vec();
    data[at] ^= 1;
    put::overwrite(editor, txn, leaf, &data).expect("an overwrite");
}

fn made(key: Key, data: &[u8]) -> NewRecord<'_> {
    NewRecord {
        base: Base::from_key(key),
        create_ts: 1,
        delete_ts: 0,
        data,
        crc: None,
    }
}

#[test]
fn one_record_among_many_is_found_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, tid) = large(folder.path(), 7);
    let mut master = view(&disk(&path));
    let blocks = records(&mut master, rt::DATA);
    let victim = blocks[23_456];
    let key = victim.base.key();
    let mut only = |slave: &mut View, depth, how| {
        let (report, found) = compare((&mut master, PFS), (slave, PFS), tid, depth);
        assert!(report.source_records > 100_000, "{report:?}");
        let (records, asked) = (report.source_records, report.asked);
        println!(
            "{how:?} in {records} records: {asked} ranges, {} bytes",
            report.crossed
        );
        assert!(report.crossed < 100_000, "{report:?}");
        let [one] = found[..] else {
            panic!("{found:?}");
        };
        assert_eq!((one.how, one.place.obj_id), (how, key.obj_id), "{one:?}");
        one
    };
    let end = key.key.cast_unsigned();
    let bytes = end - victim.data_len.get().cast_unsigned() as u64..end;
    // Other data with its CRC, where CRCs stand for data and where they do not.
    let mut flipped = changed(&path, |editor, txn| flip(editor, txn, &victim, 7));
    for depth in [Depth::Sums, Depth::Data] {
        let one = only(&mut flipped, depth, How::Differs);
        assert_eq!(one.bytes(), Some(bytes.clone()));
        let told = format!(
            "object 0x{:016x}, bytes {} to {}: differs",
            key.obj_id, bytes.start, bytes.end
        );
        assert!(one.to_string().starts_with(&told), "{one}");
    }
    // Gone without a trace, and deleted.
    let mut gone = changed(&path, |editor, txn| {
        put::destroy(editor, txn, key, Tid::ZERO).expect("a record");
    });
    only(&mut gone, Depth::Sums, How::Missing);
    let mut deleted = changed(&path, |editor, txn| {
        put::mark_deleted(editor, txn, key, tid, 1).expect("a record");
    });
    let one = only(&mut deleted, Depth::Sums, How::Missing);
    assert_eq!((one.source, one.slave), (Some(key.create_tid), None));
    // One more, of one more block.
    let mut more = changed(&path, |editor, txn| {
        let key = Key {
            key: key.key + 100,
            ..key
        };
        put::create(editor, txn, &made(key, b"more")).expect("a record");
    });
    let one = only(&mut more, Depth::Sums, How::Extra);
    assert_eq!(one.bytes(), Some(end + 96..end + 100));
    // A later version up to the TID.
    let mut later = changed(&path, |editor, txn| {
        let data = good_data(txn, &victim).expect("good data");
        let key = Key {
            create_tid: tid,
            ..key
        };
        put::create(editor, txn, &made(key, &data)).expect("a record");
    });
    let one = only(&mut later, Depth::Sums, How::Differs);
    assert_eq!((one.source, one.slave), (Some(key.create_tid), Some(tid)));
    // Data that is not what its CRC says: only who reads it can tell.
    let mut rotten = changed(&path, |_, txn| {
        let at = victim.data_offset();
        txn.modify(at, 1).expect("the data")[0] ^= 1;
    });
    let slave = true;
    let source = false;
    only(&mut rotten, Depth::Data, How::Damaged { source, slave });
    let (report, _) = compare((&mut master, PFS), (&mut rotten, PFS), tid, Depth::Sums);
    assert!(report.is_equal());
    // Damage on both sides proves nothing.
    let mut both = changed(&path, |_, txn| {
        txn.modify(victim.data_offset(), 1).expect("the data")[0] ^= 1;
    });
    let (_, found) = compare((&mut both, PFS), (&mut rotten, PFS), tid, Depth::Data);
    let how = How::Damaged {
        source: true,
        slave: true,
    };
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].how, how);
}

/// What differs between good copies.
#[test]
fn what_may_differ() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, tid) = large(folder.path(), 7);
    let mut master = view(&disk(&path));
    let (inodes, blocks) = (
        records(&mut master, rt::INODE),
        records(&mut master, rt::DATA),
    );
    let mut slave = changed(&path, |editor, txn| {
        // Times that are changed in place.
        flip(editor, txn, &inodes[100], 112);
        flip(editor, txn, &inodes[200], 127);
        // Deleted and made behind the TID.
        let now = txn.tid();
        assert!(now > tid);
        put::mark_deleted(editor, txn, blocks[9].base.key(), now, 1).expect("a record");
        let own = |rec_type, create_tid| Key {
            localization: Localization::new(PFS, Localization::INODE),
            obj_id: ROOT_OBJ,
            rec_type,
            key: 5,
            create_tid,
        };
        let later = Key {
            create_tid: now,
            ..blocks[9].base.key()
        };
        put::create(editor, txn, &made(later, b"later")).expect("a record");
        for rec_type in [rt::SNAPSHOT, rt::CONFIG] {
            let key = own(rec_type, FIRST_TID);
            put::create(editor, txn, &made(key, &[1; 128])).expect("a record");
        }
    });
    for depth in [Depth::Sums, Depth::Data] {
        let (report, found) = compare((&mut master, PFS), (&mut slave, PFS), tid, depth);
        assert!(report.is_equal(), "{found:?}");
    }
    // An inode's other fields do count.
    let mut slave = changed(&path, |editor, txn| flip(editor, txn, &inodes[100], 100));
    let (_, found) = compare((&mut master, PFS), (&mut slave, PFS), tid, Depth::Sums);
    assert_eq!(found.len(), 1);
}

/// Version 7 keeps CRCs of the older kind.
#[test]
fn crcs_of_another_kind_say_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, tid) = large(folder.path(), 7);
    let mut master = view(&disk(&path));
    let blocks = records(&mut master, rt::DATA);
    let victim = blocks[3333];
    let mut slave = changed(&path, |editor, txn| {
        for leaf in blocks.iter().filter(|leaf| leaf.base != victim.base) {
            if leaf.base.obj_id.get() % 3 > 0 {
                continue;
            }
            let data = good_data(txn, leaf).expect("good data");
            let sum = data_sum(rt::DATA, &data, CrcKind::Ieee);
            let key = leaf.base.key();
            editor
                .set_data(txn, key, leaf.data_offset(), data.len(), sum)
                .expect("another CRC");
        }
        flip(editor, txn, &victim, 0);
    });
    let (report, found) = compare((&mut master, PFS), (&mut slave, PFS), tid, Depth::Sums);
    assert!(report.data && report.crossed < 100_000, "{report:?}");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].place.obj_id, victim.base.obj_id.get());
}

/// A view that writers overtake after so many reads; the next one lasts as long.
struct Fragile {
    view: View,
    left: u64,
}

impl Fragile {
    fn read(&mut self) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        match self.left {
            0 => Err(Error::new(Class::Expired, "overtaken")),
            _ => Ok(()),
        }
    }
}

impl Fetch for Fragile {
    fn header(&self) -> &VolumeHeader {
        self.view.header()
    }
    fn bytes(&mut self, at: Offset, len: usize) -> Result<Bytes> {
        self.read()?;
        self.view.bytes(at, len)
    }
    fn node(&mut self, at: Offset) -> Result<NodeRef> {
        self.read()?;
        self.view.node(at)
    }
    fn want(&mut self, extents: &[(Offset, usize)]) {
        self.view.want(extents);
    }
    fn readahead(&self) -> usize {
        self.view.readahead()
    }
    fn forget(&mut self, at: Offset, len: usize) {
        self.view.forget(at, len);
    }
}

/// Views one after the other, each good for `lasts` reads.
struct Overtaken {
    view: Fragile,
    lasts: u64,
    renewed: u64,
}

impl Ground for Overtaken {
    fn fetch(&mut self) -> &mut dyn Fetch {
        &mut self.view
    }
    fn renew(&mut self) -> Result<bool> {
        self.view.left = self.lasts;
        self.renewed += 1;
        Ok(true)
    }
}

/// What a view showed before it was overtaken is not looked at again, and nothing is left out.
#[test]
fn views_that_are_overtaken() {
    let Some(dir) = golden::dir() else { return };
    let image = golden::file(&dir, "mirror/master-20.img");
    let mut master = listing::view(std::slice::from_ref(&image));
    let from = pfs::load(&mut master, SLAVE)
        .expect("a table")
        .expect("a PFS");
    let tid = from.sync_end;
    let ask = |depth, wanted| Ask {
        range: Range::ALL,
        as_of: tid,
        depth,
        wanted,
    };
    for wanted in [Wanted::Whole, Wanted::Pieces(7), Wanted::Records] {
        for (depth, lasts) in [(Depth::Sums, 15), (Depth::Data, 15), (Depth::Data, 200)] {
            let ask = [ask(depth, wanted)];
            let mut side = Side::new(&mut master, SLAVE, "quiet");
            let expected = side.answer(&ask, &mut |_| Ok(())).expect("an answer");
            let mut ground = Overtaken {
                view: Fragile {
                    view: listing::view(std::slice::from_ref(&image)),
                    left: lasts,
                },
                lasts,
                renewed: 0,
            };
            let mut side = Side::new(&mut ground, SLAVE, "busy");
            let answer = side.answer(&ask, &mut |_| Ok(())).expect("an answer");
            assert_eq!(answer, expected);
            assert!(ground.renewed > 1, "{wanted:?} {depth:?} {lasts}");
        }
    }
    // Where nothing can be read of any of them, and where there is no other one.
    let mut ground = Overtaken {
        view: Fragile {
            view: master,
            left: 2,
        },
        lasts: 2,
        renewed: 0,
    };
    let failed = |ground: &mut dyn Ground, text: &str| {
        let mut side = Side::new(ground, SLAVE, "busy");
        let whole = [ask(Depth::Sums, Wanted::Whole)];
        let error = side.answer(&whole, &mut |_| Ok(())).expect_err("no view");
        assert_eq!(error.class(), Class::Expired);
        assert!(error.to_string().contains(text), "{error}");
        let error = side
            .newest(Tid(1), tid, &mut |_| Ok(()))
            .expect_err("no view");
        assert_eq!(error.class(), Class::Expired);
    };
    failed(&mut ground, "busy: writers overtook 8 views in a row");
    assert_eq!(ground.renewed, 14);
    failed(&mut ground.view, "busy: overtaken");
}

fn done(words: &[&str]) {
    let output = run(words);
    assert_eq!(status(&output), 0, "{words:?}: {}", err(&output));
}

fn told(words: &[&str]) -> (Output, Vec<Value>) {
    let mut line = vec![words[0], "--json"];
    line.extend(&words[1..]);
    let output = run(&line);
    let told = events(&out(&output), status(&output));
    (output, told)
}

fn of_kind<'v>(told: &'v [Value], kind: &str) -> Vec<&'v Value> {
    told.iter().filter(|event| event["type"] == kind).collect()
}

/// A master with a tree in PFS 1, and its slave in PFS 3.
fn pair(folder: &Path) -> (PathBuf, PathBuf) {
    let [master, slave] = ["m", "s"].map(|name| {
        let path = folder.join(name);
        done(&["newfs", "-L", name, "--size", "1g", "-y", text(&path)]);
        path
    });
    let tree = folder.join("tree");
    fs::create_dir(&tree).expect("a folder");
    for at in 0..300 {
        fs::write(tree.join(format!("{at}")), format!("contents of {at}")).expect("a file");
    }
    let pfs = format!("{}#1", text(&master));
    done(&["pfs-master", "-q", &pfs, "label=home"]);
    done(&["put", "-q", &pfs, text(&tree), "/tree"]);
    done(&[
        "mirror-copy",
        "-q",
        "-y",
        &pfs,
        &format!("{}#3", text(&slave)),
    ]);
    (master, slave)
}

#[test]
fn the_program_compares() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, image) = pair(folder.path());
    let old = copy_to(&path, folder.path(), "old", 0);
    let [master, old] = [&path, &old].map(|path| format!("{}#1", text(path)));
    let slave = format!("{}#3", text(&image));
    for line in [
        &["mirror-verify", &master, &slave][..],
        &["mirror-verify", "--data", "--live", &master, &slave],
    ] {
        let (output, told) = told(line);
        assert_eq!(status(&output), 0, "{}", err(&output));
        let summary = told.last().expect("a summary");
        assert_eq!(summary["equal"], true);
        assert_eq!(summary["data"], line.len() > 3);
        assert!(summary["records"].as_u64().expect("a count") > 600);
    }
    let output = run(&["mirror-verify", &master, &slave]);
    assert!(out(&output).contains("is equal as of 0x"), "{output:?}");
    // Behind, it is equal still; then it has a file that the older copy of the master lacks.
    let file = folder.path().join("tree/7");
    done(&["put", "-q", &master, text(&file), "/one more"]);
    done(&["mirror-verify", &master, &slave]);
    done(&["mirror-copy", "-q", &master, &slave]);
    done(&["mirror-verify", &master, &slave]);
    let (output, told) = told(&["mirror-verify", &old, &slave]);
    assert_eq!(status(&output), 7, "{}", err(&output));
    let found = of_kind(&told, "difference");
    let what = |name: &str| found.iter().filter(|one| one["what"] == name).count();
    // Inode, entry and data; the root's own inode is another version.
    assert_eq!((what("extra"), what("missing")), (3, 0), "{told:?}");
    let block = found.iter().find(|one| !one["file_end"].is_null());
    let block = block.expect("the file's data");
    assert_eq!(
        (&block["file_begin"], &block["slave_damaged"]),
        (&0.into(), &false.into())
    );
    let summary = told.last().expect("a summary");
    assert!(summary["bytes_crossed"].as_u64().expect("a count") < 100_000);
    let output = run(&["mirror-verify", &old, &slave]);
    let obj = block["obj"].as_str().expect("an object");
    let line = format!("object {obj}, bytes 0 to ");
    assert!(out(&output).contains(&line), "{}", out(&output));
    // Rotten data in the slave.
    let bytes = fs::read(&image).expect("the image");
    let wanted = b"contents of 123";
    let at = bytes.windows(wanted.len()).position(|some| some == wanted);
    patch(&image, at.expect("the data") as u64, b"C");
    done(&["mirror-verify", &master, &slave]);
    let output = run(&["mirror-verify", "--data", &master, &slave]);
    assert_eq!(status(&output), 7, "{}", err(&output));
    let line = ": damaged in the slave";
    assert_eq!(out(&output).matches(line).count(), 1, "{}", out(&output));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (master, image) = pair(folder.path());
    let (master, slave) = (
        format!("{}#1", text(&master)),
        format!("{}#3", text(&image)),
    );
    let other = format!("{}#4", text(&image));
    let uuid = "shared-uuid=00000000-0000-0000-0000-000000000001";
    done(&["pfs-slave", "-q", &other, uuid]);
    for (source, target, code) in [
        (&*master, &*other, 3),
        (&slave, &master, 3),
        (&slave, &slave, 3),
        (&master, &format!("{}#9", text(&image)), 2),
    ] {
        let output = run(&["mirror-verify", source, target]);
        assert_eq!(status(&output), code, "{target}: {}", err(&output));
    }
    // A slave behind another is no source for it.
    let (copy, behind) = (format!("{}#5", text(&image)), &slave);
    done(&["mkdir", "-q", &master, "/more"]);
    done(&["mirror-copy", "-q", "-y", &master, &copy]);
    let output = run(&["mirror-verify", behind, &copy]);
    assert_eq!(status(&output), 3, "{}", err(&output));
    done(&["mirror-verify", &copy, behind]);
}

#[test]
fn how_far_slaves_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, image) = pair(folder.path());
    let old = copy_to(&path, folder.path(), "old", 0);
    let [master, old] = [&path, &old].map(|path| format!("{}#1", text(path)));
    let slave = format!("{}#3", text(&image));
    let lag = |master: &str| {
        let (output, told) = told(&["mirror-status", master, &slave]);
        assert_eq!(status(&output), 0, "{}", err(&output));
        let [first, second] = of_kind(&told, "status")[..] else {
            panic!("{told:?}");
        };
        assert_eq!(
            (&first["kind"], &first["label"]),
            (&"master".into(), &"home".into())
        );
        assert_eq!(
            (&second["kind"], &second["id"]),
            (&"slave".into(), &3.into())
        );
        assert_eq!(first["shared_uuid"], second["shared_uuid"]);
        assert!(first["lag_tids"].is_null());
        second.clone()
    };
    let now = lag(&master);
    assert_eq!(
        (&now["lag_tids"], &now["lag_seconds"]),
        (&0.into(), &0.into())
    );
    done(&["mkdir", "-q", &master, "/more"]);
    let now = lag(&master);
    assert!(now["lag_tids"].as_u64().expect("a lag") > 0, "{now}");
    // The directory's inode and its entry.
    let bytes = now["lag_bytes"].as_u64().expect("a lag");
    assert!((140..600).contains(&bytes), "{now}");
    assert!(now["lag_seconds"].as_u64().expect("a lag") < 600, "{now}");
    let table = run(&["mirror-status", &master, &slave]);
    assert_eq!(out(&table).lines().count(), 3, "{}", out(&table));
    assert!(out(&table).contains(" TIDs, "), "{}", out(&table));
    done(&["mirror-copy", "-q", &master, &slave]);
    assert_eq!(lag(&master)["lag_tids"], 0);
    assert_eq!(lag(&old)["ahead"], true);
    // Alone, nothing is known.
    let (_, told) = told(&["mirror-status", &slave]);
    assert!(of_kind(&told, "status")[0]["lag_tids"].is_null());
}
