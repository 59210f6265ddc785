"""How fast a deployment is here, and against what, in one alternated run."""
