//! Permissions as chmod(1) takes them: octal, or changes of what is there.

/// Changes of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange(Vec<Step>);

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// These bits and no others.
    Exactly(u16),
    /// `op` applied to the bits of `who` among `what`; `maybe_x` adds execute where it makes sense.
    Change {
        who: u16,
        op: u8,
        what: u16,
        maybe_x: bool,
    },
}

impl ModeChange {
    /// What becomes of `mode`.
    pub fn apply(&self, mode: u16, is_directory: bool) -> u16 {
        self.0.iter().fold(mode, |mode, step| match *step {
            Step::Exactly(mode) => mode,
            Step::Change {
                who,
                op,
                what,
                maybe_x,
            } => {
                let execute = maybe_x && (is_directory || mode & 0o111 != 0);
                let what = who & (what | if execute { 0o111 } else { 0 });
                match op {
                    b'+' => mode | what,
                    b'-' => mode & !what,
                    _ => mode & !who | what,
                }
            }
        })
    }
}

/// Reads `644`, `u+rwx,go-w`, `a=rX`.
pub fn parse(text: &str) -> Result<ModeChange, String> {
    let wrong = || format!("{text:?} is no mode; write it as 644 or as u+rwx,go-w");
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return match u16::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(ModeChange(vec![Step::Exactly(mode)])),
            _ => Err(wrong()),
        };
    }
    let mut steps = Vec::new();
    for clause in text.split(',') {
        clause_steps(clause.as_bytes(), &mut steps).ok_or_else(wrong)?;
    }
    Ok(ModeChange(steps))
}

/// `[ugoa...][+-=][rwxXst...]`, with the second and third part repeated at will.
fn clause_steps(clause: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let mut rest = clause;
    let mut who = 0;
    while let Some((letter, more)) = rest.split_first() {
        who |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o1007,
            b'a' => 0o7777,
            _ => break,
        };
        rest = more;
    }
    if who == 0 {
        who = 0o7777;
    }
    let mut any = false;
    while let Some((op, more)) = rest.split_first() {
        if !matches!(op, b'+' | b'-' | b'=') {
            return None;
        }
        rest = more;
        let (mut what, mut maybe_x) = (0, false);
        while let Some((letter, more)) = rest.split_first() {
            match letter {
                b'r' => what |= 0o444,
                b'w' => what |= 0o222,
                b'x' => what |= 0o111,
                b's' => what |= 0o6000,
                b't' => what |= 0o1000,
                b'X' => maybe_x = true,
                _ => break,
            }
            rest = more;
        }
        steps.push(Step::Change {
            who,
            op: *op,
            what,
            maybe_x,
        });
        any = true;
    }
    any.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, before, directory, after) in [
            ("644", 0o7777, false, 0o644),
            ("0", 0o777, true, 0),
            ("4755", 0, false, 0o4755),
            ("u+rwx,go-w", 0o066, false, 0o744),
            ("a=r", 0o4777, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("g=", 0o2775, false, 0o705),
            ("u+s,g+s,o+t", 0o755, true, 0o7755),
            ("u-s", 0o6755, false, 0o2755),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("a+X", 0o744, false, 0o755),
            ("go=rX", 0o700, false, 0o755),
            ("u=rw-w", 0o777, false, 0o477),
        ] {
            let mode = parse(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(mode.apply(before, directory), after, "{text} of {before:o}");
        }
        for wrong in ["", "8", "10000", "u", "u+q", "+x,", "x+u", "0o644", "u +x"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
