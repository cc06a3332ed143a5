"""The study: data sets x partitions x strategies x seeds, as tables and figures."""
