//! `mirror-copy` between volumes of this machine, and what it would do.

use super::args::{MirrorCopyArgs, MirrorPlanArgs, When};
use super::ends::{Layout, Manner, number, opened};
use super::json::hex;
use super::mirror::{Wall, damage_event};
use super::open::{Opened, now_us, open_with, view_options};
use super::spec::Spec;
use super::{Context, Exit, Outcome, pfs as names, remote, size};
use crate::error::{Class, Error, Result};
use crate::format::{BIGBLOCK, Tid};
use crate::mirror::copy::{self, Event, Origin, Place, Report, Request};
use crate::mirror::ready::{self, Identity};
use crate::mirror::{Batch, Need, Shadow, SourcePfs, Window, is_idle, plan_against, plan_for};
use crate::progress::Progress;
use crate::store::{Fetch, Store, ViewOptions};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// `mirror-copy`.
pub fn copy(args: &MirrorCopyArgs, cx: &Context) -> Outcome {
    match cx.global.dry_run {
        true => planned(&args.source, &args.targets, cx),
        false => remote::everywhere(args, |here| copied(&args.source, here, cx), cx),
    }
}

/// `mirror-plan SRC DST`.
pub fn plan(args: &MirrorPlanArgs, target: &Spec, cx: &Context) -> Outcome {
    if args.from.is_some() || args.end_tid.is_some() {
        let text = "with a target, the target says where to begin, and the source where to end: \
                    leave --from and --end-tid out";
        return Err(Error::usage(text).into());
    }
    planned(&args.spec, std::slice::from_ref(target), cx)
}

fn copied(source: &Spec, targets: &[Spec], cx: &Context) -> Outcome {
    let layout = Layout::of(source, targets)?;
    let how = Manner {
        live: false,
        streams: true,
        make: cx.global.yes,
    };
    let (mut opening, mut request, places) = opened(&layout, source, targets, how, cx)?;
    let mut stores: Vec<Store> = Vec::new();
    let mut locks = Vec::new();
    for target in opening.targets.drain(..) {
        stores.push(target.store);
        locks.push(target.locks);
    }
    let mut origin = match (&mut opening.source, layout.source) {
        (Some(source), _) => Origin::Apart(&mut source.view),
        (None, at) => Origin::Inside(at.unwrap_or(0)),
    };
    request.bytes_total = total(cx, &mut origin, &mut stores, &places, &request)?;
    let mut meter = cx.meter("mirror-copy", "records");
    let teller = Teller { cx, targets };
    let start = std::time::Instant::now();
    let began = now_us(cx);
    let mut edge = copy::Edge {
        now: &mut || began.saturating_add(u64::try_from(start.elapsed().as_micros()).unwrap_or(0)),
        clock: &mut Wall::new(cx),
        progress: &mut meter,
        events: &mut |event| teller.tell(event),
    };
    let report = copy::copy(&mut origin, &mut stores, &places, &request, &mut edge)?;
    drop(meter);
    conclude(cx, targets, &stores, report)
}

/// The bytes of data that all targets together lack: for a bar, so only where there is one. It costs
/// a scan without data.
fn total(
    cx: &Context,
    origin: &mut Origin<'_>,
    stores: &mut [Store],
    places: &[Place],
    request: &Request,
) -> Result<Option<u64>> {
    let watched = std::io::stderr().is_terminal() && cx.global.progress != When::Never;
    if !watched || cx.ui.level() < 0 {
        return Ok(None);
    }
    let mut meter = cx.meter("scan", "records");
    let (from, identity) = (&request.source, &request.identity);
    let mut windows = Vec::new();
    for place in places {
        let view = stores[place.store].view();
        windows.push(ready::lacks(view, place.pfs, from, identity, &mut meter)?.0);
    }
    let end = windows.iter().map(|window| window.end).max();
    for window in &mut windows {
        window.end = end.unwrap_or(from.end);
    }
    let view = match origin {
        Origin::Apart(view) => view,
        Origin::Inside(store) => stores[*store].view(),
    };
    let needs = plan_for(view, from.id, &windows, &mut meter)?;
    Ok(Some(
        needs.iter().map(|need| need.counts.payload_bytes).sum(),
    ))
}

