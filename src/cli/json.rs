//! Events for scripts: one JSON object a line, each with a `"type"`, and a last
//! `{"type":"summary",…}`, errors included.

use serde_json::{Map, Value};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The fields of an event.
pub type Fields = Map<String, Value>;

/// Where events go, and the summary that gathers on the way. Copies share both.
#[derive(Clone)]
pub struct Events {
    out: Option<Arc<Mutex<dyn Write + Send>>>,
    summary: Arc<Mutex<Fields>>,
    /// Whether the summary was written: nothing follows it.
    over: Arc<AtomicBool>,
}

impl Events {
    /// Events written to `out`; dropped where there is none.
    pub fn new(out: Option<Arc<Mutex<dyn Write + Send>>>) -> Events {
        Events {
            out,
            summary: Arc::default(),
            over: Arc::default(),
        }
    }

    /// Whether anybody wants events: `--json` was given.
    pub fn on(&self) -> bool {
        self.out.is_some()
    }

    /// Writes one event of this type. `fields` is an object, as `json!({…})` makes it.
    pub fn emit(&self, kind: &str, fields: Value) -> io::Result<()> {
        let Some(out) = &self.out else {
            return Ok(());
        };
        let line = line(kind, fields);
        let mut out = lock(out);
        // Another thread may have something to say when all is said.
        if self.over.load(Ordering::Relaxed) {
            return Ok(());
        }
        out.write_all(line.as_bytes())
    }

    /// Adds fields to the summary; a field of the same name is replaced.
    pub fn summary(&self, fields: Value) {
        if let Value::Object(fields) = fields {
            lock(&self.summary).extend(fields);
        }
    }

    /// Writes the summary: the command's name, its exit status and its error first, then whatever
    /// was added.
    pub fn finish(&self, command: &str, status: u8, error: Option<&str>) -> io::Result<()> {
        let mut fields = Fields::new();
        fields.insert("command".into(), command.into());
        fields.insert("status".into(), status.into());
        fields.insert("error".into(), error.map_or(Value::Null, Value::from));
        fields.append(&mut lock(&self.summary).clone());
        let Some(out) = &self.out else {
            return Ok(());
        };
        let mut out = lock(out);
        self.over.store(true, Ordering::Relaxed);
        out.write_all(line("summary", Value::Object(fields)).as_bytes())?;
        out.flush()
    }
}

/// One event as a line.
fn line(kind: &str, fields: Value) -> String {
    let mut event = Fields::new();
    event.insert("type".into(), kind.into());
    if let Value::Object(fields) = fields {
        event.extend(fields);
    }
    let mut line = Value::Object(event).to_string();
    line.push('\n');
    line
}

/// A lock whose holder panicked holds a sink that is still good for a last line.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A 64-bit value as JSON numbers cannot carry it: `"0x…"` with 16 digits.
pub fn hex(value: u64) -> Value {
    Value::String(format!("0x{value:016x}"))
}

/// Puts a name or a path into `fields` as `key`; bytes that are not UTF-8 are replaced there, and
/// the exact bytes follow as `key_hex`.
pub fn put_name(fields: &mut Fields, key: &str, bytes: &[u8]) {
    fields.insert(key.into(), String::from_utf8_lossy(bytes).into());
    if std::str::from_utf8(bytes).is_err() {
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        fields.insert(format!("{key}_hex"), digits.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let events = Events::new(Some(out.clone()));
        events.emit("entry", json!({"path": "/a\nb"})).unwrap();
        events.summary(json!({"objects": 1}));
        events.summary(json!({"objects": 2}));
        events.finish("ls", 5, Some("no medium")).unwrap();
        events.emit("message", json!({})).unwrap();
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], r#"{"type":"entry","path":"/a\nb"}"#);
        assert_eq!(
            lines[1],
            r#"{"type":"summary","command":"ls","status":5,"error":"no medium","objects":2}"#
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn nobody_listens() {
        let events = Events::new(None);
        assert!(!events.on());
        events.emit("entry", json!({})).unwrap();
        events.finish("ls", 0, None).unwrap();
    }

    #[test]
    fn names_that_are_not_text() {
        let mut fields = Fields::new();
        put_name(&mut fields, "path", b"/a");
        assert_eq!(
            Value::Object(fields.clone()).to_string(),
            r#"{"path":"/a"}"#
        );
        put_name(&mut fields, "path", b"/\xff");
        assert_eq!(
            Value::Object(fields).to_string(),
            "{\"path\":\"/\u{fffd}\",\"path_hex\":\"2fff\"}"
        );
    }
}
