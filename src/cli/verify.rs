//! `mirror-verify` and `mirror-status`, between volumes of this machine.

use super::args::{MirrorStatusArgs, MirrorVerifyArgs};
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open_with, view_options};
use super::size::{counted, human};
use super::spec::Spec;
use super::{Context, Exit, Outcome, escape};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::fs::pfs::Pfs;
use crate::mirror::lag::{Lag, lag};
use crate::mirror::verify::{self, Depth, Difference, Edge, Report, Side};
use crate::mirror::{SourcePfs, ready};
use crate::store::{Fetch, ViewOptions};
use serde_json::{Value, json};
use std::io::Write;
use uuid::Uuid;

/// Differences that are shown, unless people want to see all.
const SHOWN: u64 = 100;

/// Opens PFSs, which have the memory for one view together.
fn open_all(cx: &Context, specs: &[&Spec]) -> Result<Vec<(Opened, Pfs)>> {
    let options = view_options(cx);
    let options = ViewOptions {
        cache_bytes: options.cache_bytes / specs.len().max(1),
        ..options
    };
    let open = |spec: &&Spec| {
        let mut opened = open_with(cx, spec, &options)?;
        let pfs = opened.pfs().map_err(|error| error.context(spec))?;
        Ok((opened, pfs))
    };
    specs.iter().map(open).collect()
}

/// `mirror-verify`.
pub fn verify(args: &MirrorVerifyArgs, cx: &Context) -> Outcome {
    let mut opened = open_all(cx, &[&args.source, &args.target])?;
    let [(source, from), (slave, to)] = &mut opened[..] else {
        return Err(Error::usage("two file systems are needed").into());
    };
    let as_of = moment(args, slave, from, to)?;
    let depth = match args.data {
        true => Depth::Data,
        false => Depth::between(source.view.version(), slave.view.version()),
    };
    let mut shown = 0;
    let mut found = |difference: &Difference| {
        shown += 1;
        show(cx, difference, shown).map_err(|error| Error::io("standard output", error))
    };
    let mut meter = cx.meter("mirror-verify", "records");
    let mut edge = Edge {
        progress: &mut meter,
        found: &mut found,
    };
    let report = verify::verify(
        &mut Side::new(&mut source.view, from.id, args.source.to_string()),
        &mut Side::new(&mut slave.view, to.id, args.target.to_string()),
        as_of,
        depth,
        &mut edge,
    )?;
    drop(meter);
    conclude(args, cx, from, &report)
}

/// As of when the two can be compared: the slave's TID, but not within an operation of the source
/// that is not complete.
fn moment(args: &MirrorVerifyArgs, slave: &mut Opened, from: &Pfs, to: &Pfs) -> Result<Tid> {
    let checked = ready::check(&mut slave.view, to.id, &SourcePfs::from(from));
    checked.map_err(|error| error.context(&args.target))?;
    let synced = to.sync_end;
    if from.is_slave() && from.sync_end < synced {
        let text = format!(
            "{} is a slave itself and has only {}, {} is as of {synced}: compare with the master, or \
             the other way round",
            args.source, from.sync_end, args.target
        );
        return Err(Error::new(Class::Incompatible, text));
    }
    Ok(from.tree(Some(synced)).asof)
}

fn show(cx: &Context, difference: &Difference, shown: u64) -> std::io::Result<()> {
    if cx.json() {
        return cx.events.emit("difference", event(difference));
    }
    match shown <= SHOWN || cx.ui.level() > 0 {
        true => writeln!(cx.out(), "{difference}"),
        false => Ok(()),
    }
}

fn event(difference: &Difference) -> Value {
    let (place, bytes) = (&difference.place, difference.bytes());
    let tid = |tid: Option<Tid>| tid.map(|tid| hex(tid.0));
    let damaged = match difference.how {
        verify::How::Damaged { source, slave } => (source, slave),
        _ => (false, false),
    };
    json!({
        "what": difference.how.name(),
        "obj": hex(place.obj_id.cast_unsigned()),
        "class": place.class,
        "rt": place.rec_type,
        "key": hex(place.key.cast_unsigned()),
        "file_begin": bytes.as_ref().map(|b| b.start),
        "file_end": bytes.as_ref().map(|b| b.end),
        "source_tid": tid(difference.source),
        "slave_tid": tid(difference.slave),
        "source_damaged": damaged.0,
        "slave_damaged": damaged.1,
        "detail": difference.to_string(),
    })
}

