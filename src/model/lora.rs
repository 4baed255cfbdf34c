//! Low-rank adapters on a decoder's linear maps (LoRA, arXiv 2106.09685): made, taken off, merged into the weights.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::decoder::Decoder;
use super::linear::{Adapter, Linear};
use crate::seed;

/// The linear maps of a layer, by the last part of their names.
pub const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The word that stands for all of [`TARGETS`], as PEFT has it.
pub const ALL: &str = "all-linear";

/// Which maps are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// The rank `r` of every adapter.
    pub rank: usize,
    /// What the adapters' outputs are multiplied by, before the division by the rank.
    pub alpha: f64,
    /// Whether the division is by the rank's square root (rsLoRA, arXiv 2312.03732).
    pub rank_stabilised: bool,
    /// The share of an adapter's inputs that training drops, at least 0 and less than 1.
    pub dropout: f64,
    /// The maps that get an adapter: the last part of a name such as `q_proj`, or `all-linear`.
    pub targets: Vec<String>,
}

/// Why a decoder cannot be adapted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoraError {
    /// A rank of nothing.
    #[error("the rank of an adapter must be at least 1")]
    Rank,
    /// A rank above that of the map itself.
    #[error("the rank {rank} is too high: `{map}` maps {inputs} numbers to {outputs}, so the rank may be at most {most}",
        most = inputs.min(outputs))]
    HighRank {
        /// The rank.
        rank: usize,
        /// The map's name.
        map: String,
        /// What it takes.
        inputs: usize,
        /// What it gives.
        outputs: usize,
    },
    /// An alpha that is no positive number.
    #[error("`alpha` is {0}, but must be positive")]
    Alpha(f64),
    /// A dropout that is no share.
    #[error("`dropout` is {0}, but must be at least 0 and less than 1")]
    Dropout(f64),
    /// No map is named.
    #[error("no target modules are named; name some of {targets}, or `{ALL}`", targets = quoted())]
    NoTargets,
    /// A map that no layer has.
    #[error("there is no target module `{0}`; layers have {targets}, and `{ALL}` means all of them", targets = quoted())]
    Target(String),
    /// Adapters stand on weights, not on adapters.
    #[error("the model has adapters already; merge them or take them off first")]
    Adapted,
}

fn quoted() -> String {
    TARGETS.map(|name| format!("`{name}`")).join(", ")
}

impl LoraConfig {
    /// Checks that the numbers are of use and that every target exists.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), LoraError> {
        if self.rank == 0 {
            return Err(LoraError::Rank);
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(LoraError::Alpha(self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(LoraError::Dropout(self.dropout));
        }
        if self.targets.is_empty() {
            return Err(LoraError::NoTargets);
        }
        match self.targets.iter().find(|name| *name != ALL && !TARGETS.contains(&name.as_str())) {
            Some(unknown) => Err(LoraError::Target(unknown.clone())),
            None => Ok(()),
        }
    }

    /// What an adapter's output is multiplied by: `alpha / rank`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// Whether the map of this name, such as `model.layers.0.self_attn.q_proj`, is adapted.
    pub fn adapts(&self, name: &str) -> bool {
        let last = name.rsplit('.').next().unwrap_or(name);
        self.targets.iter().any(|target| target == last || target == ALL)
    }
}

impl Decoder {
    /// The decoder with fresh adapters: it computes what it did, and only the adapters learn.
    ///
    /// As in PEFT, `A` is uniform within 1/sqrt(inputs) (He's initialisation with a slope of sqrt(5)) and `B` zero. The numbers of a
    /// map depend on the seed and the map's name alone.
    ///
    /// # Errors
    /// When the configuration is wrong, the rank is above that of a map, or the decoder has adapters already.
    pub fn adapt(&self, config: &LoraConfig, seed: u64) -> Result<Self, LoraError> {
        config.check()?;
        let device = self.embed_tokens.val().device();
        self.with_adapters(config, |name, [inputs, outputs]| {
            if config.rank > inputs.min(outputs) {
                return Err(LoraError::HighRank { rank: config.rank, map: name.to_owned(), inputs, outputs });
            }
            let a = uniform(seed::derive(seed, &[name]), [inputs, config.rank], &device);
            Ok((a, Tensor::zeros([config.rank, outputs], &device)))
        })
    }

