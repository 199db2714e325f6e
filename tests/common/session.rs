//! Two-way sessions over simulated links: the library's two ends, each in a thread of its own, on
//! simulated devices.

use super::crash::scenarios::view_of;
use super::link::{From, Link, Plan, To};
use super::slave::{NOW, plain};
use super::streams::Still;
use mallet::error::{Error, Result};
use mallet::format::Tid;
use mallet::format::mrecord::Capabilities;
use mallet::fs::pfs;
use mallet::io::sim::{SimDisk, Survive};
use mallet::mirror::copy::Group;
use mallet::mirror::wire::{Records, Sink};
use mallet::mirror::{self, SourcePfs, read, write};
use mallet::store::{Store, StoreOptions, VolumeSet};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How long any session may take. Most take a thousandth.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the ends do.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// What the source gives: its PFS up to this TID.
    pub end: Tid,
    /// In batches of about so many bytes.
    pub split: Option<u64>,
    /// Bytes of changes that the target keeps in memory: 0 makes every record durable.
    pub dirty_bytes: usize,
    /// What the source announces, and the target.
    pub announces: (Capabilities, Capabilities),
    /// Records after which the target makes all durable, where it goes on at the record.
    pub group: u64,
}

impl How {
    /// As an end of DragonFly would, everything up to `end` in one batch.
    pub fn plain(end: Tid) -> How {
        How {
            end,
            split: None,
            dirty_bytes: 256 << 10,
            announces: Default::default(),
            group: 1 << 20,
        }
    }
}

/// How a session went.
pub struct Ran {
    /// The source's end.
    pub source: (Result<()>, read::Report),
    /// The target's.
    pub target: (Result<()>, write::Report),
    /// What the target told of an earlier pass.
    pub told: Told,
    /// What was said.
    pub link: Link,
    /// The slave as it is found afterwards: after a crash, if its process died.
    pub slave: SimDisk,
}

/// What a target told of an earlier pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// It went on where that was interrupted.
    pub resumed: bool,
    /// It took back what that left.
    pub taken_back: bool,
}

/// Runs a session from PFS 1 of `master` to PFS 1 of a copy of `slave`.
pub fn session(master: &SimDisk, slave: &SimDisk, how: How, plan: &Plan) -> Ran {
    let disk = slave.snapshot();
    let link = Link::new(plan, &disk);
    let (tell, told) = channel();
    let (source, target) = (link.source(), link.target());
    let (from, to) = (master.clone(), disk.clone());
    let (first, second) = (tell.clone(), tell);
    thread::spawn(move || {
        let mut report = read::Report::default();
        let ended = give(&from, how, source.0, source.1, &mut report);
        let _ = first.send(Ended::Source(ended, report));
    });
    let seed = plan.seed;
    thread::spawn(move || {
        let (mut report, mut told) = Default::default();
        let ended = take(&to, how, seed, target, &mut report, &mut told);
        let _ = second.send(Ended::Target(ended, report, told));
    });
    let (mut source, mut target) = (None, None);
    while source.is_none() || target.is_none() {
        match told.recv_timeout(PATIENCE) {
            Ok(Ended::Source(ended, report)) => source = Some((ended, report)),
            Ok(Ended::Target(ended, report, told)) => target = Some((ended, report, told)),
            Err(RecvTimeoutError::Timeout) => panic!(
                "it hangs, the source {}, the target {}: {how:?} {plan:?}",
                if source.is_some() { "not" } else { "too" },
                if target.is_some() { "not" } else { "too" },
            ),
            Err(RecvTimeoutError::Disconnected) => panic!("an end panicked: {how:?} {plan:?}"),
        }
    }
    disk.clear_hook();
    let slave = match link.dead() {
        Some(at) => {
            let survive = [
                Survive::Some(seed),
                Survive::Torn(seed),
                Survive::None,
                Survive::All,
            ];
            let survive = survive[(seed >> 3) as usize % survive.len()];
            disk.crash(at, survive).expect("an image")
        }
        None => disk,
    };
    let (ended, report, told) = target.expect("it ended");
    Ran {
        source: source.expect("it ended"),
        target: (ended, report),
        told,
        link,
        slave,
    }
}

enum Ended {
    Source(Result<()>, read::Report),
    Target(Result<()>, write::Report, Told),
}

/// The source's end.
pub fn give(
    disk: &SimDisk,
    how: How,
    answers: impl std::io::Read,
    out: impl std::io::Write,
    report: &mut read::Report,
) -> Result<()> {
    let mut view = view_of(disk);
    let found = pfs::load(&mut view, 1)?.ok_or_else(|| Error::usage("no PFS"))?;
    let mut source = SourcePfs::from(&found);
    (source.end, source.committed) = (how.end, how.end);
    let window = mirror::window::one_way(&source, Default::default(), None)?;
    let request = read::Request {
        pfs: source,
        window,
        split: how.split,
        accept_damage: false,
        live: false,
    };
    let mut edge = read::Edge {
        clock: &mut Still,
        progress: &mut (),
        events: &mut |_| {},
    };
    let (mut sink, mut answers) = (Sink::new(out, None), Records::new(answers));
    read::converse(
        &mut view,
        &request,
        how.announces.0,
        &mut sink,
        &mut answers,
        &mut edge,
        report,
    )
}

/// The target's end.
pub fn take(
    disk: &SimDisk,
    how: How,
    seed: u64,
    (from, mut answers): (From, To),
    report: &mut write::Report,
    told: &mut Told,
) -> Result<()> {
    let mut store = store(disk, how.dirty_bytes, seed)?;
    let request = write::Request {
        announces: how.announces.1,
        group: Group {
            records: how.group,
            ..Group::default()
        },
        ..plain()
    };
    let mut edge = write::Edge {
        now: &mut || NOW,
        progress: &mut (),
        events: &mut |event| {
            told.resumed |= matches!(event, write::Event::Resumed(_));
            told.taken_back |= matches!(event, write::Event::TakenBack(_));
            Ok(())
        },
        make: &mut |_, _| Err(Error::usage("there is no slave")),
    };
    let answers: Option<&mut dyn std::io::Write> = Some(&mut answers);
    write::write(&mut store, from, answers, &request, &mut edge, report)
}

/// A disk opened for writing.
pub fn store(disk: &SimDisk, dirty_bytes: usize, seed: u64) -> Result<Store> {
    let set = VolumeSet::open(vec![Box::new(disk.device(seed))])?;
    let options = StoreOptions {
        dirty_bytes,
        ..super::crash::scenario::options()
    };
    Store::open(set, &options)
}
