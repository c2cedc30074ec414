"""Judging results: metrics on held-out views, facts about files, the report page of a run."""
