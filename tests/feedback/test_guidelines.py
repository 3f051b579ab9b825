"""Guidelines: versions that never change, written by operators and shown beside the item."""

from __future__ import annotations

import pytest

from feedback.guidelines import LONGEST, list_versions, load_guideline, save_guideline
from tests.feedback.world import ALIAS, NOW, queued, seed_dataset
from tests.web import console_client
from whet.context import Context
from whet.database import reading
from whet.errors import ConflictError, InputError


def test_each_change_is_a_version_and_the_newest_counts(context: Context) -> None:
    def save(text: str, after: int) -> int:
        return save_guideline(
            context.database, ALIAS, text, after=after, actor="ola", now=NOW
        ).version

    assert save("**Months**, never years.", 0) == 1
    assert save("**Months**, never years. ", 1) == 1, "the same text is no new version"
    assert save("Years are fine.", 1) == 2
    with pytest.raises(ConflictError, match="version 2"):
        save("From an editor opened at version 1.", 1)
    with pytest.raises(InputError, match="characters"):
        save("x" * (LONGEST + 1), 2)
    with reading(context.database) as connection:
        assert load_guideline(connection, ALIAS).text == "Years are fine."  # type: ignore[union-attr]
        assert [one.version for one in list_versions(connection, ALIAS)] == [2, 1]
        assert load_guideline(connection, "other") is None
    assert save("", 2) == 3
    with reading(context.database) as connection:
        assert load_guideline(connection, ALIAS) is None, "taken back"


def test_operators_write_it_and_reviewers_see_it_beside_the_item(context: Context) -> None:
    seed_dataset(context)
    (item,) = queued(context, 1)
    operator = console_client(context, "operator", clock=lambda: NOW, raise_errors=True)
    reviewer = console_client(context, "reviewer", clock=lambda: NOW)
    form = {"alias": ALIAS, "text": "Say **months**.\r\n<script>x</script>", "after": "0"}
    assert reviewer.post("/review/guidelines", data=form).status_code == 403
    assert operator.post("/review/guidelines", data=form).status_code == 303
    page = reviewer.get(f"/review/item/{item}").text
    assert "Guideline of support, version 1" in page
    assert "<strong>months</strong>" in page and "<script>x" not in page
    refused = operator.post("/review/guidelines", data={**form, "text": "Mine."})
    assert refused.status_code == 409 and "Mine." in refused.text, "the typed text stays"
    assert operator.post("/review/guidelines", data={**form, "alias": "no"}).status_code == 400
