//! `mirror-stream` over links: each slave of another machine, and each of a source over there, is
//! followed by itself, and its link made anew whenever it breaks.

use super::args::MirrorStreamArgs;
use super::mirror::Wall;
use super::remote::{Ends, apart, worst};
use super::spec::Spec;
use super::stream::{Trouble, tell};
use super::{Context, Exit, Outcome, errors};
use crate::error::{Class, Error};
use crate::mirror::{Clock, follow};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// A link that lasted so long was none of those that fail in a row.
const LASTING: Duration = Duration::from_secs(10);

/// `mirror-stream` wherever its ends are: to the slaves of this machine together, by `here`, and
/// beside it to those of others, each by itself. The exit status is the highest.
pub(super) fn everywhere(
    args: &MirrorStreamArgs,
    here: impl FnOnce(&[Spec]) -> Outcome,
    cx: &Context,
) -> Outcome {
    let (near, far) = apart(&args.source, &args.targets)?;
    thread::scope(|scope| {
        let links: Vec<_> = far
            .into_iter()
            .map(|target| scope.spawn(move || linked(args, target, cx)))
            .collect();
        let ours = (!near.is_empty()).then(|| here(&near));
        let theirs = links.into_iter().map(|link| {
            let panicked = || Err(Error::new(Class::Other, "a link's thread has died").into());
            link.join().unwrap_or_else(|_| panicked())
        });
        worst(ours.into_iter().chain(theirs), cx)
    })
}

/// Follows the source for one slave, over one link after another.
fn linked(args: &MirrorStreamArgs, target: &Spec, cx: &Context) -> Outcome {
    let ends = Ends::new(&args.remote, Some(args.interval), cx);
    let mut trouble = Trouble::default();
    loop {
        let start = Instant::now();
        let outcome = ends.copy(&args.source, target);
        let is_lost = match &outcome {
            Ok(exit) => matches!(exit, Exit::Done | Exit::Interrupted),
            Err(error) => may_pass(errors::class_of(error)),
        };
        if is_lost && cx.stop().load(Ordering::Relaxed) {
            // It was asked to end, and that is what it did.
            return Ok(Exit::Done);
        }
        if is_lost {
            cx.goes_on()?;
        }
        let error = match outcome {
            // The source's end was told to end, here or there.
            Ok(Exit::Done | Exit::Interrupted) => {
                Error::new(Class::Protocol, "the other end has ended the stream")
            }
            Err(error) if is_lost => Error::new(errors::class_of(&error), errors::text_of(&error)),
            other => return other,
        };
        if start.elapsed() >= LASTING {
            trouble = Trouble::default();
        }
        if !trouble.again(error.class(), args.retries) {
            return Err(error.context(target).into());
        }
        tell(cx, target, &trouble, &error);
        Wall::new(cx).sleep(trouble.rest());
    }
}

/// Whether a link that broke so is worth another try.
fn may_pass(class: Class) -> bool {
    follow::may_pass(class) || matches!(class, Class::Protocol | Class::Interrupted)
}
