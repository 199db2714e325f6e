//! A link between the two ends of a session, simulated: bytes in both directions, of which only so
//! many are under way, in pieces that a seed decides, and what goes wrong with them by plan.

use super::crash::timeline::Random;
use mallet::format::mrecord::Body;
use mallet::io::sim::{SimDisk, Step};
use mallet::mirror::wire::Records;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the source to the target.
    There,
    /// From the target to the source.
    Back,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The link is cut when so many bytes have gone this way: no end hears anything behind that.
    Cut(Way, u64),
    /// From this byte on it is noise.
    Garbage(Way, u64),
    /// One bit of this byte is flipped.
    Flip(Way, u64),
    /// This byte comes twice.
    Twice(Way, u64),
    /// From this byte on nothing comes any more, and nobody is told.
    Silence(Way, u64),
    /// The target's process dies when so many bytes have gone this way.
    Death(Way, u64),
    /// The target's process dies before this write or flush of its device (0: the first).
    DeathAt(u64),
}

impl Trouble {
    /// Its place in the bytes of `way`.
    fn at(self, on: Way) -> Option<u64> {
        match self {
            Trouble::Cut(way, at)
            | Trouble::Garbage(way, at)
            | Trouble::Flip(way, at)
            | Trouble::Twice(way, at)
            | Trouble::Silence(way, at)
            | Trouble::Death(way, at) => (way == on).then_some(at),
            Trouble::DeathAt(_) => None,
        }
    }
}

/// How a link behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides the pieces and the noise.
    pub seed: u64,
    /// Most bytes under way in one direction.
    pub room: usize,
    /// What goes wrong.
    pub troubles: Vec<Trouble>,
}

impl Plan {
    /// A link on which nothing goes wrong.
    pub fn sound(seed: u64) -> Plan {
        Plan {
            seed,
            room: 64 << 10,
            troubles: Vec::new(),
        }
    }

    /// One on which this goes wrong.
    pub fn with(seed: u64, trouble: Trouble) -> Plan {
        Plan {
            troubles: vec![trouble],
            ..Plan::sound(seed)
        }
    }
}

struct State {
    plan: Plan,
    random: Random,
    /// There, and back.
    pipes: [Pipe; 2],
    /// Nothing goes through any more.
    down: bool,
    /// Both ends wait, so that nothing will ever come: as their users would, they give up.
    stuck: bool,
    /// Whether the end waits: that of the source, that of the target.
    waiting: [bool; 2],
    /// The target's disk, and how long its log was when the target's process died.
    disk: SimDisk,
    dead: Option<usize>,
}

#[derive(Default)]
struct Pipe {
    under_way: VecDeque<u8>,
    /// Bytes that were taken, and what they were.
    said: Vec<u8>,
    /// How long the disk's log was when a byte was taken, from that byte on.
    marks: Vec<(u64, usize)>,
    silent: bool,
    noisy: bool,
    writer_gone: bool,
    reader_gone: bool,
}

/// A link.
#[derive(Clone)]
pub struct Link(Arc<(Mutex<State>, Condvar)>);

/// The end that reads of one direction.
pub struct From(Link, Way);
/// The end that writes of one direction.
pub struct To(Link, Way);

impl Link {
    /// A link to a target with this disk.
    pub fn new(plan: &Plan, disk: &SimDisk) -> Link {
        let link = Link(Arc::new((
            Mutex::new(State {
                random: Random(plan.seed),
                plan: plan.clone(),
                pipes: Default::default(),
                down: false,
                stuck: false,
                waiting: [false; 2],
                disk: disk.clone(),
                dead: None,
            }),
            Condvar::new(),
        )));
        for trouble in &plan.troubles {
            if let Trouble::DeathAt(nth) = *trouble {
                link.dies_at(nth);
            }
        }
        link
    }

    fn dies_at(&self, nth: u64) {
        let (link, mut left) = (self.clone(), nth);
        let disk = self.lock().disk.clone();
        disk.set_hook(move |step, disk| {
            if matches!(step, Step::Read { .. }) {
                return;
            }
            if left == 0 {
                let state = &mut *link.lock();
                state.dead.get_or_insert(disk.now());
                state.down = true;
                link.changed(state);
            }
            left = left.wrapping_sub(1);
        });
    }

    /// The ends of the source: what it hears, and what it says.
    pub fn source(&self) -> (From, To) {
        (From(self.clone(), Way::Back), To(self.clone(), Way::There))
    }

    /// The ends of the target.
    pub fn target(&self) -> (From, To) {
        (From(self.clone(), Way::There), To(self.clone(), Way::Back))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no end panics within")
    }

    /// Lets an end wait until something has changed. Where both ends do, time passes until they give
    /// up.
    fn wait<'s>(&self, mut state: MutexGuard<'s, State>, end: usize) -> MutexGuard<'s, State> {
        state.waiting[end] = true;
        if (0..2).all(|end| state.waiting[end] || state.is_gone(end)) {
            state.stuck = true;
            self.0.1.notify_all();
            return state;
        }
        self.0.1.wait(state).expect("no end panics within")
    }

    fn changed(&self, state: &mut State) {
        state.waiting = [false; 2];
        self.0.1.notify_all();
    }

    /// Cuts it, so that whoever waits ends.
    pub fn cut(&self) {
        self.lock().down = true;
        self.0.1.notify_all();
    }

    /// How long the log of the target's disk was when the target's process died, if it did.
    pub fn dead(&self) -> Option<usize> {
        self.lock().dead
    }

    /// Everything that was said this way.
    pub fn said(&self, way: Way) -> Vec<u8> {
        self.lock().pipes[way as usize].said.clone()
    }

    /// What the target acknowledged, and how long its disk's log was then.
    pub fn acknowledged(&self) -> Vec<(u64, usize)> {
        let state = self.lock();
        let pipe = &state.pipes[Way::Back as usize];
        let mut records = Records::new(&pipe.said[..]);
        let mut acknowledged = Vec::new();
        while let Ok(Some(record)) = records.next() {
            if let Body::Update(tid) = record.body {
                let mark = pipe.marks.iter().rfind(|(from, _)| *from <= record.at);
                acknowledged.push((tid, mark.expect("a mark at the first byte").1));
            }
        }
        acknowledged
    }
}

