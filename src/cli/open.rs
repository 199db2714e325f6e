//! From a SPEC to a view: locks, devices, volumes, the picture.

use super::Context;
use super::args::{Engine, Switch};
use super::spec::{Local, Pfs, Spec, Volume};
use crate::error::{Error, Result};
use crate::fs::pfs;
use crate::io::lock::{self, Lock, LockGuard};
use crate::io::{self, Device, Direct, OpenOptions};
use crate::store::{View, ViewOptions, VolumeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Instant;

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
        match &self.spec.pfs {
            None => pfs::find(&mut self.view, "0"),
            Some(Pfs::Number(number)) => pfs::find(&mut self.view, &number.to_string()),
            Some(Pfs::Label(label)) => pfs::find(&mut self.view, &String::from_utf8_lossy(label)),
        }
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
    let locks = match options.live {
        true => Vec::new(),
        false => locks(cx, &spec.volumes)?,
    };
    let devices = spec
        .volumes
        .iter()
        .map(|volume| device(cx, volume, spec.volumes.len()))
        .collect::<Result<Vec<_>>>()?;
    let set = VolumeSet::open(devices)?;
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

/// Shared locks on all volumes; `--lock-wait` is for all of them together.
fn locks(cx: &Context, volumes: &[Volume]) -> Result<Vec<LockGuard>> {
    let wait = cx.global.lock_wait;
    let start = Instant::now();
    let lock = |volume: &Volume| {
        let left = wait.saturating_sub(start.elapsed());
        let offset = volume.offset.unwrap_or(0);
        lock::acquire_unless(&volume.path, offset, Lock::Read, left, &mut || cx.goes_on())
    };
    volumes.iter().map(lock).collect()
}

/// Opens one volume of `count`, which share the memory for buffers.
///
/// What another host wrote to a block device never reaches this one's page cache: beside a writer,
/// devices are read past it or not at all.
fn device(cx: &Context, volume: &Volume, count: usize) -> Result<Box<dyn Device>> {
    let usual = OpenOptions::default();
    let is_device = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
    };
    let live_device = cx.global.live && is_device(&volume.path);
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
        offset: volume.offset.unwrap_or(0),
        buffers: (usual.buffers / count.max(1)).max(2),
        ..usual
    };
    io::open(&volume.path, &options)
}
