//! Changes to PFSs: `pfs-master`, `pfs-slave`, `pfs-update`, `pfs-upgrade`, `pfs-downgrade`,
//! `pfs-destroy`.

use super::args::{PfsDestroyArgs, PfsNewArgs, PfsUpdateArgs, SpecArgs};
use super::open::{Writable, now_us, open, open_rw};
use super::pfs::{describe, event, name};
use super::spec::{Pfs as Named, Spec};
use super::{Context, Exit, Outcome, escape, size};
use crate::error::{Error, Result};
use crate::fs::pfs::{self, Pfs};
use crate::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use crate::fs::rollback::RolledBack;
use crate::io::lock::{self, Lock};
use crate::store::Fetch;
use serde_json::json;
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use uuid::Uuid;

/// `pfs-master`.
pub fn master(args: &PfsNewArgs, cx: &Context) -> Outcome {
    create(args, Kind::Master, cx)
}

/// `pfs-slave`.
pub fn slave(args: &PfsNewArgs, cx: &Context) -> Outcome {
    create(args, Kind::Slave, cx)
}

fn create(args: &PfsNewArgs, kind: Kind, cx: &Context) -> Outcome {
    let settings = settings(&args.settings)?;
    settings.check()?;
    if kind == Kind::Slave && settings.shared_uuid.is_none() {
        cx.ui.warn(
            "no shared-uuid=UUID is given: the slave takes no stream until pfs-update sets its \
             master's",
        );
    }
    let id = match &args.spec {
        Spec::Local(local) => match &local.pfs {
            None => None,
            Some(Named::Number(id)) => Some(*id),
            Some(Named::Label(_)) => {
                let text = "a new PFS is named by a free number, or not at all; its label is a \
                            setting, label=NAME";
                return Err(Error::usage(text).into());
            }
        },
        Spec::Remote(_) => None,
    };
    if cx.global.dry_run {
        open(cx, &args.spec)?;
        return nothing_done(cx);
    }
    let fresh = [Uuid::new_v4().to_bytes_le(), Uuid::new_v4().to_bytes_le()];
    let new = NewPfs {
        kind,
        id,
        fresh,
        settings: &settings,
        link: args.link.as_ref().map(|path| path.as_bytes()),
    };
    let mut opened = open_rw(cx, &args.spec)?;
    let id = pfs_ops::create(&mut opened.store, &new, now_us(cx))?;
    let made = pfs::find(opened.store.view(), &id.to_string())?;
    show(cx, &args.spec, &mut opened, &made)
}

/// `pfs-update`.
pub fn update(args: &PfsUpdateArgs, cx: &Context) -> Outcome {
    let settings = settings(&args.settings)?;
    settings.check()?;
    if cx.global.dry_run {
        open(cx, &args.spec)?.pfs()?;
        return nothing_done(cx);
    }
    let (mut opened, pfs, _stream) = opened(cx, &args.spec)?;
    let pfs = match settings.is_empty() {
        true => pfs,
        false => pfs_ops::update(&mut opened.store, pfs.id, &settings, now_us(cx))?,
    };
    show(cx, &args.spec, &mut opened, &pfs)
}

/// `pfs-upgrade`.
pub fn upgrade(args: &SpecArgs, cx: &Context) -> Outcome {
    if cx.global.dry_run {
        open(cx, &args.spec)?.pfs()?;
        return nothing_done(cx);
    }
    let (mut opened, pfs, _stream) = opened(cx, &args.spec)?;
    let mut meter = cx.meter("taking back", "records");
    let done = pfs_ops::upgrade(&mut opened.store, pfs.id, now_us(cx), &mut meter)?;
    drop(meter);
    let end = pfs.data.sync_end_tid();
    summary(cx, &pfs, &done)?;
    if !cx.json() {
        let name = name(&args.spec, pfs.id);
        writeln!(
            cx.out(),
            "{name} is a master now, as of {end}{}",
            counts(&done)
        )?;
    }
    Ok(Exit::Done)
}

/// `pfs-downgrade`.
pub fn downgrade(args: &SpecArgs, cx: &Context) -> Outcome {
    if cx.global.dry_run {
        open(cx, &args.spec)?.pfs()?;
        return nothing_done(cx);
    }
    let (mut opened, pfs, _stream) = opened(cx, &args.spec)?;
    let end = pfs_ops::downgrade(&mut opened.store, pfs.id, now_us(cx))?;
    cx.events
        .summary(json!({"id": pfs.id, "sync_end_tid": end.to_string()}));
    if !cx.json() {
        let name = name(&args.spec, pfs.id);
        writeln!(cx.out(), "{name} is a slave now, as of {end}")?;
    }
    Ok(Exit::Done)
}