impl State {
    /// Whether the end is there no more.
    fn is_gone(&self, end: usize) -> bool {
        self.pipes[end].writer_gone && self.pipes[1 - end].reader_gone
    }

    /// Lets happen what is to happen when so many bytes have gone this way.
    fn trip(&mut self, way: Way) {
        let passed = self.pipes[way as usize].said.len() as u64;
        for trouble in self.plan.troubles.clone() {
            if trouble.at(way).is_none_or(|at| at > passed) || self.down {
                continue;
            }
            match trouble {
                Trouble::Cut(..) => {
                    self.down = true;
                    if self.random.below(2) == 0 {
                        self.pipes[1 - way as usize].under_way.clear();
                    }
                }
                Trouble::Death(..) => {
                    self.down = true;
                    self.dead.get_or_insert(self.disk.now());
                }
                Trouble::Silence(..) => self.pipes[way as usize].silent = true,
                Trouble::Garbage(..) => self.pipes[way as usize].noisy = true,
                Trouble::Flip(..) | Trouble::Twice(..) | Trouble::DeathAt(_) => {}
            }
        }
    }

    /// Takes of `buf` what may go this way now; says how much. 0: nothing ever again.
    fn take(&mut self, way: Way, buf: &[u8]) -> usize {
        self.trip(way);
        let passed = self.pipes[way as usize].said.len() as u64;
        let (mut most, mut twice, mut flip) = (buf.len(), false, false);
        for trouble in &self.plan.troubles {
            match (trouble.at(way), trouble) {
                (Some(at), _) if at > passed => most = most.min((at - passed) as usize),
                (Some(at), Trouble::Flip(..)) if at == passed => (most, flip) = (1, true),
                (Some(at), Trouble::Twice(..)) if at == passed => (most, twice) = (1, true),
                _ => {}
            }
        }
        if self.down {
            return 0;
        }
        let piece = match self.random.below(4) {
            0 => 1 + self.random.below(16) as usize,
            1 => 1 + self.random.below(400) as usize,
            _ => usize::MAX,
        };
        let now = self.disk.now();
        let pipe = &mut self.pipes[way as usize];
        let room = self.plan.room.saturating_sub(pipe.under_way.len());
        let count = if pipe.silent {
            most
        } else {
            most.min(room).min(piece)
        };
        pipe.marks.push((passed, now));
        pipe.said.extend_from_slice(&buf[..count]);
        for byte in &buf[..count] {
            let sent = match (pipe.noisy, flip) {
                (true, _) => self.random.next() as u8,
                (false, true) => byte ^ 1 << self.random.below(8),
                (false, false) => *byte,
            };
            if !pipe.silent {
                pipe.under_way
                    .extend(std::iter::repeat_n(sent, 1 + usize::from(twice)));
            }
        }
        self.trip(way);
        count
    }
}

impl Write for To {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (link, way) = (self.0.clone(), self.1);
        let mut state = link.lock();
        loop {
            let pipe = &state.pipes[way as usize];
            if state.down || pipe.reader_gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let full = pipe.under_way.len() >= state.plan.room && !pipe.silent;
            if !full {
                let count = state.take(way, buf);
                link.changed(&mut state);
                if count > 0 || buf.is_empty() {
                    return Ok(count);
                }
                continue;
            }
            if state.stuck {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = link.wait(state, way as usize);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for From {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (link, way) = (self.0.clone(), self.1);
        let mut state = link.lock();
        loop {
            // A process that is dead reads nothing, whatever is under way to it.
            let dead = state.dead.is_some() && way == Way::There;
            let ready = if dead {
                0
            } else {
                state.pipes[way as usize].under_way.len()
            };
            let piece = match state.random.below(3) {
                0 => 1 + state.random.below(64) as usize,
                _ => usize::MAX,
            };
            let pipe = &mut state.pipes[way as usize];
            let over = pipe.writer_gone && !pipe.silent;
            if ready > 0 && !buf.is_empty() {
                let count = ready.min(buf.len()).min(piece);
                let bytes = pipe.under_way.drain(..count);
                buf.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
                link.changed(&mut state);
                return Ok(count);
            }
            if state.down || over {
                return Ok(0);
            }
            if state.stuck {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state = link.wait(state, 1 - way as usize);
        }
    }
}

impl Drop for From {
    fn drop(&mut self) {
        let state = &mut *self.0.lock();
        state.pipes[self.1 as usize].reader_gone = true;
        self.0.changed(state);
    }
}

impl Drop for To {
    fn drop(&mut self) {
        let state = &mut *self.0.lock();
        state.pipes[self.1 as usize].writer_gone = true;
        self.0.changed(state);
    }
}
