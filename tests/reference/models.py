"""The networks' formulas with plain loops (paper, sections 3.1 and 3.2)."""

import math

Rows = list[list[float]]


def masked_cross_entropy(
    logits: list[Rows], ids: list[list[int]], masked: list[list[bool]], num_codes: int, smoothing: float
) -> float:
    """Mean over all masked positions of -sum_k q_k log p_k, with q = (1 - s) [k is the token] + s / K over K codes."""
    terms = []
    for image_logits, image_ids, image_masked in zip(logits, ids, masked, strict=True):
        for scores, token, hidden in zip(image_logits, image_ids, image_masked, strict=True):
            if not hidden:
                continue
            log_total = math.log(sum(math.exp(scores[code]) for code in range(num_codes)))
            term = 0.0
            for code in range(num_codes):
                wanted = smoothing / num_codes + (1 - smoothing if code == token else 0.0)
                term -= wanted * (scores[code] - log_total)
            terms.append(term)
    return sum(terms) / len(terms)


def encoder_input(
    ids: list[int], masked: list[bool], dropped: list[bool], null: int, mask: int
) -> list[tuple[int, int]]:
    """(word, position) of every vector that the encoder sees of one image; position 0 is the class."""
    seen = [(null, 0)]
    for position, token in enumerate(ids):
        if not dropped[position]:
            seen.append((mask if masked[position] else token, position + 1))
    return seen


def decoder_input(latent: Rows, masked: list[bool], dropped: list[bool], positions: Rows) -> Rows:
    """Of one image: the class output at masked positions, the encoder's own output at the others; plus positions."""
    fill, kept = latent[0], iter(latent[1:])
    rows = [fill]
    for is_masked, is_dropped in zip(masked, dropped, strict=True):
        own = None if is_dropped else next(kept)
        rows.append(fill if is_masked or own is None else own)
    return [[a + b for a, b in zip(row, place, strict=True)] for row, place in zip(rows, positions, strict=True)]


def layer_norm(row: list[float], eps: float) -> list[float]:
    """(x - mean) / sqrt(variance + eps)."""
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / len(row)
    return [(value - mean) / math.sqrt(variance + eps) for value in row]


def token_logit(decoded: list[float], weight: Rows, bias: list[float], word: list[float], word_bias: float) -> float:
    """The head of one position and one word: LayerNorm(gelu(W x + b)) . word + its bias (paper, section 3.1)."""
    hidden = []
    for row, shift in zip(weight, bias, strict=True):
        value = sum(a * b for a, b in zip(row, decoded, strict=True)) + shift
        hidden.append(value * (1 + math.erf(value / math.sqrt(2))) / 2)
    return sum(a * b for a, b in zip(layer_norm(hidden, 1e-5), word, strict=True)) + word_bias


def blocks_parameters(depth: int, width: int) -> int:
    """Weights of `depth` ViT blocks: qkv, projection, an MLP four times as wide, two norms."""
    total = 0
    for _ in range(depth):
        for wide, high in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
            total += wide * high + high
        total += 2 * 2 * width
    return total


def vqgan_parameters(
    channels: int, width: int, multipliers: tuple[int, ...], blocks: int, code_width: int, num_codes: int
) -> tuple[int, int, int]:
    """Weights of the released tokenizers: encoder, decoder, codebook (docs/method.md, Tokens and grid)."""

    def conv(before: int, after: int, side: int, bias: bool) -> int:
        return side * side * before * after + (after if bias else 0)

    def block(before: int, after: int) -> int:
        total = 2 * before + conv(before, after, 3, False) + 2 * after + conv(after, after, 3, False)
        return total + (conv(after, after, 1, False) if before != after else 0)

    encoder, now = conv(channels, width, 3, False), width
    for multiplier in multipliers:
        for _ in range(blocks):
            encoder += block(now, width * multiplier)
            now = width * multiplier
    encoder += blocks * block(now, now) + 2 * now + conv(now, code_width, 1, True)
    decoder = conv(code_width, now, 3, True) + blocks * block(now, now)
    for index, multiplier in enumerate(reversed(multipliers)):
        if index:
            decoder += conv(now, now, 3, True)
        for _ in range(blocks):
            decoder += block(now, width * multiplier)
            now = width * multiplier
    decoder += 2 * now + conv(now, channels, 3, True)
    return encoder, decoder, num_codes * code_width


def convolution(image: list[Rows], weight: list[list[Rows]]) -> list[Rows]:
    """Square kernel, stride 1, zeros around the image, no bias: (channels in, h, w) -> (channels out, h, w)."""
    height, width, reach = len(image[0]), len(image[0][0]), len(weight[0][0]) // 2
    result = []
    for kernels in weight:
        plane = [[0.0] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                for channel, kernel in enumerate(kernels):
                    for dy, row in enumerate(kernel):
                        for dx, factor in enumerate(row):
                            if 0 <= y + dy - reach < height and 0 <= x + dx - reach < width:
                                plane[y][x] += factor * image[channel][y + dy - reach][x + dx - reach]
        result.append(plane)
    return result


def norm_silu(image: list[Rows], groups: int, scale: list[float], shift: list[float], eps: float) -> list[Rows]:
    """GroupNorm over `groups` groups of channels, then x sigmoid(x)."""
    size = len(image) // groups
    result: list[Rows] = []
    for first in range(0, len(image), size):
        values = [value for plane in image[first : first + size] for row in plane for value in row]
        mean = sum(values) / len(values)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + eps)
        for channel in range(first, first + size):
            normed = [[(v - mean) / deviation * scale[channel] + shift[channel] for v in row] for row in image[channel]]
            result.append([[value / (1 + math.exp(-value)) for value in row] for row in normed])
    return result
