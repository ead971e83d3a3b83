"""What clients of mem0 send, as the OpenAPI document tells it. A field that means nothing here is left alone."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Filters = Annotated[
    dict[str, Any],
    Field(
        description="Fields, AND, OR, NOT; eq, ne, in, nin, gt, gte, lt, lte, contains, icontains, and '*' for any.",
        examples=[{"AND": [{"user_id": "ana"}, {"topic": {"in": ["travel", "food"]}}]}],
    ),
]
Metadata = Annotated[dict[str, Any], Field(examples=[{"topic": "travel"}])]
Day = Annotated[str, Field(description="The last day on which it is found.", examples=["2026-12-31"])]
Timestamp = Annotated[int | float | str, Field(description="When it was said: seconds since 1970, or ISO 8601.")]
Count = Annotated[int, Field(ge=0)]


class _Body(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)


class _Whose(_Body):
    user_id: str | None = Field(default=None, examples=["ana"])
    agent_id: str | None = None
    run_id: str | None = None
    app_id: str | None = None
    filters: Filters | None = None

    @property
    def whose(self) -> dict[str, Any]:
        """The ids that stand beside ``filters``."""
        ids = {name: getattr(self, name) for name in ("user_id", "agent_id", "run_id", "app_id")}
        return {name: value for name, value in ids.items() if value is not None}


class Adding(_Whose):
    """Messages to remember, or one text."""

    messages: str | dict[str, Any] | list[dict[str, Any]] = Field(
        examples=[[{"role": "user", "content": "I moved to Lisbon in May."}]]
    )
    metadata: Metadata | None = None
    categories: list[str] | None = None
    expiration_date: Day | None = None
    timestamp: Timestamp | None = None
    infer: bool | None = Field(
        default=None, description="False: no language model is asked, even where one is configured."
    )
    memory_type: str | None = Field(default=None, examples=["procedural_memory"])
    output_format: str | None = None


class _Reading(_Whose):
    show_expired: bool | None = None
    latest_only: bool | None = Field(default=None, description="False: also what was superseded.")
    categories: list[str] | None = None
    metadata: Metadata | None = None
    fields: list[str] | None = Field(default=None, description="Which fields of each memory to return.")
    output_format: str | None = Field(default=None, description="v1.0 answers with a list alone, v1.1 with an object.")

    @property
    def also(self) -> dict[str, Any]:
        """What is asked beside ``filters``, as a filter."""
        asked: dict[str, Any] = dict(self.whose)
        if self.categories:
            asked["categories"] = {"in": self.categories}
        if self.metadata:
            asked["metadata"] = self.metadata
        return asked


class Listing(_Reading):
    """Which memories to list."""

    page: int | None = Field(default=None, ge=1)
    page_size: int | None = Field(default=None, ge=1)
    start_date: str | None = Field(default=None, examples=["2026-01-01"])
    end_date: str | None = Field(default=None, examples=["2026-12-31"])


class Searching(_Reading):
    """What to search, and among which memories."""

    query: str = Field(examples=["where does Ana live?"])
    top_k: Count | None = None
    limit: Count | None = Field(default=None, description="What older clients call top_k.")
    threshold: float | None = Field(default=None, ge=0, le=1)
    explain: bool | None = None
    rerank: bool | None = Field(default=None, description="False: without the reranker, where one is configured.")
    reference_date: Timestamp | None = Field(default=None, description="Of which time the answer must be true.")


class Updating(_Body):
    """What a memory shall say from now on. Keys of the metadata are added to those it has."""

    text: str | None = Field(default=None, examples=["Ana lives in Lisbon."])
    data: str | None = Field(default=None, description="What older clients call text.")
    metadata: Metadata | None = None
    expiration_date: Day | None = None
    timestamp: Timestamp | None = None


class _Named(_Body):
    memory_id: str


class UpdatingOne(Updating, _Named):
    """Which memory, and what it shall say."""


class BatchUpdating(_Body):
    """Several updates."""

    memories: list[UpdatingOne] = Field(min_length=1, max_length=1000)


class BatchDeleting(_Body):
    """Several memories to delete."""

    memories: list[_Named] = Field(min_length=1, max_length=1000)


class Feedback(_Named):
    """What somebody thinks of a memory. With the ``query`` that found it, searches learn from it."""

    feedback: str | None = Field(default=None, examples=["POSITIVE"])
    feedback_reason: str | None = None
    query: str | None = None


class Filtered(_Body):
    """Among which memories."""

    filters: Filters | None = None
