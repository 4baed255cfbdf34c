//! What the model as it was before training says of sequences: computed once, before the first step.

use super::batch::Sequence;
use super::learner::Under;
use super::run::Training;
use super::{TrainError, checkpoint};

/// Sequences that are run over between two looks at the wish to stop.
const CHUNK: usize = 256;

impl Training<'_> {
    /// The sequences' log-probabilities under the reference; those that an interrupted training kept are not computed again.
    ///
    /// To be called before the training goes on from a checkpoint: without adapters the weights are then those of the base.
    pub(super) fn reference(&mut self, sequences: &[&Sequence]) -> Result<Vec<f64>, TrainError> {
        let mut known = checkpoint::load_reference(self.scratch, sequences.len())?;
        while known.len() < sequences.len() {
            let chunk = &sequences[known.len()..(known.len() + CHUNK).min(sequences.len())];
            let values = self.learner.log_probs(chunk, Under::Reference)?;
            if let Some((sequence, value)) = chunk.iter().zip(&values).find(|(_, value)| !value.is_finite()) {
                return Err(TrainError::Reference { dialogue: sequence.dialogue.clone(), value: *value });
            }
            known.extend(values);
            self.watch.prepared(known.len() as u64, sequences.len() as u64);
            let stop = self.watch.stop();
            if stop || (self.settings.checkpoint_every > 0 && known.len() == sequences.len()) {
                checkpoint::save_reference(self.scratch, &known)?;
            }
            if stop {
                return Err(TrainError::Stopped(0));
            }
        }
        Ok(known)
    }
}
