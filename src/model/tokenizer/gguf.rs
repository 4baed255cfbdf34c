//! GGUF's own vocabularies as files of Hugging Face's form.
//!
//! llama.cpp's metadata name a kind of vocabulary (`gpt2`: byte-level pairs with their merges, `llama`: sentencepiece with
//! scores) and, for the former, how texts are split first; the patterns are those of the models' own `tokenizer.json`, which
//! llama.cpp (`llama-vocab.cpp`) takes over too. Merges of sentencepiece follow from the scores, as in transformers
//! (`generate_merges`).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::TokenizerError;
use super::files::TextFiles;
use crate::model::gguf::Gguf;

/// Special tokens: nothing that a user writes.
const CONTROL: i64 = 3;
/// What stands for text outside the vocabulary.
const UNKNOWN: i64 = 2;
/// Tokens that stand apart from the rest and are found first.
const USER_DEFINED: i64 = 4;
/// Bytes, for letters outside the vocabulary.
const BYTE: i64 = 6;

/// Control tokens that end a reply by their name, whatever the metadata say: files often name one end only.
const ENDS: [&str; 12] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
];

/// How Llama 3 and its kin split texts.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How Qwen 2 to 3 do: each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A vocabulary as GGUF's metadata give it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vocabulary {
    /// `tokenizer.ggml.model`.
    pub model: String,
    /// `tokenizer.ggml.pre`.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: their ids are their places.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, as many or none.
    pub kinds: Vec<i64>,
    /// `tokenizer.ggml.scores`, as many or none.
    pub scores: Vec<f64>,
    /// `tokenizer.ggml.merges`: two sides with a space between.
    pub merges: Vec<String>,
    /// Ids by what they are for: `bos`, `eos`, `eot`, `eom`, `unknown`, `padding`.
    pub named: BTreeMap<String, u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub adds_begin: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub adds_space: Option<bool>,
    /// `tokenizer.chat_template`.
    pub template: Option<String>,
    /// `tokenizer.chat_template.tool_use`.
    pub tool_template: Option<String>,
}

impl Vocabulary {
    /// What a file's metadata say.
    pub fn of(gguf: &Gguf) -> Self {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let list = |name: &str| gguf.texts(&key(name)).unwrap_or_default().into_iter().map(str::to_owned).collect();
        let kinds = gguf.floats(&key("token_type")).unwrap_or_default();
        let id = |name: &str| {
            let id = gguf.number(&key(&format!("{name}_token_id")))?;
            Some((name.to_owned(), u32::try_from(id).ok()?))
        };
        Self {
            model: gguf.text(&key("model")).unwrap_or_default().to_owned(),
            pre: gguf.text(&key("pre")).map(str::to_owned),
            tokens: list("tokens"),
            kinds: kinds.into_iter().map(|kind| kind as i64).collect(),
            scores: gguf.floats(&key("scores")).unwrap_or_default(),
            merges: list("merges"),
            named: ["bos", "eos", "eot", "eom", "unknown", "padding"].into_iter().filter_map(id).collect(),
            adds_begin: gguf.flag(&key("add_bos_token")),
            adds_space: gguf.flag(&key("add_space_prefix")),
            template: gguf.text("tokenizer.chat_template").map(str::to_owned),
            tool_template: gguf.text("tokenizer.chat_template.tool_use").map(str::to_owned),
        }
    }

