"""Optimisers, schedules, precision, accumulation, and what saves activations."""

import copy
import itertools
import math

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback
from transformers.models.bert.modeling_bert import BertAttention
from transformers.models.roberta.modeling_roberta import RobertaAttention

from dense_hn import DenseHNError, losses, search, slices
from dense_hn.encode import encode_corpus
from dense_hn.encoder import DenseEncoder
from dense_hn.train import adore, arguments, commands, joint
from dense_hn.train.lamb import Lamb

# Where the Trainer of a stage is.
STAGES = {"star": joint, "adore": adore}


class Probe(TrainerCallback):
    """Batches and losses of a training, and each step's learning rate and gradients."""

    def __init__(self, trainer) -> None:
        self.batches, self.losses, self.rates, self.gradients = [], [], [], []
        self.trainer = trainer
        self.compute_loss = trainer.compute_loss

        def compute_loss(model, inputs, **kwargs):
            loss = self.compute_loss(model, inputs, **kwargs)
            self.batches.append(inputs)
            self.losses.append(loss.item())
            return loss

        trainer.compute_loss = compute_loss
        trainer.add_callback(self)

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        self.gradients.append(gradients_of(kwargs["model"]))


def gradients_of(model):
    """A copy of the gradients by name, of the parameters that have one."""
    return {
        name: weights.grad.clone()
        for name, weights in model.named_parameters()
        if weights.grad is not None
    }


def assert_same_gradients(actual, expected, tolerance=1e-6):
    """Every tensor's difference is small, as a whole and in each element."""
    assert actual.keys() == expected.keys()
    assert sum(float(g.norm()) for g in expected.values()) > 0
    # Some are zero but for rounding: attention ignores a bias of its keys.
    largest = max(float(g.norm()) for g in expected.values())
    for name, gradient in expected.items():
        norm = float(gradient.norm())
        if norm > 1e-6 * largest:
            assert float((actual[name] - gradient).norm()) <= tolerance * norm, name
        torch.testing.assert_close(
            actual[name], gradient, rtol=10 * tolerance, atol=tolerance * largest
        )


# Of transformers, about its own names.
deprecated = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture
def train(bert, files, corpus, tmp_path, monkeypatch):
    """Runs a stage on the made collection, dropout off, and returns its probe."""
    encode_corpus(DenseEncoder.load(str(bert)), corpus, tmp_path / "vectors")
    runs = []

    def run(stage, **changes):
        argv = {"encoder": bert, "topics": files["topics"], "qrels": files["qrels"]}
        if stage == "star":
            argv |= {"corpus": files["corpus"], "negatives": files["run"], "dropout": 0}
        else:
            argv |= {"vectors": tmp_path / "vectors", "adore_hits": 10}
        argv |= {"output_dir": tmp_path / f"out{len(runs)}", "use_cpu": True}
        argv |= {"per_device_train_batch_size": 8, "max_steps": 1, "max_grad_norm": 0}
        argv |= {"disable_tqdm": True, "optim": "sgd"}
        fit = STAGES[stage].fit

        def probed_fit(trainer, *args):
            runs.append(Probe(trainer))
            fit(trainer, *args)

        with monkeypatch.context() as patch:
            patch.setattr(STAGES[stage], "fit", probed_fit)
            commands.train(stage, arguments.argv_of(argv | changes))
        return runs[-1]

    return run


def lamb_reference(tensors, gradients, rate, betas, eps, decays):
    """Algorithm 2 of arXiv 1904.00962 as loops over floats, step after step."""
    tensors = [list(values) for values in tensors]
    mean = [[0.0] * len(values) for values in tensors]
    square = [[0.0] * len(values) for values in tensors]
    for t, step in enumerate(gradients, 1):
        for i, (x, decay) in enumerate(zip(tensors, decays, strict=True)):
            update = []
            for j, g in enumerate(step[i]):
                mean[i][j] = betas[0] * mean[i][j] + (1 - betas[0]) * g
                square[i][j] = betas[1] * square[i][j] + (1 - betas[1]) * g * g
                m = mean[i][j] / (1 - betas[0] ** t)
                v = square[i][j] / (1 - betas[1] ** t)
                update.append(m / (math.sqrt(v) + eps) + decay * x[j])
            size = math.sqrt(sum(value * value for value in x))
            change = math.sqrt(sum(value * value for value in update))
            ratio = size / change if size and change else 1.0
            tensors[i] = [
                value - rate * ratio * u for value, u in zip(x, update, strict=True)
            ]
    return tensors


