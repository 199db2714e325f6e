//! Findings on their way out: counted all, handed out up to a bound per rule.

use crate::format::{Fault, Offset, Rule};
use std::collections::{BTreeMap, HashSet};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; healthy volumes can have it (format.md §21, *warn*).
    Warn,
    /// Damage.
    Error,
}

impl Severity {
    /// The name in output.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Warn => "warn",
            Severity::Error => "error",
        }
    }
}

/// A violated rule with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule, the place, what was expected and what is there.
    pub fault: Fault,
    /// Whose structure it is: volume, node, object, view; may be empty.
    pub detail: String,
}

/// Places of one rule and severity that are remembered.
const TOLD_MAX: u64 = 1000;

/// Takes findings, counts them by rule and hands out the first of each.
pub(super) struct Sink<'a> {
    out: &'a mut dyn FnMut(Finding),
    per_rule: u64,
    full: Option<Rule>,
    counts: BTreeMap<(Rule, Severity), u64>,
    /// What was handed out, as far as it is remembered.
    told: HashSet<(Rule, Offset)>,
}

impl<'a> Sink<'a> {
    /// A sink that hands out at most `per_rule` findings of one rule and severity; all of the rule
    /// `full`.
    pub fn new(out: &'a mut dyn FnMut(Finding), per_rule: u64, full: Option<Rule>) -> Sink<'a> {
        Sink {
            out,
            per_rule,
            full,
            counts: BTreeMap::new(),
            told: HashSet::new(),
        }
    }

    /// Takes a finding.
    pub fn put(&mut self, severity: Severity, fault: Fault, detail: impl Into<String>) {
        let count = self.counts.entry((fault.rule, severity)).or_default();
        *count += 1;
        if *count <= self.per_rule || self.full == Some(fault.rule) {
            let detail = detail.into();
            if *count <= TOLD_MAX {
                self.told.insert((fault.rule, fault.at));
            }
            (self.out)(Finding {
                severity,
                fault,
                detail,
            });
        }
    }

    /// Takes damage that may come in floods of hundreds of thousands: it is put into words only
    /// where it is handed out.
    pub fn lazy_error(&mut self, rule: Rule, words: impl FnOnce() -> (Fault, String)) {
        let count = self.counts.entry((rule, Severity::Error)).or_default();
        if *count >= self.per_rule && self.full != Some(rule) {
            *count += 1;
            return;
        }
        let (fault, detail) = words();
        self.put(Severity::Error, fault, detail);
    }

    /// Takes damage.
    pub fn error(&mut self, fault: Fault, detail: impl Into<String>) {
        self.put(Severity::Error, fault, detail);
    }

    /// Takes what is worth knowing.
    pub fn warn(&mut self, fault: Fault, detail: impl Into<String>) {
        self.put(Severity::Warn, fault, detail);
    }

    /// Takes what is worth knowing, unless the same rule has been named at the same place: a
    /// snapshot shows again what other views have shown.
    pub fn warn_once(&mut self, fault: Fault, detail: impl Into<String>) {
        if !self.told.contains(&(fault.rule, fault.at)) {
            self.warn(fault, detail);
        }
    }

    /// All counts so far.
    pub fn counts(&self) -> &BTreeMap<(Rule, Severity), u64> {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Offset;

    #[test]
    fn floods_are_counted_and_cut() {
        let mut seen = Vec::new();
        let mut out = |finding| seen.push(finding);
        let mut sink = Sink::new(&mut out, 3, None);
        for at in 0..1000 {
            sink.error(Fault::new(Rule::DataCrc, Offset(at), "a", "b"), "");
            sink.warn(Fault::new(Rule::MirrorTid, Offset(at), "a", "b"), "");
        }
        let mut worded = 0;
        for at in 0..1000 {
            sink.lazy_error(Rule::NodeCrc, || {
                worded += 1;
                let fault = Fault::new(Rule::NodeCrc, Offset(at), "a", "b");
                (fault, String::new())
            });
        }
        assert_eq!(worded, 3);
        assert_eq!(sink.counts()[&(Rule::NodeCrc, Severity::Error)], 1000);
        assert_eq!(sink.counts()[&(Rule::DataCrc, Severity::Error)], 1000);
        assert_eq!(sink.counts()[&(Rule::MirrorTid, Severity::Warn)], 1000);
        assert_eq!(seen.len(), 9);
    }
}
