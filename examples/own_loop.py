"""A training loop of one's own: the library's networks, masks and loss, and nothing of its engine.

`python examples/own_loop.py` trains a small MAGE on the tokens of the 64 packaged digits for some seconds.
"""

import torch

import mage
from mage.masking import MaskRatioConfig, random_mask
from mage.store.example_images import read_examples


def main(steps: int = 200, batch_size: int = 32) -> mage.Mage:
    """Tokens, network, steps, images."""
    tokenizer = mage.load("digits", precision="float32", device="cpu").require_tokenizer()
    images, _ = read_examples("digits")
    with torch.no_grad():
        tokens = tokenizer.encode(images / 255).flatten(1)  # (64, 49)

    sizes = mage.MAGEConfig(
        64,
        3,
        4,
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        position_init="sincos",
        label_smoothing=0.0,
        dropout=0.0,
    )
    torch.manual_seed(0)
    network = mage.MAGETransformer(sizes, mage.Vocabulary.fresh(tokenizer.num_codes), tokenizer.grid)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)

    network.train()
    for step in range(1, steps + 1):
        batch = tokens[torch.randint(len(tokens), (batch_size,), generator=generator)]
        mask = random_mask(MaskRatioConfig(), batch_size, tokens.shape[1], generator)
        loss = network.loss(network(batch, mask), batch, mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    return mage.Mage(tokenizer, network.eval(), precision="float32", device="cpu")


if __name__ == "__main__":
    model = main()
    print(model.generate(8, steps=8).shape)
    model.save("runs/own-loop")
