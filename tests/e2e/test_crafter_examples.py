"""The examples on the game Crafter: tokens that show the game as it is, fair baselines, runs from start to end."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("crafter")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples import one another, as scripts of one folder do."""
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture(scope="module")
def walk() -> Any:
    """Sequences of one explorer, with the game at the start of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        from crafter_tokens import explored

        return list(explored(0, 60, every=4, keep_games=True))


def test_tokens_say_where_the_game_goes(walk: Any) -> None:
    from crafter_tokens import ACTIONS, GRID, MOVES, PICTURES, WORDS, constants

    assert len(set(WORDS)) == len(WORDS)
    assert PICTURES[1:13] == tuple(constants.materials), "as the game numbers them"
    same = []
    for sequence in walk:
        assert sequence.tokens.shape == GRID
        game = deepcopy(sequence.start)
        camera = game.place
        for before, after in zip(sequence.tokens[:-1], sequence.tokens[1:], strict=True):
            same.append(np.mean(before[1:] == game.tokens("noop", camera)[1:]))
            action = WORDS[after[0, 0]]
            assert action in ACTIONS
            place = game.place
            game.act(action)
            assert tuple(np.subtract(game.place, place)) in ((0, 0), MOVES.get(action))
            column, row = np.subtract(game.place, camera) + 3
            name = WORDS[after[1 + row, column]]
            assert name.startswith("player-"), "the camera stands still, the player walks"
            if action in MOVES:
                assert name == "player-" + action.removeprefix("move_")
    assert np.mean(same) > 0.98, "creatures of a copied game may walk elsewhere, all else is the same"
    assert len({sequence.end for sequence in walk}) > 8, "an explorer gets about"


def test_a_moment_is_drawn_as_the_game_draws_it(walk: Any) -> None:
    from crafter_tokens import drawn

    game = deepcopy(walk[0].start)
    game._world.daylight = 1.0
    theirs = game._local_view(game._player, [16, 16]).transpose(1, 0, 2)[:, 16:-16]  # 7 of its 9 columns
    ours = drawn(game.tokens("noop", game.place))
    assert ours.shape == theirs.shape == (112, 112, 3)
    same = (np.abs(ours.astype(int) - theirs) < 2).all(axis=2)
    assert same.mean() > 0.95, "only the ground below things is guessed"


def test_a_mirror_image_is_a_game_too(walk: Any) -> None:
    from crafter_model import mirrored
    from crafter_tokens import NUMBER

    tokens = np.stack([sequence.tokens for sequence in walk])
    for axis, swapped in (("x", ("move_left", "move_right")), ("y", ("player-up", "player-down"))):
        turned = mirrored(tokens, axis)
        assert np.array_equal(mirrored(turned, axis), tokens)
        one, other = (NUMBER[name] for name in swapped)
        assert ((turned == one).sum(), (turned == other).sum()) == ((tokens == other).sum(), (tokens == one).sum())
        assert np.array_equal(turned[..., 0, 1:], tokens[..., 0, 1:]), "what the player has stays"
    assert np.array_equal(mirrored(tokens, "x")[..., 1:, 0] == NUMBER["tree"], tokens[..., 1:, -1] == NUMBER["tree"])


def test_the_rule_steps_where_the_way_is_free(walk: Any) -> None:
    from crafter_tokens import NUMBER
    from frames import PLAYER, stepped

    before = torch.full((7, 7), NUMBER["grass"])
    before[3, 3], before[3, 4] = NUMBER["player-down"], NUMBER["tree"]
    up = stepped(before, NUMBER["move_up"])
    assert up[2, 3] == NUMBER["player-up"]
    assert up[3, 3] == NUMBER["grass"]
    right = stepped(before, NUMBER["move_right"])
    assert (right != before).nonzero().tolist() == [[3, 3]], "against a tree the player only turns"
    assert torch.equal(stepped(before, NUMBER["do"]), before)
    for sequence in walk:
        moments = torch.from_numpy(sequence.tokens)
        after = stepped(moments[-2, 1:], int(moments[-1, 0, 0]))
        assert torch.equal(torch.isin(after, PLAYER), torch.isin(moments[-1, 1:], PLAYER)), "it knows where one gets"


def test_recorded_actions_reach_their_goal_and_so_do_straight_ways_in_the_open(walk: Any) -> None:
    from crafter_model import actions_of, tensor
    from plans import distance, names, reaches, straight

    pairs = list(zip(walk, tensor(walk), strict=True))
    for sequence, tokens in pairs:
        assert reaches(sequence, []) == (distance(sequence) == 0)
        assert len(straight(tokens)) == distance(sequence)
    # Not always: a creature may stand in the way that it did not when the explorer came by.
    assert np.mean([reaches(sequence, names(actions_of(tokens[None])[0])) for sequence, tokens in pairs]) > 0.9
    assert np.mean([reaches(sequence, straight(tokens)) for sequence, tokens in pairs]) > 0.6


def test_three_questions_to_one_network(tmp_path: Path) -> None:
    import actions
    import frames
    import plans
    from crafter_model import Options, held_out, tensor

    settings = Options(out=tmp_path, steps=2, worlds=1, world_steps=40, held_out=1)
    tokens = tensor(held_out(settings, every=3))
    unknown = frames.unknown_after(tokens, known=3) == -1
    assert unknown[:, -1].sum() == len(tokens) * 55
    assert unknown.sum() == unknown[:, -1].sum(), "a frame without its action"
    unknown = actions.unknown_actions(tokens) == -1
    assert unknown.sum() == len(tokens) * 3 == unknown[:, 1:, 0, 0].sum()
    unknown = plans.questions(tokens) == -1
    assert (~unknown).sum() == len(tokens) * (56 + 49), "the first moment and the last view"
    results = frames.measure(settings) | actions.measure(settings, 20) | plans.measure(settings, every=1)
    assert results["frames.copy"] > 0.5 > results["frames.copy_where_changed"] == 0
    assert results["frames.rule"] > results["frames.copy"]
    assert results["plans.straight"] > results["plans.random_moves"]
    assert results["plans.recorded_actions"] > 0.9
    over = results["actions.accuracy"] - results["actions.most_frequent"]
    assert results["actions.accuracy_over_chance"] == pytest.approx(over)
    assert (tmp_path / "frames.png").exists()
    with pytest.raises(ValueError, match="was made of other inputs"):
        frames.measure(replace(settings, worlds=2))


def test_the_record_holds_what_every_example_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES.parent / "studies")
    import examples

    names = {"frames": "frames", "actions": "actions", "plans": "plans", "characters": "text", "speech": "audio"}
    for number, (module, question) in enumerate(names.items()):
        monkeypatch.setattr(f"{module}.measure", lambda *_, key=question, value=number: {f"{key}.x": value / 8})
    words = ["examples.py", "--recordings", "waves", "--steps", "3", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    examples.main()
    record = json.loads((tmp_path / "examples.json").read_text())
    assert record["metrics"] == {f"{key}.x": number / 8 for number, key in enumerate(names.values())}
    assert set(record["protocol"]) == set(record["timings"]) == set(names.values())
    assert record["command"].endswith("--steps 3")
    assert record["commit"]
