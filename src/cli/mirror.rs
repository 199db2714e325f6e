//! Mirroring streams: `mirror-read`, `mirror-read-stream`, `mirror-plan`.

use super::args::{MirrorPlanArgs, MirrorReadArgs, MirrorReadStreamArgs};
use super::input::{self, Input};
use super::json::hex;
use super::open::{Opened, open};
use super::peer::Peer;
use super::views::Views;
use super::{Context, Exit, Outcome, size};
use crate::error::{Class, Error, Result};
use crate::format::mrecord::Capabilities;
use crate::format::{Key, Tid};
use crate::mirror::cycle::{Cycle, Found};
use crate::mirror::read::{Output, converse, follow};
use crate::mirror::wire::{Records, Sink};
use crate::mirror::{
    Asked, Clock, Counts, Damage, Edge, Event, Report, Request, SourcePfs, Window, plan, run,
    split, window,
};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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
    let request = windowed(cx, &mut opened, args.begin, args.end_tid, cycle)?;
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
    let answers = answers(cx)?;
    let mut opened = open(cx, &args.spec)?;
    let peer = Peer::target(cx, io::stdin(), out)?;
    give(cx, &mut opened, &peer, answers, &args.spec.to_string())
}

/// Standard input, where a target answers.
fn answers(cx: &Context) -> Result<Input<'_, io::Stdin>> {
    if io::stdin().is_terminal() {
        let text = "standard input is a terminal; two-way (-2) a target is at its other end";
        return Err(Error::usage(text));
    }
    Ok(Input::new(cx, io::stdin()))
}

/// `mirror-read-stream`.
pub fn read_stream(args: &MirrorReadStreamArgs, cx: &Context) -> Outcome {
    if cx.global.two_way && args.begin.is_some() {
        let text = "two-way (-2) the target says where to begin: leave the TID out";
        return Err(Error::usage(text).into());
    }
    if cx.global.cycle.is_some() {
        let text = "a stream that goes on keeps no cycle file (-c): give the TID to begin with";
        return Err(Error::usage(text).into());
    }
    let out = cx.raw(true)?;
    let (name, from) = (args.spec.to_string(), (args.begin, args.interval));
    if cx.global.two_way {
        let answers = answers(cx)?;
        let peer = Peer::target(cx, io::stdin(), out)?;
        let mut listens = || peer.is_there();
        let mut views = Views::new(cx, &args.spec, from, &mut listens)?;
        return give_on(cx, &mut views, &peer, answers, (&name, None));
    }
    let heard = out
        .try_clone()
        .map_err(|e| Error::io("standard output", e))?;
    let mut listens = || input::still_there(&heard, "whoever reads the stream");
    let mut views = Views::new(cx, &args.spec, from, &mut listens)?;
    followed(cx, &mut views, out, None::<io::Empty>, None, (&name, None))
}

/// Gives what a followed source has to a target, until it is to end. Source and target have names.
pub(super) fn give_on(
    cx: &Context,
    views: &mut Views<'_>,
    peer: &Peer,
    answers: Input<'_, impl AsFd>,
    names: (&str, Option<&str>),
) -> Outcome {
    let answers = Some(peer.hears(answers));
    peer.talk(|| followed(cx, views, peer.says(), answers, Some(peer), names))
}

/// Gives what a followed source has, until it is to end: to a target, where one has `answers`.
fn followed(
    cx: &Context,
    views: &mut Views<'_>,
    out: impl Write,
    answers: Option<impl Read>,
    peer: Option<&Peer>,
    (name, target): (&str, Option<&str>),
) -> Outcome {
    let mut sink = Sink::new(out, cx.global.bandwidth.filter(|rate| *rate > 0));
    let (mut teller, mut report) = (Teller::new(cx), Report::default());
    teller.target = target;
    let ended = {
        let mut meter = cx.meter("mirror-read-stream", "records");
        let mut edge = Edge {
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| {
                if let (Event::Agreed(what), Some(peer)) = (event, peer) {
                    peer.agreed(*what);
                }
                teller.tell(event);
            },
        };
        let mut answers = answers.map(Records::new);
        follow(
            views,
            Capabilities::ALL,
            &mut sink,
            answers.as_mut(),
            &mut edge,
            &mut report,
        )
    };
    let (had, acknowledged) = report.target;
    cx.events.summary(json!({
        "batches": report.batches,
        "records": report.counts.records,
        "payload_bytes": report.counts.payload_bytes,
        "stream_bytes": Output::bytes(&sink),
        "damaged": report.damage.count,
        "target_had": had.map(|tid| hex(tid.0)),
        "acknowledged": acknowledged.map(|tid| hex(tid.0)),
    }));
    damage(cx, &report, "everything else was sent");
    let to_end = cx.goes_on();
    match ended {
        Err(error) if to_end.is_ok() => return Err(error.into()),
        _ if !report.damage.is_empty() => return Ok(Exit::Damage),
        _ => {}
    }
    // Whoever follows a source ends on request: with that it is done.
    match cx.stop().load(Ordering::Relaxed) || to_end.is_ok() {
        true => {
            cx.ui.note(0, format_args!("Mirror-read {name} ended"));
            Ok(Exit::Done)
        }
        false => Ok(Exit::Interrupted),
    }
}

