//! What a service manager is told (sd_notify(3)): that a service is ready, how it stands, that it is
//! alive, that it ends. A datagram a message, to the socket that the environment names; nobody waits
//! for an answer, and nothing fails where none can be sent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The way to a service manager; none, and silent, where nobody waits for messages. Copies share it.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    way: Option<Arc<Way>>,
}

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    to: SocketAddr,
    is_ready: AtomicBool,
    /// How often it wants to hear that we are alive, and when it last did.
    beat: Option<(Duration, Mutex<Option<Instant>>)>,
}

impl Manager {
    /// The one that `variable` (the environment) names for the process with this id.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Manager {
        let way = || {
            let to = address(&variable("NOTIFY_SOCKET")?)?;
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that is busy is not waited for.
            socket.set_nonblocking(true).ok()?;
            let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
            let is_ours = variable("WATCHDOG_PID").is_none()
                || number("WATCHDOG_PID") == Some(u64::from(pid));
            let limit = number("WATCHDOG_USEC").filter(|limit| *limit > 0 && is_ours);
            // Twice in the time after which it loses patience.
            let beat = limit.map(|limit| (Duration::from_micros(limit / 2), Mutex::new(None)));
            Some(Arc::new(Way {
                socket,
                to,
                is_ready: AtomicBool::new(false),
                beat,
            }))
        };
        Manager { way: way() }
    }

    /// It works: said once, whoever calls how often.
    pub fn ready(&self) {
        if let Some(way) = &self.way
            && !way.is_ready.swap(true, Ordering::Relaxed)
        {
            way.send("READY=1");
        }
    }

    /// How it stands, in a line.
    pub fn status(&self, text: impl std::fmt::Display) {
        if let Some(way) = &self.way {
            let text = text.to_string().replace(|c: char| c.is_control(), " ");
            way.send(&format!("STATUS={text}"));
        }
    }

    /// It has come to a safe point. Costs next to nothing: it is said if it is time to.
    pub fn alive(&self) {
        let Some(way) = &self.way else { return };
        let Some((beat, last)) = &way.beat else {
            return;
        };
        // Where somebody else is at it, it is being said.
        let Ok(mut last) = last.try_lock() else {
            return;
        };
        if last.is_none_or(|last| last.elapsed() >= *beat) {
            *last = Some(Instant::now());
            way.send("WATCHDOG=1");
        }
    }

    /// It is about to end.
    pub fn stopping(&self) {
        if let Some(way) = &self.way {
            way.send("STOPPING=1");
        }
    }
}

impl Way {
    fn send(&self, text: &str) {
        // Nobody is left to tell if this fails, and the work goes on.
        let _ = self.socket.send_to_addr(text.as_bytes(), &self.to);
    }
}

/// A path, or a name without one (written with `@`, for the zero byte that it begins with).
fn address(name: &OsString) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens, and what it hears.
    struct Listener {
        socket: UnixDatagram,
        name: OsString,
    }

    impl Listener {
        /// At a name that nobody else has.
        fn new() -> Listener {
            let name = format!("mallet-{}", uuid::Uuid::new_v4());
            let address = SocketAddr::from_abstract_name(&name).expect("a short name");
            let socket = UnixDatagram::bind_addr(&address).expect("a name of its own");
            socket.set_nonblocking(true).expect("a socket");
            Listener {
                socket,
                name: format!("@{name}").into(),
            }
        }

        fn manager(&self, more: &[(&str, &str)]) -> Manager {
            let find = |name: &str| match name {
                "NOTIFY_SOCKET" => Some(self.name.clone()),
                name => {
                    let found = more.iter().find(|(other, _)| *other == name);
                    found.map(|(_, value)| value.into())
                }
            };
            Manager::of(find, 7)
        }

        fn heard(&self) -> Vec<String> {
            let mut heard = Vec::new();
            let mut bytes = [0; 4096];
            while let Ok(len) = self.socket.recv(&mut bytes) {
                heard.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
            }
            heard
        }
    }

    #[test]
    fn what_is_said() {
        let listener = Listener::new();
        let manager = listener.manager(&[]);
        manager.ready();
        manager.clone().ready();
        manager.status("one\ntwo\u{1b}[m");
        // It did not ask.
        manager.alive();
        manager.stopping();
        let expected = ["READY=1", "STATUS=one two [m", "STOPPING=1"];
        assert_eq!(listener.heard(), expected);
    }

    #[test]
    fn a_sign_of_life_when_it_is_time() {
        let listener = Listener::new();
        let day = [("WATCHDOG_USEC", "86400000000"), ("WATCHDOG_PID", "7")];
        let manager = listener.manager(&day);
        (0..100).for_each(|_| manager.alive());
        assert_eq!(listener.heard(), ["WATCHDOG=1"]);
        let soon = listener.manager(&[("WATCHDOG_USEC", "2000")]);
        for _ in 0..3 {
            soon.alive();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(listener.heard(), ["WATCHDOG=1"; 3]);
        // It asks somebody else.
        let other = [("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "8")];
        listener.manager(&other).alive();
        assert!(listener.heard().is_empty());
    }

    #[test]
    fn nobody_there() {
        for name in [
            None,
            Some(""),
            Some("relative"),
            Some("/no/such/socket"),
            Some("@"),
        ] {
            let manager = Manager::of(|_| name.map(OsString::from), 7);
            manager.ready();
            manager.status("x");
            manager.alive();
            manager.stopping();
        }
    }
}
