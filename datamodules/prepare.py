"""From folders of audio to manifests: ``python -m datamodules.prepare --help``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.preparing.parts import Finding
from robust_asr.text.mistakes import sentence
from robust_asr.text.terminal import guard_terminal, say


def report(findings: Sequence[Finding], *, strict: bool) -> int:
    """Prints the findings, one a line, and their number.

    The exit code is 1 if one of them kept a manifest from being written, or if there are any and ``strict``.
    """
    for finding in findings:
        say(finding)
    left_out = len({(finding.path, finding.utterance) for finding in findings if finding.utterance})
    left_out += sum(finding.num_others for finding in findings)
    say(f"{len(findings)} findings, {left_out} utterances left out")
    return 1 if any(finding.is_fatal or strict for finding in findings) else 0


# What each layout is; the last one is a file.
_CORPORA = {
    "librispeech": "a folder in LibriSpeech's layout",
    "mls": "a language's folder of Multilingual LibriSpeech",
    "commonvoice": "a language's folder of Common Voice",
    "voxpopuli": "a language's folder of VoxPopuli, such as transcribed_data/en",
    "csv": "a table with a header and a line for each utterance: path, text and, if they are there, id, speaker and part",
}
_COLUMNS = ("path", "text", "id", "speaker", "part")


def _add_options_of_a_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", help="names of parts (default: all, of tables train, dev and test)")
    parser.add_argument(
        "--hold-out-speakers", type=int, default=0, metavar="N", help="also <train>-rest and <train>-dev"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of held-out speakers")
    parser.add_argument(
        "--alphabet",
        nargs="?",
        const=True,
        metavar="CHARACTERS",
        help="leave out texts that hold other characters after upper-casing (alone: A to Z, apostrophe and space)",
    )
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="upper-case English texts, fold accents, spell numbers and drop punctuation",
    )
    parser.add_argument("--shar", action="store_true", help="also shards for streaming")
    parser.add_argument("--shard-size", type=int, default=500, help="utterances a shard")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m datamodules.prepare", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    corpora = [kinds.add_parser(name, help=what) for name, what in _CORPORA.items()]
    for corpus in corpora:
        _add_options_of_a_corpus(corpus)
    table = corpora[-1]
    table.add_argument("--root", type=Path, help="folder that the paths are relative to (default: that of the file)")
    for kind in _COLUMNS:
        table.add_argument(f"--{kind}-column", metavar="NAME", help=f"default: {kind}")
    sounds = kinds.add_parser("noise", help="a folder of environmental sounds")
    sounds.add_argument("folder", type=Path)
    sounds.add_argument("out", type=Path)
    embedded = kinds.add_parser("synthetic", help="the embedded corpus, spoken by espeak-ng")
    embedded.add_argument("out", type=Path)
    embedded.add_argument("--num-utterances", type=int, default=2000)
    embedded.add_argument("--num-voices", type=int, default=60)
    embedded.add_argument("--domain", choices=("everything", "numbers"), default="everything")
    embedded.add_argument("--seed", type=int, default=0)
    for kind in (*corpora, sounds, embedded):
        kind.add_argument("--num-jobs", type=int, default=os.cpu_count() or 1)
        kind.add_argument("--strict", action="store_true", help="exit code 1 if anything was found")
    return parser


def _prepare(kind: str, options: dict[str, Any]) -> list[Finding]:
    # Imported only when needed: `--help` should not wait for lhotse.
    if kind in _CORPORA:
        return _prepare_corpus(kind, options)
    if kind == "noise":
        from datamodules.preparing.noise import prepare_noise

        return prepare_noise(**options)
    from datamodules.synthetic import Settings, make_corpus

    num_jobs = options.pop("num_jobs")
    make_corpus(options.pop("out"), Settings(**options), num_jobs=num_jobs)
    return []


def _prepare_corpus(kind: str, options: dict[str, Any]) -> list[Finding]:
    from datamodules.preparing import commonvoice, librispeech, own_table, voxpopuli
    from datamodules.preparing.corpus import write_corpus
    from robust_asr.text import LIBRISPEECH_CHARACTERS

    if options["alphabet"] is True:
        options["alphabet"] = LIBRISPEECH_CHARACTERS
    corpus, names = options.pop("corpus"), options.pop("parts")
    if kind == "csv":
        columns = {column: options.pop(f"{column}_column") for column in _COLUMNS}
        root = options.pop("root") or corpus.parent
        parts = own_table.read_parts(corpus, names, root=root, columns=columns)
        return write_corpus(root, parts, options.pop("out"), **options)
    if kind in ("librispeech", "mls"):
        layout = librispeech.LIBRISPEECH if kind == "librispeech" else librispeech.MULTILINGUAL
        parts = librispeech.read_parts(corpus, names, layout)
    else:
        parts = {"commonvoice": commonvoice, "voxpopuli": voxpopuli}[kind].read_parts(corpus, names)
    return write_corpus(corpus, parts, options.pop("out"), **options)


def main(arguments: Sequence[str] | None = None) -> int:
    guard_terminal()
    options = vars(_parser().parse_args(arguments))
    kind, strict = options.pop("kind"), options.pop("strict")
    # A name that the locale cannot write is shown in escapes: it must not end the work of hours.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return report(_prepare(kind, options), strict=strict)
    except (ValueError, OSError) as error:
        say(f"error: {sentence(error)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
