//! `newfs`: a file system on image files, which it makes if need be, or devices.

use super::args::NewfsArgs;
use super::json::{Fields, put_name};
use super::spec::{Local, Volume};
use super::{Context, Exit, Outcome, open, size};
use crate::error::{Class, Error, Result};
use crate::fs::newfs::{DRAGONFLY_MIN, Made, NewFs, newfs_within, preview};
use crate::io::lock::{self, Lock, LockGuard};
use crate::io::{Device, read_at};
use crate::store::probe;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// `newfs`.
pub fn newfs(args: &NewfsArgs, cx: &Context) -> Outcome {
    let volumes: Vec<Volume> = args
        .volumes
        .iter()
        .flat_map(|l| l.volumes.clone())
        .collect();
    let fsid = Uuid::new_v4();
    let what = NewFs {
        label: args.label.as_bytes().to_vec(),
        version: args.version,
        undo_bytes: args.undo,
        fsid: fsid.to_bytes_le(),
        now: open::now_us(cx),
    };
    let places = volumes
        .iter()
        .map(|volume| Place::find(volume, args.size))
        .collect::<Result<Vec<_>>>()?;
    apart(&places)?;
    let sizes: Vec<(String, u64)> = places
        .iter()
        .map(|place| (place.name(), place.size))
        .collect();
    let made = preview(&sizes, &what)?;
    let mut ground = Ground::take(cx, places, args)?;
    let total = sizes
        .iter()
        .fold(0, |sum: u64, (_, size)| sum.saturating_add(*size));
    if total < DRAGONFLY_MIN {
        cx.ui.warn(format_args!(
            "DragonFly reads a file system of {}, but does not write to one below 304 MiB",
            size::human(total)
        ));
    }
    if !cx.global.dry_run {
        let limit = args.size.unwrap_or(u64::MAX);
        newfs_within(&mut ground.devices, limit, &what)?;
        ground.created.clear();
    }
    drop(ground);
    report(cx, args, &sizes, &made, fsid)
}

/// Says what was made, or would be.
fn report(
    cx: &Context,
    args: &NewfsArgs,
    sizes: &[(String, u64)],
    made: &Made,
    fsid: Uuid,
) -> Outcome {
    if cx.json() {
        for (number, (path, size)) in sizes.iter().enumerate() {
            let mut fields = Fields::new();
            fields.insert("number".into(), number.into());
            put_name(&mut fields, "path", path.as_bytes());
            fields.insert("size".into(), (*size).into());
            cx.events.emit("volume", Value::Object(fields))?;
        }
        let mut fields = Fields::new();
        put_name(&mut fields, "label", args.label.as_bytes());
        cx.events.summary(Value::Object(fields));
        cx.events.summary(json!({
            "version": args.version,
            "fsid": fsid.to_string(),
            "volumes": sizes.len(),
            "undo_bytes": made.undo_bytes,
            "bigblocks": made.bigblocks,
            "free_bigblocks": made.free_bigblocks,
            "dry_run": cx.global.dry_run,
        }));
        return Ok(Exit::Done);
    }
    let mut out = cx.out();
    for (number, (path, bytes)) in sizes.iter().enumerate() {
        writeln!(out, "volume {number}  {path}  {}", size::human(*bytes))?;
    }
    let label = super::escape::name(args.label.as_bytes());
    writeln!(out, "label     {label}")?;
    writeln!(out, "version   {}", args.version)?;
    writeln!(out, "fsid      {fsid}")?;
    writeln!(out, "undo      {}", size::human(made.undo_bytes))?;
    writeln!(out, "free      {}", size::human(made.free_bigblocks << 23))?;
    if cx.global.dry_run {
        writeln!(out, "nothing was written (-n)")?;
    }
    Ok(Exit::Done)
}

/// Where a volume is to be.
struct Place {
    volume: Volume,
    /// How large the volume is to be, in bytes.
    size: u64,
    /// What to do to the file first.
    file: Prepare,
    /// What tells one file or device from another; `None` for a file that does not exist.
    identity: Option<(u64, u64)>,
}

/// What to do to a file before it can be a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepare {
    Nothing,
    /// Make it, of this length.
    Create(u64),
    /// Make it this long; whether it holds something now.
    Extend(u64, bool),
}

impl Place {
    fn find(volume: &Volume, size: Option<u64>) -> Result<Place> {
        let offset = volume.offset.unwrap_or(0);
        let named = |error: Error| error.context(volume);
        let end = |size: u64| {
            let end = offset
                .checked_add(size)
                .filter(|end| i64::try_from(*end).is_ok());
            end.ok_or_else(|| named(Error::usage("no file can be that large")))
        };
        let found = match fs::metadata(&volume.path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let Some(size) = size else {
                    let text = "does not exist; --size SIZE makes an image file of that size";
                    return Err(named(Error::usage(text)));
                };
                return Ok(Place {
                    volume: volume.clone(),
                    size,
                    file: Prepare::Create(end(size)?),
                    identity: None,
                });
            }
            Err(error) => return Err(named(Error::io("cannot be opened", error))),
        };
        let is_device = found.file_type().is_block_device();
        if !is_device && !found.is_file() {
            let text = "is neither a regular file nor a block device";
            return Err(named(Error::usage(text)));
        }
        let length = length(&volume.path, is_device).map_err(named)?;
        let there = length.saturating_sub(offset);
        let file = match size {
            Some(size) if size > there && is_device => {
                let text = format!("has only {there} bytes, not the {size} of --size");
                return Err(named(Error::usage(text)));
            }
            Some(size) if size > there => Prepare::Extend(end(size)?, length > 0),
            _ => Prepare::Nothing,
        };
        let identity = match is_device {
            true => (u64::MAX, found.rdev()),
            false => (found.dev(), found.ino()),
        };
        Ok(Place {
            volume: volume.clone(),
            size: size.unwrap_or(there),
            file,
            identity: Some(identity),
        })
    }

    fn name(&self) -> String {
        self.volume.to_string()
    }
}

