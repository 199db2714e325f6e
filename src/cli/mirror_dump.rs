//! `mirror-dump`: a stream as text or events.

use super::args::{DumpWhat, MirrorDumpArgs};
use super::json::{Fields, hex, put_name};
use super::mirror::key;
use super::pfsd::Lines;
use super::{Context, Exit, Outcome, show};
use crate::error::{Class, Error};
use crate::format::mrecord::{Body, PfsdBody};
use crate::format::node::Base;
use crate::mirror::dump::{self, Dump, Text};
use crate::mirror::wire::broken;
use crate::progress::{Progress, Status};
use serde_json::{Value, json};
use std::io::Write;
use uuid::Uuid;

/// `mirror-dump`.
pub fn dump(args: &MirrorDumpArgs, cx: &Context) -> Outcome {
    let mut stream = Dump::new(std::io::stdin().lock());
    if args.what == Some(DumpWhat::Header) {
        return header(cx, &mut stream);
    }
    let mut status = Status::default();
    let shown = records(cx, &mut stream, &mut status);
    let grammar = stream.grammar();
    let (synced, unsynced, stopped) = (grammar.synced, grammar.unsynced, grammar.stopped);
    cx.events.summary(json!({
        "records": status.items,
        "bytes": status.bytes,
        "synced": synced,
        "unsynced": unsynced,
        "complete": shown.is_ok() && !stopped,
    }));
    shown?;
    if stopped {
        cx.ui
            .note(0, "the stream was stopped: its last batch is not whole");
    }
    Ok(Exit::Done)
}

/// Prints the records of a stream and counts them in `status`.
fn records<R: std::io::Read>(
    cx: &Context,
    stream: &mut Dump<R>,
    status: &mut Status,
) -> anyhow::Result<()> {
    let mut out = cx.out();
    let mut meter = cx.meter("mirror-dump", "records");
    while let Some(record) = stream.next()? {
        match cx.json() {
            true => cx
                .events
                .emit(kind(&record.body), fields(record.at, &record.body))?,
            false => write!(out, "{}", Text(&record.body))?,
        }
        status.items += 1;
        status.bytes = record.at + record.bytes.len() as u64;
        meter.at(status)?;
    }
    Ok(())
}

fn header<R: std::io::Read>(cx: &Context, stream: &mut Dump<R>) -> Outcome {
    match stream.next()? {
        Some(record) => match &record.body {
            Body::Pfsd(pfsd) if cx.json() => {
                cx.events.emit("pfsd", pfsd_fields(record.at, pfsd))?;
                Ok(Exit::Done)
            }
            Body::Pfsd(pfsd) => {
                write!(cx.out(), "{}", Lines(&pfsd.pfs))?;
                Ok(Exit::Done)
            }
            body => {
                let name = dump::name(body);
                Err(broken(
                    record.at,
                    format!("it begins with {name}, it has no header"),
                )
                .into())
            }
        },
        None => Err(Error::new(Class::Protocol, "the stream is empty").into()),
    }
}

fn kind(body: &Body<'_>) -> &'static str {
    match body {
        Body::Record { .. } => "rec",
        Body::Pfsd(_) => "pfsd",
        Body::Update(_) => "update",
        Body::Sync => "sync",
        Body::Skip { .. } => "skip",
        Body::Pass(_) => "pass",
        Body::Term => "term",
        Body::Idle => "idle",
        Body::Source(_) => "source",
        Body::Cursor { .. } => "cursor",
        Body::Alive => "alive",
        Body::Unreadable { .. } => "unreadable",
    }
}

fn fields(at: u64, body: &Body<'_>) -> Value {
    match body {
        Body::Pfsd(pfsd) => pfsd_fields(at, pfsd),
        Body::Record { leaf, .. } | Body::Pass(leaf) => {
            let more = json!({
                "at": at,
                "obj_type": leaf.base.obj_type,
                "delete_tid": hex(leaf.base.delete_tid.get()),
                "create_ts": leaf.create_ts.get(),
                "delete_ts": leaf.delete_ts.get(),
                "data_len": leaf.data_len.get(),
            });
            let fields = show::with(key(&leaf.base.key()), more);
            match body {
                Body::Record { bad, .. } => show::with(fields, json!({"bad": bad})),
                _ => fields,
            }
        }
        Body::Skip { from, to } | Body::Unreadable { from, to } => {
            let bound = |base: &Base| key(&base.key());
            json!({"at": at, "from": bound(from), "to": bound(to)})
        }
        Body::Update(tid) => json!({"at": at, "tid": hex(*tid)}),
        Body::Source(leaf) => json!({"at": at, "tid": hex(leaf.0)}),
        Body::Cursor { key: base, end } => {
            json!({"at": at, "key": key(&base.key()), "end": hex(end.0)})
        }
        Body::Sync | Body::Idle | Body::Term | Body::Alive => json!({"at": at}),
    }
}

fn pfsd_fields(at: u64, pfsd: &PfsdBody) -> Value {
    let pfs = &pfsd.pfs;
    let mut fields = Fields::new();
    put_name(&mut fields, "label", pfs.label());
    let more = json!({
        "at": at,
        "kind": if pfs.is_slave() { "slave" } else { "master" },
        "shared_uuid": Uuid::from_bytes_le(pfs.shared_uuid).to_string(),
        "unique_uuid": Uuid::from_bytes_le(pfs.unique_uuid).to_string(),
        "sync_beg_tid": hex(pfs.sync_beg_tid.get()),
        "sync_end_tid": hex(pfs.sync_end_tid.get()),
        "prune_min": pfs.prune_min.get(),
    });
    put_name(&mut fields, "snapshots", pfs.snapshots());
    show::with(Value::Object(fields), more)
}
