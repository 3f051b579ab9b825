"""Files as people have them, made by script: each beside the plain rows that it has to be read as,
or beside the sentence that refuses it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

Write = Callable[[Path], Any]

QA = [
    ("Wie lange gilt die Garantie für das Rad?", "Zwei Jahre – für Rahmen und Gabel."),
    ("Où est passée ma commande ?", "Elle a été livrée « hier »."),
    ('How big is it;\nand how, "exactly", heavy?', "It is 2 m, and weighs 5 kg."),
]
WEST = [  # without signs that some code pages lack
    ("Wie lange gilt die Garantie für das Rad?", "Zwei Jahre für Rahmen und Räder."),
    ("Was kostet die größere Größe?", "Fünf Kronen; übrigens für alle."),
]
PAIRS = [{"prompt": question, "completion": answer} for question, answer in QA]
TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "stock", "arguments": {"part": "lamp"}}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


CHATS = [{"messages": [user(question), answer(text)]} for question, text in QA]
TURNS = [user("q1"), answer("a1"), user("q2"), answer("a2")]


@dataclass(frozen=True)
class Case:
    """A file, and the rows it stands for (as JSONL), or what its refusal says."""

    name: str  # of the file; its ending decides how it is read
    write: Write
    rows: list[Any] = field(default_factory=lambda: PAIRS)
    columns: str = ""
    encoding: str = ""
    refused: str = ""  # a pattern in the sentence
    part: str = ""
    bad: int = 0  # lines that are none of the rows


def lines(*rows: Any, ascii_only: bool = False) -> Write:
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    return lambda path: path.write_bytes(text.encode())


def document(value: Any) -> Write:
    return lambda path: path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def table(
    rows: list[tuple[str, ...]],
    header: tuple[str, ...] = ("prompt", "completion"),
    delimiter: str = ",",
    encoding: str = "utf-8",
    before: str = "",
    ends: str = "\r\n",
) -> Write:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator=ends)
    writer.writerows([header, *rows])
    return lambda path: path.write_bytes((before + file.getvalue()).encode(encoding))


def parquet(rows: list[dict[str, Any]], schema: Any = None) -> Write:
    return lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)


def saved(parts: dict[str, list[dict[str, Any]]]) -> Write:
    def write(path: Path) -> None:
        import datasets

        made = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
        if list(parts) == [""]:
            made[""].save_to_disk(str(path))
        else:
            datasets.DatasetDict(made).save_to_disk(str(path))

    return write


def folder(files: dict[str, Write | str]) -> Write:
    def write(path: Path) -> None:
        for name, content in files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content, encoding="utf-8")
            else:
                content(file)

    return write


CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
# A set
"""
SUBSETS = """---
configs:
- config_name: en
  data_files: en/rows.jsonl
- config_name: de
  data_files: de/rows.jsonl
---
"""

SHAREGPT = {
    "system": "Be brief.",
    "tools": json.dumps(TOOLS),
    "conversations": [
        {"from": "human", "value": "Is a lamp there?"},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "observation", "value": '{"n": 5}'},
        {"from": "gpt", "value": "Five."},
        {"from": "human", "value": "Thanks"},
    ],
}
WITH_CALL = {
    "tools": json.dumps(TOOLS),
    "messages": [
        {"role": "system", "content": "Be brief."},
        user("Is a lamp there?"),
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"n": 5}'},
        answer("Five."),
    ],
}
LEGACY = {
    "tools": json.dumps(TOOLS),
    "messages": [
        {"role": "system", "content": "Be brief."},
        user("Is a lamp there?"),
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "content": '{"n": 5}'},
        answer("Five."),
    ],
}
PREFERENCE = {"messages": [user("q")], "chosen": "good", "rejected": "bad"}
RATED = [
    {"prompt": "q1", "completion": "good", "rating": 1},
    {"prompt": "q2", "completion": "bad", "rating": -1},
]


def _rated(name: str, good: Any, bad: Any) -> list[dict[str, Any]]:
    values = zip(RATED, (good, bad), strict=True)
    return [
        {"prompt": row["prompt"], "completion": row["completion"], name: value}
        for row, value in values
    ]