/// Length of a file or device in bytes.
fn length(path: &Path, is_device: bool) -> Result<u64> {
    if !is_device {
        let found = fs::metadata(path).map_err(|e| Error::io("cannot be opened", e))?;
        return Ok(found.len());
    }
    let options = crate::io::OpenOptions::default();
    Ok(crate::io::open(path, &options)?.size())
}

/// No file is two volumes.
fn apart(places: &[Place]) -> Result<()> {
    for (number, place) in places.iter().enumerate() {
        let same = |other: &&Place| {
            other.volume.path == place.volume.path
                || other.identity.is_some() && other.identity == place.identity
        };
        if places[..number].iter().any(|other| same(&other)) {
            let text = format!("{place}: is named twice", place = place.name());
            return Err(Error::usage(text));
        }
    }
    Ok(())
}

/// Files and devices that are ours to write to.
struct Ground {
    devices: Vec<Box<dyn Device>>,
    locks: Vec<LockGuard>,
    /// Files that were made for this.
    created: Vec<PathBuf>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        for path in &self.created {
            // It may be gone; there is nobody to tell.
            let _ = fs::remove_file(path);
        }
    }
}

impl Ground {
    /// Locks and claims everything, looks at what is there, then makes and extends files. A dry
    /// run leaves those that do not exist alone.
    fn take(cx: &Context, places: Vec<Place>, args: &NewfsArgs) -> Result<Ground> {
        let mut ground = Ground {
            devices: Vec::new(),
            locks: Vec::new(),
            created: Vec::new(),
        };
        for place in &places {
            if matches!(place.file, Prepare::Create(_)) {
                continue;
            }
            ground.lock(cx, &place.volume)?;
            if !args.overwrite && !cx.global.force {
                vacant(cx, place)?;
            }
        }
        if cx.global.dry_run {
            return Ok(ground);
        }
        for place in &places {
            match place.file {
                Prepare::Nothing => {}
                Prepare::Create(length) => {
                    ground.create(&place.volume, length)?;
                    ground.lock(cx, &place.volume)?;
                }
                Prepare::Extend(length, _) => extend(&place.volume, length)?,
            }
        }
        for place in &places {
            let device = open::device(cx, &place.volume, places.len(), open::Use::Write)?;
            ground.devices.push(device);
        }
        Ok(ground)
    }

    fn lock(&mut self, cx: &Context, volume: &Volume) -> Result<()> {
        let one = std::slice::from_ref(volume);
        self.locks
            .extend(open::locks(cx, one, Lock::Write, cx.global.lock_wait)?);
        self.locks.extend(lock::claim(&volume.path)?);
        Ok(())
    }

    fn create(&mut self, volume: &Volume, length: u64) -> Result<()> {
        let failed = |error| Error::io("cannot be made", error).context(volume);
        let new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&volume.path);
        let file = new.map_err(failed)?;
        self.created.push(volume.path.clone());
        file.set_len(length).map_err(failed)?;
        // The name is to survive a crash as the contents do.
        let folder = volume
            .path
            .parent()
            .filter(|path| !path.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new(".")));
        folder.and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

/// Makes a file longer.
fn extend(volume: &Volume, length: u64) -> Result<()> {
    let failed = |error| Error::io("cannot be made longer", error).context(volume);
    let file = OpenOptions::new()
        .write(true)
        .open(&volume.path)
        .map_err(failed)?;
    file.set_len(length)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// Refuses a place where something is that may be somebody's.
fn vacant(cx: &Context, place: &Place) -> Result<()> {
    let refused = |what: String| {
        let text = format!("{}: {what}; -f overwrites it", place.name());
        Err(Error::new(Class::Incompatible, text))
    };
    if let Prepare::Extend(length, true) = place.file {
        return refused(format!(
            "is a file of less than {length} bytes, and not empty"
        ));
    }
    if matches!(place.file, Prepare::Extend(..)) {
        return Ok(());
    }
    let mut device = open::device(cx, &place.volume, 1, open::Use::Read)?;
    if let Some(what) = probe::occupant(device.as_mut()) {
        return refused(format!("holds {what}"));
    }
    let is_device = place.identity.is_some_and(|(kind, _)| kind == u64::MAX);
    // What is known of a device is known of its start; a file that begins with something is
    // somebody's file.
    let start = usize::try_from(device.size().min(4096)).unwrap_or(0);
    let bytes = read_at(device.as_mut(), 0, start)
        .map_err(|error| Error::io("reading its start", error).context(place.name()))?;
    if !is_device && place.volume.offset.is_none() && bytes.iter().any(|byte| *byte != 0) {
        return refused("is a file with other contents".to_owned());
    }
    Ok(())
}

/// Reads a VOL, or several with commas between them: local ones, without a PFS.
pub fn volumes(text: &std::ffi::OsStr) -> Result<Local, String> {
    match super::spec::parse(text)? {
        super::spec::Spec::Local(local) if local.pfs.is_none() => Ok(local),
        super::spec::Spec::Local(_) => {
            Err("a file system is made on volumes; leave the PFS (#) out".into())
        }
        super::spec::Spec::Remote(_) => Err(
            "a file system is made on this machine; write ./ before a local path with a colon"
                .into(),
        ),
    }
}
