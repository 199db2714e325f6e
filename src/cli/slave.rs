//! The slave that a stream goes into, on this machine: opened when a batch comes, and left to others
//! until the next one does.

use super::open::{Writable, open_rw_of, open_with, view_options};
use super::spec::{Local, Pfs, Spec};
use super::{Context, ends};
use crate::error::{Error, Result};
use crate::io::lock::LockGuard;
use crate::mirror::write::Home;
use crate::store::{Store, ViewOptions};
use std::time::Duration;

/// How long somebody else may have the volumes between two batches; the source waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// The slave that a stream goes into.
pub(super) struct Slave<'a> {
    cx: &'a Context,
    /// As it was named.
    spec: &'a Spec,
    /// Its number, whether there is one or not.
    id: u16,
    opened: Option<Writable>,
    /// Whether it was opened before.
    began: bool,
    /// Keeps other streams out.
    _stream: Vec<LockGuard>,
}

impl<'a> Slave<'a> {
    /// The slave that `spec` names; no other stream goes into it from now on. Errors: class `Usage`
    /// for a label that nobody carries, `Busy` if another stream goes into it.
    pub fn new(cx: &'a Context, spec: &'a Spec) -> Result<Slave<'a>> {
        let id = number(cx, spec)?;
        Ok(Slave {
            cx,
            spec,
            id,
            opened: None,
            began: false,
            _stream: ends::streams(cx, spec, id)?,
        })
    }

    /// Its number.
    pub fn id(&self) -> u16 {
        self.id
    }
}

impl Home for Slave<'_> {
    fn open(&mut self) -> Result<&mut Store> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => {
                let own = self.cx.global.lock_wait;
                let wait = if self.began { own.max(PATIENCE) } else { own };
                let cache = view_options(self.cx).cache_bytes;
                open_rw_of(self.cx, self.spec, 1, cache, wait)?
            }
        };
        self.began = true;
        Ok(&mut self.opened.insert(opened).store)
    }

    fn leave(&mut self) {
        self.opened = None;
    }
}

/// The number of the PFS that `spec` names: a stream keeps to it, whatever its label says later.
pub(super) fn number(cx: &Context, spec: &Spec) -> Result<u16> {
    let Spec::Local(local) = spec else {
        return Err(Error::usage(format!("{spec} is on another machine")));
    };
    match local.pfs {
        None => Ok(0),
        Some(Pfs::Number(id)) => Ok(id),
        Some(Pfs::Label(_)) => {
            let options = ViewOptions {
                live: true,
                ..view_options(cx)
            };
            let mut opened = open_with(cx, spec, &options)?;
            Ok(ends::number(&mut opened.view, spec)?.0)
        }
    }
}

/// The same SPEC by number.
pub(super) fn by_number(spec: &Spec, id: u16) -> Spec {
    match spec {
        Spec::Local(local) => Spec::Local(Local {
            pfs: Some(Pfs::Number(id)),
            ..local.clone()
        }),
        Spec::Remote(_) => spec.clone(),
    }
}
