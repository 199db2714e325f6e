//! Changing what is in a PFS: `put`, `append`, `truncate`, `mkdir`, `rm`, `mv`, `ln`, `chmod`,
//! `chown`, each one transaction, and `batch`, many of them in one.

use super::args::Command;
use super::json::{Fields, hex, put_name};
use super::open::{Opened, Writable, now_us, open, open_rw};
use super::spec::{Local, Spec};
use super::ui::Meter;
use super::write_args::{Change, LnArgs};
use super::{Context, Exit, Outcome, escape, size};
use crate::error::{Class, Error, Result};
use crate::fs::change::{self, Owner, Removal};
use crate::fs::import::{self, Deed, FileId, Origin, Report, Request};
use crate::fs::namespace::{Final, resolve};
use crate::fs::operation::{self, Done, Operation};
use crate::fs::pfs::Pfs;
use crate::fs::target;
use crate::progress::Progress;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// A command that makes one change, in one transaction.
pub fn command(command: &Command, cx: &Context) -> Outcome {
    match (command.change(), command.spec()) {
        (Some(change), Some(spec)) => one(&change, spec, cx),
        _ => Err(Error::usage("this command changes nothing").into()),
    }
}

fn one(change: &Change, spec: &Spec, cx: &Context) -> Outcome {
    if cx.global.dry_run {
        return dry(change, spec, cx);
    }
    let mut opened = open_rw(cx, spec)?;
    let pfs = writable(&opened.pfs()?)?;
    let volumes = volumes(&opened.spec)?;
    let mut meter = cx.meter(change.name(), change.unit());
    let (told, done) = operation::run(&mut opened.store, pfs, now_us(cx), |op| {
        carry_out(op, change, &volumes, cx, &mut meter)
    })?;
    drop(meter);
    summary(cx, &mut opened, pfs, &told, &done)?;
    Ok(Exit::Done)
}

/// The number of a PFS that may be written to.
///
/// Errors: class `Incompatible` for a slave, which only its master changes.
pub fn writable(pfs: &Pfs) -> Result<u16> {
    match pfs.is_slave() {
        false => Ok(pfs.id),
        true => Err(Error::new(
            Class::Incompatible,
            format!(
                "PFS {} is a slave: only its master changes it (pfs-upgrade makes it a master)",
                pfs.id
            ),
        )),
    }
}

/// The volumes of a file system as files of this machine.
pub fn volumes(spec: &Local) -> Result<Vec<FileId>> {
    let id = |path: &std::path::Path| match std::fs::metadata(path) {
        Ok(found) => Ok(FileId::of(&found)),
        Err(error) => Err(Error::io(path.display().to_string(), error)),
    };
    spec.volumes.iter().map(|volume| id(&volume.path)).collect()
}

impl Change {
    /// Its name as typed.
    pub fn name(&self) -> &'static str {
        match self {
            Change::Put(_) => "put",
            Change::Append(_) => "append",
            Change::Truncate(_) => "truncate",
            Change::Mkdir(_) => "mkdir",
            Change::Rm(_) => "rm",
            Change::Mv(_) => "mv",
            Change::Ln(_) => "ln",
            Change::Chmod(_) => "chmod",
            Change::Chown(_) => "chown",
        }
    }

    /// What it counts.
    fn unit(&self) -> &'static str {
        "objects"
    }

    /// Whether it reads standard input.
    pub fn reads_input(&self) -> bool {
        match self {
            Change::Put(args) => args.src == "-",
            Change::Append(args) => args.src == "-",
            _ => false,
        }
    }

    /// What of the PFS it is about.
    fn path(&self) -> &OsStr {
        match self {
            Change::Put(args) => &args.path,
            Change::Append(args) => &args.path,
            Change::Truncate(args) => &args.path,
            Change::Mkdir(args) => &args.path,
            Change::Rm(args) => &args.path,
            Change::Mv(args) => &args.from,
            Change::Ln(args) => &args.path,
            Change::Chmod(args) => &args.path,
            Change::Chown(args) => &args.path,
        }
    }
}

