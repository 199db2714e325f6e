//! Both ends of a copy between volumes of this machine: found, locked, opened, checked.

use super::Context;
use super::open::{Opened, Writable, locks, now_us, open_rw_of, open_with, view_options};
use super::pfs as names;
use super::spec::{Local, Pfs as Named, Spec, Volume};
use crate::error::{Error, Result};
use crate::format::Tid;
use crate::fs::pfs::{self, Pfs};
use crate::fs::pfs_ops::{self, Kind, NewPfs, Settings};
use crate::io::lock::{Lock, LockGuard};
use crate::mirror::copy::{Group, Place, Request};
use crate::mirror::ready::{self, Identity};
use crate::mirror::{SourcePfs, Terms};
use crate::store::{Store, View, ViewOptions};
use std::path::PathBuf;
use uuid::Uuid;

/// The volumes of a SPEC, wherever they are named: sorted, links followed.
type Set = Vec<(PathBuf, u64)>;

/// Where everything is.
pub(super) struct Layout {
    /// For each set of volumes to write to, a SPEC that names it.
    pub stores: Vec<Spec>,
    /// For each target, its set.
    pub targets: Vec<usize>,
    /// The set that the source is in, if it is one of those.
    pub source: Option<usize>,
}

impl Layout {
    pub fn of(source: &Spec, targets: &[Spec]) -> Result<Layout> {
        let source = set(source)?;
        let mut sets: Vec<Set> = Vec::new();
        let mut layout = Layout {
            stores: Vec::new(),
            targets: Vec::new(),
            source: None,
        };
        for spec in targets {
            let set = set(spec)?;
            let found = sets.iter().position(|other| *other == set);
            let at = found.unwrap_or_else(|| {
                layout.stores.push(spec.clone());
                sets.push(set);
                sets.len() - 1
            });
            layout.targets.push(at);
        }
        let touch = |a: &Set, b: &Set| a.iter().any(|volume| b.contains(volume));
        let all: Vec<&Set> = sets.iter().chain([&source]).collect();
        for (at, one) in all.iter().enumerate() {
            if all[..at]
                .iter()
                .any(|other| touch(one, other) && one != other)
            {
                let text = "a volume is named in two file systems: name all volumes of each, the \
                            same wherever it is named";
                return Err(Error::usage(text));
            }
        }
        layout.source = sets.iter().position(|other| *other == source);
        Ok(layout)
    }
}

fn local(spec: &Spec) -> Result<&Local> {
    match spec {
        Spec::Local(local) => Ok(local),
        Spec::Remote(_) => Err(Error::usage(format!(
            "{spec} is on another machine, and this needs both ends on this one (write ./ before a \
             local path with a colon)"
        ))),
    }
}

fn set(spec: &Spec) -> Result<Set> {
    let place = |volume: &Volume| {
        let path = std::fs::canonicalize(&volume.path);
        let path = path.map_err(|e| Error::io(volume.path.display().to_string(), e))?;
        Ok((path, volume.offset.unwrap_or(0)))
    };
    let mut set: Set = local(spec)?
        .volumes
        .iter()
        .map(place)
        .collect::<Result<_>>()?;
    set.sort();
    Ok(set)
}

/// The PFS number that a SPEC names, where `table` has it; else what it would have.
pub(super) fn number(view: &mut View, spec: &Spec) -> Result<(u16, Option<Pfs>)> {
    let name = match &local(spec)?.pfs {
        None => "0".to_owned(),
        Some(Named::Number(id)) => match pfs::load(view, *id)? {
            None => return Ok((*id, None)),
            Some(found) => return Ok((*id, Some(found))),
        },
        Some(Named::Label(label)) => String::from_utf8_lossy(label).into_owned(),
    };
    let found = pfs::find(view, &name)?;
    Ok((found.id, Some(found)))
}

/// What is opened for a copy.
pub(super) struct Opening {
    /// The source, if its volumes are none of the targets'.
    pub source: Option<Opened>,
    /// The volumes to write to.
    pub targets: Vec<Writable>,
    _streams: Vec<LockGuard>,
}

/// How a copy opens its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Read the source beside whoever writes to it.
    pub live: bool,
    /// Lock out other streams; else that is done already.
    pub streams: bool,
    /// Make slaves that do not exist.
    pub make: bool,
}

