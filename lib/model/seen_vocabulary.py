"""A model over the tokens that its training text has. All other tokens share one row of the output head.

A token that never occurs in the training text is never a target: each step moves the head's rows of all such tokens alike,
and if they began equal, they stay equal. One row can stand for them, with the logarithm of their number added to its logit.
A text of 50,000 words has some 6,000 of GPT-2's 50,257 tokens, so that the head, the larger part of a small model's
arithmetic, shrinks to an eighth, and the model it trains is the same.

B batch, T time, C embedding, V vocabulary, U tokens of the training text
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lib.model.embeddings import EmbeddingModel
from lib.model.language_model import LanguageModel
from lib.model.layers import Embedding, Linear, SharedRowHead
from lib.model.registry import build_model

_WORTHWHILE = 0.9  # of the vocabulary: with more seen tokens than that, nothing is gained


class SeenVocabulary:
    """`trained` is the model to be trained: `model` with rows for its seen tokens alone, and one for all others.

    It shares every other weight with `model`, whose rows `write_back` fills in.
    """

    def __init__(self, model: EmbeddingModel, seen: Tensor) -> None:
        """`seen`: (U,), the sorted ids of the tokens that the training text has."""
        assert isinstance(model.out_head, Linear)
        self.seen, self._table, self._head = seen, model.tok_emb, model.out_head
        is_unseen = torch.ones(model.vocab_size, dtype=torch.bool, device=seen.device)
        is_unseen[seen] = False
        self.unseen = is_unseen.nonzero()[:, 0]
        self.columns = torch.full((model.vocab_size,), len(seen), device=seen.device)  # the row of each id
        self.columns[seen] = torch.arange(len(seen), device=seen.device)
        rows = torch.cat([seen, self.unseen[:1]])
        trained = build_model(replace(model.config, vocab_size=len(rows)), "meta")
        for name, child in model.named_children():
            setattr(trained, name, child)
        assert isinstance(trained, EmbeddingModel)
        trained.ids_of_rows = rows
        head = SharedRowHead(model.config.emb_dim, len(rows), copies=len(self.unseen))
        table = Embedding(len(rows), model.config.emb_dim)
        head.weight = nn.Parameter(self._head.weight.detach()[rows])
        table.weight = nn.Parameter(self._table.weight.detach()[rows])
        trained.out_head, trained.tok_emb = head, table
        self.trained, self._seen_table, self._seen_head = trained, table, head

    @torch.no_grad()
    def average_gradient(self) -> None:
        """Give the shared row's gradient the norm that those of the rows it stands for would have together.

        It is their sum, each of them one n-th of it: √n times too long. AdamW's step does not depend on its length.
        """
        if self._seen_head.weight.grad is not None:
            self._seen_head.weight.grad[-1] *= self._seen_head.copies**-0.5

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the rows of `trained` into `model`. The embeddings of unseen tokens, which nothing trains, stay as they are."""
        self._head.weight[self.seen] = self._seen_head.weight[:-1]
        self._head.weight[self.unseen] = self._seen_head.weight[-1]
        self._table.weight[self.seen] = self._seen_table.weight[:-1]


def share_unseen_rows(model: LanguageModel, seen: Tensor) -> SeenVocabulary | None:
    """The model over `seen` tokens, (U,) sorted ids; None if its unseen tokens cannot share a row, or too few are unseen."""
    head = getattr(model, "out_head", None)
    if not isinstance(model, EmbeddingModel) or not isinstance(head, Linear) or head.bias is not None:
        return None
    if len(seen) > _WORTHWHILE * model.vocab_size or head.weight is model.tok_emb.weight:
        return None
    vocabulary = SeenVocabulary(model, seen)
    rows = head.weight.detach()[vocabulary.unseen]
    return vocabulary if bool((rows == rows[0]).all()) else None
