"""The small evaluator, and a cache of its own for each test."""

from tests.evaluator_fixtures import evaluator as evaluator
from tests.evaluator_fixtures import own_cache as own_cache
