//! Versions of a file, and what differs between two moments: `history`, `diff`.

use super::args::{DiffArgs, HistoryArgs};
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open};
use super::{Context, Exit, Outcome, contents, escape, moment, size};
use crate::error::{Class, Result};
use crate::format::Tid;
use crate::fs::diff::{Aspects, Diff, Difference};
use crate::fs::history::{self, Event, Version};
use crate::fs::list::Attributes;
use crate::fs::namespace::{Final, Object, resolve};
use crate::fs::{self, Inode, Tree, file};
use crate::progress::{Progress, Status};
use crate::store::Fetch;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// Bytes that `history -v` shows at an offset.
const SHOWN: usize = 32;
/// Most bytes that it shows.
const SHOWN_MAX: usize = 1 << 20;

/// An offset in a file, and how many bytes to show there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    len: usize,
}

/// `history`: of an inode, or with `PATH@OFFSET[,LENGTH]` of a part of a file.
pub fn history(args: &HistoryArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let tree = opened.pfs()?.tree(None);
    let (path, part, object) = find(&mut opened, tree, args.path.as_bytes())?;
    let view = &mut opened.view;
    let mut versions = match part {
        Some(part) => history::block(&object.inode, part.offset, tree.asof)?,
        None => history::inode(object.inode.id, tree.asof),
    };
    let obj = object.inode.id.obj;
    if !cx.json() {
        let path = escape::name(path);
        writeln!(cx.out(), "{path}\t{obj:016x} clean {{")?;
    }
    let (mut damaged, mut count) = (false, 0u64);
    while let Some(version) = versions.next(view)? {
        count += 1;
        damaged |= matches!(version.event, Event::Unreadable(_));
        if cx.json() {
            cx.events.emit("version", event(&version, path, obj))?;
            continue;
        }
        let mut line = line(&version, &TimeZone::system());
        if let (Some(part), true) = (part, cx.ui.level() > 0) {
            line += &format!(" '{}'", bytes_at(view, &object.inode, part, version.tid)?);
        }
        writeln!(cx.out(), "    {line}")?;
    }
    if !cx.json() {
        writeln!(cx.out(), "}}")?;
    }
    cx.events.summary(json!({"versions": count}));
    Ok(match damaged {
        true => Exit::Damage,
        false => Exit::Done,
    })
}

/// The object at `path`; if there is none, and `path` ends as `@OFFSET[,LENGTH]` does, the one at
/// the path before that.
fn find<'a>(
    opened: &mut Opened,
    tree: Tree,
    path: &'a [u8],
) -> Result<(&'a [u8], Option<Part>, Object)> {
    let error = match resolve(&mut opened.view, tree, path, Final::Itself) {
        Ok(object) => return Ok((path, None, object)),
        Err(error) => error,
    };
    match split_part(path) {
        Some((path, part)) if error.class() == Class::Other => {
            match resolve(&mut opened.view, tree, path, Final::Itself) {
                Ok(object) => Ok((path, Some(part), object)),
                Err(_) => Err(error),
            }
        }
        _ => Err(error),
    }
}

fn split_part(path: &[u8]) -> Option<(&[u8], Part)> {
    let at = path.iter().rposition(|b| *b == b'@').filter(|at| *at > 0)?;
    let text = std::str::from_utf8(&path[at + 1..]).ok()?;
    let (offset, len) = match text.split_once(',') {
        Some((offset, len)) => (offset, size::integer(len)?),
        None => (text, SHOWN as u64),
    };
    let part = Part {
        offset: size::integer(offset)?,
        len: len.min(SHOWN_MAX as u64) as usize,
    };
    Some((&path[..at], part))
}