    /// The decoder with adapters whose `A`, [in, rank], and `B`, [rank, out], come from a function of a map's name and [in, out].
    pub(super) fn with_adapters<E: From<LoraError>>(
        &self,
        config: &LoraConfig,
        mut pair: impl FnMut(&str, [usize; 2]) -> Result<(Tensor<2>, Tensor<2>), E>,
    ) -> Result<Self, E> {
        if self.lora().is_some() {
            return Err(LoraError::Adapted.into());
        }
        let mut adapted = self.learning(false);
        adapted.set_lora(Some(config.clone()));
        for (name, map) in adapted.linears_mut() {
            if config.adapts(&name) {
                let (a, b) = pair(&name, map.dims())?;
                let (a, b) = (Param::from_tensor(a), Param::from_tensor(b));
                map.adapter = Some(Adapter { a, b, scale: config.scale(), dropout: config.dropout });
            }
        }
        Ok(adapted)
    }

    /// The decoder as it was before it was adapted, its weights shared; all of it learns again.
    #[must_use]
    pub fn without_adapters(&self) -> Self {
        if self.lora().is_none() {
            return self.clone();
        }
        let mut plain = self.learning(true);
        plain.set_lora(None);
        for (_, map) in plain.linears_mut() {
            map.adapter = None;
        }
        plain
    }

    /// The decoder with its adapters worked into its weights: the same function but for rounding, and no adapters.
    #[must_use]
    pub fn merged(&self) -> Self {
        let mut plain = self.without_adapters();
        for ((_, map), (_, adapted)) in plain.linears_mut().into_iter().zip(self.linears()) {
            if let Some(weight) = merge(adapted) {
                map.weight = Param::from_tensor(weight);
            }
        }
        plain
    }
}

/// `W + scale A B`, outside any graph.
fn merge(map: &Linear) -> Option<Tensor<2>> {
    let Adapter { a, b, scale, .. } = map.adapter.as_ref()?;
    let weight = map.weight.val().detach();
    Some((weight + a.val().detach().matmul(b.val().detach()) * *scale).detach())
}

/// Uniform numbers within 1/sqrt(inputs), the same for the same seed on every device.
fn uniform(seed: u64, [inputs, rank]: [usize; 2], device: &Device) -> Tensor<2> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bound = (inputs as f64).powf(-0.5);
    let mut one = || ((f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0) * bound) as f32;
    let values: Vec<f32> = (0..inputs * rank).map(|_| one()).collect();
    Tensor::from_data(TensorData::new(values, [inputs, rank]), device)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::config::tests::tiny;
    use burn::module::Module;
    use burn::tensor::Int;

    pub(crate) fn config() -> LoraConfig {
        let targets = vec!["q_proj".to_owned(), "down_proj".to_owned()];
        LoraConfig { rank: 3, alpha: 6.0, rank_stabilised: false, dropout: 0.0, targets }
    }

    /// A tiny decoder with adapters that do something.
    pub(crate) fn adapted(device: &Device) -> Decoder {
        let model = Decoder::init(&tiny(), 1, device).unwrap();
        let pair = |name: &str, [inputs, outputs]: [usize; 2]| -> Result<_, LoraError> {
            let a = uniform(name.len() as u64, [inputs, 3], device);
            Ok((a, uniform(7 + name.len() as u64, [3, outputs], device)))
        };
        model.with_adapters(&config(), pair).unwrap()
    }

