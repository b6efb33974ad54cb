"""The report: results, runs, pictures and pairs on one page that loads nothing."""