def test_lamb_equals_the_papers_formula():
    """Seven steps, saved and loaded in between: decayed or not, and one tensor zero."""
    draw = torch.Generator().manual_seed(5)
    shapes, decays = [(3, 4), (5,), (4,), (2,)], [0.3, 0.3, 0.0, 0.0]
    start = [torch.randn(shape, generator=draw).double() for shape in shapes]
    start[2] *= 0
    # Sizes of every order, and a tensor whose gradient is zero at first.
    gradients = [
        [torch.randn(s, generator=draw).double() * 10.0 ** -(t % 3) for s in shapes]
        for t in range(7)
    ]
    gradients[0][3] *= 0
    tensors = [values.clone().requires_grad_() for values in start]
    groups = [
        {"params": tensors[:2], "weight_decay": 0.3},
        {"params": tensors[2:], "weight_decay": 0.0},
    ]
    settings = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4}
    optimizer = Lamb(groups, **settings)
    for t, step in enumerate(gradients):
        if t == 4:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = Lamb(groups, lr=9.0)
            optimizer.load_state_dict(saved)

        def closure(step=step, optimizer=optimizer):
            optimizer.zero_grad()
            loss = sum((x * g).sum() for x, g in zip(tensors, step, strict=True))
            loss.backward()
            return loss

        assert optimizer.step(closure).requires_grad
    expected = lamb_reference(
        [values.flatten().tolist() for values in start],
        [[g.flatten().tolist() for g in step] for step in gradients],
        settings["lr"],
        settings["betas"],
        settings["eps"],
        decays,
    )
    for tensor, values in zip(tensors, expected, strict=True):
        torch.testing.assert_close(
            tensor.detach().flatten(),
            torch.tensor(values, dtype=torch.float64),
            rtol=1e-12,
            atol=1e-14,
        )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("optim", "kind"), [("lamb", Lamb), ("adamw_torch", torch.optim.AdamW)]
)
def test_optimizers_get_the_flags_and_the_trainers_groups(stage, optim, kind, train):
    flags = {"learning_rate": 0.01, "weight_decay": 0.02, "adam_epsilon": 1e-7}
    flags |= {"adam_beta1": 0.85, "adam_beta2": 0.97, "max_steps": 3}
    probe = train(stage, optim=optim, lr_scheduler_type="constant", **flags)
    assert type(probe.trainer.optimizer.optimizer) is kind
    decayed, plain = probe.trainer.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0)
    names = {weights: name for name, weights in probe.trainer.model.named_parameters()}
    assert all(
        name.endswith("bias") or "LayerNorm" in name
        for name in (names[weights] for weights in plain["params"])
    )
    assert not any("LayerNorm" in names[w] for w in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    for group in (decayed, plain):
        assert (group["lr"], group["eps"], group["betas"]) == (0.01, 1e-7, (0.85, 0.97))
    assert len(probe.gradients) == 3
    assert probe.trainer.args.optim == optim


@pytest.mark.parametrize(
    ("schedule", "share"),
    [
        ("linear", lambda step: (8 - step) / 6),
        ("cosine", lambda step: (1 + math.cos(math.pi * (step - 2) / 6)) / 2),
        ("constant_with_warmup", lambda step: 1.0),
    ],
)
def test_schedules_by_their_formulas(schedule, share, train):
    """Eight steps, two of them warming up from zero."""
    flags = {"learning_rate": 0.01, "warmup_steps": 2, "max_steps": 8}
    probe = train("star", lr_scheduler_type=schedule, optim="lamb", **flags)
    expected = [0.01 * (step / 2 if step < 2 else share(step)) for step in range(8)]
    assert probe.rates == pytest.approx(expected)


@pytest.mark.parametrize("stage", STAGES)
def test_scores_search_and_losses_stay_float32_in_bf16(stage, train, monkeypatch):
    seen = []

    def watch(module, name):
        function = getattr(module, name)

        def watched(*tensors, **kwargs):
            kinds = {t.dtype for t in tensors if torch.is_tensor(t)}
            seen.append((name, kinds, torch.is_autocast_enabled("cpu")))
            return function(*tensors, **kwargs)

        monkeypatch.setattr(module, name, watched)

    flags = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "max_steps": 4}
    plain = train(stage, **flags)
    watch(losses, "pairwise")
    watch(search, "top_k")
    half = train(stage, bf16=True, **flags)
    assert {name for name, _, _ in seen} >= {"pairwise"}
    assert (stage == "adore") == any(name == "top_k" for name, _, _ in seen)
    assert all(kinds == {torch.float32} for _, kinds, _ in seen)
    assert not any(autocast for _, _, autocast in seen)
    # The encoder itself is in bf16, whose eight bits give three digits at best.
    assert half.losses[0] != plain.losses[0]
    assert half.losses == pytest.approx(plain.losses, rel=0.03)
    assert len(set(half.losses)) == 4


