//! Names made fit for people's eyes: a name on a medium may hold any byte, and a terminal obeys
//! some of them.

use std::fmt;

/// `bytes` as text on one line: control characters, characters that reorder a line, backslashes
/// and what is not UTF-8 are written as `\xHH` (`\n`, `\t` and `\\` in short).
pub fn name(bytes: &[u8]) -> Escaped<'_> {
    Escaped {
        bytes,
        backslash: true,
        blank: false,
    }
}

/// A sentence that may hold names, escaped or not: what [`name`] escapes, backslashes excepted.
pub fn sentence(text: &str) -> Escaped<'_> {
    Escaped {
        bytes: text.as_bytes(),
        backslash: false,
        blank: false,
    }
}

/// As [`name`], with blanks escaped too, for columns that a script may split.
pub fn word(bytes: &[u8]) -> Escaped<'_> {
    Escaped {
        bytes,
        backslash: true,
        blank: true,
    }
}

/// What [`name`] gives; format it with `{}`.
#[derive(Clone, Copy)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    backslash: bool,
    blank: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' if self.backslash => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    c if is_dangerous(c) || (c == ' ' && self.blank) => {
                        hex(f, c.encode_utf8(&mut [0; 4]).as_bytes())?;
                    }
                    c => fmt::Write::write_char(f, c)?,
                }
            }
            hex(f, chunk.invalid())?;
        }
        Ok(())
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "\\x{b:02x}"))
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and the characters that change
/// the direction of what follows or have no width.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The inverse, written the plain way.
    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let (&kind, tail) = rest.split_first().expect("something escaped");
            rest = tail;
            match kind {
                b'\\' => bytes.push(b'\\'),
                b'n' => bytes.push(b'\n'),
                b't' => bytes.push(b'\t'),
                b'x' => {
                    let digits = std::str::from_utf8(&rest[..2]).expect("digits");
                    bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
                    rest = &rest[2..];
                }
                other => panic!("\\{other}"),
            }
        }
        bytes
    }

    #[test]
    fn terminals_see_nothing_to_obey() {
        assert_eq!(name(b"\x1b[2Jx").to_string(), "\\x1b[2Jx");
        assert_eq!(
            name("é\u{9b}\u{202e}".as_bytes()).to_string(),
            "é\\xc2\\x9b\\xe2\\x80\\xae"
        );
        assert_eq!(name(b"a\xffb\\\n").to_string(), "a\\xffb\\\\\\n");
        assert_eq!(word(b"a b").to_string(), "a\\x20b");
        assert_eq!(
            sentence("\\x07 is not \x07").to_string(),
            "\\x07 is not \\x07"
        );
    }

    proptest! {
        #[test]
        fn every_name_comes_back(bytes: Vec<u8>) {
            let shown = name(&bytes).to_string();
            prop_assert!(!shown.chars().any(is_dangerous));
            prop_assert_eq!(unescape(&shown), &bytes[..]);
            let shown = word(&bytes).to_string();
            prop_assert!(!shown.contains(' '));
            prop_assert_eq!(unescape(&shown), bytes);
        }
    }
}