fn conclude(args: &MirrorVerifyArgs, cx: &Context, from: &Pfs, report: &Report) -> Outcome {
    cx.events.summary(json!({
        "as_of": hex(report.as_of.0),
        "equal": report.is_equal(),
        "records": report.source_records,
        "slave_records": report.slave_records,
        "data": report.data,
        "ranges_asked": report.asked,
        "bytes_crossed": report.crossed,
        "missing": report.missing,
        "extra": report.extra,
        "differing": report.differing,
        "damaged": report.damaged,
    }));
    let records = counted(report.source_records, "record", "records");
    let cost = format!(
        "{} asked, {} of questions and answers",
        counted(report.asked, "range", "ranges"),
        human(report.crossed)
    );
    let (slave, as_of) = (&args.target, report.as_of);
    if report.is_equal() {
        if !cx.json() {
            let how = if report.data { "data read" } else { "by CRCs" };
            let line = format!("{slave} is equal as of {as_of}: {records}, {how} ({cost})");
            writeln!(cx.out(), "{line}")?;
        }
        return Ok(Exit::Done);
    }
    if !cx.json() {
        let mut out = cx.out();
        let count = report.differences();
        if count > SHOWN && cx.ui.level() <= 0 {
            writeln!(out, "and {} more (-v shows all)", count - SHOWN)?;
        }
        let (missing, extra) = (report.missing, report.extra);
        let (differing, damaged) = (report.differing, report.damaged);
        writeln!(
            out,
            "{slave} is different as of {as_of}: of {records}, {missing} missing, {extra} only in \
             the slave, {differing} different, {damaged} damaged ({cost})"
        )?;
    }
    // A slave's later state is a later pass, which deletes nothing of this one.
    if !from.is_slave() && from.sync_end > as_of {
        cx.ui.note(
            0,
            format_args!(
                "{} goes up to {}: what it pruned, or changed without history, since {as_of} counts \
                 as different; mirror-copy first to be sure",
                args.source, from.sync_end
            ),
        );
    }
    Ok(Exit::Difference)
}

/// `mirror-status`.
pub fn status(args: &MirrorStatusArgs, cx: &Context) -> Outcome {
    let specs: Vec<&Spec> = args.specs.iter().collect();
    let mut opened = open_all(cx, &specs)?;
    let mut behind = Vec::with_capacity(opened.len());
    for at in 0..opened.len() {
        let mut meter = cx.meter("mirror-status", "leaves");
        behind.push(behind_of(&mut opened, at, &specs, &mut meter)?);
    }
    if !cx.json() {
        let mut out = cx.out();
        writeln!(out, "SPEC\tPFS\tKIND\tLABEL\tSYNC-END\tBEHIND")?;
    }
    for ((spec, (_, pfs)), behind) in specs.iter().zip(&opened).zip(behind) {
        let kind = if pfs.is_slave() { "slave" } else { "master" };
        let label = pfs.data.label();
        if cx.json() {
            let mut fields = Fields::new();
            fields.insert("spec".into(), spec.to_string().into());
            fields.insert("id".into(), pfs.id.into());
            fields.insert("kind".into(), kind.into());
            put_name(&mut fields, "label", label);
            let uuid = Uuid::from_bytes_le(pfs.data.shared_uuid).to_string();
            fields.insert("shared_uuid".into(), uuid.into());
            fields.insert("sync_end_tid".into(), hex(pfs.sync_end.0));
            fields.extend(behind.fields());
            cx.events.emit("status", Value::Object(fields))?;
            continue;
        }
        let label = match label {
            [] => "-".to_owned(),
            label => escape::name(label).to_string(),
        };
        let (id, end) = (pfs.id, pfs.sync_end);
        writeln!(
            cx.out(),
            "{spec}\t{id}\t{kind}\t{label}\t{end}\t{}",
            behind.text()
        )?;
    }
    Ok(Exit::Done)
}

/// What is known of how far a PFS is behind its master.
enum Behind {
    /// It is a master, or its master is not among those named.
    Unknown,
    By(Lag),
    /// It has more than its master.
    Ahead,
}

impl Behind {
    fn text(&self) -> String {
        match self {
            Behind::Unknown => "-".into(),
            Behind::Ahead => "ahead of its master".into(),
            Behind::By(Lag { tids: 0, .. }) => "nothing".into(),
            Behind::By(lag) => {
                let tids = counted(lag.tids, "TID", "TIDs");
                match lag.seconds {
                    Some(seconds) => format!("{tids}, {seconds} s"),
                    None => tids,
                }
            }
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        match self {
            Behind::Unknown => {}
            Behind::Ahead => {
                fields.insert("ahead".into(), true.into());
            }
            Behind::By(lag) => {
                fields.insert("lag_tids".into(), lag.tids.into());
                if let Some(seconds) = lag.seconds {
                    fields.insert("lag_seconds".into(), seconds.into());
                }
            }
        }
        fields
    }
}

fn behind_of(
    opened: &mut [(Opened, Pfs)],
    at: usize,
    specs: &[&Spec],
    meter: &mut super::ui::Meter,
) -> Result<Behind> {
    let own = opened[at].1;
    let is_master = |pfs: &Pfs| !pfs.is_slave() && pfs.data.shared_uuid == own.data.shared_uuid;
    let master = opened.iter().position(|(_, pfs)| is_master(pfs));
    let Some(master) = master.filter(|_| own.is_slave()) else {
        return Ok(Behind::Unknown);
    };
    let Ok([(slave, own), (source, of)]) = opened.get_disjoint_mut([at, master]) else {
        return Ok(Behind::Unknown);
    };
    if own.sync_end > of.sync_end {
        return Ok(Behind::Ahead);
    }
    let found = lag((&mut source.view, of), (&mut slave.view, own), meter);
    let found = found.map_err(|error| error.context(specs[at]))?;
    Ok(Behind::By(found))
}
