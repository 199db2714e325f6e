//! What is for people: notes, warnings and progress, on standard error.

use super::args::When;
use super::gauge::Gauge;
use super::json::Events;
use super::manager::Manager;
use crate::error::{Class, Error, Result};
use crate::progress::{Progress, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two progress lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long an operation runs before a bar shows: short ones need none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two drawings of a bar.
const REDRAW: Duration = Duration::from_millis(100);

/// What the world outside asks of a running command.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// End at the next safe point: `SIGINT`, `SIGTERM`.
    pub stop: Arc<AtomicBool>,
    /// Say how far you are: `SIGUSR1`.
    pub poke: Arc<AtomicBool>,
}

/// How people want to be spoken to.
#[derive(Clone, Debug)]
pub struct Manners {
    /// 0 is usual, above is talkative, below is quiet.
    pub level: i32,
    /// When to show progress.
    pub progress: When,
    /// Whether standard error is a terminal.
    pub terminal: bool,
    /// When to end, if a time limit was given.
    pub deadline: Option<Instant>,
}

/// Speaks to people. Copies share the terminal.
#[derive(Clone)]
pub struct Ui {
    manners: Manners,
    signals: Signals,
    /// Where events go to standard error, everything for people becomes an event.
    events: Option<Events>,
    bar: Arc<Mutex<Option<ProgressBar>>>,
    manager: Manager,
}

impl Ui {
    /// A way to people. `events` is given where events share standard error.
    pub fn new(manners: Manners, signals: Signals, events: Option<Events>) -> Ui {
        Ui {
            manners,
            signals,
            events,
            bar: Arc::default(),
            manager: Manager::default(),
        }
    }

    /// The same, which also tells a service manager that the command is alive.
    pub fn under(self, manager: Manager) -> Ui {
        Ui { manager, ..self }
    }

    /// The service manager that waits for word of this command, if any does.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Says `text` if people want to hear that much: level 0 is said unless `-q`, 1 with `-v`.
    pub fn note(&self, level: i32, text: impl Display) {
        if level <= self.manners.level {
            self.message("note", &text.to_string(), &text.to_string());
        }
    }

    /// Says what is not right and does not end the command; `-q` does not silence it.
    pub fn warn(&self, text: impl Display) {
        self.message("warning", &text.to_string(), &format!("warning: {text}"));
    }

