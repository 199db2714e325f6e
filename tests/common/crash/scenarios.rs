//! The scenarios.

use super::raw_ops::RawOps;
use super::scenario::{Inspect, NOW, Said, Scenario, Stage, base, options, readers};
use super::state::{Digest, pfs_digest};
use super::timeline::{Random, settled};
use crate::common::build::{self, files::Content, files::Files, files::Object};
use crate::common::slave::{self, SLAVE};
use crate::common::streams;
use mallet::error::{Class, Error};
use mallet::format::mrecord::Body;
use mallet::format::record::ObjType;
use mallet::format::{ROOT_OBJ, Tid};
use mallet::fs::ops::{Attributes, NewObject, Ops};
use mallet::fs::pfs;
use mallet::io::sim::SimDisk;
use mallet::mirror::ready::Identity;
use mallet::mirror::window::{self, Asked};
use mallet::mirror::wire::Records;
use mallet::mirror::write::{Edge, Report, Request, write};
use mallet::mirror::{Clock, SourcePfs, Terms, copy, read, takeback};
use mallet::progress::{Progress, Status};
use mallet::store::{Store, StoreOptions, Txn, View, ViewOptions};
use mallet::{Result, format};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Files made, marked deleted and destroyed as pruning does, a few a transaction.
pub fn records(version: u32, sizes: &[u64], seed: u64, rounds: u64) -> Scenario {
    let run = move |stage: &Stage<'_>| {
        stage.with(stage.open()?, |store| {
            let mut random = Random(seed);
            let mut ops = RawOps::default();
            let mut dead = Vec::new();
            for round in 0..rounds {
                let mut txn = store.begin(NOW + round)?;
                for _ in 0..=random.below(6) {
                    one_record(&mut ops, &mut txn, &mut random, &mut dead)?;
                }
                txn.commit()?;
                stage.ack(store, &[])?;
            }
            Ok(())
        })
    };
    scenario("records", seed, base(version, sizes, seed), run)
}

