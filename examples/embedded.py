"""An app with an embedded model: python embedded.py ARTIFACT "some text"…"""

import sys

from edge.runtime import EdgeError, Guardrails, load


def main(artifact: str, *texts: str) -> int:
    # Long inputs are answered in parts, and answers have a maximum length.
    rails = Guardrails(max_new_tokens=64, on_long="chunk")
    try:
        with load(artifact, guardrails=rails) as model:
            for answer in model.generate(list(texts)):
                print(f"{answer.text}\t{answer.score:.3f}\t{answer.output_tokens} tokens")
    except EdgeError as error:  # one sentence: what is wrong, and what to do
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
