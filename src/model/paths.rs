//! A decoder's parameters by their paths, such as `layers.0.self_attn.q_proj.weight`: how devices that keep numbers of their
//! own ask for them, one at a time.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::decoder::Decoder;

/// Visits float parameters with their paths.
struct Walk<F> {
    path: Vec<String>,
    each: F,
}

type Read<'a> = &'a dyn Fn() -> Result<Vec<f32>, String>;

impl<F: FnMut(&str, Read)> ModuleVisitor for Walk<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let read = || {
            let failed = |error| format!("a parameter cannot be read: {error:?}");
            param.val().without_autodiff().try_into_vec_as::<f32>().map_err(failed)
        };
        (self.each)(&self.path.join("."), &read);
    }
}

impl Decoder {
    /// The paths of the float parameters, adapters' too, in the order in which burn visits them.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.visit(&mut Walk { path: Vec::new(), each: |path: &str, _: Read| paths.push(path.to_owned()) });
        paths
    }

    /// The numbers of the parameter at a path, row by row.
    ///
    /// # Errors
    /// When there is none, or its device fails.
    pub fn numbers(&self, wanted: &str) -> Result<Vec<f32>, String> {
        let mut found = Err(format!("the model has no parameter `{wanted}`"));
        let each = |path: &str, read: Read| {
            if path == wanted {
                found = read();
            }
        };
        self.visit(&mut Walk { path: Vec::new(), each });
        found
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::config::tests::tiny;

    #[test]
    fn parameters_are_known_by_their_places_in_the_decoder() {
        let model = Decoder::init(&tiny(), 5, &Device::flex()).unwrap();
        let paths = model.paths();
        assert_eq!(paths[..2], ["embed_tokens", "layers.0.input_layernorm.weight"]);
        assert!(paths.iter().any(|path| path == "layers.1.mlp.down_proj.weight"));
        assert_eq!(paths.last().unwrap(), "norm.weight");
        let sizes: Vec<usize> = paths.iter().map(|path| model.numbers(path).unwrap().len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), model.parameters());
        assert_eq!(model.numbers("lm_head").unwrap_err(), "the model has no parameter `lm_head`");
    }
}
