//! PFSs and snapshots: `pfs-status`, `snapls`.

use super::args::SpecArgs;
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open};
use super::spec::Pfs::Number;
use super::spec::Spec;
use super::{Context, Exit, Outcome, escape};
use crate::error::{Class, Error, Result};
use crate::format::record::PfsData;
use crate::fs::pfs::{self, Pfs};
use crate::fs::snapshot::{Snapshot, Snapshots};
use crate::store::Fetch;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::io::Write;
use uuid::Uuid;

/// The version that brought snapshot records.
const SNAPSHOTS_SINCE: u32 = 3;

/// `pfs-status`: of all PFSs, or of the one that the SPEC names.
pub fn status(args: &SpecArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let table = match opened.spec.pfs {
        Some(Number(id)) => vec![numbered(&mut opened, id)?],
        Some(_) => vec![opened.pfs()?],
        None => pfs::all(&mut opened.view)?,
    };
    let version = opened.view.version();
    for pfs in &table {
        match cx.json() {
            true => cx.events.emit("pfs", event(pfs))?,
            false => describe(cx, &name(&args.spec, pfs.id), pfs, version)?,
        }
    }
    Ok(Exit::Done)
}

/// The PFS of this number, destroyed or not.
fn numbered(opened: &mut Opened, id: u16) -> Result<Pfs> {
    let error = match opened.pfs() {
        Err(error) if error.class() == Class::Usage => error,
        found => return found,
    };
    let all = pfs::all(&mut opened.view)?;
    all.into_iter().find(|pfs| pfs.id == id).ok_or(error)
}

/// What one PFS of the SPEC is called.
pub(super) fn name(spec: &Spec, id: u16) -> String {
    let mut one = spec.clone();
    if let Spec::Local(local) = &mut one {
        local.pfs = Some(super::spec::Pfs::Number(id));
    }
    one.to_string()
}

/// A PFS as scripts see it.
pub(super) fn event(pfs: &Pfs) -> Value {
    let data = &pfs.data;
    let mut fields = Fields::new();
    fields.insert("id".into(), pfs.id.into());
    put_name(&mut fields, "label", data.label());
    let more = json!({
        "kind": if pfs.is_slave() { "slave" } else { "master" },
        "deleted": pfs.is_deleted(),
        "shared_uuid": Uuid::from_bytes_le(data.shared_uuid).to_string(),
        "unique_uuid": Uuid::from_bytes_le(data.unique_uuid).to_string(),
        "sync_beg_tid": hex(data.sync_beg_tid.get()),
        "sync_end_tid": hex(pfs.sync_end.0),
        "prune_min": data.prune_min.get(),
    });
    let Value::Object(mut event) = super::show::with(Value::Object(fields), more) else {
        return Value::Null;
    };
    put_name(&mut event, "snapshots", data.snapshots());
    Value::Object(event)
}

