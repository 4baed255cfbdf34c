//! The bytes that tokens stand for, as a `tokenizer.json` says it of its decoder.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// What happens between the bytes of tokens and the text that they stand for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoding {
    /// Characters stand for bytes.
    pub bytes: bool,
    /// `▁` stands for a space.
    pub underscore: bool,
    /// U+0008 and the space behind it are left out.
    pub joiner: bool,
    /// A space at the beginning is left out.
    pub strip: bool,
}

impl Decoding {
    /// What a `tokenizer.json` says of its decoder.
    ///
    /// # Errors
    /// The first step that is not known here.
    pub fn of(decoder: &Value) -> Result<Self, String> {
        let mut found = Self::default();
        let single = std::slice::from_ref(decoder);
        let steps = decoder["decoders"].as_array().map_or(single, Vec::as_slice);
        for step in steps {
            let pattern = step["pattern"]["String"].as_str();
            match (step["type"].as_str().unwrap_or("none"), pattern, step["content"].as_str()) {
                ("ByteLevel", ..) => found.bytes = true,
                ("ByteFallback" | "Fuse", ..) => {}
                ("Replace", Some("▁"), Some(" ")) => found.underscore = true,
                ("Replace", Some("\u{8} "), Some("")) => found.joiner = true,
                ("Strip", _, Some(" ")) if step["start"] == 1 && step["stop"] == 0 => found.strip = true,
                ("Metaspace", ..) => {
                    found.underscore = true;
                    found.strip = step["prepend_scheme"].as_str() != Some("never");
                }
                (other, ..) => return Err(other.to_owned()),
            }
        }
        Ok(found)
    }

    /// The bytes of a token as the vocabulary writes it; a mark stands for itself.
    pub fn token(self, text: &str, mark: bool) -> Vec<u8> {
        if self.bytes && !mark {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| ALPHABET.get(&c).copied()).collect();
            // A token that was added stands for itself.
            return bytes.unwrap_or_else(|| text.as_bytes().to_vec());
        }
        let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => vec![byte],
            None if self.underscore => text.replace('▁', " ").into_bytes(),
            None => text.as_bytes().to_vec(),
        }
    }
}

/// The byte that each character of a byte-level vocabulary stands for: printable ones for themselves, the others in order for
/// the characters from U+0100 on (GPT-2).
static ALPHABET: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let plain = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100_u32..;
    let all = (0..=u8::MAX).map(|byte| {
        let code = if plain(byte) { u32::from(byte) } else { others.next().unwrap_or(0x100) };
        (char::from_u32(code).unwrap_or('\u{fffd}'), byte)
    });
    let all: HashMap<char, u8> = all.collect();
    debug_assert!(ByteLevel::alphabet().iter().all(|c| all.contains_key(c)));
    all
});