/// Gives the PFS that was named to a target, two-way.
pub(super) fn give(
    cx: &Context,
    opened: &mut Opened,
    peer: &Peer,
    answers: Input<'_, impl AsFd>,
    name: &str,
) -> Outcome {
    let mut request = request(cx, opened, None, cx.global.live)?;
    let rate = cx.global.bandwidth.filter(|rate| *rate > 0);
    let mut sink = Sink::new(peer.says(), rate);
    let (mut teller, mut report) = (Teller::new(cx), Report::default());
    let ended = {
        let mut meter = cx.meter("mirror-read", "records");
        let mut edge = Edge {
            clock: &mut Wall::new(cx),
            progress: &mut meter,
            events: &mut |event| {
                if let Event::Agreed(what) = event {
                    peer.agreed(*what);
                }
                teller.tell(event);
            },
        };
        let mut answers = Records::new(peer.hears(answers));
        peer.talk(|| {
            converse(
                &mut opened.view,
                &request,
                Capabilities::ALL,
                &mut sink,
                &mut answers,
                &mut edge,
                &mut report,
            )
        })
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
    let request = windowed(cx, &mut opened, args.from, args.end_tid, None)?;
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

/// What the options ask for: everything from `begin` on. While somebody may be writing (`live`), how
/// far that goes is looked up in the view when the target has said what it lacks.
pub(super) fn request(
    cx: &Context,
    opened: &mut Opened,
    begin: Option<Tid>,
    live: bool,
) -> Result<Request> {
    let source = SourcePfs::from(&opened.pfs()?);
    let split = match cx.global.no_split {
        true => None,
        false => Some(cx.global.split.unwrap_or(split::DEFAULT)),
    };
    Ok(Request {
        pfs: source,
        window: window::one_way(&source, Asked { begin, end: None }, None)?,
        split,
        accept_damage: cx.global.accept_damage,
        live,
    })
}

/// What the arguments and options ask for of one window.
fn windowed(
    cx: &Context,
    opened: &mut Opened,
    begin: Option<Tid>,
    end: Option<Tid>,
    cycle: Option<Cycle>,
) -> Result<Request> {
    let mut request = request(cx, opened, None, false)?;
    let source = &mut request.pfs;
    let cycle = cycle.map(|cycle| resume(cx, &cycle, source.id));
    let asked = Asked { begin, end };
    if cx.global.live {
        let from = window::one_way(source, Asked { begin, end: None }, cycle)?.begin;
        let mut meter = cx.meter("newest TID", "leaves");
        source.beside_a_writer(&mut opened.view, from, &mut meter)?;
    }
    request.window = window::one_way(source, asked, cycle)?;
    Ok(request)
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
    /// The slave at the other end, where a source is followed for it.
    target: Option<&'a str>,
    /// When the batch began, and what the stream had sent before.
    began: (Instant, u64),
    /// What the stream has sent, in bytes.
    sent: u64,
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
            target: None,
            began: (Instant::now(), 0),
            sent: 0,
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        self.words(event);
        let manager = self.cx.ui.manager();
        let (name, fields) = match event {
            Event::Prescan(split) => ("prescan", json!({"split": split})),
            Event::Prescanned { chunks, total } => (
                "prescanned",
                json!({"chunks": chunks.len(), "bytes": total}),
            ),
            Event::Batch { window, estimate } => {
                manager.ready();
                self.began = (Instant::now(), self.sent);
                ("batch", batch(window, *estimate))
            }
            Event::Damage(damage) => ("damage", damage_event(damage)),
            Event::Acknowledged(tid) => {
                let name = self.target.unwrap_or("the target");
                manager.ready();
                manager.status(format_args!("{name}: as of {tid}"));
                self.acknowledged(*tid)
            }
            Event::Scanned { bytes, .. } => {
                self.sent = *bytes;
                return;
            }
            Event::PrescanChunk | Event::NoWork | Event::Agreed(_) => return,
        };
        // The summary notices if nobody reads events any more.
        let _ = self.cx.events.emit(name, fields);
        if let Event::Acknowledged(_) = event {
            // Whoever waits for that sees it now, not when a buffer is full.
            let _ = self.cx.flush();
        }
    }

    /// The event of an acknowledgement: that of a pass, where a source is followed.
    fn acknowledged(&self, tid: Tid) -> (&'static str, Value) {
        let Some(target) = self.target else {
            return ("acknowledged", json!({"tid": hex(tid.0)}));
        };
        let window = self
            .window
            .map(|window| json!({"begin": hex(window.begin.0), "end": hex(window.end.0)}));
        let fields = json!({
            "target": target,
            "window": window,
            "sync_end_tid": hex(tid.0),
            "stream_bytes": self.sent.saturating_sub(self.began.1),
            "ack_latency": self.began.0.elapsed().as_secs_f64(),
        });
        ("pass", fields)
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

pub(super) fn key(key: &Key) -> Value {
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
