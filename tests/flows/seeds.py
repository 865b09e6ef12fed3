"""The seed of every random flow. It is the same each time: a commit passes or fails, whoever runs it and however often; new questions
come with `script/campaign seeds`, which draws one seed after another. VECKEEP_SEED replays (conftest prints it when a run ends)."""
import os

SEED = int(os.environ.get("VECKEEP_SEED", 20261123))