def _argilla(question: str, responses: Any, **more: Any) -> dict[str, Any]:
    return {"id": "1", "fields": {"prompt": question}, "responses": responses, **more}


ARGILLA_2 = [
    _argilla(question, {"text": [{"value": text, "user_id": "u"}]}) for question, text in QA
]
ARGILLA_1 = [
    _argilla(
        question,
        [
            {
                "user_id": "u",
                "status": "submitted",
                "values": {"text": {"value": text}, "stars": {"value": 4}},
            }
        ],
        suggestions=[{"question_name": "text", "value": "a guess"}],
    )
    for question, text in QA
]
ARGILLA_FLAT = [
    {"id": "1", "status": "completed", "prompt": question, "text.responses": [text],
     "text.responses.status": ["submitted"], "text.suggestion": "a guess"}
    for question, text in QA
]  # fmt: skip


def _task(question: str, *texts: str, cancelled: bool = False) -> dict[str, Any]:
    given = [
        {
            "result": [
                {
                    "from_name": "answer",
                    "to_name": "q",
                    "type": "textarea",
                    "value": {"text": [text]},
                }
            ],
            "was_cancelled": cancelled,
        }
        for text in texts
    ]
    return {"id": 7, "data": {"text": question}, "annotations": given, "predictions": []}


LABEL_STUDIO = [_task(question, text) for question, text in QA]
LABEL_STUDIO_MIN = [
    {
        "id": 7,
        "text": question,
        "answer": text,
        "annotator": 1,
        "annotation_id": 3,
        "lead_time": 2.5,
    }
    for question, text in QA
]
LANGFUSE_ITEMS = [
    {"id": f"i{number}", "datasetId": "d", "input": {"question": question}, "status": "ACTIVE",
     "expectedOutput": {"answer": text}, "metadata": None, "sourceTraceId": None}
    for number, (question, text) in enumerate(QA)
]  # fmt: skip
LANGFUSE_TRACES = [
    {"id": f"t{number}", "userId": "u", "sessionId": f"s{number}", "input": {"messages": [user(question)]},
     "output": answer(text), "scores": []}
    for number, (question, text) in enumerate(QA)
]  # fmt: skip
TRACED = [
    {**chat, "id": f"t{number}", "user": "u", "group": f"s{number}"}
    for number, chat in enumerate(CHATS)
]
GENERATION = {
    "id": "g", "traceId": "t", "type": "GENERATION", "input": [user("q")],
    "output": {"choices": [{"message": answer("a")}]},
}  # fmt: skip
BIG = 9007199254740993
IDS = [{"prompt": f"q{at}", "completion": "a", "id": one} for at, one in enumerate((7, "8", BIG))]
SEPARATED = [{"prompt": "one\u2028two", "completion": "three\u2029four\u0085five"}]


def renamed(**names: str) -> list[dict[str, str]]:
    question, text = names.items()
    return [{question[0]: asked, text[0]: said} for asked, said in QA]


def named(question: str, text: str, extra: dict[str, Any] | None = None) -> Write:
    return lines(*({question: asked, text: said, **(extra or {})} for asked, said in QA))


SPEAKERS = [
    ("human", "bot"), ("User", "Assistant"), ("human", "gpt"), ("user", "model"),
    ("customer", "agent"), ("prompter", "chatbot"), ("USER", "AI"),
]  # fmt: skip
NULLS = {"tool_calls": None, "weight": None, "name": None}

