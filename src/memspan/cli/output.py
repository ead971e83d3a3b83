"""What commands print: one JSON document, panels on a terminal, plain lines when piped.

Stored text was written by others. On a terminal it is shown as text and nothing else: no markup, no escape sequences,
no characters that reorder or hide what follows.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from memspan.records import Context, Event, Hit, Neighbor, Node, Segment, Step, Theme, Trust, as_dict

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.tree import Tree

# CSI and OSC sequences first, whole; then every other control character and the bidirectional overrides.
_UNSAFE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_UNSAFE_IN_JSON = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that is safe on a terminal: tabs and line ends stay, control characters and escape sequences go."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n"))


def line(text: str, limit: int = 0) -> str:
    """Text on one line, cut to ``limit`` characters where that is not 0."""
    joined = " ".join(clean(text).split())
    return joined if not limit or len(joined) <= limit else joined[: limit - 1] + "…"


def emit(document: Any) -> None:
    """Print one JSON document: UTF-8, indented, with the characters a terminal would act on escaped."""
    text = json.dumps(document, ensure_ascii=False, indent=2, default=str)
    print(_UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def console(*, stderr: bool = False) -> Console:
    """A rich console that prints text as it is: no markup, no emoji codes, no highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def show_hits(hits: Sequence[Hit]) -> None:
    """Hits best first. On a terminal with a bar for the score; piped, tab-separated: score, id, time, speaker, text."""
    if not on_terminal():
        for hit in hits:
            print(f"{hit.score:.3f}", hit.id, _moment(hit), hit.speaker or hit.role or "", line(hit.text), sep="\t")
            if hit.channels:
                print("", *(f"{name} {value:.3f}" for name, value in hit.channels.items()), sep="\t")
            if hit.path:
                print("", _way(hit.path), sep="\t")
        return
    from rich.text import Text

    screen = console()
    for number, hit in enumerate(hits, 1):
        full = round(hit.score * 10)
        head = Text(f"{number:>3}  ")
        head.append("━" * full, "green").append("━" * (10 - full), "bright_black")
        head.append(f"  {hit.score:.2f}", "bold").append(_about(hit), "cyan")
        screen.print(head, no_wrap=True, overflow="ellipsis")
        _body(screen, hit)
        if hit.channels:
            parts = "  ".join(f"{name} {value:.2f}" for name, value in hit.channels.items())
            screen.print(Text(f"     {parts}", "magenta"))
        if hit.path:
            screen.print(Text(f"     {_way(hit.path)}", "magenta"))


def show_neighbors(neighbors: Sequence[Neighbor]) -> None:
    """Neighbors strongest first. Piped, tab-separated: strength, id, time, speaker, text, the way that led there."""
    if not on_terminal():
        for near in neighbors:
            told = (_moment(near), near.speaker or near.role or "", line(near.text), _way(near.path))
            print(f"{near.strength:.3f}", near.id, *told, sep="\t")
        return
    from rich.text import Text

    screen = console()
    for near in neighbors:
        head = Text(f"  {near.strength:.2f}", "bold").append(_about(near), "cyan")
        screen.print(head, no_wrap=True, overflow="ellipsis")
        _body(screen, near)
        screen.print(Text(f"     {_way(near.path)}", "magenta"))


def show_tree(root: Node) -> None:
    """A tree with the size of each part, and texts from the innermost ones. Piped, two spaces deeper a level."""
    if not on_terminal():
        _indent(root, "")
        return
    from rich.text import Text
    from rich.tree import Tree

    def grow(branch: Tree, node: Node) -> None:
        for text in () if node.children else node.examples:
            branch.add(Text(line(text, 100), "bright_black"))
        for child in node.children:
            grow(branch.add(headed(child)), child)

    def headed(node: Node) -> Text:
        return Text(_named(node), "bold" if node.kind == "category" else "").append(f"  {node.segments:,}", "cyan")

    drawn = Tree(headed(root), guide_style="bright_black")
    grow(drawn, root)
    console().print(drawn, no_wrap=True, overflow="ellipsis")


def show_themes(themes: Sequence[Theme]) -> None:
    """Themes largest first, with the ids of their most central segments. Piped, tab-separated: size, label, ids."""
    for theme in themes:
        if on_terminal():
            print(f"{theme.segments:>7,}  {line(theme.label)}")
        else:
            print(theme.segments, line(theme.label), " ".join(theme.ids), sep="\t")


def show_segments(segments: Sequence[Segment]) -> None:
    """Segments in the given order. Piped, tab-separated: id, time, speaker, text."""
    if not on_terminal():
        for segment in segments:
            print(segment.id, _moment(segment), segment.speaker or segment.role or "", line(segment.text), sep="\t")
        return
    from rich.text import Text

    screen = console()
    for segment in segments:
        screen.print(Text(f"  •{_about(segment)}", "cyan"), no_wrap=True, overflow="ellipsis")
        _body(screen, segment)


def show_context(context: Context, milliseconds: float) -> None:
    """A context. Piped, exactly its text, so that what a model reads is what was counted."""
    if not on_terminal():
        print(context.text)
        return
    _panel(context, milliseconds)


def show_answer(context: Context, milliseconds: float) -> None:
    """A question and its context with what it cost, for people; piped, plain text."""
    if on_terminal():
        _panel(context, milliseconds)
        return
    print(f"Question: {line(context.query)}")
    print(f"{_cost(context, milliseconds)}\n{clean(context.text)}\n")


def show_text(text: str) -> None:
    """A text as it is; on a terminal, without what a terminal would act on."""
    sys.stdout.write(clean(text) if on_terminal() else text)


