//! From a SPEC to a view, or to a store: locks, devices, volumes, the picture.

use super::Context;
use super::args::{Engine, Switch};
use super::spec::{Local, Pfs, Spec, Volume};
use crate::error::{Error, Result};
use crate::fs::{pfs, recover};
use crate::io::lock::{self, Lock, LockGuard};
use crate::io::{self, Device, Direct, OpenOptions};
use crate::store::{Store, StoreOptions, View, ViewOptions, VolumeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a volume that needs recovery is watched for another writer before it is touched.
const WATCH: Duration = Duration::from_secs(2);

/// An opened file system. The locks last as long as this does.
pub struct Opened {
    /// The consistent picture.
    pub view: View,
    /// What was asked for.
    pub spec: Local,
    _locks: Vec<LockGuard>,
}

impl Opened {
    /// The PFS that was named, PFS 0 where none was.
    ///
    /// Errors: class `Usage` if there is none of that number or label.
    pub fn pfs(&mut self) -> Result<pfs::Pfs> {
        named(&mut self.view, &self.spec)
    }
}

/// A file system that is opened for writing. The locks last as long as this does.
pub struct Writable {
    /// The volumes, recovered.
    pub store: Store,
    /// What opening them did.
    pub report: recover::Report,
    /// What was asked for.
    pub spec: Local,
    /// Locks on all volumes, and claims on those that are block devices.
    pub locks: Vec<LockGuard>,
}

impl Writable {
    /// The PFS that was named, PFS 0 where none was.
    ///
    /// Errors: class `Usage` if there is none of that number or label.
    pub fn pfs(&mut self) -> Result<pfs::Pfs> {
        named(self.store.view(), &self.spec)
    }
}

/// The PFS that `spec` names.
fn named(view: &mut View, spec: &Local) -> Result<pfs::Pfs> {
    match &spec.pfs {
        None => pfs::find(view, "0"),
        Some(Pfs::Number(number)) => pfs::find(view, &number.to_string()),
        Some(Pfs::Label(label)) => pfs::find(view, &String::from_utf8_lossy(label)),
    }
}

/// Memory for changes, and for reading ahead, that each of several volume sets has at least, in
/// bytes.
const SHARE_MIN: usize = 4 << 20;

/// Opens what `spec` names for writing: nobody else reads or writes it meanwhile. What a crash left
/// behind is recovered first, and notes say what that did.
///
/// A volume that needs recovery may be in use on another host: it is watched for two seconds before
/// it is touched, unless `-F` was given.
///
/// Errors: class `Usage` for another machine's volumes, `Busy` for volumes that somebody else uses,
/// and what opening the devices, the set and the store says.
pub fn open_rw(cx: &Context, spec: &Spec) -> Result<Writable> {
    let cache = view_options(cx).cache_bytes;
    open_rw_of(cx, spec, 1, cache, cx.global.lock_wait)
}

/// As [`open_rw`], one of `sets` volume sets that share the memory for changes; with `cache` bytes
/// of memory for metadata, and waiting for locks so long.
pub fn open_rw_of(
    cx: &Context,
    spec: &Spec,
    sets: usize,
    cache: usize,
    wait: Duration,
) -> Result<Writable> {
    let name = spec.to_string();
    let spec = local(spec)?;
    let (sets, usual) = (sets.max(1), StoreOptions::default());
    if cx.global.live {
        let text = "--live reads beside a writer; a command that writes cannot use it";
        return Err(Error::usage(text));
    }
    distinct(&spec.volumes)?;
    let mut locks = locks(cx, &spec.volumes, Lock::Write, wait)?;
    for volume in &spec.volumes {
        locks.extend(lock::claim(&volume.path)?);
    }
    let devices = spec
        .volumes
        .iter()
        .map(|volume| device(cx, volume, spec.volumes.len() * sets, Use::Write))
        .collect::<Result<Vec<_>>>()?;
    let set = VolumeSet::open(devices)?;
    for fault in set.warnings() {
        cx.ui.note(1, format_args!("harmless: {fault}"));
    }
    let options = recover::OpenOptions {
        store: StoreOptions {
            cache_bytes: cache,
            readahead_bytes: (usual.readahead_bytes / sets).max(SHARE_MIN),
            dirty_bytes: (usual.dirty_bytes / sets).max(SHARE_MIN),
            watch: (!cx.global.force).then_some(WATCH),
        },
        redo: !cx.global.no_redo,
        now: now_us(cx),
    };
    let (store, report) = recover::open(set, &options)?;
    tell(cx, &name, &report);
    Ok(Writable {
        store,
        report,
        spec: spec.clone(),
        locks,
    })
}

/// When the command started, microseconds since 1970: the time that its records carry.
pub fn now_us(cx: &Context) -> u64 {
    u64::try_from(cx.now().as_microsecond()).unwrap_or(0)
}

/// Says what recovery did.
fn tell(cx: &Context, spec: &str, report: &recover::Report) {
    let records = |count| super::size::counted(count, "record", "records");
    if report.undone > 0 {
        cx.ui.note(
            0,
            format_args!(
                "{spec}: not cleanly unmounted; recovered: {} of the UNDO log taken back",
                records(report.undone)
            ),
        );
    }
    if report.redone > 0 {
        cx.ui.note(
            0,
            format_args!(
                "{spec}: recovered: {} of the REDO log carried out",
                records(report.redone)
            ),
        );
    }
    for left_out in &report.not_redone {
        cx.ui
            .warn(format_args!("not carried out of the REDO log: {left_out}"));
    }
    if report.rolled_back > 0 {
        let count = super::size::counted(report.rolled_back, "operation", "operations");
        cx.ui.note(
            0,
            format_args!("{spec}: {count} that had not come to an end taken back"),
        );
    }
}

/// Opens what `spec` names for reading.
///
/// Errors: class `Usage` for another machine's volumes, `Busy` for a volume that somebody writes
/// to, and what opening the devices, the set and the view says.
pub fn open(cx: &Context, spec: &Spec) -> Result<Opened> {
    open_with(cx, spec, &view_options(cx))
}

/// As [`open`], with a view of the caller's choice.
pub fn open_with(cx: &Context, spec: &Spec, options: &ViewOptions) -> Result<Opened> {
    let spec = local(spec)?;
    let (locks, how) = match options.live {
        true => (Vec::new(), Use::Live),
        false => {
            let wait = cx.global.lock_wait;
            (locks(cx, &spec.volumes, Lock::Read, wait)?, Use::Read)
        }
    };
    let set = volumes(cx, spec, how)?;
    for fault in set.warnings() {
        cx.ui.note(1, format_args!("harmless: {fault}"));
    }
    let view = View::open(set, options)?;
    let undone = view.undone();
    if undone.records > 0 && !options.live {
        cx.ui.note(
            1,
            format_args!(
                "the volume was not cleanly unmounted; it is read as of before its last {} UNDO \
                 records, and not changed",
                undone.records
            ),
        );
    }
    Ok(Opened {
        view,
        spec: spec.clone(),
        _locks: locks,
    })
}

/// The volumes of `spec`, to look at while somebody else may be writing to them; no lock is taken.
pub fn watch(cx: &Context, spec: &Spec) -> Result<VolumeSet> {
    volumes(cx, local(spec)?, Use::Live)
}

fn volumes(cx: &Context, spec: &Local, how: Use) -> Result<VolumeSet> {
    let devices = spec
        .volumes
        .iter()
        .map(|volume| device(cx, volume, spec.volumes.len(), how))
        .collect::<Result<Vec<_>>>()?;
    VolumeSet::open(devices)
}

/// How the options of every command want a view.
pub fn view_options(cx: &Context) -> ViewOptions {
    ViewOptions {
        // More than the address space holds is more than there can be.
        cache_bytes: usize::try_from(cx.global.cache).unwrap_or(usize::MAX),
        live: cx.global.live,
        ..ViewOptions::default()
    }
}

fn local(spec: &Spec) -> Result<&Local> {
    match spec {
        Spec::Local(local) => Ok(local),
        Spec::Remote(_) => Err(Error::usage(format!(
            "{spec} is on another machine, and this command reads volumes of this one \
             (write ./ before a local path with a colon)"
        ))),
    }
}

/// Refuses a volume that is named twice: it would wait for itself.
fn distinct(volumes: &[Volume]) -> Result<()> {
    let place = |volume: &Volume| {
        let found = std::fs::metadata(&volume.path).ok()?;
        Some((found.dev(), found.ino(), volume.offset.unwrap_or(0)))
    };
    for (at, volume) in volumes.iter().enumerate() {
        let own = place(volume);
        if own.is_some() && volumes[..at].iter().any(|other| place(other) == own) {
            let name = volume.path.display();
            return Err(Error::usage(format!("{name}: the volume is named twice")));
        }
    }
    Ok(())
}

/// Locks on all volumes; `wait` is for all of them together.
pub(super) fn locks(
    cx: &Context,
    volumes: &[Volume],
    kind: Lock,
    wait: Duration,
) -> Result<Vec<LockGuard>> {
    let start = Instant::now();
    let lock = |volume: &Volume| {
        let left = wait.saturating_sub(start.elapsed());
        let offset = volume.offset.unwrap_or(0);
        lock::acquire_unless(&volume.path, offset, kind, left, &mut || cx.goes_on())
    };
    volumes.iter().map(lock).collect()
}

/// What a volume is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// To be read while somebody else writes to it.
    Live,
    Write,
}

