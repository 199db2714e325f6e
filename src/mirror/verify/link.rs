//! A witness on another machine: whoever asks holds a [`Far`], and the other end [`serve`]s it.

use super::wire::{ASKS_MAX, Incoming, Message, own};
use super::{Answer, Ask, Seen, Standing, Tick, Witness};
use crate::error::{Class, Error, Result};
use crate::format::Tid;
use crate::mirror::Clock;
use crate::mirror::lag::{Change, Changes};
use crate::progress::{Progress, Status};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// Between two words on how far an answer is.
const PAUSE: Duration = Duration::from_secs(1);

/// One end of a link.
struct End<R, W> {
    from: Incoming<R>,
    to: W,
    written: u64,
}

impl<R: Read, W: Write> End<R, W> {
    fn new(from: R, to: W) -> End<R, W> {
        let (from, written) = (Incoming::new(from), 0);
        End { from, to, written }
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        let mut bytes = Vec::new();
        message.append(&mut bytes);
        let sent = self.to.write_all(&bytes).and_then(|()| self.to.flush());
        sent.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Error::new(Class::Protocol, "the other end is gone"),
            _ => own(error, "writing to the link"),
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn unexpected(what: &str) -> Error {
    Error::new(Class::Protocol, format!("the other end said {what}"))
}

/// A PFS that the other end of a link answers for.
pub struct Far<R, W> {
    end: End<R, W>,
    name: String,
    /// Questions that were sent and not answered yet.
    posed: Option<Vec<Ask>>,
}

impl<R: Read, W: Write> Far<R, W> {
    /// Hears who answers. Errors begin with `name`.
    ///
    /// Errors: class `Protocol` for a link that ends or says something else, `Io`.
    pub fn meet(from: R, to: W, name: impl Into<String>) -> Result<(Far<R, W>, Standing)> {
        let (mut end, name) = (End::new(from, to), name.into());
        let standing = match end.from.next() {
            Ok(Some(Message::Standing(standing))) => Ok(*standing),
            Ok(Some(_)) => Err(unexpected("something else than who it is")),
            Ok(None) => Err(unexpected("nothing")),
            Err(error) => Err(error),
        };
        let standing = standing.map_err(|error| error.context(&name))?;
        let posed = None;
        Ok((Far { end, name, posed }, standing))
    }

    /// Bytes that crossed the link, both ways together.
    pub fn crossed(&self) -> u64 {
        self.end.from.bytes() + self.end.written
    }

    /// The next message that is more than a word on how far it is.
    fn next(&mut self, tick: Tick<'_>) -> Result<Message> {
        loop {
            match self.end.from.next()? {
                Some(Message::Seen(seen)) => tick(seen)?,
                Some(message) => return Ok(message),
                None => return Err(unexpected("no more, where an answer was due")),
            }
        }
    }

    fn answers(&mut self, count: usize, tick: Tick<'_>) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(count);
        for _ in 0..count {
            match self.next(&mut *tick)? {
                Message::Answer(answer) => answers.push(answer),
                _ => return Err(unexpected("something else than an answer")),
            }
        }
        Ok(answers)
    }

    fn ask(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        if let Some(posed) = self.posed.take() {
            let answers = self.answers(posed.len(), &mut *tick)?;
            if posed == asks {
                return Ok(answers);
            }
        }
        let mut all = Vec::with_capacity(asks.len());
        for some in asks.chunks(ASKS_MAX) {
            self.end.send(&Message::Asks(some.to_vec()))?;
            all.append(&mut self.answers(some.len(), &mut *tick)?);
        }
        Ok(all)
    }

    fn changed(&mut self, first: Tid, last: Tid, tick: Tick<'_>) -> Result<Option<Change>> {
        self.end.send(&Message::Newest(first, last))?;
        match self.next(tick)? {
            Message::Changed(change) => Ok(change),
            _ => Err(unexpected("something else than what changed")),
        }
    }
}

impl<R: Read, W: Write> Witness for Far<R, W> {
    fn pose(&mut self, asks: &[Ask]) -> Result<()> {
        if self.posed.is_some() || asks.len() > ASKS_MAX {
            return Ok(());
        }
        let sent = self.end.send(&Message::Asks(asks.to_vec()));
        sent.map_err(|error| error.context(&self.name))?;
        self.posed = Some(asks.to_vec());
        Ok(())
    }

    fn answer(&mut self, asks: &[Ask], tick: Tick<'_>) -> Result<Vec<Answer>> {
        let answers = self.ask(asks, tick);
        answers.map_err(|error| error.context(&self.name))
    }
}

impl<R: Read, W: Write> Changes for Far<R, W> {
    fn newest(&mut self, first: Tid, last: Tid, tick: Tick<'_>) -> Result<Option<Change>> {
        let change = self.changed(first, last, tick);
        change.map_err(|error| error.context(&self.name))
    }
}

/// What may be asked over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// What ranges hold: for `mirror-verify`.
    Ranges,
    /// What changed last: for `mirror-status`.
    Changes,
}

/// What answering works with.
pub struct Host<'h> {
    /// The time.
    pub clock: &'h mut dyn Clock,
    /// Hears of progress, and can end it.
    pub progress: &'h mut dyn Progress,
}

/// Says who is asked, and lets `side` answer what is asked over the link until it ends.
///
/// Errors: those of `side`; class `Protocol` for a link that breaks, and for questions that are none
/// of `service` or about what lies beyond the state that the PFS shows.
pub fn serve<S: Witness + Changes>(
    standing: &Standing,
    side: &mut S,
    service: Service,
    (from, to): (impl Read, impl Write),
    host: &mut Host<'_>,
) -> Result<()> {
    let mut end = End::new(from, to);
    end.send(&Message::Standing(Box::new(*standing)))?;
    let shown = standing.pfs.tree(None).asof;
    let within = |tid: Tid| match tid <= shown {
        true => Ok(()),
        false => Err(unexpected(&format!("{tid}, and only {shown} is shown"))),
    };
    let mut status = Status::default();
    while let Some(message) = end.from.next()? {
        let mut word = Word {
            said: host.clock.now(),
            seen: Seen::default(),
        };
        match (message, service) {
            (Message::Asks(asks), Service::Ranges) => {
                for ask in &asks {
                    within(ask.as_of)?;
                    let mut tick = |seen| word.tick(seen, &mut end, &mut status, host);
                    let answers = side.answer(std::slice::from_ref(ask), &mut tick)?;
                    for answer in answers {
                        end.send(&Message::Answer(answer))?;
                    }
                }
            }
            (Message::Newest(first, last), Service::Changes) => {
                within(last)?;
                let mut tick = |seen| word.tick(seen, &mut end, &mut status, host);
                let change = side.newest(first, last, &mut tick)?;
                end.send(&Message::Changed(change))?;
            }
            _ => return Err(unexpected("what is no question here")),
        }
    }
    Ok(())
}

/// A word on how far an answer is, in the making.
struct Word {
    said: Duration,
    seen: Seen,
}

impl Word {
    fn tick<R: Read, W: Write>(
        &mut self,
        seen: Seen,
        end: &mut End<R, W>,
        status: &mut Status,
        host: &mut Host<'_>,
    ) -> Result<()> {
        status.items += seen.records;
        status.bytes += seen.bytes;
        status.object = seen.object;
        host.progress.at(status)?;
        self.seen.records += seen.records;
        self.seen.bytes += seen.bytes;
        self.seen.object = seen.object;
        let now = host.clock.now();
        if now.saturating_sub(self.said) >= PAUSE {
            self.said = now;
            end.send(&Message::Seen(std::mem::take(&mut self.seen)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
