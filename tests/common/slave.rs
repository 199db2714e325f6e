//! Slaves for streams: fresh ones on simulated disks, and what is in them.

use super::build::files::inode;
use super::build::{Data, FIRST_TID, Options, Record, Writer};
use super::receiver::{local, timeless};
use mallet::btree::{AsOf, Cursor, good_data};
use mallet::check::{self, Severity};
use mallet::error::Result;
use mallet::format::mrecord::{self, Body, Kind};
use mallet::format::node::{Base, LeafElement};
use mallet::format::record::{ObjType, PfsData, data_sum, rt};
use mallet::format::{CrcKind, Key, Localization, ROOT_OBJ, Rule, Tid};
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::mirror::write::{Edge, Report, Request, write};
use mallet::progress::Progress;
use mallet::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::fs::File;
use std::io::Read;
use zerocopy::{FromZeros, IntoBytes};

/// Number of every slave made here.
pub const SLAVE: u16 = 1;
/// When everything happens, microseconds since 1970.
pub const NOW: u64 = 1_700_000_000_000_000;

/// A slave without contents, of the master with this uuid, on a file system of `version`.
pub fn fresh(version: u32, shared_uuid: [u8; 16]) -> SimDisk {
    volume(version, 512 << 20, |data| {
        data.shared_uuid = shared_uuid;
        data.mirror_flags.set(PfsData::SLAVE);
    })
}

/// A volume whose PFS 1 is what `change` makes of a fresh PFS's record.
pub fn volume(version: u32, size: u64, change: impl FnOnce(&mut PfsData)) -> SimDisk {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("volume");
    let options = Options::new(&path, version, size);
    let mut writer = Writer::create(&options);
    let mut push = |class, rec_type, key, data: &[u8]| {
        writer.push(Record {
            key: Key {
                localization: Localization::new(0, class),
                obj_id: ROOT_OBJ,
                rec_type,
                key,
                create_tid: FIRST_TID,
            },
            delete_tid: Tid::ZERO,
            obj_type: ObjType::Directory as u8,
            data: Data::Bytes(data),
        });
    };
    let root = inode(version, ObjType::Directory, 0, FIRST_TID);
    push(Localization::INODE, rt::INODE, 0, root.as_bytes());
    let mut data = PfsData::default_for(options.fsid());
    push(Localization::MISC, rt::PFS, 0, data.as_bytes());
    data.sync_beg_tid.set(1);
    data.sync_end_tid.set(1);
    data.unique_uuid = [0x5a; 16];
    change(&mut data);
    let key = PfsData::record_key(SLAVE);
    push(Localization::MISC, rt::PFS, key, data.as_bytes());
    writer.finish();
    // The file lives on without its name.
    SimDisk::over(File::open(&path).expect("the volume")).expect("a disk")
}

/// The uuid of the master that `stream` is of.
pub fn master_of(stream: &[u8]) -> [u8; 16] {
    let first = super::streams::records(stream);
    match Body::parse(&first[0], 0) {
        Ok(Body::Pfsd(pfsd)) => pfsd.pfs.shared_uuid,
        other => panic!("not a PFSD: {other:?}"),
    }
}

/// The disk opened for writing, with so little memory that batches become durable in parts.
pub fn store(disk: &SimDisk) -> Store {
    let set = VolumeSet::open(vec![Box::new(disk.device(1))]).expect("a volume");
    let options = StoreOptions {
        dirty_bytes: 256 << 10,
        ..StoreOptions::default()
    };
    Store::open(set, &options).expect("a store")
}