/// Opens one volume of `count`, which share the memory for buffers.
///
/// What another host wrote to a block device never reaches this one's page cache: beside a writer,
/// devices are read past it or not at all.
pub(super) fn device(
    cx: &Context,
    volume: &Volume,
    count: usize,
    how: Use,
) -> Result<Box<dyn Device>> {
    let usual = OpenOptions::default();
    let is_device = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
    };
    let live_device = how == Use::Live && is_device(&volume.path);
    let options = OpenOptions {
        engine: match cx.global.io {
            Engine::Auto => io::Engine::Auto,
            Engine::Uring => io::Engine::Uring,
            Engine::Posix => io::Engine::Posix,
        },
        direct: match cx.global.direct {
            Switch::Off if live_device => {
                let text = format!(
                    "{}: a block device that is being written to can only be read past the page \
                     cache (leave --direct off out)",
                    volume.path.display()
                );
                return Err(Error::usage(text));
            }
            Switch::Auto if live_device => Direct::On,
            Switch::Auto => Direct::Auto,
            Switch::On => Direct::On,
            Switch::Off => Direct::Off,
        },
        write: how == Use::Write,
        offset: volume.offset.unwrap_or(0),
        buffers: (usual.buffers / count.max(1)).max(2),
        ..usual
    };
    io::open(&volume.path, &options)
}
