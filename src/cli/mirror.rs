//! Mirroring streams: `mirror-read`, `mirror-plan`, `mirror-dump`.

use super::args::{DumpWhat, MirrorDumpArgs, MirrorPlanArgs, MirrorReadArgs};
use super::input::Input;
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open};
use super::pfsd::Lines;
use super::{Context, Exit, Outcome, show, size};
use crate::error::{Class, Error, Result};
use crate::format::mrecord::{Body, Capabilities, PfsdBody};
use crate::format::node::Base;
use crate::format::{Key, Tid};
use crate::mirror::cycle::{Cycle, Found};
use crate::mirror::dump::{self, Dump, Text};
use crate::mirror::read::{TwoWay, converse};
use crate::mirror::wire::{Records, Sink, broken};
use crate::mirror::{
    Asked, Clock, Counts, Damage, Edge, Event, Report, Request, SourcePfs, Window, plan, run,
    split, window,
};
use crate::progress::{Progress, Status};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The time of this machine; once the command is to end, nobody sleeps any more, and the time that
/// was to be slept has passed all the same: the bandwidth ceiling does not hold up the last record.
pub(super) struct Wall<'a> {
    start: Instant,
    skipped: Duration,
    cx: &'a Context,
}

impl Wall<'_> {
    pub fn new(cx: &Context) -> Wall<'_> {
        Wall {
            start: Instant::now(),
            skipped: Duration::ZERO,
            cx,
        }
    }

    fn is_ending(&self) -> bool {
        let late = |end: Instant| end <= Instant::now();
        self.cx.stop().load(Ordering::Relaxed) || self.cx.deadline().is_some_and(late)
    }
}

impl Clock for Wall<'_> {
    fn now(&mut self) -> Duration {
        self.start.elapsed() + self.skipped
    }

    fn sleep(&mut self, time: Duration) {
        const SLICE: Duration = Duration::from_millis(50);
        let end = self.now() + time;
        while !self.is_ending() {
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
        let left = end.saturating_sub(self.now());
        self.skipped += left;
    }
}

/// `mirror-read`.
pub fn read(args: &MirrorReadArgs, cx: &Context) -> Outcome {
    if cx.global.two_way {
        return two_way(args, cx);
    }
    // Before anything is opened: a terminal is no place for a stream.
    let out = cx.raw(true)?;
    let mut opened = open(cx, &args.spec)?;
    let cycle = match &cx.global.cycle {
        Some(path) => read_cycle(cx, path)?,
        None => None,
    };
    let request = request(cx, &mut opened, args.begin, args.end_tid, cycle)?;
    if let Some(resume) = request.window.resume {
        let object = resume.key.obj_id;
        cx.ui.note(
            0,
            format_args!("Mirror-read: Resuming at object {object:016x}"),
        );
    }
    let mut sink = Sink::new(out, cx.global.bandwidth.filter(|rate| *rate > 0));
    let mut teller = Teller::new(cx);
    let report = {
        let mut meter = cx.meter("mirror-read", "records");
        let mut edge = Edge {
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| teller.tell(event),
        };
        let sent = run(&mut opened.view, &request, &mut sink, &mut edge);
        sent.map_err(|error| match error.class() {
            // Nothing but the stream takes space.
            Class::NoSpace => error.context("standard output"),
            _ => error,
        })?
    };
    conclude(cx, &request, &report, &args.spec.to_string())
}

/// `mirror-read -2`: the target on standard input says where to begin.
fn two_way(args: &MirrorReadArgs, cx: &Context) -> Outcome {
    if args.begin.is_some() || args.end_tid.is_some() {
        let text = "two-way (-2) the target says where to begin: leave the TIDs out";
        return Err(Error::usage(text).into());
    }
    let out = cx.raw(true)?;
    if io::stdin().is_terminal() {
        let text = "standard input is a terminal; two-way (-2) a target is at its other end";
        return Err(Error::usage(text).into());
    }
    let mut opened = open(cx, &args.spec)?;
    let name = args.spec.to_string();
    give(cx, &mut opened, out, Input::new(cx, io::stdin()), &name)
}

