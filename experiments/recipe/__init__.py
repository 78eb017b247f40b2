"""The recipe of the next backbone, decided at small scale; see `experiments.recipe.study`."""