/// Opens and checks everything, and makes the slaves that are to be made: not before all others fit.
pub(super) fn opened(
    layout: &Layout,
    source: &Spec,
    targets: &[Spec],
    how: Manner,
    cx: &Context,
) -> Result<(Opening, Request, Vec<Place>)> {
    // All of them together have the memory that the options give.
    let sets = (layout.stores.len() + usize::from(layout.source.is_none())).max(1);
    let options = view_options(cx);
    let options = ViewOptions {
        cache_bytes: options.cache_bytes / sets,
        live: how.live,
        ..options
    };
    let source_view = || match layout.source {
        None => open_with(cx, source, &options).map(Some),
        Some(_) => Ok(None),
    };
    let mut opening = Opening {
        source: if how.live { None } else { source_view()? },
        targets: Vec::new(),
        _streams: Vec::new(),
    };
    for spec in &layout.stores {
        opening.targets.push(open_rw_of(
            cx,
            spec,
            layout.stores.len(),
            options.cache_bytes,
            cx.global.lock_wait,
        )?);
    }
    if how.live {
        // A writer may overtake it: the later it is taken, the better.
        opening.source = source_view()?;
    }
    let found = match (&mut opening.source, layout.source) {
        (Some(source), _) => source.pfs()?,
        (None, at) => {
            let view = opening.targets[at.unwrap_or(0)].store.view();
            let (id, found) = number(view, source)?;
            found.ok_or_else(|| Error::usage(format!("{source}: there is no PFS {id}")))?
        }
    };
    let mut request = request(cx, &found);
    let mut missing = Vec::new();
    let mut places = Vec::new();
    for (spec, store) in targets.iter().zip(&layout.targets) {
        let view = opening.targets[*store].store.view();
        let (pfs, slave) = number(view, spec)?;
        match slave {
            None if how.make => missing.push((*store, pfs)),
            None => return Err(no_slave(spec, pfs, &found)),
            Some(_) => {
                let checked = ready::check(view, pfs, &request.source);
                checked.map_err(|error| error.context(spec))?;
            }
        }
        let place = Place { store: *store, pfs };
        if places.contains(&place) {
            return Err(Error::usage(format!("{spec} is named twice")));
        }
        places.push(place);
        if how.streams {
            opening._streams.extend(streams(cx, spec, pfs)?);
        }
    }
    for (store, id) in missing {
        make(cx, &mut opening.targets[store].store, id, &found)?;
    }
    if let Some(source) = opening.source.as_mut().filter(|_| how.live) {
        // What they lack is looked for from the least that one of them has.
        let mut least = None;
        for Place { store, pfs } in &places {
            let slave = pfs::load(opening.targets[*store].store.view(), *pfs)?;
            let lacks = slave.map(|slave| slave.data.sync_end_tid().next());
            least = least.into_iter().chain(lacks).min();
        }
        let floor = Tid(request.source.data.sync_beg_tid.get());
        let from = least.unwrap_or(floor).max(floor);
        let mut meter = cx.meter("newest TID", "leaves");
        let view = &mut source.view;
        request.source.beside_a_writer(view, from, &mut meter)?;
    }
    Ok((opening, request, places))
}

fn request(cx: &Context, source: &Pfs) -> Request {
    Request {
        source: SourcePfs::from(source),
        identity: Identity::of(source),
        split: cx.global.split.filter(|_| !cx.global.no_split),
        terms: Terms {
            allow_deletes: cx.global.allow_deletes,
            accept_damage: cx.global.accept_damage,
            allow_older: cx.global.force,
            withhold: false,
        },
        bandwidth: cx.global.bandwidth.filter(|rate| *rate > 0),
        group: Group::default(),
        bytes_total: None,
    }
}

/// One stream at a time goes into a slave, from whatever program.
pub(super) fn streams(cx: &Context, spec: &Spec, pfs: u16) -> Result<Vec<LockGuard>> {
    locks(
        cx,
        &local(spec)?.volumes,
        Lock::Stream(pfs),
        cx.global.lock_wait,
    )
}

fn no_slave(spec: &Spec, id: u16, source: &Pfs) -> Error {
    let uuid = Uuid::from_bytes_le(source.data.shared_uuid);
    let name = names::name(spec, id);
    Error::usage(format!(
        "{name} does not exist: -y makes it, or mallet pfs-slave {name} shared-uuid={uuid}"
    ))
}

fn make(cx: &Context, store: &mut Store, id: u16, source: &Pfs) -> Result<()> {
    let settings = Settings {
        shared_uuid: Some(source.data.shared_uuid),
        ..Settings::default()
    };
    let fresh = [Uuid::new_v4().to_bytes_le(), Uuid::new_v4().to_bytes_le()];
    let new = NewPfs {
        kind: Kind::Slave,
        id: Some(id),
        fresh,
        settings: &settings,
        link: None,
    };
    pfs_ops::create(store, &new, now_us(cx))?;
    cx.ui.note(0, format_args!("slave PFS {id} made"));
    Ok(())
}