/// Says how it went, and finds the exit status: the highest of those of the targets.
fn conclude(cx: &Context, targets: &[Spec], stores: &[Store], report: Report) -> Outcome {
    let list: Vec<Value> = targets
        .iter()
        .zip(&report.targets)
        .map(|(spec, target)| outcome(spec, target))
        .collect();
    let flushes: u64 = stores.iter().map(|store| store.written().flushes).sum();
    let flush_ns: u64 = stores.iter().map(|store| store.written().flush_ns).sum();
    cx.events.summary(json!({
        "targets": list,
        "passes": report.passes,
        "items": report.items,
        "read_bytes": report.read_bytes,
        "flushes": flushes,
        "flush_seconds": flush_ns as f64 / 1e9,
    }));
    let damaged = damage(cx, &report);
    let mut worst: Option<Error> = report.stopped;
    for (spec, target) in targets.iter().zip(report.targets) {
        let Some(error) = target.error else { continue };
        let error = error.context(spec);
        let code = |error: &Error| error.class().exit_code();
        let worse = worst
            .as_ref()
            .is_none_or(|worst| code(&error) > code(worst));
        let left = match worse {
            true => worst.replace(error),
            false => Some(error),
        };
        if let Some(left) = left {
            cx.ui.warn(left);
        }
    }
    match worst {
        Some(error) if error.class() == Class::Interrupted => {
            cx.ui
                .note(0, "interrupted; the same command goes on from there");
            Err(error.into())
        }
        Some(error) => Err(error.into()),
        None if damaged > 0 => Ok(Exit::Damage),
        None => Ok(Exit::Done),
    }
}

/// Lists what could not be read, and says what came of the rest. Gives the count.
pub(super) fn damage(cx: &Context, report: &Report) -> u64 {
    let damaged = report
        .targets
        .iter()
        .map(|t| t.damage.count)
        .max()
        .unwrap_or(0);
    if let Some(worst) = report.targets.iter().max_by_key(|t| t.damage.count) {
        for one in &worst.damage.first {
            cx.ui.warn(one);
        }
    }
    if damaged > 0 {
        let count = size::counted(damaged, "record or node", "records or nodes");
        let rest = match cx.global.accept_damage {
            true => "everything else was copied and acknowledged",
            false => {
                "everything else was copied, and nothing acknowledged (--accept-damage: to \
                 acknowledge)"
            }
        };
        cx.ui.warn(format_args!(
            "{count} of the source could not be read; {rest}"
        ));
    }
    damaged
}

fn outcome(spec: &Spec, target: &copy::Outcome) -> Value {
    let applied = &target.applied;
    json!({
        "target": spec.to_string(),
        "from": hex(target.tids.0.0),
        "sync_end_tid": hex(target.tids.1.0),
        "passes": target.passes,
        "resumed": target.resumed,
        "created": applied.created,
        "bytes": applied.bytes,
        "deleted": applied.deleted,
        "gap_deleted": applied.gap_deleted,
        "existing": applied.existing,
        "damaged": target.damage.count,
        "error": target.error.as_ref().map(ToString::to_string),
    })
}

/// Tells people and scripts what happens.
pub(super) struct Teller<'a> {
    pub cx: &'a Context,
    pub targets: &'a [Spec],
}

