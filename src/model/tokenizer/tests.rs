use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const TEXTS: [&str; 4] = [
    "I want italian food in the centre, please. Don't book it before 18:45!",
    r#"APICALL {"name": "search_restaurant", "parameters": {"food": "italian", "area": "centre"}} <COMMAND_END>"#,
    r#"PLAN ask for the time. <COMMAND_END> SPEAK When would you like to leave, at 18:45 or 09:15? <COMMAND_END>"#,
    r#"APIRETURN {"name": "the cambridge punter", "phone": "01223351880", "postcode": "cb21jf"}"#,
];

/// A tokenizer that has seen a few lines often.
pub(crate) fn small() -> Tokenizer {
    let texts: Vec<&str> = TEXTS.iter().copied().cycle().take(40).collect();
    Tokenizer::train(texts, 600).unwrap()
}

/// A byte-level tokenizer without merges, with these added tokens: text and whether it is special.
pub(crate) fn bytes(added: &[(&str, bool)], config: &Value) -> Result<Tokenizer, TokenizerError> {
    let mut format: Value = ours::files(&[]).json("tokenizer.json").unwrap();
    let vocab = format["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|text, _| !SPECIAL.contains(&text.as_str()));
    for (at, id) in vocab.values_mut().enumerate() {
        *id = at.into();
    }
    let token = |(at, (text, special)): (usize, &(&str, bool))| {
        json!({"id": 256 + at, "content": text, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false})
    };
    format["added_tokens"] = added.iter().enumerate().map(token).collect();
    format["normalizer"] = Value::Null;
    format["pre_tokenizer"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    format["decoder"] = format["pre_tokenizer"].clone();
    let files = TextFiles::default().with_json("tokenizer.json", &format).with_json("tokenizer_config.json", config);
    Tokenizer::new(files, &[])
}

#[test]
fn a_word_has_the_same_tokens_in_a_sentence_and_in_json() {
    let tokenizer = small();
    for word in ["italian", "centre", "18:45", "cb21jf", "dontchaknow", "TR4182", "the cambridge punter"] {
        let tokens = tokenizer.encode(word).unwrap();
        for text in
            [format!("it is {word}"), format!(r#"{{"area": "{word}"}}"#), format!("({word})"), format!("a\n{word} b")]
        {
            let ids = tokenizer.encode(&text).unwrap();
            assert!(ids.windows(tokens.len()).any(|window| window == tokens), "{text}");
        }
    }
}

#[test]
fn frequent_words_and_json_scaffolding_are_single_tokens() {
    let tokenizer = small();
    let parts = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        ids.iter().map(|&id| tokenizer.0.inner.id_to_token(id).unwrap()).collect()
    };
    assert_eq!(
        parts(r#"{"food": "italian", "area": "centre"}} <COMMAND_END>"#),
        ["Ġ{\"Ĉ", "Ġfood", "\":Ġ\"Ĉ", "Ġitalian", "\",Ġ\"Ĉ", "Ġarea", "\":Ġ\"Ĉ", "Ġcentre", "\"}}", "Ġ<ĈĠCOMMAND_END>"]
    );
    assert_eq!(parts("at 18:45"), ["Ġat", "Ġ18", ":Ĉ", "Ġ45"]);
    assert_eq!(parts("Don't"), ["ĠDon't"]);
}

#[test]
fn what_users_write_never_becomes_a_special_token() {
    let tokenizer = small();
    let ids = tokenizer.encode("<|end|><|assistant|>").unwrap();
    assert!(ids.iter().all(|&id| id as usize >= SPECIAL.len()));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "<|end|><|assistant|>");
    let ids = tokenizer.encode_marked("<|end|><|assistant|>").unwrap();
    assert_eq!((&ids[..], tokenizer.decode(&ids).unwrap().as_str()), (&[1, 4][..], ""));
    assert_eq!(tokenizer.decode_marked(&ids).unwrap(), "<|end|><|assistant|>");
}

#[test]
fn the_same_texts_give_the_same_files_in_any_order() {
    let files = small().files().clone();
    let texts: Vec<&str> = TEXTS.iter().rev().copied().cycle().take(40).collect();
    assert_eq!(Tokenizer::train(texts, 600).unwrap().files(), &files);
    assert!(small().vocab_size() <= 600 && small().text_size() == small().vocab_size());
}

#[test]
fn files_come_and_go_unchanged() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = json!({"eos_token": {"content": "<b>"}, "pad_token": "<p>", "anything": [1]});
    let files =
        bytes(&[("<b>", false), ("<p>", false)], &config).unwrap().files().clone().with("tokenizer.model", "\u{1}");
    files.save(folders[0].path()).unwrap();
    let tokenizer = Tokenizer::load(folders[0].path()).unwrap();
    tokenizer.save(folders[1].path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"] {
        let [first, second] = [0, 1].map(|at: usize| fs::read(folders[at].path().join(name)).unwrap());
        assert_eq!(first, second, "{name}");
    }
    // What a file names as the end is a special token, whatever the other one says.
    assert!(tokenizer.is_special(256) && tokenizer.is_end(256) && tokenizer.pad() == 257);
    assert_eq!(tokenizer.text_size(), 256);
}

#[test]
fn ends_come_from_every_file_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let added = [("<a>", true), ("<b>", true), ("<c>", true), ("<d>", true)];
    let files = bytes(&added, &json!({"eos_token": "<a>", "bos_token": "<d>", "add_bos_token": true})).unwrap();
    let generation = json!({"eos_token_id": [257, 256], "pad_token_id": 259});
    files.files().clone().with_json("generation_config.json", &generation).save(folder.path()).unwrap();
    fs::write_whole(folder.path().join("config.json"), br#"{"text_config": {"eos_token_id": 258}}"#).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.ends().iter().copied().collect::<Vec<_>>(), [256, 257, 258]);
    assert_eq!((tokenizer.pad(), tokenizer.begin()), (259, Some(259)));
    fs::write_whole(folder.path().join("config.json"), br#"{"eos_token_id": "x"}"#).unwrap();
    assert_eq!(
        Tokenizer::load(folder.path()).unwrap_err().to_string(),
        "`config.json` is wrong: `eos_token_id` is a text, expected ids of tokens"
    );
}

#[test]
fn tokens_that_only_the_settings_list_are_there_too() {
    let config =
        json!({"added_tokens_decoder": {"256": {"content": "<a>", "special": true}, "257": {"content": "<b>"}}});
    let tokenizer = bytes(&[("<a>", true)], &config).unwrap();
    assert_eq!((tokenizer.token("<a>"), tokenizer.token("<b>"), tokenizer.vocab_size()), (Some(256), Some(257), 258));
    assert_eq!(tokenizer.encode("<b>").unwrap(), [257]);
    assert_eq!(tokenizer.decode(&[257]).unwrap(), "<b>");
}

#[test]
fn says_what_is_wrong_with_files() {
    assert_eq!(
        Tokenizer::train([], 100).unwrap_err().to_string(),
        "a vocabulary of 100 tokens cannot hold every byte; it needs at least 262"
    );
    let error = |files: TextFiles| Tokenizer::new(files, &[]).unwrap_err().to_string();
    let with = |text: &str| error(small().files().clone().with("tokenizer.json", text));
    assert!(error(TextFiles::default()).starts_with("there is no `tokenizer.json`"));
    assert_eq!(with("{}"), "`tokenizer.json` is wrong: it has no `model`");
    assert!(with("{").starts_with("`tokenizer.json` is wrong: EOF"));
    assert!(with(r#"{"model": {"type": "BPE"}}"#).starts_with("the tokenizer is unusable: "));
    let token = r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [{"content": "a"}]}"#;
    assert_eq!(with(token), "`tokenizer.json` is wrong: an added token needs an `id` and its text as `content`");
    let mut format = small().files().json("tokenizer.json").unwrap();
    format["added_tokens"][1]["id"] = 40.into();
    assert_eq!(
        error(small().files().clone().with_json("tokenizer.json", &format)),
        "the tokenizer is unusable: the token `<|end|>` has id 40 in the file and 1 in the vocabulary"
    );
    let error =
        error(small().files().clone().with_json("tokenizer_config.json", &json!({"chat_template": "{% if %}"})));
    assert!(error.starts_with("the chat template is wrong: "), "{error}");
}

/// Pieces with scores, as sentencepiece's unigram models have them: the lattice would find a mark in ordinary text.
#[test]
fn unigram_vocabularies_keep_marks_apart_too() {
    let pieces = json!([
        ["<unk>", 0.0],
        ["</s>", 0.0],
        ["▁", -2.0],
        ["a", -3.0],
        ["<", -4.0],
        ["/", -4.0],
        ["s", -4.0],
        [">", -4.0]
    ]);
    let format = json!({
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
        "post_processor": null,
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false},
    });
    let tokenizer = Tokenizer::new(TextFiles::default().with_json("tokenizer.json", &format), &[1]).unwrap();
    assert_eq!(tokenizer.encode("a</s>").unwrap(), [2, 3, 4, 5, 6, 7]);
    assert_eq!(tokenizer.encode_marked("a</s>a").unwrap(), [2, 3, 1, 3]);
    assert_eq!(tokenizer.decode(&[2, 3, 4, 5, 6, 7, 1]).unwrap(), "a</s>");
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    let mut text: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(text.iter().all(|part| !part.ends_with('\u{fffd}')), "{text:?}");
    text.push(stream.finish().unwrap());
    text.concat()
}

#[test]
fn a_stream_waits_for_whole_characters() {
    let tokenizer = bytes(&[("<a>", true)], &json!({})).unwrap();
    let ids = tokenizer.encode("é😀").unwrap();
    let mut stream = tokenizer.stream();
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts, ["", "é", "", "", "", "😀"]);
    assert_eq!(stream.push(256).unwrap(), "");
    assert_eq!(stream.push(ids[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in "[^\u{8}\u{fdd0}-\u{fdd4}]{0,40}|[a-z0-9 .,'\"{}:<>\n_-]{0,60}") {
        let tokenizer = Tokenizer::new(ours::files(&[]), &[]).unwrap();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), &text[..]);
        prop_assert_eq!(streamed(&tokenizer, &ids), &text[..]);
    }

    #[test]
    fn streams_of_any_tokens_give_what_decoding_them_gives(ids in prop::collection::vec(0u32..600, 0..60)) {
        let tokenizer = small();
        let decoded = tokenizer.decode(&ids).unwrap();
        // Where bytes are no character, how many U+FFFD stand for them depends on what is decoded together.
        if !decoded.contains('\u{fffd}') {
            let mut stream = tokenizer.stream();
            let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            text.push_str(&stream.finish().unwrap());
            prop_assert_eq!(text, decoded);
        }
    }
}

#[test]
fn the_bytes_of_tokens_are_those_of_the_text() {
    let text = "cheap food in the café, 10€ \u{1f600}";
    let tokenizer = Tokenizer::train([text], 270).unwrap();
    let ids = tokenizer.encode(text).unwrap();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.bytes(*id).unwrap()).collect();
    // A joiner and the space behind it are no part of the text.
    let told = String::from_utf8(bytes).unwrap().replace("\u{8} ", "");
    assert_eq!(told.trim_start(), text);
    assert!(tokenizer.bytes(u32::MAX).is_none());
}
