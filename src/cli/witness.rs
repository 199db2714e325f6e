//! Whoever is asked about a PFS: its volumes, read here, or a program on another machine that reads
//! them there. And that program's side of it: `mirror-verify` and `mirror-status` with `-2`.

use super::args::RemoteArgs;
use super::input::Input;
use super::mirror::Wall;
use super::open::{Opened, open_with, view_options};
use super::remote::{Ended, Ends, Peer, first, programs_asked};
use super::spec::{Remote, Spec};
use super::views::chance;
use super::{Context, Exit, Outcome};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::fs::pfs::Pfs;
use crate::mirror::follow;
use crate::mirror::lag::{Change, Changes};
use crate::mirror::verify::{
    Answer, Ask, Far, Ground, Host, Service, Side, Standing, Tick, Witness, serve,
};
use crate::progress::{Progress, Status};
use crate::store::{Fetch, ViewOptions};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::{ChildStdin, ChildStdout};

/// Live views that may expire one after the other while they are being taken.
const VIEWS_MAX: u32 = 8;

/// Whoever is asked about a PFS.
pub(super) enum End<'c> {
    Near(Box<Near<'c>>),
    Far(Box<Elsewhere<'c>>),
}

impl End<'_> {
    /// What was known before the first question.
    pub fn standing(&self) -> Standing {
        match self {
            End::Near(near) => near.standing(),
            End::Far(far) => far.standing,
        }
    }

    /// Bytes that crossed the link to it; `None` if there is none.
    pub fn crossed(&self) -> Option<u64> {
        match self {
            End::Near(_) => None,
            End::Far(far) => Some(far.link.crossed()),
        }
    }
}

impl Witness for End<'_> {
    fn pose(&mut self, asks: &[Ask]) -> Result<()> {
        match self {
            End::Near(_) => Ok(()),
            End::Far(far) => far.link.pose(asks),
        }
    }

    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        match self {
            End::Near(near) => near.side().answer(asks, tick),
            End::Far(far) => far.link.answer(asks, tick),
        }
    }
}

impl Changes for End<'_> {
    fn newest(&mut self, first: Tid, last: Tid, tick: Tick<'_>) -> Result<Option<Change>> {
        match self {
            End::Near(near) => near.side().newest(first, last, tick),
            End::Far(far) => far.link.newest(first, last, tick),
        }
    }
}

/// A PFS of volumes of this machine.
pub(super) struct Near<'c> {
    cx: &'c Context,
    spec: Spec,
    options: ViewOptions,
    opened: Opened,
    pfs: Pfs,
}

impl<'c> Near<'c> {
    /// Opens it; a live view that expires meanwhile is taken again.
    fn open(cx: &'c Context, spec: &Spec, options: ViewOptions) -> Result<Near<'c>> {
        let (opened, pfs) = taken(cx, spec, &options)?;
        Ok(Near {
            cx,
            spec: spec.clone(),
            options,
            opened,
            pfs,
        })
    }

    fn standing(&self) -> Standing {
        Standing {
            version: self.opened.view.version(),
            pfs: self.pfs,
        }
    }

    fn side(&mut self) -> Side<'_> {
        let (id, name) = (self.pfs.id, self.spec.to_string());
        Side::new(self, id, name)
    }
}

impl Ground for Near<'_> {
    fn fetch(&mut self) -> &mut dyn Fetch {
        &mut self.opened.view
    }

    fn renew(&mut self) -> Result<bool> {
        if !self.options.live {
            return Ok(false);
        }
        self.cx
            .ui
            .note(1, "overtaken by a writer; going on with a new view");
        let (opened, pfs) = taken(self.cx, &self.spec, &self.options)?;
        let is_same = pfs.data.unique_uuid == self.pfs.data.unique_uuid
            && pfs.is_slave() == self.pfs.is_slave()
            && pfs.sync_end >= self.pfs.sync_end;
        if !is_same {
            let text =
                "the PFS was made anew, taken back or changed its kind meanwhile: start again";
            return Err(Error::new(Class::Incompatible, text));
        }
        // What was known before the first question stays: answers are about that.
        self.opened = opened;
        Ok(true)
    }
}