    /// The files that say the same.
    ///
    /// # Errors
    /// When the vocabulary is of a kind that we do not know, or does not fit together.
    pub fn files(&self) -> Result<TextFiles, TokenizerError> {
        self.check()?;
        let mut format = match self.model.as_str() {
            "gpt2" => self.pairs()?,
            "llama" => self.pieces()?,
            other => {
                return Err(wrong(format!(
                    "`tokenizer.ggml.model` is `{other}`; only `gpt2` and `llama` are supported"
                )));
            }
        };
        let adds_begin = self.adds_begin.unwrap_or(self.model == "llama" || self.splits_as_llama3());
        format["version"] = "1.0".into();
        format["truncation"] = Value::Null;
        format["padding"] = Value::Null;
        format["added_tokens"] = self.added_tokens();
        format["post_processor"] = match self.text_of("bos").filter(|_| adds_begin) {
            None => Value::Null,
            Some(bos) => json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [self.named["bos"]], "tokens": [bos]}},
            }),
        };
        let files = TextFiles::default()
            .with_json("tokenizer.json", &format)
            .with_json("tokenizer_config.json", &self.settings(adds_begin))
            .with_json("generation_config.json", &self.generation());
        Ok(match &self.template {
            Some(template) if self.tool_template.is_none() => files.with("chat_template.jinja", template.clone()),
            _ => files,
        })
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let count = self.tokens.len();
        if count == 0 {
            return Err(wrong("it has no tokens (`tokenizer.ggml.tokens`)"));
        }
        for (name, length) in [("token_type", self.kinds.len()), ("scores", self.scores.len())] {
            if length != 0 && length != count {
                return Err(wrong(format!("`tokenizer.ggml.{name}` has {length} entries for {count} tokens")));
            }
        }
        match self.named.iter().find(|(_, id)| **id as usize >= count) {
            Some((name, id)) => {
                Err(wrong(format!("`tokenizer.ggml.{name}_token_id` is {id}, but there are {count} tokens")))
            }
            None => Ok(()),
        }
    }

    fn kind(&self, id: usize) -> i64 {
        self.kinds.get(id).copied().unwrap_or(1)
    }

    fn text_of(&self, name: &str) -> Option<&str> {
        self.named.get(name).and_then(|&id| self.tokens.get(id as usize)).map(String::as_str)
    }

    fn splits_as_llama3(&self) -> bool {
        matches!(self.pre.as_deref(), Some("llama3" | "llama-v3" | "llama-bpe"))
    }

    /// Byte-level pairs.
    fn pairs(&self) -> Result<Value, TokenizerError> {
        let bytes = |split: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": split});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let all = |parts: Vec<Value>| json!({"type": "Sequence", "pretokenizers": parts});
        let splitter = match self.pre.as_deref().unwrap_or("default") {
            "gpt-2" | "phi-2" => bytes(true),
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => {
                all(vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)])
            }
            "llama3" | "llama-v3" | "llama-bpe" => all(vec![split(LLAMA3), bytes(false)]),
            "qwen2" | "deepseek-r1-qwen" => all(vec![split(QWEN2), bytes(false)]),
            "default" => all(vec![
                split(r"[\p{P}\$\+<=>\^~\|]+"),
                split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
                split(r"\p{N}+"),
                split("[0-9][0-9][0-9]"),
                bytes(false),
            ]),
            other => {
                return Err(wrong(format!(
                    "`tokenizer.ggml.pre` is `{other}`; `smollm`, `llama-bpe`, `qwen2`, `gpt-2`, `starcoder`, `refact`, \
                     `command-r`, `codeshell`, `exaone`, `deepseek-r1-qwen` and `default` are supported"
                )));
            }
        };
        let mut merges = Vec::with_capacity(self.merges.len());
        for merge in &self.merges {
            // A side may itself begin with a space only in broken files: bytes are letters here.
            let sides = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
            let (left, right) = sides.ok_or_else(|| wrong(format!("the merge `{merge}` has no two sides")))?;
            merges.push(json!([left, right]));
        }
        let composes = matches!(self.pre.as_deref(), Some("qwen2" | "deepseek-r1-qwen"));
        Ok(json!({
            "normalizer": if composes { json!({"type": "NFC"}) } else { Value::Null },
            "pre_tokenizer": splitter,
            "decoder": bytes(true),
            "model": self.model(merges, Value::Null, self.splits_as_llama3())?,
        }))
    }

    /// Sentencepiece's pairs: letters, joined as their scores say, and bytes for letters that there are not.
    fn pieces(&self) -> Result<Value, TokenizerError> {
        if self.scores.is_empty() {
            return Err(wrong("a vocabulary of kind `llama` needs `tokenizer.ggml.scores`"));
        }
        let prefix = self.adds_space.unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let normalizer = if prefix {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]})
        } else {
            spaces
        };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        decoders.extend(prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0})));
        let unknown = self.text_of("unknown").map_or(Value::Null, Value::from);
        let mut model = self.model(self.scored_merges(), unknown, false)?;
        model["fuse_unk"] = true.into();
        model["byte_fallback"] = true.into();
        Ok(json!({
            "normalizer": normalizer,
            "pre_tokenizer": null,
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": model,
        }))
    }

    fn model(&self, merges: Vec<Value>, unknown: Value, ignore_merges: bool) -> Result<Value, TokenizerError> {
        let mut vocab = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = vocab.insert(token.clone(), id.into()) {
                return Err(wrong(format!("the tokens {first} and {id} are both `{token}`")));
            }
        }
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges,
        }))
    }

    /// Every way to put a piece together from two others, the best piece first.
    fn scored_merges(&self) -> Vec<Value> {
        let ids: HashMap<&str, usize> = self.tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
        let ordinary = |id: usize| !matches!(self.kind(id), CONTROL | UNKNOWN | BYTE);
        let part = |text: &str| ids.get(text).copied().filter(|id| ordinary(*id));
        let mut merges: Vec<(f64, usize, usize, usize, usize)> = Vec::new();
        for (id, piece) in self.tokens.iter().enumerate().filter(|(id, _)| ordinary(*id)) {
            for (at, _) in piece.char_indices().skip(1) {
                if let (Some(left), Some(right)) = (part(&piece[..at]), part(&piece[at..])) {
                    merges.push((self.scores[id], at, piece.len() - at, left, right));
                }
            }
        }
        // Ties as in transformers: the longer left side first. The sort is stable, so the rest is in the order of the vocabulary.
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
        merges.into_iter().map(|(_, _, _, left, right)| json!([self.tokens[left], self.tokens[right]])).collect()
    }

    fn added_tokens(&self) -> Value {
        let token = |(id, text): (usize, &String)| {
            let special = matches!(self.kind(id), CONTROL | UNKNOWN);
            (special || self.kind(id) == USER_DEFINED).then(|| {
                json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": special})
            })
        };
        self.tokens.iter().enumerate().filter_map(token).collect()
    }

    fn settings(&self, adds_begin: bool) -> Value {
        let mut settings = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "add_bos_token": adds_begin,
        });
        for (name, purpose) in
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
        {
            if let Some(text) = self.text_of(name) {
                settings[purpose] = text.into();
            }
        }
        if let (Some(template), Some(tools)) = (&self.template, &self.tool_template) {
            let named = |name: &str, template: &str| json!({"name": name, "template": template});
            settings["chat_template"] = json!([named("default", template), named("tool_use", tools)]);
        }
        settings
    }

    fn generation(&self) -> Value {
        let mut ends: Vec<u32> =
            ["eos", "eot", "eom"].iter().filter_map(|name| self.named.get(*name).copied()).collect();
        for (id, text) in self.tokens.iter().enumerate() {
            if self.kind(id) == CONTROL && ENDS.contains(&text.as_str()) {
                ends.extend(u32::try_from(id));
            }
        }
        let mut distinct = Vec::new();
        for end in ends {
            if !distinct.contains(&end) {
                distinct.push(end);
            }
        }
        let mut generation = json!({"eos_token_id": distinct});
        for (name, purpose) in [("bos", "bos_token_id"), ("padding", "pad_token_id")] {
            if let Some(&id) = self.named.get(name) {
                generation[purpose] = id.into();
            }
        }
        generation
    }
}

