"""``python -m robust_asr.audit MODEL AUDIO --out DIR``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from robust_asr.audit import PHRASE, audit
from robust_asr.storage.trust import allow_module
from robust_asr.text.mistakes import leave
from robust_asr.text.terminal import guard_terminal, say


def main(arguments: Sequence[str] | None = None) -> None:
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="python -m robust_asr.audit",
        description="How robust is a recogniser: clean audio, noise, attacks around the budget at which it breaks, on one page.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a Whisper or CTC model by its name on Hugging Face's hub or by its folder; a run folder or a checkpoint of ours; "
        "or package.module:factory",
    )
    parser.add_argument(
        "audio",
        metavar="AUDIO",
        help="folder in LibriSpeech's layout, folder of audio files with .txt beside them, or table with columns path and text",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for rows, summary and page")
    parser.add_argument(
        "--quick", action="store_true", help="ten utterances and weak attacks: minutes instead of hours"
    )
    parser.add_argument("--utterances", type=int, metavar="N", help="how many are measured (default: 30, quick 10)")
    parser.add_argument("--phrase", default=PHRASE, help="what the model shall be made to hear (default: %(default)s)")
    parser.add_argument(
        "--sigma", type=float, default=0.01, help="smoothing noise of the defended system (default: %(default)g)"
    )
    parser.add_argument("--language", help="of a multilingual Whisper, such as en")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--allow_module", nargs="+", default=[], metavar="PACKAGE", help="packages of your own to import"
    )
    chosen = vars(parser.parse_args(arguments))
    try:
        for name in chosen.pop("allow_module"):
            allow_module(name)
        audit(chosen.pop("model"), chosen.pop("audio"), **chosen)
    except KeyboardInterrupt:
        say("stopped by Ctrl-C: the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        leave(error)


if __name__ == "__main__":
    main()
