"""Talk to a bundle: a session, its chat template, sampling, and an answer that streams. Needs no torch.

    python examples/chat.py smollm2 "What is the capital of France?" "And of Italy?" --target onnx --temperature 0.7

Without questions it reads them from standard input, a line each.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from smolship.runtime import open_bundle
from smolship.runtime.chat import Chat
from smolship.runtime.errors import SmolshipError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("questions", nargs="*")
    parser.add_argument("--target", help="default: the first that the bundle holds")
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument("--temperature", type=float, help="0 is greedy; default: what the model's makers recommend")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--max-tokens", type=int, default=256)
    given = parser.parse_args()

    bundle = open_bundle(given.bundle)
    sampling = replace(bundle.sampling, seed=given.seed)
    if given.temperature is not None:
        sampling = replace(sampling, temperature=given.temperature)

    with bundle.session(given.target or next(iter(bundle.manifest.targets))) as session:
        chat = Chat(session, bundle.tokenizer, bundle.template, bundle.stop_ids, sampling, system=given.system)
        for question in given.questions or map(str.strip, sys.stdin):
            print(f"> {question}")
            answer = chat.ask(question, max_tokens=given.max_tokens)
            for piece in answer:
                print(piece, end="", flush=True)
            assert answer.generation
            print(f"\n[ended by {answer.generation.end}; {chat.reused} tokens were in the cache already]")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SmolshipError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