@pytest.mark.parametrize("stage", STAGES)
def test_accumulated_gradients_are_the_mean_of_the_batches(stage, train):
    """24 topics are three batches of 8: two for the first step, one for the second."""
    flags = {"gradient_accumulation_steps": 2, "learning_rate": 0, "max_steps": 2}
    probe = train(stage, **flags)
    assert len(probe.batches) == 3
    model, single = probe.trainer.model, []
    for batch in probe.batches:
        model.zero_grad()
        probe.compute_loss(model, batch).backward()
        single.append(gradients_of(model))
    mean = {name: (single[0][name] + single[1][name]) / 2 for name in single[0]}
    assert_same_gradients(probe.gradients[0], mean)
    assert_same_gradients(probe.gradients[1], single[2])


def count_layers(monkeypatch):
    """A list that gets an entry each time that a BERT or RoBERTa layer runs."""
    runs = []
    for kind in (BertAttention, RobertaAttention):
        forward = kind.forward

        def counted(self, *args, forward=forward, **kwargs):
            runs.append(self)
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", counted)
    return runs


@deprecated
def test_gradient_checkpointing_by_flag(train, monkeypatch):
    """With dropout, and every layer really run twice."""
    runs = count_layers(monkeypatch)
    plain = train("star", dropout=0.1)
    once = len(runs)
    saving = train("star", dropout=0.1, gradient_checkpointing=True)
    assert len(runs) == 3 * once
    assert_same_gradients(saving.gradients[0], plain.gradients[0])


@deprecated
def test_adore_refuses_checkpointing_that_would_do_nothing(train):
    with pytest.raises(DenseHNError, match="use --gradient_cache instead"):
        train("adore", gradient_checkpointing=True)


@pytest.fixture(params=["bert", "roberta"])
def model(request):
    """An encoder of either layout, in training, with dropout."""
    made = DenseEncoder.load(str(request.getfixturevalue(request.param)))
    made.set_dropout(0.2)
    return made.train()


@pytest.fixture
def loss_of(corpus, topics):
    """A loss of 7 queries and 21 passages by name, scores multiplied by 100."""
    queries, passages = list(topics.values())[:7], list(corpus.values())[:21]
    own = torch.arange(7)[:, None] == torch.arange(21) % 7
    known = torch.rand(7, 21, generator=torch.Generator().manual_seed(3)) < 0.1
    hard, random = own & ~known, ~own & ~known
    hard[:, :7] = False

    def loss(model, name):
        scores = model(**model.batch(model.tokenize(queries, "query")))
        # Scores of ±100 whatever the layout: `ance` does not normalise.
        scores = 100 * scores / scores.detach().norm(dim=1, keepdim=True)
        vectors = model(**model.batch(model.tokenize(passages, "passage")))
        scores = scores @ (vectors / vectors.detach().norm(dim=1, keepdim=True)).T
        if name in losses.STAR_LOSSES:
            return losses.STAR_LOSSES[name](scores.diagonal(), scores, hard, random)
        if name in losses.DISTILLATIONS:
            distil, told = losses.DISTILLATIONS[name], 100 * known.float()
            return distil(scores.diagonal(), scores, hard, told.diagonal(), told)
        positive, retrieved = scores[:, :3], scores[:, 3:]
        ranks = torch.arange(3).expand(7, 3) * 4 + 1
        grades, negative = 2 - known[:, :3].long(), ~known[:, 3:]
        return losses.lambda_loss(
            positive, ranks, grades, retrieved, negative, 10, metric=name
        )

    return loss


def backward(model, loss_of, name, slices=0):
    """Gradients of a loss, with the same dropout every time."""
    model.gradient_cache = slices
    model.zero_grad()
    torch.manual_seed(11)
    loss_of(model, name).backward()
    return gradients_of(model)


