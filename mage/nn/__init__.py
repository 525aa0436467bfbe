"""Building blocks below the models: token embedding, prediction head, transformer blocks, frozen backbones."""