def show_trust(sources: Sequence[Trust]) -> None:
    """Sources, the most trusted first, with what that goes by. Piped, tab-separated: the same and all counts."""
    for each in sources:
        counts = {
            name: getattr(each, name) for name in ("segments", "useful", "rejected", "contradicted", "quarantined")
        }
        agent = line(each.agent_id or "", 40)
        if on_terminal():
            told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
            print(f"{each.trust:5.2f}  {each.source:<9}  {agent:<12}  {told}")
        else:
            print(f"{each.trust:.3f}", each.source, agent, *counts.values(), sep="\t")


def show_history(events: Sequence[Event]) -> None:
    """Every version of one segment, oldest first."""
    for event in events:
        text = line(event.text) if event.text is not None else "(no content kept)"
        print(f"{event.at:%Y-%m-%d %H:%M:%S}", f"{event.event:<6}", f"v{event.version}", text, sep="  ")


def show_mapping(mapping: Mapping[str, Any], indent: int = 0, *, sizes: bool = False) -> None:
    """A nested mapping as aligned lines, names as they are in the JSON; what stands under "bytes" is shown as sizes."""
    width = max((len(str(key)) for key in mapping), default=0)
    for key, value in mapping.items():
        sized = sizes or "bytes" in str(key)
        if isinstance(value, Mapping) and value:
            print(" " * indent + str(key))
            show_mapping(value, indent + 2, sizes=sized)
        elif isinstance(value, Sequence) and value and all(isinstance(each, Mapping) for each in value):
            print(" " * indent + str(key))
            for each in value:
                show_mapping(each, indent + 2)
        else:
            print(" " * indent + f"{key!s:<{width}}  {_plain(value, sized)}")


def plural(count: int, noun: str) -> str:
    """``1 memory``, ``2 memories``, ``3 files``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


@contextmanager
def progress(title: str, *, show: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr, as the callable that Memory's long calls take: ``(done, total, what)``.

    Draws nothing where stderr is not a terminal or ``show`` is False. Inside, the first ctrl-C is raised at the border
    of a step, by the callable or at the end, so that no step is torn in the middle; a second one is raised at once.
    """
    with _ctrl_c_waits() as asked, _bar(title) if show and sys.stderr.isatty() else nullcontext() as draw:

        def advance(done: int, total: int, what: str) -> None:
            if asked.is_set():
                raise KeyboardInterrupt
            if draw is not None:
                draw(done, total, what)

        yield advance
        if asked.is_set():
            raise KeyboardInterrupt


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}", markup=False, style="bright_black"),
        console=console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total or None, what=line(what, 40))


@contextmanager
def _ctrl_c_waits() -> Iterator[threading.Event]:
    """An event that the first ctrl-C sets instead of raising; the second one raises as ever."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread is told of signals
        return

    def wait(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked.set()

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def segment_dicts(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    return [as_dict(segment) for segment in segments]


def _cost(context: Context, milliseconds: float) -> str:
    everything = " · all there is in scope" if context.complete else ""
    return (
        f"{context.tokens} of {context.budget} tokens ({clean(context.tokenizer)}) · "
        f"{plural(len(context.citations), 'citation')} · {milliseconds:.0f} ms{everything}"
    )


def _panel(context: Context, milliseconds: float) -> None:
    from rich.panel import Panel
    from rich.text import Text

    screen = console()
    screen.print(
        Panel(
            Text(clean(context.text)),
            title=Text(line(context.query, 100), "bold"),
            title_align="left",
            subtitle=Text(_cost(context, milliseconds)),
            subtitle_align="right",
            border_style="cyan",
        )
    )
    for citation in context.citations:
        origin = " · ".join(line(part, 60) for part in (citation.title, citation.speaker) if part)
        ids = plural(len(citation.ids), "segment") if len(citation.ids) > 1 else citation.ids[0]
        screen.print(Text.assemble((f" [{citation.number}] ", "bold"), origin, (f"  {ids}", "bright_black")))


def _way(path: Sequence[Step]) -> str:
    """The hops to a segment, in words: ``from ID by mentions of Lisbon, from ID by next``."""
    return ", ".join(
        f"from {step.id} by {line(step.kind, 40)}{f' of {line(step.via, 60)}' if step.via else ''}" for step in path
    )


def _named(node: Node) -> str:
    return line(node.label, 80) or "everything"


def _indent(node: Node, margin: str) -> None:
    print(f"{margin}{_named(node)}  {node.segments:,}")
    for text in () if node.children else node.examples:
        print(f"{margin}  - {line(text, 200)}")
    for child in node.children:
        _indent(child, margin + "  ")


def _moment(segment: Segment) -> str:
    return segment.time.isoformat(timespec="seconds")


def _about(segment: Segment) -> str:
    parts = [
        segment.speaker or segment.role or "",
        f"{segment.time:%Y-%m-%d %H:%M}" if segment.occurred_at else f"noted {segment.time:%Y-%m-%d %H:%M}",
        " / ".join(segment.category),
        " › ".join(segment.heading),
    ]
    return "".join(f"  {line(part, 60)}" for part in parts if part)


def _body(screen: Console, segment: Segment) -> None:
    from rich.padding import Padding
    from rich.text import Text

    screen.print(Padding(Text(clean(segment.text)), (0, 0, 0, 5)))
    screen.print(Text(f"     {segment.id}", "bright_black"))


def _plain(value: Any, sized: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return size(value) if sized else f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (list, tuple)):
        return ", ".join(line(str(item)) for item in value) or "none"
    return "none" if value is None or value == {} else line(str(value))


def size(count: int) -> str:
    """Bytes for people: ``1.4 MiB``."""
    power = min((count.bit_length() - 1) // 10, 3)
    if power < 1:
        return plural(count, "byte")
    return f"{count / 1024**power:,.1f} {('KiB', 'MiB', 'GiB')[power - 1]}"