/// A version as the original prints it, and what became of the object behind that.
fn line(version: &Version, zone: &TimeZone) -> String {
    let tid = version.tid.0;
    let time = match Timestamp::from_second(version.seconds.into()) {
        Ok(time) => {
            let time = time.to_zoned_datetime(zone.clone());
            time.strftime("%d-%b-%Y %H:%M:%S").to_string()
        }
        Err(_) => version.seconds.to_string(),
    };
    let what = match &version.event {
        Event::Changed(a) => format!(" size={}", a.size),
        Event::Unreadable(error) => format!(" {error}"),
        Event::Written => String::new(),
        Event::Deleted => " deleted".to_owned(),
    };
    format!("{tid:016x} {time}{what}")
}

/// Bytes of a file as of `asof`, what cannot be printed as `.`.
fn bytes_at<F: Fetch>(view: &mut F, file: &Inode, part: Part, asof: Tid) -> Result<String> {
    let Some(inode) = fs::inode(view, file.id, asof)? else {
        return Ok(String::new());
    };
    let mut buf = vec![0; part.len];
    let len = file::read_at(view, &inode, asof, part.offset, &mut buf)?;
    let shown = buf[..len].iter().map(|b| match b {
        b' '..=b'~' => char::from(*b),
        _ => '.',
    });
    Ok(shown.collect())
}

fn event(version: &Version, path: &[u8], obj: i64) -> Value {
    let mut fields = Fields::new();
    put_name(&mut fields, "path", path);
    fields.insert("obj".into(), hex(obj.cast_unsigned()));
    fields.insert("tid".into(), hex(version.tid.0));
    fields.insert("time".into(), version.seconds.into());
    let deleted = version.event == Event::Deleted;
    fields.insert("deleted".into(), deleted.into());
    match &version.event {
        Event::Changed(a) => contents::put_attributes(&mut fields, a),
        Event::Unreadable(error) => {
            fields.insert("error".into(), error.as_str().into());
        }
        Event::Written | Event::Deleted => {}
    }
    Value::Object(fields)
}

/// `diff`.
pub fn diff(args: &DiffArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let pfs = opened.pfs()?;
    let from = moment::tid(cx, &mut opened, &pfs, &args.from)?;
    let to = match &args.to {
        Some(to) => Some(moment::tid(cx, &mut opened, &pfs, to)?),
        None => None,
    };
    let (from, to) = (pfs.tree(Some(from)), pfs.tree(to));
    let typed = args.path.as_bytes();
    let path = contents::canonical(typed);
    let view = &mut opened.view;
    let (old, new) = match (at(view, from, typed)?, at(view, to, typed)?) {
        // Nothing there at both moments: say why.
        (None, None) => (None, Some(resolve(view, to, typed, Final::Itself)?)),
        both => both,
    };
    let mut diff = Diff::new(&path, old, new);
    let mut meter = cx.meter("diff", "objects");
    let mut status = Status::default();
    let (mut differences, mut errors) = (0u64, 0u64);
    while let Some(difference) = diff.next(view, &mut status)? {
        meter.at(&status)?;
        if let Some(error) = &difference.error {
            errors += 1;
            if !cx.json() {
                let path = escape::name(&difference.path);
                cx.ui.warn(format_args!("{path}: {error}"));
            }
        }
        differences += u64::from(!difference.aspects.is_empty());
        show(cx, &difference)?;
    }
    drop(meter);
    cx.events
        .summary(json!({"differences": differences, "errors": errors}));
    Ok(match errors {
        0 => Exit::Done,
        _ => Exit::Damage,
    })
}

/// The object at `path`, if there is one.
fn at<F: Fetch>(view: &mut F, tree: Tree, path: &[u8]) -> Result<Option<Object>> {
    match resolve(view, tree, path, Final::Itself) {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.class() == Class::Other => Ok(None),
        Err(e) => Err(e),
    }
}

/// What an aspect is called.
const ASPECTS: [(Aspects, &str); 10] = [
    (Aspects::OBJECT, "object"),
    (Aspects::KIND, "kind"),
    (Aspects::CONTENT, "content"),
    (Aspects::SIZE, "size"),
    (Aspects::MODE, "mode"),
    (Aspects::OWNER, "owner"),
    (Aspects::LINKS, "links"),
    (Aspects::FLAGS, "flags"),
    (Aspects::DEVICE, "device"),
    (Aspects::INODE, "inode"),
];

