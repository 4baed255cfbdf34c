//! The framing of a TFRecord file: length, its checksum, bytes, their checksum.

use std::io::{self, Write};

/// Writes a record, and returns how many bytes.
pub fn write(out: &mut impl Write, data: &[u8]) -> io::Result<u64> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&checksum(data).to_le_bytes())?;
    Ok(data.len() as u64 + 16)
}

/// CRC-32C, turned and shifted so that a checksum of data that holds checksums stays a good one.
fn checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The records of a file; `None` where it is torn or a checksum is wrong.
#[cfg(test)]
pub fn read(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        let data = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let (of_data, rest) = rest[data.len()..].split_first_chunk::<4>()?;
        if checksum(length).to_le_bytes() != *sum || checksum(data).to_le_bytes() != *of_data {
            return None;
        }
        records.push(data.to_vec());
        bytes = rest;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_as_tensorflow_frames_them() {
        let mut out = Vec::new();
        assert_eq!(write(&mut out, b"abc").unwrap(), 19);
        // As `tensorboard.summary.writer.record_writer.RecordWriter` of tensorboard 2.21.0 writes it.
        assert_eq!(out, [3, 0, 0, 0, 0, 0, 0, 0, 176, 153, 73, 14, 97, 98, 99, 110, 87, 241, 33]);
        assert_eq!(read(&out).unwrap(), [b"abc".to_vec()]);
        out[13] ^= 1;
        assert_eq!(read(&out), None);
        assert_eq!(read(&out[..7]), None);
    }
}