fn one_record(
    ops: &mut RawOps,
    txn: &mut Txn<'_>,
    random: &mut Random,
    dead: &mut Vec<super::raw_ops::RawFile>,
) -> Result<()> {
    match random.below(8) {
        0..=2 => {
            let tail = 1 + random.below(8000);
            ops.file(txn, random, 0, tail)
        }
        3 => {
            let blocks = 1 + random.below(4);
            ops.file(txn, random, blocks, 0)
        }
        4 => (0..20).try_for_each(|_| ops.file(txn, random, 0, 0)),
        5 if !ops.files.is_empty() => {
            let index = random.below(ops.files.len() as u64) as usize;
            // What a transaction made and deleted never was.
            if ops.files[index].keys[0].create_tid != txn.tid() {
                dead.push(ops.delete(txn, index)?);
            }
            Ok(())
        }
        6 | 7 if !dead.is_empty() => {
            let index = random.below(dead.len() as u64) as usize;
            let file = dead.swap_remove(index);
            // Nor is it destroyed by the transaction that deleted it.
            match ops.element(txn, file.keys[0])?.base.delete_tid() == txn.tid() {
                true => dead.push(file),
                false => ops.destroy(txn, &file)?,
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn scenario(
    name: &'static str,
    seed: u64,
    start: Vec<SimDisk>,
    run: impl Fn(&Stage<'_>) -> Result<()> + 'static,
) -> Scenario {
    Scenario {
        name,
        seed,
        start,
        large: false,
        redo: false,
        run: Box::new(run),
        inspect: None,
    }
}

/// A file or directory that a scenario made.
#[derive(Clone)]
struct Made {
    obj: i64,
    name: Vec<u8>,
}

/// Operations on files, several a transaction; existing files changed block by block.
pub fn file_operations(version: u32, sizes: &[u64], seed: u64, rounds: u64) -> Scenario {
    let run = move |stage: &Stage<'_>| {
        stage.with(stage.open()?, |store| {
            let mut random = Random(seed);
            let mut ops = Ops::new(0);
            let mut files: Vec<Made> = Vec::new();
            let mut views = Vec::new();
            for round in 0..rounds {
                let mut txn = store.begin(NOW + round * 1_000_000)?;
                for step in 0..=random.below(3) {
                    let number = round * 10 + step;
                    one_operation(&mut ops, &mut txn, &mut random, &mut files, number)?;
                }
                let tid = txn.tid();
                txn.commit()?;
                views.push((0, tid));
                stage.ack(store, &views[views.len().saturating_sub(2)..])?;
            }
            Ok(())
        })
    };
    let start = base(version, sizes, seed);
    scenario("file operations", seed, start, run)
}

fn one_operation(
    ops: &mut Ops,
    txn: &mut Txn<'_>,
    random: &mut Random,
    files: &mut Vec<Made>,
    number: u64,
) -> Result<()> {
    let kind = match random.below(12) {
        0..=2 => return make_file(ops, txn, random, files, number),
        kind if files.is_empty() => kind.min(3),
        kind => kind,
    };
    if files.is_empty() {
        return Ok(());
    }
    let index = random.below(files.len() as u64) as usize;
    let Made { obj, name } = files[index].clone();
    match kind {
        3 | 4 => {
            let (at, len) = (random.below(60_000), 1 + random.below(20_000));
            let bytes = vec![random.next() as u8; len as usize];
            ops.write(txn, obj, at, &bytes)
        }
        5 => ops.truncate(txn, obj, random.below(50_000)),
        6 => {
            files.swap_remove(index);
            ops.remove(txn, ROOT_OBJ, &name)
        }
        7 => {
            let to = format!("moved-{number}").into_bytes();
            files[index].name.clone_from(&to);
            ops.rename(txn, (ROOT_OBJ, &name), (ROOT_OBJ, &to))
        }
        8 => {
            let what = Attributes {
                mode: Some(0o600 + random.below(64) as u16),
                mtime: Some(NOW + random.below(1000)),
                ..Attributes::default()
            };
            ops.set_attributes(txn, obj, &what)
        }
        _ => put_delta(ops, txn, random, obj),
    }
}

fn make_file(
    ops: &mut Ops,
    txn: &mut Txn<'_>,
    random: &mut Random,
    files: &mut Vec<Made>,
    number: u64,
) -> Result<()> {
    let name = format!("file-{number}").into_bytes();
    let new = NewObject {
        kind: ObjType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        uflags: 0,
        rdev: (0, 0),
        target: b"",
        times: None,
    };
    let obj = ops.create(txn, ROOT_OBJ, &name, &new)?;
    let bytes = vec![random.next() as u8; random.below(40_000) as usize];
    ops.write(txn, obj, 0, &bytes)?;
    files.push(Made { obj, name });
    Ok(())
}

/// Some blocks of a file replaced, as `put` does over an existing file.
fn put_delta(ops: &mut Ops, txn: &mut Txn<'_>, random: &mut Random, obj: i64) -> Result<()> {
    let Some(inode) = ops.inode(txn, obj)? else {
        return Ok(());
    };
    let size = inode.size();
    let mut base = 0;
    while base < size {
        let len = format::block_size(base).min(size - base);
        match random.below(4) {
            0 => {
                let block = vec![random.next() as u8; len as usize];
                ops.put_block(txn, &inode, base, Some(&block), size)?;
            }
            1 => ops.put_block(txn, &inode, base, None, size)?,
            _ => {}
        }
        base += format::block_size(base);
    }
    ops.finish_file(txn, obj, size, NOW)
}

/// Ends an operation at the n-th safe point.
struct StopAt(u64);

impl Progress for StopAt {
    fn at(&mut self, _: &Status) -> Result<()> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            0 => Err(Error::new(Class::Interrupted, "stopped by the test")),
            _ => Ok(()),
        }
    }
}

/// A master whose PFS 1 changed in steps; its volume, and its last TID at each step.
pub fn master(version: u32, seed: u64, steps: u64) -> (SimDisk, Vec<Tid>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("master");
    let mut options = build::Options::new(&path, version, 104 << 20);
    options.seed = seed + 1;
    let mut files = Files::new(&options);
    files.pfs_master(1, "master");
    let root = Object::root(1);
    let mut random = Random(seed ^ 0x5EED);
    let mut names: Vec<(Vec<u8>, Object)> = Vec::new();
    let mut tids = Vec::new();
    for step in 0..steps {
        for n in 0..8 + random.below(30) {
            let size = match random.below(4) {
                0 => random.below(70_000),
                _ => random.below(900),
            };
            match random.below(5) {
                0 | 1 if !names.is_empty() => {
                    let (_, file) = names[random.below(names.len() as u64) as usize];
                    files.rewrite(file, &Content::Pattern(size), step * 100 + n);
                }
                2 if !names.is_empty() => {
                    let index = random.below(names.len() as u64) as usize;
                    let (name, _) = names.swap_remove(index);
                    files.remove(root, &name);
                }
                _ => {
                    let name = format!("f{step}-{n}").into_bytes();
                    let file = files.file(root, &name, &Content::Pattern(size));
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

/// A view of one volume.
pub fn view_of(disk: &SimDisk) -> View {
    let set = readers(std::slice::from_ref(disk)).expect("a volume");
    View::open(set, &ViewOptions::default()).expect("a view")
}

/// How a slave is made equal to its master.
#[derive(Clone, Copy, Debug)]
pub struct Mirroring {
    /// Steps of the master, each followed by a pass.
    pub steps: u64,
    /// Bytes of a batch.
    pub split: Option<u64>,
    /// Memory for changes: little of it takes several checkpoints a pass.
    pub dirty_bytes: usize,
    /// Stop each pass once, at a safe point that the seed decides, and begin it again.
    pub interrupt: bool,
    /// Between the two, take the slave back to what it acknowledged.
    pub take_back: bool,
}

/// A slave filled and brought up to date by streams, two-way: it acknowledges each batch.
pub fn mirror(version: u32, seed: u64, how: Mirroring) -> Scenario {
    let (disk, tids) = master(version, seed, how.steps);
    let mut view = view_of(&disk);
    let mut begin = None;
    let mut streams = Vec::new();
    for end in &tids {
        let pfs = streams::source(&mut view, 1, *tids.last().expect("a step"));
        let asked = Asked {
            begin,
            end: Some(*end),
        };
        let request = read::Request {
            pfs,
            window: window::one_way(&pfs, asked, None).expect("a window"),
            split: how.split,
            accept_damage: false,
            live: false,
        };
        streams.push(streams::stream(&mut view, &request, &mut ()).0);
        begin = Some(end.next());
    }
    // Nothing new: what the slave says then is what it has.
    let pfs = streams::source(&mut view, 1, *tids.last().expect("a step"));
    let request = read::Request {
        pfs,
        window: window::one_way(&pfs, Asked { begin, end: None }, None).expect("a window"),
        split: None,
        accept_damage: false,
        live: false,
    };
    streams.push(streams::stream(&mut view, &request, &mut ()).0);
    let uuid = slave::master_of(&streams[0]);
    let target = slave::volume(version, 104 << 20, |data| {
        data.shared_uuid = uuid;
        data.mirror_flags
            .set(mallet::format::record::PfsData::SLAVE);
    });
    let run = move |stage: &Stage<'_>| {
        let mut random = Random(seed);
        let options = StoreOptions {
            dirty_bytes: how.dirty_bytes,
            ..options()
        };
        for stream in &streams {
            let mut whole = false;
            if how.interrupt {
                let stop = StopAt(1 + random.below(12));
                stage.with(stage.open_with(options.clone())?, |store| {
                    match apply(stage, store, stream, stop) {
                        Err(error) if error.class() == Class::Interrupted => {}
                        other => {
                            whole = true;
                            return other.and_then(|()| stage.ack(store, &[]));
                        }
                    }
                    if how.take_back {
                        takeback::take_back(store, SLAVE, NOW, &mut ())?;
                    }
                    stage.ack(store, &[])
                })?;
            }
            if !whole {
                stage.with(stage.open_with(options.clone())?, |store| {
                    apply(stage, store, stream, StopAt(u64::MAX))?;
                    stage.ack(store, &[])
                })?;
            }
        }
        Ok(())
    };
    Scenario {
        large: true,
        inspect: Some(follows(disk)),
        ..scenario("mirror", seed, vec![target], run)
    }
}

/// The slave has at least what it acknowledged, and shows as of that what its master shows.
fn follows(master: SimDisk) -> Inspect {
    let known: RefCell<HashMap<Tid, Digest>> = RefCell::default();
    Box::new(move |view: &mut View, acknowledged: Tid| {
        let text = |error: Error| error.to_string();
        let slave = pfs::load(view, SLAVE).map_err(text)?;
        let synced = slave.ok_or("the slave is gone")?.data.sync_end_tid();
        if synced < acknowledged {
            return Err(format!("acknowledged {acknowledged}, and it has {synced}"));
        }
        // A fresh slave says 1, and has nothing.
        if synced <= Tid(1) {
            return Ok(());
        }
        let found = pfs_digest(view, SLAVE, synced).map_err(text)?;
        let mut known = known.borrow_mut();
        let expected = known.entry(synced).or_insert_with(|| {
            pfs_digest(&mut view_of(&master), 1, synced).expect("a sound master")
        });
        match found == *expected {
            true => Ok(()),
            false => Err(format!("the slave as of {synced} is not its master")),
        }
    })
}

fn apply(stage: &Stage<'_>, store: &mut Store, stream: &[u8], mut stop: StopAt) -> Result<()> {
    let request: Request = slave::plain();
    let mut report = Report::default();
    let mut edge = Edge {
        now: &mut || NOW,
        progress: &mut stop,
        events: &mut |_| Ok(()),
        make: &mut |_, _| panic!("the slave is there"),
    };
    let mut answers = Answers {
        stage,
        bytes: Vec::new(),
        left: Vec::new(),
    };
    let ended = write(
        store,
        stream,
        Some(&mut answers),
        &request,
        &mut edge,
        &mut report,
    );
    let mut said = answers.finish();
    match said.pop() {
        Some(last) => assert!(report.acknowledged.is_none_or(|tid| tid == last)),
        None => assert_eq!(report.acknowledged, None),
    }
    ended
}

/// The source's end of a session: notes when what the slave acknowledges leaves it.
struct Answers<'a, 's> {
    stage: &'a Stage<'s>,
    bytes: Vec<u8>,
    /// Up to which byte what left when.
    left: Vec<(usize, (usize, usize))>,
}

impl std::io::Write for Answers<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(buf);
        self.left.push((self.bytes.len(), self.stage.moment()));
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Answers<'_, '_> {
    /// Tells the stage what was acknowledged, each when its first byte left.
    fn finish(self) -> Vec<Tid> {
        let (mut records, mut tids) = (Records::new(&self.bytes[..]), Vec::new());
        loop {
            let first = records.offset() as usize;
            let Some(record) = records.next().expect("whole records") else {
                return tids;
            };
            let left = self.left.iter().find(|(upto, _)| first < *upto);
            let (_, (moment, under_way)) = *left.expect("a write that it was in");
            if let Body::Update(tid) = record.body {
                let said = Said {
                    at: moment,
                    under_way,
                    tid: Tid(tid),
                };
                self.stage.said.borrow_mut().push(said);
                tids.push(Tid(tid));
            }
        }
    }
}

/// Space filled to the last, given back and filled again.
pub fn out_of_space(version: u32, seed: u64) -> Scenario {
    let run = move |stage: &Stage<'_>| {
        stage.with(stage.open()?, |store| {
            let mut random = Random(seed);
            let mut ops = RawOps::default();
            let mut full = 0;
            for round in 0..30 {
                let before = ops.files.clone();
                let mut txn = store.begin(NOW + round * 100_000_000)?;
                let filled = (0..12).try_for_each(|_| ops.file(&mut txn, &mut random, 4, 0));
                match filled {
                    Ok(()) => txn.commit().map(drop)?,
                    Err(error) if error.class() == Class::NoSpace && !(stage.failed)() => {
                        drop(txn);
                        ops.files = before;
                        ops.editor = Default::default();
                        stage.ack(store, &[])?;
                        full += 1;
                        give_back(stage, store, &mut ops, round)?;
                    }
                    Err(error) => return Err(error),
                }
                stage.ack(store, &[])?;
                if full == 2 {
                    return Ok(());
                }
            }
            panic!("30 rounds did not fill the volume");
        })
    };
    let start = base(version, &[72 << 20], seed);
    scenario("out of space", seed, start, run)
}

/// Destroys all files, and lets what they took come back.
fn give_back(stage: &Stage<'_>, store: &mut Store, ops: &mut RawOps, round: u64) -> Result<()> {
    while !ops.files.is_empty() {
        let mut txn = store.begin(NOW + round * 100_000_000 + 1)?;
        for _ in 0..20 {
            if let Some(file) = ops.files.pop() {
                ops.destroy(&mut txn, &file)?;
            }
        }
        txn.commit()?;
        stage.ack(store, &[])?;
    }
    Ok(())
}

/// A volume that the kernel left crashed, opened for writing: its REDO log is carried out.
pub fn redo(image: &Path, seed: u64) -> Scenario {
    let file = File::open(image).expect("an image");
    let run = move |stage: &Stage<'_>| stage.with(stage.open()?, |store| stage.ack(store, &[]));
    Scenario {
        large: true,
        redo: true,
        ..scenario(
            "redo",
            seed,
            vec![SimDisk::over(file).expect("a disk")],
            run,
        )
    }
}

/// What can be used as a start of its own: the disks as a scenario leaves them.
pub fn after(scenario: &Scenario) -> Vec<SimDisk> {
    let disks: Vec<SimDisk> = scenario.start.iter().map(SimDisk::snapshot).collect();
    let stage = Stage::new(disks.clone(), scenario.seed, || 0, || false);
    (scenario.run)(&stage).expect("a scenario that runs");
    disks.iter().map(settled).collect()
}

struct Still;

impl Clock for Still {
    fn now(&mut self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&mut self, _: Duration) {}
}

/// A slave filled and brought up to date by copies in one process, with a durable cursor: passes of
/// several checkpoints, `how.interrupt`ed and continued at the record.
pub fn copies(version: u32, seed: u64, how: Mirroring) -> Scenario {
    let (disk, tids) = master(version, seed, how.steps);
    let found = pfs::load(&mut view_of(&disk), 1).expect("a table");
    let found = found.expect("the master");
    let uuid = found.data.shared_uuid;
    let target = slave::volume(version, 104 << 20, |data| {
        data.shared_uuid = uuid;
        data.mirror_flags
            .set(mallet::format::record::PfsData::SLAVE);
    });
    let source = disk.clone();
    let run = move |stage: &Stage<'_>| {
        let mut random = Random(seed);
        for end in &tids {
            let mut source_pfs = SourcePfs::from(&found);
            source_pfs.end = *end;
            let request = copy::Request {
                source: source_pfs,
                identity: Identity::of(&found),
                split: how.split,
                terms: Terms::default(),
                bandwidth: None,
                group: copy::Group {
                    records: 8 + random.below(30),
                    bytes: 64 << 10,
                    time: Duration::from_secs(1 << 30),
                },
                bytes_total: None,
            };
            let mut stops = match how.interrupt {
                true => vec![1 + random.below(20), 1 + random.below(40), u64::MAX],
                false => vec![u64::MAX],
            };
            stops.reverse();
            while let Some(stop) = stops.pop() {
                let mut view = view_of(&source);
                let set = stage.open_with(StoreOptions {
                    dirty_bytes: how.dirty_bytes,
                    ..options()
                })?;
                stage.with(set, |store| {
                    one_copy(stage, store, &mut view, &request, StopAt(stop))?;
                    stage.ack(store, &[])
                })?;
            }
        }
        Ok(())
    };
    Scenario {
        large: true,
        inspect: Some(follows(disk)),
        ..scenario("copies", seed, vec![target], run)
    }
}

/// One run of a copy; that it was stopped is no error.
fn one_copy(
    stage: &Stage<'_>,
    store: &mut Store,
    master: &mut View,
    request: &copy::Request,
    mut stop: StopAt,
) -> Result<()> {
    let place = copy::Place {
        store: 0,
        pfs: SLAVE,
    };
    let mut edge = copy::Edge {
        now: &mut || NOW,
        clock: &mut Still,
        progress: &mut stop,
        events: &mut |event| {
            if let copy::Event::Acknowledged(_, tid, _) = event {
                stage.ack_tid(*tid);
            }
        },
    };
    let mut origin = copy::Origin::Apart(master);
    let stores = std::slice::from_mut(store);
    let report = copy::copy(&mut origin, stores, &[place], request, &mut edge)?;
    let errors = report.targets.into_iter().filter_map(|target| target.error);
    for error in errors.chain(report.stopped) {
        if error.class() != Class::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}
