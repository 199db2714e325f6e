//! The end of a process that does not come to a safe point: its output or its input stands still,
//! or a device does not answer.

use super::Context;
use super::ui::Ui;
use crate::error::Class;
use signal_hook::low_level;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);
/// The same for one that writes to volumes: what it has under way is worth ending. It may be cut off
/// all the same, for what was committed stays.
const GRACE_WRITING: Duration = Duration::from_secs(60);
/// How long it is not mentioned that a command has not ended yet: most end at once.
const SILENCE: Duration = Duration::from_millis(100);

/// Why a command is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Signal,
    Deadline,
}

/// Ends the process with status 9 if it has not ended by itself a little after the first byte of
/// `signals`, or after the time limit. Nothing is flushed then: a stream is cut, and lacks the
/// record that ends it. A command that `writes` to volumes is given more time.
pub fn start(cx: &Context, mut signals: UnixStream, writes: bool) -> io::Result<()> {
    let grace = if writes { GRACE_WRITING } else { GRACE };
    let (ui, deadline) = (cx.ui.clone(), cx.deadline());
    let watch = move || {
        let Some(why) = wait(&mut signals, deadline) else {
            return;
        };
        thread::sleep(SILENCE);
        if why == Why::Signal {
            say(&ui, "ending at the next safe point; again to end at once");
        }
        thread::sleep(grace - SILENCE);
        say(
            &ui,
            match why {
                Why::Signal => "no safe point was reached; ended at once",
                Why::Deadline => {
                    "the time limit (-t) is reached, but no safe point was; ended at once"
                }
            },
        );
        thread::sleep(SILENCE);
        low_level::exit(Class::Interrupted.exit_code().into());
    };
    let name = "watchdog".to_owned();
    thread::Builder::new().name(name).spawn(watch)?;
    Ok(())
}

/// Waits for a signal or for the deadline; `None` if neither can come any more.
fn wait(signals: &mut UnixStream, deadline: Option<Instant>) -> Option<Why> {
    loop {
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Some(Why::Deadline);
        }
        signals.set_read_timeout(left).ok()?;
        match signals.read(&mut [0]) {
            Ok(0) => return None,
            Ok(_) => return Some(Why::Signal),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return None,
            },
        }
    }
}

/// Says `text` without waiting for it to be heard: standard error may be what stands still.
fn say(ui: &Ui, text: &'static str) {
    let ui = ui.clone();
    // Ending matters more than telling.
    let _ = thread::Builder::new().spawn(move || ui.note(0, text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_signal_or_the_deadline() {
        let (mut raise, mut heard) = UnixStream::pair().expect("a pair");
        let soon = Instant::now() + Duration::from_millis(30);
        assert_eq!(wait(&mut heard, Some(soon)), Some(Why::Deadline));
        assert!(Instant::now() >= soon);
        raise.write_all(&[0]).expect("room for a byte");
        assert_eq!(wait(&mut heard, None), Some(Why::Signal));
        drop(raise);
        assert_eq!(wait(&mut heard, None), None);
    }
}