    /// An error of class `Interrupted` once a signal or the time limit asks for the end.
    pub fn goes_on(&self) -> Result<()> {
        self.manager.alive();
        let over = |end| Instant::now() >= end;
        if self.signals.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Interrupted, "interrupted"));
        }
        if self.manners.deadline.is_some_and(over) {
            let text = "the time limit (-t) is reached";
            return Err(Error::new(Class::Interrupted, text));
        }
        Ok(())
    }

    /// How talkative to be.
    pub fn level(&self) -> i32 {
        self.manners.level
    }

    /// A display for one operation called `title` that counts `unit`s (a plural).
    pub fn meter(&self, title: impl Into<String>, unit: &'static str) -> Meter {
        Meter {
            gauge: Gauge::new(title.into(), unit, INTERVAL),
            started: Instant::now(),
            drawn: None,
            ui: self.clone(),
        }
    }

    /// Takes the bar off the terminal before other lines go there; it comes back by itself.
    pub fn make_way(&self) {
        self.clear_bar();
    }

    /// Runs `write`, which writes lines to standard error, with the bar out of its way.
    pub fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        let bar = self
            .bar
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn message(&self, level: &str, plain: &str, line: &str) {
        // Nothing is left to tell people by if this fails.
        let _ = match &self.events {
            Some(events) => events.emit("message", json!({"level": level, "text": plain})),
            None => {
                let line = super::escape::sentence(line);
                self.beside_bar(|| writeln!(std::io::stderr(), "mallet: {line}"))
            }
        };
    }

    fn has_bars(&self) -> bool {
        self.manners.terminal && self.events.is_none() && self.wants_progress()
    }

    fn wants_progress(&self) -> bool {
        self.manners.progress != When::Never && self.manners.level >= 0
    }

    fn show_bar(&self, gauge: &Gauge, now: Duration) {
        let mut slot = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = slot.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            bar.set_style(style(gauge));
            bar
        });
        bar.set_style(style(gauge));
        bar.set_position(gauge.permille().unwrap_or(0).into());
        bar.set_message(gauge.line(now));
    }

    fn clear_bar(&self) {
        let mut slot = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = slot.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(gauge: &Gauge) -> ProgressStyle {
    let template = match gauge.permille() {
        Some(_) => "{bar:20} {wide_msg}",
        None => "{spinner} {wide_msg}",
    };
    // Both templates are fixed and well formed.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The display of one operation; it goes away when dropped. Ends the operation when the user, a
/// signal or the time limit asks for it.
pub struct Meter {
    gauge: Gauge,
    started: Instant,
    /// When the bar was last drawn.
    drawn: Option<Duration>,
    ui: Ui,
}

impl Meter {
    fn show(&mut self, now: Duration) {
        if self.ui.signals.poke.swap(false, Ordering::Relaxed) {
            self.line(now);
        }
        if self.ui.has_bars() {
            let patience = match self.ui.manners.progress {
                When::Always => Duration::ZERO,
                _ => PATIENCE,
            };
            let stale = self
                .drawn
                .is_none_or(|drawn| now.saturating_sub(drawn) >= REDRAW);
            if now >= patience && stale {
                self.drawn = Some(now);
                self.ui.show_bar(&self.gauge, now);
            }
        } else if self.ui.wants_progress() && self.gauge.is_due(now) {
            self.line(now);
        }
    }

    fn line(&self, now: Duration) {
        let status = self.gauge.status();
        let _ = match &self.ui.events {
            Some(events) => events.emit(
                "progress",
                json!({
                    "items": status.items,
                    "bytes": status.bytes,
                    "bytes_total": status.bytes_total,
                    "object": super::json::hex(status.object.cast_unsigned()),
                }),
            ),
            None => {
                let line = self.gauge.line(now);
                self.ui.beside_bar(|| writeln!(std::io::stderr(), "{line}"))
            }
        };
    }
}

impl Progress for Meter {
    fn at(&mut self, status: &Status) -> Result<()> {
        self.gauge.take(status);
        self.show(self.started.elapsed());
        self.ui.goes_on()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.ui.clear_bar();
        if self.ui.manners.progress == When::Always && self.ui.wants_progress() {
            self.line(self.started.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ui(signals: Signals, deadline: Option<Instant>) -> Ui {
        let manners = Manners {
            level: -1,
            progress: When::Auto,
            terminal: false,
            deadline,
        };
        Ui::new(manners, signals, None)
    }

    #[test]
    fn a_signal_ends_the_operation() {
        let signals = Signals::default();
        let mut meter = ui(signals.clone(), None).meter("x", "y");
        assert!(meter.at(&Status::default()).is_ok());
        signals.stop.store(true, Ordering::Relaxed);
        let error = meter.at(&Status::default()).unwrap_err();
        assert_eq!(error.class(), Class::Interrupted);
    }

    #[test]
    fn time_runs_out() {
        let mut meter = ui(Signals::default(), Some(Instant::now())).meter("x", "y");
        let error = meter.at(&Status::default()).unwrap_err();
        assert_eq!(error.class(), Class::Interrupted);
    }

    #[test]
    fn a_poke_gives_one_line_even_to_the_quiet() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let events = Events::new(Some(out.clone()));
        let signals = Signals::default();
        let mut quiet = ui(signals.clone(), None);
        quiet.events = Some(events);
        let mut meter = quiet.meter("x", "y");
        signals.poke.store(true, Ordering::Relaxed);
        for items in 1..4 {
            meter
                .at(&Status {
                    items,
                    ..Status::default()
                })
                .unwrap();
        }
        drop(meter);
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "{\"type\":\"progress\",\"items\":1,\"bytes\":0,\"bytes_total\":null,\
             \"object\":\"0x0000000000000000\"}\n"
        );
    }
}
