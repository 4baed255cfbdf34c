//! When the loss over held-out examples is measured, which weights are the best, and when a training ends early.
//!
//! All of it follows from the settings and the log alone, so that a training that goes on from a checkpoint decides the same.

use super::TrainLog;
use super::plan::Plan;
use super::settings::Evaluation;

impl Evaluation {
    /// Whether an evaluation is due after so many steps.
    pub(super) fn is_due(&self, steps: u64, plan: &Plan) -> bool {
        steps == plan.steps || steps.is_multiple_of(self.every.unwrap_or_else(|| plan.per_epoch()).max(1))
    }

    /// Whether the last evaluations were no better than the best, as many as patience lasts.
    pub(super) fn is_over(&self, log: &[TrainLog]) -> bool {
        let Some(patience) = self.patience else { return false };
        let behind = best(log).map_or(0, |best| evaluations(log).filter(|(step, _)| *step > best).count());
        patience > 0 && behind as u64 >= patience
    }
}

/// The step whose evaluation was the best, the first of equal ones; `None` without evaluations.
pub(super) fn best(log: &[TrainLog]) -> Option<u64> {
    let better = |best: Option<(u64, f64)>, new: (u64, f64)| match best {
        Some(best) if new.1 >= best.1 => Some(best),
        _ => Some(new),
    };
    evaluations(log).fold(None, better).map(|(step, _)| step)
}

fn evaluations(log: &[TrainLog]) -> impl Iterator<Item = (u64, f64)> + '_ {
    log.iter().filter_map(|row| row.eval_loss.map(|loss| (row.step, loss)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Settings;
    use crate::train::tests::settings;

    fn log(losses: &[Option<f64>]) -> Vec<TrainLog> {
        let row = |(place, loss): (usize, &Option<f64>)| TrainLog {
            step: place as u64 + 1,
            eval_loss: *loss,
            ..TrainLog::default()
        };
        losses.iter().enumerate().map(row).collect()
    }

    #[test]
    fn patience_counts_evaluations_that_were_no_better() {
        let patient = |patience| Evaluation { every: None, patience: Some(patience) };
        let log = log(&[Some(3.0), None, Some(2.0), Some(2.0), None, Some(2.5)]);
        assert_eq!((best(&log), best(&log[..2]), best(&[])), (Some(3), Some(1), None));
        assert_eq!(
            (patient(2).is_over(&log), patient(3).is_over(&log), patient(1).is_over(&log[..3])),
            (true, false, false)
        );
        assert!(patient(1).is_over(&log[..4]) && !Evaluation::default().is_over(&log) && !patient(1).is_over(&[]));
    }

    #[test]
    fn evaluations_come_every_so_often_and_at_the_end() {
        let plan = Plan::new(40, &Settings { epochs: 1.7, batch_size: 4, ..settings() });
        let due = |every| -> Vec<u64> {
            let evaluation = Evaluation { every, patience: None };
            (1..=plan.steps).filter(|step| evaluation.is_due(*step, &plan)).collect()
        };
        assert_eq!((due(Some(6)), due(None)), (vec![6, 12, 17], vec![10, 17]));
    }
}