/// `pfs-destroy`.
pub fn destroy(args: &PfsDestroyArgs, cx: &Context) -> Outcome {
    let mut looked = open(cx, &args.spec)?;
    let pfs = looked.pfs()?;
    drop(looked);
    let name = name(&args.spec, pfs.id);
    if cx.global.dry_run {
        return nothing_done(cx);
    }
    if pfs.id != 0 && !(cx.global.yes && cx.global.force) {
        agreed(cx, &name, &pfs)?;
    }
    let (mut opened, again, _stream) = opened(cx, &args.spec)?;
    if (again.id, again.data.unique_uuid) != (pfs.id, pfs.data.unique_uuid) {
        return Err(Error::usage("the PFS has become another one meanwhile").into());
    }
    let link = args.link.as_ref().map(|path| path.as_bytes());
    let mut meter = cx.meter("destroying", "records");
    let done = pfs_ops::destroy(&mut opened.store, pfs.id, link, now_us(cx), &mut meter)?;
    drop(meter);
    summary(cx, &pfs, &done)?;
    if !cx.json() {
        writeln!(cx.out(), "{name} is destroyed{}", counts(&done))?;
    }
    Ok(Exit::Done)
}

/// Opens for writing what has a PFS that nobody streams into meanwhile.
fn opened(cx: &Context, spec: &Spec) -> Result<(Writable, Pfs, Vec<lock::LockGuard>)> {
    let mut opened = open_rw(cx, spec)?;
    let pfs = opened.pfs()?;
    // A stream waits for the volume that is held here: there is no use in waiting for it.
    let lock = |volume: &super::spec::Volume| {
        let offset = volume.offset.unwrap_or(0);
        lock::acquire(&volume.path, offset, Lock::Stream(pfs.id), Duration::ZERO)
    };
    let stream = opened
        .spec
        .volumes
        .iter()
        .map(lock)
        .collect::<Result<_>>()?;
    Ok((opened, pfs, stream))
}

/// Shows the PFS as it is now.
fn show(cx: &Context, spec: &Spec, opened: &mut Writable, pfs: &Pfs) -> Outcome {
    let version = opened.store.view().version();
    cx.events.summary(json!({"id": pfs.id}));
    match cx.json() {
        true => cx.events.emit("pfs", event(pfs))?,
        false => describe(cx, &name(spec, pfs.id), pfs, version)?,
    }
    Ok(Exit::Done)
}

fn nothing_done(cx: &Context) -> Outcome {
    cx.events.summary(json!({"dry_run": true}));
    if !cx.json() {
        writeln!(cx.out(), "nothing was written (-n)")?;
    }
    Ok(Exit::Done)
}

fn summary(cx: &Context, pfs: &Pfs, done: &RolledBack) -> Result<()> {
    cx.events.summary(json!({
        "id": pfs.id,
        "records_destroyed": done.destroyed,
        "records_undeleted": done.undeleted,
    }));
    Ok(())
}

/// `; 3 records destroyed, 1 record undeleted`; nothing where nothing was.
fn counts(done: &RolledBack) -> String {
    let records = |count| size::counted(count, "record", "records");
    match (done.destroyed, done.undeleted) {
        (0, 0) => String::new(),
        (destroyed, 0) => format!("; {} destroyed", records(destroyed)),
        (destroyed, undeleted) => {
            let (destroyed, undeleted) = (records(destroyed), records(undeleted));
            format!("; {destroyed} destroyed, {undeleted} undeleted")
        }
    }
}

/// Asks whether to destroy a PFS: once more for a master. Errors: class `Usage` where there is
/// nobody to ask, `Interrupted` where the answer is no.
fn agreed(cx: &Context, name: &str, pfs: &Pfs) -> Result<()> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || cx.json() {
        let text = "pfs-destroy asks, and there is nobody to answer; -y -F goes without";
        return Err(Error::usage(text));
    }
    let label = escape::name(pfs.data.label());
    let mut questions = vec![format!(
        "{name} (\"{label}\") with all its history and snapshots will be gone. Destroy it?"
    )];
    if !pfs.is_slave() {
        questions.push("It is a MASTER. Are you sure?".to_owned());
    }
    for question in questions {
        let failed = |error| Error::io("asking", error);
        let ask = || write!(io::stderr(), "{question} [y/N] ");
        cx.ui.beside_bar(ask).map_err(failed)?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(failed)?;
        cx.goes_on()?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Error::new(
                crate::error::Class::Interrupted,
                "not confirmed; nothing was changed",
            ));
        }
    }
    Ok(())
}

/// Reads settings, `key=value` each.
fn settings(words: &[std::ffi::OsString]) -> Result<Settings> {
    let mut settings = Settings::default();
    for word in words {
        let bytes = word.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=');
        let (key, value) = match at {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (bytes, &b""[..]),
        };
        let key = String::from_utf8_lossy(key);
        if at.is_none() && key != "snapshots-clear" {
            return Err(Error::usage(format!("{key}: write it as {key}=VALUE")));
        }
        set(&mut settings, &key, value).map_err(|text| Error::usage(format!("{key}: {text}")))?;
    }
    Ok(settings)
}

