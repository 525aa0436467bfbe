"""Pictures of tokens show what is known, when it became known, and what an edit touches."""

import numpy as np
import torch

from mage.sampling.decode import UNKNOWN
from mage.sampling.trace import GIVEN, LATER
from mage.web import views
from mage.web.state import Models


def test_pixels_of_unknown_tokens_are_grey_and_those_of_known_ones_are_the_tokenizers(models: Models) -> None:
    model = models["digits"].model
    tokens = model.generate_tokens(2, steps=2)
    whole = model.decode_tokens(tokens)
    torch.testing.assert_close(views.known_so_far(model, tokens), whole)
    tokens[0, 2, 3] = UNKNOWN
    shown = views.known_so_far(model, tokens)
    assert (shown[0, 0, 8:12, 12:16] == views.GREY).all()
    torch.testing.assert_close(shown[1], whole[1])


def test_what_is_unknown_is_drawn_as_the_nearest_known_token_or_as_code_0() -> None:
    tokens = torch.full((2, 3, 4), UNKNOWN)
    tokens[0, 0, 0], tokens[0, 2, 3] = 7, 9
    expected = torch.tensor([[7, 7, 7, 9], [7, 7, 9, 9], [7, 9, 9, 9]])
    filled = views.nearest_known(tokens)
    assert torch.equal(filled[0, :, [0, 1, 3]], expected[:, [0, 1, 3]])
    assert (filled[1] == 0).all()


def test_the_order_goes_from_dark_to_light_and_tells_given_and_unknown_tokens_apart() -> None:
    known_in = torch.tensor([[[GIVEN, LATER, 1, 2, 3, 4, 5]]])
    colours = views.order(known_in, 5, (2, 3))
    assert colours.shape == (1, 3, 2, 21)
    cells = colours[0, :, 0, ::3].mean(dim=0)
    assert float(cells[0]) == 1.0
    assert float(cells[1]) == views.GREY
    steps = colours[0, :, 0, 6::3]
    lightness = 0.2126 * steps[0] + 0.7152 * steps[1] + 0.0722 * steps[2]
    assert (lightness.diff() > 0).all()
    assert views.order(torch.ones(1, 1, 1, dtype=torch.long), 1, (2, 2)).isfinite().all(), "one step"


def test_tokens_that_an_edit_touches_are_coloured_and_no_others() -> None:
    redrawn = torch.zeros(7, 7, dtype=torch.bool)
    redrawn[1, 2] = True
    shown = np.asarray(views.touched(torch.zeros(1, 28, 28), redrawn, (4, 4))).astype(int)
    side = shown.shape[0] // 7
    middles = shown[side // 2 :: side, side // 2 :: side]
    coloured = middles[..., 0] > middles[..., 2] + 50
    assert np.array_equal(coloured, redrawn.numpy())


def test_one_picture_has_no_margin_and_small_ones_are_enlarged_by_whole_factors() -> None:
    assert views.sheet(torch.zeros(1, 1, 28, 28)).size == (504, 504)
    assert views.sheet(torch.zeros(1, 3, 600, 700)).size == (700, 600)
    assert views.sheet(torch.zeros(16, 1, 28, 28)).size == (488, 488)