# fmt: off
READ = [
    # names of fields and roles
    *(
        Case(f"{one}-{other}.jsonl", named(one, other))
        for one, other in [
            ("question", "answer"), ("query", "response"), ("instruction", "response"),
            ("input", "output"), ("Prompt", "Completion"), (" Question ", "ANSWER"), ("prompt", "reply"),
        ]
    ),
    Case("system-prompt.jsonl", named("question", "response", {"system_prompt": "S"}),
         [{"system": "S", **row} for row in PAIRS]),
    Case("frage.jsonl", named("Frage", "Antwort"), columns="prompt=Frage,completion=Antwort"),
    Case("nested.jsonl", lines(*({"in": {"q": q}, "out": [{"a": a}]} for q, a in QA)),
         columns="prompt=in.q,completion=out.a"),
    Case("frage.csv", table(QA, ("Frage", "Antwort"), ";"), columns="prompt=Frage,completion=Antwort"),
    *(
        Case(f"roles-{number}.jsonl",
             lines(*({"messages": [{"role": one, "content": q}, {"role": other, "content": a}]} for q, a in QA)),
             CHATS)
        for number, (one, other) in enumerate(SPEAKERS)
    ),
    Case("dialogue.jsonl",
         lines(*({"dialogue": [{"speaker": "user", "text": q}, {"speaker": "bot", "text": a}]} for q, a in QA)),
         CHATS),
    # TRL's rated rows and their kin
    Case("kto.jsonl", lines(*_rated("label", True, False)), RATED),
    Case("kto-numbers.jsonl", lines(*_rated("label", 1, 0)), RATED),
    Case("kto.csv", table([("q1", "good", "True"), ("q2", "bad", "FALSE")], ("prompt", "completion", "label")), RATED),
    Case("kto.parquet", parquet(_rated("label", True, False)), RATED),
    Case("kto-tag.jsonl", lines(*_rated("kto_tag", True, False)), RATED),
    Case("kto-german.csv", table([("q1", "good", "WAHR"), ("q2", "bad", "FALSCH")], ("prompt", "completion", "label"), ";"), RATED),
    Case("kto-messages.jsonl",
         lines(*({"prompt": [user(f"q{at}")], "completion": [answer(text)], "label": good} for at, text, good in ((1, "good", True), (2, "bad", False)))),
         RATED),
    Case("classes.jsonl", lines(*_rated("label", 0, 3)), _rated("label", 0, 3)),
    # OpenAI
    Case("weights.jsonl", lines({"messages": [TURNS[0], answer("a1", weight=0), *TURNS[2:3], answer("a2", weight=1)]}),
         [{"messages": TURNS}]),
    Case("cut.jsonl", lines({"messages": [TURNS[0], answer("a1", weight=1), TURNS[2], answer("a2", weight=0)]}),
         [{"messages": TURNS[:2]}]),
    Case("both.jsonl", lines({"messages": [TURNS[0], answer("a1", weight=1), TURNS[2], answer("a2", weight=1)]}),
         [{"messages": TURNS, "train": "all"}]),
    Case("unlearned.jsonl", lines({"train": "all", "messages": [TURNS[0], answer("a1", weight=0), *TURNS[2:]]}),
         [{"messages": TURNS}]),
    Case("masked.jsonl", lines({"conversations": [TURNS[0], answer("a1", train=False), TURNS[2], answer("a2", train=True)]}),
         [{"messages": TURNS}]),
    Case("vertex.jsonl", lines({"systemInstruction": {"role": "system", "parts": [{"text": "S"}]},
                                "contents": [{"role": "user", "parts": [{"text": "q1"}]}, {"role": "model", "parts": [{"text": "a1"}]}]}),
         [{"system": "S", "messages": TURNS[:2]}]),
    Case("lima.jsonl", lines({"conversations": ["q1", "a1", "q2", "a2"], "source": "x"}), [{"messages": TURNS, "source": "x"}]),
    Case("preferred.jsonl", lines({"input": {"messages": [user("q")], "tools": [], "parallel_tool_calls": True},
                                   "preferred_output": [answer("good")], "non_preferred_output": [answer("bad")]}),
         [PREFERENCE]),
    Case("functions.jsonl", lines(LEGACY), [WITH_CALL]),
    Case("parts.jsonl", lines({"messages": [{"role": "user", "content": [{"type": "text", "text": "q1"}]}, TURNS[1]]}),
         [{"messages": TURNS[:2]}]),
    # LLaMA-Factory and ShareGPT
    Case("alpaca-history.json", document([{"instruction": "q2", "input": "", "output": "a2", "history": [["q1", "a1"]]}]),
         [{"messages": TURNS}]),
    Case("alpaca-no-history.json", document([{"instruction": "q", "input": "x", "output": "a", "history": []}]),
         [{"instruction": "q", "input": "x", "output": "a"}]),
    Case("alpaca-preference.json", document([{"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}]),
         [PREFERENCE]),
    Case("sharegpt-tools.json", document([SHAREGPT]), [WITH_CALL]),
    Case("sharegpt-preference.json",
         document([{"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"},
                    "rejected": {"from": "gpt", "value": "bad"}}]), [PREFERENCE]),
    Case("ultrafeedback.jsonl",
         lines({"prompt": "q", "chosen": [user("q"), answer("good")], "rejected": [user("q"), answer("bad")],
                "messages": [user("q"), answer("good")], "score_chosen": 8.0}),
         [{**PREFERENCE, "score_chosen": 8.0}]),
    # exports
    Case("argilla-2.json", document(ARGILLA_2)),
    Case("argilla-1.jsonl", lines(*ARGILLA_1)),
    Case("argilla-flat.parquet", parquet(ARGILLA_FLAT)),
    Case("label-studio.json", document(LABEL_STUDIO)),
    Case("label-studio-min.json", document(LABEL_STUDIO_MIN)),
    Case("label-studio.csv", table([(q, a, "1", "3") for q, a in QA], ("text", "answer", "annotator", "annotation_id"))),
    Case("langfuse-items.json", document({"data": LANGFUSE_ITEMS, "meta": {"page": 1}})),
    Case("langfuse-traces.jsonl", lines(*LANGFUSE_TRACES), TRACED),
    Case("langfuse-generation.jsonl", lines(GENERATION), [{"messages": [user("q"), answer("a")]}]),
    Case("langfuse.csv", table([("i", json.dumps(q), json.dumps(a)) for q, a in QA], ("id", "input", "expectedOutput"))),
    # tables
    *(Case(f"comma-{number}.csv", table(QA, delimiter=one)) for number, one in enumerate(",;\t|")),
    Case("sep.csv", table(QA, delimiter=";", before="sep=;\r\n")),
    Case("bom.csv", table(QA, encoding="utf-8-sig", delimiter=";")),
    Case("unicode.csv", table(QA, encoding="utf-16", delimiter="\t")),
    Case("unicode-no-mark.csv", table(QA, encoding="utf-16-le")),
    Case("blank-lines-first.csv", table(QA, before="\r\n;;\r\n", delimiter=";")),
    Case("capitals.csv", table(QA, (" Prompt ", "COMPLETION"), ";")),
    Case("ansi.csv", table(QA, encoding="cp1252", delimiter=";")),
    Case("dos.csv", table(WEST, encoding="cp850", delimiter=";"), [dict(zip(PAIRS[0], one, strict=True)) for one in WEST]),
    Case("macintosh.csv", table(WEST, encoding="mac_roman", ends="\r"), [dict(zip(PAIRS[0], one, strict=True)) for one in WEST]),
    Case("chinese.csv", table([("请问这个产品的保修期是多久？", "我们的保修期是两年。")], encoding="gbk"),
         [{"prompt": "请问这个产品的保修期是多久？", "completion": "我们的保修期是两年。"}]),
    Case("polish.csv", table([("Jak długo trwa gwarancja na ten rower?", "Dwa lata, proszę zachować źródło.")], encoding="cp1250"),
         [{"prompt": "Jak długo trwa gwarancja na ten rower?", "completion": "Dwa lata, proszę zachować źródło."}]),
    Case("named-encoding.csv", table([("schön", "ja")], encoding="mac_roman"), [{"prompt": "schön", "completion": "ja"}],
         encoding="mac_roman"),
    Case("pandas.csv", table([(str(chat["messages"]),) for chat in CHATS], ("messages",)), CHATS),
    # Parquet
    Case("json-messages.parquet", parquet([{"messages": json.dumps(chat["messages"])} for chat in CHATS]), CHATS),
    Case("json-each.parquet", parquet([{"messages": [json.dumps(one) for one in chat["messages"]]} for chat in CHATS]), CHATS),
    Case("padded.parquet", parquet([{"messages": [{**NULLS, **one} for one in chat["messages"]]} for chat in CHATS]), CHATS),
    Case("nan.parquet", parquet([{**row, "score": float("nan")} for row in PAIRS])),
    Case("padded.jsonl", lines(*({"messages": [{**NULLS, **one} for one in chat["messages"]], "chosen": None} for chat in CHATS)), CHATS),
    # ids and separators
    Case("ids.jsonl", lines(*IDS), IDS),
    Case("ids.csv", table([("q0", "a", "7.0"), ("q1", "a", "8"), ("q2", "a", str(BIG))], ("prompt", "completion", "id")), IDS),
    Case("ids.parquet", parquet([{**row, "id": int(row["id"])} for row in IDS]), IDS),
    Case("separators.jsonl", lines(*SEPARATED), SEPARATED),
    Case("separators.csv", table([(row["prompt"], row["completion"]) for row in SEPARATED]), SEPARATED),
    # one document under the wrong ending, other line ends
    Case("list.jsonl", document(PAIRS)),
    Case("spread.jsonl", lambda path: path.write_text("\n".join(json.dumps(row, indent=2) for row in PAIRS))),
    Case("returns.jsonl", lambda path: path.write_text("\r".join(map(json.dumps, PAIRS)) + "\r")),
    Case("utf16.jsonl", lambda path: path.write_bytes("".join(json.dumps(row) + "\n" for row in PAIRS).encode("utf-16"))),
    Case("ansi.jsonl", lambda path: path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in PAIRS).encode("cp1252"))),
    # folders
    Case("saved", saved({"": PAIRS})),
    Case("parts", saved({"train": PAIRS, "test": WEST and PAIRS[:1]})),
    Case("hub", folder({"README.md": CARD, "data/train-00000-of-00001.parquet": parquet(PAIRS),
                        "data/test-00000-of-00001.parquet": parquet(PAIRS[:1])})),
    Case("hub-no-card", folder({"README.md": "# A set\n", "data/train-00000-of-00002.jsonl": lines(*PAIRS[:2]),
                                "data/train-00001-of-00002.jsonl": lines(*PAIRS[2:]), "data/valid-00000-of-00001.jsonl": lines(*PAIRS)})),
    Case("split", folder({"train.jsonl": lines(*PAIRS), "validation.jsonl": "", "test.jsonl": lines(*PAIRS[:1]), "manifest.json": "{}"})),
    Case("hub-test", folder({"README.md": CARD, "data/train-00000-of-00001.parquet": parquet(CHATS),
                             "data/test-00000-of-00001.parquet": parquet(PAIRS)}), part="test"),
    Case("one-file", folder({"README.md": "# A set\n", "rows.csv": table(QA)})),
    Case("subset", folder({"README.md": SUBSETS, "en/rows.jsonl": lines(*PAIRS), "de/rows.jsonl": lines(*CHATS)}), part="en"),
]

