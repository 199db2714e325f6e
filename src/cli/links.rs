//! `mirror-stream` over links: each slave of another machine, and each of a source over there, is
//! followed by itself, and its link made anew whenever it breaks.

use super::args::MirrorStreamArgs;
use super::mirror::Wall;
use super::remote::{Ends, apart, worst};
use super::slave::Slave;
use super::spec::Spec;
use super::stream::{Trouble, tell};
use super::{Context, Exit, Outcome, errors, views};
use crate::error::{Class, Error};
use crate::mirror::{Clock, follow};
use serde_json::json;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A link that lasted so long, and over which the other end spoke, was none of those that fail in a row.
const LASTING: Duration = Duration::from_secs(10);

/// `mirror-stream` wherever its ends are: to the slaves of this machine together, by `here`, and
/// beside it to those of others, each by itself. The exit status is the highest.
pub(super) fn everywhere(
    args: &MirrorStreamArgs,
    here: impl FnOnce(&[Spec]) -> Outcome,
    cx: &Context,
) -> Outcome {
    let (near, far) = apart(&args.source, &args.targets)?;
    // What is wrong on this machine from the start does not become right by waiting.
    views::files(&args.source)?;
    for target in &far {
        if let Spec::Local(_) = target {
            drop(Slave::new(cx, target)?);
        }
    }
    let at_work = AtomicUsize::new(far.len() + usize::from(!near.is_empty()));
    let links = Mutex::new(Vec::new());
    let outcome = thread::scope(|scope| {
        let at_work = &at_work;
        let links = &links;
        let follow = |target| {
            let mut tries = 0;
            let outcome = linked(args, target, cx, &mut tries);
            let told = json!({
                "target": target.to_string(),
                "tries": tries,
                "error": outcome.as_ref().err().map(errors::text_of),
            });
            links
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(told);
            left(cx, target, &outcome, at_work);
            outcome
        };
        let far: Vec<_> = far
            .iter()
            .map(|target| scope.spawn(move || follow(*target)))
            .collect();
        let ours = (!near.is_empty()).then(|| {
            let outcome = here(&near);
            left(cx, &near[0], &outcome, at_work);
            outcome
        });
        let theirs = far.into_iter().map(|link| {
            let panicked = || Err(Error::new(Class::Other, "a link's thread has died").into());
            link.join().unwrap_or_else(|_| panicked())
        });
        worst(ours.into_iter().chain(theirs), cx)
    });
    let links = links.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !links.is_empty() {
        cx.events.summary(json!({"links": links}));
    }
    outcome
}

/// Says that a slave is left for good while the stream goes on for others: nobody waits for its end to
/// hear of it.
fn left(cx: &Context, target: &Spec, outcome: &Outcome, at_work: &AtomicUsize) {
    let others = at_work.fetch_sub(1, Ordering::Relaxed) > 1;
    let Err(error) = outcome else { return };
    if !others || cx.goes_on().is_err() {
        return;
    }
    let error = errors::text_of(error);
    let fields = json!({"target": target.to_string(), "error": &error});
    // Whoever reads no events is found out where something is acknowledged.
    let _ = cx.events.emit("lost", fields).and_then(|()| cx.flush());
    cx.ui
        .warn(format_args!("{error}; the stream goes on without {target}"));
}

/// Follows the source for one slave, over one link after another, and counts them.
fn linked(args: &MirrorStreamArgs, target: &Spec, cx: &Context, tries: &mut u64) -> Outcome {
    let ends = Ends::new(&args.remote, Some(cx.global.interval), cx);
    let mut trouble = Trouble::default();
    loop {
        let start = Instant::now();
        *tries += 1;
        let outcome = ends.copy(&args.source, target);
        // Nobody follows for events that nobody reads.
        cx.flush()?;
        let is_lost = match &outcome {
            Ok(exit) => matches!(exit, Exit::Done | Exit::Interrupted),
            Err(error) => may_pass(errors::class_of(error)) && !errors::is_broken_pipe(error),
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
        if start.elapsed() >= LASTING && ends.spoke() {
            trouble = Trouble::default();
        }
        if !trouble.again(error.class(), cx.global.retries) {
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
