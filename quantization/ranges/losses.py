r"""What an error of the results costs, summed over all of a model's results.

Logits stand for a distribution over classes: their loss is the cross entropy (PD-Quant: the KL
divergence), as in the papers. Any other result is a vector that somebody compares with others, by
angle or distance; a softmax over its channels is no distribution of anything. Its loss is the
relative squared error

    L(y, y_q) = || y_q - y ||**2 / || y ||**2,

the inverse of the SQNR that `evaluate` shows; its Hessian at y is 2 I / || y ||**2, so that the
diagonal of J^T H J is the mean of the squared gradients of ``<e, y> / || y ||`` over standard
normal e, as labels drawn from the prediction give the Fisher information of a classifier.

All results count: one that is left out would get any error (a backbone's first feature knows
nothing of the blocks behind it). Relative errors and divergences are both without a unit, so that
the sum needs no weights; the draws of the results are independent, so that no products of two
results' gradients remain in the mean.
"""

import torch

from vitq.quantization.graph.graph import Graph
from vitq.quantization.graph.outputs import LOGITS

Values = dict[str, torch.Tensor]
LEAST = 1e-30


def results_of(graph: Graph, values: Values) -> Values:
    """Return the results by name, of those nodes whose values are kept."""
    return {name: values[node] for name, node in graph.outputs.items() if node in values}


def ranks_classes(name: str, result: torch.Tensor) -> bool:
    """Whether a result is the logits of a classifier."""
    return name == LOGITS and result.ndim == 2


def drawn_loss(results: Values, generator: torch.Generator) -> torch.Tensor:
    """Return a loss whose squared gradients have the mean that the module docstring says.

    Args:
        results: of a batch, with gradients.
        generator: of the draws.

    Returns:
        (), the sum over pictures and results.
    """
    losses = []
    for name, y in results.items():
        if ranks_classes(name, y):
            log_p = torch.log_softmax(y, -1)
            labels = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
            losses.append(-log_p.gather(1, labels).sum())
        else:
            direction = torch.randn(y.shape, generator=generator).flatten(1)
            size = y.detach().flatten(1).norm(dim=1).clamp_min(LEAST)
            losses.append(((direction * y.flatten(1)).sum(1) / size).sum())
    return torch.stack(losses).sum()


def difference(exact: Values, found: Values) -> float:
    """Return the loss of results beside the float model's, the mean over pictures.

    Args:
        exact: of the float model.
        found: those that may still change.
    """
    total = 0.0
    for name in found:
        y = exact[name]
        if ranks_classes(name, y):
            log_p, log_q = torch.log_softmax(y, -1), torch.log_softmax(found[name], -1)
            total += float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
        else:
            error = (found[name] - y).flatten(1).square().sum(1)
            total += float((error / y.flatten(1).square().sum(1).clamp_min(LEAST)).mean())
    return total
