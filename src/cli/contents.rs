//! Reading files and directories: `ls`, `stat`, `cat`, `get`.

use super::args::{GetArgs, LsArgs, PathArgs};
use super::json::{Fields, hex, put_name};
use super::open::{Opened, open};
use super::{Context, Exit, Outcome, escape, moment};
use crate::error::{Error, Result};
use crate::format::Tid;
use crate::format::record::ObjType;
use crate::fs::dest::Existing;
use crate::fs::extract;
use crate::fs::file::{Body, Reader};
use crate::fs::list::{self, Attributes, Detail, Entry, kind_name};
use crate::fs::namespace::{Final, Object, resolve};
use crate::fs::walk::{Scope, Visit, Walk};
use crate::progress::{Progress, Status};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// `ls`.
pub fn ls(args: &LsArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let (pfs, tree) = moment::tree(cx, &mut opened, args.when.as_of.as_ref())?;
    let path = canonical(args.path.as_bytes());
    if path == b"/" && moment::is_empty_slave(cx, &mut opened, &pfs, tree)? {
        return Ok(Exit::Done);
    }
    let last = match args.long || cx.json() {
        true => Final::Itself,
        // As the ls of other systems: a link given by name is looked through.
        false => Final::Follow,
    };
    let object = resolve(&mut opened.view, tree, args.path.as_bytes(), last)?;
    let scope = match args.recursive || !object.inode.is_directory() {
        true => Scope::All,
        false => Scope::Children,
    };
    let mut listing = Listing {
        cx,
        full: args.recursive || !object.inode.is_directory(),
        long: args.long,
        objects: 0,
        errors: 0,
    };
    let mut detail = Detail {
        sha256: args.sha256,
        ..Detail::default()
    };
    let mut walk = Walk::new(object, &path, scope);
    if args.sha256 {
        walk = walk.with_contents();
    }
    let mut meter = cx.meter("ls", "objects");
    let mut status = Status::default();
    while let Some(visit) = walk.next(&mut opened.view)? {
        match visit {
            Visit::Object(found) => {
                let view = &mut opened.view;
                let entry = list::entry(view, found, &mut detail, &mut meter, &mut status)?;
                listing.entry(&entry)?;
            }
            Visit::Trouble { path, error } => listing.trouble(&path, &error)?,
            Visit::Leave { .. } => {}
        }
    }
    drop(meter);
    Ok(listing.finish())
}

/// A path as listings begin it: absolute, without empty parts.
pub fn canonical(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty());
    let path: Vec<u8> = parts.flat_map(|part| [b"/", part].concat()).collect();
    match path.is_empty() {
        true => b"/".to_vec(),
        false => path,
    }
}

struct Listing<'a> {
    cx: &'a Context,
    /// Whether to show full paths.
    full: bool,
    long: bool,
    objects: u64,
    errors: u64,
}

