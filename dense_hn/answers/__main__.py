"""Write a run as DPR's retrieval JSON, as Pyserini's converter does.

python -m dense_hn.answers --answers nq-test.qa.csv --split test \\
    --corpus psgs_w100.tsv.gz --output adore.json runs/adore.test.txt

    {"test-0": {"question": "…", "answers": ["…"], "contexts": [
        {"docid": "…", "score": "…", "text": "title, line's end, text", "has_answer": true},
        …]}, …}

for pyserini.eval.evaluate_dpr_retrieval and for readers of answers. Answers are looked for
in a passage's text, not in its title. Top-k accuracy, of several runs and beside other
measures: python -m dense_hn.evaluate --answers …
"""

import logging

from dense_hn import cli, trec
from dense_hn.answers import retrieval
from dense_hn.answers.arguments import add_arguments
from dense_hn.answers.files import read_answers
from dense_hn.answers.match import finders
from dense_hn.answers.passages import read_passages

log = logging.getLogger("dense_hn")


def main() -> None:
    """Convert a run from the command line."""
    parser = cli.parser("dense_hn.answers", __doc__)
    add_arguments(parser, required=True)
    parser.add_argument(
        "--topics", metavar="FILE", help="where --answers holds no questions"
    )
    parser.add_argument("--output", required=True, metavar="FILE.json")
    parser.add_argument("run", help="TREC run")
    args = parser.parse_args()
    retrieval.require_no_other(args.output)
    asked = read_answers(args.answers, args.split)
    run = trec.read_run(args.run)
    found = finders(asked, run, args.run, args.answers, args.regex)
    texts = retrieval.questions(asked, run, args.topics, args.run, args.answers)
    passages = read_passages(args.corpus, set().union(*run.values()))
    trec.require_known(run, passages, args.run, args.corpus)
    topics = {
        qid: {
            "question": texts[qid],
            "answers": asked[qid].answers,
            "contexts": retrieval.contexts(hits, passages, found[qid], args.regex),
        }
        for qid, hits in run.items()
    }
    retrieval.write_retrieval(args.output, topics)
    log.info(
        "%s: %d topics; %d more of %s are not in the run",
        *(args.output, len(run), len(asked) - len(run), args.answers),
    )


if __name__ == "__main__":
    cli.run(main)