/// The disk read.
pub fn view(disk: &SimDisk) -> View {
    let set = VolumeSet::open(vec![Box::new(disk.reader(1))]).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// How streams are applied unless a test is about it.
pub fn plain() -> Request {
    Request {
        pfs: SLAVE,
        force: false,
        terms: Default::default(),
        announces: Default::default(),
        group: Default::default(),
    }
}

/// Applies a stream; the report, and how it ended.
pub fn apply_as(disk: &SimDisk, from: impl Read, request: &Request) -> (Report, Result<()>) {
    apply_until(disk, from, request, &mut ())
}

/// As [`apply_as`], as long as `progress` lets it.
pub fn apply_until(
    disk: &SimDisk,
    from: impl Read,
    request: &Request,
    progress: &mut dyn Progress,
) -> (Report, Result<()>) {
    let mut report = Report::default();
    let mut store = store(disk);
    let mut edge = Edge {
        now: &mut || NOW,
        progress,
        events: &mut |_| Ok(()),
        make: &mut |_, _| panic!("the slave is there"),
    };
    let ended = write(&mut store, from, None, request, &mut edge, &mut report);
    disk.forget_log();
    (report, ended)
}

/// Applies a stream that is good.
pub fn apply(disk: &SimDisk, stream: &[u8]) -> Report {
    let (report, ended) = apply_as(disk, stream, &plain());
    ended.expect("a stream that is applied");
    report
}

/// The slave's `sync_end_tid`.
pub fn synced(disk: &SimDisk) -> Tid {
    let slave = pfs::load(&mut view(disk), SLAVE).expect("a readable table");
    slave.expect("the slave").sync_end
}

/// All elements of the slave with their data.
pub fn elements(view: &mut View, pfs: u16) -> Vec<(LeafElement, Vec<u8>)> {
    let mut cursor = Cursor::new(Key::pfs_min(pfs), Key::pfs_max(pfs));
    let mut all = Vec::new();
    while let Some(leaf) = cursor.next(view).expect("a readable tree") {
        let data = good_data(view, &leaf).expect("good data");
        all.push((leaf, data.to_vec()));
    }
    all
}

/// What is visible as of `asof`, in terms of no PFS, mtime and atime of inodes aside; without
/// configuration and snapshots, which are every copy's own.
pub fn visible(view: &mut View, pfs: u16, asof: Tid) -> Vec<(Key, Vec<u8>)> {
    let mut cursor = AsOf::new(Key::pfs_min(pfs), Key::pfs_max(pfs), asof);
    let mut all = Vec::new();
    while let Some(leaf) = cursor.next(view).expect("a readable tree") {
        let key = leaf.base.key();
        if [rt::CONFIG, rt::SNAPSHOT].contains(&key.rec_type) {
            continue;
        }
        let mut data = good_data(view, &leaf).expect("good data").to_vec();
        if key.rec_type == rt::DIRENTRY {
            data[8..12].fill(0);
        }
        all.push((local(key), timeless(key, &data)));
    }
    all
}

/// The volume is sound, data included.
pub fn assert_sound(disk: &SimDisk) {
    assert_sound_but(disk, &[]);
}

/// The volume is sound but for these rules.
pub fn assert_sound_but(disk: &SimDisk, rules: &[Rule]) {
    let options = check::Options {
        data: true,
        ..check::Options::default()
    };
    let mut findings = Vec::new();
    let report = check::run(
        &mut view(disk),
        &options,
        &mut |finding| findings.push(finding),
        &mut (),
    );
    report.expect("a check that ends");
    let errors: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .filter(|finding| !rules.contains(&finding.fault.rule))
        .map(|finding| format!("{} ({})", finding.fault, finding.detail))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// A stream of one batch up to `end`, whose records are blocks of one object, created by `tid`.
pub fn made(end: u64, tid: u64, blocks: std::ops::Range<i64>) -> Vec<u8> {
    made_of(0x1000, end, tid, blocks)
}

/// The same, with records of the object `obj`.
pub fn made_of(obj: i64, end: u64, tid: u64, blocks: std::ops::Range<i64>) -> Vec<u8> {
    let mut pfs = PfsData::default_for([3; 16]);
    pfs.sync_beg_tid.set(1);
    pfs.sync_end_tid.set(end);
    let mut out = Vec::new();
    for _ in 0..2 {
        mrecord::append_pfsd(&mut out, &pfs, 0);
    }
    for block in blocks {
        let data = block.to_le_bytes();
        let mut leaf = LeafElement::new_zeroed();
        leaf.base = Base::from_key(Key {
            localization: Localization::new(7, Localization::MISC),
            obj_id: obj,
            rec_type: rt::DATA,
            key: block,
            create_tid: Tid(tid),
        });
        leaf.data_offset.set(1);
        leaf.data_len.set(data.len() as i32);
        leaf.data_crc.set(data_sum(rt::DATA, &data, CrcKind::Ieee));
        mrecord::append_record(&mut out, &leaf, &data, 0);
    }
    mrecord::append_mark(&mut out, Kind::Sync);
    mrecord::append_mark(&mut out, Kind::Term);
    out
}

/// A stream of one batch up to `end` without work.
pub fn idle(end: u64) -> Vec<u8> {
    let mut pfs = PfsData::default_for([3; 16]);
    pfs.sync_beg_tid.set(1);
    pfs.sync_end_tid.set(end);
    let mut out = Vec::new();
    for _ in 0..2 {
        mrecord::append_pfsd(&mut out, &pfs, 0);
    }
    mrecord::append_mark(&mut out, Kind::Idle);
    mrecord::append_mark(&mut out, Kind::Term);
    out
}
