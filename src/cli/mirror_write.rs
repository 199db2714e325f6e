//! `mirror-write`: a stream on standard input applied to a slave.

use super::args::MirrorWriteArgs;
use super::input::Input;
use super::json::hex;
use super::open::now_us;
use super::peer::Peer;
use super::slave::Slave;
use super::{Context, Exit, Outcome, mirror, show, size};
use crate::error::{Error, Result};
use crate::format::mrecord::Capabilities;
use crate::format::record::PfsData;
use crate::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use crate::mirror::copy::Group;
use crate::mirror::write::{Edge, Event, Report, Request, write};
use crate::mirror::{Applied, Terms};
use crate::store::Store;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use uuid::Uuid;

/// `mirror-write`.
pub fn run(args: &MirrorWriteArgs, cx: &Context) -> Outcome {
    if io::stdin().is_terminal() {
        let text = "standard input is a terminal; give it a stream from a file or a pipe";
        return Err(Error::usage(text).into());
    }
    if cx.global.dry_run {
        let text = "mirror-write cannot say what a stream would do without applying it; mirror-dump \
                    shows what is in it";
        return Err(Error::usage(text).into());
    }
    let answers = match cx.global.two_way {
        true => Some(cx.raw(true)?),
        false => None,
    };
    let mut slave = Slave::new(cx, &args.spec)?;
    let (input, name) = (Input::new(cx, io::stdin()), args.spec.to_string());
    match answers {
        Some(out) => {
            let peer = Peer::source(cx, io::stdin(), out)?;
            take(cx, &mut slave, &peer, input, &name)
        }
        None => applied_from(cx, &mut slave, input, None, &name),
    }
}

/// Applies the stream that `input` gives to the slave that was named, and answers `peer`.
pub(super) fn take(
    cx: &Context,
    slave: &mut Slave<'_>,
    peer: &Peer,
    input: Input<'_, impl AsFd>,
    name: &str,
) -> Outcome {
    let input = peer.hears(input);
    peer.talk(|| applied_from(cx, slave, input, Some(peer), name))
}

/// Applies the stream that `input` gives to the slave that was named; two-way, `peer` hears what the
/// target says.
fn applied_from(
    cx: &Context,
    slave: &mut Slave<'_>,
    input: impl Read,
    peer: Option<&Peer>,
    name: &str,
) -> Outcome {
    let id = slave.id();
    let request = Request {
        pfs: id,
        force: cx.global.force,
        terms: Terms {
            allow_deletes: cx.global.allow_deletes,
            accept_damage: cx.global.accept_damage,
            allow_older: cx.global.force,
            withhold: false,
        },
        announces: Capabilities::ALL,
        group: Group::default(),
    };
    let two_way = peer.is_some();
    let (mut report, mut teller) = (Report::default(), Teller::new(cx, name.to_owned(), two_way));
    let ended = {
        let mut meter = cx.meter("mirror-write", "records");
        let mut edge = Edge {
            now: &mut || clock(cx),
            progress: &mut meter,
            events: &mut |event| {
                match (event, peer) {
                    (Event::Agreed(what), Some(peer)) => peer.agreed(*what),
                    (Event::Owed(owed), Some(peer)) => peer.owed(*owed),
                    _ => teller.tell(event),
                }
                Ok(())
            },
            make: &mut |store, told| make(cx, store, id, told),
        };
        let mut answers = peer.map(Peer::says);
        let answers = answers.as_mut().map(|out| out as &mut dyn Write);
        write(slave, input, answers, &request, &mut edge, &mut report)
    };
    cx.events.summary(counts(id, &report));
    let outcome = ended
        .map_err(anyhow::Error::from)
        .and_then(|()| conclude(cx, &report, name));
    match teller.said {
        Err(error) if outcome.is_ok() => Err(error.into()),
        _ => outcome,
    }
}

/// The time of this machine, microseconds since 1970; a stream can take days.
fn clock(cx: &Context) -> u64 {
    let now = jiff::Timestamp::now().as_microsecond();
    u64::try_from(now).unwrap_or_else(|_| now_us(cx))
}

