//! Bodies of dialogues, compressed piece by piece, so that a browser can open one without reading all.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::texts::Texts;

/// The bytes at which a piece is closed, before it is compressed: a browser reads that in some milliseconds.
const PIECE: usize = 400_000;

/// What was packed.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// Base64 of gzip of `{"texts": […], "bodies": […]}`.
    pub chunks: Vec<String>,
    /// By chunk: the row of its first body.
    pub rows: Vec<u32>,
    /// By chunk: the number of its first text.
    pub texts: Vec<u32>,
    /// Bytes before they were compressed.
    pub bytes: usize,
}

/// Packs bodies in the order of their rows.
#[derive(Debug, Default)]
pub(super) struct Packer {
    /// Where the bodies' texts are numbered.
    pub texts: Texts,
    packed: Packed,
    bodies: Vec<String>,
    bytes: usize,
    row: u32,
}

impl Packer {
    /// Adds the next body, whose texts were numbered by [`texts`](Self::texts).
    pub fn push(&mut self, body: &Value) -> std::io::Result<()> {
        let body = body.to_string();
        self.bytes += body.len();
        self.bodies.push(body);
        if self.bytes + self.texts.waiting() >= PIECE { self.close() } else { Ok(()) }
    }

    /// All that was packed.
    pub fn finish(mut self) -> std::io::Result<Packed> {
        if !self.bodies.is_empty() {
            self.close()?;
        }
        Ok(self.packed)
    }

    fn close(&mut self) -> std::io::Result<()> {
        let new = self.texts.take();
        self.packed.rows.push(self.row);
        self.packed.texts.push(self.texts.count() - new.len() as u32);
        self.row += self.bodies.len() as u32;
        let piece = format!("{{\"texts\":{},\"bodies\":[{}]}}", json!(new), self.bodies.join(","));
        self.bodies.clear();
        self.bytes = 0;
        self.packed.bytes += piece.len();
        // No time of writing, no system: the same piece gives the same bytes.
        let mut gzip = GzBuilder::new().operating_system(255).write(Vec::new(), Compression::best());
        gzip.write_all(piece.as_bytes())?;
        self.packed.chunks.push(BASE64_STANDARD.encode(gzip.finish()?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn bodies_come_back_and_texts_stand_once() {
        let mut packer = Packer::default();
        for row in 0..900 {
            let own = packer.texts.number(&format!("{row} {}", "</script>".repeat(100)));
            let shared = packer.texts.number("the same in all");
            packer.push(&json!([own, shared])).unwrap();
        }
        let packed = packer.finish().unwrap();
        assert!(packed.chunks.len() == 3 && packed.rows[0] == 0 && packed.texts[0] == 0, "{:?}", packed.rows);
        let (mut texts, mut bodies, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (place, chunk) in packed.chunks.iter().enumerate() {
            assert!(chunk.bytes().all(|one| one.is_ascii_alphanumeric() || b"+/=".contains(&one)));
            assert_eq!((packed.rows[place], packed.texts[place]), (bodies.len() as u32, texts.len() as u32));
            let mut piece = String::new();
            let gzip = BASE64_STANDARD.decode(chunk).unwrap();
            flate2::read::GzDecoder::new(gzip.as_slice()).read_to_string(&mut piece).unwrap();
            bytes += piece.len();
            let mut piece: Value = serde_json::from_str(&piece).unwrap();
            texts.append(piece["texts"].as_array_mut().unwrap());
            bodies.append(piece["bodies"].as_array_mut().unwrap());
        }
        assert_eq!((texts.len(), bodies.len(), bytes), (901, 900, packed.bytes));
        let own = bodies[700][0].as_u64().unwrap() as usize;
        assert!(texts[own].as_str().unwrap().starts_with("700 <") && bodies[700][1] == 1);
        assert!(Packer::default().finish().unwrap().chunks.is_empty());
    }
}
