"""Records what transformers' apply_chat_template writes, for tests/golden/templates.json.

    python tests/record/templates.py tests/golden/templates.json NAME=PATH...

Each NAME=PATH is a chat template; those in the repository came from trl 1.16.0 (trl/chat_templates). Recorded with transformers
5.23.0 and jinja2 3.1.6. A chat that a template refuses is recorded with its words.
"""

import json
import sys

from transformers.utils.chat_template_utils import render_jinja_template

CALL = {"id": "call00001", "type": "function",
        "function": {"name": "search_hotel", "arguments": {"area": "north", "stars": 4, "note": "café \"x\" <b>"}}}
TOOLS = [
    {"type": "function", "function": {
        "name": "search_hotel", "description": "Looks for a hotel.",
        "parameters": {"type": "object", "properties": {"area": {"type": "string", "enum": ["north", "é"]}}, "required": []}}},
    {"type": "function", "function": {
        "name": "leave", "description": "Ends it.", "parameters": {"type": "object", "properties": {}, "required": []}}},
]
SAID = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": " Hello 'there'\n<|im_end|> "},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Bye. 你好"},
    {"role": "assistant", "content": " Good\nbye. "},
]
CALLED = [
    {"role": "user", "content": "A hotel in the north?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "[{\"name\": \"acorn\"}]", "tool_call_id": "call00001", "name": "search_hotel"},
    {"role": "assistant", "content": "The acorn."},
]
CHATS = {
    "said": (SAID, None, False),
    "asked": (SAID[:4], None, True),
    "without system": (SAID[1:4], None, True),
    "called": (SAID[:1] + CALLED, TOOLS, False),
    "answered": (CALLED[:3], TOOLS, True),
    "offered": (CALLED[:1], TOOLS, True),
    "out of turn": ([SAID[2], SAID[3]], None, True),
}
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "date_string": "26 Jul 2024"}


def write(template, chat, tools, prompt):
    marks = "{% generation" in template or "{%- generation" in template
    try:
        texts, spans = render_jinja_template(
            conversations=[chat], tools=tools, chat_template=template, add_generation_prompt=prompt,
            return_assistant_tokens_mask=marks, **TOKENS)
    except Exception as error:  # whatever a template or Python says
        return {"error": str(error)}
    said = [texts[0][begin:end] for begin, end in spans[0]] if marks else None
    return {"text": texts[0], "said": said}


def main():
    out, sources = sys.argv[1], dict(argument.split("=", 1) for argument in sys.argv[2:])
    templates = {name: open(path, encoding="utf-8").read() for name, path in sources.items()}
    chats = {name: {"messages": chat, "tools": tools, "prompt": prompt} for name, (chat, tools, prompt) in CHATS.items()}
    written = {name: {chat: write(template, *CHATS[chat]) for chat in CHATS} for name, template in templates.items()}
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"templates": templates, "variables": TOKENS, "chats": chats, "written": written}, file,
                  ensure_ascii=False, indent=1)
        file.write("\n")


main()
