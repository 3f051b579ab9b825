"""The tables of retrieval, written by serving. `whet.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Index, Integer, LargeBinary, String, Text

from whet.table_definition import define_table, instant

collections = define_table(
    "serving",
    "collections",
    Column("name", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("embedder", String(200), nullable=False),  # identity of whose vectors the index has
    Column("chunk_tokens", Integer, nullable=False),  # of the embedder, headings included
    Column("allowed_keys", JSON),  # [api key id]; null: every key of the installation may read it
    # serving.retrieval: weights of the fusion and the like
    Column("settings", JSON, nullable=False),
    Column("digest", String(64), nullable=False),  # of the indexed documents' ids and contents
    instant("created_at"),
    instant("updated_at"),
)

documents = define_table(
    "serving",
    "documents",
    Column("id", String(40), primary_key=True),  # hash of collection and address
    Column("collection", String(64), nullable=False),
    Column("address", Text, nullable=False),  # path in the folder that was added, or URL
    Column("title", Text, nullable=False),
    Column("media_type", String(100), nullable=False),
    Column("language", String(16), nullable=False),  # ISO 639-1; empty: unknown
    Column("source", Text, nullable=False),  # what was added: a folder, a file, a URL, a label
    Column("content_sha256", String(64), nullable=False),  # of the file's bytes
    Column("pipeline", String(64), nullable=False),  # versions and settings that made the passages
    Column("metadata", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # indexed | failed
    Column("error", Text),
    Column("notices", JSON, nullable=False),  # [{"code", "count"}]: what was left out of the text
    Column("passages", Integer, nullable=False),
    instant("updated_at", nullable=True),  # of the source
    instant("added_at"),
    Index(None, "collection"),
)

passages = define_table(
    "serving",
    "passages",
    Column("id", String(40), primary_key=True),  # hash of document, position and text
    Column("collection", String(64), nullable=False),
    Column("document_id", String(40), nullable=False),
    Column("position", Integer, nullable=False),
    Column("section", Text, nullable=False),  # headings from the outermost, joined by " > "
    Column("text", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("page", Integer),  # where it begins, from 1; null: the format has no pages
    Column("text_sha256", String(64), nullable=False),  # of what is embedded: title, section, text
    Index(None, "collection"),
    Index(None, "document_id", "position"),
    Index(None, "text_sha256"),
)

passage_vectors = define_table(
    "serving",
    "passage_vectors",  # kept so that what did not change is not embedded again
    Column("text_sha256", String(64), primary_key=True),
    Column("embedder", String(200), primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float16, little-endian, of length one
)

retrieval_defaults = define_table(
    "serving",
    "retrieval_defaults",  # what an alias searches when the request names nothing
    Column("alias", String(64), primary_key=True),
    Column("collection", String(64), nullable=False),
    Column("top_k", Integer, nullable=False),
    Column("min_score", Float, nullable=False),
    Column("filter", JSON, nullable=False),
    Column("actor", String(64), nullable=False),
    instant("updated_at"),
)

blame_verdicts = define_table(
    "serving",
    "blame_verdicts",  # what `whet replay --matrix` found last for an answer
    Column("interaction_id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),  # or the adapter's name; empty: the base answered
    Column("review_id", String(40)),  # null: the right answer was given with the command
    # document | index | prompt | adapter | base | none | unknown
    Column("fault", String(16), nullable=False),
    Column("detail", String(32), nullable=False),  # such as below_cut
    Column("reason", Text, nullable=False),
    Column("report", JSON, nullable=False),  # serving.blame.records.Report
    Column("actor", String(64), nullable=False),
    instant("created_at"),
    Index(None, "alias"),
)
