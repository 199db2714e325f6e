//! Which record comes next: the session as a machine without I/O.

use super::window::{SourcePfs, Window};
use crate::format::mrecord::{self, Kind, PFSD, SHORT, padded};
use crate::format::record::PfsData;
use std::collections::VecDeque;

/// A record of the session, as opposed to those of the B-Tree.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // one exists at a time
pub enum Message {
    /// A PFS's state.
    Pfsd(PfsData),
    /// The batch is complete: the target may acknowledge it.
    Sync,
    /// The batch is over and gives nothing to acknowledge.
    Idle,
    /// The stream is over.
    Term,
}

impl Message {
    /// Its bytes, padding included, appended to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        match self {
            Message::Pfsd(pfs) => mrecord::append_pfsd(out, pfs, 0),
            Message::Sync => mrecord::append_mark(out, Kind::Sync),
            Message::Idle => mrecord::append_mark(out, Kind::Idle),
            Message::Term => mrecord::append_mark(out, Kind::Term),
        }
    }

    /// How many bytes those are.
    pub fn stream_bytes(&self) -> u64 {
        padded(match self {
            Message::Pfsd(_) => PFSD,
            _ => SHORT,
        }) as u64
    }
}

/// What the source has to do next.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant)] // one exists at a time
pub enum Action {
    /// Send a record.
    Send(Message),
    /// Decide on the windows of the batches to come, and tell them with [`Session::plan`].
    Plan,
    /// Send what is in this window, and tell how it ended with [`Session::bulk_ended`].
    Bulk(Window),
    /// Nothing; the session is over.
    Done,
}

/// How the records of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything in the window was sent.
    Complete,
    /// There was nothing to send.
    Idle,
    /// Everything that could be read was sent, and not everything could be read.
    Damaged,
    /// Stopped on request before the end.
    Stopped,
}

/// The state of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The state of the source's PFS comes next.
    Hello,
    /// The windows are to be decided on.
    Plan,
    /// The state of the PFS at the window's end comes next.
    Open,
    /// The records of the window come next.
    Bulk,
    /// The mark behind the records comes next.
    Close(Ended),
    /// The end of the stream comes next.
    Term,
    Done,
}

/// The source's side of a session.
///
/// A batch is `PFSD PFSD { REC PASS SKIP } (SYNC | IDLE)`, a stream is batches and one TERM. A batch
/// with damage does not end with SYNC, and no later one does: whoever acknowledges a TID
/// acknowledges everything up to it.
#[derive(Debug)]
pub struct Session {
    pfs: SourcePfs,
    end: crate::format::Tid,
    windows: VecDeque<Window>,
    state: State,
    damaged: bool,
}

impl Session {
    /// A one-way session that gives `pfs` up to `end` (the end of the last window).
    pub fn one_way(pfs: SourcePfs, end: crate::format::Tid) -> Session {
        Session {
            pfs,
            end,
            windows: VecDeque::new(),
            state: State::Hello,
            damaged: false,
        }
    }

    /// Decides on the windows of all batches, in order.
    pub fn plan(&mut self, windows: impl IntoIterator<Item = Window>) {
        self.windows.extend(windows);
        self.state = match self.windows.is_empty() {
            true => State::Term,
            false => State::Open,
        };
    }

    /// Takes notice of how the records of a batch ended.
    pub fn bulk_ended(&mut self, ended: Ended) {
        self.damaged |= ended == Ended::Damaged;
        self.state = match ended {
            // Neither SYNC nor IDLE: the target learns that the batch is not whole.
            Ended::Stopped => State::Term,
            ended => State::Close(ended),
        };
    }

