"""``memspan cube``: what a cube is, whether it is whole, how two differ, both in one, and keys to sign them with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.errors import InvalidInput
from memspan.records import as_dict

SHOWN = 20  # segments told one by one
HOW = {
    "only a": "only in the first",
    "only b": "only in the second",
    "on in a": "went on in the first",
    "on in b": "went on in the second",
    "apart": "went on differently",
}

Cube = Annotated[Path, typer.Argument(metavar="CUBE", help="A .memspan file.")]
First = Annotated[Path, typer.Argument(metavar="A", help="A cube, or another archive of memspan's own.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="Another one.")]
SignedBy = Annotated[
    str | None,
    typer.Option("--signed-by", metavar="KEY", help="It must be signed with this key.", show_default=False),
]

cube = typer.Typer(
    help="Look into cubes without importing them, compare, merge, check and sign them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cube.command()
def inspect(path: Cube, json: o.Json = False) -> None:
    """Show what a cube says of itself: of what, when, by which encoder, signed by whom. Nothing is imported.

    The signature is checked; whether everything in it is as it was made, memspan cube verify tells.
    """
    from memspan.archives import cube as module

    told = as_dict(module.inspect(path))
    output.emit(told) if json else output.show_mapping(told)


@cube.command()
def verify(path: Cube, signed_by: SignedBy = None, json: o.Json = False) -> None:
    """Read a cube whole and compare it with its checksums and its signature. Exit code 1 if anything is wrong."""
    from memspan.archives import cube as module
    from memspan.archives.signing import fingerprint

    required = None if signed_by is None else fingerprint(signed_by)
    signer = problem = None
    try:
        signer = module.verify(path).signed_by
    except InvalidInput as error:
        problem = error.problem
    if problem is None and required not in (None, signer):
        problem = f"it was signed by {signer or 'nobody'}, not by {required}"
    report: dict[str, Any] = {"ok": problem is None, "signed_by": signer, "problem": problem}
    output.emit(report) if json else output.show_mapping(report)
    if problem is not None:
        raise typer.Exit(1)


@cube.command()
def diff(a: First, b: Second, json: o.Json = False) -> None:
    """Tell how two archives differ: segments by what became of them, other records counted. Exit code 1 if they do."""
    from memspan.cubes import differences

    found = differences(a, b)
    if json:
        output.emit({**as_dict(found), "differ": found.differ})
    else:
        for each in found.segments[:SHOWN]:
            deleted = ", deleted in the other" if each.deleted else ""
            print(f"{HOW[each.how]}{deleted}", each.id, output.line(each.text), sep="\t")
        if len(found.segments) > SHOWN:
            print(f"... and {len(found.segments) - SHOWN:,} more (--json tells all)")
        for kind, (one, other) in found.others.items():
            if one or other:
                print(f"{output.plural(one, kind)} only in the first, {other:,} only in the second")
        print(f"{output.plural(found.same, 'segment')} the same, {len(found.segments):,} not")
    if found.differ:
        raise typer.Exit(1)


@cube.command()
def merge(
    a: First,
    b: Second,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; replaced.")],
    key: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign it with this private key.", show_default=False),
    ] = None,
    namespace: o.Namespace = None,
    json: o.Json = False,
) -> None:
    """Write what two archives hold as one, each thing once, both histories kept. It needs no store and no model."""
    from memspan.cubes import merged

    with output.progress("Merging", show=not json) as advance:
        done = merged(a, b, out, namespace=namespace, key=key, progress=advance)
    if json:
        output.emit(as_dict(done))
        return
    first, second = done.imported
    parts = [
        output.plural(done.exported.segments, "segment"),
        f"{first.added:,} versions from the first",
        f"{second.added:,} more from the second",
        f"{second.there:,} in both",
    ]
    if second.conflicts:
        parts.append(f"{output.plural(len(second.conflicts), 'segment')} with two histories, the later counts")
    print(f"{done.exported.path}: {', '.join(parts)}")


@cube.command()
def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private key; never replaced.")],
    json: o.Json = False,
) -> None:
    """Make a key to sign cubes with, and print its fingerprint, which those who import them need.

    The file is only readable by you. Whoever has it can sign as you: keep it, and never send it.
    """
    from memspan.archives import signing

    fingerprint = signing.keygen(path)
    output.emit({"path": str(path), "fingerprint": fingerprint}) if json else print(fingerprint)