/// A view and the PFS in it.
fn taken(cx: &Context, spec: &Spec, options: &ViewOptions) -> Result<(Opened, Pfs)> {
    let mut lost = 0;
    loop {
        let taken = open_with(cx, spec, options).and_then(|mut opened| {
            let pfs = opened.pfs().map_err(|error| error.context(spec))?;
            Ok((opened, pfs))
        });
        match taken {
            Err(error) if error.class() == Class::Expired => {
                lost += 1;
                if lost >= VIEWS_MAX {
                    return Err(error.context(format!(
                        "writers overtook {lost} views in a row: try again once less is written"
                    )));
                }
                std::thread::sleep(follow::backoff(Class::Expired, lost, chance()));
                cx.goes_on()?;
            }
            other => return other,
        }
    }
}

/// A PFS that a program on another machine answers for.
pub(super) struct Elsewhere<'c> {
    link: Far<Input<'c, ChildStdout>, ChildStdin>,
    standing: Standing,
    peer: Peer,
}

/// Finds everybody who is to be asked; those on other machines by a program that does `directive`.
pub(super) fn ends<'c>(
    cx: &'c Context,
    specs: &[&Spec],
    args: &RemoteArgs,
    directive: &str,
) -> anyhow::Result<Vec<End<'c>>> {
    let is_near = |spec: &&&Spec| matches!(spec, Spec::Local(_));
    let near = specs.iter().filter(is_near).count();
    let options = view_options(cx);
    // All of them together have the memory that the options give.
    let options = ViewOptions {
        cache_bytes: options.cache_bytes / near.max(1),
        ..options
    };
    let end = |spec: &&Spec| match spec {
        Spec::Local(_) => {
            let near = Near::open(cx, spec, options.clone())?;
            Ok(End::Near(Box::new(near)))
        }
        Spec::Remote(there) => {
            let far = first(&programs_asked(args), |program| {
                call(cx, args, there, program, directive)
            })?;
            Ok(End::Far(Box::new(far)))
        }
    };
    specs.iter().map(end).collect()
}

/// Starts `program` over there, and hears who answers.
fn call<'c>(
    cx: &'c Context,
    args: &RemoteArgs,
    there: &Remote,
    program: &OsString,
    directive: &str,
) -> Result<Ended<Elsewhere<'c>>> {
    let mut peer = Ends::new(args, None, cx).start(there, program, directive)?;
    let (to, from) = peer.ends()?;
    let name = Spec::Remote(there.clone()).to_string();
    match Far::meet(Input::new(cx, from), to, name) {
        Ok((link, standing)) => Ok(Ended::As(Ok(Elsewhere {
            link,
            standing,
            peer,
        }))),
        Err(error) => {
            // Whoever is to stop waits for nobody.
            cx.goes_on()?;
            let gone = peer.gone()?;
            cx.goes_on()?;
            Ok(gone.failed(error.into()))
        }
    }
}

/// What came of it all, where this end came to `ours`: those elsewhere are told that there are no more
/// questions, and how they end counts too.
pub(super) fn over(ends: Vec<End<'_>>, cx: &Context, ours: Outcome) -> Outcome {
    let mut peers = Vec::new();
    for end in ends {
        if let End::Far(far) = end {
            // All links end before anybody is waited for.
            drop(far.link);
            peers.push(far.peer);
        }
    }
    let mut outcome = ours;
    for peer in peers {
        if outcome.is_err() {
            // Whoever is to stop waits for nobody, and may have stopped the others first.
            cx.goes_on()?;
        }
        outcome = peer.gone()?.judged(outcome).outcome();
    }
    if outcome.is_err() {
        cx.goes_on()?;
    }
    outcome
}

/// The other end of a link: answers, on standard output, what is asked on standard input about `spec`.
pub(super) fn answer(cx: &Context, spec: &Spec, service: Service) -> Outcome {
    let out = cx.raw(true)?;
    if io::stdin().is_terminal() {
        let text =
            "standard input is a terminal; two-way (-2) somebody who asks is at its other end";
        return Err(Error::usage(text).into());
    }
    let mut near = Near::open(cx, spec, view_options(cx))?;
    let standing = near.standing();
    let mut host = Host {
        clock: &mut Wall::new(cx),
        progress: &mut Wish(cx),
    };
    let link = (Input::new(cx, io::stdin()), out);
    serve(&standing, &mut near.side(), service, link, &mut host)?;
    Ok(Exit::Done)
}

/// The wish to stop. Whoever asks shows how far it is.
struct Wish<'c>(&'c Context);

impl Progress for Wish<'_> {
    fn at(&mut self, _: &Status) -> Result<()> {
        self.0.goes_on()
    }
}
