//! Sizes, TIDs and other numbers as people write them.

use crate::format::Tid;
use std::time::Duration;

/// Reads a size in bytes: decimal or `0x…`, with an optional binary suffix `k`, `m`, `g` or `t` of
/// either case. `8M` is 8 MiB.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write bytes, or a number with k, m, g or t");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        Some(_) => (text, 0),
        None => return Err(wrong()),
    };
    let number = integer(digits).ok_or_else(wrong)?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text:?} is more bytes than 64 bits can count"))
}

/// As [`bytes`], and not zero.
pub fn some_bytes(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("must be more than 0".into()),
        n => Ok(n),
    }
}

/// Reads a time in seconds, `3` or `1.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write seconds, as 3 or 1.5");
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return Err(wrong());
    }
    let whole = whole.parse().map_err(|_| wrong())?;
    // Below a nanosecond nothing counts; padded or cut to nine digits, it fits 32 bits.
    let nanos = format!("{part:0<9.9}").parse().map_err(|_| wrong())?;
    Ok(Duration::new(whole, nanos))
}

/// `1 error`, `2 errors`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Reads a cache size. The read-ahead that the original appends to it (`:BLOCKS`) is accepted and
/// has no meaning here.
pub fn cache(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    let size = match text.split_once(':') {
        Some((size, blocks)) if integer(blocks).is_some() => size,
        _ => text,
    };
    match bytes(size)? {
        n if n < LEAST => Err("a cache of less than 1 MiB is of no use".into()),
        n => Ok(n),
    }
}

/// Reads a TID: `0x` and up to 16 hexadecimal digits, or a decimal number.
pub fn tid(text: &str) -> Result<Tid, String> {
    integer(text).map(Tid).ok_or_else(|| {
        format!("{text:?} is not a TID; write it as 0x followed by up to 16 hexadecimal digits")
    })
}

/// Reads a whole number of 64 bits, decimal or `0x…`, without sign, blanks or separators.
pub fn integer(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    // The library's parser would take a leading plus sign.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// Reads a bit pattern as the dumps show object ids and keys: hexadecimal with or without `0x`.
pub fn hex(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        true => u64::from_str_radix(digits, 16).map_err(|e| format!("{text:?}: {e}")),
        false => Err(format!("{text:?} is not a hexadecimal number")),
    }
}

/// A number of bytes for people: `512 B`, `1.5 GiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn binary_suffixes() {
        assert_eq!(bytes("8M"), Ok(8 << 20));
        assert_eq!(bytes("0x10k"), Ok(16 << 10));
        assert_eq!(bytes("3t"), Ok(3 << 40));
        assert_eq!(bytes("0"), Ok(0));
        for wrong in ["", "k", "-1", "+1", "1.5g", "1 k", "8MB", "0x", "1e3", "ä"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(bytes("17179869184g").unwrap_err().contains("64 bits"));
        assert!(some_bytes("0").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(seconds("3"), Ok(Duration::from_secs(3)));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0.0000000019"), Ok(Duration::from_nanos(1)));
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1s",
            "1e3",
            "1.5.0",
            "99999999999999999999",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_and_many() {
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(0, "entry", "entries"), "0 entries");
    }

    #[test]
    fn caches() {
        assert_eq!(cache("16m:4"), Ok(16 << 20));
        assert_eq!(cache("1m"), Ok(1 << 20));
        assert!(cache("4k").is_err());
        assert!(cache("16m:x").is_err());
    }

    #[test]
    fn tids() {
        assert_eq!(tid("0x0000000100003e80"), Ok(Tid(0x1_0000_3e80)));
        assert_eq!(tid("16"), Ok(Tid(16)));
        assert!(tid("0x10000000000000000").is_err());
        assert!(tid("100003e80").is_err());
    }

    #[test]
    fn people() {
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human(u64::MAX), "16.0 EiB");
    }

    proptest! {
        #[test]
        fn any_number_with_any_suffix(n in 0u64..1 << 24, shift in 0usize..4, upper: bool) {
            let suffix = ["k", "m", "g", "t"][shift];
            let suffix = if upper { suffix.to_uppercase() } else { suffix.to_owned() };
            prop_assert_eq!(bytes(&format!("{n}{suffix}")), Ok(n << (10 * (shift + 1))));
            prop_assert_eq!(bytes(&format!("{n:#x}{suffix}")), Ok(n << (10 * (shift + 1))));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = (bytes(&text), cache(&text), tid(&text), hex(&text));
        }
    }
}
