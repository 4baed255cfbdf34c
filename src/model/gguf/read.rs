//! The structure of a GGUF file, read so that a small file never makes us allocate much.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::{GgufError, Meta, Place, Quant};
use crate::fs;

/// What a file holds besides the numbers of its tensors.
pub(super) struct Contents {
    pub file: File,
    pub metadata: BTreeMap<String, Meta>,
    pub tensors: BTreeMap<String, Place>,
}

/// How deep lists may lie in lists.
const DEPTH: usize = 4;

/// The most values of a list: those of a vocabulary are some hundred thousand, and here one takes more memory than in the file.
const LONGEST_LIST: u64 = 1 << 23;

/// Where tensors begin, if the file does not say it: at multiples of this.
const ALIGNMENT: u64 = 32;

pub(super) fn contents(path: &Path) -> Result<Contents, GgufError> {
    let failed = |source| fs::PathError { action: "read", path: path.to_owned(), source };
    let file = fs::open(path)?;
    let length = file.metadata().map_err(failed)?.len();
    let reader = BufReader::with_capacity(1 << 18, file.try_clone().map_err(failed)?);
    let mut cursor = Cursor { reader, path, left: length };
    if cursor.bytes(4)? != b"GGUF" {
        return Err(cursor.wrong("it does not begin with `GGUF`"));
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        let found =
            if version & 0xFFFF == 0 { "big-endian numbers".to_owned() } else { format!("version {version} of GGUF") };
        let supported = "versions 2 and 3, little-endian, are read".to_owned();
        return Err(GgufError::Unsupported { path: path.display().to_string(), found, supported });
    }
    let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.text()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, DEPTH).map_err(|error| match error {
            GgufError::Format { path, reason } => GgufError::Format { path, reason: format!("`{key}`: {reason}") },
            other => other,
        })?;
        metadata.insert(key, value);
    }
    if let Some(parts @ 2..) = metadata.get("split.count").and_then(Meta::float).map(|parts| parts as u64) {
        let supported = "whole models are read; join them with llama.cpp's `llama-gguf-split --merge`".to_owned();
        let found = format!("one of {parts} parts of a model");
        return Err(GgufError::Unsupported { path: path.display().to_string(), found, supported });
    }
    let tensors = places(&mut cursor, tensors, &metadata, length)?;
    Ok(Contents { file, metadata, tensors })
}

/// The list of tensors, their offsets counted from the file's beginning.
fn places(
    cursor: &mut Cursor,
    count: u64,
    metadata: &BTreeMap<String, Meta>,
    length: u64,
) -> Result<BTreeMap<String, Place>, GgufError> {
    let mut places = BTreeMap::new();
    for _ in 0..count {
        let name = cursor.text()?;
        let sides = cursor.u32()?;
        if sides > 8 {
            return Err(cursor.wrong(&format!("tensor `{name}` has {sides} sides")));
        }
        let mut shape = (0..sides).map(|_| cursor.u64()).collect::<Result<Vec<u64>, _>>()?;
        shape.reverse();
        let quant = Quant(cursor.u32()?);
        let offset = cursor.u64()?;
        let outside =
            || cursor.wrong(&format!("tensor `{name}` lies outside of it, or its shape fits no whole blocks"));
        let shape = shape.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<Vec<usize>>>();
        let shape = shape.ok_or_else(outside)?;
        let bytes = quant.bytes(&shape).ok_or_else(outside)?;
        places.insert(name, Place { offset, bytes, quant, shape });
    }
    let alignment = match metadata.get("general.alignment").and_then(Meta::float) {
        Some(alignment) if alignment >= 1.0 && alignment <= f64::from(1 << 30) => alignment as u64,
        Some(_) => return Err(cursor.wrong("`general.alignment` is out of range")),
        None => ALIGNMENT,
    };
    let start = (length - cursor.left).next_multiple_of(alignment);
    for (name, place) in &mut places {
        let offset = start.checked_add(place.offset);
        let end = offset.and_then(|offset| offset.checked_add(place.bytes as u64));
        match offset.zip(end) {
            Some((offset, end)) if end <= length => place.offset = offset,
            _ => return Err(cursor.wrong(&format!("tensor `{name}` ends beyond its {length} bytes"))),
        }
    }
    Ok(places)
}

/// A file as it is read from front to back.
struct Cursor<'a> {
    reader: BufReader<File>,
    path: &'a Path,
    left: u64,
}

impl Cursor<'_> {
    fn wrong(&self, reason: &str) -> GgufError {
        GgufError::Format { path: self.path.display().to_string(), reason: reason.to_owned() }
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, GgufError> {
        let Some(left) = self.left.checked_sub(count) else {
            return Err(self.wrong(&format!("{count} bytes are expected where {} are left", self.left)));
        };
        let mut bytes = vec![0; count as usize];
        let read = self.reader.read_exact(&mut bytes);
        read.map_err(|source| fs::PathError { action: "read", path: self.path.to_owned(), source })?;
        self.left = left;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let bytes = self.bytes(N as u64)?;
        Ok(std::array::from_fn(|index| bytes[index]))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        String::from_utf8(self.bytes(length)?).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Meta, GgufError> {
        Ok(match kind {
            0 => Meta::Integer(self.array::<1>()?[0].into()),
            1 => Meta::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Meta::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Meta::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Meta::Integer(self.u32()?.into()),
            5 => Meta::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Meta::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Meta::Flag(self.array::<1>()?[0] != 0),
            8 => Meta::Text(self.text()?),
            9 if depth > 0 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                // Every value takes at least one byte, and a hostile count ends with the file.
                if count > self.left || count > LONGEST_LIST {
                    return Err(self.wrong(&format!("a list of {count} values, but {} bytes are left", self.left)));
                }
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind, depth - 1)?);
                }
                Meta::List(list)
            }
            9 => return Err(self.wrong("lists lie too deep in lists")),
            10 => Meta::Integer(self.u64()?.into()),
            11 => Meta::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Meta::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(&format!("a value of the unknown kind {other}"))),
        })
    }
}