/// Carries out one change as a part of `op`. Gives what was copied, if anything was.
pub fn carry_out(
    op: &mut Operation<'_>,
    change: &Change,
    volumes: &[FileId],
    cx: &Context,
    meter: &mut Meter,
) -> Result<Report> {
    let owner = owner();
    let path = change.path().as_bytes();
    meter.at(&Default::default())?;
    match change {
        Change::Put(args) => {
            let mut events = |deed, path: &[u8]| tell(cx, deed, path);
            let request = request(&args.src, path, volumes, &mut events, meter);
            let keep_tail = args.inplace_size;
            return import::put(
                op,
                Request {
                    keep_tail,
                    ..request
                },
            );
        }
        Change::Append(args) => {
            let mut events = |deed, path: &[u8]| tell(cx, deed, path);
            let request = request(&args.src, path, volumes, &mut events, meter);
            return import::append(op, request);
        }
        Change::Truncate(args) => change::truncate(op, path, args.size)?,
        Change::Mkdir(args) => change::make_directory(op, path, args.parents, owner)?,
        Change::Rm(args) => {
            let how = Removal {
                recursive: args.recursive,
                missing_ok: args.ignore_missing,
            };
            change::remove(op, path, how, meter)?;
        }
        Change::Mv(args) => change::rename(op, path, args.to.as_bytes())?,
        Change::Ln(LnArgs {
            symbolic, target, ..
        }) => match symbolic {
            true => change::symlink(op, target.as_bytes(), path, owner)?,
            false => change::link(op, target.as_bytes(), path)?,
        },
        Change::Chmod(args) => {
            change::change_mode(op, path, &|mode, dir| args.mode.apply(mode, dir))?;
        }
        Change::Chown(args) => {
            change::change_owner(op, path, args.owner.uid, args.owner.gid)?;
        }
    }
    Ok(Report::default())
}

/// Whose new objects are.
fn owner() -> Owner {
    Owner {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    }
}

fn request<'a>(
    src: &OsStr,
    path: &'a [u8],
    volumes: &'a [FileId],
    events: &'a mut dyn FnMut(Deed, &[u8]),
    progress: &'a mut dyn Progress,
) -> Request<'a> {
    let origin = match src == "-" {
        true => Origin::Stream(Box::new(io::stdin())),
        false => Origin::Path(src.into()),
    };
    Request {
        origin,
        path,
        keep_tail: false,
        volumes,
        owner: owner(),
        events,
        progress,
    }
}

/// Tells of one object, to those who want to hear so much.
fn tell(cx: &Context, deed: Deed, path: &[u8]) {
    let verb = match deed {
        Deed::Made => "new",
        Deed::Linked => "link",
        Deed::Updated => "update",
        Deed::Replaced => "replace",
    };
    if cx.json() && cx.ui.level() >= 1 {
        let mut fields = Fields::new();
        fields.insert("deed".into(), verb.into());
        put_name(&mut fields, "path", path);
        // The summary notices if nobody reads events any more.
        let _ = cx.events.emit("object", Value::Object(fields));
        return;
    }
    cx.ui.note(1, format_args!("{verb} {}", escape::name(path)));
}

/// What was copied, for scripts.
fn counts(report: &Report) -> Value {
    json!({
        "files": report.files,
        "directories": report.directories,
        "symlinks": report.symlinks,
        "hard_links": report.hard_links,
        "nodes": report.nodes,
        "bytes": report.bytes,
        "blocks_written": report.blocks_written,
        "block_bytes": report.block_bytes,
        "blocks_same": report.blocks_same,
        "blocks_cleared": report.blocks_cleared,
        "attributes_lost": report.attributes_lost,
        "links_lost": report.links_lost,
    })
}

/// How an operation ended, for scripts.
pub fn ending(opened: &mut Writable, pfs: u16, done: &Done) -> Result<Value> {
    let records = match done.changed {
        true => operation::records(opened.store.view(), pfs, done.tid)?,
        false => 0,
    };
    let tid = done.changed.then(|| hex(done.tid.0));
    let written = done.written;
    Ok(json!({
        "tid": tid,
        "records": records,
        "bytes_written": written.data + written.undo + written.meta,
        "data_bytes": written.data,
        "undo_bytes": written.undo,
        "meta_bytes": written.meta,
        "checkpoints": written.checkpoints,
    }))
}

fn summary(
    cx: &Context,
    opened: &mut Writable,
    pfs: u16,
    report: &Report,
    done: &Done,
) -> Result<()> {
    losses(cx, report);
    left_over(cx, done);
    if cx.json() {
        cx.events.summary(counts(report));
        cx.events.summary(ending(opened, pfs, done)?);
        return Ok(());
    }
    let copied = *report != Report::default();
    if copied {
        cx.ui.note(0, described(report));
    }
    match done.changed {
        true => {
            let written = done.written.data + done.written.undo + done.written.meta;
            let tid = done.tid;
            cx.ui.note(
                1,
                format_args!("TID {tid}; {written} bytes written to the volume"),
            );
        }
        false => cx.ui.note(1, "nothing changed"),
    }
    Ok(())
}

