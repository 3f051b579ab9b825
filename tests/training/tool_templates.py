"""Chat templates with the structure of well-known ones, as far as tools and calls go.

Each is (template, end-of-turn token, further control tokens). The words are our own; what matters
is where tools stand, how a call is written, and what comes before and after it.
"""

from __future__ import annotations

from tests.training.tiny import CHATML, TURNS

_SYSTEM_WITH_TOOLS = (
    "{%- if tools or messages[0].role == 'system' -%}{{- '<|im_start|>system\\n' -}}"
    "{%- if messages[0].role == 'system' -%}{{- messages[0].content -}}{%- endif -%}"
    "{%- if tools -%}{{- '\\nFunctions:\\n<tools>' -}}"
    "{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}"
    "{{- '\\n</tools>' -}}{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
)
_CALLS_IN_TAGS = (
    "{%- for call in message.tool_calls -%}"
    '{{- \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' -}}'
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}{%- endfor -%}"
)
_RESULTS_IN_A_USER_TURN = (
    "{%- elif message.role == 'tool' -%}"
    "{%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}"
    "{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}"
    "{%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}"
)
_OTHERS = (
    "{%- elif not (message.role == 'system' and loop.first) -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QWEN25 = (
    _SYSTEM_WITH_TOOLS + "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' and message.tool_calls -%}{{- '<|im_start|>assistant' -}}"
    "{%- if message.content -%}{{- '\\n' + message.content -}}{%- endif -%}"
    + _CALLS_IN_TAGS
    + "{{- '<|im_end|>\\n' -}}"
    + _RESULTS_IN_A_USER_TURN
    + _OTHERS
)
# The last turn has an empty thought; the opening of an answer has none.
QWEN3 = (
    _SYSTEM_WITH_TOOLS + "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}{{- '<|im_start|>assistant\\n' -}}"
    "{%- if loop.last -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{{- message.content -}}"
    "{%- for call in message.tool_calls or [] -%}"
    "{%- if not loop.first or message.content -%}{{- '\\n' -}}{%- endif -%}"
    '{{- \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' -}}'
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' -}}{%- endfor -%}"
    "{{- '<|im_end|>\\n' -}}" + _RESULTS_IN_A_USER_TURN + _OTHERS
)
HERMES = (
    _SYSTEM_WITH_TOOLS + "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' and message.tool_calls -%}{{- '<|im_start|>assistant' -}}"
    "{%- for call in message.tool_calls -%}{{- '\\n<tool_call>\\n' -}}"
    "{{- {'arguments': call.function.arguments, 'name': call.function.name} | tojson -}}"
    "{{- '\\n</tool_call>' -}}{%- endfor -%}{{- '<|im_end|>\\n' -}}"
    "{%- elif message.role == 'tool' -%}{{- '<|im_start|>tool\\n<tool_response>\\n' -}}"
    "{{- message.content + '\\n</tool_response><|im_end|>\\n' -}}" + _OTHERS
)
# One call in a turn, its arguments under another name; tools stand in the first question.
LLAMA31 = (
    "{{- '<s>' -}}{%- for message in messages -%}"
    "{%- if message.role == 'assistant' and message.tool_calls -%}"
    "{%- if message.tool_calls | length != 1 -%}"
    "{{- raise_exception('This template takes one call in a turn') -}}{%- endif -%}"
    "{%- set call = message.tool_calls[0].function -%}"
    '{{- \'<|head|>assistant<|/head|>\\n\\n{"name": "\' + call.name + \'", "parameters": \' -}}'
    "{{- (call.arguments | tojson) + '}<|eot|>' -}}"
    "{%- elif message.role == 'tool' -%}"
    "{{- '<|head|>ipython<|/head|>\\n\\n' + (message.content | tojson) + '<|eot|>' -}}"
    "{%- else -%}{{- '<|head|>' + message.role + '<|/head|>\\n\\n' -}}"
    "{%- if tools and message.role == 'user' and loop.index0 < 2 -%}"
    "{%- for tool in tools -%}{{- (tool | tojson(indent=4)) + '\\n\\n' -}}{%- endfor -%}"
    "{%- endif -%}{{- (message.content | trim) + '<|eot|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|head|>assistant<|/head|>\\n\\n' -}}{%- endif -%}"
)
# Calls as Python writes them: no JSON that a reader could find.
LLAMA32 = LLAMA31.replace(
    "{%- if message.tool_calls | length != 1 -%}"
    "{{- raise_exception('This template takes one call in a turn') -}}{%- endif -%}"
    "{%- set call = message.tool_calls[0].function -%}"
    '{{- \'<|head|>assistant<|/head|>\\n\\n{"name": "\' + call.name + \'", "parameters": \' -}}'
    "{{- (call.arguments | tojson) + '}<|eot|>' -}}",
    "{{- '<|head|>assistant<|/head|>\\n\\n[' -}}{%- for call in message.tool_calls -%}"
    "{%- if not loop.first -%}{{- ', ' -}}{%- endif -%}{{- call.function.name + '(' -}}"
    "{%- for name, value in call.function.arguments.items() -%}"
    "{{- ('' if loop.first else ', ') + name + '=' + (value | tojson) -}}{%- endfor -%}{{- ')' -}}"
    "{%- endfor -%}{{- ']<|eot|>' -}}",
)
# Tools before the last question, calls as one list with ids, which have to be of nine characters.
MISTRAL = (
    "{{- '<s>' -}}{%- set last = namespace(question=0) -%}{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}{%- set last.question = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}{%- for message in messages -%}{%- if message.role == 'user' -%}"
    "{%- if tools and loop.index0 == last.question -%}"
    "{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}"
    "{{- '[INST] ' + message.content + '[/INST]' -}}"
    "{%- elif message.role == 'assistant' and message.tool_calls -%}{{- '[TOOL_CALLS] [' -}}"
    "{%- for call in message.tool_calls -%}"
    "{%- if (call.id or '') | length != 9 -%}"
    "{{- raise_exception('Ids of calls have nine characters') -}}{%- endif -%}"
    "{{- ('' if loop.first else ', ') + '{\"name\": \"' + call.function.name -}}"
    '{{- \'", "arguments": \' + (call.function.arguments | tojson) -}}'
    "{{- ', \"id\": \"' + call.id + '\"}' -}}{%- endfor -%}{{- ']</s>' -}}"
    "{%- elif message.role == 'assistant' -%}{{- ' ' + message.content + '</s>' -}}"
    "{%- elif message.role == 'tool' -%}"
    "{{- '[TOOL_RESULTS] ' + message.content + '[/TOOL_RESULTS]' -}}"
    "{%- else -%}{{- message.content + '\\n' -}}{%- endif -%}{%- endfor -%}"
)
# Tools in the system turn, and no word of what was called.
SMOLLM3 = (
    _SYSTEM_WITH_TOOLS + "{%- for message in messages -%}{%- if message.role == 'tool' -%}"
    "{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}" + _OTHERS
)

_HEADS = ("<|head|>", "<|/head|>", "<|eot|>")
_BRACKETS = (
    "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
SHOW_CALLS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "qwen2.5": (QWEN25, "<|im_end|>", ()),
    "qwen3": (QWEN3, "<|im_end|>", ()),
    "hermes": (HERMES, "<|im_end|>", ()),
    "llama-3.1": (LLAMA31, "<|eot|>", _HEADS),
    "llama-3.2": (LLAMA32, "<|eot|>", _HEADS),
    "mistral": (MISTRAL, "</s>", _BRACKETS),
}
HIDE_CALLS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "smollm2": (CHATML, "<|im_end|>", ()),
    "smollm3": (SMOLLM3, "<|im_end|>", ()),
    "gemma": (TURNS, "<end_of_turn>", ()),
}
