"""The commands about a whole store: stats, compact, sleep, verify, rebuild, reencode, fit-tokens, tune, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.errors import InvalidInput
from memspan.records import as_dict
from memspan.reports import Pruned, Tuned

SHOWN = 20  # segments told one by one

Tokens = Annotated[
    str, typer.Option("--tokens", metavar="LEVEL", help="none, 1bit, 4bit, int8 or f16; auto: as it is, else 1bit.")
]


def stats(
    namespace: o.Namespace = None, store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False
) -> None:
    """Show where the store is, what is in it, how large it is and whether every view is up to date."""
    with o.open_memory(store, encoder, namespace) as memory:
        _show(memory.stats(), json)


def compact(
    namespace: o.Namespace = None, store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False
) -> None:
    """Index what is waiting and fold it into fresh index snapshots. Searching goes on meanwhile."""
    with (
        o.open_memory(store, encoder, namespace) as memory,
        output.progress("Compacting", show=not json) as advance,
    ):
        report = memory.compact(progress=advance)
    _show(report, json)


def sleep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; change nothing.", show_default=False)] = False,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            metavar="MODEL",
            help="Also have it write facts: http:MODEL@http://HOST:PORT/v1, or auto for the configured one.",
            show_default=False,
        ),
    ] = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Put the memory in order: what was said again makes way for its last telling, and sessions are summed up.

    Nothing is lost: what makes way is out of sight, and `memspan undo` brings it back. It can be stopped at any time.
    With --llm a language model writes facts and summaries beside what was said; it changes nothing of that.
    """
    if llm is not None and dry_run:
        raise InvalidInput("--llm", "came together with --dry-run", mend="give one of the two: asking a model costs")
    with o.open_memory(store, encoder, namespace) as memory, output.progress("Sleeping", show=not json) as advance:
        slept = memory.sleep(dry_run=dry_run, progress=advance)
        written = None if llm is None else memory.extract(llm, progress=advance)
    if json:
        output.emit(as_dict(slept) | ({} if written is None else {"extracted": as_dict(written)}))
        return
    verb = "would make" if dry_run else "made"
    print(f"{slept.merged:,} segments {verb} way for {slept.kept:,} that say the same or more")
    print(f"{slept.summaries:,} of {slept.sessions:,} sessions {'would be' if dry_run else 'were'} summed up")
    if slept.operation is not None:
        print(f"to take it back: memspan undo {slept.operation}")
    if written is not None:
        dropped = f", {sum(written.dropped.values())} dropped as they do not hold" if written.dropped else ""
        print(f"{output.plural(len(written.ids), 'fact')} and summaries written in {written.calls} calls{dropped}")
        if written.stopped is not None:
            why = "the budget is spent" if written.stopped == "budget" else f"the server failed: {written.problem}"
            typer.secho(f"{written.left} parts left, {why}", err=True, fg=o.color("yellow"))


def verify(store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False) -> None:
    """Read and hash everything again, through the same path a search reads by. Exit code 1 if anything is wrong.

    Where the model is missing, --encoder none checks all but the vector index.
    """
    with o.open_memory(store, encoder, None) as memory, output.progress("Verifying", show=not json) as advance:
        report = memory.verify(progress=advance)
    _show(report, json)
    if not report["ok"]:
        raise typer.Exit(1)


def rebuild(
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", metavar="NAME", help="Encode everything again with this one.", show_default=False),
    ] = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Make every view anew from the ledger; with --encoder, move the store to another model."""
    # Moving to another model must not need the one that is left behind.
    opened_with = "auto" if encoder is None else "none"
    with o.open_memory(store, opened_with, None) as memory, output.progress("Rebuilding", show=not json) as advance:
        report = memory.rebuild(encoder=encoder or "auto", progress=advance)
    _show(report, json)


def reencode(
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="With this one.", show_default=False)
    ] = None,
    tokens: Tokens = "auto",
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Encode every text anew: with another model, or to keep what it makes of each token at another level.

    Searches and writes go on meanwhile, in other processes too. It can be stopped with ctrl-C at any time and goes on
    where it was when it is run again; until all is made, nothing changes.
    """
    opened_with = "auto" if encoder is None else "none"  # moving must not need the one that is left behind
    with o.open_memory(store, opened_with, None) as memory, output.progress("Encoding", show=not json) as advance:
        report = memory.reencode(encoder=encoder or "auto", tokens=tokens, progress=advance)
    _show(report, json)


