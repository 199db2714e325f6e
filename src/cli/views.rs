//! The views of a source that somebody else may be writing to, one after another.

use super::mirror::{Wall, request};
use super::open::{Opened, open_with, view_options, watch};
use super::spec::{Spec, Volume};
use super::{Context, slave};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::mirror::Clock;
use crate::mirror::follow::{self, Mark};
use crate::mirror::read::{Supplied, Supply};
use crate::store::{ViewOptions, VolumeSet};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A source's root header, looked at every so often.
pub(super) struct Watch<'a> {
    cx: &'a Context,
    spec: &'a Spec,
    /// The volumes, and which files they were.
    volumes: Option<(VolumeSet, Vec<(u64, u64)>)>,
}

impl<'a> Watch<'a> {
    pub fn new(cx: &'a Context, spec: &'a Spec) -> Watch<'a> {
        let volumes = None;
        Watch { cx, spec, volumes }
    }

    /// What the header says. After an error everything is opened anew, and so it is if other files
    /// stand in the place of those that were opened: somebody restored a copy.
    pub fn look(&mut self) -> Result<Mark> {
        let files = files(self.spec)?;
        let mut volumes = match self.volumes.take() {
            Some((volumes, opened)) if opened == files => volumes,
            _ => watch(self.cx, self.spec)?,
        };
        let header = volumes.root_header_now()?;
        self.volumes = Some((volumes, files));
        Ok(Mark::of(&header))
    }
}

/// Which files the volumes of `spec` are: device and inode. Errors: class `Io` if one is not there.
pub(super) fn files(spec: &Spec) -> Result<Vec<(u64, u64)>> {
    let Spec::Local(local) = spec else {
        return Ok(Vec::new());
    };
    let file = |volume: &Volume| {
        let found = std::fs::metadata(&volume.path);
        let found = found.map_err(|e| Error::io(volume.path.display().to_string(), e))?;
        Ok((found.dev(), found.ino()))
    };
    local.volumes.iter().map(file).collect()
}

/// A number for [`follow::backoff`].
pub(super) fn chance() -> u32 {
    Uuid::new_v4().as_u64_pair().0 as u32
}

/// After so many views in a row that were overtaken, people are told.
const MANY: u32 = 10;

/// The views of a source that is followed.
pub(super) struct Views<'a> {
    cx: &'a Context,
    spec: &'a Spec,
    /// By number.
    exact: Spec,
    watch: Watch<'a>,
    begin: Option<Tid>,
    /// Between the ends of two batches, at least.
    interval: Duration,
    /// What the header said before the last view.
    seen: Option<Mark>,
    /// When it was last seen to change.
    changed: Instant,
    /// Views in a row that were overtaken.
    overtaken: u32,
    /// An error if nobody listens any more.
    listens: &'a mut dyn FnMut() -> Result<()>,
}

impl<'a> Views<'a> {
    /// The views of what `spec` names, from `begin` on; `listens` is asked while there is nothing new.
    pub fn new(
        cx: &'a Context,
        spec: &'a Spec,
        (begin, interval): (Option<Tid>, Duration),
        listens: &'a mut dyn FnMut() -> Result<()>,
    ) -> Result<Views<'a>> {
        Ok(Views {
            cx,
            spec,
            exact: slave::by_number(spec, slave::number(cx, spec)?),
            watch: Watch::new(cx, spec),
            begin,
            interval,
            seen: None,
            changed: Instant::now(),
            overtaken: 0,
            listens,
        })
    }

    /// Waits until there may be something that the last view did not have; `false` if it is to end.
    fn wait(&mut self, overtaken: bool) -> Result<bool> {
        let over = Instant::now();
        let least = match overtaken {
            true => {
                self.overtaken = self.overtaken.saturating_add(1);
                if self.overtaken == MANY {
                    let spec = self.spec;
                    self.cx.ui.warn(format_args!(
                        "{spec}: its writers have overtaken {MANY} views in a row; trying again"
                    ));
                }
                follow::backoff(Class::Expired, self.overtaken, chance())
            }
            false => {
                self.overtaken = 0;
                self.interval
            }
        };
        let mut due = overtaken;
        loop {
            if self.cx.goes_on().is_err() {
                return Ok(false);
            }
            (self.listens)()?;
            // Nobody follows for events that nobody reads.
            let flushed = self.cx.flush();
            flushed.map_err(|e| Error::io("standard output", e))?;
            due = due || self.has_changed()?;
            let rest = least.saturating_sub(over.elapsed());
            let pause = match (due, rest.is_zero()) {
                (true, true) => return Ok(true),
                (true, false) => rest.min(follow::QUIET),
                (false, _) => follow::pause(self.changed.elapsed()),
            };
            Wall::new(self.cx).sleep(pause);
        }
    }

    fn has_changed(&mut self) -> Result<bool> {
        let mark = self.watch.look()?;
        let changed = self.seen.is_none_or(|seen| seen.differs(&mark));
        if changed {
            self.changed = Instant::now();
        }
        Ok(changed)
    }

    /// A view, taken after the header was looked at: what comes in between is noticed.
    fn take(&mut self) -> Result<Supplied> {
        self.seen = Some(self.watch.look()?);
        let options = ViewOptions {
            live: true,
            ..view_options(self.cx)
        };
        let mut opened = open_with(self.cx, &self.exact, &options)?;
        let request = request(self.cx, &mut opened, self.begin, true)?;
        let Opened { view, .. } = opened;
        Ok(Supplied { view, request })
    }
}

impl Supply for Views<'_> {
    fn next(&mut self, overtaken: bool) -> Result<Option<Supplied>> {
        let mut overtaken = overtaken;
        if self.seen.is_some() && !self.wait(overtaken)? {
            return Ok(None);
        }
        loop {
            match self.take() {
                Err(error) if error.class() == Class::Expired => overtaken = true,
                taken => return taken.map(Some).map_err(|e| named(e, self.spec)),
            }
            if !self.wait(overtaken)? {
                return Ok(None);
            }
        }
    }
}

fn named(error: Error, spec: &Spec) -> Error {
    error.context(spec)
}