/// Makes the slave that a stream of `told` goes into, if the user wants that.
fn make(cx: &Context, store: &mut Store, id: u16, told: &PfsData) -> Result<()> {
    let uuid = Uuid::from_bytes_le(told.shared_uuid);
    if !cx.global.yes && !ask(&format!("PFS {id} does not exist. Make a slave of {uuid}?"))? {
        return Err(Error::usage(format!(
            "PFS {id} does not exist (-y: make a slave with the shared uuid {uuid})"
        )));
    }
    let settings = Settings {
        shared_uuid: Some(told.shared_uuid),
        ..Settings::default()
    };
    let new = NewPfs {
        kind: Kind::Slave,
        id: Some(id),
        fresh: [Uuid::new_v4().to_bytes_le(), Uuid::new_v4().to_bytes_le()],
        settings: &settings,
        link: None,
    };
    pfs_ops::create(store, &new, clock(cx))?;
    cx.ui
        .note(0, format_args!("PFS {id} was made, a slave of {uuid}"));
    Ok(())
}

/// Asks on the terminal, since standard input is the stream; nobody there is a no.
fn ask(question: &str) -> Result<bool> {
    let open = |write: bool| File::options().read(!write).write(write).open("/dev/tty");
    let (Ok(mut out), Ok(answer)) = (open(true), open(false)) else {
        return Ok(false);
    };
    let failed = |e| Error::io("asking on the terminal", e);
    write!(out, "{question} [y/N] ").map_err(failed)?;
    let mut line = String::new();
    BufReader::new(answer)
        .read_line(&mut line)
        .map_err(failed)?;
    Ok(line.trim_start().starts_with(['y', 'Y']))
}

/// Finds the exit status, and says what a status cannot.
fn conclude(cx: &Context, report: &Report, name: &str) -> Outcome {
    let damage = &report.damage;
    if report.withheld {
        let what = match (report.applied.dropped, damage.is_empty()) {
            (0, true) => "the source could not read everything".to_owned(),
            (0, false) => "not everything arrived whole".to_owned(),
            (dropped, _) => format!(
                "{} of it were created before the stream's begin and are not here",
                size::counted(dropped, "record", "records")
            ),
        };
        cx.ui.warn(format_args!(
            "{what}; the rest was kept, and is not acknowledged (--accept-damage: to acknowledge)"
        ));
    }
    if report.withheld || !damage.is_empty() {
        return Ok(Exit::Damage);
    }
    if report.stopped {
        cx.ui.note(
            0,
            "the source stopped in the middle of a batch; it can be resumed",
        );
        return Ok(Exit::Interrupted);
    }
    cx.ui
        .note(2, format_args!("Mirror-write {name}: succeeded"));
    Ok(Exit::Done)
}

/// Tells people and scripts what happens, in the words of mirroring.md §9.5. What cannot be said
/// does not keep a stream from being applied.
struct Teller<'a> {
    cx: &'a Context,
    name: String,
    two_way: bool,
    said: io::Result<()>,
}