/// Gives the PFS that was named to a target, two-way.
pub(super) fn give(
    cx: &Context,
    opened: &mut Opened,
    out: impl Write,
    answers: impl Read,
    name: &str,
) -> Outcome {
    let committed = opened.pfs()?.sync_end;
    let mut request = request(cx, opened, None, None, None)?;
    let mut sink = Sink::new(out, cx.global.bandwidth.filter(|rate| *rate > 0));
    let (mut teller, mut report) = (Teller::new(cx), Report::default());
    let ended = {
        let mut meter = cx.meter("mirror-read", "records");
        let mut edge = Edge {
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| teller.tell(event),
        };
        let mut answers = Records::new(answers);
        let how = TwoWay {
            committed,
            announces: Capabilities::ALL,
        };
        converse(
            &mut opened.view,
            &request,
            how,
            &mut sink,
            &mut answers,
            &mut edge,
            &mut report,
        )
    };
    let (had, acknowledged) = report.target;
    request.window.begin = had.map_or(request.window.begin, Tid::next);
    cx.events.summary(json!({
        "target_had": had.map(|tid| hex(tid.0)),
        "acknowledged": acknowledged.map(|tid| hex(tid.0)),
    }));
    if let Err(error) = ended {
        cx.goes_on()?;
        return Err(error.into());
    }
    conclude(cx, &request, &report, name)
}

/// `mirror-plan`.
pub fn planned(args: &MirrorPlanArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let request = request(cx, &mut opened, args.from, args.end_tid, None)?;
    let report = {
        let mut meter = cx.meter("mirror-plan", "records");
        let mut edge = Edge {
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| {
                if let Event::Damage(damage) = event {
                    // The summary notices if nobody reads events any more.
                    let _ = cx.events.emit("damage", damage_event(damage));
                }
            },
        };
        plan(&mut opened.view, &request, &mut edge)?
    };
    let fields = counts(&request.window, &report);
    if !cx.json() && report.stopped.is_none() {
        print_plan(cx, &request, &report)?;
    }
    cx.events.emit("plan", fields.clone())?;
    cx.events.summary(fields);
    damage(cx, &report, "a stream would hold everything else");
    match report.stopped {
        Some(stop) => Err(stop.why.into()),
        None if report.damage.is_empty() => Ok(Exit::Done),
        None => Ok(Exit::Damage),
    }
}

/// What the arguments and options ask for.
fn request(
    cx: &Context,
    opened: &mut Opened,
    begin: Option<Tid>,
    end: Option<Tid>,
    cycle: Option<Cycle>,
) -> Result<Request> {
    let pfs = opened.pfs()?;
    let mut source = SourcePfs::from(&pfs);
    let cycle = cycle.map(|cycle| resume(cx, &cycle, source.id));
    let asked = Asked { begin, end };
    if cx.global.live && !pfs.is_slave() {
        let from = window::one_way(&source, Asked { begin, end: None }, cycle)?.begin;
        let mut meter = cx.meter("newest TID", "leaves");
        source.end = window::newest(&mut opened.view, source.id, from, &mut meter)?;
    }
    let split = match cx.global.no_split {
        true => None,
        false => Some(cx.global.split.unwrap_or(split::DEFAULT)),
    };
    Ok(Request {
        pfs: source,
        window: window::one_way(&source, asked, cycle)?,
        split,
        accept_damage: cx.global.accept_damage,
    })
}

/// Where the cycle file says to go on.
fn resume(cx: &Context, cycle: &Cycle, pfs: u16) -> (Tid, Option<window::Resume>) {
    let (begin, resume) = cycle.resume(pfs);
    if let (Some(_), None) = (cycle.stopped_at(pfs), resume) {
        let text = "the cycle file does not say where its stream would have ended, as those of \
                    hammer do not";
        let text = format!("{text}; everything from {begin} on is sent again");
        cx.ui.note(0, text);
    }
    (begin, resume)
}

/// What the cycle file says. As in the original, it counts with `-B` only.
fn read_cycle(cx: &Context, path: &Path) -> Result<Option<Cycle>> {
    let name = path.display();
    if !cx.global.no_split {
        if path.exists() {
            let text = format!("cycle file {name} is not read without -B; from the beginning");
            cx.ui.note(0, text);
        }
        return Ok(None);
    }
    match Cycle::load(path)? {
        Found::Nothing => Ok(None),
        Found::OldVersion => {
            cx.ui
                .note(0, format_args!("cycle-file {name}: clearing old version"));
            Ok(None)
        }
        Found::Cycle(cycle) => Ok(Some(cycle)),
    }
}