/// A PFS as the original prints it.
pub(super) fn describe(cx: &Context, name: &str, pfs: &Pfs, version: u32) -> anyhow::Result<()> {
    let mut out = cx.out();
    if pfs.is_deleted() {
        writeln!(out, "{name}\tPFS#{} is destroyed", pfs.id)?;
        return Ok(());
    }
    writeln!(out, "{name}\tPFS#{} {{", pfs.id)?;
    for line in lines(pfs) {
        writeln!(out, "    {line}")?;
    }
    if pfs.data.snapshots().is_empty() {
        let place = match (version < SNAPSHOTS_SINCE, pfs.is_slave()) {
            (true, true) => "not set for slave",
            (true, false) => "for master defaults to <pfs>/snapshots",
            (false, _) => "defaults to /var/hammer/<pfs>",
        };
        writeln!(out, "    snapshots directory {place}")?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// What a PFS's record says, a `key=value` a line, as the original prints it (mirroring.md §9.7).
fn lines(pfs: &Pfs) -> Vec<String> {
    let data = &pfs.data;
    let uuid = |bytes| Uuid::from_bytes_le(bytes);
    let mut lines = vec![
        format!("sync-beg-tid=0x{:016x}", data.sync_beg_tid.get()),
        format!("sync-end-tid=0x{:016x}", pfs.sync_end.0),
        format!("shared-uuid={}", uuid(data.shared_uuid)),
        format!("unique-uuid={}", uuid(data.unique_uuid)),
        format!("label=\"{}\"", escape::name(data.label())),
    ];
    if !data.snapshots().is_empty() {
        lines.push(format!("snapshots=\"{}\"", escape::name(data.snapshots())));
    }
    lines.push(format!("prune-min={}", prune_min(data)));
    let role = if pfs.is_slave() { "SLAVE" } else { "MASTER" };
    lines.push(format!("operating as a {role}"));
    lines
}

/// `hh:mm:ss`, `Nd/hh:mm:ss` or `Nd`.
fn prune_min(data: &PfsData) -> String {
    let seconds = data.prune_min.get();
    let days = seconds / 86_400;
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, seconds % 86_400) {
        (0, _) => format!("{h:02}:{m:02}:{s:02}"),
        (_, 0) => format!("{days}d"),
        _ => format!("{days}d/{h:02}:{m:02}:{s:02}"),
    }
}

/// `snapls`.
pub fn snapshots(args: &SpecArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let pfs = opened.pfs()?;
    let version = opened.view.version();
    if version < SNAPSHOTS_SINCE {
        return Err(Error::new(
            Class::Incompatible,
            format!("the file system is of version {version}; snapshots are kept on the volume since version {SNAPSHOTS_SINCE}"),
        )
        .into());
    }
    if !cx.json() {
        let mut out = cx.out();
        writeln!(out, "Snapshots on {}\tPFS#{}", args.spec, pfs.id)?;
        writeln!(out, "Transaction ID\t\tTimestamp\t\tNote")?;
    }
    let mut snapshots = Snapshots::new(pfs.id);
    while let Some(snapshot) = snapshots.next(&mut opened.view)? {
        if cx.json() {
            let mut fields = Fields::new();
            fields.insert("tid".into(), hex(snapshot.tid.0));
            fields.insert("time_us".into(), snapshot.time_us.into());
            put_name(&mut fields, "label", &snapshot.label);
            cx.events.emit("snapshot", Value::Object(fields))?;
            continue;
        }
        writeln!(cx.out(), "{}", line(&snapshot, &TimeZone::system()))?;
    }
    Ok(Exit::Done)
}

/// A snapshot's TID, local time and label (operations.md §5.2).
fn line(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let seconds = i64::try_from(snapshot.time_us / 1_000_000).ok();
    let time = seconds.and_then(|s| Timestamp::from_second(s).ok());
    let time = time.map_or_else(
        || "-".to_owned(),
        |time| {
            let time = time.to_zoned_datetime(zone.clone());
            time.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
        },
    );
    let label = match &*snapshot.label {
        [] => "-".to_owned(),
        label => escape::name(label).to_string(),
    };
    format!("{}\t{time}\t{label}", snapshot.tid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Tid;
    use zerocopy::little_endian::U32;

    #[test]
    fn prune_min_as_the_original() {
        let mut data = PfsData::default_for([0; 16]);
        for (seconds, text) in [
            (0, "00:00:00"),
            (86_399, "23:59:59"),
            (86_400, "1d"),
            (90_061, "1d/01:01:01"),
            (60 * 86_400, "60d"),
        ] {
            data.prune_min = U32::new(seconds);
            assert_eq!(prune_min(&data), text);
        }
    }

    #[test]
    fn a_snapshot_on_a_line() {
        let mut snapshot = Snapshot {
            tid: Tid(0x1_0000_3e80),
            time_us: 1_593_604_800_999_999,
            label: Box::default(),
        };
        let text = "0x0000000100003e80\t2020-07-01 12:00:00 UTC\t-";
        assert_eq!(line(&snapshot, &TimeZone::UTC), text);
        snapshot.label = (*b"a\x1bb").into();
        assert!(line(&snapshot, &TimeZone::UTC).ends_with("\ta\\x1bb"));
    }
}