fn wrong(reason: impl Into<String>) -> TokenizerError {
    TokenizerError::Vocabulary(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tokenizer::Tokenizer;

    /// A sentencepiece vocabulary: bytes, a few letters and pieces, Gemma's white space as a token of its own.
    fn pieces() -> Vocabulary {
        let mut tokens: Vec<(String, i64, f64)> =
            vec![("<unk>".into(), UNKNOWN, 0.0), ("<s>".into(), CONTROL, 0.0), ("<end_of_turn>".into(), CONTROL, 0.0)];
        tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), BYTE, 0.0)));
        tokens.push(("\n\n".into(), USER_DEFINED, 0.0));
        let scored = ["ab", "▁a", "▁ab", "abc", "▁", "a", "b", "c", "\n"];
        tokens.extend(scored.iter().enumerate().map(|(at, text)| ((*text).to_owned(), 1, -(at as f64))));
        Vocabulary {
            model: "llama".to_owned(),
            tokens: tokens.iter().map(|token| token.0.clone()).collect(),
            kinds: tokens.iter().map(|token| token.1).collect(),
            scores: tokens.iter().map(|token| token.2).collect(),
            named: [("bos", 1), ("eos", 2), ("unknown", 0)].map(|(name, id)| (name.to_owned(), id)).into(),
            ..Vocabulary::default()
        }
    }

    #[test]
    fn a_stream_goes_on_after_bytes_that_are_no_character() {
        let vocabulary = pieces();
        let tokenizer = Tokenizer::new(vocabulary.files().unwrap(), &[]).unwrap();
        let id = |text: &str| vocabulary.tokens.iter().position(|token| token == text).unwrap() as u32;
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for token in ["<0xC3>", "<0xA9>", "<0x80>", "a", "b", "▁ab"] {
            text.push_str(&stream.push(id(token)).unwrap());
        }
        text.push_str(&stream.finish().unwrap());
        assert!(text.starts_with('é') && text.ends_with("ab ab"), "{text:?}");
    }

    fn texts(vocabulary: &Vocabulary, tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode_marked(text).unwrap();
        ids.into_iter().map(|id| vocabulary.tokens[id as usize].clone()).collect()
    }

    #[test]
    fn pieces_join_by_their_scores_and_unknown_letters_are_bytes() {
        let vocabulary = pieces();
        let tokenizer = Tokenizer::new(vocabulary.files().unwrap(), &[]).unwrap();
        // `ab` scores best, so `▁ab` comes of `▁` and `ab`, and `abc` of `ab` and `c`.
        assert_eq!(texts(&vocabulary, &tokenizer, "ab abc"), ["▁ab", "▁ab", "c"]);
        assert_eq!(texts(&vocabulary, &tokenizer, "a<end_of_turn>é"), ["▁a", "<end_of_turn>", "▁", "<0xC3>", "<0xA9>"]);
        assert_eq!(texts(&vocabulary, &tokenizer, "a\n\nb"), ["▁a", "\n\n", "▁", "b"]);
        let ids = tokenizer.encode("ab é<end_of_turn>c").unwrap();
        assert!(!ids.contains(&2), "what users write is text");
        assert_eq!(tokenizer.decode(&ids).unwrap(), "ab é<end_of_turn>c");
        assert_eq!(
            (tokenizer.begin(), tokenizer.is_end(2), tokenizer.vocab_size()),
            (Some(1), true, vocabulary.tokens.len())
        );
        let bare = Vocabulary { adds_space: Some(false), adds_begin: Some(false), ..vocabulary.clone() };
        let tokenizer = Tokenizer::new(bare.files().unwrap(), &[]).unwrap();
        assert_eq!(texts(&bare, &tokenizer, "abc ab"), ["abc", "▁ab"]);
        assert_eq!(
            (tokenizer.begin(), tokenizer.decode(&tokenizer.encode(" ab").unwrap()).unwrap()),
            (None, " ab".to_owned())
        );
    }

    /// Byte-level pairs: every byte, and what merges make.
    fn pairs(pre: &str, merges: &[&str]) -> Vocabulary {
        let mut letters: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        letters.sort_unstable();
        let mut tokens: Vec<String> = letters.into_iter().map(String::from).collect();
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        let mut kinds = vec![1; tokens.len()];
        tokens.push("<|im_end|>".to_owned());
        kinds.push(CONTROL);
        Vocabulary {
            model: "gpt2".to_owned(),
            pre: Some(pre.to_owned()),
            tokens,
            kinds,
            merges: merges.iter().map(|merge| (*merge).to_owned()).collect(),
            template: Some("{{ messages[0].content }}<|im_end|>".to_owned()),
            ..Vocabulary::default()
        }
    }

    #[test]
    fn every_split_is_its_models_own() {
        let merges = ["1 2", "12 3", "123 4", "Ġ 1", "1 1", ". ."];
        let split = |pre: &str, text: &str| {
            let vocabulary = pairs(pre, &merges);
            texts(&vocabulary, &Tokenizer::new(vocabulary.files().unwrap(), &[]).unwrap(), text)
        };
        assert_eq!(split("gpt-2", "1234 1"), ["1234", "Ġ1"]);
        assert_eq!(split("smollm", "1234 1"), ["1", "2", "3", "4", "Ġ", "1"]);
        assert_eq!(split("llama-bpe", "1234 1"), ["123", "4", "Ġ", "1"]);
        assert_eq!(split("qwen2", "1234 1"), ["1", "2", "3", "4", "Ġ", "1"]);
        assert_eq!(split("default", "1234 1.."), ["123", "4", "Ġ", "1", ".."]);
        assert_eq!(split("qwen2", "e\u{301}"), ["Ã", "©"], "composed first");
        assert_eq!(split("gpt-2", "e\u{301}"), ["e", "Ì", "ģ"]);
    }

    #[test]
    fn ends_and_template_come_along() {
        let tokenizer = Tokenizer::new(pairs("gpt-2", &[]).files().unwrap(), &[]).unwrap();
        assert_eq!(tokenizer.ends().iter().copied().collect::<Vec<_>>(), [256]);
        let ids = crate::model::chat::encode_prompt(&tokenizer, &[crate::chat::Message::user("a")], &[]).unwrap();
        assert_eq!(tokenizer.decode_marked(&ids).unwrap(), "a<|im_end|>");
        let both = Vocabulary { tool_template: Some("tools".to_owned()), ..pairs("gpt-2", &[]) };
        assert!(Tokenizer::new(both.files().unwrap(), &[]).unwrap().template().unwrap().sources().contains("tools"));
    }

    #[test]
    fn says_what_is_wrong_with_a_vocabulary() {
        let error = |vocabulary: Vocabulary| vocabulary.files().unwrap_err().to_string();
        assert_eq!(
            error(Vocabulary::default()),
            "the vocabulary is unusable: it has no tokens (`tokenizer.ggml.tokens`)"
        );
        assert!(
            error(Vocabulary { model: "bert".to_owned(), ..pieces() }).contains("`tokenizer.ggml.model` is `bert`")
        );
        assert!(error(pairs("mystery", &[])).contains("`tokenizer.ggml.pre` is `mystery`; `smollm`"));
        assert!(
            error(Vocabulary { scores: vec![1.0], ..pieces() })
                .ends_with("`tokenizer.ggml.scores` has 1 entries for 269 tokens")
        );
        assert!(error(Vocabulary { scores: vec![], ..pieces() }).contains("needs `tokenizer.ggml.scores`"));
        assert!(error(Vocabulary { merges: vec!["ab".to_owned()], ..pairs("gpt-2", &[]) }).contains("the merge `ab`"));
        assert!(
            error(Vocabulary { named: [("eos".to_owned(), 999)].into(), ..pieces() })
                .contains("is 999, but there are 269")
        );
        assert!(
            error(Vocabulary { tokens: vec!["a".to_owned(); 2], kinds: vec![], ..pairs("gpt-2", &[]) })
                .contains("both `a`")
        );
    }
}