impl Teller<'_> {
    pub fn tell(&self, event: &Event<'_>) {
        let ui = &self.cx.ui;
        let name = |at: &usize| self.targets[*at].to_string();
        let (kind, fields) = match event {
            Event::TakenBack(at, done) => {
                let (destroyed, undeleted) = (done.destroyed, done.undeleted);
                let count = size::counted(destroyed + undeleted, "change", "changes");
                ui.note(
                    0,
                    format_args!(
                        "{}: {count} of a pass that cannot be continued taken back",
                        name(at)
                    ),
                );
                let fields =
                    json!({"target": name(at), "destroyed": destroyed, "undeleted": undeleted});
                ("taken_back", fields)
            }
            Event::Resumed(at, key) => {
                let object = key.obj_id;
                ui.note(
                    0,
                    format_args!("{}: resuming at object {object:016x}", name(at)),
                );
                (
                    "resumed",
                    json!({"target": name(at), "obj": hex(object.cast_unsigned())}),
                )
            }
            Event::Pass(at, window) => {
                let Window { begin, end, .. } = window;
                ui.note(1, format_args!("{}: from {begin} to {end}", name(at)));
                let fields = json!({"target": name(at), "begin": hex(begin.0), "end": hex(end.0)});
                ("pass", fields)
            }
            Event::Standing(at, tid) => {
                ui.note(0, format_args!("{}: nothing to do, as of {tid}", name(at)));
                (
                    "standing",
                    json!({"target": name(at), "sync_end_tid": hex(tid.0)}),
                )
            }
            Event::Acknowledged(at, tid, applied) => {
                let (records, bytes) = (applied.created, size::human(applied.bytes));
                let records = size::counted(records, "record", "records");
                ui.note(
                    0,
                    format_args!("{}: as of {tid}; {records}, {bytes}", name(at)),
                );
                (
                    "acknowledged",
                    json!({"target": name(at), "sync_end_tid": hex(tid.0), "created": applied.created, "bytes": applied.bytes}),
                )
            }
            Event::Withheld(at, _) => ("withheld", json!({"target": name(at)})),
            // Said at the end.
            Event::Failed(at, error) => (
                "failed",
                json!({"target": name(at), "error": error.to_string()}),
            ),
            Event::Damage(damage) => ("damage", damage_event(damage)),
        };
        // The summary notices if nobody reads events any more.
        let _ = self.cx.events.emit(kind, fields);
    }
}

/// What a plan says of one target.
struct Planned {
    spec: Spec,
    window: Window,
    need: Need,
    free: u64,
    taken_back: bool,
    made: bool,
    /// The slave's number, and what it has.
    slave: (u16, Tid),
    /// Whether it has everything.
    idle: bool,
}

pub(super) fn planned(source: &Spec, targets: &[Spec], cx: &Context) -> Outcome {
    Layout::of(source, targets)?;
    // All of them together have the memory that the options give.
    let options = view_options(cx);
    let options = ViewOptions {
        cache_bytes: options.cache_bytes / (targets.len() + 1),
        ..options
    };
    let mut opened = open_with(cx, source, &options)?;
    let found = opened.pfs()?;
    let (from, identity) = (SourcePfs::from(&found), Identity::of(&found));
    let (mut plans, mut slaves) = (Vec::new(), Vec::new());
    {
        let mut meter = cx.meter("mirror-copy -n", "records");
        for spec in targets {
            let mut target = open_with(cx, spec, &options)?;
            plans.push(lacks(cx, spec, &mut target, &from, &identity, &mut meter)?);
            slaves.push(target);
        }
        let end = plans.iter().map(|plan| plan.window.end).max();
        for plan in &mut plans {
            plan.window.end = end.unwrap_or(from.end);
            plan.idle = is_idle(&mut opened.view, from.id, &plan.window)?;
        }
        let mut at_work: Vec<(&mut Planned, &mut Opened)> = plans
            .iter_mut()
            .zip(&mut slaves)
            .filter(|(plan, _)| !plan.idle)
            .collect();
        let windows: Vec<Window> = at_work.iter().map(|(plan, _)| plan.window).collect();
        let mut shadows: Vec<Option<Shadow<'_>>> = at_work
            .iter_mut()
            .map(|(plan, slave)| shadow(plan, slave))
            .collect();
        let needs = plan_against(
            &mut opened.view,
            from.id,
            &windows,
            &mut shadows,
            &mut meter,
        )?;
        drop(shadows);
        for ((plan, _), need) in at_work.into_iter().zip(needs) {
            plan.need = need;
        }
    }
    let mut short = None;
    for plan in &plans {
        show(cx, plan)?;
        if plan.need.space > plan.free {
            short = Some(plan);
        }
    }
    cx.events.summary(json!({"dry_run": true}));
    if let Some(plan) = short {
        let (space, free) = (size::human(plan.need.space), size::human(plan.free));
        let text = format!(
            "{}: about {space} are needed, and {free} are free",
            plan.spec
        );
        return Err(Error::new(Class::NoSpace, text).into());
    }
    Ok(Exit::Done)
}

