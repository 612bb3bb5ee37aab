"""Encoders that were trained from one another, mixed into one: the mean of their weights.

    python -m dense_hn.mix base star --weights 0.7 0.3 --output mixed

Weights count by their share of their sum, and `mixed.made_from.json` tells them. The mixture
searches as fast as one of them. With the encoder that its training began with in it, a model
keeps more of what that one does on other collections (WiSE-FT: Wortsman et al., CVPR 2022, arXiv
2109.01903, whose α is the trained one's weight). Trainings of one base can be mixed as well
("model soups": Wortsman et al., ICML 2022, arXiv 2203.05482).

ADORE's encoder searches the passages of the encoder that it was trained from. Mix that one first,
with the same weights, encode the corpus with it, and name it:

    python -m dense_hn.mix base adore --weights 0.7 0.3 --passages mixed --output mixed-adore
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dense_hn import DenseHNError, cli, provenance
from dense_hn.encoder import DenseEncoder
from dense_hn.model_digest import shape_of
from dense_hn.pretrained import require_apart
from dense_hn.tokenizer import as_text

log = logging.getLogger("dense_hn")

# Of the weights' length. The study's trainings moved MiniLM by .005 to .016; encoders that have
# no base in common are about 1.4 apart.
FAR = 0.5
# Settings that may differ; the mixture has the first encoder's.
OWN = (
    *("query_length", "passage_length", "document_length"),
    *("scale", "passage_encoder"),
)


def mix(
    sources: Sequence[str],
    weights: Sequence[float],
    passages: str = "",
    **settings: Any,
) -> DenseEncoder:
    """The encoder whose every weight is Σ λ·w / Σ λ over some encoders, taken in float64.

    Args:
        sources: two or more, as :meth:`DenseEncoder.load` takes them.
        weights: λ of each, above 0.
        passages: the encoder whose passages the mixture searches, if they are not its own.
        settings: of all of them, as :meth:`DenseEncoder.load` takes them. Of lengths and scale
            the mixture has the first one's.

    Raises:
        DenseHNError: too few of either; a weight that is none; encoders (``passages`` is one,
            too) with other settings, tokenizers or shapes, or too far apart to be of one base;
            one that was trained to search another's passages, where ``passages`` names none.
    """
    if len(sources) < 2 or len(weights) != len(sources):
        raise DenseHNError(
            f"encoders: {len(sources)}, weights: {len(weights)}; name two encoders or more, and "
            "a weight for each, in their order"
        )
    for weight in weights:
        if not 0 < weight < math.inf:
            raise DenseHNError(f"weights: {weight}; they must be above 0")
    mixed = DenseEncoder.load(sources[0], **settings)
    start = _weights(mixed)
    total = {name: weights[0] * weight for name, weight in start.items()}
    # Which of them search another's passages.
    elsewhere = [sources[0]] if mixed.settings.passage_encoder else []
    for source, share in zip(sources[1:], weights[1:], strict=True):
        other = DenseEncoder.load(source, **settings)
        own = _weights(other)
        _require_kin(mixed, other, start, own, sources[0], source)
        for name in total:
            total[name] += share * own[name]
        if other.settings.passage_encoder:
            elsewhere.append(source)
    mixed.settings.passage_encoder = ""
    if passages:
        other = DenseEncoder.load(passages, **settings)
        _require_kin(mixed, other, start, _weights(other), sources[0], passages)
        if other.settings.passage_encoder:
            raise DenseHNError(
                f"{passages}: was trained to search the passages of another encoder, and has "
                "none of its own; name that one, or its mixture"
            )
        mixed.settings.passage_encoder = other.digest()
    elif elsewhere:
        raise DenseHNError(
            f"{elsewhere[0]}: was trained to search the passages of another encoder, as ADORE's "
            "are; mix that encoder first, with the same weights, and name the mixture with "
            "--passages"
        )
    state = mixed.model.state_dict()
    for name, weight in total.items():
        state[name].copy_(weight / math.fsum(weights))
    return mixed


def _weights(encoder: DenseEncoder) -> dict[str, Tensor]:
    """All that was trained, in float64."""
    state = encoder.model.state_dict()
    return {
        name: tensor.double()
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }


def _require_kin(
    one: DenseEncoder,
    other: DenseEncoder,
    start: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    name: str,
    source: str,
) -> None:
    """Refuse encoders that make vectors in different ways, or have no base in common.

    Args:
        one: the first of them.
        other: another.
        start: the weights of the first, in float64.
        own: those of the other.
        name: of the first, for messages.
        source: of the other.

    Raises:
        DenseHNError: says in what they differ.
    """
    theirs = asdict(other.settings)
    for setting, value in asdict(one.settings).items():
        if setting not in OWN and theirs[setting] != value:
            raise DenseHNError(
                f"{source}: {setting} is {theirs[setting]!r}, and {value!r} in {name}; if one "
                "does not say what it was trained with, make it an encoder first: python -m "
                f"dense_hn.encoder --source … --{setting} …"
            )
    if as_text(one.tokenizer) != as_text(other.tokenizer):
        raise DenseHNError(f"{source}: has another tokenizer than {name}")
    if shape_of(one.model.config) != shape_of(other.model.config) or {
        key: weight.shape for key, weight in start.items()
    } != {key: weight.shape for key, weight in own.items()}:
        raise DenseHNError(f"{source}: is a model of another shape than {name}")
    apart = _length(own[key] - start[key] for key in start) / _length(start.values())
    log.info(
        "%s: its weights differ from those of %s by %.4f of their length",
        source,
        name,
        apart,
    )
    if apart > FAR:
        raise DenseHNError(
            f"{source}: its weights differ from those of {name} by {apart:.2f} of their length, "
            f"where a training moves them by less than {FAR}; only what was trained from one "
            "another, or from one base, can be mixed"
        )


def _length(weights: Iterable[Tensor]) -> float:
    return math.sqrt(math.fsum(float((one * one).sum()) for one in weights))


def main() -> None:
    """Mix encoders from the command line."""
    parser = cli.parser("dense_hn.mix", __doc__)
    parser.add_argument("encoders", nargs="+", help="folders or hub names")
    parser.add_argument(
        "--weights", nargs="+", type=float, required=True, help="one for each encoder"
    )
    parser.add_argument(
        "--passages",
        default="",
        help="encoder whose passages the mixture searches, if not its own",
    )
    parser.add_argument("--output", required=True, help="encoder folder to write")
    args = parser.parse_args()
    for source in filter(None, [*args.encoders, args.passages]):
        require_apart(source, args.output)
    mix(args.encoders, args.weights, args.passages).save(args.output)
    digests = [DenseEncoder.load(name).digest() for name in args.encoders]
    made_from = {"encoders": digests, "weights": args.weights}
    provenance.record_folder(args.output, made_from)
    total = math.fsum(args.weights)
    shares = zip(args.weights, args.encoders, strict=True)
    parts = " + ".join(f"{weight / total:.3g} {name}" for weight, name in shares)
    log.info("%s: %s", args.output, parts)


if __name__ == "__main__":
    cli.run(main)