    /// What to do next.
    pub fn action(&mut self) -> Action {
        match self.state {
            State::Hello => {
                self.state = match self.windows.is_empty() {
                    true => State::Plan,
                    false => State::Open,
                };
                Action::Send(Message::Pfsd(self.pfs.told(self.end)))
            }
            State::Plan => Action::Plan,
            State::Open => match self.windows.front() {
                Some(window) => {
                    self.state = State::Bulk;
                    Action::Send(Message::Pfsd(opening(&self.pfs, window)))
                }
                None => self.term(),
            },
            State::Bulk => match self.windows.front() {
                Some(window) => Action::Bulk(*window),
                None => self.term(),
            },
            State::Close(ended) => {
                self.windows.pop_front();
                self.state = match self.windows.is_empty() {
                    true => State::Term,
                    false => State::Hello,
                };
                Action::Send(match ended {
                    Ended::Complete if !self.damaged => Message::Sync,
                    _ => Message::Idle,
                })
            }
            State::Term => self.term(),
            State::Done => Action::Done,
        }
    }

    fn term(&mut self) -> Action {
        self.state = State::Done;
        Action::Send(Message::Term)
    }
}

/// The PFS record that opens a batch: it ends with the window, and begins with it if that is above
/// the floor, so that a saved stream carries its begin.
pub(super) fn opening(pfs: &SourcePfs, window: &Window) -> PfsData {
    let mut told = pfs.told(window.end);
    let floor = told.sync_beg_tid.get();
    told.sync_beg_tid.set(floor.max(window.begin.0));
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Tid;

    fn window(begin: u64, end: u64) -> Window {
        Window {
            begin: Tid(begin),
            end: Tid(end),
            resume: None,
        }
    }

    /// What a session with these windows says, if their records end as told.
    fn said(windows: &[Window], mut ends: &[Ended]) -> String {
        let pfs = SourcePfs {
            id: 1,
            data: PfsData::default_for([3; 16]),
            end: Tid(90),
        };
        let mut session = Session::one_way(pfs, Tid(90));
        let mut said = String::new();
        for _ in 0..100 {
            match session.action() {
                Action::Send(Message::Pfsd(pfs)) => {
                    let (begin, end) = (pfs.sync_beg_tid.get(), pfs.sync_end_tid.get());
                    said += &format!("pfsd {begin}-{end} ");
                }
                Action::Send(message) => said += &format!("{message:?} ").to_lowercase(),
                Action::Plan => session.plan(windows.iter().copied()),
                Action::Bulk(window) => {
                    said += &format!("bulk {}-{} ", window.begin.0, window.end.0);
                    session.bulk_ended(ends[0]);
                    ends = &ends[1..];
                }
                Action::Done => return said.trim_end().to_owned(),
            }
        }
        panic!("no end: {said}");
    }

    #[test]
    fn sessions() {
        use Ended::*;
        assert_eq!(
            said(&[window(5, 90)], &[Complete]),
            "pfsd 0-90 pfsd 5-90 bulk 5-90 sync term"
        );
        assert_eq!(
            said(&[window(91, 90)], &[Idle]),
            "pfsd 0-90 pfsd 91-90 bulk 91-90 idle term"
        );
        assert_eq!(
            said(&[window(5, 50), window(51, 90)], &[Complete, Complete]),
            "pfsd 0-90 pfsd 5-50 bulk 5-50 sync pfsd 0-90 pfsd 51-90 bulk 51-90 sync term"
        );
        assert_eq!(
            said(&[window(5, 50), window(51, 90)], &[Stopped]),
            "pfsd 0-90 pfsd 5-50 bulk 5-50 term"
        );
    }

    #[test]
    fn nothing_behind_damage_can_be_acknowledged() {
        use Ended::*;
        let windows = [window(1, 10), window(11, 20), window(21, 90)];
        let said = said(&windows, &[Complete, Damaged, Complete]);
        let marks: Vec<&str> = said
            .split(' ')
            .filter(|w| ["sync", "idle"].contains(w))
            .collect();
        assert_eq!(marks, ["sync", "idle", "idle"]);
    }

    #[test]
    fn sizes_are_those_of_the_bytes() {
        for message in [
            Message::Pfsd(PfsData::default_for([3; 16])),
            Message::Sync,
            Message::Idle,
            Message::Term,
        ] {
            let mut bytes = Vec::new();
            message.append(&mut bytes);
            assert_eq!(bytes.len() as u64, message.stream_bytes());
        }
    }
}