fn aspects(difference: &Difference) -> Vec<&'static str> {
    let has = |aspect: &&(Aspects, _)| difference.aspects.contains(aspect.0);
    ASPECTS.iter().filter(has).map(|(_, name)| *name).collect()
}

fn show(cx: &Context, difference: &Difference) -> anyhow::Result<()> {
    if cx.json() {
        cx.events.emit("difference", difference_event(difference))?;
    } else if let Some(line) = difference_line(difference) {
        writeln!(cx.out(), "{line}")?;
    }
    Ok(())
}

/// `+ path`, `- path`, or `* path` with what differs; with sizes where they say something.
fn difference_line(difference: &Difference) -> Option<String> {
    let path = escape::name(&difference.path);
    if difference.aspects.contains(Aspects::ADDED) {
        return Some(format!("+ {path}"));
    }
    if difference.aspects.contains(Aspects::REMOVED) {
        return Some(format!("- {path}"));
    }
    if difference.aspects.is_empty() {
        return None;
    }
    let mut line = format!("* {path} ({})", aspects(difference).join(", "));
    if let (Some(from), Some(to)) = (&difference.from, &difference.to) {
        if difference.aspects.contains(Aspects::SIZE) {
            line += &format!(", size {} to {}", from.size, to.size);
        }
        if difference.aspects.contains(Aspects::MODE) {
            line += &format!(", mode {:04o} to {:04o}", from.mode, to.mode);
        }
    }
    if difference.changed_bytes > 0 {
        line += &format!(", {} bytes changed", difference.changed_bytes);
    }
    Some(line)
}

fn difference_event(difference: &Difference) -> Value {
    let mut fields = Fields::new();
    put_name(&mut fields, "path", &difference.path);
    let change = match difference.aspects {
        a if a.contains(Aspects::ADDED) => "added",
        a if a.contains(Aspects::REMOVED) => "removed",
        a if a.is_empty() => "unknown",
        _ => "changed",
    };
    fields.insert("change".into(), change.into());
    fields.insert("aspects".into(), aspects(difference).into());
    fields.insert("changed_bytes".into(), difference.changed_bytes.into());
    for (name, side) in [("from", &difference.from), ("to", &difference.to)] {
        if let Some(attributes) = side {
            fields.insert(name.into(), side_event(attributes));
        }
    }
    if let Some(error) = &difference.error {
        fields.insert("error".into(), error.as_str().into());
    }
    Value::Object(fields)
}

fn side_event(attributes: &Attributes) -> Value {
    let mut fields = Fields::new();
    contents::put_attributes(&mut fields, attributes);
    fields.insert("tid".into(), hex(attributes.tid.0));
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_files() {
        let part = |offset, len| Part { offset, len };
        assert_eq!(
            split_part(b"/f@100"),
            Some((b"/f".as_slice(), part(100, 32)))
        );
        assert_eq!(
            split_part(b"/f@0x10,4"),
            Some((b"/f".as_slice(), part(16, 4)))
        );
        assert_eq!(
            split_part(b"/a@b@7"),
            Some((b"/a@b".as_slice(), part(7, 32)))
        );
        for none in ["/f", "/f@", "/f@x", "@5", "/f@1,", "/f@-1"] {
            assert_eq!(split_part(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn versions_on_a_line() {
        let version = |event| Version {
            tid: Tid(0x1_0000_3e80),
            seconds: 1_593_604_800,
            event,
        };
        assert_eq!(
            line(&version(Event::Written), &TimeZone::UTC),
            "0000000100003e80 01-Jul-2020 12:00:00"
        );
        assert_eq!(
            line(&version(Event::Deleted), &TimeZone::UTC),
            "0000000100003e80 01-Jul-2020 12:00:00 deleted"
        );
    }
}