/// Says how the stream went, writes the cycle file, and finds the exit status.
fn conclude(cx: &Context, request: &Request, report: &Report, name: &str) -> Outcome {
    cx.events.summary(counts(&request.window, report));
    let sent = match request.accept_damage {
        true => "everything else was sent",
        false => {
            "everything else was sent, for the target to keep and not to acknowledge \
             (--accept-damage: to acknowledge)"
        }
    };
    damage(cx, report, sent);
    // Two-way, the slave itself says where to go on.
    if let Some(path) = cx
        .global
        .cycle
        .as_ref()
        .filter(|_| report.target.0.is_none())
    {
        write_cycle(cx, path, request, report)?;
    }
    let Some(stop) = &report.stopped else {
        if report.damage.is_empty() {
            cx.ui.note(0, format_args!("Mirror-read {name} succeeded"));
            return Ok(Exit::Done);
        }
        return Ok(Exit::Damage);
    };
    let how = match (stop.why.class(), cx.stop().load(Ordering::Relaxed)) {
        (Class::Expired, _) => "overtaken by a writer",
        (_, true) => "interrupted",
        (_, false) => "interrupted by timer",
    };
    let object = stop.at.key.obj_id;
    cx.ui
        .note(0, format_args!("Mirror-read {name} {how} at {object:016x}"));
    cx.events.summary(json!({"stopped_at": key(&stop.at.key)}));
    match report.damage.is_empty() {
        true => Ok(Exit::Interrupted),
        false => Ok(Exit::Damage),
    }
}

fn write_cycle(cx: &Context, path: &Path, request: &Request, report: &Report) -> Result<()> {
    let name = path.display();
    match &report.stopped {
        Some(stop) => {
            Cycle::stopped(&stop.resume.window, stop.resume.key).store(path)?;
            let text = format!("Cyclefile {name} updated for continuation");
            cx.ui.note(0, text);
        }
        None => {
            Cycle::finished(&request.window).store(path)?;
            cx.ui.warn(
                "cycle file (-c option) cannot be fully updated unless you use mirror-copy: it \
                 says to begin with the same TID again",
            );
        }
    }
    Ok(())
}

/// Lists what could not be read, and says what came of the rest.
fn damage(cx: &Context, report: &Report, rest: &str) {
    let damage = &report.damage;
    if damage.is_empty() {
        return;
    }
    for one in &damage.first {
        cx.ui.warn(one);
    }
    let left = damage.count - damage.first.len() as u64;
    let more = match left {
        0 => String::new(),
        left => format!(" ({left} of them not listed)"),
    };
    let count = size::counted(damage.count, "record or node", "records or nodes");
    cx.ui.warn(format_args!(
        "{count} of the source could not be read{more}; {rest}"
    ));
}

/// Tells people and scripts what happens, in the words of mirroring.md §9.5.
struct Teller<'a> {
    cx: &'a Context,
    /// Chunks' worth of bytes that the prescan has seen.
    dots: usize,
    window: Option<Window>,
    /// When it was last said how far the batch is.
    said: Option<Instant>,
}

/// Between two words on how far a batch is. (The original rewrites one line after every 512 KiB.)
const SCANNED: Duration = Duration::from_secs(1);

