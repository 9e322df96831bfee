"""The published settings are understood by their programs, up to the first step."""

import pytest


@pytest.mark.parametrize(
    ("program", "config", "more"),
    [
        ("pretrain_qformer", "qformer", ("--bert", "null")),
        ("pretrain_projection", "projection", ()),
        ("tune_instructions", "instructions", ()),
        ("finetune_diffusion", "finetune_diffusion", ()),
    ],
)
def test_settings_are_read(run_program, small_world, tmp_path, capsys, program, config, more):
    places = ("--data", small_world, "--model", "storyworld-mini", "--out", tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        run_program(
            f"training/{program}", "--config", f"configs/minigpt5-7b/{config}.yaml", *places, *more, "--dry_run", "true"
        )
    assert end.value.code == 0 and "together" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
