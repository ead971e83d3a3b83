"""What ``add`` keeps, how often, in which scope, and what makes a retry safe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from memspan import Added, IdempotencyConflict, InvalidInput, Memory, Message, NotFound

Open = Callable[..., Memory]

MAY = datetime(2026, 5, 30, 14, 0, tzinfo=UTC)
ANA = [
    {"role": "user", "name": "Ana", "content": "I moved to Lisbon in May."},
    {"role": "assistant", "name": "Bot", "content": "How do you like it there?"},
]


def texts(memory: Memory, **scope: str) -> list[str]:
    return [segment.text for segment in memory.get_all(**scope)]


# Once, twice, in which scope


def test_a_text_is_kept_with_all_that_was_said_about_it(memory: Memory) -> None:
    added = memory.add(
        "The core logic resides in dsm/memory.py.",
        user_id="ana",
        agent_id="coder",
        run_id="7",
        session="review",
        category="Software / Architecture / Core",
        importance=0.9,
        metadata={"topic": "code", "lines": [1, 2]},
        occurred_at=MAY,
        source="document",
    )
    assert added == Added(ids=added.ids, added=1, repeated=0, document_id=None, pending=0, operation=added.operation)
    kept = memory.get(added.ids[0])
    assert kept.text == "The core logic resides in dsm/memory.py."
    assert (kept.namespace, kept.user_id, kept.agent_id, kept.run_id) == ("default", "ana", "coder", "7")
    assert (kept.session, kept.category) == ("review", ("Software", "Architecture", "Core"))
    assert (kept.importance, kept.source, kept.occurred_at) == (0.9, "document", MAY)
    assert kept.metadata == {"topic": "code", "lines": [1, 2]}
    assert (kept.version, kept.repeats, kept.ended_at) == (1, 0, None)
    assert kept.tokens == 11  # of the encoder's own tokenizer: seven words and four signs
    assert kept.time == MAY


def test_the_same_text_again_is_counted_and_not_copied(memory: Memory) -> None:
    first = memory.add("I moved to Lisbon.", user_id="ana")
    again = [memory.add("I moved to Lisbon.", user_id="ana") for _ in range(3)]
    assert all(each == Added(ids=first.ids, added=0, repeated=1, operation=each.operation) for each in again)
    assert texts(memory) == ["I moved to Lisbon."]
    assert memory.get(first.ids[0]).repeats == 3
    assert memory.stats()["repeats"] == 3


@pytest.mark.parametrize("part", ["namespace", "user_id", "agent_id", "run_id", "session"])
def test_the_same_text_in_another_scope_is_another_memory(memory: Memory, part: str) -> None:
    one = memory.add("I moved to Lisbon.", **{part: "one"})
    two = memory.add("I moved to Lisbon.", **{part: "two"})
    assert (two.added, two.repeated) == (1, 0)
    assert one.ids != two.ids
    assert [segment.id for segment in memory.get_all(**{part: "one"})] == list(one.ids)


def test_the_namespace_of_the_memory_holds_where_a_call_names_none(opened: Open) -> None:
    work = opened(namespace="work")
    id = work.add("The deploy is on Friday.").ids[0]
    assert work.get(id).namespace == "work"
    home = opened(namespace="home")
    assert home.get_all() == []
    with pytest.raises(NotFound):
        home.get(id)
    assert home.get(id, namespace="work").text == "The deploy is on Friday."


def test_two_equal_messages_in_one_call_are_both_kept_and_said_again_in_another_are_repeats(memory: Memory) -> None:
    ok = [{"role": "user", "content": "ok"}, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "ok"}]
    first = memory.add(ok, session="a")
    assert (first.added, first.repeated, len(set(first.ids))) == (3, 0, 3)
    again = memory.add(ok, session="a")
    assert (again.added, again.repeated, again.ids) == (0, 3, first.ids)
    more = memory.add([*ok, {"role": "user", "content": "ok"}], session="a")
    assert (more.added, more.repeated, more.ids[:3]) == (1, 3, first.ids)
    assert texts(memory) == ["ok"] * 4


def test_a_conversation_that_grew_adds_only_what_is_new(memory: Memory) -> None:
    first = memory.add(ANA, session="today")
    later = memory.add([*ANA, {"role": "user", "name": "Ana", "content": "I love it."}], session="today")
    assert later.ids[:2] == first.ids
    assert (later.added, later.repeated) == (1, 2)
    assert [(s.position, s.text) for s in memory.get_all(session="today")] == [
        (0, "I moved to Lisbon in May."),
        (1, "How do you like it there?"),
        (2, "I love it."),
    ]


# Messages


def test_messages_keep_their_role_name_and_time(memory: Memory) -> None:
    added = memory.add(
        [
            {"role": "human", "name": "Ana", "content": "I moved to Lisbon.", "timestamp": "2026-05-30T16:00:00+02:00"},
            {"role": "ai", "content": "Welcome!"},
            Message(content="It has a river.", role="tool", name="atlas", time=MAY, metadata={"page": 3}),
            {"role": "system", "content": "Be kind.", "metadata": {"page": 4, "own": True}},
        ],
        metadata={"page": 1, "book": "b"},
        occurred_at="2020-01-01",
    )
    ana, bot, atlas, system = (memory.get(id) for id in added.ids)
    assert (ana.role, ana.speaker, ana.occurred_at, ana.source) == ("user", "Ana", MAY, "user")
    assert (bot.role, bot.speaker, bot.source) == ("assistant", None, "assistant")
    assert bot.occurred_at == datetime(2020, 1, 1, tzinfo=UTC)  # a message's own time goes before that of the call
    assert (atlas.role, atlas.speaker, atlas.occurred_at, atlas.source) == ("tool", "atlas", MAY, "tool")
    assert atlas.metadata == {"page": 3, "book": "b"}
    assert system.metadata == {"page": 4, "book": "b", "own": True}
    assert [s.position for s in (ana, bot, atlas, system)] == [0, 1, 2, 3]


def test_a_picture_is_kept_as_what_its_caption_says(memory: Memory) -> None:
    parts = [
        {"type": "text", "text": "Look at this!"},
        {"type": "image_url", "image_url": {"url": "data:..."}, "caption": "a dog on a beach"},
    ]
    id = memory.add([{"role": "user", "name": "Ana", "content": parts}]).ids[0]
    assert memory.get(id).text == "Look at this!\n[shares a picture: a dog on a beach]"
    assert memory.search("dog beach")[0].id == id


def test_the_place_of_a_message_in_its_session_goes_on_after_a_long_one(memory: Memory) -> None:
    long = " ".join(f"This is sentence number {i} of a long story." for i in range(200))
    first = memory.add([{"role": "user", "content": long}], session="s")
    assert first.document_id is not None
    second = memory.add([{"role": "assistant", "content": "What a story!"}], session="s")
    places = [segment.position for segment in memory.get_all(session="s")]
    assert places == list(range(len(first.ids) + 1))
    assert memory.get(second.ids[0]).position == len(first.ids)
    assert memory.document(first.document_id).text == long


def test_the_speaker_is_part_of_what_is_searched_and_not_of_the_text(memory: Memory) -> None:
    memory.add([{"role": "user", "name": "Caroline", "content": "I adopted a cat."}])
    memory.add([{"role": "user", "name": "Melanie", "content": "I adopted a dog."}])
    best = memory.search("what did Caroline adopt?")[0]
    assert (best.text, best.speaker) == ("I adopted a cat.", "Caroline")


# Times


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (MAY, MAY),
        (MAY.replace(tzinfo=None), MAY),
        (MAY.astimezone(timezone(timedelta(hours=9))), MAY),
        ("2026-05-30T14:00:00", MAY),
        ("2026-05-30T14:00:00Z", MAY),
        ("2026-05-30 10:00-04:00", MAY),
        ("2026-05-30", MAY.replace(hour=0)),
        (MAY.date(), MAY.replace(hour=0)),
        (MAY.timestamp(), MAY),
        (int(MAY.timestamp()), MAY),
        (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("0001-01-01", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc_and_every_way_to_write_one_is_taken(
    memory: Memory, given: object, meant: datetime
) -> None:
    id = memory.add("It happened.", occurred_at=given).ids[0]  # type: ignore[arg-type]
    kept = memory.get(id).occurred_at
    assert kept == meant
    assert kept is not None
    assert kept.tzinfo is UTC


def test_when_it_happened_is_apart_from_when_we_heard_it(memory: Memory) -> None:
    before = datetime.now(UTC)
    old, plain = (
        memory.get(memory.add(text, occurred_at=at).ids[0]) for text, at in (("A", "1999-01-01"), ("B", None))
    )
    after = datetime.now(UTC)
    assert old.occurred_at == datetime(1999, 1, 1, tzinfo=UTC)
    assert plain.occurred_at is None
    for segment in (old, plain):
        assert before - timedelta(milliseconds=1) <= segment.recorded_at <= after
        assert segment.recorded_at.tzinfo is UTC
    assert plain.time == plain.recorded_at


# Retries


def test_a_retry_with_the_same_key_gives_the_same_ids_and_writes_nothing(memory: Memory) -> None:
    first = memory.add(ANA, idempotency_key="k1", session="s")
    retry = memory.add(ANA, idempotency_key="k1", session="s")
    assert retry == Added(ids=first.ids, added=0, repeated=2, operation=first.operation)
    assert [segment.repeats for segment in memory.get_all()] == [0, 0]  # a retry is not a second time it was said


@pytest.mark.parametrize(
    "other",
    [
        {"content": "Something else."},
        {"importance": 0.1},
        {"metadata": {"a": 1}},
        {"category": "A"},
        {"occurred_at": 5},
        {"user_id": "eve"},
        {"session": "t"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_same_key_with_another_payload_is_an_error_and_writes_nothing(
    memory: Memory, other: dict[str, object]
) -> None:
    memory.add("Said once.", idempotency_key="k1", session="s")
    before = memory.get_all()
    with pytest.raises(IdempotencyConflict) as caught:
        memory.add(**{"content": "Said once.", "idempotency_key": "k1", "session": "s", **other})  # type: ignore[arg-type]
    assert caught.value.argument == "idempotency_key"
    assert "'k1'" in caught.value.problem
    assert caught.value.mend
    assert memory.get_all() == before
    assert memory.stats()["versions"] == 1


def test_a_key_is_its_namespaces_own(memory: Memory) -> None:
    memory.add("One.", idempotency_key="k", namespace="a")
    assert memory.add("Two.", idempotency_key="k", namespace="b").added == 1


def test_a_retry_after_all_of_it_was_deleted_is_a_new_memory(memory: Memory) -> None:
    first = memory.add("Said once.", idempotency_key="k1")
    assert memory.erase(first.ids).segments == 1
    again = memory.add("Said once.", idempotency_key="k1")
    assert again.added == 1
    assert again.ids != first.ids
    assert memory.add("Said once.", idempotency_key="k1").ids == again.ids


def test_a_key_of_a_failed_add_is_free(memory: Memory) -> None:
    with pytest.raises(InvalidInput):
        memory.add("  ", idempotency_key="k1")
    assert memory.add("Words.", idempotency_key="k1").added == 1


# Waiting


def test_without_waiting_words_find_it_at_once_and_meaning_after_the_queue_is_worked_off(memory: Memory) -> None:
    added = memory.add("The zeppelin lands at noon.", wait=False)
    assert added.added == 1
    assert memory.search("zeppelin", recipe="keyword")[0].id == added.ids[0]
    memory.compact()
    assert memory.stats()["pending"] == 0
    assert memory.search("zeppelins", recipe="semantic")[0].id == added.ids[0]


def test_without_waiting_nothing_written_is_lost_by_closing(opened: Open) -> None:
    first = opened()
    ids = [id for i in range(20) for id in first.add(f"Fact number {i}.", wait=False).ids]
    first.close()
    second = opened()
    assert [segment.id for segment in second.get_all()] == ids
    second.compact()
    assert second.stats()["pending"] == 0
    assert second.verify() == {"ok": True, "segments": 20, "problems": []}


# Ids


def test_ids_are_uuids_of_version_7_in_the_order_of_writing(memory: Memory) -> None:
    from uuid import UUID

    ids = [memory.add(f"Fact {i}.").ids[0] for i in range(50)]
    assert ids == sorted(ids)
    assert {UUID(id).version for id in ids} == {7}
    made = datetime.fromtimestamp((UUID(ids[0]).int >> 80) / 1000, UTC)
    assert abs(made - memory.get(ids[0]).recorded_at) < timedelta(seconds=1)