/// Warns of what was left behind.
pub fn losses(cx: &Context, report: &Report) {
    if report.attributes_lost > 0 {
        let count = super::size::counted(report.attributes_lost, "object has", "objects have");
        cx.ui.warn(format_args!(
            "{count} extended attributes or ACLs, which were left out: HAMMER has no place for them"
        ));
    }
    if report.links_lost > 0 {
        let count = report.links_lost;
        cx.ui.warn(format_args!(
            "{count} files with several names became files of their own: more than are kept track of"
        ));
    }
}

/// Warns of old versions that should not be there any more.
pub fn left_over(cx: &Context, done: &Done) {
    if done.left_over {
        cx.ui.warn(
            "all is done, but the medium failed before the old versions of what has no history \
             could be destroyed: they stay as history",
        );
    }
}

/// What was copied, for people.
fn described(report: &Report) -> String {
    let files = super::size::counted(report.files, "file", "files");
    let mut text = format!("{files} ({} bytes)", report.bytes);
    for (count, one, many) in [
        (report.directories, "directory", "directories"),
        (report.symlinks, "symlink", "symlinks"),
        (report.hard_links, "hard link", "hard links"),
        (report.nodes, "other", "other"),
    ] {
        if count > 0 {
            text += &format!(", {}", super::size::counted(count, one, many));
        }
    }
    let blocks = super::size::counted(report.blocks_written, "block", "blocks");
    text += &format!("; {blocks} ({} bytes) written", report.block_bytes);
    if report.blocks_same > 0 {
        text += &format!(", {} the same as before", report.blocks_same);
    }
    if report.blocks_cleared > 0 {
        text += &format!(", {} became holes", report.blocks_cleared);
    }
    text
}

/// Whether there is space for what would be copied.
fn fits(opened: &mut Opened, report: &Report) -> Result<()> {
    let want = report.want();
    let room = want.room(&mut opened.view)?;
    if want.bytes() <= room {
        return Ok(());
    }
    let (space, free) = (size::human(want.bytes()), size::human(room));
    let text = format!("about {space} are needed, and {free} are free");
    Err(Error::new(Class::NoSpace, text))
}

/// Says what a change would do.
fn dry(change: &Change, spec: &Spec, cx: &Context) -> Outcome {
    let mut opened = open(cx, spec)?;
    let pfs = opened.pfs()?;
    let id = writable(&pfs)?;
    let path = change.path().as_bytes();
    cx.events.summary(json!({"dry_run": true}));
    if let Change::Put(args) = change {
        let volumes = volumes(&opened.spec)?;
        let mut meter = cx.meter("put", "objects");
        let mut events = |deed, path: &[u8]| tell(cx, deed, path);
        let request = request(&args.src, path, &volumes, &mut events, &mut meter);
        let keep_tail = args.inplace_size;
        let report = import::plan(
            &mut opened.view,
            id,
            Request {
                keep_tail,
                ..request
            },
        )?;
        drop(meter);
        losses(cx, &report);
        cx.events.summary(counts(&report));
        if !cx.json() {
            cx.ui
                .note(0, format_args!("would copy {}", described(&report)));
        }
        fits(&mut opened, &report)?;
        return Ok(Exit::Done);
    }
    let is_new = match change {
        Change::Mkdir(args) => !args.parents,
        Change::Ln(_) => true,
        _ => false,
    };
    let missing_ok = matches!(change, Change::Mkdir(_) | Change::Append(_))
        || matches!(change, Change::Rm(args) if args.ignore_missing);
    if is_new {
        let place = target::place(&mut opened.view, id, path)?;
        if place.found.is_some() {
            let text = format!("{} is there already", escape::name(path));
            return Err(Error::new(Class::Other, text).into());
        }
    } else if !missing_ok {
        resolve(&mut opened.view, pfs.tree(None), path, Final::Itself)?;
    }
    if !cx.json() {
        let (name, path) = (change.name(), escape::name(path));
        cx.ui.note(0, format_args!("would {name} {path}"));
    }
    Ok(Exit::Done)
}