impl<'a> Teller<'a> {
    fn new(cx: &'a Context, name: String, two_way: bool) -> Teller<'a> {
        Teller {
            cx,
            name,
            two_way,
            said: Ok(()),
        }
    }

    fn tell(&mut self, event: &Event<'_>) {
        self.manager(event);
        let said = self.words(event).and_then(|()| self.event(event));
        if self.said.is_ok() {
            self.said = said;
        }
    }

    fn words(&mut self, event: &Event<'_>) -> io::Result<()> {
        let ui = &self.cx.ui;
        match event {
            Event::Batch(batch) => {
                let (begin, end) = (batch.synced.next().0, batch.end.0);
                let text = format!("Mirror-write: Mirror {begin:016x} to {end:016x}");
                ui.note(2, text);
            }
            Event::Acknowledged(tid, _) => {
                let text = format!(
                    "Mirror-write: Completed, updated snapshot to {:016x}",
                    tid.0
                );
                ui.note(2, text);
                return self.update(tid.0);
            }
            Event::Standing(tid) => return self.update(tid.0),
            Event::Agreed(_) | Event::Owed(_) | Event::Withheld(_) => {}
            Event::TakenBack(done) => {
                let count = done.destroyed + done.undeleted;
                let count = size::counted(count, "change", "changes");
                let name = &self.name;
                let text = format!("{name}: {count} of a pass that cannot be continued taken back");
                ui.note(0, text);
            }
            Event::Resumed(key) => ui.note(
                0,
                format_args!("{}: resuming at object {:016x}", self.name, key.obj_id),
            ),
            Event::Damage(damage) => ui.warn(damage),
            Event::Terminated => ui.note(1, "Mirror-write: received termination request"),
        }
        Ok(())
    }

    /// One-way, the source's user is told what the source would be.
    fn update(&self, tid: u64) -> io::Result<()> {
        let cx = self.cx;
        if self.two_way || cx.json() {
            return Ok(());
        }
        writeln!(cx.out(), "Source can update synctid to 0x{tid:016x}")?;
        cx.flush()
    }

    fn event(&self, event: &Event<'_>) -> io::Result<()> {
        let (name, fields) = match event {
            Event::Batch(batch) => {
                let fields = json!({
                    "spec": self.name,
                    "pfs": batch.pfs,
                    "begin": hex(batch.begin.0),
                    "end": hex(batch.end.0),
                    "sync_end_tid": hex(batch.synced.0),
                });
                ("batch", fields)
            }
            Event::Acknowledged(tid, done) => {
                let known = json!({"spec": self.name, "tid": hex(tid.0)});
                ("acknowledged", show::with(known, applied(done)))
            }
            Event::Standing(tid) => ("idle", json!({"tid": hex(tid.0)})),
            Event::Withheld(done) => ("withheld", applied(done)),
            Event::Damage(damage) => ("damage", mirror::damage_event(damage)),
            Event::Terminated => ("terminated", json!({})),
            Event::TakenBack(done) => (
                "taken_back",
                json!({"destroyed": done.destroyed, "undeleted": done.undeleted}),
            ),
            Event::Resumed(key) => ("resumed", json!({"obj": hex(key.obj_id.cast_unsigned())})),
            Event::Agreed(_) | Event::Owed(_) => return Ok(()),
        };
        self.cx.events.emit(name, fields)?;
        // Whoever waits for an acknowledgement sees it now, not when a buffer is full.
        match event {
            Event::Acknowledged(..) => self.cx.flush(),
            _ => Ok(()),
        }
    }

    /// A service manager, where a far source is followed.
    fn manager(&self, event: &Event<'_>) {
        let (manager, name) = (self.cx.ui.manager(), &self.name);
        match event {
            Event::Batch(_) | Event::Standing(_) => manager.ready(),
            Event::Acknowledged(tid, done) => {
                let (records, bytes) = (done.created, size::human(done.bytes));
                let records = size::counted(records, "record", "records");
                manager.status(format_args!("{name}: as of {tid}; {records}, {bytes}"));
            }
            Event::Agreed(_)
            | Event::Owed(_)
            | Event::TakenBack(_)
            | Event::Resumed(_)
            | Event::Withheld(_)
            | Event::Damage(_)
            | Event::Terminated => {}
        }
    }
}

fn applied(done: &Applied) -> Value {
    json!({
        "created": done.created,
        "payload_bytes": done.bytes,
        "deleted": done.deleted,
        "gap_deleted": done.gap_deleted,
        "existing": done.existing,
        "dropped": done.dropped,
        "live": done.live,
    })
}

fn counts(id: u16, report: &Report) -> Value {
    let fields = json!({
        "pfs": id,
        "acknowledged": report.acknowledged.map(|tid| hex(tid.0)),
        "batches": report.batches.0,
        "batches_acknowledged": report.batches.1,
        "records": report.status.items,
        "stream_bytes": report.status.bytes,
        "damaged": report.damage.count,
        "withheld": report.withheld,
        "stopped": report.stopped,
    });
    show::with(fields, applied(&report.applied))
}