REFUSED = [
    Case("two-answers.jsonl", named("question", "answer", {"response": "r"}),
         refused=r"all 3 lines: found the fields question, answer, response.*--columns prompt=question,completion="),
    Case("unknown.jsonl", named("Frage", "Antwort"), refused=r"all 3 lines: found the fields Antwort, Frage; .*docs/training-data.md"),
    Case("unknown.csv", table(QA, ("Frage", "Antwort"), ";"), refused=r"--columns prompt=Frage,completion=Antwort"),
    Case("no-column.jsonl", named("Frage", "Antwort"), columns="prompt=Farge", refused=r"no column 'Farge'; found 'Frage', 'Antwort'"),
    Case("weightless.jsonl", lines({"messages": [user("q"), answer("a", weight=0)]}), refused="the weight 0 on every answer"),
    Case("half-weight.jsonl", lines({"messages": [user("q"), answer("a", weight=0.5)]}), refused="the weight of message 2 is '0.5'; expected 0 or 1"),
    Case("no-pair.jsonl", lines({"input": "q", "preferred_output": "a"}), refused="no field 'non_preferred_output'"),
    Case("bad-call.json", document([{"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "call me"}]}]),
         refused="a call of a tool that is 'call me'"),
    Case("contradiction.jsonl", lines({"prompt": "q", "completion": "a", "label": False, "rating": 1}), refused="'label' is 'false' beside a rating"),
    Case("swapped.jsonl", lines({"messages": [answer("a"), user("q")]}), refused="swap them back"),
    Case("suggested.json", document([_argilla("q", {}, suggestions={"text": {"value": "a guess"}})]), refused="without a submitted response"),
    Case("discarded.json", document([_argilla("q", {"text": [{"value": "a"}]}, status="discarded")]), refused="was discarded"),
    Case("two-responses.json", document([_argilla("q", {"one": [{"value": "a"}], "two": [{"value": "b"}]})]),
         refused="'one', 'two' in responses .*any may be meant.*completion=responses.one"),
    Case("not-annotated.json", document([_task("q")]), refused="without an annotation in words"),
    Case("skipped.json", document([_task("q", "a", cancelled=True)]), refused="without an annotation in words"),
    Case("disagreed.json", document([_task("q", "a", "b")]), refused="2 annotations 'answer' that differ"),
    Case("span.jsonl", lines({**GENERATION, "type": "SPAN"}), refused="of the type SPAN; expected traces or generations"),
    Case("archived.jsonl", lines({**LANGFUSE_ITEMS[0], "status": "ARCHIVED"}), refused="an archived item"),
    Case("no-output.jsonl", lines({"id": "t", "sessionId": "s", "input": "q", "output": None}), refused="without an output"),
    Case("arguments.jsonl", lines({**GENERATION, "input": {"a": "x", "b": "y"}}), refused=r"'input' is an object of 'a', 'b'.*--columns prompt=input.NAME"),
    Case("short.csv", table([("schön", "ja")], encoding="mac_roman"), refused=r"code page cannot be told.*--encoding .*iconv -f"),
    Case("wrong-encoding.csv", table(QA), encoding="utf-99", refused="none that Python knows"),
    Case("half-utf8.csv", lambda path: path.write_bytes("prompt,completion\nü,a\nö,b\n".encode() + b"\xff,c\n"), refused="UTF-8 with faults: byte 0xff in line 4"),
    Case("open.csv", lambda path: path.write_text('prompt,completion\nq,a\n"r,b\n'), refused="a quotation mark that opens a cell in line 3 or after is never closed"),
    Case("workbook.xlsx", lambda path: path.write_bytes(b"PK\x03\x04 xl/workbook.xml"), refused="an Excel workbook.*CSV UTF-8"),
    Case("old.xls", lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 600), refused="an Excel workbook"),
    Case("packed.jsonl.gz", lambda path: path.write_bytes(b"\x1f\x8b\x08"), refused="gunzip packed.jsonl.gz"),
    Case("rounded.parquet", parquet([{**PAIRS[0], "id": float(BIG)}]), refused="which is rounded"),
    Case("half-id.jsonl", lines({**PAIRS[0], "id": 7.5}), refused="'id' is '7.5'; expected a text or a whole number"),
    Case("unnamed-parts", saved({"one": PAIRS, "two": PAIRS}), refused="holds 2 parts: one, two.*Name one of them"),
    Case("subsets", folder({"README.md": SUBSETS, "en/rows.jsonl": lines(*PAIRS), "de/rows.jsonl": lines(*CHATS)}),
         refused="holds 2 parts: de/train, en/train"),
    Case("several", folder({"a.jsonl": lines(*PAIRS), "b.jsonl": lines(*CHATS)}), refused="2 files of rows: 'a.jsonl', 'b.jsonl'"),
    Case("pictures", folder({"README.md": "# A set\n"}), refused="without files of rows"),
    Case("missing", folder({"README.md": CARD}), refused="Files that .* names are not in the folder"),
]
# fmt: on