def fit_tokens(
    dims: Annotated[
        int | None,
        typer.Option("--dims", metavar="N", help="Keep only so many, a multiple of 8.", show_default=False),
    ] = None,
    tokens: Tokens = "auto",
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Fit the projection of token activations to what this store holds, and encode it anew with that.

    For a model that comes with none, or texts unlike any it knows. Works, and can be stopped, as reencode does.
    """
    with o.open_memory(store, "auto", None) as memory, output.progress("Encoding", show=not json) as advance:
        report = memory.fit_tokens(dims=dims, tokens=tokens, progress=advance)
    _show(report, json)


def tune(
    judgements: Annotated[
        Path | None,
        typer.Option(
            "--judgements",
            metavar="FILE",
            help='Keep these as feedback first: lines of {"query": "...", "id": "...", "useful": true}.',
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell; keep nothing.", show_default=False)] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Go back to the weights before the last change.", show_default=False)
    ] = False,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Learn from feedback what counts in this memory. Nothing changes unless questions it has not seen gain from it.

    Ten questions with a useful memory are needed. It holds for the whole namespace, from the next search on.
    """
    if undo and (judgements is not None or dry_run):
        raise InvalidInput("--undo", "came together with something to learn from", mend="give --undo alone")
    given = None if judgements is None else o.judgements_from(judgements)
    with o.open_memory(store, "none" if undo else encoder, namespace) as memory:
        if undo:
            undone = memory.untune()
        else:
            with output.progress("Ranking", show=not json) as advance:
                tuned = memory.tune(given, dry_run=dry_run, progress=advance)
    if not undo:
        output.emit(as_dict(tuned)) if json else show_tuned(tuned)
        return
    if json:
        output.emit({"undone": undone})
    else:
        print("Searches use the weights of before again." if undone else "Nothing was learned here: nothing to undo.")
    if not undone:
        raise typer.Exit(1)


def show_tuned(tuned: Tuned) -> None:
    """What was learned from how much, what it is worth, and whether it holds, for people."""
    learned = sorted(tuned.effects.items(), key=lambda each: -abs(each[1]))
    verdict = f"{output.plural(tuned.judgements, 'judgement')} of {output.plural(tuned.questions, 'question')}"
    gain = f"{tuned.after - tuned.before:+.3f}, with a standard error of {tuned.noise:.3f}"
    lines = {
        "Judged": verdict,
        "nDCG@10 before": f"{tuned.before:.3f}",
        "nDCG@10 after": f"{tuned.after:.3f}  ({gain}; each question by weights fitted without it)",
        "Learned": ", ".join(f"{name} {effect:+.1f}" for name, effect in learned if abs(effect) >= 0.05)
        or "no change is best",
    }
    for name, said in lines.items():
        print(f"{name:<14}  {said}")
    if tuned.applied:
        print("Applied: searches use it from now on. memspan tune --undo takes it back.")
    elif tuned.better:
        print("Not applied: this was a dry run. Without --dry-run it would be.")
    else:
        print("Not applied: the gain is within the noise. More feedback may show one.")


def prune(
    below: Annotated[
        float | None,
        typer.Option(
            "--below", metavar="0..1", help="What is weaker goes; else 0.05, by fsrs 0.5.", show_default=False
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="Only what was heard so long ago.", show_default=False),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="episodic, semantic, procedural, working.", show_default=False),
    ] = None,
    curve: Annotated[
        str, typer.Option("--curve", metavar="NAME", help='ebbinghaus, or fsrs: the extra "fsrs".')
    ] = "ebbinghaus",
    apply: Annotated[
        bool, typer.Option("--apply", help="Archive it and remove it; else only tell.", show_default=False)
    ] = False,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="FILE", help="Archive it there: NAME.memspan.", show_default=False),
    ] = None,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Tell what has faded or expired; with --apply, archive it and remove it. memspan undo brings it back.

    Core memory stays, procedural memory unless it is named, what is at least 0.9 important, and what was of use.
    """
    with o.open_memory(store, encoder, namespace) as memory, output.progress("Archiving", show=not json) as advance:
        done = memory.prune(
            below=below,
            older_than=older_than,
            kinds=kinds or None,
            curve=curve,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            dry_run=not apply,
            archive=archive,
            progress=advance,
        )
    if json:
        output.emit(as_dict(done))
    else:
        _show_pruned(done)


def _show_pruned(done: Pruned) -> None:
    for each in done.fading[:SHOWN]:
        why = "expired" if each.reason == "expired" else f"{each.strength:.3f}"
        print(f"{each.id}  {each.time:%Y-%m-%d}  {each.kind:<10}  {why:>7}  {output.line(each.about)}")
    if len(done.fading) > SHOWN:
        print(f"... and {len(done.fading) - SHOWN:,} more")
    verb = "would go" if done.dry_run else "gone"
    stays = "".join(f", {count:,} weak and stay ({why})" for why, count in done.kept.items())
    print(f"{len(done.fading):,} of {output.plural(done.segments, 'segment')} {verb}{stays}")
    if done.operation is not None:
        print(f"Archived in {done.archive} ({output.size(done.bytes)}); memspan undo {done.operation} brings it back")
    elif done.fading:
        print("Nothing was changed: --apply does it")


def _show(report: dict[str, Any], json: bool) -> None:
    output.emit(report) if json else output.show_mapping(report)