fn set(settings: &mut Settings, key: &str, value: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(value);
    // Hexadecimal with or without 0x, as the original takes it.
    let tid = || size::hex(&text).map(crate::format::Tid);
    let uuid = || {
        let parsed = Uuid::parse_str(&text);
        let parsed = parsed.map_err(|_| format!("{text:?} is not a UUID"))?;
        Ok::<_, String>(parsed.to_bytes_le())
    };
    match key {
        "shared-uuid" => settings.shared_uuid = Some(uuid()?),
        "unique-uuid" => settings.unique_uuid = Some(uuid()?),
        "sync-beg-tid" => settings.sync_beg_tid = Some(tid()?),
        "sync-end-tid" => settings.sync_end_tid = Some(tid()?),
        "prune-min" => settings.prune_min = Some(prune_min(&text)?),
        "snapshots-clear" => settings.snapshots = Some(Vec::new()),
        "snapshots" if value.starts_with(b"/") => settings.snapshots = Some(value.to_vec()),
        "snapshots" => {
            let text = "must be an absolute path; snapshots-clear goes back to the default";
            return Err(text.into());
        }
        "label" => {
            let bare = value.strip_prefix(b"\"").map(|v| v.strip_suffix(b"\""));
            let label = match bare {
                None => value,
                Some(Some(label)) => label,
                Some(None) => return Err("a quotation mark is missing".into()),
            };
            settings.label = Some(label.to_vec());
        }
        _ => {
            let text = "there is no such setting; there are shared-uuid, unique-uuid, label, \
                        sync-beg-tid, sync-end-tid, snapshots, snapshots-clear, prune-min";
            return Err(text.into());
        }
    }
    Ok(())
}

/// Reads `Nd` or `[Nd/]hh[:mm[:ss]]` into seconds.
fn prune_min(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a time; write Nd or [Nd/]hh[:mm[:ss]]");
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u32>().map(u64::from).map_err(|_| wrong()),
        false => Err(wrong()),
    };
    let (days, rest) = match text.split_once('d') {
        Some((days, "")) => (number(days)?, None),
        Some((days, rest)) => (
            number(days)?,
            Some(rest.strip_prefix('/').ok_or_else(wrong)?),
        ),
        None => (0, Some(text)),
    };
    let mut seconds = days * 86_400;
    let mut unit = 3600;
    for part in rest.into_iter().flat_map(|rest| rest.split(':')) {
        if unit == 0 {
            return Err(wrong());
        }
        seconds += number(part)? * unit;
        unit /= 60;
    }
    i32::try_from(seconds)
        .map(i32::cast_unsigned)
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Tid;
    use std::ffi::OsString;

    fn read(line: &str) -> Result<Settings> {
        settings(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn settings_as_the_original_takes_them() {
        let uuid = "45bfab25-ee10-d74b-87c0-3e37ca6742eb";
        let line = format!(
            "shared-uuid={uuid} sync-beg-tid=10 sync-end-tid=0x0000000100003e80 label=\"x=y\" \
             snapshots=/s prune-min=1d/01:01:01"
        );
        let settings = read(&line).expect("settings");
        let uuid = Uuid::parse_str(uuid).expect("a UUID").to_bytes_le();
        let expected = Settings {
            shared_uuid: Some(uuid),
            unique_uuid: None,
            label: Some(b"x=y".to_vec()),
            sync_beg_tid: Some(Tid(16)),
            sync_end_tid: Some(Tid(0x1_0000_3e80)),
            snapshots: Some(b"/s".to_vec()),
            prune_min: Some(90_061),
        };
        assert_eq!(settings, expected);
        for line in ["snapshots-clear", "snapshots-clear="] {
            assert_eq!(read(line).expect("settings").snapshots, Some(Vec::new()));
        }
        for (line, hint) in [
            ("label", "label=VALUE"),
            ("label=\"x", "quotation"),
            ("colour=red", "no such setting"),
            ("snapshots=", "snapshots-clear"),
            ("snapshots=x", "absolute"),
            ("sync-end-tid=x", "hexadecimal"),
            ("shared-uuid=1", "UUID"),
            ("prune-min=1x", "Nd"),
        ] {
            let error = read(line).expect_err(line).to_string();
            assert!(error.contains(hint), "{line}: {error}");
        }
    }

    #[test]
    fn times_as_the_original_takes_them() {
        for (text, seconds) in [
            ("60d", 60 * 86_400),
            ("2", 7200),
            ("00:00:05", 5),
            ("1d/1:2", 86_400 + 3720),
            ("0", 0),
        ] {
            assert_eq!(prune_min(text), Ok(seconds), "{text}");
        }
        for wrong in [
            "",
            "d",
            "-1",
            "1:2:3:4",
            "1d2",
            "1d/",
            "99999d",
            "4294967295d",
        ] {
            assert!(prune_min(wrong).is_err(), "{wrong}");
        }
    }
}
