//! llama.cpp's names of tensors, and its order of heads.

/// The parts of a layer's names, there and in Hugging Face's files.
const PARTS: [(&str, &str); 16] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Hugging Face's name of a tensor. Names of layers that are not known keep their parts, so that they are noticed.
pub(super) fn usual(name: &str, gemma: bool) -> String {
    let translate = |part: &str| match PARTS.iter().find(|(own, _)| *own == part) {
        // With post norms the norm before the feed-forward block has a name of its own.
        Some(("ffn_norm", _)) if gemma => "pre_feedforward_layernorm".to_owned(),
        Some((_, usual)) => (*usual).to_owned(),
        None => part.to_owned(),
    };
    let Some((stem, kind)) = name.rsplit_once('.') else { return name.to_owned() };
    match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => format!("model.layers.{layer}.{}.{kind}", translate(part)),
        None => format!("{}.{kind}", translate(stem)),
    }
}

/// Rows of queries or keys in Hugging Face's order. llama.cpp's Llamas turn neighbouring rows of a head with each other, ours the first
/// half with the second: so its converter lays them side by side, and this takes them apart again.
pub(super) fn unpair(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, head) = (values.len() / rows.max(1), rows / heads.max(1));
    if head == 0 || head % 2 == 1 || !rows.is_multiple_of(heads.max(1)) {
        return values.to_vec(); // such shapes fit no configuration
    }
    let mut ordered = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (first, place) = (row / head * head, row % head);
        let (half, pair) = (place / (head / 2), place % (head / 2));
        let from = first + 2 * pair + half;
        ordered.extend_from_slice(&values[from * width..(from + 1) * width]);
    }
    ordered
}
