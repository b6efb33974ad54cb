"""The report card: results, runs, drawings and pairs on one page that loads nothing."""
