//! JSON files that show when they were damaged: manifests and records decide what is computed and what is collected, and a
//! flipped bit in a digest or a number still parses.
//!
//! The last entry of the object, `check`, is the BLAKE3 of all bytes before it. What no check can show: a file that was
//! exchanged for an older whole one. Who asks for a result by its fingerprint compares that as well.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What stands before the digits of the check.
const ENTRY: &[u8] = b",\"check\":\"";

/// What stands behind them.
const END: &[u8] = b"\"}";

/// How many digits: a damaged file passes for whole once in 2^128 times.
const DIGITS: usize = 32;

fn digits(body: &[u8]) -> String {
    blake3::hash(body).to_hex()[..DIGITS].to_owned()
}

/// A struct with at least one field as JSON, sealed.
///
/// # Panics
/// When it cannot be written as a JSON object: such a type is no fact to keep.
pub fn seal(facts: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(facts).unwrap_or_else(|error| panic!("facts are plain text: {error}"));
    assert_eq!(text.pop(), Some(b'}'), "facts are an object");
    let digits = digits(&text);
    text.extend(ENTRY);
    text.extend(digits.as_bytes());
    text.extend(END);
    text
}

/// What was sealed; `None` where the bytes are not those that were written.
pub fn open<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (body, digits_found) = bytes.strip_suffix(END)?.split_last_chunk::<DIGITS>()?;
    let body = body.strip_suffix(ENTRY)?;
    if digits(body).as_bytes() != digits_found {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_shows() {
        let facts = BTreeMap::from([("digest", "abc0"), ("bytes", "1234")]);
        let sealed = seal(&facts);
        let plain: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
        assert_eq!(plain["digest"], "abc0");
        type Read = BTreeMap<String, String>;
        assert_eq!(open::<Read>(&sealed).unwrap()["bytes"], "1234");
        for place in 0..sealed.len() {
            assert!(open::<Read>(&sealed[..place]).is_none());
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1 << bit;
                assert!(open::<Read>(&damaged).is_none(), "{}", String::from_utf8_lossy(&damaged));
            }
        }
        assert!(open::<Read>(b"{}").is_none() && open::<Read>(b"").is_none());
    }
}
