//! Time, processor time and peak memory of this process.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::time::Instant;

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Wall time in nanoseconds.
    pub wall_ns: u64,
    /// User and system time in nanoseconds, all threads.
    pub cpu_ns: u64,
    /// Things done: elements, records, objects.
    pub items: u64,
    /// Bytes produced or looked at.
    pub bytes: u64,
    /// Bytes read from devices, as the engine counts them.
    pub device_bytes: u64,
    /// Bytes written to devices, as the store counts them.
    pub written: u64,
    /// Nanoseconds spent waiting for flushes.
    pub flush_ns: u64,
    /// Highest resident set of the process so far (VmHWM), in bytes.
    pub peak_rss: u64,
}

impl Sample {
    /// One line of text.
    pub fn line(&self) -> String {
        let Sample {
            wall_ns,
            cpu_ns,
            items,
            bytes,
            device_bytes,
            written,
            flush_ns,
            peak_rss,
        } = self;
        format!("{wall_ns} {cpu_ns} {items} {bytes} {device_bytes} {written} {flush_ns} {peak_rss}")
    }

    /// Reads [`Sample::line`].
    pub fn parse(line: &str) -> Sample {
        let numbers = line.split(' ').map(|n| n.parse().expect("a number"));
        let numbers: Vec<u64> = numbers.collect();
        let [
            wall_ns,
            cpu_ns,
            items,
            bytes,
            device_bytes,
            written,
            flush_ns,
            peak_rss,
        ] = numbers[..]
        else {
            panic!("not a sample: {line}");
        };
        Sample {
            wall_ns,
            cpu_ns,
            items,
            bytes,
            device_bytes,
            written,
            flush_ns,
            peak_rss,
        }
    }

    /// Bytes per second of wall time.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 1e9 / self.wall_ns as f64
    }

    /// Items per second of processor time.
    pub fn items_per_cpu(&self) -> f64 {
        self.items as f64 * 1e9 / self.cpu_ns as f64
    }
}

/// A running measurement.
pub struct Watch {
    start: Instant,
    cpu_ns: u64,
}

impl Watch {
    /// Starts now.
    pub fn start() -> Watch {
        Watch {
            start: Instant::now(),
            cpu_ns: cpu_ns(),
        }
    }

    /// Stops; what was done is for the caller to fill in.
    pub fn stop(self) -> Sample {
        Sample {
            wall_ns: self.start.elapsed().as_nanos() as u64,
            cpu_ns: cpu_ns() - self.cpu_ns,
            peak_rss: peak_rss(),
            ..Sample::default()
        }
    }
}

fn cpu_ns() -> u64 {
    cpu_ns_of(UsageWho::RUSAGE_SELF)
}

/// User and system time of all children that have ended, in nanoseconds.
pub fn cpu_ns_of_children() -> u64 {
    cpu_ns_of(UsageWho::RUSAGE_CHILDREN)
}

fn cpu_ns_of(who: UsageWho) -> u64 {
    let usage = getrusage(who).expect("a process's usage");
    let time = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    time.cast_unsigned() * 1000
}

/// The highest resident set of this process so far, in bytes.
pub fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .expect("VmHWM in kB");
    kib.trim().parse::<u64>().expect("a number") * 1024
}

/// The highest resident set that any child of this process had, in bytes.
pub fn peak_rss_of_children() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the children's usage");
    usage.max_rss().cast_unsigned() * 1024
}

/// Median, least and greatest of some figures.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Spread {
        let mut all: Vec<f64> = figures.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        let median = if all.len() % 2 == 1 {
            all[middle]
        } else {
            (all[middle - 1] + all[middle]) / 2.0
        };
        Spread {
            median,
            min: all[0],
            max: all[all.len() - 1],
        }
    }
}
