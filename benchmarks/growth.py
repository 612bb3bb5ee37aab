"""What the stages need as a corpus and the number of devices grow: time, memory, traffic.

    python benchmarks/rates.py > rates.txt
    python benchmarks/growth.py rates.txt

Times are sums over the rates that rates.py measured on one device; what several do at once is
divided by their number, and nothing is added for the traffic between them, which stands beside
it. Memory and traffic follow from the shapes of what is held and sent; a test compares what
ADORE sends, but for the gradients, with what two processes do.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from side_by_side import table

from dense_hn import DenseHNError, cli

# Passages, and characters of their docids.
CORPORA = {
    "8.8M": (8_841_823, 8),
    "138M": (138_364_198, 18),
    "1B": (1_000_000_000, 20),
}
DEVICES = 1, 8, 64
FLOAT, ROW_AND_SCORE = 4, 16
# Weights, gradients, and the two means of Adam.
TRAINED = 4 * FLOAT
# Besides its characters, what a docid takes in memory: its offset, hash and place.
DOCID = 24
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Job:
    """A corpus, an encoder, and batches of all processes together."""

    passages: int
    dimension: int = 768
    parameters: int = 125_000_000
    topics: int = 502_939
    hits: int = 200
    # Of STAR: queries of a step, documents of a query, and steps.
    star_batch: int = 256
    documents: int = 2
    star_steps: int = 50_000
    # Of ADORE: queries of a step, the most positives one has, and epochs.
    adore_batch: int = 64
    positives: int = 1
    epochs: int = 6
    docid: int = 8

    def vectors(self, devices: int) -> float:
        """Bytes of a device's share of the passage vectors."""
        return -(-self.passages // devices) * self.dimension * FLOAT


# What the processes have in the end of each collective of a step, in bytes: each gathers its
# parts from all, or has a sum of equals of them all.


def star_step(job: Job, devices: int) -> dict[str, dict[str, float]]:
    """Of the queries' and of the documents' vectors; and the gradients."""
    texts = job.star_batch, job.star_batch * job.documents
    return {
        "gathered": {
            kind: -(-number // devices) * devices * job.dimension * FLOAT
            for kind, number in zip(("queries", "documents"), texts, strict=True)
        },
        "summed": {"gradients": job.parameters * FLOAT},
    }


def adore_step(job: Job, devices: int) -> dict[str, dict[str, float]]:
    """Of the queries' vectors and of everyone's hits; of the hits' vectors; and the gradients."""
    each = -(-job.adore_batch // devices)
    rows = job.adore_batch * (job.hits + job.positives)
    return {
        "gathered": {
            "queries": each * devices * job.dimension * FLOAT,
            "hits": devices * job.adore_batch * job.hits * ROW_AND_SCORE,
        },
        "summed": {
            "vectors": rows * job.dimension * FLOAT,
            "gradients": job.parameters * FLOAT,
        },
    }


def received(step: dict[str, dict[str, float]], devices: int) -> float:
    """Bytes that a device receives, where parts go round in a ring, as NCCL has them."""
    of_others = (devices - 1) / devices
    gathered = of_others * sum(step["gathered"].values())
    return gathered + 2 * of_others * sum(step["summed"].values())


@dataclass(frozen=True)
class Rates:
    """Of one device."""

    # Passages a second, and seconds for a query of STAR with its documents.
    encoded: float
    star_query: float
    # Seconds for a query of ADORE, without its search.
    adore_query: float
    # Seconds for a query and a vector that is searched.
    scored: float
    # Documents a second into Lucene's index.
    indexed: float

    @classmethod
    def read(cls, path: Path) -> "Rates":
        """Of what rates.py printed.

        Raises:
            DenseHNError: a row is missing.
        """
        rows = re.findall(r"^(\S.*?)  +([\d,]+\.\d+)$", path.read_text(), re.MULTILINE)
        found = [(what, float(value.replace(",", ""))) for what, value in rows]

        def of(begin: str) -> list[tuple[list[int], float]]:
            rows = [
                ([int(n) for n in re.findall(r"\d+", what.replace(",", ""))], value)
                for what, value in found
                if what.startswith(begin)
            ]
            if not rows:
                raise DenseHNError(f"{path}: no row of rates.py that begins {begin!r}")
            return rows

        (star, seconds), *_ = of("seconds of a STAR step")
        (adore, took), *_ = of("seconds of an ADORE step")
        (_, vectors), per_second = of("queries a second")[-1]
        scored = 1 / per_second / vectors
        queries, few = adore
        return cls(
            encoded=of("passages of")[0][1],
            star_query=seconds / star[0],
            adore_query=took / queries - scored * few,
            scored=scored,
            indexed=of("documents a second")[0][1],
        )


def times(job: Job, rates: Rates, devices: int) -> dict[str, float]:
    """Seconds of each stage."""
    asked = job.epochs * job.topics
    searched = asked * job.passages * rates.scored
    return {
        "BM25 index (one machine)": job.passages / rates.indexed,
        "encode the passages": job.passages / rates.encoded / devices,
        "mine the training topics": job.topics * job.passages * rates.scored / devices,
        "STAR": job.star_steps * job.star_batch * rates.star_query / devices,
        "ADORE": (asked * rates.adore_query + searched) / devices,
    }


def sizes(job: Job, devices: int) -> dict[str, float]:
    """GB of what each device, each process, or the disk, holds."""
    docids = job.passages * (DOCID + job.docid)
    model = job.parameters * FLOAT
    return {
        "device: encoding, the model": model / GB,
        "device: STAR, what is trained": job.parameters * TRAINED / GB,
        "device: mining, a share of the vectors": job.vectors(devices) / GB,
        "device: ADORE, what is trained and a share of the vectors": (
            job.parameters * TRAINED + job.vectors(devices)
        )
        / GB,
        "process: docids": docids / GB,
        "disk: vectors, once": job.vectors(1) / GB,
    }


def traffic(job: Job, devices: int) -> dict[str, float]:
    """GB that a device receives of the others."""
    # Batches of 256 topics, each a gathering of everyone's hits.
    mined = (devices - 1) * job.topics * job.hits * ROW_AND_SCORE
    return {
        "mine the training topics, in all": mined / GB,
        "STAR, a step": received(star_step(job, devices), devices) / GB,
        "ADORE, a step": received(adore_step(job, devices), devices) / GB,
    }


def in_words(seconds: float) -> str:
    """In the unit that it is short in."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def main() -> None:
    """Print the tables."""
    parser = cli.parser("benchmarks/growth.py", __doc__)
    parser.add_argument("rates", type=Path, help="what rates.py printed")
    rates = Rates.read(parser.parse_args().rates)
    jobs = {
        name: Job(passages=number, docid=docid)
        for name, (number, docid) in CORPORA.items()
    }
    for title, made in (
        (
            "Time at least, if nothing were lost between devices",
            lambda job, n: {w: in_words(s) for w, s in times(job, rates, n).items()},
        ),
        (
            "GB held at least, without activations and negatives",
            lambda job, n: {w: f"{g:,.1f}" for w, g in sizes(job, n).items()},
        ),
        (
            "GB received",
            lambda job, n: {w: f"{g:,.2f}" for w, g in traffic(job, n).items()},
        ),
    ):
        columns = {
            f"{name} × {devices}": made(job, devices)
            for name, job in jobs.items()
            for devices in DEVICES
        }
        names = list(next(iter(columns.values())))
        rows = [
            [name, *(column[name] for column in columns.values())] for name in names
        ]
        print(f"{title}, passages × devices\n")
        print(table(["", *columns], rows), end="\n\n")


if __name__ == "__main__":
    cli.run(main)