impl Listing<'_> {
    fn entry(&mut self, entry: &Entry) -> anyhow::Result<()> {
        self.objects += 1;
        if let Some(error) = &entry.error {
            self.errors += u64::from(entry.damaged);
            if !self.cx.json() {
                let path = escape::name(&entry.path);
                self.cx.ui.warn(format_args!("{path}: {error}"));
            }
        }
        if self.cx.json() {
            self.cx.events.emit("entry", event(entry))?;
            return Ok(());
        }
        let shown = match self.full {
            true => entry.path.as_slice(),
            false => entry.path.rsplit(|b| *b == b'/').next().unwrap_or_default(),
        };
        let mut out = self.cx.out();
        if self.long {
            write!(out, "{} ", columns(entry))?;
        }
        if let Some(sum) = &entry.sha256 {
            write!(out, "{} ", digits(sum))?;
        }
        write!(out, "{}", escape::name(shown))?;
        if let (true, Some(target)) = (self.long, &entry.target) {
            write!(out, " -> {}", escape::name(target))?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn trouble(&mut self, path: &[u8], error: &Error) -> anyhow::Result<()> {
        self.errors += 1;
        tell(self.cx, path, error)
    }

    fn finish(self) -> Exit {
        let counts = json!({"objects": self.objects, "errors": self.errors});
        self.cx.events.summary(counts);
        match self.errors {
            0 => Exit::Done,
            _ => Exit::Damage,
        }
    }
}

/// Tells of an object what is not part of a listing's line.
fn tell(cx: &Context, path: &[u8], error: &Error) -> anyhow::Result<()> {
    if cx.json() {
        let mut fields = Fields::new();
        put_name(&mut fields, "path", path);
        fields.insert("error".into(), error.to_string().into());
        cx.events.emit("problem", Value::Object(fields))?;
        return Ok(());
    }
    cx.ui.warn(format_args!("{}: {error}", escape::name(path)));
    Ok(())
}

/// An entry as scripts see it.
fn event(entry: &Entry) -> Value {
    let mut fields = Fields::new();
    put_name(&mut fields, "path", &entry.path);
    fields.insert("obj".into(), hex(entry.id.obj.cast_unsigned()));
    match &entry.attributes {
        Some(attributes) => put_attributes(&mut fields, attributes),
        None => {
            fields.insert("kind".into(), kind_name(entry.kind).into());
        }
    }
    if let Some(target) = &entry.target {
        put_name(&mut fields, "target", target);
    }
    if let Some((major, minor)) = entry.attributes.and_then(|a| a.rdev) {
        fields.insert("rdev".into(), format!("{major},{minor}").into());
    }
    if let Some(error) = &entry.error {
        fields.insert("error".into(), error.as_str().into());
    }
    if let Some(attributes) = &entry.attributes {
        fields.insert("tid".into(), hex(attributes.tid.0));
    }
    if let Some(sum) = &entry.sha256 {
        fields.insert("sha256".into(), digits(sum).into());
    }
    Value::Object(fields)
}

/// The fields of every object, but its TID.
pub fn put_attributes(fields: &mut Fields, a: &Attributes) {
    fields.insert("kind".into(), kind_name(a.kind).into());
    fields.insert("mode".into(), format!("{:04o}", a.mode).into());
    fields.insert("uid".into(), a.uid.into());
    fields.insert("gid".into(), a.gid.into());
    fields.insert("size".into(), a.size.into());
    fields.insert("nlinks".into(), a.nlinks.into());
    fields.insert("mtime_us".into(), a.mtime_us.into());
    fields.insert("ctime_us".into(), a.ctime_us.into());
}

/// The columns of a long listing.
fn columns(entry: &Entry) -> String {
    let Some(a) = &entry.attributes else {
        return format!(
            "?????????? {:>3} {:>5} {:>5} {:>12} {:20}",
            "?", "?", "?", "?", "?"
        );
    };
    let size = match a.rdev {
        Some((major, minor)) => format!("{major},{minor}"),
        None => a.size.to_string(),
    };
    format!(
        "{} {:>3} {:>5} {:>5} {:>12} {:20}",
        mode_text(a),
        a.nlinks,
        a.uid,
        a.gid,
        size,
        seconds(a.mtime_us)
    )
}

/// Microseconds since 1970 as RFC 3339 in UTC, whole seconds.
fn seconds(us: u64) -> String {
    time_of(us / 1_000_000 * 1_000_000)
}

/// Microseconds since 1970 as RFC 3339 in UTC; a number where that cannot be written so.
fn time_of(us: u64) -> String {
    let time = i64::try_from(us).ok();
    let time = time.and_then(|us| Timestamp::from_microsecond(us).ok());
    time.map_or_else(|| format!("{us} us"), |time| time.to_string())
}

/// Kind and permissions, as `drwxr-xr-x`.
fn mode_text(a: &Attributes) -> String {
    let mut text = String::with_capacity(10);
    text.push(match a.kind {
        Some(ObjType::Directory) => 'd',
        Some(ObjType::File | ObjType::Database) => '-',
        Some(ObjType::Symlink) => 'l',
        Some(ObjType::Fifo) => 'p',
        Some(ObjType::Socket) => 's',
        Some(ObjType::CharDevice) => 'c',
        Some(ObjType::BlockDevice) => 'b',
        Some(ObjType::PseudoFs) | None => '?',
    });
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = a.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (a.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn digits(sum: &[u8]) -> String {
    sum.iter().map(|b| format!("{b:02x}")).collect()
}

/// Opens the SPEC and finds the object.
fn find(args: &PathArgs, cx: &Context, last: Final) -> Result<(Opened, Object)> {
    let mut opened = open(cx, &args.spec)?;
    let (_, tree) = moment::tree(cx, &mut opened, args.when.as_of.as_ref())?;
    let object = resolve(&mut opened.view, tree, args.path.as_bytes(), last)?;
    Ok((opened, object))
}

/// `stat`.
pub fn stat(args: &PathArgs, cx: &Context) -> Outcome {
    let (mut opened, object) = find(args, cx, Final::Itself)?;
    let path = canonical(args.path.as_bytes());
    let mut meter = cx.meter("stat", "objects");
    let view = &mut opened.view;
    let entry = list::entry_of(view, &path, &object, &mut Detail::default(), &mut meter)?;
    drop(meter);
    let data = &object.inode.data;
    if cx.json() {
        let more = json!({
            "pfs": entry.id.pfs,
            "flags": data.uflags.get(),
            "atime_us": data.atime.get(),
            "parent": hex(data.parent_obj_id.get().cast_unsigned()),
            "cap_flags": data.cap_flags,
        });
        cx.events
            .emit("entry", super::show::with(event(&entry), more))?;
    } else {
        describe(cx, &entry, &object)?;
    }
    Ok(match &entry.error {
        Some(_) => Exit::Damage,
        None => Exit::Done,
    })
}

fn describe(cx: &Context, entry: &Entry, object: &Object) -> anyhow::Result<()> {
    let mut out = cx.out();
    let (a, data) = (Attributes::of(&object.inode), &object.inode.data);
    let (id, parent) = (entry.id, data.parent_obj_id.get());
    writeln!(out, "path    {}", escape::name(&entry.path))?;
    writeln!(out, "object  0x{:016x} of PFS {}", id.obj, id.pfs)?;
    writeln!(out, "kind    {}", kind_name(a.kind))?;
    writeln!(out, "mode    {:04o} ({})", a.mode, mode_text(&a))?;
    writeln!(out, "owner   {}:{}", a.uid, a.gid)?;
    writeln!(out, "size    {}", a.size)?;
    writeln!(out, "links   {}", a.nlinks)?;
    if let Some((major, minor)) = a.rdev {
        writeln!(out, "device  {major},{minor}")?;
    }
    if let Some(target) = &entry.target {
        writeln!(out, "target  {}", escape::name(target))?;
    }
    writeln!(out, "flags   0x{:08x}", a.flags)?;
    writeln!(out, "parent  0x{parent:016x}")?;
    writeln!(out, "mtime   {}", time_of(a.mtime_us))?;
    writeln!(out, "ctime   {}", time_of(a.ctime_us))?;
    writeln!(out, "atime   {}", time_of(a.atime_us))?;
    writeln!(out, "TID     {}", a.tid)?;
    if object.asof != Tid::MAX {
        writeln!(out, "as of   {}", object.asof)?;
    }
    if let Some(error) = &entry.error {
        cx.ui.warn(error);
    }
    Ok(())
}

/// `cat`.
pub fn cat(args: &PathArgs, cx: &Context) -> Outcome {
    static ZEROS: [u8; 65536] = [0; 65536];
    let (mut opened, object) = find(args, cx, Final::Follow)?;
    let path = escape::name(args.path.as_bytes());
    if object.inode.kind() != Some(ObjType::File) {
        let kind = kind_name(object.inode.kind());
        return Err(Error::usage(format!("{path} is no regular file: it is a {kind}")).into());
    }
    let mut out = cx.raw(false)?;
    let mut meter = cx.meter("cat", "pieces");
    let mut status = Status {
        bytes_total: Some(object.inode.size()),
        object: object.inode.id.obj,
        ..Status::default()
    };
    let mut reader = Reader::new(&object.inode, object.asof);
    while let Some(piece) = reader.next(&mut opened.view).map_err(|e| e.context(path))? {
        status.items += 1;
        match piece.body {
            Body::Data(bytes) => {
                out.write_all(&bytes)?;
                status.bytes += piece.len;
                meter.at(&status)?;
            }
            Body::Bad(error) => return Err(error.context(path).into()),
            Body::Hole => {
                let mut left = piece.len;
                while left > 0 {
                    let step = left.min(ZEROS.len() as u64);
                    out.write_all(&ZEROS[..step as usize])?;
                    left -= step;
                    status.bytes += step;
                    meter.at(&status)?;
                }
            }
        }
    }
    Ok(Exit::Done)
}

/// `get`.
pub fn get(args: &GetArgs, cx: &Context) -> Outcome {
    let mut opened = open(cx, &args.spec)?;
    let (pfs, tree) = moment::tree(cx, &mut opened, args.when.as_of.as_ref())?;
    let path = args.path.as_bytes();
    if canonical(path) == b"/" && moment::is_empty_slave(cx, &mut opened, &pfs, tree)? {
        return Ok(Exit::Done);
    }
    let object = resolve(&mut opened.view, tree, path, Final::Itself)?;
    let existing = match args.force || cx.global.force {
        true => Existing::Replace,
        false => Existing::Keep,
    };
    let mut meter = cx.meter("get", "objects");
    let view = &mut opened.view;
    let mut broken = Ok(());
    let mut problem = |path: &[u8], error: &Error| {
        if broken.is_ok() {
            broken = tell(cx, path, error);
        }
    };
    let report = extract::get(
        view,
        object,
        path,
        &args.dest,
        existing,
        &mut meter,
        &mut problem,
    )?;
    drop(meter);
    broken?;
    finish_get(cx, &report)
}

fn finish_get(cx: &Context, report: &extract::Report) -> Outcome {
    cx.events.summary(json!({
        "files": report.files,
        "directories": report.directories,
        "symlinks": report.symlinks,
        "hard_links": report.hard_links,
        "nodes": report.nodes,
        "nodes_left_out": report.nodes_left_out,
        "links_left_out": report.links_left_out,
        "links_lost": report.links_lost,
        "bytes": report.bytes,
        "problems": report.problems,
    }));
    if report.links_left_out > 0 {
        let count = report.links_left_out;
        cx.ui.warn(format_args!(
            "{count} symlinks have no target and were left out: a crash can leave that"
        ));
    }
    if report.nodes_left_out > 0 {
        let count = report.nodes_left_out;
        cx.ui.warn(format_args!(
            "{count} device nodes are left out: only a privileged user can make them"
        ));
    }
    if report.links_lost > 0 {
        let count = report.links_lost;
        cx.ui.warn(format_args!(
            "{count} hard links are files of their own: more than are kept track of, or than the \
             host allows"
        ));
    }
    cx.ui.note(
        1,
        format_args!(
            "{} files ({} bytes), {} directories, {} symlinks, {} hard links, {} other",
            report.files,
            report.bytes,
            report.directories,
            report.symlinks,
            report.hard_links,
            report.nodes
        ),
    );
    let problems = report.problems;
    match (report.damaged, problems) {
        (0, 0) => Ok(Exit::Done),
        (0, _) => Err(anyhow::anyhow!(
            "{problems} problems: not everything was copied (-F replaces what is there already)"
        )),
        _ => Ok(Exit::Damage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_root() {
        for (path, shown) in [("", "/"), ("/", "/"), ("//a//b/", "/a/b"), ("a/b", "/a/b")] {
            assert_eq!(canonical(path.as_bytes()), shown.as_bytes());
        }
    }

    #[test]
    fn modes() {
        let text = |kind, mode| {
            let mut data = <crate::format::record::InodeData as zerocopy::FromZeros>::new_zeroed();
            data.mode.set(mode);
            data.obj_type = kind;
            let leaf = <crate::format::node::LeafElement as zerocopy::FromZeros>::new_zeroed();
            let id = crate::fs::ObjectId::root(0);
            mode_text(&Attributes::of(&crate::fs::Inode { id, leaf, data }))
        };
        assert_eq!(text(1, 0o755), "drwxr-xr-x");
        assert_eq!(text(2, 0o6640), "-rwSr-S---");
        assert_eq!(text(2, 0o7777), "-rwsrwsrwt");
        assert_eq!(text(99, 0o1000), "?--------T");
    }

    #[test]
    fn times() {
        assert_eq!(
            time_of(1_593_604_800_000_001),
            "2020-07-01T12:00:00.000001Z"
        );
        assert_eq!(seconds(1_593_604_800_999_999), "2020-07-01T12:00:00Z");
        assert_eq!(time_of(u64::MAX), "18446744073709551615 us");
    }
}
