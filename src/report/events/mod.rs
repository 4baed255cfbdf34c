//! Training logs as the event files that TensorBoard reads.
//!
//! Tags are those under which the trainers of transformers and TRL write the same figures, so that curves of both lie over each
//! other. A log holds no clock, and its event file holds none either: each step counts as one second after 1970-01-01, so
//! TensorBoard's relative time is the step, and the same log gives the same bytes.

mod message;
mod record;

use std::io::{self, Write};
use std::path::Path;

use crate::table::{self, Row, TableReader};
use crate::train::TrainLog;

/// The name of an event file. TensorBoard looks for `tfevents` in it; where others put a time and a host we have neither.
pub const FILE: &str = "events.out.tfevents.0.thresh";

/// The row type that has this form.
pub const LOG: &str = TrainLog::TYPE;

/// Writes a training log as events, and returns how many bytes; `None` where the table is none.
///
/// # Errors
/// The table cannot be read, or `out` cannot be written.
pub fn write(log: &Path, out: &mut impl Write) -> anyhow::Result<Option<u64>> {
    if table::read_type(log)?.as_deref() != Some(LOG) {
        return Ok(None);
    }
    let mut bytes = record::write(out, &message::version())?;
    for row in TableReader::<TrainLog>::open(log)? {
        bytes += step(out, &row?)?;
    }
    Ok(Some(bytes))
}

fn step(out: &mut impl Write, row: &TrainLog) -> io::Result<u64> {
    // As the protocol has it: what is larger than a 32-bit number can say is infinite.
    let scalars: Vec<(&str, f32)> =
        scalars(row).into_iter().filter_map(|(tag, value)| Some((tag, value? as f32))).collect();
    record::write(out, &message::event(row.step as f64, row.step, &scalars))
}

/// The figures of a step under their tags; `None` where it has none.
pub fn scalars(row: &TrainLog) -> [(&'static str, Option<f64>); 14] {
    [
        ("train/loss", Some(row.loss)),
        ("train/learning_rate", Some(row.learning_rate)),
        ("train/grad_norm", Some(row.grad_norm)),
        ("train/epoch", Some(row.epoch)),
        ("train/tokens", Some(row.tokens as f64)),
        ("train/scored_tokens", Some(row.scored_tokens as f64)),
        ("eval/loss", row.eval_loss),
        ("train/kl", row.kl),
        ("train/rewards/chosen", row.rewards_chosen),
        ("train/rewards/rejected", row.rewards_rejected),
        ("train/rewards/margins", row.rewards_margin),
        ("train/rewards/accuracies", row.rewards_accuracy),
        ("train/logps/chosen", row.logps_chosen),
        ("train/logps/rejected", row.logps_rejected),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a message: number, and the value's bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let long = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("no wire type: {other}"),
            };
            found.push((key >> 3, bytes[..long].to_vec()));
            bytes = &bytes[long..];
        }
        found
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for place in 0.. {
            let (one, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(one & 0x7f) << (7 * place);
            if one & 0x80 == 0 {
                break;
            }
        }
        value
    }

    /// The scalars of an event: its time, its step, tags and values.
    fn decoded(event: &[u8]) -> (f64, u64, Vec<(String, f32)>) {
        let fields = fields(event);
        let of = |number: u64| fields.iter().find(|field| field.0 == number).map(|field| field.1.clone());
        let time = f64::from_le_bytes(of(1).unwrap().try_into().unwrap());
        let step = of(2).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        let value = |bytes: Vec<u8>| {
            let parts = super::tests::fields(&bytes);
            assert_eq!((parts.len(), parts[0].0, parts[1].0), (2, 1, 2));
            let value = f32::from_le_bytes(parts[1].1.clone().try_into().unwrap());
            (String::from_utf8(parts[0].1.clone()).unwrap(), value)
        };
        let values = of(5).map_or(Vec::new(), |summary| {
            super::tests::fields(&summary)
                .into_iter()
                .map(|(number, bytes)| {
                    assert_eq!(number, 1);
                    value(bytes)
                })
                .collect()
        });
        (time, step, values)
    }

    fn written(rows: Vec<TrainLog>) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.parquet");
        table::write(&path, rows).unwrap();
        let mut out = Vec::new();
        assert_eq!(write(&path, &mut out).unwrap(), Some(out.len() as u64));
        out
    }

    #[test]
    fn what_is_written_is_what_the_log_holds() {
        let rows: Vec<TrainLog> = (1..=300)
            .map(|step| TrainLog {
                step,
                loss: 2.5 / step as f64,
                tokens: 1 << 20,
                eval_loss: (step % 2 == 0).then_some(f64::NAN),
                logps_chosen: Some(-1e300),
                ..TrainLog::default()
            })
            .collect();
        let bytes = written(rows.clone());
        assert_eq!(bytes, written(rows.clone()), "the same log gives the same bytes");
        let records = record::read(&bytes).unwrap();
        assert_eq!(fields(&records[0])[1], (3, b"brain.Event:2".to_vec()));
        assert_eq!(records.len(), 301);
        for (row, record) in rows.iter().zip(&records[1..]) {
            let (time, step, values) = decoded(record);
            assert_eq!((time, step), (row.step as f64, row.step));
            let expected: Vec<_> =
                scalars(row).into_iter().filter_map(|(tag, value)| Some((tag, value? as f32))).collect();
            assert_eq!(values.len(), expected.len());
            for ((tag, value), (known, wanted)) in values.iter().zip(expected) {
                assert_eq!((tag.as_str(), value.to_bits()), (known, wanted.to_bits()));
            }
        }
    }

    #[test]
    fn other_tables_have_no_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        table::write(&path, vec![crate::examples::SftExample::default()]).unwrap();
        assert_eq!(write(&path, &mut Vec::new()).unwrap(), None);
    }
}