    pub(crate) fn logits(model: &Decoder) -> Vec<f32> {
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &model.embed_tokens.val().device());
        model.forward(tokens).try_into_vec_as().unwrap()
    }

    fn distance(left: &[f32], right: &[f32]) -> f32 {
        left.iter().zip(right).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_fresh_adapter_changes_nothing_and_alone_learns() {
        let device = Device::flex().autodiff();
        let plain = Decoder::init(&tiny(), 1, &device).unwrap();
        let model = plain.adapt(&config(), 5).unwrap();
        assert_eq!(logits(&model), logits(&plain));
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3]], &device);
        let gradients = model.forward(tokens).square().mean().backward();
        assert!(model.embed_tokens.val().grad(&gradients).is_none());
        assert!(model.norm.weight.val().grad(&gradients).is_none());
        let map = &model.layers[1].self_attn.q_proj;
        assert!(map.weight.val().grad(&gradients).is_none());
        let adapter = map.adapter.as_ref().unwrap();
        assert!(adapter.b.val().grad(&gradients).unwrap().abs().max().into_scalar::<f32>() > 0.0);
        assert!(model.layers[1].self_attn.k_proj.adapter.is_none());
    }

    #[test]
    fn initial_numbers_depend_on_seed_and_name_and_keep_within_their_bound() {
        let plain = Decoder::init(&tiny(), 1, &Device::flex()).unwrap();
        let values = |seed, targets: &[&str]| {
            let targets = targets.iter().map(|name| (*name).to_owned()).collect();
            let model = plain.adapt(&LoraConfig { targets, ..config() }, seed).unwrap();
            let adapter = model.layers[0].mlp.down_proj.adapter.as_ref().unwrap();
            adapter.a.val().try_into_vec_as::<f32>().unwrap()
        };
        let first = values(5, &["down_proj"]);
        assert_eq!(first, values(5, &[ALL]));
        assert_ne!(first, values(6, &[ALL]));
        let bound = 24_f32.powf(-0.5); // [inner 24, rank 3]
        let largest = first.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        assert!(first.len() == 72 && largest <= bound && largest > 0.9 * bound, "{largest} {bound}");
    }

    #[test]
    fn merging_keeps_the_function_and_taking_off_the_weights() {
        let device = Device::flex();
        let model = adapted(&device);
        let plain = Decoder::init(&tiny(), 1, &device).unwrap();
        assert_eq!(logits(&model.without_adapters()), logits(&plain));
        assert!(distance(&logits(&model), &logits(&plain)) > 1e-3);
        assert!(distance(&logits(&model.merged()), &logits(&model)) < 1e-5);
        assert!(
            model.merged().lora().is_none() && model.merged().linears().iter().all(|(_, map)| map.adapter.is_none())
        );
        assert_eq!(model.merged().num_params(), plain.num_params());
    }

    #[test]
    fn a_merged_or_plain_model_learns_again() {
        let model = adapted(&Device::flex().autodiff());
        for model in [model.merged(), model.without_adapters()] {
            assert!(model.embed_tokens.is_require_grad() && model.layers[0].self_attn.q_proj.weight.is_require_grad());
            let tokens = Tensor::<2, Int>::from_data([[1, 2, 3]], &model.embed_tokens.val().device());
            let gradients = model.forward(tokens).square().mean().backward();
            assert!(model.layers[0].self_attn.q_proj.weight.val().grad(&gradients).is_some());
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let plain = Decoder::init(&tiny(), 1, &Device::flex()).unwrap();
        let error = |change: fn(&mut LoraConfig)| {
            let mut config = config();
            change(&mut config);
            plain.adapt(&config, 1).unwrap_err().to_string()
        };
        assert_eq!(error(|c| c.rank = 0), "the rank of an adapter must be at least 1");
        assert_eq!(error(|c| c.alpha = f64::NAN), "`alpha` is NaN, but must be positive");
        assert_eq!(error(|c| c.dropout = 1.0), "`dropout` is 1, but must be at least 0 and less than 1");
        assert!(error(|c| c.targets.clear()).starts_with("no target modules are named; name some of `q_proj`, "));
        assert!(
            error(|c| c.targets.push("wq".to_owned()))
                .starts_with("there is no target module `wq`; layers have `q_proj`")
        );
        let adapted = plain.adapt(&config(), 1).unwrap();
        assert_eq!(adapted.adapt(&config(), 1).unwrap_err(), LoraError::Adapted);
    }
}
