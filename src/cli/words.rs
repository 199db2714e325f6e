//! A line of a batch taken apart into words, as a shell does it: blanks between words, quotes and
//! backslashes to put them into one, `#` for a comment.

/// The words of `line`. Between `'` and `'` all is taken as it is; between `"` and `"` a backslash
/// takes the meaning from a `"` or a backslash; outside of quotes from any byte.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut rest = line.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' | b'\r' => words.extend(word.take()),
            b'#' if word.is_none() => break,
            b'\'' | b'"' => quoted(byte, &mut rest, word.get_or_insert_default())?,
            b'\\' => match rest.next() {
                Some(byte) => word.get_or_insert_default().push(byte),
                None => return Err("nothing follows the backslash at its end".into()),
            },
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Adds what stands before the closing `quote`.
fn quoted(
    quote: u8,
    rest: &mut impl Iterator<Item = u8>,
    word: &mut Vec<u8>,
) -> Result<(), String> {
    while let Some(byte) = rest.next() {
        match byte {
            byte if byte == quote => return Ok(()),
            b'\\' if quote == b'"' => match rest.next() {
                Some(byte @ (b'"' | b'\\')) => word.push(byte),
                Some(byte) => word.extend([b'\\', byte]),
                None => break,
            },
            byte => word.push(byte),
        }
    }
    Err(format!("a quote {} is not closed", char::from(quote)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words() {
        for (line, words) in [
            ("", &[][..]),
            ("  # a 'comment", &[]),
            ("rm  -r\t/a # gone", &["rm", "-r", "/a"]),
            ("put 'a b' /c\\ d", &["put", "a b", "/c d"]),
            (r#"put "a\"b\\\n" ''"#, &["put", r#"a"b\\n"#, ""]),
            ("a'b'\"c\"#d", &["abc#d"]),
            (r"'\' \'", &["\\", "'"]),
        ] {
            let found = split(line.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
            let words: Vec<_> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
            assert_eq!(found, words, "{line}");
        }
        for line in ["'a", "\"a", "\"a\\\"", "a\\"] {
            assert!(split(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        /// Whatever bytes: quoted either way they come back.
        #[test]
        fn quoting(words in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..5), how: u8) {
            let mut line = Vec::new();
            for word in &words {
                line.push(b' ');
                match how % 3 {
                    0 => {
                        line.push(b'\'');
                        for byte in word {
                            match byte {
                                b'\'' => line.extend(b"'\\''"),
                                byte => line.push(*byte),
                            }
                        }
                        line.push(b'\'');
                    }
                    1 => {
                        line.push(b'"');
                        for byte in word {
                            if matches!(byte, b'"' | b'\\') {
                                line.push(b'\\');
                            }
                            line.push(*byte);
                        }
                        line.push(b'"');
                    }
                    _ => {
                        line.extend(b"''");
                        for byte in word {
                            line.extend([b'\\', *byte]);
                        }
                    }
                }
            }
            prop_assert_eq!(split(&line).expect("well formed"), words);
        }
    }
}
