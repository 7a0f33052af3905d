"""What an encoder-decoder writes for many sources at once: the most likely token, again and again.

The engine (`lib.generate.engine`) keeps a KV cache for each text, and draws. Here all sources go through the model as one
batch, and the few tokens of a short target are computed again for each new one.

B sources, S tokens of the longest
"""

import torch
from torch import Tensor

from lib.model.encoder_decoder import EncoderDecoder


@torch.inference_mode()
def translations(model: EncoderDecoder, source: Tensor, lengths: Tensor, end: int, length: int) -> list[list[int]]:
    """The target of each source, without the token `end` that is before and after it; cut after `length` tokens.

    source: (B, S) ids, of which row b has `lengths[b]`. The model's training mode is left as it was.
    """
    was_training = model.training
    model.eval()
    encoded = model.encode(source, lengths)
    ids = torch.full((len(source), 1), end, device=source.device)
    writing = torch.ones(len(source), dtype=torch.bool, device=source.device)
    for _ in range(min(length, model.context_length)):
        chosen = model.out_head(model.decode(ids, [encoded])[:, -1]).argmax(dim=1)  # (B,)
        writing &= chosen != end
        if not writing.any():
            break
        ids = torch.cat([ids, torch.where(writing, chosen, end)[:, None]], dim=1)
    model.train(was_training)
    return [[id for id in row if id != end] for row in ids.tolist()]