@deprecated
@pytest.mark.parametrize(
    "method", ["activation_checkpointing_enable", "gradient_checkpointing_enable"]
)
def test_gradient_checkpointing_by_method(method, model, loss_of, monkeypatch):
    runs = count_layers(monkeypatch)
    expected = backward(model, loss_of, "infonce")
    once = len(runs)
    getattr(model, method)()
    assert_same_gradients(backward(model, loss_of, "infonce"), expected)
    assert len(runs) == 3 * once


@pytest.mark.parametrize(
    "name", [*losses.STAR_LOSSES, *losses.DISTILLATIONS, *losses.LAMBDA_METRICS]
)
@pytest.mark.parametrize("precision", ["float32", "float64", "autocast"])
def test_cached_gradients_are_the_same(name, precision, model, loss_of, monkeypatch):
    """With dropout, which is drawn slice by slice, and slices that leave a rest."""
    monkeypatch.setattr(slices, "_ends", lambda lengths, _: range(4, len(lengths), 4))
    if precision == "float64":
        model.double()
    if precision == "autocast":
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    expected = backward(model, loss_of, name)
    draws = torch.random.get_rng_state()
    assert_same_gradients(backward(model, loss_of, name, slices=4), expected)
    assert torch.equal(torch.random.get_rng_state(), draws)


@pytest.mark.parametrize(
    ("name", "slices"),
    [
        *(("infonce", slices) for slices in (1, 100)),
        *((name, 5) for name in (*losses.STAR_LOSSES, *losses.DISTILLATIONS)),
        *((name, 5) for name in losses.LAMBDA_METRICS),
    ],
)
def test_cached_gradients_do_not_depend_on_the_slices(name, slices, model, loss_of):
    """In float64; without dropout, whose draws the slices' order gives to the texts."""
    model.double().set_dropout(0)
    expected = backward(model, loss_of, name)
    assert_same_gradients(backward(model, loss_of, name, slices), expected)


def test_caching_slices_only_where_there_are_gradients(model, corpus):
    sizes = []
    model.model.register_forward_pre_hook(
        lambda _module, ids: sizes.append(len(ids[0]))
    )
    tokens = model.tokenize(list(corpus.values())[:10], "passage")
    model.gradient_cache = 4
    with torch.no_grad():
        model(**model.batch(tokens))
    assert sizes == [10]
    model(**model.batch(tokens)).sum().backward()
    assert sizes[1:] == [4, 4, 2, 2, 4, 4]


def peak(model, texts):
    """Most bytes allocated at once, in a forward and a backward pass."""
    tokens = model.tokenize(["the red lamp is old " * 6] * texts, "passage")
    batch = model.batch(tokens)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        model(**batch).sum().backward()
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))


def test_cached_activations_do_not_grow_with_the_batch(bert):
    """Sixty-four texts need little more than the eight that go through at once."""
    model = DenseEncoder.load(str(bert)).train()
    # The first pass allocates the gradients, which stay.
    peak(model, 1)
    few, many = peak(model, 8), peak(model, 64)
    assert many > 6 * few
    model.gradient_cache = 8
    assert peak(model, 64) < 1.2 * few


@pytest.mark.parametrize("stage", STAGES)
def test_caching_by_flag(stage, train, monkeypatch):
    """Gradients as without, and no more texts at once than the flag says."""
    plain = train(stage)
    sizes = []
    vectors = DenseEncoder._vectors

    def counted(self, ids, mask):
        sizes.append(len(ids))
        return vectors(self, ids, mask)

    monkeypatch.setattr(DenseEncoder, "_vectors", counted)
    cached = train(stage, gradient_cache=3)
    # Other slices round otherwise: float32 is good for less here.
    assert_same_gradients(cached.gradients[0], plain.gradients[0], tolerance=3e-5)
    assert max(sizes) == 3


def test_compiled_layers_have_the_same_gradients(train):
    torch.compiler.reset()
    plain = train("star")
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled = train("star", torch_compile=True, torch_compile_backend="eager")
    assert graphs["unique_graphs"] > before
    assert_same_gradients(compiled.gradients[0], plain.gradients[0], tolerance=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_cache": -1}, "--gradient_cache is -1; it starts at 0"),
        ({"max_steps": 0}, "--max_steps is 0: give a number"),
        ({"optim": "lamp"}, "argument --optim: invalid choice: 'lamp'"),
    ],
)
def test_bad_flags_are_refused(change, message, train):
    with pytest.raises(DenseHNError, match=message):
        train("adore", **change)