/// What the slave has that the source may not mention; none if it is yet to be made.
fn shadow<'v>(plan: &Planned, slave: &'v mut Opened) -> Option<Shadow<'v>> {
    let batch = Batch {
        pfs: plan.slave.0,
        begin: plan.window.begin,
        end: plan.window.end,
        synced: plan.slave.1,
    };
    (!plan.made).then(|| Shadow::new(&mut slave.view, batch, plan.taken_back))
}

fn lacks(
    cx: &Context,
    spec: &Spec,
    target: &mut Opened,
    source: &SourcePfs,
    identity: &Identity,
    progress: &mut dyn Progress,
) -> Result<Planned> {
    let free = target.view.header().stat_freebigblocks.get();
    let free = u64::try_from(free).unwrap_or(0).saturating_mul(BIGBLOCK);
    let (id, slave) = number(&mut target.view, spec)?;
    // A new slave has nothing, as of the first TID.
    let synced = slave
        .as_ref()
        .map_or(Tid(1), |slave| slave.data.sync_end_tid());
    let (window, clean) = match &slave {
        Some(_) => ready::lacks(&mut target.view, id, source, identity, progress)
            .map_err(|error| error.context(spec))?,
        None if cx.global.yes => {
            let begin = Tid(source.data.sync_beg_tid.get().max(2));
            let end = source.end;
            let window = Window {
                begin,
                end,
                resume: None,
            };
            (window, true)
        }
        None => {
            let name = names::name(spec, id);
            let text = format!("{name} does not exist: -y makes it");
            return Err(Error::usage(text));
        }
    };
    Ok(Planned {
        spec: spec.clone(),
        window,
        need: Need::default(),
        free,
        taken_back: !clean,
        made: slave.is_none(),
        slave: (id, synced),
        idle: false,
    })
}

fn show(cx: &Context, plan: &Planned) -> anyhow::Result<()> {
    let Planned {
        spec, window, need, ..
    } = plan;
    let counts = &need.counts;
    let stops = need.brakes && !cx.global.allow_deletes;
    cx.events.emit(
        "plan",
        json!({
            "target": spec.to_string(),
            "window": {"begin": hex(window.begin.0), "end": hex(window.end.0)},
            "resumes": window.resume.is_some(),
            "takes_back": plan.taken_back,
            "makes_slave": plan.made,
            "records": counts.records,
            "rec": counts.rec,
            "pass": counts.pass,
            "skip": counts.skip,
            "deletes": counts.deletes,
            "implied_deletes": need.implied_deletes,
            "would_stop": stops,
            "idle": plan.idle,
            "sync_end_tid": hex(plan.slave.1.0),
            "payload_bytes": counts.payload_bytes,
            "stream_bytes": counts.stream_bytes,
            "space_bytes": need.space,
            "free_bytes": plan.free,
        }),
    )?;
    if cx.json() {
        return Ok(());
    }
    let mut out = cx.out();
    writeln!(out, "target    {spec}")?;
    if plan.made {
        writeln!(out, "          to be made")?;
    }
    if plan.taken_back {
        writeln!(out, "          an earlier pass is taken back first")?;
    }
    if plan.idle {
        writeln!(out, "          nothing to do, as of {}", plan.slave.1)?;
        return Ok(());
    }
    writeln!(out, "window    {} to {}", window.begin, window.end)?;
    if let Some(resume) = window.resume {
        let object = resume.key.obj_id;
        writeln!(out, "resumes   at object {object:016x}")?;
    }
    for (name, count) in [
        ("records", counts.records),
        ("REC", counts.rec),
        ("PASS", counts.pass),
        ("SKIP", counts.skip),
        ("deletes", counts.deletes),
    ] {
        writeln!(out, "{name:<9} {count}")?;
    }
    let implied = size::counted(need.implied_deletes, "delete", "deletes");
    writeln!(out, "implied   {implied}")?;
    if stops {
        writeln!(
            out,
            "          would stop: --allow-deletes (most of what the slave has would go, most likely \
             because this is another state of the master)"
        )?;
    }
    writeln!(out, "payload   {} bytes", counts.payload_bytes)?;
    writeln!(
        out,
        "space     {} bytes at most about, {} free",
        need.space, plan.free
    )?;
    Ok(())
}
