"""What all tests share: hypothesis without time limits."""

from hypothesis import settings

settings.register_profile("parnet", deadline=None, derandomize=True)
settings.load_profile("parnet")