impl<'a> Teller<'a> {
    fn new(cx: &'a Context) -> Teller<'a> {
        Teller {
            cx,
            dots: 0,
            window: None,
            said: None,
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        self.words(event);
        let (name, fields) = match event {
            Event::Prescan(split) => ("prescan", json!({"split": split})),
            Event::Prescanned { chunks, total } => (
                "prescanned",
                json!({"chunks": chunks.len(), "bytes": total}),
            ),
            Event::Batch { window, estimate } => ("batch", batch(window, *estimate)),
            Event::Damage(damage) => ("damage", damage_event(damage)),
            Event::Acknowledged(tid) => ("acknowledged", json!({"tid": hex(tid.0)})),
            Event::PrescanChunk | Event::NoWork | Event::Scanned { .. } | Event::Agreed(_) => {
                return;
            }
        };
        // The summary notices if nobody reads events any more.
        let _ = self.cx.events.emit(name, fields);
    }

    fn words(&mut self, event: &Event<'_>) {
        let ui = &self.cx.ui;
        match event {
            Event::Prescan(split) if ui.level() > 1 => {
                let chunks = split / (1 << 20);
                let text = format!("Prescan to break up bulk transfer ({chunks}MB chunks)");
                ui.note(0, text);
            }
            Event::Prescan(_) => ui.note(0, "Prescan to break up bulk transfer"),
            Event::PrescanChunk => self.dots += 1,
            Event::Prescanned { chunks, total } => {
                ui.note(2, ".".repeat(self.dots.min(1000)));
                let mut sizes: Vec<String> =
                    chunks.iter().take(3).map(|c| c.bytes.to_string()).collect();
                if chunks.len() > 3 {
                    sizes.push("...".into());
                }
                let (count, total, sizes) = (chunks.len(), total >> 20, sizes.join(", "));
                let text = format!("Prescan {count} chunks, total {total} MBytes ({sizes})");
                ui.note(0, text);
            }
            Event::Batch { window, estimate } => {
                self.window = Some(*window);
                let bulk = match estimate {
                    Some(bytes) => format!(" (bulk= {bytes})"),
                    None => String::new(),
                };
                let (begin, end) = (window.begin.0, window.end.0);
                let text = format!("Mirror-read: Mirror {begin:016x} to {end:016x}{bulk}");
                ui.note(self.batch_level(), text);
            }
            Event::NoWork => ui.note(self.batch_level(), "Mirror-read: No work to do"),
            Event::Scanned {
                object,
                bytes,
                whole,
            } => {
                let early = self.said.is_some_and(|said| said.elapsed() < SCANNED);
                if let Some(window) = self.window.filter(|_| *whole || !early) {
                    self.said = Some(Instant::now());
                    let (begin, end) = (window.begin.0, window.end.0);
                    let text =
                        format!("scan obj={object:016x} tids={begin:016x}:{end:016x} {bytes:11}");
                    ui.note(1, text);
                }
            }
            Event::Acknowledged(tid) => {
                let text = format!("Mirror-read: the target has everything to {:016x}", tid.0);
                ui.note(1, text);
            }
            // Damage is listed at the end.
            Event::Damage(_) | Event::Agreed(_) => {}
        }
    }

    /// A plain stream says what it is about; a split one only to those who ask.
    fn batch_level(&self) -> i32 {
        if self.cx.global.no_split { 0 } else { 2 }
    }
}

fn batch(window: &Window, estimate: Option<u64>) -> Value {
    json!({
        "begin": hex(window.begin.0),
        "end": hex(window.end.0),
        "estimated_bytes": estimate,
    })
}

fn counts(window: &Window, report: &Report) -> Value {
    let Counts {
        records,
        rec,
        pass,
        skip,
        deletes,
        payload_bytes,
        stream_bytes,
    } = report.counts;
    json!({
        "records": records,
        "rec": rec,
        "pass": pass,
        "skip": skip,
        "deletes": deletes,
        "payload_bytes": payload_bytes,
        "stream_bytes": stream_bytes,
        "window": {"begin": hex(window.begin.0), "end": hex(window.end.0)},
        "chunks": report.batches,
        "damaged": report.damage.count,
    })
}

fn print_plan(cx: &Context, request: &Request, report: &Report) -> std::io::Result<()> {
    let mut out = cx.out();
    let (window, counts) = (&request.window, &report.counts);
    writeln!(out, "window    {} to {}", window.begin, window.end)?;
    for (name, count) in [
        ("chunks", report.batches),
        ("records", counts.records),
        ("REC", counts.rec),
        ("PASS", counts.pass),
        ("SKIP", counts.skip),
        ("deletes", counts.deletes),
        ("payload", counts.payload_bytes),
        ("stream", counts.stream_bytes),
    ] {
        let unit = match name {
            "payload" | "stream" => " bytes",
            _ => "",
        };
        writeln!(out, "{name:<9} {count}{unit}")?;
    }
    Ok(())
}

fn key(key: &Key) -> Value {
    json!({
        "lo": format!("0x{:08x}", key.localization.0),
        "obj": hex(key.obj_id.cast_unsigned()),
        "rt": key.rec_type,
        "key": hex(key.key.cast_unsigned()),
        "create_tid": hex(key.create_tid.0),
    })
}

pub(super) fn damage_event(damage: &Damage) -> Value {
    let bytes = damage.bytes.as_ref();
    json!({
        "what": damage.what.name(),
        "at": hex(damage.at.0),
        "from": key(&damage.from),
        "to": key(&damage.to),
        "file_begin": bytes.map(|b| b.start),
        "file_end": bytes.map(|b| b.end),
        "detail": damage.to_string(),
    })
}

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
